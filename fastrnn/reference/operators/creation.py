"""New arrays, and arrays in another dtype."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastrnn.arrays import Array
from fastrnn.reference.operators.promotion import DEFAULT, DType, Operand, category, dtype_of, floating

Sizes = Sequence[int]


def _dtype(name: str | None, other: Any = DEFAULT) -> DType:
    return np.dtype(other if name is None else name)


# ---------------------------------------------------------------- one value


def full(size: Sizes, fill_value: Operand, dtype: str | None = None) -> Array:
    """Return an array of one value. Its dtype is that of the value, unless it is given."""
    return np.full(tuple(size), np.asarray(fill_value).astype(_dtype(dtype, dtype_of(fill_value))))


def zeros(size: Sizes, dtype: str | None = None) -> Array:
    """Return zeros. What torch leaves uninitialised is zeros here too."""
    return np.zeros(tuple(size), _dtype(dtype))


def ones(size: Sizes, dtype: str | None = None) -> Array:
    """Return ones."""
    return np.ones(tuple(size), _dtype(dtype))


def full_like(self: Array, fill_value: Operand, dtype: str | None = None) -> Array:
    """Return an array of one value, with the shape and dtype of self."""
    return full(self.shape, fill_value, str(_dtype(dtype, self.dtype)))


def zeros_like(self: Array, dtype: str | None = None) -> Array:
    """Return zeros with the shape and dtype of self."""
    return np.zeros(self.shape, _dtype(dtype, self.dtype))


def ones_like(self: Array, dtype: str | None = None) -> Array:
    """Return ones with the shape and dtype of self."""
    return np.ones(self.shape, _dtype(dtype, self.dtype))


def new_full(self: Array, size: Sizes, fill_value: Operand, dtype: str | None = None) -> Array:
    """Return an array of one value, with the dtype of self."""
    return full(size, fill_value, str(_dtype(dtype, self.dtype)))


def new_zeros(self: Array, size: Sizes, dtype: str | None = None) -> Array:
    """Return zeros with the dtype of self."""
    return np.zeros(tuple(size), _dtype(dtype, self.dtype))


def new_ones(self: Array, size: Sizes, dtype: str | None = None) -> Array:
    """Return ones with the dtype of self."""
    return np.ones(tuple(size), _dtype(dtype, self.dtype))


def empty_strided(size: Sizes, stride: Sizes, dtype: str | None = None) -> Array:
    """Return zeros. Strides are no part of a value."""
    return zeros(size, dtype)


def new_empty_strided(self: Array, size: Sizes, stride: Sizes, dtype: str | None = None) -> Array:
    """Return zeros with the dtype of self. Strides are no part of a value."""
    return new_zeros(self, size, dtype)


def empty_permuted(size: Sizes, physical_layout: Sizes, dtype: str | None = None) -> Array:
    """Return zeros. The order in memory is no part of a value."""
    if sorted(physical_layout) != list(range(len(size))):
        raise ValueError("physical_layout must name each axis once.")
    return zeros(size, dtype)


def scalar_tensor(s: Operand, dtype: str | None = None) -> Array:
    """Return a 0-d array."""
    return np.asarray(s).astype(_dtype(dtype))


def tensor(data: Any = None, dtype: str | None = None, t: Operand | None = None) -> Array:
    """Return an array of a number, or of nested lists of numbers."""
    array = np.asarray(data if t is None else t)
    default = floating(DEFAULT) if array.dtype == np.float64 else array.dtype
    return array.astype(_dtype(dtype, np.complex64 if category(array.dtype) == 3 else default))


# ---------------------------------------------------------------- series


def arange(end: Operand, start: Operand = 0, step: Operand = 1, dtype: str | None = None) -> Array:
    """Return start, start + step and so on, before end."""
    bounds = [np.asarray(bound).item() for bound in (start, end, step)]
    first, last, by = bounds
    if by == 0 or (last - first) * by < 0:
        raise ValueError("step must lead from start to end.")
    is_whole = all(isinstance(bound, int) for bound in bounds)
    result_dtype = _dtype(dtype, np.int64 if is_whole else DEFAULT)
    if result_dtype == np.int64:
        first, last, by = (int(bound) for bound in bounds)
    count = math.ceil((last - first) / by)
    if category(result_dtype) == 1:
        first, by = int(first), int(by)
    return np.asarray(first + by * np.arange(count)).astype(result_dtype)


def _steps(start: Operand, end: Operand, steps: int, dtype: DType) -> Array:
    """Return evenly spaced numbers. Each half is counted from its own end."""
    if steps < 0:
        raise ValueError("steps must not be below 0.")
    is_complex = category(dtype) == 3
    wide: Any = complex if is_complex else float
    first, last = (wide(np.asarray(bound).item()) for bound in (start, end))
    if category(dtype) < 2:
        first, last = float(int(first)), float(int(last))
    by = (last - first) / max(steps - 1, 1)
    places = np.arange(steps)
    is_near = (places < steps // 2) | (steps == 1)
    return np.asarray(np.where(is_near, first + by * places, last - by * (steps - 1 - places)))


def _series_dtype(name: str | None, *bounds: Operand) -> DType:
    is_complex = any(category(dtype_of(bound)) == 3 for bound in bounds)
    return _dtype(name, np.complex64 if is_complex else DEFAULT)


def linspace(start: Operand, end: Operand, steps: int, dtype: str | None = None) -> Array:
    """Return evenly spaced numbers from start to end, both included."""
    result_dtype = _series_dtype(dtype, start, end)
    return _steps(start, end, steps, result_dtype).astype(result_dtype)


def logspace(start: Operand, end: Operand, steps: int, base: float = 10.0, dtype: str | None = None) -> Array:
    """Return powers of a base, whose exponents are evenly spaced from start to end."""
    result_dtype = _series_dtype(dtype, start, end)
    return np.asarray(np.power(base, _steps(start, end, steps, result_dtype))).astype(result_dtype)


def eye(n: int, m: int | None = None, dtype: str | None = None) -> Array:
    """Return a matrix with ones on the diagonal, and zeros."""
    return np.eye(n, m, dtype=_dtype(dtype))


def tril_indices(row: int, col: int, offset: int = 0, dtype: str | None = None) -> Array:
    """Return where a matrix is on or below a diagonal: rows, and columns."""
    return np.stack(np.tril_indices(row, offset, col)).astype(_dtype(dtype, np.int64))


def triu_indices(row: int, col: int, offset: int = 0, dtype: str | None = None) -> Array:
    """Return where a matrix is on or above a diagonal: rows, and columns."""
    return np.stack(np.triu_indices(row, offset, col)).astype(_dtype(dtype, np.int64))


def one_hot(self: Array, num_classes: int = -1) -> Array:
    """Return a new last axis of zeros, with a one at the place that self gives."""
    if self.dtype != np.int64:
        raise TypeError("It takes int64.")
    classes = num_classes if num_classes >= 0 else int(self.max()) + 1
    if self.size and not 0 <= self.min() <= self.max() < classes:
        raise ValueError(f"The classes must be in [0, {classes - 1}].")
    return np.asarray(self[..., None] == np.arange(classes)).astype(np.int64)


# ---------------------------------------------------------------- windows


def _window(length: int, periodic: bool, dtype: str | None, *terms: float) -> Array:
    """Return a sum of cosines over one period. A periodic window lacks the last of length + 1 entries."""
    places = _window_places(length, periodic)
    waves = (term * np.cos(2 * np.pi * i * places) for i, term in enumerate(terms))
    return np.asarray(sum(waves, np.zeros(length))).astype(_window_dtype(dtype))


def _window_places(length: int, periodic: bool) -> Array:
    """Return the places of entries in [0, 1]. The only entry of a window of one is in the middle."""
    if length < 0:
        raise ValueError("window_length must not be below 0.")
    return np.arange(length) / (length if periodic else length - 1) if length > 1 else np.full(length, 0.5)


def _window_dtype(name: str | None) -> DType:
    dtype = _dtype(name)
    if category(dtype) != 2:
        raise TypeError("It gives floats.")
    return dtype


def hann_window(window_length: int, periodic: bool = True, dtype: str | None = None) -> Array:
    """Return 0.5 - 0.5 cos."""
    return _window(window_length, periodic, dtype, 0.5, -0.5)


def hamming_window(
    window_length: int,
    periodic: bool = True,
    alpha: float = 0.54,
    beta: float = 0.46,
    dtype: str | None = None,
) -> Array:
    """Return alpha - beta cos."""
    if window_length == 1:
        return np.ones(1, _window_dtype(dtype))
    return _window(window_length, periodic, dtype, alpha, -beta)


def blackman_window(window_length: int, periodic: bool = True, dtype: str | None = None) -> Array:
    """Return 0.42 - 0.5 cos + 0.08 cos of the double angle."""
    return _window(window_length, periodic, dtype, 0.42, -0.5, 0.08)


def bartlett_window(window_length: int, periodic: bool = True, dtype: str | None = None) -> Array:
    """Return a triangle."""
    places = _window_places(window_length, periodic)
    return np.asarray(1 - np.abs(2 * places - 1)).astype(_window_dtype(dtype))


def kaiser_window(
    window_length: int, periodic: bool = True, beta: float = 12.0, dtype: str | None = None
) -> Array:
    """Return a Bessel function of the distance from the middle."""
    places = _window_places(window_length, periodic)
    powers = np.i0(beta * np.sqrt(np.maximum(1 - (2 * places - 1) ** 2, 0))) / np.i0(beta)
    return np.asarray(powers).astype(_window_dtype(dtype))


# ---------------------------------------------------------------- another value, another dtype


def fill(self: Array, value: Operand) -> Array:
    """Return an array of one value, like self."""
    return full(self.shape, value, str(self.dtype))


def zero(self: Array) -> Array:
    """Return zeros like self."""
    return zeros_like(self)


def copy(self: Array, src: Array) -> Array:
    """Return src in the shape and dtype of self."""
    return np.broadcast_to(src, self.shape).astype(self.dtype)


def to(self: Array, dtype: str | None = None, other: Array | None = None) -> Array:
    """Return self in a dtype, or in that of another array."""
    return self.astype(_dtype(dtype, self.dtype if other is None else other.dtype))


def type_as(self: Array, other: Array) -> Array:
    """Return self in the dtype of another array."""
    return self.astype(other.dtype)


ALIASES = {
    "_to_copy": "to",
    "empty": "zeros",
    "empty_like": "zeros_like",
    "new_empty": "new_zeros",
}
