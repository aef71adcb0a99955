"""Steps with windows over rows of channels: convolutions and pools.

The channels of a position lie side by side in memory: an array is (batch, positions..., channels), with one
or two axes of positions. Strides are in bytes.
"""

from math import ceil, gcd

cimport numpy as cnp
import numpy as np
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.string cimport memset

from fastrnn.engine.array_kernels cimport (
    FRNN_POOL_AVERAGE, FRNN_POOL_MAX, frnn_array_kernels, frnn_pool, frnn_window,
)
from fastrnn.engine.backend cimport frnn_arithmetic_name, frnn_cell, frnn_matrix, frnn_products
from fastrnn.engine.blocks cimport count
from fastrnn.engine.packing cimport PackedCell
from fastrnn.engine.packing import pack_dense
from fastrnn.engine.workspace cimport aligned
from fastrnn.narrow import NarrowWeight
from fastrnn.program.products cimport FEW_ROWS, PRODUCTS_PER_NS, distance_apart
from fastrnn.program.steps cimport Step, kernels_of

cnp.import_array()

# Bytes of rows that a convolution brings together before they are multiplied. All weights are read for each
# such tile. So it has at least as many rows as are multiplied together (FRNN_DENSE_ROWS).
cdef Py_ssize_t GATHERED_BYTES = 64 * 1024
cdef Py_ssize_t LEAST_GATHERED_ROWS = 48
cdef Py_ssize_t MOST_GATHERED_ROWS = 192


# ---------------------------------------------------------------- convolutions

cdef class ConvolutionWeights:
    """The weights of a convolution, packed once for all its sizes.

    Parameters
    ----------
    products : capsule
        Those that pack the weights, such as ``pick_backend`` of engine.backends gives.
    weight : numpy.ndarray or NarrowWeight
        As torch has it: (out, in / groups, taps...) or, transposed, (in, out / groups, taps...). Narrow
        weights are (out, in / groups, taps...) in both.
    bias : numpy.ndarray or None
    groups : int
    stride, dilation, padding : tuple of int
        One for each axis of positions; padding is that before the first position. A transposed convolution
        is cut in phases by them. Others take them from their step.
    is_transposed : bool

    Attributes
    ----------
    phases : list
        (first outputs, taps' numbers, window's shift, cells or arrays) for each phase: one, if not
        transposed.
    """

    cdef readonly list phases
    cdef readonly int groups
    cdef readonly tuple taps, stride, dilation, padding
    cdef readonly bint is_transposed, is_depthwise
    cdef readonly Py_ssize_t channels_in, channels_out
    cdef object storage, scales  # of narrow weights: scales (groups, out / groups)

    def __init__(
        self, products, weight, bias=None, int groups=1, stride=(1,), dilation=(1,), padding=(0,),
        bint is_transposed=False,
    ):
        cdef const frnn_products *table
        table = <const frnn_products *>PyCapsule_GetPointer(products, "fastrnn.products")
        dtype = frnn_arithmetic_name(table.backend.arithmetic).decode()
        scales = None
        self.storage = None
        if isinstance(weight, NarrowWeight):
            self.storage, scales, weight = weight.storage, weight.scales, weight.data
        else:
            weight = np.asarray(weight, dtype)
        self.stride, self.dilation, self.padding = pair(stride, 1), pair(dilation, 1), pair(padding, 0)
        self.is_transposed = is_transposed
        self.groups = groups
        if weight.ndim == 3:
            weight = weight[:, :, None]
        self.taps = weight.shape[2:]
        if is_transposed and self.storage is None:
            self.channels_in, self.channels_out = weight.shape[0], weight.shape[1] * groups
            # (groups, in, out, taps) to (groups, out, in, taps)
            weight = weight.reshape(groups, -1, *weight.shape[1:]).swapaxes(1, 2)
        else:
            self.channels_in, self.channels_out = weight.shape[1] * groups, weight.shape[0]
            weight = weight.reshape(groups, -1, *weight.shape[1:])
        # Narrow weights have no kernel of their own there.
        self.is_depthwise = groups > 1 and weight.shape[2] == 1 and self.storage is None
        if scales is not None:
            self.scales = scales.reshape(groups, -1)
        if bias is None:
            bias = np.zeros(self.channels_out)
        bias = np.ascontiguousarray(bias, dtype)
        if is_transposed:
            self.phases = [
                (first, tuple([len(axis) for axis in taps]), shift, self._pack(
                    products, weight[..., taps[0], :][..., taps[1]], bias))
                for first, taps, shift in phases_of(self.taps, self.stride, self.dilation, self.padding)
            ]
        else:
            self.phases = [((0, 0), self.taps, (0, 0), self._pack(products, weight, bias))]

    def _pack(self, products, weight, bias):
        """Weights (groups, out, in, taps): a cell for each group, or arrays (taps, channels) and
        (channels,)."""
        if self.is_depthwise:
            taps = weight.shape[3] * weight.shape[4]
            return np.ascontiguousarray(weight.reshape(self.channels_out, taps).T), bias
        cells = []
        width = self.channels_out // self.groups
        for group in range(self.groups):
            rows = np.ascontiguousarray(np.moveaxis(weight[group], 1, -1)).reshape(width, -1)
            if rows.shape[1] == 0:  # a phase without taps gives the bias: its window sees padding alone
                rows = np.zeros((width, weight.shape[2]), weight.dtype)
            if self.storage is not None:
                scales = None if self.scales is None else self.scales[group]
                rows = NarrowWeight(self.storage, rows, scales)
            cells.append(pack_dense(products, rows, bias[group * width:(group + 1) * width]))
        return cells


