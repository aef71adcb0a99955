"""Packed weights: those of one cell, laid out by a backend and never changed again.

How they lie is the backend's matter. Here are the sums of biases.
"""

cimport numpy as cnp
import numpy as np
from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_New

from fastrnn.engine.backend cimport (
    FRNN_DENSE, FRNN_GATES_OF, FRNN_GRU, FRNN_LSTM, FRNN_RNN_RELU, FRNN_RNN_TANH, FRNN_STORED_BF16,
    FRNN_STORED_F32, FRNN_STORED_F64, FRNN_STORED_S8, frnn_arithmetic_name, frnn_cell, frnn_matrix,
    frnn_products, frnn_source,
    frnn_storage_name,
)
from fastrnn.engine.weight_memory import reserve
from fastrnn.narrow import NarrowWeight

cnp.import_array()

cdef dict KINDS = {
    "dense": FRNN_DENSE,
    "rnn_tanh": FRNN_RNN_TANH,
    "rnn_relu": FRNN_RNN_RELU,
    "gru": FRNN_GRU,
    "lstm": FRNN_LSTM,
}

# The storages in which arrays may hold weights: by their dtypes, or as a NarrowWeight names it.
cdef dict STORAGES = {
    "float32": FRNN_STORED_F32,
    "float64": FRNN_STORED_F64,
    "bfloat16": FRNN_STORED_BF16,
    "int8": FRNN_STORED_S8,
}

cdef class PackedCell:
    """The weights of one direction of one layer, laid out by a backend. Immutable.

    Attributes
    ----------
    memory : numpy.ndarray or None
        The bytes of the weights, read-only; None where the backend uses torch's rows as they are.
    """

    def __cinit__(
        self, tuple products, str kind, weight_ih, weight_hh, weight_hr, bias, bias_hn,
    ):
        """products are those of the three matrices, in their order. A matrix is an array or a NarrowWeight,
        in a storage that its products have; otherwise it is converted to the arithmetic."""
        cdef Sources sources
        cdef size_t size
        cdef char *memory
        of_ih, of_hh, of_hr = products
        self.backend = products_of(of_ih).backend
        dtype = frnn_arithmetic_name(self.backend.arithmetic).decode()
        self.cell.kind = KINDS[kind]
        self.cell.arithmetic = self.backend.arithmetic
        self.cell.gates = FRNN_GATES_OF(self.cell.kind)
        self.cell.input_size = weight_ih.shape[1]
        self.cell.hidden_size = weight_ih.shape[0] // self.cell.gates
        self.cell.output_size = self.cell.hidden_size if weight_hh is None else weight_hh.shape[1]
        arrays = [
            *self.take(&self.cell.w_ih, self.cell.gates, of_ih, weight_ih, &sources.w_ih),
            *self.take(&self.cell.w_hh, self.cell.gates, of_hh, weight_hh, &sources.w_hh),
            *self.take(&self.cell.w_hr, 1, of_hr, weight_hr, &sources.w_hr),
        ]
        biases = [None if array is None else np.ascontiguousarray(array, dtype) for array in (bias, bias_hn)]
        sources.bias = data_of(biases[0])
        sources.bias_hn = data_of(biases[1])
        size = pack(&self.cell, &sources, NULL)
        if size:
            self.memory = reserve(size)
            memory = cnp.PyArray_BYTES(self.memory)
            with nogil:
                pack(&self.cell, &sources, memory)
            self.memory.flags.writeable = False
        self.rows = tuple([array for array in arrays + biases if self.points_to(data_of(array))])

    cdef tuple take(
        self, frnn_matrix *matrix, Py_ssize_t gates, products, weight, frnn_source *source,
    ):
        """Make the matrix and its source; give the arrays that the source points to: numbers and scales."""
        source.data = NULL
        if weight is None:
            return None, None
        matrix.products = products_of(products)
        if matrix.products.backend != self.backend:
            raise ValueError("PackedCell: expected products of one backend, got several.")
        matrix.rows, matrix.columns = weight.shape
        matrix.gates = gates
        scales = None
        is_narrow = isinstance(weight, NarrowWeight)
        storage = weight.storage if is_narrow else weight.dtype.name
        wanted = frnn_storage_name(matrix.products.format.storage).decode()
        if is_narrow and storage == wanted:
            weight, scales = weight.data, weight.scales
        else:
            if is_narrow or storage != wanted or weight.dtype.kind != "f":
                storage = frnn_arithmetic_name(self.backend.arithmetic).decode()
            weight = np.ascontiguousarray(weight, storage)
        source.data = cnp.PyArray_DATA(weight)
        source.storage = STORAGES[storage]
        source.scales = <const float *>data_of(scales)
        return weight, scales

    cdef bint points_to(self, const void *data):
        cdef const frnn_cell *cell = &self.cell
        return data != NULL and (
            data == cell.w_ih.data or data == cell.w_hh.data or data == cell.w_hr.data
            or data == cell.w_ih.scales or data == cell.w_hh.scales or data == cell.w_hr.scales
            or data == cell.bias or data == cell.bias_hn)


