"""Sums, products, extremes, variances and norms along axes, and running forms of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from fastrnn.arrays import Array
from fastrnn.reference.operators.arithmetic import logaddexp, maximum, minimum
from fastrnn.reference.operators.promotion import DType, axis_of, category, floating, real, widened

Dims: TypeAlias = int | Sequence[int] | None


def _axes(self: Array, dim: Dims) -> tuple[int, ...]:
    """Return axes counted from the front. None, and none at all, are all axes."""
    if dim is None or dim == () or dim == []:
        return tuple(range(self.ndim))
    axes = tuple(axis_of(d, self.ndim) for d in ((dim,) if isinstance(dim, int) else dim))
    if len(set(axes)) != len(axes):
        raise ValueError("An axis is named twice.")
    return axes if self.ndim else ()


def _count(self: Array, axes: Sequence[int]) -> int:
    return int(np.prod([self.shape[axis] for axis in axes], dtype=int))


def _summed(self: Array, dtype: str | None) -> tuple[Array, DType]:
    """Return what is summed, in the dtype in which to sum, and the dtype of the sum."""
    default = np.int64 if category(self.dtype) < 2 else self.dtype
    result = np.dtype(default if dtype is None else dtype)
    return widened(self, result), result


def _floats(self: Array, dtype: str | None = None) -> tuple[Array, DType]:
    """Return floats or complex numbers, in the dtype in which to compute, and the dtype of the result."""
    result = np.dtype(self.dtype if dtype is None else dtype)
    if category(result) < 2:
        raise TypeError("It takes floats and complex numbers.")
    return widened(self, result), result


def _check_order(self: Array) -> None:
    if category(self.dtype) == 3:
        raise TypeError("Complex numbers have no order.")


# ---------------------------------------------------------------- sums


def sum(self: Array, dim: Dims = None, keepdim: bool = False, dtype: str | None = None) -> Array:
    """Return the sum along axes. That of integers and bools is int64."""
    x, result = _summed(self, dtype)
    return np.asarray(x.sum(_axes(self, dim), keepdims=keepdim)).astype(result)


def nansum(self: Array, dim: Dims = None, keepdim: bool = False, dtype: str | None = None) -> Array:
    """Return the sum along axes, without NaN."""
    _check_order(self)
    return sum(np.where(np.isnan(self), np.zeros((), self.dtype), self), dim, keepdim, dtype)


def mean(self: Array, dim: Dims = None, keepdim: bool = False, dtype: str | None = None) -> Array:
    """Return the mean along axes."""
    x, result = _floats(self, dtype)
    axes = _axes(self, dim)
    return np.asarray(x.sum(axes, keepdims=keepdim) / np.float64(_count(self, axes))).astype(result)


def nanmean(self: Array, dim: Dims = None, keepdim: bool = False, dtype: str | None = None) -> Array:
    """Return the mean along axes, without NaN."""
    x, result = _floats(self, dtype)
    axes, is_nan = _axes(self, dim), np.isnan(x)
    total = np.where(is_nan, 0, x).sum(axes, keepdims=keepdim)
    return np.asarray(total / (~is_nan).sum(axes, keepdims=keepdim)).astype(result)


def prod(self: Array, dim: int | None = None, keepdim: bool = False, dtype: str | None = None) -> Array:
    """Return the product along an axis, or of all. That of integers and bools is int64."""
    x, result = _summed(self, dtype)
    return np.asarray(x.prod(_axes(self, dim), keepdims=keepdim)).astype(result)


def count_nonzero(self: Array, dim: Dims = None) -> Array:
    """Return how many numbers along axes are not 0."""
    return np.asarray((self != 0).sum(_axes(self, dim)), np.int64)


def trace(self: Array) -> Array:
    """Return the sum of the diagonal of a matrix."""
    if self.ndim != 2:
        raise ValueError("It takes a matrix.")
    return sum(self.diagonal())


def sum_to_size(self: Array, size: Sequence[int]) -> Array:
    """Return the sum along the axes that a shape lacks, or has with size 1."""
    new = self.ndim - len(size)
    if np.broadcast_shapes(self.shape, tuple(size)) != self.shape:
        raise ValueError("self must be what broadcasting makes of the shape.")
    axes = [axis for axis in range(self.ndim) if axis < new or size[axis - new] == 1 != self.shape[axis]]
    return sum(self, axes, True).reshape(tuple(size)) if axes or not size else self


def logsumexp(self: Array, dim: Dims, keepdim: bool = False) -> Array:
    """Return the logarithm of the sum of exp(self) along axes, without overflow."""
    result = floating(self.dtype)
    x, axes = widened(self, result), _axes(self, dim)
    if self.size == 0:
        return np.asarray(np.log(np.exp(x).sum(axis=axes, keepdims=keepdim))).astype(result)
    most = x.real.max(axis=axes, keepdims=True)
    most = np.where(np.isinf(most), 0, most)
    total = np.log(np.exp(x - most).sum(axis=axes, keepdims=True)) + most
    return np.asarray(total if keepdim else total.squeeze(axes)).astype(result)


# ---------------------------------------------------------------- extremes


def amax(self: Array, dim: Dims = (), keepdim: bool = False) -> Array:
    """Return the largest number along axes, or NaN if there is one."""
    _check_order(self)
    return np.asarray(self.max(_axes(self, dim), keepdims=keepdim))


def amin(self: Array, dim: Dims = (), keepdim: bool = False) -> Array:
    """Return the smallest number along axes, or NaN if there is one."""
    _check_order(self)
    return np.asarray(self.min(_axes(self, dim), keepdims=keepdim))


def aminmax(self: Array, dim: int | None = None, keepdim: bool = False) -> tuple[Array, Array]:
    """Return the smallest and the largest number along an axis, or of all."""
    return amin(self, dim, keepdim), amax(self, dim, keepdim)


def _place(find: Callable[..., Any], self: Array, dim: int | None, keepdim: bool) -> Array:
    """Return where the first extreme along an axis is, or in the flat array."""
    _check_order(self)
    if self.ndim == 0:
        _axes(self, dim)
        return np.zeros((), np.int64)
    axis = None if dim is None else axis_of(dim, self.ndim)
    return np.asarray(find(self, axis, keepdims=keepdim))


def argmax(self: Array, dim: int | None = None, keepdim: bool = False) -> Array:
    """Return where the first largest number, or the first NaN, is."""
    return _place(np.argmax, self, dim, keepdim)


def argmin(self: Array, dim: int | None = None, keepdim: bool = False) -> Array:
    """Return where the first smallest number, or the first NaN, is."""
    return _place(np.argmin, self, dim, keepdim)


def max(self: Array, dim: int | None = None, keepdim: bool = False, other: Array | None = None) -> Any:
    """Return the largest of all; along an axis also where it is; of two arrays that of each pair."""
    if other is not None:
        return maximum(self, other)
    return amax(self) if dim is None else (amax(self, dim, keepdim), argmax(self, dim, keepdim))


def min(self: Array, dim: int | None = None, keepdim: bool = False, other: Array | None = None) -> Any:
    """Return the smallest of all; along an axis also where it is; of two arrays that of each pair."""
    if other is not None:
        return minimum(self, other)
    return amin(self) if dim is None else (amin(self, dim, keepdim), argmin(self, dim, keepdim))


def _truth(reduce: Callable[..., Any], self: Array, dim: Dims, keepdim: bool) -> Array:
    """Reduce truth along axes: along none if there are none, unlike sums. That of uint8 is uint8."""
    axes = () if dim == () else _axes(self, dim)
    truth = np.asarray(reduce(self.astype(bool), axes, keepdims=keepdim))
    return truth.astype(np.uint8) if self.dtype == np.uint8 else truth


def all(self: Array, dim: Dims = None, keepdim: bool = False) -> Array:
    """Whether no number along axes is 0."""
    return _truth(np.all, self, dim, keepdim)


def any(self: Array, dim: Dims = None, keepdim: bool = False) -> Array:
    """Whether a number along axes is not 0."""
    return _truth(np.any, self, dim, keepdim)


# ---------------------------------------------------------------- variances


def _variance(
    self: Array, dim: Dims, unbiased: bool, keepdim: bool, correction: float | None
) -> tuple[Array, Array, DType]:
    """Return variance and mean, before they are rounded, and the mean's dtype."""
    x, result = _floats(self)
    axes = _axes(self, dim)
    freedom = _count(self, axes) - (float(unbiased) if correction is None else correction)
    centre = x.sum(axes, keepdims=True) / np.float64(_count(self, axes))
    squares = (np.abs(x - centre) ** 2).sum(axes, keepdims=True)
    variance = squares / np.float64(freedom if freedom > 0 else 0)
    if not keepdim:
        variance, centre = variance.squeeze(axes), centre.squeeze(axes)
    return variance, centre, result


