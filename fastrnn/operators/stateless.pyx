"""Operators without a state: rows of tokens, functions of rows, maps, projections, what is left of time."""

cimport numpy as cnp
import numpy as np
from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.stdint cimport int8_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from fastrnn.engine.array_kernels cimport (
    FRNN_MAP_ADD, FRNN_MAP_CLAMP, FRNN_MAP_DIV, FRNN_MAP_ELU, FRNN_MAP_GELU, FRNN_MAP_GELU_TANH,
    FRNN_MAP_LEAKY_RELU, FRNN_MAP_MUL, FRNN_MAP_SILU, FRNN_MAP_SOFTPLUS, FRNN_MAP_SUB, FRNN_MAP_TILE,
    FRNN_REDUCE_BYTES, FRNN_REDUCE_MAX, FRNN_REDUCE_MEAN, FRNN_TYPE_FLOAT32, FRNN_TYPE_FLOAT64,
    frnn_array_kernels, frnn_instruction, frnn_map, frnn_map_bytes, frnn_reduce, frnn_view,
)
from fastrnn.engine.backend cimport (
    FRNN_LAYER_NORM, FRNN_LOG_SOFTMAX, FRNN_RELU, FRNN_SIGMOID, FRNN_SOFTMAX, FRNN_STORED_BF16,
    FRNN_STORED_S8, FRNN_TANH, frnn_arithmetic_bytes, frnn_arithmetic_name, frnn_backend, frnn_cell,
    frnn_matrix, frnn_rows, frnn_storage,
)
from fastrnn.engine.cost cimport dense_ns
from fastrnn.engine.packing cimport PackedCell, matrix_bytes
from fastrnn.engine.plan cimport is_worth_dividing, slices_of
from fastrnn.engine.blocks cimport SLICE_ROWS, count, rows_before
from fastrnn.engine.threads.team cimport share
from fastrnn.engine.workspace cimport Workspace, aligned
from fastrnn.narrow import NarrowWeight
from fastrnn.operators.operator cimport Contract, Extent, Operator, OperatorInfo

cnp.import_array()

# The functions of rows by their names.
cdef dict ROW_KINDS = {
    "relu": FRNN_RELU,
    "tanh": FRNN_TANH,
    "sigmoid": FRNN_SIGMOID,
    "softmax": FRNN_SOFTMAX,
    "log_softmax": FRNN_LOG_SOFTMAX,
    "layer_norm": FRNN_LAYER_NORM,
}
# The operations of maps by torch's names.
cdef dict MAP_OPERATIONS = {
    "add": FRNN_MAP_ADD,
    "sub": FRNN_MAP_SUB,
    "mul": FRNN_MAP_MUL,
    "div": FRNN_MAP_DIV,
    "clamp": FRNN_MAP_CLAMP,
    "elu": FRNN_MAP_ELU,
    "gelu": FRNN_MAP_GELU,
    "gelu_tanh": FRNN_MAP_GELU_TANH,
    "leaky_relu": FRNN_MAP_LEAKY_RELU,
    "silu": FRNN_MAP_SILU,
    "softplus": FRNN_MAP_SOFTPLUS,
}
# What is left of the steps of a row.
cdef dict REDUCTIONS = {"mean": FRNN_REDUCE_MEAN, "max": FRNN_REDUCE_MAX}


# ---------------------------------------------------------------- tokens

cdef struct TokenData:
    const char *table           # (tokens, features); NULL: one-hot
    frnn_storage storage        # of the table
    const float *scales         # of the rows of int8
    const char *one             # a 1 of the dtype


