"""Operators without a state: rows of tokens, functions of rows, projections, the last step."""

cimport numpy as cnp
import numpy as np
from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.stdint cimport uint64_t
from libc.string cimport memcpy, memset

from fastrnn.engine.backend cimport (
    FRNN_LAYER_NORM, FRNN_LOG_SOFTMAX, FRNN_RELU, FRNN_SIGMOID, FRNN_SOFTMAX, FRNN_TANH,
    frnn_arithmetic_bytes, frnn_arithmetic_name, frnn_backend, frnn_cell, frnn_rows,
)
from fastrnn.engine.cost cimport dense_ns
from fastrnn.engine.packing cimport PackedCell, matrix_bytes
from fastrnn.engine.plan cimport is_worth_dividing, slices_of
from fastrnn.engine.blocks cimport SLICE_ROWS, rows_before
from fastrnn.engine.threads.team cimport share
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


# ---------------------------------------------------------------- tokens

cdef struct TokenData:
    const char *table           # (tokens, features); NULL: one-hot
    const char *one             # a 1 of the dtype


cdef class TokenRows(Operator):
    """A row for each token: that of a table, or zeros with a 1 at its place."""

    cdef TokenData data

    def __init__(self, table, str dtype, Py_ssize_t tokens, Py_ssize_t features):
        """table (tokens, features) is C-contiguous and never changes; None: one-hot."""
        self.begin(&TOKENS, dtype)
        self.info.tokens = tokens
        self.info.features_in = self.info.features_out = features
        self.info.weight_bytes = features * self.info.itemsize
        one = np.ones(1, dtype)
        self.owner = table, one
        self.data.one = cnp.PyArray_BYTES(one)
        if table is not None:
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
        if data.table != NULL:
            memcpy(y + i * row, data.table + token * row, row)
        else:
            memset(y + i * row, 0, row)
            memcpy(y + i * row + token * self.itemsize, data.one, self.itemsize)


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


# ---------------------------------------------------------------- projections

cdef struct DenseData:
    const frnn_backend *backend
    const frnn_cell *cell


cdef struct DenseUse:
    int slices


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
    int slices


cdef size_t plan_dense(
    const OperatorInfo *self, void *use, const Extent *extent, int threads,
) noexcept nogil:
    cdef Py_ssize_t n = extent.T * extent.B
    (<DenseUse *>use).slices = slices_of(dense_cost(self, extent), n // SLICE_ROWS, threads)
    return 0


cdef void run_dense(
    const OperatorInfo *self, void *use, const Extent *extent, const char *x, char *y,
) noexcept nogil:
    """x (n, I) to y (n, H), in as many slices of rows as were planned."""
    cdef Projection work
    work.dense = <const DenseData *>self.data
    work.n = extent.T * extent.B
    work.x = x
    work.out = y
    work.slices = (<const DenseUse *>use).slices
    if work.dense.backend.begin != NULL:
        work.dense.backend.begin()
    if work.slices == 1:
        project_rows(&work, 0, 0)
    else:
        share(project_rows, &work, 1, work.slices, work.slices, dense_cost(self, extent))
    if work.dense.backend.end != NULL:
        work.dense.backend.end()


cdef void project_rows(void *context, Py_ssize_t phase, int slice) noexcept nogil:
    cdef const Projection *work = <const Projection *>context
    cdef const frnn_cell *cell = work.dense.cell
    cdef const frnn_backend *backend = work.dense.backend
    cdef Py_ssize_t itemsize = frnn_arithmetic_bytes(cell.arithmetic)
    cdef Py_ssize_t first = rows_before(work.n, slice, work.slices)
    cdef Py_ssize_t last = rows_before(work.n, slice + 1, work.slices)
    cdef uint64_t before = backend.enter()
    cell.w_ih.products.dense(
        &cell.w_ih, last - first, work.x + first * cell.input_size * itemsize, cell.input_size,
        cell.bias, work.out + first * cell.hidden_size * itemsize, cell.hidden_size)
    backend.leave(before)


cdef double dense_cost(const OperatorInfo *self, const Extent *extent) noexcept nogil:
    return dense_ns(&(<const DenseData *>self.data).cell.w_ih, extent.T * extent.B)


cdef bint may_share_dense(const OperatorInfo *self, const Extent *extent, int threads) noexcept nogil:
    return threads > 1 and is_worth_dividing(dense_cost(self, extent), extent.T * extent.B // SLICE_ROWS)


cdef Contract DENSE
DENSE.plan = plan_dense
DENSE.run = run_dense
DENSE.cost = dense_cost
DENSE.may_share = may_share_dense


# ---------------------------------------------------------------- the last step

cdef class LastStep(Operator):
    """The last step of each row: (T, B, features) to (B, features)."""

    def __init__(self, str dtype):
        self.begin(&LAST_STEP, dtype)


cdef void run_last(
    const OperatorInfo *self, void *use, const Extent *extent, const char *x, char *y,
) noexcept nogil:
    cdef Py_ssize_t b, row = self.features_out * self.itemsize, T = extent.T, B = extent.B, at, t
    for b in range(B):
        at = b
        t = T - 1
        if extent.order != NULL:
            at = extent.order.order[b]
            t = extent.order.lengths[b] - 1
        memcpy(y + at * row, x + (at * T + t if extent.is_batch_first else t * B + at) * row, row)


cdef void give_last(const OperatorInfo *self, Extent *extent) noexcept nogil:
    extent.T = 1
    extent.order = NULL


cdef Contract LAST_STEP
LAST_STEP.run = run_last
LAST_STEP.give = give_last