def var(
    self: Array,
    dim: Dims = None,
    unbiased: bool = True,
    keepdim: bool = False,
    correction: float | None = None,
) -> Array:
    """Return the squared distance from the mean, divided by count - correction. It is 1 if unbiased."""
    return var_mean(self, dim, unbiased, keepdim, correction)[0]


def std(
    self: Array,
    dim: Dims = None,
    unbiased: bool = True,
    keepdim: bool = False,
    correction: float | None = None,
) -> Array:
    """Return the square root of the variance."""
    return std_mean(self, dim, unbiased, keepdim, correction)[0]


def var_mean(
    self: Array,
    dim: Dims = None,
    unbiased: bool = True,
    keepdim: bool = False,
    correction: float | None = None,
) -> tuple[Array, Array]:
    """Return the variance and the mean."""
    variance, centre, dtype = _variance(self, dim, unbiased, keepdim, correction)
    return variance.astype(real(dtype)), centre.astype(dtype)


def std_mean(
    self: Array,
    dim: Dims = None,
    unbiased: bool = True,
    keepdim: bool = False,
    correction: float | None = None,
) -> tuple[Array, Array]:
    """Return the square root of the variance, and the mean."""
    variance, centre, dtype = _variance(self, dim, unbiased, keepdim, correction)
    return np.asarray(np.sqrt(variance)).astype(real(dtype)), centre.astype(dtype)