cdef class TokenRows(Operator):
    """A row for each token: that of a table, or zeros with a 1 at its place."""

    cdef TokenData data

    def __init__(self, table, str dtype, Py_ssize_t tokens, Py_ssize_t features):
        """table (tokens, features) never changes: a C-contiguous array of that dtype, or a NarrowWeight if it
        is float32. None: one-hot."""
        self.begin(&TOKENS, dtype)
        self.info.tokens = tokens
        self.info.features_in = self.info.features_out = features
        self.info.weight_bytes = features * self.info.itemsize
        one = np.ones(1, dtype)
        self.owner = table, one
        self.data.one = cnp.PyArray_BYTES(one)
        if isinstance(table, NarrowWeight):
            self.data.storage = FRNN_STORED_BF16 if table.scales is None else FRNN_STORED_S8
            self.data.table = cnp.PyArray_BYTES(table.data)
            self.info.weight_bytes = features * table.data.itemsize
            if table.scales is not None:
                self.data.scales = <const float *>cnp.PyArray_DATA(table.scales)
        elif table is not None:
            self.data.table = cnp.PyArray_BYTES(table)
        self.info.data = &self.data


cdef void run_tokens(
    const OperatorInfo *self, void *use, const Extent *extent, const char *x, char *y,
) noexcept nogil:
    cdef const TokenData *data = <const TokenData *>self.data
    cdef const Py_ssize_t *tokens = <const Py_ssize_t *>x
    cdef Py_ssize_t i, token, row = self.features_out * self.itemsize
    for i in range(extent.T * extent.B):
        # Checked already; another thread may have written to the caller's array since.
        token = min(max(tokens[i], 0), self.tokens - 1)
        if data.storage == FRNN_STORED_BF16:
            widen_bfloat16(
                self.features_out, <const uint16_t *>data.table + token * self.features_out,
                <uint32_t *>(y + i * row))
        elif data.storage == FRNN_STORED_S8:
            scale_int8(
                self.features_out, <const int8_t *>data.table + token * self.features_out,
                data.scales[token], <float *>(y + i * row))
        elif data.table != NULL:
            memcpy(y + i * row, data.table + token * row, row)
        else:
            memset(y + i * row, 0, row)
            memcpy(y + i * row + token * self.itemsize, data.one, self.itemsize)


cdef inline void widen_bfloat16(Py_ssize_t n, const uint16_t *bits, uint32_t *wide) noexcept nogil:
    cdef Py_ssize_t k
    for k in range(n):
        wide[k] = <uint32_t>bits[k] << 16


cdef inline void scale_int8(Py_ssize_t n, const int8_t *numbers, float scale, float *wide) noexcept nogil:
    cdef Py_ssize_t k
    for k in range(n):
        wide[k] = numbers[k] * scale


cdef Contract TOKENS
TOKENS.run = run_tokens


# ---------------------------------------------------------------- functions of rows

cdef struct RowsData:
    const frnn_backend *backend
    frnn_rows rows              # but for their features


cdef class RowFunction(Operator):
    """What is done to each row by itself: an activation, a softmax, a layer norm."""

    cdef RowsData rows

    def __init__(
        self, str name, str dtype, backend, Py_ssize_t features=0, weight=None, bias=None, double eps=0,
    ):
        """name is a key of ROW_KINDS; features 0 takes any. weight and bias (features,), of that dtype, are
        C-contiguous and stay so."""
        self.begin(&ROWS, dtype)
        self.rows.backend = <const frnn_backend *>PyCapsule_GetPointer(backend, "fastrnn.backend")
        self.rows.rows.kind = ROW_KINDS[name]
        self.rows.rows.eps = eps
        self.info.data = &self.rows
        self.info.is_in_place = True
        self.info.features_in = self.info.features_out = features
        self.owner = weight, bias
        if weight is not None:
            self.rows.rows.weight = cnp.PyArray_DATA(weight)
        if bias is not None:
            self.rows.rows.bias = cnp.PyArray_DATA(bias)


cdef void run_rows(
    const OperatorInfo *self, void *use, const Extent *extent, const char *x, char *y,
) noexcept nogil:
    cdef const RowsData *data = <const RowsData *>self.data
    cdef frnn_rows rows = data.rows
    cdef uint64_t before = data.backend.enter()
    rows.features = self.features_out
    data.backend.rows(&rows, extent.T * extent.B, x, y)
    data.backend.leave(before)


