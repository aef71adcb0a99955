"""Packed weights: the arrays of one cell, laid out for a backend and never changed again."""

cimport numpy as cnp
import numpy as np

from fastrnn._kernels cimport (
    FRNN_DENSE, FRNN_F32, FRNN_F64, FRNN_GRU, FRNN_LSTM, FRNN_RNN_RELU, FRNN_RNN_TANH,
)

cnp.import_array()

cdef dict KINDS = {
    "dense": FRNN_DENSE,
    "rnn_tanh": FRNN_RNN_TANH,
    "rnn_relu": FRNN_RNN_RELU,
    "gru": FRNN_GRU,
    "lstm": FRNN_LSTM,
}
cdef dict DTYPES = {"float32": FRNN_F32, "float64": FRNN_F64}


cdef class PackedCell:
    """The weights of one direction of one layer, row-major as torch keeps them.

    Immutable. `arrays` are its own or read-only: nothing else writes to them.
    """

    def __cinit__(self, str kind, weight_ih, weight_hh, weight_hr, bias, bias_hn):
        dtype = weight_ih.dtype
        self.cell.kind = KINDS[kind]
        self.cell.dtype = DTYPES[dtype.name]
        self.cell.input_size = weight_ih.shape[1]
        if weight_hh is None:
            self.cell.gates = 1
            self.cell.output_size = self.cell.hidden_size = weight_ih.shape[0]
        else:
            self.cell.output_size = weight_hh.shape[1]
            self.cell.hidden_size = self.cell.output_size if weight_hr is None else weight_hr.shape[1]
            self.cell.gates = weight_ih.shape[0] // self.cell.hidden_size
        self.arrays = tuple(
            None if array is None else np.ascontiguousarray(array, dtype=dtype)
            for array in (weight_ih, weight_hh, weight_hr, bias, bias_hn)
        )
        self.cell.w_ih = data_of(self.arrays[0])
        self.cell.w_hh = data_of(self.arrays[1])
        self.cell.w_hr = data_of(self.arrays[2])
        self.cell.bias = data_of(self.arrays[3])
        self.cell.bias_hn = data_of(self.arrays[4])


cdef const void *data_of(object array):
    return NULL if array is None else cnp.PyArray_DATA(array)


def pack_dense(weight, bias):
    """Pack a Linear layer: weight (out, in), bias (out,) or None."""
    if bias is None:
        bias = np.zeros(weight.shape[0], weight.dtype)
    return PackedCell("dense", weight, None, None, bias, None)


def pack_recurrent(kind, weight_ih, weight_hh, bias_ih, bias_hh, weight_hr):
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
    return PackedCell(kind, weight_ih, weight_hh, weight_hr, bias.astype(dtype), bias_hn)