def pair(numbers, first):
    """Numbers of two axes of positions: the first is there even where there is one."""
    return tuple(numbers) if len(numbers) == 2 else (first, *numbers)


def phases_of(taps, stride, dilation, padding):
    """The outputs of a transposed convolution that the same taps meet, for both axes.

    Output o is the sum of x[i] w[k] with o = i stride + k dilation - padding. For o = phase + q stride that
    leaves the taps k that make (o + padding - k dilation) / stride whole, and i = q + that for q = 0. Taps
    with larger k meet earlier inputs.
    """
    axes = []
    for size, step, apart, before in zip(taps, stride, dilation, padding):
        axis = []
        for phase in range(step):
            fitting = [k for k in range(size) if (phase + before - k * apart) % step == 0][::-1]
            shift = (phase + before - fitting[0] * apart) // step if fitting else None
            axis.append((phase, fitting, shift))
        axes.append(axis)
    return [
        ((a[0], b[0]), (a[1], b[1]), (a[2], b[2])) for a in axes[0] for b in axes[1]
    ]


cdef struct Convolution:
    # One group, and one phase, of a convolution.
    const frnn_cell *cell           # NULL: depthwise
    const void *weight
    const void *bias
    frnn_window window
    Py_ssize_t x_offset, out_offset  # bytes
    Py_ssize_t itemsize
    Py_ssize_t K                    # the columns of a row
    Py_ssize_t ld                   # from one gathered row to the next
    bint is_overlapping             # a row's taps lie side by side: rows are products as they lie
    bint is_flat                    # so do all output positions
    Py_ssize_t tile_rows


cdef struct ConvolutionData:
    const frnn_array_kernels *kernels
    Convolution *parts
    Py_ssize_t count
    Py_ssize_t batch, x_batch, out_batch
    Py_ssize_t gathered             # the bytes of the rows that are brought together