cdef Contract ROWS
ROWS.run = run_rows


# ---------------------------------------------------------------- maps

cdef enum:
    MOST_OPERATIONS = 4     # of a map; each may have a vector


cdef struct MapData:
    const frnn_backend *backend
    const frnn_array_kernels *kernels
    frnn_map map                # but for its sizes, tiles and views
    frnn_instruction program[MOST_OPERATIONS]
    const char *vectors[MOST_OPERATIONS]


cdef struct MapUse:
    char *scratch


cdef class Map(Operator):
    """A chain of operations on each number, by the kernels that maps of programs have."""

    cdef MapData map

    def __init__(self, str dtype, backend, kernels, program, Py_ssize_t features=0):
        """program: (operation, vector or None, parameters) for each operation, in order. A vector
        (features,), of that dtype, is the second operand, the same for all rows. It is C-contiguous and stays
        so. features: 0 for any, without vectors."""
        cdef frnn_map *map = &self.map.map
        cdef frnn_instruction *instruction
        cdef int i
        self.begin(&MAP, dtype)
        self.map.backend = <const frnn_backend *>PyCapsule_GetPointer(backend, "fastrnn.backend")
        self.map.kernels = <const frnn_array_kernels *>PyCapsule_GetPointer(kernels, "fastrnn.array_kernels")
        self.info.data = &self.map
        self.info.is_in_place = True
        self.info.features_in = self.info.features_out = features
        self.info.use_bytes = sizeof(MapUse)
        self.owner = program = tuple(program)
        if len(program) > MOST_OPERATIONS:
            raise ValueError(f"Map: expected at most {MOST_OPERATIONS} operations, got {len(program)}.")
        map.inputs = 1
        map.outputs = 1
        map.instructions = <int>len(program)
        map.program = self.map.program
        for i, (name, vector, parameters) in enumerate(program):
            instruction = &self.map.program[i]
            instruction.operation = MAP_OPERATIONS[name]
            for k, value in enumerate(parameters):
                instruction.p[k].real = value
            if vector is not None:
                self.map.vectors[map.inputs - 1] = cnp.PyArray_BYTES(vector)
                instruction.b = map.inputs
                map.inputs += 1
        # Every result goes to the output, from where the next operation takes it.
        for i in range(map.instructions):
            instruction = &self.map.program[i]
            instruction.to = map.inputs
            instruction.a = instruction.c = 0 if i == 0 else map.inputs
            if instruction.b == 0:
                instruction.b = instruction.a


cdef size_t plan_map(const OperatorInfo *self, void *use, const Extent *extent, int threads) noexcept nogil:
    return map_room(self, extent, threads)


cdef size_t map_room(const OperatorInfo *self, const Extent *extent, int threads) noexcept nogil:
    cdef const frnn_map *map = &(<const MapData *>self.data).map
    # Without vectors, all numbers are read and written where they lie.
    return frnn_map_bytes(map) if map.inputs > 1 else 0


cdef void lay_out_map(const OperatorInfo *self, void *use, char *memory) noexcept nogil:
    (<MapUse *>use).scratch = memory


