"""Entries along one axis, a place for each, and arrays in which what comes to a place is reduced.

Indices count from 0. Only `take_along_dim` knows negative ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastrnn.arrays import Array
from fastrnn.reference.operators.indexing import take
from fastrnn.reference.operators.places import check_index, check_same_dtype, number, rows_of, with_rows
from fastrnn.reference.operators.promotion import Operand, axis_of, category, wide


def _coordinates(self: Array, dim: int, index: Array, source: Array | None) -> tuple[Array, ...]:
    """Return where in self each index points: at its own place, except on one axis."""
    axis, array, places = axis_of(dim, self.ndim), np.atleast_1d(self), np.atleast_1d(index)
    if places.ndim != array.ndim and index.size:
        raise ValueError("The index must have the axes of self.")
    if not index.size:
        return tuple(np.zeros((array.ndim, 0), np.int64))
    check_index(index, array.shape[axis])
    sizes = [size for a, size in enumerate(array.shape) if a != axis]
    if any(
        have > most
        for have, most in zip((n for a, n in enumerate(places.shape) if a != axis), sizes, strict=True)
    ):
        raise ValueError("The index may not be larger than self on other axes.")
    if source is not None and (
        np.atleast_1d(source).ndim != places.ndim
        or any(n > m for n, m in zip(places.shape, np.atleast_1d(source).shape, strict=True))
    ):
        raise ValueError("The index may not be larger than the source.")
    grid: list[Array] = list(np.indices(places.shape))
    grid[axis] = places
    return tuple(grid)


def gather(self: Array, dim: int, index: Array, sparse_grad: bool = False) -> Array:
    """Return self[..., index[..., i, ...], ...] in the shape of the index."""
    if not index.size:
        return np.zeros(index.shape, self.dtype)
    return np.atleast_1d(self)[_coordinates(self, dim, index, None)].reshape(index.shape)


def take_along_dim(self: Array, indices: Array, dim: int | None = None) -> Array:
    """Return entries along an axis, or of the flat array. Other axes broadcast."""
    if indices.dtype != np.int64:
        raise TypeError("An index must be int64.")
    if dim is None:
        return take(self.reshape(-1), indices.reshape(-1))
    axis = axis_of(dim, self.ndim)
    if indices.ndim != self.ndim:
        raise ValueError("The index must have the axes of self.")
    check_index(indices, self.shape[axis], -self.shape[axis])
    return np.take_along_axis(self, indices, axis)


def scatter(
    self: Array,
    dim: int,
    index: Array,
    src: Array | None = None,
    value: Operand | None = None,
    reduce: str | None = None,
) -> Array:
    """Return self with entries of src, or one number, where the index points along an axis.

    With reduce "add" or "multiply" they are added or multiplied.
    """
    if reduce not in (None, "add", "multiply"):
        raise ValueError("reduce must be 'add' or 'multiply'.")
    source = src if src is not None else np.broadcast_to(number(self, value or 0), index.shape)
    if reduce is not None:
        return scatter_reduce(self, dim, index, source, {"add": "sum", "multiply": "prod"}[reduce])
    check_same_dtype(self, source)
    places = _coordinates(self, dim, index, source)
    result = np.atleast_1d(self).copy()
    result[places] = _met(source, index)
    return result.reshape(self.shape)


def _met(source: Array, index: Array) -> Array:
    """Return the entries of a source that an index of at most its shape has."""
    if not index.size:
        return source.reshape(-1)[:0]
    return np.atleast_1d(source)[tuple(np.s_[:size] for size in np.atleast_1d(index).shape)]


def scatter_add(self: Array, dim: int, index: Array, src: Array) -> Array:
    """Return self with src added where the index points along an axis."""
    return scatter_reduce(self, dim, index, src, "sum")


def scatter_reduce(
    self: Array, dim: int, index: Array, src: Array, reduce: str, include_self: bool = True
) -> Array:
    """Return self with entries reduced: sum, prod, mean, amax or amin of them and what points there."""
    check_same_dtype(self, src)
    places = _coordinates(self, dim, index, src)
    kinds = ("sum", "prod", "mean", "amax", "amin")
    result = _reduced(np.atleast_1d(self), places, _met(src, index), reduce, include_self, kinds)
    return result.reshape(self.shape)


def _reduced(
    self: Array,
    places: tuple[Array, ...],
    source: Array,
    reduce: str,
    include_self: bool,
    kinds: Sequence[str],
) -> Array:
    """Return self with what comes to each place reduced, with self's own entry or without it."""
    if reduce not in kinds:
        raise ValueError(f"reduce must be one of {', '.join(kinds)}.")
    if reduce == "mean" and self.dtype == bool:
        raise TypeError("Bools have no mean.")
    result = self.astype(wide(self.dtype))
    counts = np.full(self.shape, int(include_self))
    np.add.at(counts, places, 1)
    if not include_self:  # the first source that comes to a place takes it, and the others are reduced
        low, high = (
            (False, True)
            if self.dtype == bool
            else (-np.inf, np.inf)
            if category(self.dtype) > 1
            else (np.iinfo(self.dtype).min, np.iinfo(self.dtype).max)
        )
        result[places] = {"prod": 1, "amax": low, "amin": high}.get(reduce, 0)
    if self.dtype == bool:
        functions: dict[str, Any] = dict.fromkeys(("sum", "amax"), np.logical_or)
        functions |= dict.fromkeys(("prod", "amin"), np.logical_and)
    else:
        functions = {"prod": np.multiply, "amax": np.maximum, "amin": np.minimum}
    functions.get(reduce, np.add).at(result, places, source.astype(result.dtype))
    if reduce == "mean":
        divide: Callable[..., Any] = np.floor_divide if category(self.dtype) < 2 else np.divide
        result = divide(result, np.maximum(counts, 1))
    return result.astype(self.dtype)


def index_reduce(
    self: Array, dim: int, index: Array, source: Array, reduce: str, include_self: bool = True
) -> Array:
    """Return self with entries of an axis reduced: prod, mean, amax or amin of them and the source."""
    rows, places, entries = rows_of(self, dim, index, source)
    reduced = _reduced(rows, (places,), entries, reduce, include_self, ("prod", "mean", "amax", "amin"))
    return with_rows(self, dim, reduced)
