"""The runner: rows in, rows out, through every operator of a model, without the GIL.

Whole calls (`Runner.call`), streams and pools run on it. A run is planned and laid out as a call of the
engine is: `plan_run` says how much memory some steps of some rows want, `lay_out_run` gives it to them,
`run_path` runs them. Nothing here checks an argument but for what makes a call plain. Nothing allocates
but a RunSpace, and a call its results.

A Runner never changes once it is made, but for the lists of what calls use, out of which a thread takes what
no other thread has. A RunSpace belongs to one call, stream or pool.
"""

cimport numpy as cnp
from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree
from libc.string cimport memcpy, memset

from fastrnn.engine.call cimport States
from fastrnn.engine.plan cimport slices_of
from fastrnn.engine.row_order cimport Order, lay_out_order, order_bytes, sort_rows
from fastrnn.engine.plain_arrays cimport are_in_range, are_tokens, is_apart, is_plain
from fastrnn.engine.workspace cimport Spares, Workspace, aligned
from fastrnn.operators.operator cimport (
    MOST_STATES, Extent, Operator, OperatorInfo,
)

cnp.import_array()

# What lies between operators is there twice: the sum of both is a size still.
cdef Py_ssize_t MOST_BYTES = <Py_ssize_t>1 << 60

# A step that reads no more bytes of weights is over in about a microsecond (a few of baseline).
cdef Py_ssize_t SHORT_BYTES = 256 * 1024


