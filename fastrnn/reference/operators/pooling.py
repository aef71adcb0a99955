"""Maxima and means of windows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np

from fastrnn.arrays import Array
from fastrnn.reference.operators.promotion import category, wide, widened
from fastrnn.reference.operators.windows import Sizes, each

Pool: TypeAlias = Callable[..., Any]


def _check_input(self: Array, axes: int) -> None:
    if category(self.dtype) in (0, 3):
        raise TypeError("It takes integers and floats.")
    if self.ndim not in (axes + 1, axes + 2) or 0 in self.shape[-axes - 1 :]:
        raise ValueError(f"It takes channels and {axes} axes, or a batch of them, of which none is empty.")


def _starts(size: int, kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool) -> range:
    """Return where windows begin, counted from the first entry that is no padding.

    With ceil_mode, what remains at the end is a window too, unless it begins in the padding.
    """
    if 2 * padding > kernel:
        raise ValueError("The padding may be at most half of the kernel.")
    room = size + 2 * padding - dilation * (kernel - 1) - 1
    count = (math.ceil(room / stride) if ceil_mode else room // stride) + 1
    if ceil_mode and (count - 1) * stride >= size + padding:
        count -= 1
    if count < 1:
        raise ValueError("The kernel is larger than the padded input.")
    return range(-padding, -padding + count * stride, stride)


# ---------------------------------------------------------------- maxima


def _largest(window: Array) -> Array:
    """Return where the first maximum of the last axis is, or the last NaN."""
    is_nan = np.isnan(window)
    last = window.shape[-1] - 1 - is_nan[..., ::-1].argmax(axis=-1)
    return np.asarray(np.where(is_nan.any(axis=-1), last, window.argmax(axis=-1)))


def _maxima(self: Array, axes: int, count: Sizes, windows: Iterator[Any]) -> tuple[Array, Array]:
    """Return the maxima of windows, and where they are in the flattened last axes."""
    sizes = self.shape[-axes:]
    numbers = np.arange(math.prod(sizes)).reshape(sizes)
    flat = self.reshape(*self.shape[:-axes], -1)
    shape = (*self.shape[:-axes], *count)
    result, indices = np.zeros(shape, self.dtype), np.zeros(shape, np.int64)
    for place, window in windows:
        inside = numbers[window].reshape(-1)
        found = inside[_largest(flat[..., inside])]
        indices[(..., *place)] = found
        result[(..., *place)] = np.take_along_axis(flat, found[..., None], -1)[..., 0]
    return result, indices


def _max_pool(
    self: Array,
    kernel_size: int | Sizes,
    stride: int | Sizes,
    padding: int | Sizes,
    dilation: int | Sizes,
    ceil_mode: bool,
    axes: int,
) -> tuple[Array, Array]:
    _check_input(self, axes)
    kernel, spread = each("kernel_size", kernel_size, axes, 1), each("dilation", dilation, axes, 1)
    steps = each("stride", stride, axes, 1) if stride or stride == 0 else kernel
    edges, sizes = each("padding", padding, axes, 0), self.shape[-axes:]
    starts = [_starts(*each, ceil_mode) for each in zip(sizes, kernel, steps, edges, spread, strict=True)]

    def taps(axis: int, start: int) -> list[int]:
        every = range(start, start + kernel[axis] * spread[axis], spread[axis])
        return [tap for tap in every if 0 <= tap < sizes[axis]]

    places = itertools.product(*(range(len(axis)) for axis in starts))
    windows = (
        (place, np.ix_(*(taps(axis, starts[axis][n]) for axis, n in enumerate(place)))) for place in places
    )
    return _maxima(self, axes, [len(axis) for axis in starts], windows)


def _max_pools(axes: int) -> tuple[Pool, Pool]:
    """Return the operators for windows of the last axes."""

    def max_pool_with_indices(
        self: Array,
        kernel_size: int | Sizes,
        stride: int | Sizes = (),
        padding: int | Sizes = 0,
        dilation: int | Sizes = 1,
        ceil_mode: bool = False,
    ) -> tuple[Array, Array]:
        """Return the maxima of windows of the last axes, and where they are."""
        return _max_pool(self, kernel_size, stride, padding, dilation, ceil_mode, axes)

    def max_pool(
        self: Array,
        kernel_size: int | Sizes,
        stride: int | Sizes = (),
        padding: int | Sizes = 0,
        dilation: int | Sizes = 1,
        ceil_mode: bool = False,
    ) -> Array:
        """Return the maxima of windows of the last axes."""
        return _max_pool(self, kernel_size, stride, padding, dilation, ceil_mode, axes)[0]

    return max_pool_with_indices, max_pool


max_pool1d_with_indices, max_pool1d = _max_pools(1)
max_pool2d_with_indices, max_pool2d = _max_pools(2)
max_pool3d_with_indices, max_pool3d = _max_pools(3)


# ---------------------------------------------------------------- means


def _avg_pool(
    self: Array,
    kernel_size: int | Sizes,
    stride: int | Sizes,
    padding: int | Sizes,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
    axes: int,
) -> Array:
    """Return sums of windows, divided by their size, with the padding or without it, or by a number."""
    _check_input(self, axes)
    kernel = each("kernel_size", kernel_size, axes, 1)
    steps = each("stride", stride, axes, 1) if stride or stride == 0 else kernel
    edges, sizes = each("padding", padding, axes, 0), self.shape[-axes:]
    if divisor_override == 0:
        raise ValueError("divisor_override may not be 0.")
    starts = [_starts(*each, 1, ceil_mode) for each in zip(sizes, kernel, steps, edges, strict=True)]
    x, last = widened(self, self.dtype), tuple(range(-axes, 0))
    result = np.zeros((*self.shape[:-axes], *map(len, starts)), x.dtype)
    for place in np.ndindex(*map(len, starts)):
        first = [axis[n] for axis, n in zip(starts, place, strict=True)]
        whole = [min(a + k, n + p) - a for a, k, n, p in zip(first, kernel, sizes, edges, strict=True)]
        inside: list[Any] = [
            np.s_[max(a, 0) : min(a + k, n)] for a, k, n in zip(first, kernel, sizes, strict=True)
        ]
        window = x[(..., *inside)]
        count = math.prod(whole if count_include_pad else window.shape[-axes:])
        result[(..., *place)] = _quotient(window.sum(axis=last), divisor_override or count)
    return result.astype(self.dtype)


def _quotient(total: Array, count: int) -> Array:
    """Return a mean. That of integers is cut to an integer."""
    if count == 0:
        return np.zeros_like(total)
    return np.asarray(total / count if category(total.dtype) == 2 else np.trunc(total / count))


def avg_pool1d(
    self: Array,
    kernel_size: int | Sizes,
    stride: int | Sizes = (),
    padding: int | Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Array:
    """Return the means of windows of the last axis."""
    return _avg_pool(self, kernel_size, stride, padding, ceil_mode, count_include_pad, None, 1)


def _avg_pool_over(axes: int) -> Pool:
    """Return the operator for windows of the last axes."""

    def avg_pool(
        self: Array,
        kernel_size: int | Sizes,
        stride: int | Sizes = (),
        padding: int | Sizes = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> Array:
        """Return the means of windows of the last axes."""
        return _avg_pool(
            self, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override, axes
        )

    return avg_pool


avg_pool2d = _avg_pool_over(2)
avg_pool3d = _avg_pool_over(3)


def _power_pool(
    input: Array, norm_type: float, kernel_size: int | Sizes, stride: Any, ceil_mode: bool, axes: int
) -> Array:
    kernel = each("kernel_size", kernel_size, axes, 1)
    x = widened(input, input.dtype) ** norm_type
    means = _avg_pool(x, kernel, stride or (), 0, ceil_mode, True, None, axes)
    return np.asarray((np.maximum(means, 0) * math.prod(kernel)) ** (1 / norm_type)).astype(input.dtype)


def _lp_pool_over(axes: int) -> Pool:
    """Return the operator for windows of the last axes."""

    def lp_pool(
        input: Array,
        norm_type: float,
        kernel_size: int | Sizes,
        stride: int | Sizes | None = None,
        ceil_mode: bool = False,
    ) -> Array:
        """Return roots of sums of powers of windows of the last axes. Of torch.nn.functional."""
        return _power_pool(input, norm_type, kernel_size, stride, ceil_mode, axes)

    return lp_pool


lp_pool1d = _lp_pool_over(1)
lp_pool2d = _lp_pool_over(2)


# ---------------------------------------------------------------- windows for a number of outputs


def _parts(self: Array, output_size: int | Sizes, axes: int) -> tuple[tuple[int, ...], Iterator[Any]]:
    """Return the outputs' sizes, and give each output's index and window. Windows differ by at most 1."""
    _check_input(self, axes)
    count = each("output_size", output_size, axes, 0)

    def window(place: tuple[int, ...]) -> tuple[Any, ...]:
        each = zip(place, self.shape[-axes:], count, strict=True)
        return tuple(np.s_[n * size // k : -((-(n + 1) * size) // k)] for n, size, k in each)

    return count, ((place, window(place)) for place in np.ndindex(*count))


def _adaptive_avg_pool(self: Array, output_size: int | Sizes, axes: int) -> Array:
    count, windows = _parts(self, output_size, axes)
    x = self.astype(wide(self.dtype))
    result = np.zeros((*self.shape[:-axes], *count), x.dtype)
    for place, window in windows:
        values = x[(..., *window)]
        total = values.sum(axis=tuple(range(-axes, 0)))
        result[(..., *place)] = _quotient(total, math.prod(values.shape[-axes:]))
    return result.astype(self.dtype)


def adaptive_avg_pool1d(self: Array, output_size: int | Sizes) -> Array:
    """Return this many means of the last axis."""
    return _adaptive_avg_pool(self, output_size, 1)


def adaptive_avg_pool2d(self: Array, output_size: int | Sizes) -> Array:
    """Return this many means of the last two axes."""
    return _adaptive_avg_pool(self, output_size, 2)


def adaptive_max_pool1d(self: Array, output_size: int | Sizes) -> tuple[Array, Array]:
    """Return this many maxima of the last axis, and where they are."""
    count, windows = _parts(self, output_size, 1)
    return _maxima(self, 1, count, windows)


def adaptive_max_pool2d(self: Array, output_size: int | Sizes) -> tuple[Array, Array]:
    """Return this many maxima of the last two axes, and where they are."""
    count, windows = _parts(self, output_size, 2)
    return _maxima(self, 2, count, windows)


ALIASES = {"_adaptive_avg_pool2d": "adaptive_avg_pool2d"}
