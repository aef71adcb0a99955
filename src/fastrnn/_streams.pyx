"""What makes the steps of streams: of one (Stepper) and of many on one set of weights (Slots).

The bases of Stream and StreamPool. A plain step, of arrays that need neither conversion nor a message, is
made here without a Python object on the way but its result; `_step_checked` of the subclass makes all others.
"""

import sys

cimport numpy as cnp
import numpy as np
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc, PyMem_RawRealloc
from libc.stdint cimport int64_t
from libc.stdlib cimport qsort
from libc.string cimport memcpy, memset

from fastrnn._chain cimport (
    Chain, ChainWork, Flow, FlowSpace, flow_ns, gather_states, lay_out_flow, plan_flow, run_flow,
    scatter_states,
)
from fastrnn._engine cimport Workspace, is_apart, is_plain
from fastrnn._plan cimport count, rows_before, slices_of
from fastrnn._threads cimport FRNN_MOST_THREADS, share

cnp.import_array()

cdef extern from "Python.h":
    Py_ssize_t PyNumber_AsSsize_t(object number, void *overflow)  # NULL: a number too large is the largest

cdef extern from "numpy/arrayobject.h":
    bint PyArray_IsIntegerScalar(object number)

cdef extern from *:
    """
    #if defined(_MSC_VER)
    #include <intrin.h>
    #define frnn_take(flag) (!_InterlockedExchange8((flag), 1))
    #define frnn_give(flag) ((void)_InterlockedExchange8((flag), 0))
    #else
    #define frnn_take(flag) (!__atomic_exchange_n((flag), 1, __ATOMIC_ACQUIRE))
    #define frnn_give(flag) (__atomic_store_n((flag), 0, __ATOMIC_RELEASE))
    #endif
    """
    bint frnn_take(char *flag) noexcept nogil
    void frnn_give(char *flag) noexcept nogil

# A step that reads no more bytes of weights is over in about a microsecond (a few of baseline): too short to
# give the GIL away and take it back. Where there is none, no step is short.
cdef Py_ssize_t SHORT_BYTES = 256 * 1024 if getattr(sys, "_is_gil_enabled", lambda: True)() else -1
# Rows that go through several layers together: enough to use the weights that they read, few enough that
# what lies between two layers stays in a cache.
cdef Py_ssize_t FLOW_ROWS = 1024
# Streams of a pool that are stepped together: their states and gates stay in the second-level cache.
cdef Py_ssize_t POOL_ROWS = 64
# A thread that helps with the steps of a pool has so many streams at least.
cdef Py_ssize_t SLICE_STREAMS = 8
# An id: the lowest bits are the slot.
cdef int SLOT_BITS = 32
cdef int64_t MOST_SLOTS = (<int64_t>1 << SLOT_BITS) - 1