cdef class ConvolutionStep(Step):
    """A convolution, transposed or not, of one or two axes of positions.

    Arrays: x (batch, positions..., in) and out (batch, positions..., out), whose channels lie side by side.
    Beyond the input are zeros.

    Parameters
    ----------
    kernels : capsule
        A table of ``ARRAY_TABLES``, of the weights' type.
    weights : ConvolutionWeights
    batch : int
    input, output : tuple of int
        Positions.
    x_strides, out_strides : tuple of int
        In bytes: of the batch and of the positions' axes.
    """

    cdef ConvolutionData data

    def __dealloc__(self):
        PyMem_Free(self.data.parts)

    def __init__(
        self, kernels, ConvolutionWeights weights not None, Py_ssize_t batch, input, output, x_strides,
        out_strides,
    ):
        cdef Py_ssize_t itemsize, index = 0, gathered = 0, multiplied = 0
        cdef Convolution *part
        self.owner = kernels, weights
        self.data.kernels = kernels_of(kernels)
        itemsize = np.dtype(self.data.kernels.arithmetic.decode()).itemsize
        input, output = pair(input, 1), pair(output, 1)
        x_batch, out_batch = x_strides[0], out_strides[0]
        x_strides, out_strides = pair(x_strides[1:], 0), pair(out_strides[1:], 0)
        self.data.batch = batch
        self.data.x_batch = x_batch
        self.data.out_batch = out_batch
        groups = 1 if weights.is_depthwise else weights.groups
        self.data.parts = <Convolution *>PyMem_Calloc(len(weights.phases) * groups, sizeof(Convolution))
        if self.data.parts == NULL:
            raise MemoryError
        work = 0.0
        for first, taps, shift, packed in weights.phases:
            if weights.is_transposed:
                # Positions first, first + stride, ...
                sizes = [max(ceil((output[axis] - first[axis]) / weights.stride[axis]), 0) for axis in (0, 1)]
                strides = 1, 1
                dilation = [weights.dilation[axis] // gcd(weights.dilation[axis], weights.stride[axis])
                            for axis in (0, 1)]
                before = [0 if shift[axis] is None else -shift[axis] for axis in (0, 1)]
                if None in shift:
                    taps = 1, 1
                    before = [size + 1 for size in sizes]  # before the input at all positions
            else:
                sizes, strides, dilation, before = output, weights.stride, weights.dilation, weights.padding
            if 0 in sizes:
                continue
            for group in range(groups):
                part = &self.data.parts[index]
                part.itemsize = itemsize
                for axis in range(2):
                    step = weights.stride[axis] if weights.is_transposed else 1
                    part.window.input[axis] = input[axis]
                    part.window.output[axis] = sizes[axis]
                    part.window.taps[axis] = taps[axis]
                    part.window.stride[axis] = strides[axis]
                    part.window.dilation[axis] = dilation[axis]
                    part.window.before[axis] = before[axis]
                    part.window.input_bytes[axis] = x_strides[axis]
                    part.window.output_bytes[axis] = out_strides[axis] * step
                    part.out_offset += first[axis] * out_strides[axis]
                part.window.channels = weights.channels_in // groups
                part.window.multiplier = 1
                if weights.is_depthwise:
                    part.weight = cnp.PyArray_DATA(packed[0])
                    part.bias = cnp.PyArray_DATA(packed[1])
                    part.window.multiplier = weights.channels_out // weights.channels_in
                else:
                    part.cell = &(<PackedCell>packed[group]).cell
                    part.x_offset += group * part.window.channels * itemsize
                    part.out_offset += group * (weights.channels_out // groups) * itemsize
                    arrange(part)
                    if not part.is_overlapping or has_border(&part.window):
                        gathered = max(gathered, part.tile_rows * part.ld * itemsize)
                    multiplied = max(multiplied, dense_bytes(part))
                work += <double>sizes[0] * sizes[1] * taps[0] * taps[1] * part.window.channels * (
                    weights.channels_out // groups)
                index += 1
        self.data.count = index
        self.info.run = run_convolution
        self.info.data = &self.data
        self.info.arrays = 2
        self.data.gathered = aligned(gathered)
        self.info.scratch_bytes = self.data.gathered + multiplied
        self.info.cost = 30 + batch * work / PRODUCTS_PER_NS


cdef void arrange(Convolution *part) noexcept:
    """Decide how the rows of a part are multiplied."""
    cdef frnn_window *window = &part.window
    cdef Py_ssize_t row = window.channels * part.itemsize
    # A window of one tap is one of all rows, if they lie one after the other.
    if (
        window.taps[0] == 1 and window.taps[1] == 1 and window.stride[0] == 1 and window.stride[1] == 1
        and window.before[0] == 0 and window.before[1] == 0
        and window.input[0] == window.output[0] and window.input[1] == window.output[1]
        and window.input_bytes[0] == window.input[1] * window.input_bytes[1]
        and window.output_bytes[0] == window.output[1] * window.output_bytes[1]
    ):
        window.input[1] *= window.input[0]
        window.output[1] *= window.output[0]
        window.input[0] = window.output[0] = 1
    part.K = window.taps[0] * window.taps[1] * window.channels
    part.ld = distance_apart(part.K, part.itemsize)
    # Rows at the borders are multiplied apart from the others. That does not pay for a few positions, since
    # it reads all weights three times.
    part.is_overlapping = (
        window.taps[0] == 1
        and (window.taps[1] == 1 or window.dilation[1] * window.input_bytes[1] == row)
        and not (has_border(window) and window.output[1] < FEW_ROWS))
    part.is_flat = window.output[0] == 1 or (
        window.output_bytes[0] == window.output[1] * window.output_bytes[1])
    part.tile_rows = GATHERED_BYTES // (part.K * part.itemsize) // 12 * 12
    part.tile_rows = min(
        max(part.tile_rows, LEAST_GATHERED_ROWS), MOST_GATHERED_ROWS, window.output[0] * window.output[1])


cdef size_t dense_bytes(const Convolution *part) noexcept nogil:
    """What the products of any of its rows need."""
    cdef const frnn_matrix *matrix = &part.cell.w_ih
    cdef Py_ssize_t as_they_lie = part.window.output[1] if part.is_overlapping else 0
    return matrix.products.dense_bytes(matrix, max(part.tile_rows, as_they_lie))


cdef bint has_border(const frnn_window *window) noexcept nogil:
    """Whether taps meet padding anywhere."""
    cdef int axis
    for axis in range(2):
        if window.before[axis] > 0 or (
            (window.output[axis] - 1) * window.stride[axis] + (window.taps[axis] - 1) * window.dilation[axis]
            - window.before[axis] >= window.input[axis]
        ):
            return True
    return False


cdef void run_convolution(const void *data, char *const *arrays, char *scratch) noexcept nogil:
    cdef const ConvolutionData *self = <const ConvolutionData *>data
    cdef const Convolution *part
    cdef const char *x
    cdef char *out
    cdef Py_ssize_t b, i
    for b in range(self.batch):
        for i in range(self.count):
            part = &self.parts[i]
            x = arrays[0] + b * self.x_batch + part.x_offset
            out = arrays[1] + b * self.out_batch + part.out_offset
            if part.cell == NULL:
                self.kernels.depthwise(&part.window, part.weight, part.bias, x, out)
            elif part.is_overlapping:
                multiply_overlapping(self, part, x, out, scratch)
            else:
                multiply_gathered(
                    self, part, 0, part.window.output[0] * part.window.output[1], x, out, scratch)


cdef Py_ssize_t equal_part(Py_ssize_t left, Py_ssize_t most) noexcept nogil:
    """The next part of what is left: as few parts as hold it, of equal size, of at most `most`."""
    return count(left, count(left, most))


cdef void multiply_gathered(
    const ConvolutionData *data, const Convolution *part, Py_ssize_t first, Py_ssize_t last,
    const char *x, char *out, char *scratch,
) noexcept nogil:
    """Outputs from `first` to `last`, that excluded: their rows are brought together, tile by tile."""
    cdef const frnn_window *window = &part.window
    cdef Py_ssize_t width = window.output[1], rows
    while first < last:
        rows = equal_part(last - first, part.tile_rows)
        if not part.is_flat:
            rows = min(rows, width - first % width)
        data.kernels.gather_rows(window, first, rows, x, scratch, part.ld)
        part.cell.w_ih.products.dense(
            &part.cell.w_ih, rows, scratch, part.ld, part.cell.bias,
            out + first // width * window.output_bytes[0] + first % width * window.output_bytes[1],
            window.output_bytes[1] // part.itemsize, scratch + data.gathered)
        first += rows


cdef void multiply_overlapping(
    const ConvolutionData *data, const Convolution *part, const char *x, char *out, char *scratch,
) noexcept nogil:
    """Rows as they lie in the input, which may overlap; those that meet padding are brought together."""
    cdef const frnn_window *window = &part.window
    cdef Py_ssize_t stride = window.stride[1], before = window.before[1], width = window.output[1]
    cdef Py_ssize_t reach = (window.taps[1] - 1) * window.dilation[1], first, last, i, row
    # The positions whose taps are all within the input: 0 <= j * stride - before, and its last tap < the
    # size.
    first = min(max(before + stride - 1, 0) // stride, width)
    last = window.input[1] - 1 - reach + before
    last = 0 if last < 0 else min(last // stride + 1, width)
    last = max(first, last)
    for i in range(window.output[0]):
        row = i * window.stride[0] - window.before[0]
        if row < 0 or row >= window.input[0]:
            multiply_gathered(data, part, i * width, (i + 1) * width, x, out, scratch)
            continue
        multiply_gathered(data, part, i * width, i * width + first, x, out, scratch)
        if last > first:
            part.cell.w_ih.products.dense(
                &part.cell.w_ih, last - first,
                x + row * window.input_bytes[0] + (first * stride - before) * window.input_bytes[1],
                stride * window.input_bytes[1] // part.itemsize, part.cell.bias,
                out + i * window.output_bytes[0] + first * window.output_bytes[1],
                window.output_bytes[1] // part.itemsize, scratch + data.gathered)
        multiply_gathered(data, part, i * width + last, (i + 1) * width, x, out, scratch)


# ---------------------------------------------------------------- pools

cdef struct PoolData:
    const frnn_array_kernels *kernels
    frnn_pool pool
    Py_ssize_t batch, x_batch, out_batch


cdef class PoolStep(Step):
    """The largest or the mean number of each window, for each channel.

    Arrays: x (batch, positions..., channels) and out, whose channels lie side by side.

    Parameters
    ----------
    kernels : capsule
        A table of ``ARRAY_TABLES``, of the arrays' type.
    pooling : {"max", "average"}
        Padding counts as nothing for "max".
    batch, channels : int
    input, output, taps, stride, dilation, before : tuple of int
        One for each axis of positions; `before` is the padding before the first position.
    x_strides, out_strides : tuple of int
        In bytes: of the batch and of the positions' axes.
    after : tuple of int or None
        The padding after the last position; as much as before if None.
    counts_padding : bool
        Whether padding counts for a mean, as zeros.
    divisor : float
        What sums are divided by for a mean; 0: by what counts.
    """

    cdef PoolData data

    def __init__(
        self, kernels, str pooling, Py_ssize_t batch, Py_ssize_t channels, input, output, taps, stride,
        dilation, before, x_strides, out_strides, after=None, bint counts_padding=True, double divisor=0,
    ):
        cdef frnn_pool *pool = &self.data.pool
        self.owner = kernels
        self.data.kernels = kernels_of(kernels)
        memset(pool, 0, sizeof(frnn_pool))
        if pooling not in ("max", "average"):
            raise ValueError(f'PoolStep: expected "max" or "average", got {pooling!r}.')
        pool.pooling = FRNN_POOL_MAX if pooling == "max" else FRNN_POOL_AVERAGE
        pool.counts_padding = counts_padding
        pool.divisor = divisor
        after = pair(before if after is None else after, 0)
        lists = (
            pair(input, 1), pair(output, 1), pair(taps, 1), pair(stride, 1), pair(dilation, 1),
            pair(before, 0), pair(x_strides[1:], 0), pair(out_strides[1:], 0),
        )
        for axis in range(2):
            pool.window.input[axis] = lists[0][axis]
            pool.window.output[axis] = lists[1][axis]
            pool.window.taps[axis] = lists[2][axis]
            pool.window.stride[axis] = lists[3][axis]
            pool.window.dilation[axis] = lists[4][axis]
            pool.window.before[axis] = lists[5][axis]
            pool.window.input_bytes[axis] = lists[6][axis]
            pool.window.output_bytes[axis] = lists[7][axis]
            pool.after[axis] = after[axis]
        pool.window.channels = channels
        pool.window.multiplier = 1
        self.data.batch = batch
        self.data.x_batch = x_strides[0]
        self.data.out_batch = out_strides[0]
        self.info.run = run_pool
        self.info.data = &self.data
        self.info.arrays = 2
        work = np.prod(output, dtype=float) * np.prod(taps, dtype=float)
        self.info.cost = 20 + 0.3 * batch * channels * work


cdef void run_pool(const void *data, char *const *arrays, char *scratch) noexcept nogil:
    cdef const PoolData *self = <const PoolData *>data
    cdef Py_ssize_t b
    for b in range(self.batch):
        self.kernels.pool(&self.pool, arrays[0] + b * self.x_batch, arrays[1] + b * self.out_batch)
