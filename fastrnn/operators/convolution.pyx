"""The operator of Conv1d: products of windows over the steps of each row."""

cimport numpy as cnp
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from libc.stdint cimport uint64_t
from libc.string cimport memcpy, memmove, memset

from fastrnn.engine.backend cimport frnn_arithmetic_name, frnn_backend, frnn_cell, frnn_matrix
from fastrnn.engine.blocks cimport SLICE_ROWS, rows_before
from fastrnn.engine.call cimport States
from fastrnn.engine.cost cimport dense_ns
from fastrnn.engine.packing cimport PackedCell, matrix_bytes
from fastrnn.engine.plan cimport is_worth_dividing, slices_of
from fastrnn.engine.threads.team cimport share
from fastrnn.engine.workspace cimport Workspace, aligned
from fastrnn.operators.operator cimport Contract, Extent, Operator, OperatorInfo

cnp.import_array()

cdef enum:
    WINDOWS = 64    # that are brought together for a product


cdef struct ConvolutionData:
    const frnn_backend *backend
    const frnn_cell **cells         # of each group: (outputs / groups, taps * channels / groups)
    Py_ssize_t groups, taps, stride, dilation
    Py_ssize_t before               # steps of padding before the first one


cdef struct ConvolutionUse:
    int slices
    char *memory
    States state                    # the steps before the first one, oldest first