cdef class Runner:
    """Operators in order, in compiled code; immutable, shared by streams and threads."""

    def __cinit__(self, operators):
        """Operators that fit one another and give one dtype. The first one says how many features it takes,
        or takes tokens."""
        cdef Path *path = &self.path
        cdef OperatorInfo *info
        cdef Py_ssize_t features = 0, row_bytes
        cdef Operator operator
        cdef int i
        self.operators = tuple(operators)
        path.count = <int>len(self.operators)
        path.operators = <OperatorInfo *>PyMem_RawCalloc(path.count, sizeof(OperatorInfo))
        if path.operators == NULL:
            raise MemoryError
        path.threads = 1
        for i in range(path.count):
            operator = <Operator?>self.operators[i]
            info = &path.operators[i]
            info[0] = operator.info
            if i == 0:
                self.features_in = info.features_in
                self.tokens = info.tokens
                path.in_bytes = (
                    info.features_in * info.itemsize if info.tokens == 0 else <Py_ssize_t>sizeof(Py_ssize_t))
            if info.features_out == 0:
                info.features_in = info.features_out = features
            features = info.features_out
            row_bytes = features * info.itemsize
            path.widest = max(path.widest, row_bytes)
            path.out_bytes = row_bytes
            path.use_bytes += aligned(info.use_bytes)
            if info.states > 0:
                path.stateful += 1
            self.gives_last = self.gives_last or info.can.give != NULL
            self.weight_bytes += info.weight_bytes if info.weight_bytes else row_bytes
            path.threads = max(path.threads, info.threads)
        self.features_out = features
        self.type_number = operator.type_number
        self.spaces = []
        self.spares = Spares()

    def __dealloc__(self):
        PyMem_RawFree(self.path.operators)

    # ------------------------------------------------------------ whole calls

    def call(self, x, state=None, out=None, lengths=None, bint batch_first=False):
        """Run whole sequences in the plain case: arrays that need neither conversion nor a message.

        x (T, B, features), (B, T, features) with batch_first, or (T, features); tokens without the last
        axis. It is C-contiguous, but before a recurrent operator only its last axis has to be. state: None
        for the initial one; h, or a pair (h, c), of the one operator that has a state; or a tuple of those.
        out: None, or of the output's shape. lengths: None, or an array of intp (B,). All are C-contiguous.
        Gives (output, state). For any other arguments it gives None and does nothing.
        """
        cdef cnp.npy_intp shape[3]
        cdef Extent extent
        cdef int axes, i
        cdef cnp.ndarray y
        cdef RunSpace space
        if not cnp.PyArray_CheckExact(x):
            return None
        axes = cnp.PyArray_NDIM(x) + (self.tokens > 0)
        if (axes != 2 and axes != 3) or cnp.PyArray_SIZE(x) == 0:
            return None
        for i in range(cnp.PyArray_NDIM(x)):
            shape[i] = cnp.PyArray_DIM(x, i)
        extent.is_batch_first = batch_first and axes == 3
        extent.T = shape[extent.is_batch_first]
        extent.B = 1 if axes == 2 else shape[not extent.is_batch_first]
        extent.order = NULL
        extent.is_strided = False
        if self.tokens:
            if not are_tokens(x, axes - 1, shape, self.tokens):
                return None
        elif not self.takes(x, axes, &extent):
            return None
        if lengths is not None and not are_lengths(lengths, axes, &extent):
            return None
        if state is not None and not self.takes_state(state, axes, extent.B, out):
            return None
        shape[axes - 1] = self.features_out
        if self.gives_last:
            shape[0] = extent.B if axes == 3 else self.features_out
            shape[1] = self.features_out
        if out is None:
            y = cnp.PyArray_EMPTY(axes - self.gives_last, shape, self.type_number, 0)
        elif (
            is_plain(out, axes - self.gives_last, shape, self.type_number) and cnp.PyArray_ISCARRAY(out)
            and is_apart(out, x)
        ):
            y = out
        else:
            return None
        try:
            space = self.spaces.pop()
        except IndexError:
            space = RunSpace(self)
        after = self.new_state(state, axes, extent.B, out is None, &space.run)
        self.run(space, x, y, lengths, &extent)
        return y, after

    cdef bint takes(self, x, int axes, Extent *extent) noexcept:
        """Whether x is plain numbers; where it has strides, as the first operator takes it."""
        cdef int type_number = (<Operator>self.operators[0]).type_number
        cdef Py_ssize_t features = cnp.PyArray_DIM(x, axes - 1)
        if cnp.PyArray_TYPE(x) != type_number or (self.features_in and features != self.features_in):
            return False
        if cnp.PyArray_ISCARRAY_RO(x):
            return self.features_in > 0
        # Only what makes steps itself finds its rows by their strides.
        if (
            not self.path.operators[0].takes_strides or not cnp.PyArray_ISBEHAVED_RO(x)
            or (features > 1 and cnp.PyArray_STRIDE(x, axes - 1) != cnp.PyArray_ITEMSIZE(x))
        ):
            return False
        extent.is_strided = True
        extent.x_step = cnp.PyArray_STRIDE(x, extent.is_batch_first)
        extent.x_row = 0 if axes == 2 else cnp.PyArray_STRIDE(x, not extent.is_batch_first)
        return True

    cdef bint takes_state(self, state, int axes, Py_ssize_t B, out):
        """Whether a state is plain, and apart from out, if that is given."""
        cdef cnp.npy_intp shape[3]
        cdef const OperatorInfo *info
        cdef int i, j, index = 0
        if self.path.stateful != 1 and (type(state) is not tuple or len(state) != self.path.stateful):
            return False
        for i in range(self.path.count):
            info = &self.path.operators[i]
            if info.states == 0:
                continue
            part = state if self.path.stateful == 1 else state[index]
            index += 1
            if info.states > 1 and (type(part) is not tuple or len(part) != info.states):
                return False
            for j in range(info.states):
                array = part[j] if info.states > 1 else part
                shape[0] = info.state[j].layers
                shape[1] = B
                shape[axes - 1] = info.state[j].columns
                if (
                    not is_plain(array, axes, shape, (<Operator>self.operators[i]).type_number)
                    or not cnp.PyArray_ISCARRAY_RO(array)
                    or (out is not None and not is_apart(out, array))
                ):
                    return False
        return True

    cdef object new_state(self, state, int axes, Py_ssize_t B, bint is_new, Run *run):
        """A copy of the given state, or the initial one: None, that of the one operator that has a state, or
        a tuple of them. The run finds its arrays there."""
        cdef cnp.npy_intp shape[3]
        cdef const OperatorInfo *info
        cdef cnp.ndarray array, first = None
        cdef list parts = None
        cdef int i, j, index = 0, type_number
        cdef char **arrays = run.arrays
        given = made = None
        for i in range(self.path.count):
            info = &self.path.operators[i]
            if info.states == 0:
                continue
            if state is not None:
                given = state if self.path.stateful == 1 else state[index]
            type_number = (<Operator>self.operators[i]).type_number
            for j in range(info.states):
                shape[0] = info.state[j].layers
                shape[1] = B
                shape[axes - 1] = info.state[j].columns
                if is_new:
                    array = cnp.PyArray_EMPTY(axes, shape, type_number, 0)
                else:
                    array = self.spares.take(axes, shape, type_number)
                arrays[0] = cnp.PyArray_BYTES(array)
                arrays += 1
                if given is None:
                    begin(info, j, B, cnp.PyArray_BYTES(array))
                else:
                    initial = given[j] if info.states > 1 else given
                    memcpy(cnp.PyArray_DATA(array), cnp.PyArray_DATA(initial), cnp.PyArray_NBYTES(array))
                if j == 0:
                    first = array
            made = first if info.states == 1 else (first, array)
            if self.path.stateful > 1:
                parts = [made] if parts is None else [*parts, made]
            index += 1
        return made if parts is None else tuple(parts)

    cdef int run(self, RunSpace space, cnp.ndarray x, cnp.ndarray y, lengths, Extent *extent) except -1:
        """Run plain arrays; the states, which the run knows, in place."""
        cdef Run *run = &space.run
        cdef Order order
        cdef size_t head = 0, size
        cdef const char *source = cnp.PyArray_BYTES(x)
        cdef char *target = cnp.PyArray_BYTES(y)
        if lengths is not None:
            head = order_bytes(extent.B)
            space.reserve(head)
        while True:
            if lengths is not None:
                lay_out_order(&order, extent.B, space.workspace.data)
                sort_rows(&order, extent.T, extent.B, <const Py_ssize_t *>cnp.PyArray_DATA(lengths))
                extent.order = &order
            run.extent = extent[0]
            run.threads = self.path.threads
            size = head + plan_run(&self.path, run)
            if size <= space.workspace.size:
                break
            # What was laid out is lost.
            space.reserve(max(size, head + run_room(&self.path, extent, self.path.threads)))
        with nogil:
            place_states(&self.path, run, extent.B)
            lay_out_run(&self.path, run, space.workspace.data + head)
            run_path(&self.path, run, source, target)
        if not space.workspace.is_large():
            self.spaces.append(space)
        return 0

    # ------------------------------------------------------------ steps of streams

    cdef bint has_short_step(self, Py_ssize_t B) noexcept:
        """Whether a step of B rows is over so soon that there is no point in giving the GIL away."""
        return B * self.weight_bytes <= SHORT_BYTES

    cdef int run_steps(self, RunSpace space, Py_ssize_t T, Py_ssize_t B, const char *x, char *y) except -1:
        """Run T steps of B rows, on states that were placed. x and y are C-contiguous, with time first."""
        cdef const Path *path = &self.path
        cdef Run *run = &space.run
        cdef Py_ssize_t steps, rest, planned = 0
        cdef size_t size
        if T == 0:
            return 0
        # A lone operator cuts time by itself.
        steps = T if path.count == 1 else min(T, steps_together(B))
        rest = T % steps
        # All memory first: a state that has moved cannot go back.
        size = fitting_bytes(path, run, steps, B)
        if rest:
            size = max(size, fitting_bytes(path, run, rest, B))
        if size > run.bytes:
            size = max(size, steps_room(path, steps, B))
            if rest:
                size = max(size, steps_room(path, rest, B))
            space.reserve_steps(size, 0)
        with nogil:
            while T > 0:
                steps = min(steps, T)
                if steps != planned:
                    plan_steps(path, run, steps, B, path.threads)
                    planned = steps
                run_path(path, run, x, y)
                x += steps * B * path.in_bytes
                y += steps * B * path.out_bytes
                T -= steps
        space.shrink()
        return 0


