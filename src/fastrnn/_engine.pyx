"""The drivers: layers x directions x lengths x blocks of time, above any backend.

A backend gives two operations, `project` and `step` (kernels/kernels.h). What is here is
written once for every cell, dtype and backend: which rows are projected together, which
rows are still running at a time step, where each result goes.

Time is taken in blocks: a block's inputs are projected at once, then its steps are made one
by one. A stack that runs forward only takes one block through all its layers before the next,
so its memory does not depend on T. Where a layer runs in both directions the next one needs
its whole output first, so such a stack keeps one or two whole sequences between its layers.

Lengths: the rows are sorted, longest first, so that at every step the running rows are the
first n. The reverse direction counts its steps from each row's own end: step s of a row of
length len is its time step len - 1 - s. So both directions are the same loop.

Nothing here checks its arguments (layers does), and nothing allocates but the workspace,
which is kept from call to call.
"""

import sys

cimport numpy as cnp
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from cpython.pycapsule cimport PyCapsule_GetPointer
from cpython.ref cimport Py_REFCNT
from libc.limits cimport INT_MAX
from libc.stdint cimport uint64_t, uintptr_t
from libc.stdlib cimport qsort
from libc.string cimport memcpy, memset

from fastrnn._kernels cimport FRNN_F32, FRNN_LSTM, frnn_backend, frnn_cell, frnn_step
from fastrnn._pack cimport PackedCell

cnp.import_array()

# A block's gates should stay in the second-level cache while its steps use them up, but
# a projection of fewer rows than these wastes the weights that it reads.
cdef Py_ssize_t BLOCK_BYTES = 256 * 1024
cdef Py_ssize_t BLOCK_ROWS = 64
# A larger workspace is given back after the call: that of a stack of bidirectional layers, which
# grows with T, or of a huge batch.
cdef size_t KEPT_BYTES = 64 * 1024 * 1024
# A step that reads no more bytes of weights is over in about a microsecond: too short to give the GIL
# away and take it back. Where there is none, no step is short.
cdef bint HAS_GIL = getattr(sys, "_is_gil_enabled", lambda: True)()
cdef Py_ssize_t SHORT_BYTES = 256 * 1024 if HAS_GIL else -1


# ---------------------------------------------------------------- memory

cdef class Workspace:
    """One aligned block of scratch memory that grows and is kept."""

    cdef void *memory
    cdef char *data
    cdef size_t size

    def __dealloc__(self):
        PyMem_RawFree(self.memory)

    cdef int reserve(self, size_t size) except -1:
        if size > self.size:
            PyMem_RawFree(self.memory)
            self.size = 0
            self.memory = PyMem_RawMalloc(size + 64)
            if self.memory == NULL:
                raise MemoryError(f"workspace: expected {size} bytes of memory, got none.")
            self.data = <char *>((<uintptr_t>self.memory + 63) & ~<uintptr_t>63)
            self.size = size
        return 0


cdef class Spares:
    """Result arrays that are given out again once nobody else holds them.

    A call with `out=` returns new states but may allocate nothing, so it takes their arrays
    from here. Where there is no GIL a count of references proves nothing: all are new.
    """

    cdef list arrays
    cdef Py_ssize_t most

    def __init__(self, Py_ssize_t most=8):
        self.arrays = []
        self.most = most if HAS_GIL else 0

    cdef cnp.ndarray take(self, int axes, const cnp.npy_intp *shape, int type_number):
        """An array of that shape with any content."""
        cdef cnp.ndarray array
        for array in self.arrays:
            # Two references: the list's and the loop's. Its last holder may have changed it.
            if (
                Py_REFCNT(array) == 2 and is_plain(array, axes, shape, type_number)
                and cnp.PyArray_ISCARRAY(array) and cnp.PyArray_CHKFLAGS(array, cnp.NPY_ARRAY_OWNDATA)
            ):
                return array
        array = cnp.PyArray_EMPTY(axes, <cnp.npy_intp *>shape, type_number, 0)
        if self.most:
            self.arrays = [*self.arrays[1 - self.most:], array]
        return array