cdef struct Sources:
    # The weights and biases of a cell before they are packed; NULL where there are none.
    frnn_source w_ih, w_hh, w_hr
    const void *bias
    const void *bias_hn


cdef size_t pack(frnn_cell *cell, const Sources *sources, char *memory) noexcept nogil:
    """Lay them out in this order, and give the bytes that they take. With memory NULL only give these."""
    cdef size_t used = pack_matrix(&cell.w_ih, &sources.w_ih, memory, 0)
    used = pack_matrix(&cell.w_hh, &sources.w_hh, memory, used)
    used = pack_matrix(&cell.w_hr, &sources.w_hr, memory, used)
    return used + cell.w_ih.products.backend.pack_biases(
        cell, sources.bias, sources.bias_hn, rest(memory, used))


cdef size_t pack_matrix(
    frnn_matrix *matrix, const frnn_source *source, char *memory, size_t used,
) noexcept nogil:
    """Lay a matrix out after this many bytes, and give how many are used then."""
    if source.data == NULL:
        return used
    return used + matrix.products.pack(matrix, source, rest(memory, used))


cdef inline char *rest(char *memory, size_t used) noexcept nogil:
    return NULL if memory == NULL else memory + used


cdef const frnn_products *products_of(capsule) except NULL:
    return <const frnn_products *>PyCapsule_GetPointer(capsule, "fastrnn.products")


def backend_of(products):
    """The table of the backend that has these products."""
    return PyCapsule_New(<void *>products_of(products).backend, "fastrnn.backend", NULL)


cdef const void *data_of(object array):
    return NULL if array is None else cnp.PyArray_DATA(array)


def pack_dense(products, weight, bias):
    """Pack a Linear layer: weight (out, in), bias (out,) or None."""
    if bias is None:
        bias = np.zeros(weight.shape[0])
    return PackedCell((products, None, None), "dense", weight, None, None, bias, None)


def pack_recurrent(products, kind, weight_ih, weight_hh, bias_ih, bias_hh, weight_hr):
    """Pack one direction of one recurrent layer, by the products of its matrices; biases and weight_hr may
    be None.

    The two biases are added in float64 and rounded once. A GRU's b_hn stays apart, since
    the reset gate multiplies it.
    """
    rows = weight_ih.shape[0]
    bias = np.zeros(rows)
    bias_hn = None
    if bias_ih is not None:
        bias += bias_ih
        bias += bias_hh
    if kind == "gru":
        hidden_size = rows // 3
        bias_hn = np.zeros(hidden_size)
        if bias_hh is not None:
            bias_hn[:] = bias_hh[2 * hidden_size:]
            bias[2 * hidden_size:] = bias_ih[2 * hidden_size:]
    return PackedCell(products, kind, weight_ih, weight_hh, weight_hr, bias, bias_hn)