# ---------------------------------------------------------------- norms


def linalg_vector_norm(
    self: Array, ord: float = 2, dim: Dims = None, keepdim: bool = False, dtype: str | None = None
) -> Array:
    """Return the ord-th root of the sum of abs(self)**ord. Of 0: how many are not 0. Of inf: the largest."""
    _floats(self)
    x, result = _floats(self, dtype)
    x, axes = np.abs(x), _axes(self, dim)
    if np.isinf(ord):
        total = (x.max if ord > 0 else x.min)(axes, keepdims=keepdim)
    elif ord == 0:
        total = (x != 0).sum(axes, keepdims=keepdim)
    else:
        total = (x**ord).sum(axes, keepdims=keepdim) ** (1 / ord)
    return np.asarray(total).astype(real(result))


def norm(
    self: Array, p: float | None = 2, dim: Dims = (), keepdim: bool = False, dtype: str | None = None
) -> Array:
    """Return the vector norm along axes."""
    return linalg_vector_norm(self, 2 if p is None else p, dim, keepdim, dtype)


def frobenius_norm(self: Array, dim: Dims = (), keepdim: bool = False) -> Array:
    """Return the square root of the sum of squares."""
    return linalg_vector_norm(self, 2, dim, keepdim)


def linalg_matrix_norm(
    self: Array,
    ord: float | str = "fro",
    dim: Sequence[int] = (-2, -1),
    keepdim: bool = False,
    dtype: str | None = None,
) -> Array:
    """Return a norm of matrices: "fro", "nuc", or of order 1, 2, inf, or their negatives."""
    if len(_axes(self, dim)) != 2:
        raise ValueError("A matrix has two axes.")
    x, result = _floats(self, dtype)
    order: Any = ord
    return np.asarray(np.linalg.norm(x, order, tuple(dim), keepdims=keepdim)).astype(real(result))


def linalg_norm(
    self: Array,
    ord: float | str | None = None,
    dim: Dims = None,
    keepdim: bool = False,
    dtype: str | None = None,
) -> Array:
    """Return a norm of vectors or, given two axes and an order, of matrices."""
    axes = tuple(range(self.ndim)) if dim is None else (dim,) if isinstance(dim, int) else tuple(dim)
    if ord is None or (len(axes) == 1 and not isinstance(ord, str)):
        return linalg_vector_norm(self, 2 if ord is None else float(ord), axes, keepdim, dtype)
    return linalg_matrix_norm(self, ord, axes, keepdim, dtype)


# ---------------------------------------------------------------- running forms


def cumsum(self: Array, dim: int, dtype: str | None = None) -> Array:
    """Return sums of the entries so far along an axis."""
    return _running(np.add, self, dim, dtype)


def cumprod(self: Array, dim: int, dtype: str | None = None) -> Array:
    """Return products of the entries so far along an axis."""
    return _running(np.multiply, self, dim, dtype)


def _running(function: np.ufunc, self: Array, dim: int, dtype: str | None) -> Array:
    x, result = _summed(self, dtype)
    axis = axis_of(dim, self.ndim)
    return np.asarray(function.accumulate(x, axis) if self.ndim else x).astype(result)


def _running_extreme(function: np.ufunc, self: Array, dim: int) -> tuple[Array, Array]:
    """Return extremes so far, and where the last of equal ones is. NaN is the most extreme."""
    _check_order(self)
    axis = axis_of(dim, self.ndim)
    x = np.atleast_1d(self)
    values = function.accumulate(x, axis)
    steps = np.arange(x.shape[axis]).reshape(-1, *[1] * (x.ndim - 1 - axis))
    is_new = (x == values) | np.isnan(x)
    places = np.maximum.accumulate(np.where(is_new, steps, 0), axis)
    return values.reshape(self.shape), places.reshape(self.shape)


def cummax(self: Array, dim: int) -> tuple[Array, Array]:
    """Return the largest entries so far along an axis, and where they are."""
    return _running_extreme(np.maximum, self, dim)


def cummin(self: Array, dim: int) -> tuple[Array, Array]:
    """Return the smallest entries so far along an axis, and where they are."""
    return _running_extreme(np.minimum, self, dim)


def logcumsumexp(self: Array, dim: int) -> Array:
    """Return logarithms of sums of exp(self) so far along an axis."""
    x, result = _floats(self)
    axis = axis_of(dim, self.ndim)
    if self.ndim == 0:
        return self
    entries = np.moveaxis(x, axis, 0)
    totals = list(entries[:1])
    for entry in entries[1:]:
        totals.append(logaddexp(totals[-1], entry))
    return np.moveaxis(np.reshape(totals, entries.shape), 0, axis).astype(result)


ALIASES = {
    "_logcumsumexp": "logcumsumexp",
    "special_logsumexp": "logsumexp",
}
