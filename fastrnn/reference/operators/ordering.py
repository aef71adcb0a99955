"""Sorting, and what depends on order: medians, quantiles, the most frequent number, counts."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastrnn.arrays import Array
from fastrnn.reference.operators.promotion import axis_of, category


def _entries(self: Array, dim: int) -> Array:
    """Return an array with axes, whose last is the one that is named."""
    if category(self.dtype) == 3:
        raise TypeError("Complex numbers have no order.")
    return np.moveaxis(np.atleast_1d(self), axis_of(dim, self.ndim), -1)


def _shaped(self: Array, dim: int, keepdim: bool, entries: Array) -> Array:
    """Return results with one entry in the place of an axis, with the axis or without."""
    if self.ndim == 0:
        return entries.reshape(())
    return np.expand_dims(entries, axis_of(dim, self.ndim)) if keepdim else np.asarray(entries)


def _pick(self: Array, dim: int, keepdim: bool, places: Array) -> tuple[Array, Array]:
    """Return one entry of each row along an axis, and where it is."""
    values = np.take_along_axis(_entries(self, dim), places[..., None], -1)[..., 0]
    return _shaped(self, dim, keepdim, values), _shaped(self, dim, keepdim, places)


# ---------------------------------------------------------------- sorting


def argsort(self: Array, dim: int = -1, descending: bool = False, stable: bool = False) -> Array:
    """Return the order along an axis. Equal numbers keep theirs; NaN is the largest number."""
    entries = _entries(self, dim)
    if descending:
        order = entries.shape[-1] - 1 - np.argsort(entries[..., ::-1], -1, kind="stable")[..., ::-1]
    else:
        order = np.argsort(entries, -1, kind="stable")
    return np.asarray(np.moveaxis(order, -1, axis_of(dim, self.ndim)).reshape(self.shape))


def sort(
    self: Array, dim: int = -1, descending: bool = False, stable: bool | None = False
) -> tuple[Array, Array]:
    """Return numbers in order along an axis, and where they were."""
    order = argsort(self, dim, descending)
    if self.ndim == 0:
        return self, order
    return np.take_along_axis(self, order, axis_of(dim, self.ndim)), order


def msort(self: Array) -> Array:
    """Return numbers in order along axis 0."""
    return sort(self, 0)[0]


def topk(
    self: Array, k: int, dim: int = -1, largest: bool = True, sorted: bool = True
) -> tuple[Array, Array]:
    """Return the k largest or smallest numbers along an axis, in order, and where they are."""
    axis = axis_of(dim, self.ndim)
    if not 0 <= k <= (self.shape[axis] if self.ndim else 1):
        raise ValueError("k must not be more than the axis has.")
    values, order = sort(self, dim, largest)
    index = (*np.index_exp[:] * axis, np.s_[:k]) if self.ndim else ()
    return np.asarray(values[index]), np.asarray(order[index])


def kthvalue(self: Array, k: int, dim: int = -1, keepdim: bool = False) -> tuple[Array, Array]:
    """Return the k-th smallest number along an axis, and where it is."""
    order = np.argsort(_entries(self, dim), -1, kind="stable")
    if not 1 <= k <= order.shape[-1]:
        raise ValueError(f"k must be in [1, {order.shape[-1]}].")
    return _pick(self, dim, keepdim, order[..., k - 1])


# ---------------------------------------------------------------- medians and quantiles


def _median(self: Array, dim: int | None, keepdim: bool, skips_nan: bool) -> Any:
    """Return the median of all; along an axis also where it is. Of two in the middle it is the lower."""
    if dim is None:
        if self.size == 0:
            return np.asarray(np.nan if category(self.dtype) == 2 else np.iinfo(self.dtype).min, self.dtype)
        return _median(self.reshape(-1), 0, False, skips_nan)[0]
    entries = _entries(self, dim)
    if entries.shape[-1] == 0:
        raise ValueError("The axis must have entries.")
    is_nan = np.isnan(entries)
    order = np.argsort(entries, -1, kind="stable")
    count = (~is_nan).sum(-1) if skips_nan else np.full(entries.shape[:-1], entries.shape[-1])
    places = np.take_along_axis(order, np.maximum(count - 1, 0)[..., None] // 2, -1)[..., 0]
    if not skips_nan:
        places = np.where(is_nan.any(-1), is_nan.argmax(-1), places)
    return _pick(self, dim, keepdim, places)


def median(self: Array, dim: int | None = None, keepdim: bool = False) -> Any:
    """Return the median, or the lower of two in the middle; NaN if there is one. By axis also where it is."""
    return _median(self, dim, keepdim, False)


def nanmedian(self: Array, dim: int | None = None, keepdim: bool = False) -> Any:
    """Return the median without NaN. By axis also where it is."""
    return _median(self, dim, keepdim, True)


def _quantile(
    self: Array,
    q: float | Array,
    dim: int | None,
    keepdim: bool,
    interpolation: str,
    skips_nan: bool,
) -> Array:
    if category(self.dtype) != 2:
        raise TypeError("It takes floats.")
    if isinstance(q, np.ndarray) and q.dtype != self.dtype:
        raise TypeError("q must have the dtype of self.")
    if interpolation not in ("linear", "lower", "higher", "midpoint", "nearest"):
        raise ValueError("interpolation must be linear, lower, higher, midpoint or nearest.")
    axis = None if dim is None else axis_of(dim, self.ndim)
    places, method = np.asarray(q, np.float64), interpolation
    find: Any = np.nanquantile if skips_nan else np.quantile
    x = np.atleast_1d(self).astype(np.float64)
    result = np.asarray(find(x, places, axis=axis, method=method, keepdims=keepdim))
    if self.ndim == 0:
        result = result.reshape(places.shape)
    return result.astype(self.dtype)


def quantile(
    self: Array,
    q: float | Array,
    dim: int | None = None,
    keepdim: bool = False,
    interpolation: str = "linear",
) -> Array:
    """Return quantiles along an axis, or of all. Several come on a new first axis."""
    return _quantile(self, q, dim, keepdim, interpolation, False)


def nanquantile(
    self: Array,
    q: float | Array,
    dim: int | None = None,
    keepdim: bool = False,
    interpolation: str = "linear",
) -> Array:
    """Return quantiles without NaN along an axis, or of all. Several come on a new first axis."""
    return _quantile(self, q, dim, keepdim, interpolation, True)


# ---------------------------------------------------------------- counts


def mode(self: Array, dim: int = -1, keepdim: bool = False) -> tuple[Array, Array]:
    """Return the most frequent number along an axis, the smallest of several, and where it is last."""
    entries = _entries(self, dim)
    size = entries.shape[-1]
    counts = (entries[..., :, None] == entries[..., None, :]).sum(-1)
    is_most = counts == counts.max(-1, keepdims=True)
    order = np.argsort(entries, -1, kind="stable")
    first = np.take_along_axis(order, np.take_along_axis(is_most, order, -1).argmax(-1)[..., None], -1)
    is_value = entries == np.take_along_axis(entries, first, -1)
    return _pick(self, dim, keepdim, size - 1 - is_value[..., ::-1].argmax(-1))


def bincount(self: Array, weights: Array | None = None, minlength: int = 0) -> Array:
    """Return how often each whole number occurs, or the sum of its weights."""
    if self.ndim != 1 or category(self.dtype) != 1:
        raise ValueError("It takes one axis of integers.")
    counts: Array = np.bincount(self, weights, minlength)
    return counts.astype(np.float32) if weights is not None and weights.dtype == np.float32 else counts


def histc(self: Array, bins: int = 100, min: float = 0, max: float = 0) -> Array:
    """Return how many numbers are in each of equal bins from min to max. Without them: of the numbers."""
    if category(self.dtype) not in (1, 2):
        raise TypeError("It takes integers and floats.")
    if bins < 1 or min > max:
        raise ValueError("bins must be at least 1, and min not above max.")
    low, high = float(min), float(max)
    if low == high and self.size:
        low, high = float(self.min()), float(self.max())
    if low == high:
        low, high = low - 1, high + 1
    if not np.isfinite([low, high]).all():
        raise ValueError("The range must be finite.")
    x = self.reshape(-1).astype(np.float64)
    places = np.floor((x[(x >= low) & (x <= high)] - low) * (bins / (high - low))).astype(int)
    return np.bincount(np.minimum(places, bins - 1), minlength=bins).astype(self.dtype)


ALIASES: dict[str, str] = {}