cdef class Stepper:
    """Steps of one sequence, or of rows that go in step, on states of its own."""

    cdef Chain chain            # None: no step is plain
    cdef FlowSpace steps        # planned for one step
    cdef FlowSpace chunks
    cdef list states
    cdef Py_ssize_t B
    cdef int axes
    cdef cnp.npy_intp x_shape[2]
    cdef cnp.npy_intp y_shape[2]
    cdef bint is_short
    cdef char is_taken

    def _bind(self, Chain chain not None, list states, batch_size):
        """Step these states from now on, in place: of each recurrent layer h (L, B, P), and c (L, B, H) or
        None, without B where batch_size is None; C-contiguous, of the chain's dtype."""
        cdef FlowSpace space
        cdef int i
        self.chain = chain
        self.states = states
        self.B = 1 if batch_size is None else batch_size
        self.axes = 1 if batch_size is None else 2
        self.x_shape[0] = self.y_shape[0] = self.B
        if chain.tokens == 0:
            self.x_shape[self.axes - 1] = chain.features_in
        self.y_shape[self.axes - 1] = chain.features_out
        self.is_short = self.B * chain.weight_bytes <= SHORT_BYTES
        self.steps = FlowSpace(chain)
        self.chunks = FlowSpace(chain)
        for space in (self.steps, self.chunks):
            for i in range(chain.work.stacks):
                space.flow.h[i] = cnp.PyArray_BYTES(states[i][0])
                space.flow.c[i] = NULL if states[i][1] is None else cnp.PyArray_BYTES(states[i][1])
        self.steps.reserve(plan_flow(&chain.work, &self.steps.flow, 1, self.B, chain.threads))
        lay_out_flow(&chain.work, &self.steps.flow, self.steps.workspace.data)

    def _take(self, str method):
        """Keep other threads away until `_give`; or raise, where one is at work already."""
        if not frnn_take(&self.is_taken):
            raise RuntimeError(f"Stream.{method}: expected one thread at a time, got a second one.")

    def _give(self):
        frnn_give(&self.is_taken)

    def step(self, x, out=None):
        """Make one time step.

        Parameters
        ----------
        x : array-like, shape (I,) or (B, I)
            Real numbers; tokens: integers, shape () or (B,).
        out : ndarray, optional
            Where the result goes; C-contiguous, of its shape and dtype, apart from ``x``.

        Returns
        -------
        ndarray, shape (features,) or (B, features)
            Of the dtype of the last layer that has one; ``out`` if given.

        Raises
        ------
        ValueError
            The shape of ``x``, a token or ``out`` does not fit.
        TypeError
            ``x`` does not hold real numbers (of tokens: whole ones), or ``out`` is no ndarray.
        RuntimeError
            Another thread is using the stream.
        """
        cdef cnp.ndarray y
        cdef Py_ssize_t token
        cdef const char *source
        cdef Chain chain = self.chain
        if chain is None:
            return self._step_checked(x, out)
        if chain.tokens == 0:
            if not is_plain(x, self.axes, self.x_shape, chain.type_number) or not cnp.PyArray_ISCARRAY_RO(x):
                return self._step_checked(x, out)
            source = cnp.PyArray_BYTES(x)
        elif self.axes == 1 and is_whole(x):
            token = PyNumber_AsSsize_t(x, NULL)
            if token < 0 or token >= chain.tokens:
                return self._step_checked(x, out)
            source = <const char *>&token
        elif are_tokens(x, self.axes - 1, self.x_shape, chain.tokens):
            source = cnp.PyArray_BYTES(x)
        else:
            return self._step_checked(x, out)
        if out is None:
            y = cnp.PyArray_EMPTY(self.axes, self.y_shape, chain.type_number, 0)
        else:
            if (
                not is_plain(out, self.axes, self.y_shape, chain.type_number)
                or not cnp.PyArray_ISCARRAY(out)
                or (cnp.PyArray_Check(x) and not is_apart(out, x))
            ):
                return self._step_checked(x, out)
            y = out
        if not frnn_take(&self.is_taken):
            self._take("step")
        if self.is_short:
            run_flow(&chain.work, &self.steps.flow, source, cnp.PyArray_BYTES(y))
        else:
            with nogil:
                run_flow(&chain.work, &self.steps.flow, source, cnp.PyArray_BYTES(y))
        frnn_give(&self.is_taken)
        return y

    def _advance_plain(self, cnp.ndarray x, cnp.ndarray y):
        """Run checked arrays: x (T, B, I), tokens (T, B) of intp, into y (T, B, features).

        Both are without B where the stream has no rows, C-contiguous, of the chain's dtype. Whoever calls
        has taken the stream.
        """
        cdef Chain chain = self.chain
        cdef Flow *flow = &self.chunks.flow
        cdef Py_ssize_t T = cnp.PyArray_DIM(x, 0), t = 0, steps, rest, most = T
        cdef const char *source = cnp.PyArray_BYTES(x)
        cdef char *target = cnp.PyArray_BYTES(y)
        if chain.work.count > 1:
            most = max(1, FLOW_ROWS // self.B)
        while t < T:
            steps = min(most, T - t)
            # As many blocks as are of that size: all but a last one.
            rest = t + (T - t) // steps * steps
            self.chunks.reserve(plan_flow(&chain.work, flow, steps, self.B, chain.threads))
            with nogil:
                lay_out_flow(&chain.work, flow, self.chunks.workspace.data)
                while t < rest:
                    run_flow(&chain.work, flow, source, target)
                    source += steps * self.B * chain.work.in_bytes
                    target += steps * self.B * chain.work.out_bytes
                    t += steps
        self.chunks.shrink()


cdef inline bint is_whole(object x) noexcept:
    """Whether that is a whole number, and no bool."""
    return type(x) is int or (PyArray_IsIntegerScalar(x) and type(x) is not bool)


cdef bint are_tokens(object x, int axes, const cnp.npy_intp *shape, Py_ssize_t tokens) noexcept:
    """Whether that is a plain array of tokens, all of which there are."""
    cdef const Py_ssize_t *data
    cdef Py_ssize_t i
    if not is_plain(x, axes, shape, cnp.NPY_INTP) or not cnp.PyArray_ISCARRAY_RO(x):
        return False
    data = <const Py_ssize_t *>cnp.PyArray_DATA(x)
    for i in range(cnp.PyArray_SIZE(x)):
        if data[i] < 0 or data[i] >= tokens:
            return False
    return True


# ---------------------------------------------------------------- many streams

cdef struct Part:
    # What one stream does in a call.
    Py_ssize_t steps
    Py_ssize_t index            # in the order of the caller
    Py_ssize_t slot
    const char *source          # (steps, features)
    char *target


cdef struct Turn:
    # A call for many streams, divided into blocks of them.
    const ChainWork *chain
    char *records
    const Part *parts           # (n,), longest first
    Py_ssize_t *slots           # (n,): those of the parts
    Py_ssize_t n
    Py_ssize_t blocks
    int slices
    int threads                 # that the steps of a block may use
    bint is_dense               # one step of each, rows in the order of the caller behind one another
    Flow **flows                # one a slice
    char **memory               # one a slice
    size_t size                 # of the memory


cdef struct Slot:
    int64_t uses                # how often it was given out before
    int64_t call                # the last one that had it
    Py_ssize_t vacant           # by place, not by slot: those that are closed, the next one last
    bint is_open


cdef class Slots:
    """The states of many streams in one block of memory, a record a stream, and their steps.

    An id is a slot's number and, above it, how often the slot was given out before: an id that is closed
    never comes back. Whoever calls holds the lock, but for `step` and `run`, which take it.
    """

    cdef Chain chain            # None: the subclass makes all steps, on copies of the states
    cdef list columns           # (L, columns, dtype) of each array of a stream's state
    cdef Workspace records      # (capacity, record_bytes)
    cdef Py_ssize_t record_bytes
    cdef Slot *table            # (capacity,)
    cdef readonly Py_ssize_t capacity
    cdef Py_ssize_t vacancies, room
    cdef int64_t call
    cdef Part *parts            # (room,): of a call
    cdef Py_ssize_t *slots      # (room,)
    cdef list spaces            # FlowSpaces, one a slice
    cdef size_t block_size      # of the memory of a slice
    cdef public object _lock
    cdef public bint _is_torn    # another thread was at it when the process was forked

    def _bind(self, Chain chain, list columns, Py_ssize_t capacity, lock):
        """Make room for so many streams, with no one open; columns: (L, columns, dtype) of each array of a
        state, in the order of a chain's records."""
        cdef FlowSpace space
        cdef Py_ssize_t n, size = 0
        cdef int threads
        self.chain = chain
        self.columns = columns
        self._lock = lock
        self.records = Workspace()
        self.spaces = []
        for layers, features, dtype in columns:
            size += layers * features * dtype.itemsize
        self.record_bytes = (size + 63) & ~63
        self._grow(capacity)
        if chain is not None:
            space = FlowSpace(chain)
            for threads in (1, chain.threads):
                for n in range(1, POOL_ROWS + 1):
                    self.block_size = max(
                        self.block_size, plan_flow(&chain.work, &space.flow, steps_of(n), n, threads))

    def __dealloc__(self):
        PyMem_RawFree(self.table)
        PyMem_RawFree(self.parts)
        PyMem_RawFree(self.slots)

    def __len__(self):
        return self.capacity - self.vacancies

    # ------------------------------------------------------------ opening and closing

    def _grow(self, Py_ssize_t capacity):
        """Have so many slots; those there are stay as they are."""
        cdef Workspace records = Workspace()
        cdef Slot *table
        cdef Py_ssize_t slot
        if capacity > MOST_SLOTS:
            raise MemoryError(f"StreamPool: expected at most {MOST_SLOTS} streams, got {capacity}.")
        records.reserve(max(64, capacity * self.record_bytes))
        table = <Slot *>PyMem_RawRealloc(self.table, capacity * sizeof(Slot))
        if table == NULL:
            raise MemoryError(f"StreamPool: expected memory for {capacity} streams, got none.")
        self.table = table
        memset(table + self.capacity, 0, (capacity - self.capacity) * sizeof(Slot))
        if self.capacity:
            memcpy(records.data, self.records.data, self.capacity * self.record_bytes)
        self.records = records
        for slot in range(capacity - 1, self.capacity - 1, -1):
            table[self.vacancies].vacant = slot
            self.vacancies += 1
        self.capacity = capacity

    def _open_slot(self):
        """Open a stream whose state is zeros, and give its id."""
        cdef Slot *slot
        cdef Py_ssize_t number
        self.check_whole("open")
        if self.vacancies == 0:
            self._grow(2 * self.capacity)
        number = self.table[self.vacancies - 1].vacant
        self.vacancies -= 1
        slot = &self.table[number]
        slot.is_open = True
        memset(self.records.data + number * self.record_bytes, 0, self.record_bytes)
        return slot.uses << SLOT_BITS | number

    def _close_slots(self, Py_ssize_t n):
        """Close the streams that were found last."""
        cdef Py_ssize_t i
        for i in range(n):
            self.table[self.parts[i].slot].is_open = False
            self.table[self.parts[i].slot].uses += 1
            self.table[self.vacancies].vacant = self.parts[i].slot
            self.vacancies += 1

    def _find(self, str method, ids):
        """Find the streams of these ids, all open and no two the same; give their number, or raise."""
        cdef Py_ssize_t n, i
        cdef cnp.ndarray array = None
        cdef const int64_t *numbers = NULL
        self.check_whole(method)
        if isinstance(ids, np.ndarray):
            if ids.ndim != 1 or ids.dtype.kind not in "iu":
                raise TypeError(
                    f"StreamPool.{method}: expected ids to be whole numbers in a row, "
                    f"got {ids.dtype} of shape {ids.shape}.")
            array = np.require(ids, np.int64, ("C", "A"))
            numbers = <const int64_t *>cnp.PyArray_DATA(array)
            n = cnp.PyArray_SIZE(array)
        else:
            if type(ids) is not list and type(ids) is not tuple:
                try:
                    ids = list(ids)
                except TypeError:
                    raise TypeError(
                        f"StreamPool.{method}: expected ids to be a sequence, got {type(ids).__name__}."
                    ) from None
            n = len(ids)
        self.make_room(n)
        self.call += 1
        for i in range(n):
            self.find_one(method, i, numbers[i] if numbers != NULL else whole_of(method, ids, i))
        return n

    cdef int check_whole(self, str method) except -1:
        if self._is_torn:
            raise RuntimeError(
                f"StreamPool.{method}: expected a pool that no thread was using at the fork, got one in the "
                "middle of a step. Make a new one.")
        return 0

    cdef int find_one(self, str method, Py_ssize_t index, int64_t number) except -1:
        cdef Py_ssize_t slot = <Py_ssize_t>(number & MOST_SLOTS)
        if (
            slot >= self.capacity or not self.table[slot].is_open
            or self.table[slot].uses != number >> SLOT_BITS
        ):
            hint = "It is closed." if self.was_open(number) else "open() gives one."
            raise ValueError(
                f"StreamPool.{method}: expected ids of open streams, got {number} at index {index}. {hint}")
        if self.table[slot].call == self.call:
            raise ValueError(
                f"StreamPool.{method}: expected each id once, got {number} again at index {index}.")
        self.table[slot].call = self.call
        self.parts[index].slot = slot
        self.parts[index].index = index
        return 0

    cdef bint was_open(self, int64_t number) noexcept:
        cdef Py_ssize_t slot = <Py_ssize_t>(number & MOST_SLOTS)
        return slot < self.capacity and 0 <= number >> SLOT_BITS < self.table[slot].uses

    cdef int make_room(self, Py_ssize_t n) except -1:
        """Have parts and slots for n streams."""
        if n <= self.room:
            return 0
        self.room = 0
        PyMem_RawFree(self.parts)
        PyMem_RawFree(self.slots)
        self.parts = <Part *>PyMem_RawMalloc(n * sizeof(Part))
        self.slots = <Py_ssize_t *>PyMem_RawMalloc(n * sizeof(Py_ssize_t))
        if self.parts == NULL or self.slots == NULL:
            raise MemoryError(f"StreamPool: expected memory for {n} steps, got none.")
        self.room = n
        return 0

    # ------------------------------------------------------------ states

    def _read(self, Py_ssize_t n):
        """Copies of the states of the streams that were found last: arrays (L, n, columns)."""
        return self.copy(n, [np.empty((L, n, columns), dtype) for L, columns, dtype in self.columns], False)

    def _write(self, Py_ssize_t n, list arrays):
        """Set those states; the arrays are C-contiguous, of the states' dtypes."""
        self.copy(n, arrays, True)

    cdef list copy(self, Py_ssize_t n, list arrays, bint inward):
        cdef Py_ssize_t offset = 0, layer, i, L, row
        cdef cnp.ndarray array
        cdef char *record
        cdef char *data
        for array in arrays:
            L = cnp.PyArray_DIM(array, 0)
            row = cnp.PyArray_DIM(array, 2) * cnp.PyArray_ITEMSIZE(array)
            for layer in range(L):
                for i in range(n):
                    record = self.records.data + self.parts[i].slot * self.record_bytes + offset
                    data = cnp.PyArray_BYTES(array) + (layer * n + i) * row
                    if inward:
                        memcpy(record, data, row)
                    else:
                        memcpy(data, record, row)
                offset += row
        return arrays

    def _dump(self):
        """All there is, as arrays: of each slot how often it was given out, if it is open, and its record."""
        cdef Py_ssize_t slot
        uses = np.empty(self.capacity, np.int64)
        is_open = np.empty(self.capacity, bool)
        records = np.empty((self.capacity, self.record_bytes), np.uint8)
        memcpy(cnp.PyArray_DATA(records), self.records.data, self.capacity * self.record_bytes)
        for slot in range(self.capacity):
            uses[slot] = self.table[slot].uses
            is_open[slot] = self.table[slot].is_open
        return uses, is_open, records

    def _fill(self, uses, is_open, cnp.ndarray records):
        """Take over what another pool of this capacity dumped."""
        cdef Py_ssize_t slot
        memcpy(self.records.data, cnp.PyArray_DATA(records), self.capacity * self.record_bytes)
        self.vacancies = 0
        for slot in range(self.capacity - 1, -1, -1):
            self.table[slot].uses = uses[slot]
            self.table[slot].is_open = is_open[slot]
            if not is_open[slot]:
                self.table[self.vacancies].vacant = slot
                self.vacancies += 1

    # ------------------------------------------------------------ steps

    def step(self, ids, X, out=None):
        """Make one time step of each of these streams.

        Parameters
        ----------
        ids : sequence of int
            Of open streams, in any order, no two the same.
        X : array-like, shape (n, I)
            A row for each id: real numbers; tokens: integers, shape (n,).
        out : ndarray, optional
            Where the result goes; C-contiguous, of its shape and dtype, apart from ``X``.

        Returns
        -------
        ndarray, shape (n, features)
            A row for each id, of the dtype of the last layer that has one; ``out`` if given.

        Raises
        ------
        ValueError
            An id is unknown, closed or given twice; or the shape of ``X``, a token or ``out`` does not fit.
        TypeError
            ``ids`` or ``X`` does not hold numbers of its kind, or ``out`` is no ndarray.
        """
        cdef Chain chain = self.chain
        cdef cnp.ndarray x, y
        cdef Py_ssize_t n, i
        cdef cnp.npy_intp x_shape[2]
        cdef cnp.npy_intp y_shape[2]
        with self._lock:
            n = self._find("step", ids)
            if chain is None:
                return self._step_layers(n, X, out)
            x_shape[0] = y_shape[0] = n
            x_shape[1] = chain.features_in
            y_shape[1] = chain.features_out
            if chain.tokens:
                is_fit = are_tokens(X, 1, x_shape, chain.tokens)
            else:
                is_fit = is_plain(X, 2, x_shape, chain.type_number) and cnp.PyArray_ISCARRAY_RO(X)
            x = X if is_fit else self._check_rows(X, n)
            if out is None:
                y = cnp.PyArray_EMPTY(2, y_shape, chain.type_number, 0)
            elif (
                is_plain(out, 2, y_shape, chain.type_number) and cnp.PyArray_ISCARRAY(out)
                and is_apart(out, x)
            ):
                y = out
            else:
                y = self._check_out(out, x)
            for i in range(n):
                self.parts[i].steps = 1
                self.parts[i].source = cnp.PyArray_BYTES(x) + i * chain.work.in_bytes
                self.parts[i].target = cnp.PyArray_BYTES(y) + i * chain.work.out_bytes
            self.advance(n, n, True)
            return y if out is None else out

    def _run_found(self, list chunks, list outputs):
        """Run a checked chunk (T, I), or (T,) of tokens, of each stream that was found last."""
        cdef cnp.ndarray x, y
        cdef Py_ssize_t n = len(chunks), i, total = 0
        for i in range(n):
            x = chunks[i]
            y = outputs[i]
            self.parts[i].steps = cnp.PyArray_DIM(x, 0)
            self.parts[i].source = cnp.PyArray_BYTES(x)
            self.parts[i].target = cnp.PyArray_BYTES(y)
            total += self.parts[i].steps
        self.advance(n, total, False)

    cdef int advance(self, Py_ssize_t n, Py_ssize_t total, bint is_dense) except -1:
        """Run the parts, which have so many steps together."""
        cdef Turn turn
        cdef Flow *flows[FRNN_MOST_THREADS]
        cdef char *memory[FRNN_MOST_THREADS]
        cdef const ChainWork *chain = &self.chain.work
        cdef double time
        cdef Py_ssize_t i
        cdef FlowSpace space
        if n == 0:
            return 0
        if not is_dense:
            qsort(self.parts, n, sizeof(Part), longest_first)
        for i in range(n):
            self.slots[i] = self.parts[i].slot
        time = flow_ns(chain, 1, n) * total / n
        turn.chain = chain
        turn.records = self.records.data
        turn.parts = self.parts
        turn.slots = self.slots
        turn.n = n
        turn.is_dense = is_dense
        turn.slices = slices_of(time, n // SLICE_STREAMS, self.chain.threads)
        turn.blocks = count(count(n, POOL_ROWS), turn.slices) * turn.slices
        turn.threads = self.chain.threads if turn.slices == 1 else 1
        turn.size = self.block_size
        turn.flows = flows
        turn.memory = memory
        for i in range(turn.slices):
            if i == len(self.spaces):
                self.spaces.append(FlowSpace(self.chain))
            space = self.spaces[i]
            space.reserve(self.block_size + FLOW_ROWS * (chain.in_bytes + chain.out_bytes))
            flows[i] = &space.flow
            memory[i] = space.workspace.data
        with nogil:
            if turn.slices == 1:
                run_blocks(&turn, 0, 0)
            else:
                share(run_blocks, &turn, 1, turn.slices, turn.slices, time / turn.slices)
        return 0


cdef int64_t whole_of(str method, ids, Py_ssize_t index) except? -1:
    """An id of a list, which is a whole number, or raise."""
    number = ids[index]
    if not is_whole(number):
        raise TypeError(
            f"StreamPool.{method}: expected ids to be whole numbers, got {type(number).__name__} "
            f"at index {index}.")
    return PyNumber_AsSsize_t(number, NULL)


cdef int longest_first(const void *left, const void *right) noexcept nogil:
    cdef const Part *a = <const Part *>left
    cdef const Part *b = <const Part *>right
    if a.steps != b.steps:
        return -1 if a.steps > b.steps else 1
    return -1 if a.index < b.index else 1


cdef inline Py_ssize_t steps_of(Py_ssize_t n) noexcept nogil:
    """How many steps n streams of a block make together at most."""
    return max(1, FLOW_ROWS // n)


cdef void run_blocks(void *context, Py_ssize_t phase, int slice) noexcept nogil:
    cdef const Turn *turn = <const Turn *>context
    cdef int block = slice
    while block < turn.blocks:
        run_block(
            turn, slice, rows_before(turn.n, block, <int>turn.blocks),
            rows_before(turn.n, block + 1, <int>turn.blocks))
        block += turn.slices


cdef void run_block(const Turn *turn, int slice, Py_ssize_t first, Py_ssize_t last) noexcept nogil:
    """Take some streams through all of their steps."""
    cdef const ChainWork *chain = turn.chain
    cdef Flow *flow = turn.flows[slice]
    cdef const Part *parts = turn.parts + first
    cdef char *inputs = turn.memory[slice] + turn.size
    cdef char *outputs = inputs + FLOW_ROWS * chain.in_bytes
    cdef Py_ssize_t n = last - first, t = 0, steps, s, i
    while n > 0:
        # As long as all of them go on.
        steps = min(parts[n - 1].steps - t, steps_of(n))
        if plan_flow(chain, flow, steps, n, turn.threads) > turn.size:
            plan_flow(chain, flow, steps, n, 1)
        lay_out_flow(chain, flow, turn.memory[slice])
        gather_states(chain, flow, turn.records, turn.slots + first)
        if turn.is_dense:
            run_flow(chain, flow, parts[0].source, parts[0].target)
        else:
            for s in range(steps):
                for i in range(n):
                    memcpy(
                        inputs + (s * n + i) * chain.in_bytes, parts[i].source + (t + s) * chain.in_bytes,
                        chain.in_bytes)
            run_flow(chain, flow, inputs, outputs)
            for s in range(steps):
                for i in range(n):
                    memcpy(
                        parts[i].target + (t + s) * chain.out_bytes, outputs + (s * n + i) * chain.out_bytes,
                        chain.out_bytes)
        scatter_states(chain, flow, turn.records, turn.slots + first)
        t += steps
        while n > 0 and parts[n - 1].steps == t:
            n -= 1
