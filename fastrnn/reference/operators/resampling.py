"""Images and signals in another size: the nearest entry, or a line between two.

Places are computed in the arithmetic of self's dtype: they decide which entry is the nearest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastrnn.arrays import Array
from fastrnn.reference.operators.promotion import DEFAULT, DType, category, wide

Sizes = Sequence[int]
Scales = Sequence[float | None]


def _targets(
    self: Array | None,
    output_size: int | Sizes | None,
    scales: Scales,
    input: Array | None,
    scale_factors: Sequence[float] | None,
) -> tuple[Array, list[tuple[int, float | None]]]:
    """Return the array, and the new size of each of the last axes with its scale, if there is one.

    The forms of the operators that modules call have `input` and `scale_factors`.
    """
    array = self if self is not None else input
    axes = len(scales)
    if array is None or array.ndim != axes + 2 or 0 in array.shape[1:]:
        raise ValueError(f"It takes a batch, channels and {axes} axes, and only the batch may be empty.")
    if scale_factors is not None:
        if output_size is not None or len(scale_factors) != axes:
            raise ValueError(f"It takes sizes or factors, for {axes} axes.")
        sizes = [int(n * factor) for n, factor in zip(array.shape[2:], scale_factors, strict=True)]
        scales = scale_factors
    elif output_size is None:
        raise ValueError("It takes sizes or factors.")
    else:
        sizes = [output_size] if isinstance(output_size, int) else list(output_size)
    if len(sizes) != axes or min(sizes) < 1:
        raise ValueError(f"The sizes must be {axes} integers of at least 1.")
    return array, list(zip(sizes, scales, strict=True))


def _ratio(size: int, new: int, scale: float | None, dtype: DType) -> Any:
    """Return how many entries of self one of the result stands for."""
    if scale is not None and scale > 0:
        return dtype.type(1 / scale)
    return dtype.type(size) / dtype.type(new)


# ---------------------------------------------------------------- nearest


def _nearest(array: Array, targets: list[tuple[int, float | None]], shift: float) -> Array:
    """Return the entry that each place of the result falls into."""
    for axis, (new, scale) in enumerate(targets, 2):
        dtype = array.dtype if category(array.dtype) == 2 else DEFAULT
        steps = np.arange(new, dtype=dtype) + dtype.type(shift)
        places = steps * _ratio(array.shape[axis], new, scale, dtype)
        nearest = np.minimum(np.floor(places).astype(np.int64), array.shape[axis] - 1)
        array = np.take(array, nearest, axis)
    return array


def _nearest1d(shift: float) -> Callable[..., Array]:
    def operator(
        self: Array | None = None,
        output_size: int | Sizes | None = None,
        scales: float | None = None,
        input: Array | None = None,
        scale_factors: Sequence[float] | None = None,
    ) -> Array:
        return _nearest(*_targets(self, output_size, [scales], input, scale_factors), shift)

    return operator


def _nearest2d(shift: float) -> Callable[..., Array]:
    def operator(
        self: Array | None = None,
        output_size: int | Sizes | None = None,
        scales_h: float | None = None,
        scales_w: float | None = None,
        input: Array | None = None,
        scale_factors: Sequence[float] | None = None,
    ) -> Array:
        return _nearest(*_targets(self, output_size, [scales_h, scales_w], input, scale_factors), shift)

    return operator


upsample_nearest1d = _nearest1d(0)
upsample_nearest2d = _nearest2d(0)
_upsample_nearest_exact1d = _nearest1d(0.5)
_upsample_nearest_exact2d = _nearest2d(0.5)


# ---------------------------------------------------------------- linear


def _linear(array: Array, targets: list[tuple[int, float | None]], align_corners: bool) -> Array:
    """Return numbers on the line between the two entries around each place."""
    if category(array.dtype) != 2:
        raise TypeError("It takes floats.")
    dtype = array.dtype
    result = array.astype(wide(dtype))
    for axis, (new, scale) in enumerate(targets, 2):
        size = array.shape[axis]
        steps = np.arange(new, dtype=dtype)
        if align_corners:
            places = steps * (dtype.type(size - 1) / dtype.type(new - 1) if new > 1 else dtype.type(0))
        else:
            half = dtype.type(0.5)
            places = np.maximum(_ratio(size, new, scale, dtype) * (steps + half) - half, 0)
        before = np.minimum(np.floor(places).astype(np.int64), size - 1)
        after = np.minimum(before + 1, size - 1)
        weight = np.clip(places - before, 0, 1).reshape(-1, *[1] * (array.ndim - axis - 1))
        result = np.take(result, before, axis) * (1 - weight) + np.take(result, after, axis) * weight
    return result.astype(dtype)


def upsample_linear1d(
    self: Array | None = None,
    output_size: int | Sizes | None = None,
    align_corners: bool = False,
    scales: float | None = None,
    input: Array | None = None,
    scale_factors: Sequence[float] | None = None,
) -> Array:
    """Return the last axis in another size, by lines between two entries."""
    return _linear(*_targets(self, output_size, [scales], input, scale_factors), align_corners)


def upsample_bilinear2d(
    self: Array | None = None,
    output_size: int | Sizes | None = None,
    align_corners: bool = False,
    scales_h: float | None = None,
    scales_w: float | None = None,
    input: Array | None = None,
    scale_factors: Sequence[float] | None = None,
) -> Array:
    """Return the last two axes in another size, by lines between two entries of each."""
    return _linear(*_targets(self, output_size, [scales_h, scales_w], input, scale_factors), align_corners)


ALIASES = {
    "_upsample_nearest_exact1d": "_upsample_nearest_exact1d",
    "_upsample_nearest_exact2d": "_upsample_nearest_exact2d",
}
