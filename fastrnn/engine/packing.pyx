"""Packed weights: the arrays of one cell, laid out for a backend and never changed again."""

import mmap

cimport numpy as cnp
import numpy as np
from cpython.pycapsule cimport PyCapsule_GetPointer

from fastrnn.engine.backend cimport (
    FRNN_CHUNK_OF, FRNN_DENSE, FRNN_DENSE_BLOCK, FRNN_F32, FRNN_F64, FRNN_GRU, FRNN_LSTM, FRNN_PANEL,
    FRNN_RNN_RELU, FRNN_RNN_TANH, frnn_backend,
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

LINE = 64
LARGE_PAGE = 2 * 1024 * 1024
# Weights of fewer bytes than these would leave most of a large page unused.
LARGE_BYTES = 1024 * 1024


cdef class PackedCell:
    """The weights of one direction of one layer, laid out for a backend. Immutable.

    Rows, as torch keeps them (blas), or panels of 16 units in blocks (simd); `arrays` are what the cell
    points into: w_ih, w_hh, w_hr, bias and bias_hn, None where there is none.
    """

    def __cinit__(
        self, backend, str kind, weight_ih, weight_hh, weight_hr, bias, bias_hn,
    ):
        dtype = weight_ih.dtype
        gates = {"gru": 3, "lstm": 4}.get(kind, 1)
        cdef const frnn_backend *table
        table = <const frnn_backend *>PyCapsule_GetPointer(backend, "fastrnn.backend")
        is_packed = table.strip != NULL
        self.cell.kind = KINDS[kind]
        self.cell.dtype = DTYPES[dtype.name]
        self.cell.gates = gates
        self.cell.input_size = weight_ih.shape[1]
        self.cell.hidden_size = weight_ih.shape[0] // gates
        self.cell.output_size = self.cell.hidden_size if weight_hh is None else weight_hh.shape[1]
        self.cell.block = table.block(self.cell.kind, self.cell.hidden_size) if is_packed else 1

        def strip_columns(width):
            return table.strip(width)

        def arrange(weight, gates, block):
            if weight is None or not is_packed:
                return weight
            return arrange_panels(weight, gates, block, strip_columns, table.chunk)

        arranged = (
            arrange(weight_ih, gates, self.cell.block),
            arrange(weight_hh, gates, self.cell.block),
            arrange(weight_hr, 1, FRNN_DENSE_BLOCK),
            arrange(bias[:, None], gates, self.cell.block),
            arrange(None if bias_hn is None else bias_hn[:, None], 1, 1),
        )
        # The rows are the layer's own arrays, which never change.
        self.arrays = settle(*arranged) if is_packed else arranged
        self.cell.w_ih = data_of(self.arrays[0])
        self.cell.w_hh = data_of(self.arrays[1])
        self.cell.w_hr = data_of(self.arrays[2])
        self.cell.bias = data_of(self.arrays[3])
        self.cell.bias_hn = data_of(self.arrays[4])


cdef const void *data_of(object array):
    return NULL if array is None else cnp.PyArray_DATA(array)


def settle(*arrays):
    """Read-only copies of arrays, or None for None, in one piece of memory, each from a cache line on.

    Where the system gives large pages, a large piece lies on them: a cache of the second level holds more
    of it, since its addresses are spread evenly over the sets, and fewer translations are missed.
    """
    sizes = [0 if array is None else -(-array.nbytes // LINE) * LINE for array in arrays]
    memory, page = None, LARGE_PAGE
    if sum(sizes) >= LARGE_BYTES and hasattr(mmap, "MADV_HUGEPAGE"):
        mapped = mmap.mmap(-1, sum(sizes) + LARGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        try:
            mapped.madvise(mmap.MADV_HUGEPAGE)
            memory = np.frombuffer(mapped, np.uint8)
        except OSError:  # a kernel without large pages
            mapped.close()
    if memory is None:
        memory, page = np.empty(sum(sizes) + LINE, np.uint8), LINE
    begin = -memory.ctypes.data % page
    settled = []
    for array, size in zip(arrays, sizes, strict=True):
        copy = None
        if array is not None:
            copy = memory[begin:begin + array.nbytes].view(array.dtype).reshape(array.shape)
            copy[...] = array
            copy.flags.writeable = False
        settled.append(copy)
        begin += size
    return tuple(settled)


def arrange_panels(weight, gates, block, strip_columns, chunk):
    """(G*H, K) as blocks (K, panels, G, 16) of `block` panels, the last may have fewer; flat.

    A block lies chunk by chunk of K, and a chunk strip by strip of strip_columns(width of the block) columns.
    Missing units are zeros.
    """
    hidden_size, columns = weight.shape[0] // gates, weight.shape[1]
    panels = -(-hidden_size // FRNN_PANEL)
    by_unit = np.zeros((gates, panels * FRNN_PANEL, columns), weight.dtype)
    by_unit[:, :hidden_size] = weight.reshape(gates, hidden_size, columns)
    by_panel = by_unit.reshape(gates, panels, FRNN_PANEL, columns).transpose(3, 1, 0, 2)
    chunk = FRNN_CHUNK_OF(columns, chunk)
    parts = []
    for i in range(0, panels, block):
        rows = by_panel[:, i:i + block].reshape(columns, -1)
        strips = rows.shape[1] // strip_columns(rows.shape[1])
        for k in range(0, columns, chunk):
            part = rows[k:k + chunk]
            parts.append(part.reshape(len(part), strips, -1).swapaxes(0, 1).ravel())
    return np.concatenate(parts)


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
