"""Packed weights: those of one cell, laid out by a backend and never changed again.

How they lie is the backend's matter. Here are the memory that they lie in, and the sums of biases.
"""

import mmap

cimport numpy as cnp
import numpy as np
from cpython.pycapsule cimport PyCapsule_GetPointer

from fastrnn.engine.backend cimport (
    FRNN_DENSE, FRNN_GATES_OF, FRNN_GRU, FRNN_LINE, FRNN_LSTM, FRNN_RNN_RELU, FRNN_RNN_TANH,
    frnn_arithmetic_name, frnn_backend, frnn_weights,
)

cnp.import_array()

cdef dict KINDS = {
    "dense": FRNN_DENSE,
    "rnn_tanh": FRNN_RNN_TANH,
    "rnn_relu": FRNN_RNN_RELU,
    "gru": FRNN_GRU,
    "lstm": FRNN_LSTM,
}

LINE = FRNN_LINE
LARGE_PAGE = 2 * 1024 * 1024
# Fewer bytes of weights than this would leave most of a large page unused.
LARGE_BYTES = 1024 * 1024


cdef class PackedCell:
    """The weights of one direction of one layer, laid out by a backend. Immutable.

    Attributes
    ----------
    memory : numpy.ndarray or None
        The bytes of the weights, read-only; None where the backend uses torch's rows as they are.
    """

    def __cinit__(
        self, backend, str kind, weight_ih, weight_hh, weight_hr, bias, bias_hn,
    ):
        cdef const frnn_backend *table
        cdef frnn_weights weights
        cdef size_t size
        cdef void *data
        table = <const frnn_backend *>PyCapsule_GetPointer(backend, "fastrnn.backend")
        self.backend = table
        dtype = frnn_arithmetic_name(table.arithmetic).decode()
        self.cell.kind = KINDS[kind]
        self.cell.arithmetic = table.arithmetic
        self.cell.gates = FRNN_GATES_OF(self.cell.kind)
        self.cell.input_size = weight_ih.shape[1]
        self.cell.hidden_size = weight_ih.shape[0] // self.cell.gates
        self.cell.output_size = self.cell.hidden_size if weight_hh is None else weight_hh.shape[1]
        self.rows = tuple([
            None if array is None else np.ascontiguousarray(array, dtype)
            for array in (weight_ih, weight_hh, weight_hr, bias, bias_hn)
        ])
        weights.w_ih = data_of(self.rows[0])
        weights.w_hh = data_of(self.rows[1])
        weights.w_hr = data_of(self.rows[2])
        weights.bias = data_of(self.rows[3])
        weights.bias_hn = data_of(self.rows[4])
        size = table.pack(&self.cell, &weights, NULL)
        if size:
            self.memory = reserve(size)
            data = cnp.PyArray_DATA(self.memory)
            with nogil:
                table.pack(&self.cell, &weights, data)
            self.memory.flags.writeable = False
            self.rows = None


cdef const void *data_of(object array):
    return NULL if array is None else cnp.PyArray_DATA(array)


def reserve(size):
    """Memory of this many bytes that begins at a cache line.

    Where the system gives large pages, a large piece lies on them: a cache of the second level holds more
    of it, since its addresses are spread evenly over the sets, and fewer translations are missed.
    """
    memory, page = None, LARGE_PAGE
    if size >= LARGE_BYTES and hasattr(mmap, "MADV_HUGEPAGE"):
        mapped = mmap.mmap(-1, size + LARGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        try:
            mapped.madvise(mmap.MADV_HUGEPAGE)
            memory = np.frombuffer(mapped, np.uint8)
        except OSError:  # a kernel without large pages
            mapped.close()
    if memory is None:
        memory, page = np.empty(size + LINE, np.uint8), LINE
    begin = -memory.ctypes.data % page
    return memory[begin:begin + size]


def pack_dense(backend, weight, bias):
    """Pack a Linear layer: weight (out, in), bias (out,) or None."""
    if bias is None:
        bias = np.zeros(weight.shape[0], weight.dtype)
    return PackedCell(backend, "dense", weight, None, None, bias, None)


def pack_recurrent(backend, kind, weight_ih, weight_hh, bias_ih, bias_hh, weight_hr):
    """Pack one direction of one recurrent layer; biases and weight_hr may be None.

    The two biases are added in float64 and rounded once. A GRU's b_hn stays apart, since
    the reset gate multiplies it.
    """
    dtype = weight_ih.dtype
    rows = weight_ih.shape[0]
    bias = np.zeros(rows)
    bias_hn = None
    if bias_ih is not None:
        bias += bias_ih
        bias += bias_hh
    if kind == "gru":
        hidden_size = rows // 3
        bias_hn = np.zeros(hidden_size, dtype)
        if bias_hh is not None:
            bias_hn[:] = bias_hh[2 * hidden_size:]
            bias[2 * hidden_size:] = bias_ih[2 * hidden_size:]
    return PackedCell(backend, kind, weight_ih, weight_hh, weight_hr, bias.astype(dtype), bias_hn)