cdef inline bint is_plain(
    object array, int axes, const cnp.npy_intp *shape, int type_number,
) noexcept:
    """Whether that is an ndarray, and no subclass, of that shape and type."""
    cdef int i
    if (
        not cnp.PyArray_CheckExact(array)
        or cnp.PyArray_NDIM(array) != axes
        or cnp.PyArray_TYPE(array) != type_number
    ):
        return False
    for i in range(axes):
        if cnp.PyArray_DIM(array, i) != shape[i]:
            return False
    return True


cdef inline bint is_apart(cnp.ndarray a, cnp.ndarray b) noexcept:
    """Whether two C-contiguous arrays share no memory."""
    return (
        cnp.PyArray_BYTES(a) + cnp.PyArray_NBYTES(a) <= cnp.PyArray_BYTES(b)
        or cnp.PyArray_BYTES(b) + cnp.PyArray_NBYTES(b) <= cnp.PyArray_BYTES(a)
    )


cdef inline char *take(char **cursor, Py_ssize_t size) noexcept nogil:
    """The next `size` bytes at the cursor, which moves on to the next cache line."""
    cdef char *begin = cursor[0]
    cursor[0] = begin + ((size + 63) & ~63)
    return begin


# ---------------------------------------------------------------- what a call works on

cdef struct Rows:
    # Where the rows of a sequence lie: row b at time t is at
    # data + (t - first) * step + order[b] * row.
    char *data
    Py_ssize_t first            # the time of the first step that is kept
    Py_ssize_t step             # bytes from one time step to the next
    Py_ssize_t row              # bytes from one batch row to the next
    const Py_ssize_t *order     # (B,): batch row of each sorted row; NULL: as they are


cdef struct Row:
    Py_ssize_t length
    Py_ssize_t index


cdef struct Call:
    Py_ssize_t T
    Py_ssize_t B
    const Py_ssize_t *lengths   # (B,): longest first; NULL: all are T
    Py_ssize_t block            # time steps in a block
    int parity                  # 0 or 1: every other call of a stream takes its weights the other way
    Py_ssize_t chunk            # time steps that go through all layers together
    char *h                     # (L*D, B, P): in the order of the rows that run
    char *c                     # (L*D, B, H)
    char *x                     # (block*B, I): the inputs of a block, where they are apart
    char *gates                 # (block*B, G*H)
    char *step                  # the backend's own
    char *output[2]             # (B, P) twice: h where it cannot go straight to its place
    char *between[2]            # (chunk, B, D*P): from one layer to the next
    Row *sorting                # (B,)
    Py_ssize_t *order           # (B,)
    Py_ssize_t *sorted_lengths  # (B,)


cdef struct Inputs:
    # The inputs of a block of time steps, one row behind the other.
    char *data
    Py_ssize_t stride           # elements from one row to the next
    Py_ssize_t rows
    Py_ssize_t first            # they follow time from here on; -1: the steps, each with its running rows


cdef inline char *row_at(const Rows *rows, Py_ssize_t t, Py_ssize_t b) noexcept nogil:
    if rows.order != NULL:
        b = rows.order[b]
    return rows.data + (t - rows.first) * rows.step + b * rows.row


cdef inline Py_ssize_t running(const Call *call, Py_ssize_t s, Py_ssize_t most) noexcept nogil:
    """How many rows, of the first `most`, have a step s."""
    if call.lengths == NULL:
        return most if s < call.T else 0
    while most > 0 and call.lengths[most - 1] <= s:
        most -= 1
    return most


cdef inline Py_ssize_t time_of(
    const Call *call, bint is_reverse, Py_ssize_t s, Py_ssize_t b,
) noexcept nogil:
    """The time step at which row b makes its step s."""
    if not is_reverse:
        return s
    return (call.T if call.lengths == NULL else call.lengths[b]) - 1 - s


cdef inline bint is_blas_stride(
    Py_ssize_t stride, Py_ssize_t columns, Py_ssize_t itemsize,
) noexcept nogil:
    return (
        stride % itemsize == 0
        and columns * itemsize <= stride <= <Py_ssize_t>INT_MAX * itemsize
    )


cdef int longest_first(const void *left, const void *right) noexcept nogil:
    cdef const Row *a = <const Row *>left
    cdef const Row *b = <const Row *>right
    if a.length != b.length:
        return -1 if a.length > b.length else 1
    return -1 if a.index < b.index else 1


cdef inline void move_row(char *outside, char *inside, Py_ssize_t size, bint inward) noexcept nogil:
    if inward:
        memcpy(inside, outside, size)
    else:
        memcpy(outside, inside, size)