cdef void run_map(
    const OperatorInfo *self, void *use, const Extent *extent, const char *x, char *y,
) noexcept nogil:
    cdef const MapData *data = <const MapData *>self.data
    cdef frnn_map map = data.map
    cdef frnn_view views[MOST_OPERATIONS + 2]
    cdef uint8_t is_direct[MOST_OPERATIONS + 2]
    cdef char *arrays[MOST_OPERATIONS + 2]
    cdef Py_ssize_t rows = extent.T * extent.B, features = self.features_out
    cdef int operands = map.inputs + 1, i
    cdef bint is_vector
    cdef uint64_t before
    if map.inputs == 1:     # wherever rows end
        features *= rows
        rows = 1
    map.axes = 2
    map.sizes[0] = rows
    map.sizes[1] = map.tile_columns = features
    # Several narrow rows at once, beside as many copies of the vectors.
    map.tile_rows = min(rows, FRNN_MAP_TILE // features) if 2 * features <= FRNN_MAP_TILE else 1
    for i in range(operands):
        is_vector = 0 < i < map.inputs
        views[i].type = FRNN_TYPE_FLOAT32 if self.itemsize == 4 else FRNN_TYPE_FLOAT64
        views[i].strides[0] = 0 if is_vector else features * self.itemsize
        views[i].strides[1] = self.itemsize
        is_direct[i] = not is_vector or map.tile_rows == 1
        arrays[i] = <char *>(data.vectors[i - 1] if is_vector else x)
    arrays[operands - 1] = y
    map.views = views
    map.is_direct = is_direct
    before = data.backend.enter()
    data.kernels.map(&map, arrays, (<MapUse *>use).scratch)
    data.backend.leave(before)


cdef Contract MAP
MAP.plan = plan_map
MAP.room = map_room
MAP.lay_out = lay_out_map
MAP.run = run_map


# ---------------------------------------------------------------- projections

cdef struct DenseData:
    const frnn_backend *backend
    const frnn_cell *cell


cdef struct DenseUse:
    int slices
    Py_ssize_t slice_bytes
    char *memory            # slice_bytes for each slice


cdef class Dense(Operator):
    """A projection alone: x W^T + bias."""

    cdef DenseData dense

    def __init__(self, PackedCell packed not None, int threads=1):
        self.begin(&DENSE, frnn_arithmetic_name(packed.cell.arithmetic).decode(), threads)
        self.dense.backend = packed.backend
        self.dense.cell = &packed.cell
        self.info.data = &self.dense
        self.info.features_in = packed.cell.input_size
        self.info.features_out = packed.cell.hidden_size
        self.info.weight_bytes = matrix_bytes(&packed.cell.w_ih)
        self.info.use_bytes = sizeof(DenseUse)
        self.owner = packed


cdef struct Projection:
    # What the threads of a projection share.
    const DenseData *dense
    Py_ssize_t n
    const char *x
    char *out
    const DenseUse *use


cdef size_t plan_dense(
    const OperatorInfo *self, void *use, const Extent *extent, int threads,
) noexcept nogil:
    cdef Py_ssize_t n = extent.T * extent.B
    cdef DenseUse *own = <DenseUse *>use
    own.slices = slices_of(dense_cost(self, extent), n // SLICE_ROWS, threads)
    own.slice_bytes = slice_bytes(self, count(n, own.slices))
    return own.slices * own.slice_bytes


cdef size_t dense_room(const OperatorInfo *self, const Extent *extent, int threads) noexcept nogil:
    cdef Py_ssize_t n = extent.T * extent.B
    cdef size_t size = 0
    cdef int slices
    for slices in range(1, threads + 1):
        size = max(size, slices * slice_bytes(self, count(n, slices)))
    return size


cdef inline size_t slice_bytes(const OperatorInfo *self, Py_ssize_t n) noexcept nogil:
    """What the products of n rows need."""
    cdef const frnn_matrix *matrix = &(<const DenseData *>self.data).cell.w_ih
    return aligned(matrix.products.dense_bytes(matrix, n))


cdef void lay_out_dense(const OperatorInfo *self, void *use, char *memory) noexcept nogil:
    (<DenseUse *>use).memory = memory


cdef void run_dense(
    const OperatorInfo *self, void *use, const Extent *extent, const char *x, char *y,
) noexcept nogil:
    """x (n, I) to y (n, H), in as many slices of rows as were planned."""
    cdef Projection work
    work.dense = <const DenseData *>self.data
    work.n = extent.T * extent.B
    work.x = x
    work.out = y
    work.use = <const DenseUse *>use
    if work.dense.backend.begin != NULL:
        work.dense.backend.begin()
    if work.use.slices == 1:
        project_rows(&work, 0, 0)
    else:
        share(project_rows, &work, 1, work.use.slices, work.use.slices, dense_cost(self, extent))
    if work.dense.backend.end != NULL:
        work.dense.backend.end()


cdef void project_rows(void *context, Py_ssize_t phase, int slice) noexcept nogil:
    cdef const Projection *work = <const Projection *>context
    cdef const frnn_cell *cell = work.dense.cell
    cdef const frnn_backend *backend = work.dense.backend
    cdef Py_ssize_t itemsize = frnn_arithmetic_bytes(cell.arithmetic)
    cdef Py_ssize_t first = rows_before(work.n, slice, work.use.slices)
    cdef Py_ssize_t last = rows_before(work.n, slice + 1, work.use.slices)
    cdef uint64_t before = backend.enter()
    cell.w_ih.products.dense(
        &cell.w_ih, last - first, work.x + first * cell.input_size * itemsize, cell.input_size,
        cell.bias, work.out + first * cell.hidden_size * itemsize, cell.hidden_size,
        work.use.memory + slice * work.use.slice_bytes)
    backend.leave(before)


cdef double dense_cost(const OperatorInfo *self, const Extent *extent) noexcept nogil:
    return dense_ns(&(<const DenseData *>self.data).cell.w_ih, extent.T * extent.B)


cdef bint may_share_dense(const OperatorInfo *self, const Extent *extent, int threads) noexcept nogil:
    return threads > 1 and is_worth_dividing(dense_cost(self, extent), extent.T * extent.B // SLICE_ROWS)


cdef Contract DENSE
DENSE.plan = plan_dense
DENSE.room = dense_room
DENSE.lay_out = lay_out_dense
DENSE.run = run_dense
DENSE.cost = dense_cost
DENSE.may_share = may_share_dense


# ---------------------------------------------------------------- what is left of time

cdef struct LastData:
    bint is_of_both


cdef class LastStep(Operator):
    """The last step of each row: (T, B, features) to (B, features)."""

    cdef LastData last

    def __init__(self, str dtype, bint is_of_both=False):
        """is_of_both: the second half of the features is that of the first step, where the reverse direction
        ends."""
        self.begin(&LAST_STEP, dtype)
        self.last.is_of_both = is_of_both
        self.info.data = &self.last


cdef void run_last(
    const OperatorInfo *self, void *use, const Extent *extent, const char *x, char *y,
) noexcept nogil:
    cdef Py_ssize_t b, row = self.features_out * self.itemsize, T = extent.T, B = extent.B, at, t
    cdef Py_ssize_t half = row // 2
    for b in range(B):
        at = b
        t = T - 1
        if extent.order != NULL:
            at = extent.order.order[b]
            t = extent.order.lengths[b] - 1
        memcpy(y + at * row, x + (at * T + t if extent.is_batch_first else t * B + at) * row, row)
        if (<const LastData *>self.data).is_of_both:
            memcpy(
                y + at * row + half, x + (at * T if extent.is_batch_first else at) * row + half, row - half)


cdef void give_last(const OperatorInfo *self, Extent *extent) noexcept nogil:
    extent.T = 1
    extent.order = NULL


cdef Contract LAST_STEP
LAST_STEP.run = run_last
LAST_STEP.give = give_last


cdef struct OverStepsData:
    const frnn_backend *backend
    const frnn_array_kernels *kernels
    frnn_reduce reduce          # but for its sizes and strides


cdef struct OverStepsUse:
    char *scratch


cdef class OverSteps(Operator):
    """The mean or the largest of the steps of each row: (T, B, features) to (B, features)."""

    cdef OverStepsData steps

    def __init__(self, str name, str dtype, backend, kernels):
        self.begin(&OVER_STEPS, dtype)
        self.steps.backend = <const frnn_backend *>PyCapsule_GetPointer(backend, "fastrnn.backend")
        self.steps.kernels = <const frnn_array_kernels *>PyCapsule_GetPointer(
            kernels, "fastrnn.array_kernels")
        self.steps.reduce.reduction = REDUCTIONS[name]
        self.steps.reduce.kept = self.steps.reduce.reduced = 1
        self.steps.reduce.input.type = self.steps.reduce.output.type = (
            FRNN_TYPE_FLOAT32 if self.info.itemsize == 4 else FRNN_TYPE_FLOAT64)
        self.info.data = &self.steps
        self.info.use_bytes = sizeof(OverStepsUse)

    def call(self, cnp.ndarray x, cnp.ndarray out, cnp.ndarray lengths):
        """x (T, B, features) into out (B, features), both C-contiguous, of its dtype and apart; lengths (B,)
        of intp, or None."""
        cdef OperatorInfo info = self.info
        cdef Py_ssize_t T = cnp.PyArray_DIM(x, 0), B = cnp.PyArray_DIM(x, 1), b, length = T
        cdef const Py_ssize_t *given = NULL
        cdef const char *source = cnp.PyArray_BYTES(x)
        cdef char *target = cnp.PyArray_BYTES(out)
        cdef Workspace workspace = Workspace()
        cdef uint64_t before
        if lengths is not None:
            given = <const Py_ssize_t *>cnp.PyArray_DATA(lengths)
        workspace.reserve(FRNN_REDUCE_BYTES)
        info.features_out = cnp.PyArray_DIM(x, 2)
        with nogil:
            before = self.steps.backend.enter()
            for b in range(B):
                if given != NULL:
                    length = min(max(given[b], 1), T)
                reduce_row(&info, T, B, False, b, length, source, target, workspace.data)
            self.steps.backend.leave(before)


cdef void reduce_row(
    const OperatorInfo *self, Py_ssize_t T, Py_ssize_t B, bint is_batch_first, Py_ssize_t b,
    Py_ssize_t length, const char *x, char *y, char *scratch,
) noexcept nogil:
    """The first steps of row b, this many, into its row of y."""
    cdef const OverStepsData *data = <const OverStepsData *>self.data
    cdef frnn_reduce reduce = data.reduce
    cdef Py_ssize_t row = self.features_out * self.itemsize
    reduce.sizes[0] = self.features_out
    reduce.sizes[1] = length
    reduce.input.strides[0] = reduce.output.strides[0] = self.itemsize
    reduce.input.strides[1] = row if is_batch_first else B * row
    data.kernels.reduce(&reduce, x + (b * T if is_batch_first else b) * row, y + b * row, scratch)


cdef size_t plan_over_steps(
    const OperatorInfo *self, void *use, const Extent *extent, int threads,
) noexcept nogil:
    return FRNN_REDUCE_BYTES


cdef size_t over_steps_room(const OperatorInfo *self, const Extent *extent, int threads) noexcept nogil:
    return FRNN_REDUCE_BYTES


cdef void lay_out_over_steps(const OperatorInfo *self, void *use, char *memory) noexcept nogil:
    (<OverStepsUse *>use).scratch = memory


cdef void run_over_steps(
    const OperatorInfo *self, void *use, const Extent *extent, const char *x, char *y,
) noexcept nogil:
    cdef const OverStepsData *data = <const OverStepsData *>self.data
    cdef Py_ssize_t i, b, length
    cdef uint64_t before = data.backend.enter()
    for i in range(extent.B):
        b = i
        length = extent.T
        if extent.order != NULL:
            b = extent.order.order[i]
            length = extent.order.lengths[i]
        reduce_row(
            self, extent.T, extent.B, extent.is_batch_first, b, length, x, y, (<OverStepsUse *>use).scratch)
    data.backend.leave(before)


cdef Contract OVER_STEPS
OVER_STEPS.plan = plan_over_steps
OVER_STEPS.room = over_steps_room
OVER_STEPS.lay_out = lay_out_over_steps
OVER_STEPS.run = run_over_steps
OVER_STEPS.give = give_last