cdef class Convolution(Operator):
    """A convolution over time, (T, B, channels) to (T', B, outputs).

    Output t meets input t * stride + k * dilation - before with tap k. If it is causal, T' is T and the steps
    before the first one are its state, (1, B, steps * channels). Beyond the ends there are zeros otherwise.
    """

    cdef ConvolutionData convolution

    def __cinit__(
        self, packed, Py_ssize_t taps, Py_ssize_t stride, Py_ssize_t dilation, Py_ssize_t before,
        bint is_causal, int threads=1,
    ):
        """packed: a projection for each group, of weights (outputs / groups, taps * channels / groups)."""
        cdef ConvolutionData *data = &self.convolution
        cdef Py_ssize_t i
        packed = tuple(packed)
        data.cells = <const frnn_cell **>PyMem_RawMalloc(len(packed) * sizeof(frnn_cell *))
        if data.cells == NULL:
            raise MemoryError
        data.groups = len(packed)
        for i in range(data.groups):
            data.cells[i] = &(<PackedCell?>packed[i]).cell
            self.info.weight_bytes += matrix_bytes(&data.cells[i].w_ih)
        self.begin(&CONVOLUTION, frnn_arithmetic_name(data.cells[0].arithmetic).decode(), threads)
        self.owner = packed
        data.backend = (<PackedCell>packed[0]).backend
        data.taps = taps
        data.stride = stride
        data.dilation = dilation
        data.before = before
        self.info.data = data
        self.info.features_in = data.groups * data.cells[0].input_size // taps
        self.info.features_out = data.groups * data.cells[0].hidden_size
        self.info.use_bytes = sizeof(ConvolutionUse)
        if is_causal and before > 0:
            self.info.states = 1
            self.info.state[0].layers = 1
            self.info.state[0].columns = before * self.info.features_in

    def __dealloc__(self):
        PyMem_RawFree(self.convolution.cells)

    def call(self, cnp.ndarray x, cnp.ndarray out, cnp.ndarray lengths):
        """x (B, T, channels) into out (B, T', outputs), both C-contiguous, of its dtype and apart; lengths
        (B,) of intp, beyond which there are zeros, where T' is T; or None. Not of one that is causal."""
        cdef OperatorInfo info = self.info
        cdef Workspace workspace = Workspace()
        cdef ConvolutionUse use
        cdef Windows work
        cdef Py_ssize_t B = cnp.PyArray_DIM(x, 0), b
        cdef const Py_ssize_t *given = NULL
        if lengths is not None:
            given = <const Py_ssize_t *>cnp.PyArray_DATA(lengths)
        set_work(&work, &info, &use, cnp.PyArray_DIM(x, 1), cnp.PyArray_DIM(out, 1), B, True)
        work.x = cnp.PyArray_BYTES(x)
        work.y = cnp.PyArray_BYTES(out)
        use.slices = slices_of(
            work_cost(&info, work.steps * B), work.steps * B // SLICE_ROWS, info.threads)
        workspace.reserve(use.slices * slice_bytes(&info))
        use.memory = workspace.data
        with nogil:
            if given == NULL:
                run_windows(&work)
            else:
                for b in range(B):
                    run_row(&work, b, min(max(given[b], 1), work.T))


cdef struct Windows:
    # What the threads of a convolution share.
    const OperatorInfo *info
    const ConvolutionUse *use
    const char *x
    char *y
    Py_ssize_t T, steps, B          # steps of x and of y
    bint is_batch_first
    Py_ssize_t only                 # the row whose windows are computed; -1: all
    Py_ssize_t length               # steps of x that count
    Py_ssize_t count                # outputs of a row that are computed


cdef void set_work(
    Windows *work, const OperatorInfo *info, const ConvolutionUse *use, Py_ssize_t T, Py_ssize_t steps,
    Py_ssize_t B, bint is_batch_first,
) noexcept nogil:
    work.info = info
    work.use = use
    work.T = work.length = T
    work.steps = work.count = steps
    work.B = B
    work.is_batch_first = is_batch_first
    work.only = -1


cdef inline const char *tail_of(const Windows *work, Py_ssize_t b) noexcept nogil:
    """The state of a row."""
    cdef const States *state = &work.use.state
    return state.data + (b if state.order == NULL else state.order[b]) * state.row


cdef inline Py_ssize_t place_of(const Windows *work, Py_ssize_t T, Py_ssize_t b, Py_ssize_t t) noexcept nogil:
    """Which row of an array with T steps that is."""
    return b * T + t if work.is_batch_first else t * work.B + b


cdef void gather_window(const Windows *work, Py_ssize_t b, Py_ssize_t t, char *to) noexcept nogil:
    """The inputs of an output: (groups, taps, channels / groups)."""
    cdef const ConvolutionData *data = <const ConvolutionData *>work.info.data
    cdef Py_ssize_t row = work.info.features_in * work.info.itemsize, part = row // data.groups
    cdef Py_ssize_t k, g, at
    cdef const char *source
    for k in range(data.taps):
        at = t * data.stride + k * data.dilation - data.before
        source = NULL
        if 0 <= at < work.length:
            source = work.x + place_of(work, work.T, b, at) * row
        elif at < 0 and work.info.states > 0:
            source = tail_of(work, b) + (data.before + at) * row
        for g in range(data.groups):
            if source == NULL:
                memset(to + (g * data.taps + k) * part, 0, part)
            else:
                memcpy(to + (g * data.taps + k) * part, source + g * part, part)


cdef void convolve_rows(void *context, Py_ssize_t phase, int slice) noexcept nogil:
    """A slice of the outputs."""
    cdef const Windows *work = <const Windows *>context
    cdef const ConvolutionData *data = <const ConvolutionData *>work.info.data
    cdef Py_ssize_t itemsize = work.info.itemsize, ldo = work.info.features_out
    cdef Py_ssize_t columns = data.taps * work.info.features_in, part = columns // data.groups
    cdef Py_ssize_t n = work.count * (work.B if work.only < 0 else 1)
    cdef Py_ssize_t i = rows_before(n, slice, work.use.slices)
    cdef Py_ssize_t last = rows_before(n, slice + 1, work.use.slices)
    cdef Py_ssize_t count, j, g, b, t
    cdef const frnn_cell *cell
    cdef char *rows = work.use.memory + slice * slice_bytes(work.info)
    cdef char *y
    cdef uint64_t before = data.backend.enter()
    if work.only >= 0 and not work.is_batch_first:
        ldo *= work.B
    while i < last:
        count = min(last - i, WINDOWS)
        for j in range(count):
            if work.only >= 0:
                b = work.only
                t = i + j
            elif work.is_batch_first:
                b = (i + j) // work.steps
                t = (i + j) % work.steps
            else:
                b = (i + j) % work.B
                t = (i + j) // work.B
            gather_window(work, b, t, rows + j * columns * itemsize)
        j = i if work.only < 0 else place_of(work, work.steps, work.only, i)
        y = work.y + j * work.info.features_out * itemsize
        for g in range(data.groups):
            cell = data.cells[g]
            cell.w_ih.products.dense(
                &cell.w_ih, count, rows + g * part * itemsize, columns, cell.bias,
                y + g * cell.hidden_size * itemsize, ldo, rows + windows_bytes(work.info))
        i += count
    data.backend.leave(before)


cdef void run_windows(Windows *work) noexcept nogil:
    cdef const ConvolutionData *data = <const ConvolutionData *>work.info.data
    cdef int slices = work.use.slices
    if data.backend.begin != NULL:
        data.backend.begin()
    if slices == 1:
        convolve_rows(work, 0, 0)
    else:
        share(convolve_rows, work, 1, slices, slices, work_cost(work.info, work.steps * work.B))
    if data.backend.end != NULL:
        data.backend.end()


cdef void run_row(Windows *work, Py_ssize_t b, Py_ssize_t length) noexcept nogil:
    """A row of a ragged batch. What lies beyond its length is 0."""
    cdef Py_ssize_t t, row = work.info.features_out * work.info.itemsize
    work.only = b
    work.length = work.count = length
    run_windows(work)
    for t in range(length, work.steps):
        memset(work.y + place_of(work, work.steps, b, t) * row, 0, row)


cdef void keep_tail(const Windows *work, Py_ssize_t b) noexcept nogil:
    """Let the state of a row be its last steps."""
    cdef const ConvolutionData *data = <const ConvolutionData *>work.info.data
    cdef Py_ssize_t row = work.info.features_in * work.info.itemsize, fresh = min(work.length, data.before), i
    cdef char *tail = <char *>tail_of(work, b)
    cdef Py_ssize_t kept = data.before - fresh
    memmove(tail, tail + fresh * row, kept * row)
    for i in range(fresh):
        memcpy(
            tail + (kept + i) * row, work.x + place_of(work, work.T, b, work.length - fresh + i) * row, row)


# ---------------------------------------------------------------- the contract

cdef inline double work_cost(const OperatorInfo *self, Py_ssize_t n) noexcept nogil:
    cdef const ConvolutionData *data = <const ConvolutionData *>self.data
    return data.groups * dense_ns(&data.cells[0].w_ih, n)


cdef inline size_t windows_bytes(const OperatorInfo *self) noexcept nogil:
    cdef const ConvolutionData *data = <const ConvolutionData *>self.data
    return aligned(WINDOWS * data.taps * self.features_in * self.itemsize)


cdef inline size_t slice_bytes(const OperatorInfo *self) noexcept nogil:
    """The windows that are brought together, and what their products need. All groups are alike."""
    cdef const frnn_matrix *matrix = &(<const ConvolutionData *>self.data).cells[0].w_ih
    return windows_bytes(self) + aligned(matrix.products.dense_bytes(matrix, WINDOWS))


cdef size_t plan_convolution(
    const OperatorInfo *self, void *use, const Extent *extent, int threads,
) noexcept nogil:
    cdef Py_ssize_t n = extent.T * extent.B
    # The rows of a ragged batch have their windows one row after the other.
    cdef Py_ssize_t parts = (n if extent.order == NULL else extent.T) // SLICE_ROWS
    cdef ConvolutionUse *own = <ConvolutionUse *>use
    own.slices = slices_of(convolution_cost(self, extent), parts, threads)
    return own.slices * slice_bytes(self)


cdef size_t convolution_room(const OperatorInfo *self, const Extent *extent, int threads) noexcept nogil:
    return threads * slice_bytes(self)


cdef void lay_out_convolution(const OperatorInfo *self, void *use, char *memory) noexcept nogil:
    (<ConvolutionUse *>use).memory = memory


cdef void place_convolution(const OperatorInfo *self, void *use, const States *states) noexcept nogil:
    if self.states > 0:
        (<ConvolutionUse *>use).state = states[0]


cdef void run_convolution(
    const OperatorInfo *self, void *use, const Extent *extent, const char *x, char *y,
) noexcept nogil:
    """As many steps as there are."""
    cdef Windows work
    cdef Py_ssize_t i
    set_work(&work, self, <const ConvolutionUse *>use, extent.T, extent.T, extent.B, extent.is_batch_first)
    work.x = x
    work.y = y
    if extent.order == NULL:
        run_windows(&work)
        if self.states > 0:
            for i in range(extent.B):
                keep_tail(&work, i)
        return
    for i in range(extent.B):
        run_row(&work, extent.order.order[i], extent.order.lengths[i])
        if self.states > 0:
            keep_tail(&work, work.only)


cdef double convolution_cost(const OperatorInfo *self, const Extent *extent) noexcept nogil:
    return work_cost(self, extent.T * extent.B)


cdef bint may_share_convolution(const OperatorInfo *self, const Extent *extent, int threads) noexcept nogil:
    return min(threads, self.threads) > 1 and is_worth_dividing(
        convolution_cost(self, extent), extent.T * extent.B // SLICE_ROWS)


cdef Contract CONVOLUTION
CONVOLUTION.plan = plan_convolution
CONVOLUTION.room = convolution_room
CONVOLUTION.lay_out = lay_out_convolution
CONVOLUTION.place = place_convolution
CONVOLUTION.run = run_convolution
CONVOLUTION.cost = convolution_cost
CONVOLUTION.may_share = may_share_convolution