cdef inline Rows rows_of(cnp.ndarray array):
    """The rows of an array (T, B, columns)."""
    cdef Rows rows
    rows.data = cnp.PyArray_BYTES(array)
    rows.first = 0
    rows.step = cnp.PyArray_STRIDE(array, 0)
    rows.row = cnp.PyArray_STRIDE(array, 1)
    rows.order = NULL
    return rows


# ---------------------------------------------------------------- the drivers

cdef class Dense:
    """A projection alone: out = x W^T + bias."""

    cdef PackedCell packed
    cdef const frnn_backend *backend

    def __init__(self, PackedCell packed not None, backend):
        self.packed = packed
        self.backend = <const frnn_backend *>PyCapsule_GetPointer(backend, "fastrnn.backend")

    def run(self, cnp.ndarray x, cnp.ndarray out):
        """Project x (n, I) into out (n, H); both are C-contiguous and do not overlap."""
        cdef const frnn_cell *cell = &self.packed.cell
        cdef Py_ssize_t n = cnp.PyArray_DIM(x, 0)
        cdef const void *source = cnp.PyArray_DATA(x)
        cdef void *target = cnp.PyArray_DATA(out)
        cdef uint64_t before
        with nogil:
            before = self.backend.enter()
            self.backend.dense(cell, n, source, cell.input_size, target, cell.hidden_size)
            self.backend.leave(before)