cdef void begin(const OperatorInfo *info, int j, Py_ssize_t B, char *array) noexcept nogil:
    """Let an array of a state, (layers, B, columns), be the initial one."""
    cdef Py_ssize_t row = info.state[j].columns * info.itemsize, i
    if info.initial[j] == NULL:
        memset(array, 0, info.state[j].layers * B * row)
    else:
        for i in range(info.state[j].layers * B):
            memcpy(array + i * row, info.initial[j] + i // B * row, row)


cdef bint are_lengths(lengths, int axes, const Extent *extent) noexcept:
    cdef cnp.npy_intp B = extent.B
    return (
        axes == 3 and is_plain(lengths, 1, &B, cnp.NPY_INTP) and cnp.PyArray_ISCARRAY_RO(lengths)
        and are_in_range(lengths, 1, extent.T + 1))


# ---------------------------------------------------------------- a run

cdef class RunSpace:
    """A run along a path, and its memory, which is kept."""

    def __cinit__(self, Runner runner not None):
        cdef size_t sizes = aligned(runner.path.count * sizeof(size_t))
        cdef size_t arrays = aligned(runner.path.stateful * MOST_STATES * sizeof(char *))
        self.workspace = Workspace()
        # What does not depend on how many steps and rows there are: one piece, sizes first.
        self.run.sizes = <size_t *>PyMem_RawCalloc(1, sizes + arrays + runner.path.use_bytes)
        if self.run.sizes == NULL:
            raise MemoryError
        self.run.arrays = <char **>(<char *>self.run.sizes + sizes)
        self.run.uses = <char *>self.run.sizes + sizes + arrays

    def __dealloc__(self):
        PyMem_RawFree(self.run.sizes)

    cdef int reserve(self, size_t size) except -1:
        return self.workspace.reserve(size)

    cdef int reserve_steps(self, size_t size, size_t besides) except -1:
        """Have this much memory for steps of streams, and some besides."""
        besides = aligned(besides)
        self.run.bytes = 0  # for the case that there is no memory, or that another thread forks now
        self.workspace.reserve(besides + size)
        self.besides = self.workspace.data
        self.run.memory = self.workspace.data + besides
        self.run.bytes = self.workspace.size - besides
        return 0

    cdef int shrink(self) except -1:
        """Give back memory that is too large to be kept."""
        if self.workspace.is_large():
            self.run.bytes = 0
            self.workspace = Workspace()
        return 0


cdef size_t plan_run(const Path *path, Run *run) noexcept nogil:
    """Plan the extent of a run, and give the memory that it wants."""
    cdef size_t total = 2 * between_bytes(path, &run.extent)
    cdef Extent extent = run.extent
    cdef char *use = run.uses
    cdef const OperatorInfo *info
    cdef int i
    for i in range(path.count):
        info = &path.operators[i]
        if info.can.plan != NULL:
            run.sizes[i] = info.can.plan(info, use, &extent, threads_of(info, run.threads))
            total += aligned(run.sizes[i])
        use += aligned(info.use_bytes)
        go_on(info, &extent)
    return total


cdef size_t run_room(const Path *path, const Extent *extent, int threads) noexcept nogil:
    """The memory that such runs want at most, whoever is free and whatever sharing costs then."""
    cdef size_t total = 2 * between_bytes(path, extent)
    cdef Extent own = extent[0]
    cdef const OperatorInfo *info
    cdef int i
    for i in range(path.count):
        info = &path.operators[i]
        if info.can.room != NULL:
            total += aligned(info.can.room(info, &own, threads_of(info, threads)))
        go_on(info, &own)
    return total


cdef void lay_out_run(const Path *path, Run *run, char *memory) noexcept nogil:
    """Give a run that is planned its memory."""
    cdef char *use = run.uses
    cdef const OperatorInfo *info
    cdef int i
    for i in range(2):
        run.between[i] = memory
        memory += between_bytes(path, &run.extent)
    for i in range(path.count):
        info = &path.operators[i]
        if info.can.lay_out != NULL:
            info.can.lay_out(info, use, memory)
            memory += aligned(run.sizes[i])
        use += aligned(info.use_bytes)


cdef inline int threads_of(const OperatorInfo *info, int threads) noexcept nogil:
    """How many threads an operator may use in a run that may use this many. Nothing else limits it."""
    return min(threads, info.threads)


cdef inline void go_on(const OperatorInfo *info, Extent *extent) noexcept nogil:
    """Let an extent be what an operator gives."""
    extent.is_strided = False
    if info.can.give != NULL:
        info.can.give(info, extent)


cdef inline size_t between_bytes(const Path *path, const Extent *extent) noexcept nogil:
    """What lies between two operators; for more than any memory has, a size that none has."""
    if path.count < 2:
        return 0
    if extent.T > MOST_BYTES // path.widest // extent.B:
        return MOST_BYTES
    return aligned(extent.T * extent.B * path.widest)


cdef void run_path(const Path *path, Run *run, const char *x, char *y) noexcept nogil:
    """x through all operators into y. The states hold those before, and then those after the last step."""
    cdef Extent extent = run.extent
    cdef const char *source = x
    cdef char *target
    cdef char *use = run.uses
    cdef const OperatorInfo *info
    cdef int i, which = 0
    for i in range(path.count):
        info = &path.operators[i]
        if i == path.count - 1:
            target = y
        elif info.is_in_place and i > 0:
            target = <char *>source
        else:
            target = run.between[which]
            which ^= 1
        info.can.run(info, use, &extent, source, target)
        use += aligned(info.use_bytes)
        source = target
        go_on(info, &extent)


# ---------------------------------------------------------------- steps of streams

cdef inline void of_steps(Run *run, Py_ssize_t T, Py_ssize_t B, int threads) noexcept nogil:
    """Let a run be T steps of B rows, in the order of time, on this many threads at most."""
    run.extent.T = T
    run.extent.B = B
    run.extent.is_batch_first = False
    run.extent.order = NULL
    run.extent.is_strided = False
    run.threads = threads


cdef size_t steps_room(const Path *path, Py_ssize_t T, Py_ssize_t B) noexcept nogil:
    """The memory that they want at most, whatever threads are free and whatever sharing costs."""
    cdef Run run
    of_steps(&run, T, B, path.threads)
    return run_room(path, &run.extent, path.threads)


cdef size_t fitting_bytes(const Path *path, Run *run, Py_ssize_t T, Py_ssize_t B) noexcept nogil:
    """The memory that is enough for `plan_steps`: for the plan of now, and for that of one thread, which may
    want more. When the steps are planned, other threads may be free than now."""
    cdef size_t size
    of_steps(run, T, B, 1)
    size = plan_run(path, run)
    if path.threads > 1:
        run.threads = path.threads
        size = max(size, plan_run(path, run))
    return size


cdef void plan_steps(const Path *path, Run *run, Py_ssize_t T, Py_ssize_t B, int threads) noexcept nogil:
    """Plan steps on this many threads at most, and lay them out in the run's memory.

    It is enough for the plan of one thread (`steps_room`). Where it is not for that of several, one does it
    all."""
    of_steps(run, T, B, threads)
    if plan_run(path, run) > run.bytes:
        run.threads = 1
        plan_run(path, run)
    lay_out_run(path, run, run.memory)


cdef bint may_share(const Path *path, Py_ssize_t T, Py_ssize_t B) noexcept nogil:
    """Whether an operator may use several threads, if all of them are free and close."""
    cdef Run run
    cdef const OperatorInfo *info
    cdef int i
    of_steps(&run, T, B, path.threads)
    for i in range(path.count):
        info = &path.operators[i]
        if info.can.may_share != NULL and info.can.may_share(
            info, &run.extent, threads_of(info, run.threads),
        ):
            return True
        go_on(info, &run.extent)
    return False


cdef double steps_ns(const Path *path, Py_ssize_t T, Py_ssize_t B) noexcept nogil:
    """The time of one core, by the cost model."""
    cdef double total = 0
    cdef Run run
    cdef const OperatorInfo *info
    cdef int i
    of_steps(&run, T, B, 1)
    for i in range(path.count):
        info = &path.operators[i]
        if info.can.cost != NULL:
            total += info.can.cost(info, &run.extent)
        go_on(info, &run.extent)
    return total


cdef int slices_apart(const Path *path, double time, Py_ssize_t most) noexcept nogil:
    """Among how many threads, now, to divide rows that go through all operators without waiting for one
    another: work that takes one core this many nanoseconds, in this many slices at most."""
    return slices_of(time, most, path.threads)


# ---------------------------------------------------------------- where states lie

cdef void place_arrays(const Path *path, Run *run, list arrays, Py_ssize_t B):
    """Let the states of B rows be in these arrays, (layers, B, columns), C-contiguous, of all operators in
    order. They are changed in place."""
    cdef cnp.ndarray array
    cdef int i
    for i in range(len(arrays)):
        array = arrays[i]
        run.arrays[i] = cnp.PyArray_BYTES(array)
    place_states(path, run, B)


cdef void place_states(const Path *path, Run *run, Py_ssize_t B) noexcept nogil:
    """Let the states of a run be in its arrays, (layers, B, columns), C-contiguous."""
    cdef const OperatorInfo *info
    cdef States states[MOST_STATES]
    cdef char *use = run.uses
    cdef char **arrays = run.arrays
    cdef int i, j
    for i in range(path.count):
        info = &path.operators[i]
        for j in range(info.states):
            states[j].data = arrays[j]
            states[j].row = info.state[j].columns * info.itemsize
            states[j].layer = B * states[j].row
            states[j].order = NULL
        if info.can.place != NULL:
            info.can.place(info, use, states)
        arrays += info.states
        use += aligned(info.use_bytes)


cdef void place_records(
    const Path *path, Run *run, char *records, Py_ssize_t record_bytes, const Py_ssize_t *slots,
) noexcept nogil:
    """Let row b's states be those in record slots[b]: the arrays of all operators, one after the other."""
    cdef const OperatorInfo *info
    cdef States states[MOST_STATES]
    cdef char *use = run.uses
    cdef int i, j
    cdef Py_ssize_t b = 1
    while b < run.extent.B and slots[b] == slots[0] + b:
        b += 1
    if b == run.extent.B:
        # Records in a row need no order: a step of 1,024 streams, LSTM of 128 units, takes 0.97 of the time.
        records += slots[0] * record_bytes
        slots = NULL
    for i in range(path.count):
        info = &path.operators[i]
        for j in range(info.states):
            states[j].data = records
            states[j].layer = info.state[j].columns * info.itemsize
            states[j].row = record_bytes
            states[j].order = slots
            records += info.state[j].layers * states[j].layer
        if info.can.place != NULL:
            info.can.place(info, use, states)
        use += aligned(info.use_bytes)
