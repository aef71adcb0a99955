"""Packed weights: the arrays of one cell, laid out for a backend and never changed again."""

cimport numpy as cnp
import numpy as np

from fastrnn._kernels cimport (
    FRNN_DENSE, FRNN_F32, FRNN_F64, FRNN_GRU, FRNN_LSTM, FRNN_PANEL, FRNN_RNN_RELU, FRNN_RNN_TANH,
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
    """The weights of one direction of one layer, laid out for a backend. Immutable.

    The layout is "rows", as torch keeps them (blas), or "panels" of 16 units (simd); `arrays` are
    what the cell points into: w_ih, w_hh, w_hr, bias and bias_hn, None where there is none.
    """

    def __cinit__(
        self, str layout, str kind, weight_ih, weight_hh, weight_hr, bias, bias_hn,
    ):
        dtype = weight_ih.dtype
        gates = {"gru": 3, "lstm": 4}.get(kind, 1)
        self.layout = layout
        self.cell.kind = KINDS[kind]
        self.cell.dtype = DTYPES[dtype.name]
        self.cell.gates = gates
        self.cell.input_size = weight_ih.shape[1]
        self.cell.hidden_size = weight_ih.shape[0] // gates
        self.cell.output_size = self.cell.hidden_size if weight_hh is None else weight_hh.shape[1]
        arrange = arrange_rows if layout == "rows" else arrange_panels
        self.arrays = (
            arrange(weight_ih, gates),
            None if weight_hh is None else arrange(weight_hh, gates),
            None if weight_hr is None else arrange(weight_hr, 1),
            arrange(bias[:, None], gates),
            None if bias_hn is None else arrange(bias_hn[:, None], 1),
        )
        self.cell.w_ih = data_of(self.arrays[0])
        self.cell.w_hh = data_of(self.arrays[1])
        self.cell.w_hr = data_of(self.arrays[2])
        self.cell.bias = data_of(self.arrays[3])
        self.cell.bias_hn = data_of(self.arrays[4])


cdef const void *data_of(object array):
    return NULL if array is None else cnp.PyArray_DATA(array)


def arrange_rows(weight, gates):
    """(G*H, K) as it is."""
    return np.ascontiguousarray(weight)


def arrange_panels(weight, gates):
    """(G*H, K) as panels of units with all their gates, (ceil(H/16), G, K, 16), padded with zeros.

    The memory begins at a cache line, so that no vector crosses one.
    """
    hidden_size, columns = weight.shape[0] // gates, weight.shape[1]
    panels = -(-hidden_size // FRNN_PANEL)
    shape = (panels, gates, columns, FRNN_PANEL)
    size = panels * columns * gates * FRNN_PANEL * weight.itemsize
    memory = np.zeros(size + 63, np.uint8)
    begin = -memory.ctypes.data % 64
    packed = memory[begin:begin + size].view(weight.dtype).reshape(shape)
    by_unit = weight.reshape(gates, hidden_size, columns).transpose(0, 2, 1)
    for panel in range(panels):
        units = by_unit[:, :, panel * FRNN_PANEL:(panel + 1) * FRNN_PANEL]
        packed[panel, :, :, :units.shape[2]] = units
    packed.flags.writeable = False
    return packed


def restore_panels(packed, hidden_size):
    """The (G*H, K) that `arrange_panels` packed."""
    panels, gates, columns, width = packed.shape
    by_unit = packed.transpose(1, 0, 3, 2).reshape(gates, panels * width, columns)
    return np.ascontiguousarray(by_unit[:, :hidden_size]).reshape(gates * hidden_size, columns)


def pack_dense(layout, weight, bias):
    """Pack a Linear layer: weight (out, in), bias (out,) or None."""
    if bias is None:
        bias = np.zeros(weight.shape[0], weight.dtype)
    return PackedCell(layout, "dense", weight, None, None, bias, None)


def pack_recurrent(layout, kind, weight_ih, weight_hh, bias_ih, bias_hh, weight_hr):
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
    return PackedCell(layout, kind, weight_ih, weight_hh, weight_hr, bias.astype(dtype), bias_hn)