cdef class Recurrent:
    """A stack of layers, in one or both directions. Holds no state; threads share it."""

    cdef tuple packed           # L*D PackedCells, layer by layer, forward before reverse
    cdef const frnn_cell **cells
    cdef const frnn_backend *backend
    cdef Py_ssize_t L, D, input_size, hidden_size, output_size, itemsize
    cdef Py_ssize_t gate_width, gate_bytes, weight_bytes
    cdef bint has_cell_state
    cdef int type_number        # of NumPy
    cdef list workspaces        # those that no call is using
    cdef Spares spares

    def __cinit__(self, packed, Py_ssize_t directions, backend):
        cdef Py_ssize_t i
        self.packed = tuple(packed)
        self.cells = <const frnn_cell **>PyMem_RawMalloc(len(self.packed) * sizeof(frnn_cell *))
        if self.cells == NULL:
            raise MemoryError
        for i in range(len(self.packed)):
            self.cells[i] = &(<PackedCell?>self.packed[i]).cell
        self.backend = <const frnn_backend *>PyCapsule_GetPointer(backend, "fastrnn.backend")
        self.D = directions
        self.L = len(self.packed) // directions
        self.input_size = self.cells[0].input_size
        self.hidden_size = self.cells[0].hidden_size
        self.output_size = self.cells[0].output_size
        self.itemsize = 4 if self.cells[0].dtype == FRNN_F32 else 8
        self.gate_width = self.backend.gate_width(self.cells[0])
        self.gate_bytes = self.gate_width * self.itemsize
        self.weight_bytes = sum(
            array.nbytes for cell in self.packed for array in cell.arrays if array is not None)
        self.has_cell_state = self.cells[0].kind == FRNN_LSTM
        self.type_number = cnp.NPY_FLOAT32 if self.itemsize == 4 else cnp.NPY_FLOAT64
        self.workspaces = []
        self.spares = Spares()

    def __dealloc__(self):
        PyMem_RawFree(self.cells)

    def call(self, x, state, out, bint batch_first):
        """A layer's call in the plain case: arrays that need neither conversion nor a message.

        x (T, B, I), (B, T, I) with batch_first, or (T, I); state None, h, or a pair (h, c) for
        an LSTM; out None or of the output's shape; all C-contiguous. Gives (output, h) or
        (output, (h, c)); for any other arguments it gives None and does nothing.
        """
        cdef cnp.npy_intp shape[3]
        cdef cnp.npy_intp h_shape[3]
        cdef cnp.npy_intp c_shape[3]
        cdef Py_ssize_t T, B
        cdef int axes, i
        cdef cnp.ndarray y, h, c = None
        cdef object h_0 = None, c_0 = None
        cdef Rows source, target
        if not cnp.PyArray_CheckExact(x) or not cnp.PyArray_ISCARRAY_RO(x):
            return None
        axes = cnp.PyArray_NDIM(x)
        if axes != 2 and axes != 3:
            return None
        for i in range(axes):
            shape[i] = cnp.PyArray_DIM(x, i)
        if (
            cnp.PyArray_TYPE(x) != self.type_number
            or shape[axes - 1] != self.input_size
            or cnp.PyArray_SIZE(x) == 0
        ):
            return None
        batch_first = batch_first and axes == 3
        T = shape[batch_first]
        B = 1 if axes == 2 else shape[not batch_first]
        shape[axes - 1] = self.D * self.output_size
        h_shape[0] = c_shape[0] = self.L * self.D
        h_shape[1] = c_shape[1] = B
        h_shape[axes - 1] = self.output_size
        c_shape[axes - 1] = self.hidden_size
        if state is not None:
            if self.has_cell_state:
                if type(state) is not tuple or len(state) != 2:
                    return None
                h_0, c_0 = state
                if not is_plain(c_0, axes, c_shape, self.type_number) or not cnp.PyArray_ISCARRAY_RO(c_0):
                    return None
            else:
                h_0 = state
            if not is_plain(h_0, axes, h_shape, self.type_number) or not cnp.PyArray_ISCARRAY_RO(h_0):
                return None
        if out is None:
            y = cnp.PyArray_EMPTY(axes, shape, self.type_number, 0)
        else:
            if (
                not is_plain(out, axes, shape, self.type_number)
                or not cnp.PyArray_ISCARRAY(out)
                or not is_apart(out, x)
                or (h_0 is not None and not is_apart(out, h_0))
                or (c_0 is not None and not is_apart(out, c_0))
            ):
                return None
            y = out
        h = self.take_state(axes, h_shape, h_0, out is None)
        if self.has_cell_state:
            c = self.take_state(axes, c_shape, c_0, out is None)
        source.first = target.first = 0
        source.order = target.order = NULL
        source.data = cnp.PyArray_BYTES(x)
        target.data = cnp.PyArray_BYTES(y)
        source.step = source.row = self.input_size * self.itemsize
        target.step = target.row = self.D * self.output_size * self.itemsize
        if batch_first:
            source.row *= T
            target.row *= T
        else:
            source.step *= B
            target.step *= B
        self.run_rows(T, B, source, target, h, c, NULL)
        return (y, h) if c is None else (y, (h, c))

    cdef cnp.ndarray take_state(self, int axes, const cnp.npy_intp *shape, initial, bint is_new):
        """An array for a state, holding the initial one or zeros."""
        cdef cnp.ndarray array
        if is_new:
            array = cnp.PyArray_EMPTY(axes, <cnp.npy_intp *>shape, self.type_number, 0)
        else:
            array = self.spares.take(axes, shape, self.type_number)
        if initial is None:
            memset(cnp.PyArray_DATA(array), 0, cnp.PyArray_NBYTES(array))
        else:
            memcpy(cnp.PyArray_DATA(array), cnp.PyArray_DATA(initial), cnp.PyArray_NBYTES(array))
        return array

    def spare(self, tuple shape):
        """An array of that shape for a state, with any content."""
        cdef cnp.npy_intp sizes[3]
        cdef int i
        for i in range(len(shape)):
            sizes[i] = shape[i]
        return self.spares.take(<int>len(shape), sizes, self.type_number)

    def run(self, cnp.ndarray x, cnp.ndarray h, c, lengths, cnp.ndarray out):
        """Run x (T, B, I) through the stack into out (T, B, D*P).

        h (L*D, B, P) and c (L*D, B, H; None but for an LSTM) hold the states, and are left
        holding those behind the last step. lengths is an intp array (B,) or None. The last
        axis of x and out is contiguous; h, c and lengths wholly so. Nothing overlaps.
        """
        cdef const Py_ssize_t *length = NULL
        if lengths is not None:
            length = <const Py_ssize_t *>cnp.PyArray_DATA(lengths)
        self.run_rows(cnp.PyArray_DIM(x, 0), cnp.PyArray_DIM(x, 1), rows_of(x), rows_of(out), h, c, length)

    cdef int run_rows(
        self, Py_ssize_t T, Py_ssize_t B, Rows source, Rows target, cnp.ndarray h, cnp.ndarray c,
        const Py_ssize_t *lengths,
    ) except -1:
        cdef Call call
        cdef Workspace workspace
        cdef char *h_data = cnp.PyArray_BYTES(h)
        cdef char *c_data = NULL if c is None else cnp.PyArray_BYTES(c)
        try:
            workspace = self.workspaces.pop()
        except IndexError:
            workspace = Workspace()
        self.prepare(&call, workspace, T, B, lengths != NULL)
        with nogil:
            self.execute(&call, source, target, h_data, c_data, lengths)
        if workspace.size <= KEPT_BYTES:
            self.workspaces.append(workspace)
        return 0

    cdef int prepare(
        self, Call *call, Workspace workspace, Py_ssize_t T, Py_ssize_t B, bint is_ragged,
    ) except -1:
        """Divide T steps of B rows into blocks, and lay the call's scratch out in a workspace."""
        cdef char *cursor = NULL
        call.T = T
        call.B = B
        call.parity = 0
        call.block = max(BLOCK_BYTES // self.gate_bytes, BLOCK_ROWS) // B
        call.block = max(1, min(T, call.block))
        call.chunk = call.block if self.D == 1 else T
        self.lay_out(call, &cursor, is_ragged)
        workspace.reserve(<size_t>cursor)
        cursor = workspace.data
        self.lay_out(call, &cursor, is_ragged)
        return 0

    cdef void execute(
        self, Call *call, Rows source, Rows target, char *h, char *c, const Py_ssize_t *lengths,
    ) noexcept nogil:
        cdef uint64_t before = self.backend.enter()
        if lengths == NULL:
            call.lengths = source.order = target.order = NULL
            call.h = h
            call.c = c
            self.run_stack(call, source, target)
        else:
            self.sort(call, lengths)
            call.lengths = call.sorted_lengths
            source.order = target.order = call.order
            self.move_states(call, h, c, True)
            self.run_stack(call, source, target)
            self.move_states(call, h, c, False)
            self.clear_padding(call, &target)
        self.backend.leave(before)

    cdef void lay_out(self, Call *call, char **cursor, bint is_ragged) noexcept:
        """Point the call's scratch into the workspace; from a NULL cursor, measure it."""
        cdef Py_ssize_t B = call.B, rows = call.block * call.B, size = 0, i
        cdef Py_ssize_t output_row = self.D * self.output_size * self.itemsize
        cdef Py_ssize_t input_row = self.input_size * self.itemsize
        if self.L > 1:
            input_row = max(input_row, output_row)
        call.gates = take(cursor, rows * self.gate_bytes)
        call.x = take(cursor, rows * input_row)
        for i in range(2):
            call.output[i] = take(cursor, B * self.output_size * self.itemsize)
            call.between[i] = take(cursor, call.chunk * B * output_row if self.L > i + 1 else 0)
        for i in range(self.L * self.D):
            size = max(size, <Py_ssize_t>self.backend.scratch_bytes(self.cells[i], B))
        call.step = take(cursor, size)
        if is_ragged:
            size = self.L * self.D * B * self.itemsize
            call.h = take(cursor, size * self.output_size)
            call.c = take(cursor, size * self.hidden_size if self.has_cell_state else 0)
            call.sorting = <Row *>take(cursor, B * sizeof(Row))
            call.order = <Py_ssize_t *>take(cursor, B * sizeof(Py_ssize_t))
            call.sorted_lengths = <Py_ssize_t *>take(cursor, B * sizeof(Py_ssize_t))

    cdef void sort(self, const Call *call, const Py_ssize_t *lengths) noexcept nogil:
        cdef Py_ssize_t b
        for b in range(call.B):
            # Checked already; another thread may have written to the caller's array since.
            call.sorting[b].length = min(max(lengths[b], 1), call.T)
            call.sorting[b].index = b
        qsort(call.sorting, call.B, sizeof(Row), longest_first)
        for b in range(call.B):
            call.order[b] = call.sorting[b].index
            call.sorted_lengths[b] = call.sorting[b].length

    cdef void move_states(self, const Call *call, char *h, char *c, bint inward) noexcept nogil:
        """Copy the caller's states into sorted order, or back out of it."""
        cdef Py_ssize_t h_row = self.output_size * self.itemsize, c_row = self.hidden_size * self.itemsize
        cdef Py_ssize_t i, b, inside, outside
        for i in range(self.L * self.D):
            for b in range(call.B):
                inside = i * call.B + b
                outside = i * call.B + call.order[b]
                move_row(h + outside * h_row, call.h + inside * h_row, h_row, inward)
                if c != NULL:
                    move_row(c + outside * c_row, call.c + inside * c_row, c_row, inward)

    cdef void clear_padding(self, const Call *call, const Rows *target) noexcept nogil:
        cdef Py_ssize_t b, t
        for b in range(call.B):
            for t in range(call.lengths[b], call.T):
                memset(row_at(target, t, b), 0, self.D * self.output_size * self.itemsize)

    cdef void run_stack(self, const Call *call, Rows source, Rows target) noexcept nogil:
        cdef Py_ssize_t begin, end, s, layer, direction, i
        cdef Py_ssize_t h_bytes = call.B * self.output_size * self.itemsize
        cdef Py_ssize_t c_bytes = call.B * self.hidden_size * self.itemsize
        cdef Rows x, y, half
        begin = 0
        while begin < call.T:
            end = min(begin + call.chunk, call.T)
            x = source
            for layer in range(self.L):
                y = target
                if layer < self.L - 1:
                    y.data = call.between[layer % 2]
                    y.first = begin
                    y.row = self.D * self.output_size * self.itemsize
                    y.step = call.B * y.row
                    y.order = NULL
                half = y
                for direction in range(self.D):
                    i = layer * self.D + direction
                    s = begin
                    while s < end:
                        self.run_block(
                            call, self.cells[i], direction == 1, &x, &half,
                            s, min(s + call.block, end), call.h + i * h_bytes,
                            call.c + i * c_bytes if self.has_cell_state else NULL,
                        )
                        s += call.block
                    half.data += self.output_size * self.itemsize
                x = y
            begin = end

    cdef void run_block(
        self, const Call *call, const frnn_cell *cell, bint is_reverse,
        const Rows *x, const Rows *y, Py_ssize_t begin, Py_ssize_t end, char *h, char *c,
    ) noexcept nogil:
        """Make the steps from begin to end of one direction of one layer.

        h (B, P) and c (B, H) are its states: the ones before, and then those of every row
        behind its last step so far.
        """
        cdef Py_ssize_t s, t, b, n_after
        cdef Py_ssize_t h_row = self.output_size * self.itemsize
        cdef bint is_in_place = (
            y.order == NULL
            and (call.lengths == NULL or not is_reverse)
            and is_blas_stride(y.row, self.output_size, self.itemsize)
        )
        cdef Inputs inputs
        cdef frnn_step step
        self.gather(call, cell, is_reverse, x, begin, end, &inputs)
        step.n = running(call, begin, call.B)
        step.x = NULL
        step.gates = call.gates
        step.rows = inputs.rows
        step.row = 0
        step.h_prev = h
        step.ld_prev = self.output_size
        step.ld_next = y.row // self.itemsize if is_in_place else self.output_size
        step.c = c
        step.scratch = call.step
        if end - begin == 1:
            # A lone step projects its own inputs, block by block of its weights.
            step.x = inputs.data
            step.ldx = inputs.stride
        else:
            self.backend.project(cell, inputs.rows, inputs.data, inputs.stride, call.gates)
        for s in range(begin, end):
            t = time_of(call, is_reverse, s, 0)
            if inputs.first >= 0:
                step.row = (t - inputs.first) * call.B
            step.h_next = row_at(y, t, 0) if is_in_place else call.output[s % 2]
            step.is_odd = (s + call.parity) % 2
            self.backend.step(cell, &step)
            step.row += step.n
            if not is_in_place:
                for b in range(step.n):
                    t = time_of(call, is_reverse, s, b)
                    memcpy(row_at(y, t, b), <char *>step.h_next + b * h_row, h_row)
            n_after = running(call, s + 1, step.n) if s + 1 < end else 0
            for b in range(n_after, step.n):
                memcpy(h + b * h_row, <char *>step.h_next + b * step.ld_next * self.itemsize, h_row)
            step.n = n_after
            step.h_prev = step.h_next
            step.ld_prev = step.ld_next

    cdef void gather(
        self, const Call *call, const frnn_cell *cell, bint is_reverse,
        const Rows *x, Py_ssize_t begin, Py_ssize_t end, Inputs *inputs,
    ) noexcept nogil:
        """Find the inputs of steps begin to end, or bring them together in call.x."""
        cdef Py_ssize_t steps = end - begin, s, b, n
        cdef Py_ssize_t first = min(
            time_of(call, is_reverse, begin, 0), time_of(call, is_reverse, end - 1, 0))
        cdef Py_ssize_t row_bytes = cell.input_size * self.itemsize
        cdef Py_ssize_t stride = x.step if call.B == 1 else x.row
        if (
            x.order == NULL
            and (call.lengths == NULL or not is_reverse)
            and running(call, end - 1, call.B) == call.B
            and (steps == 1 or call.B == 1 or x.row * call.B == x.step)
            and is_blas_stride(stride, cell.input_size, self.itemsize)
        ):
            inputs.data = row_at(x, first, 0)
            inputs.stride = stride // self.itemsize
            inputs.rows = steps * call.B
            inputs.first = first
            return
        inputs.data = call.x
        inputs.stride = cell.input_size
        inputs.rows = 0
        inputs.first = -1
        n = call.B
        for s in range(begin, end):
            n = running(call, s, n)
            for b in range(n):
                memcpy(
                    call.x + (inputs.rows + b) * row_bytes,
                    row_at(x, time_of(call, is_reverse, s, b), b), row_bytes,
                )
            inputs.rows += n


cdef class Stepper:
    """What makes one step after the other of a stack that runs forward, on states of its own.

    The base of Stream: its plain steps are made here, without a Python object on the way but the
    result. `step_checked` of the subclass makes all others.
    """

    cdef Recurrent engine       # None: no step is plain
    cdef cnp.ndarray h
    cdef cnp.ndarray c
    cdef Call call
    cdef Workspace workspace
    cdef Rows source, target
    cdef int axes, type_number
    cdef cnp.npy_intp x_shape[2]
    cdef cnp.npy_intp y_shape[2]
    cdef char *h_data
    cdef char *c_data
    cdef bint is_short, is_running

    def bind(self, Recurrent engine not None, cnp.ndarray h, c, bint is_batched):
        """Step these states from now on: h (L, B, P) and c (L, B, H) or None, without B where not
        is_batched."""
        cdef Py_ssize_t B = cnp.PyArray_DIM(h, 1) if is_batched else 1
        self.engine = engine
        self.h = h
        self.c = c
        self.h_data = cnp.PyArray_BYTES(h)
        self.c_data = NULL if c is None else cnp.PyArray_BYTES(c)
        self.axes = 2 if is_batched else 1
        self.type_number = engine.type_number
        self.x_shape[0] = self.y_shape[0] = B
        self.x_shape[self.axes - 1] = engine.input_size
        self.y_shape[self.axes - 1] = engine.output_size
        self.source.first = self.target.first = 0
        self.source.row = engine.input_size * engine.itemsize
        self.target.row = engine.output_size * engine.itemsize
        self.source.step = B * self.source.row
        self.target.step = B * self.target.row
        self.is_short = B * engine.weight_bytes <= SHORT_BYTES
        self.workspace = Workspace()
        engine.prepare(&self.call, self.workspace, 1, B, False)

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
            Another thread is stepping the stream.
        """
        cdef cnp.ndarray y
        if self.engine is None:
            return self.step_checked(x, out)
        # First of all: whoever is running reads source and target without the GIL.
        if self.is_running:
            raise RuntimeError("Stream.step: expected one thread at a time, got a second one.")
        if not is_plain(x, self.axes, self.x_shape, self.type_number) or not cnp.PyArray_ISCARRAY_RO(x):
            return self.step_checked(x, out)
        if out is None:
            y = cnp.PyArray_EMPTY(self.axes, self.y_shape, self.type_number, 0)
        else:
            if (
                not is_plain(out, self.axes, self.y_shape, self.type_number)
                or not cnp.PyArray_ISCARRAY(out)
                or not is_apart(out, x)
            ):
                return self.step_checked(x, out)
            y = out
        self.source.data = cnp.PyArray_BYTES(x)
        self.target.data = cnp.PyArray_BYTES(y)
        self.call.parity ^= 1
        if self.is_short:
            self.engine.execute(&self.call, self.source, self.target, self.h_data, self.c_data, NULL)
            return y
        self.is_running = True
        with nogil:
            self.engine.execute(
                &self.call, self.source, self.target, self.h_data, self.c_data, NULL)
        self.is_running = False
        return y
