"""What operators that find entries by index have in common: checks, and the entries of one axis."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastrnn.arrays import Array
from fastrnn.reference.operators.promotion import Operand, axis_of, category, dtype_of


def check_index(index: Array, size: int, least: int = 0) -> None:
    """Every index must be an integer in [least, size)."""
    if index.dtype.kind not in "iu":
        raise TypeError("An index must be an integer.")
    if index.size and not least <= index.min() <= index.max() < size:
        raise IndexError(f"Every index must be in [{least}, {size - 1}].")


def check_same_dtype(self: Array, other: Array) -> None:
    """Both arrays must have one dtype."""
    if self.dtype != other.dtype:
        raise TypeError(f"Both must be {self.dtype}.")


def number(self: Array, value: Operand) -> Array:
    """Return a number in self's dtype."""
    if category(dtype_of(value)) == 3 > category(self.dtype):
        raise TypeError(f"The value cannot become {self.dtype}.")
    if np.ndim(value):
        raise ValueError("The value must have no axes.")
    return np.asarray(value).astype(self.dtype)


def rows_of(self: Array, dim: int, index: Array, source: Array | None = None) -> tuple[Array, Array, Any]:
    """Return self and source with an axis in front, and the index as a vector."""
    axis, array = axis_of(dim, self.ndim), np.atleast_1d(self)
    if index.ndim > 1:
        raise ValueError("The index must be a vector.")
    check_index(index, array.shape[axis])
    rows, places = np.moveaxis(array, axis, 0), index.reshape(-1)
    if source is None:
        return rows, places, None
    check_same_dtype(self, source)
    given = np.atleast_1d(source)
    if given.ndim != array.ndim:
        given = given.reshape(*array.shape[:axis], -1, *array.shape[axis + 1 :])
    entries = np.moveaxis(given, axis, 0)
    if entries.shape != (places.size, *rows.shape[1:]):
        raise ValueError("The source must have the shape of self, with an entry for each index.")
    return rows, places, entries


def with_rows(self: Array, dim: int, rows: Array) -> Array:
    """Return an array with the axes of self, from one whose axis `dim` is in front."""
    return np.moveaxis(rows, 0, axis_of(dim, self.ndim)).reshape(self.shape)
