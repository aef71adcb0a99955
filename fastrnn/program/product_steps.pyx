"""Steps that are products: of rows with packed weights, and of two arrays. Strides are in bytes."""

cimport numpy as cnp
import numpy as np
from libc.string cimport memcpy

from fastrnn.engine.array_kernels cimport FRNN_MATMUL_BYTES, frnn_array_kernels, frnn_matmul
from fastrnn.engine.backend cimport frnn_arithmetic_name, frnn_cell
from fastrnn.engine.packing cimport PackedCell
from fastrnn.engine.workspace cimport aligned
from fastrnn.program.products cimport FEW_ROWS, distance_apart, is_crowded, products_ns
from fastrnn.program.steps cimport Step, kernels_of

cnp.import_array()

cdef enum:
    BATCH_AXES = 4


# ---------------------------------------------------------------- rows times packed weights

cdef struct DenseData:
    const frnn_cell *cell
    Py_ssize_t n
    Py_ssize_t ldx
    Py_ssize_t ldo
    Py_ssize_t batch
    Py_ssize_t x_batch
    Py_ssize_t out_batch
    Py_ssize_t itemsize
    Py_ssize_t apart    # the distance at which rows are laid apart first, or 0
    Py_ssize_t gathered  # the bytes that this takes


cdef class DenseStep(Step):
    """out = x W^T + bias for n rows, and for `batch` of them.

    Parameters
    ----------
    packed : PackedCell
        Of ``pack_dense``.
    n : int
    ldx, ldo : int
        Elements from row to row. Rows of x may overlap.
    batch, x_batch, out_batch : int
        How many times, and the bytes from one to the next.
    """

    cdef DenseData data

    def __init__(
        self, PackedCell packed not None, Py_ssize_t n, Py_ssize_t ldx, Py_ssize_t ldo, Py_ssize_t batch=1,
        Py_ssize_t x_batch=0, Py_ssize_t out_batch=0,
    ):
        self.owner = packed
        self.data.cell = &packed.cell
        self.data.n = n
        self.data.ldx = ldx
        self.data.ldo = ldo
        self.data.batch = batch
        self.data.x_batch = x_batch
        self.data.out_batch = out_batch
        self.data.itemsize = np.dtype(frnn_arithmetic_name(packed.cell.arithmetic).decode()).itemsize
        if n > FEW_ROWS and is_crowded(ldx, self.data.itemsize):
            self.data.apart = distance_apart(packed.cell.input_size, self.data.itemsize)
            self.info.scratch_bytes = aligned(n * self.data.apart * self.data.itemsize)
        self.data.gathered = self.info.scratch_bytes
        self.info.scratch_bytes += packed.cell.w_ih.products.dense_bytes(&packed.cell.w_ih, n)
        self.info.run = run_dense
        self.info.data = &self.data
        self.info.arrays = 2
        self.info.cost = 20 + products_ns(n * batch, packed.cell.input_size * packed.cell.hidden_size)


cdef void run_dense(const void *data, char *const *arrays, char *scratch) noexcept nogil:
    cdef const DenseData *self = <const DenseData *>data
    cdef Py_ssize_t b, m, ldx = self.ldx
    cdef const char *x
    for b in range(self.batch):
        x = arrays[0] + b * self.x_batch
        if self.apart:
            for m in range(self.n):
                memcpy(
                    scratch + m * self.apart * self.itemsize, x + m * self.ldx * self.itemsize,
                    self.cell.input_size * self.itemsize)
            x, ldx = scratch, self.apart
        self.cell.w_ih.products.dense(
            &self.cell.w_ih, self.n, x, ldx, self.cell.bias, arrays[1] + b * self.out_batch, self.ldo,
            scratch + self.gathered)


# ---------------------------------------------------------------- products of two arrays

cdef struct MatmulData:
    const frnn_array_kernels *kernels
    frnn_matmul matmul
    int axes
    Py_ssize_t sizes[BATCH_AXES]
    Py_ssize_t a[BATCH_AXES]
    Py_ssize_t b[BATCH_AXES]
    Py_ssize_t c[BATCH_AXES]


cdef class MatmulStep(Step):
    """c (..., m, n) = a (..., m, K) b (..., K, n), for up to four axes of a batch.

    Parameters
    ----------
    kernels : capsule
        A table of ``ARRAY_TABLES``, of the arrays' type.
    batch : tuple of int
    m, n, K : int
    a_strides, b_strides, c_strides : tuple of int
        In bytes, of the axes of the batch and the last two; 0 where an array is broadcast. The columns of c
        lie side by side.
    """

    cdef MatmulData data

    def __init__(
        self, kernels, batch, Py_ssize_t m, Py_ssize_t n, Py_ssize_t K, a_strides, b_strides, c_strides,
    ):
        cdef frnn_matmul *matmul = &self.data.matmul
        self.owner = kernels
        self.data.kernels = kernels_of(kernels)
        itemsize = np.dtype(self.data.kernels.arithmetic.decode()).itemsize
        if len(batch) > BATCH_AXES:
            raise ValueError(f"MatmulStep: expected a batch of at most {BATCH_AXES} axes, got {len(batch)}.")
        if n > 1 and c_strides[len(batch) + 1] != itemsize:
            raise ValueError("MatmulStep: expected columns of c side by side.")
        matmul.m, matmul.n, matmul.K = m, n, K
        matmul.a_row, matmul.a_column = [stride // itemsize for stride in a_strides[len(batch):]]
        matmul.b_row, matmul.b_column = [stride // itemsize for stride in b_strides[len(batch):]]
        matmul.c_row = c_strides[len(batch)] // itemsize
        self.data.axes = len(batch)
        for axis, size in enumerate(batch):
            self.data.sizes[axis] = size
            self.data.a[axis] = a_strides[axis]
            self.data.b[axis] = b_strides[axis]
            self.data.c[axis] = c_strides[axis]
        self.info.run = run_matmul
        self.info.data = &self.data
        self.info.arrays = 3
        self.info.scratch_bytes = FRNN_MATMUL_BYTES
        self.info.cost = 20 + products_ns(m, <double>n * K) * np.prod(batch, dtype=float)


cdef void run_matmul(const void *data, char *const *arrays, char *scratch) noexcept nogil:
    cdef const MatmulData *self = <const MatmulData *>data
    cdef const char *a = arrays[0]
    cdef const char *b = arrays[1]
    cdef char *c = arrays[2]
    cdef Py_ssize_t index[BATCH_AXES]
    cdef int axis
    for axis in range(self.axes):
        index[axis] = 0
        if self.sizes[axis] == 0:
            return
    while True:
        self.kernels.matmul(&self.matmul, a, b, c, scratch)
        axis = self.axes - 1
        while axis >= 0:
            a += self.a[axis]
            b += self.b[axis]
            c += self.c[axis]
            index[axis] += 1
            if index[axis] < self.sizes[axis]:
                break
            index[axis] = 0
            a -= self.sizes[axis] * self.a[axis]
            b -= self.sizes[axis] * self.b[axis]
            c -= self.sizes[axis] * self.c[axis]
            axis -= 1
        if axis < 0:
            return
