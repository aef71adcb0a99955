"""Entries that are found by index or by a mask, and arrays with other entries there.

Indices count from 0. Only `index`, `index_put`, `index_fill`, `take` and `put` know negative ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np

from fastrnn.arrays import Array
from fastrnn.narrow import NarrowWeight
from fastrnn.reference.operators.places import check_index, check_same_dtype, number, rows_of, with_rows
from fastrnn.reference.operators.promotion import (
    Operand,
    axis_of,
    category,
    dtype_of,
    is_array,
    result_type,
    wide,
)

Indices: TypeAlias = "Sequence[Array | None]"


# ---------------------------------------------------------------- rows of tables


def embedding(
    weight: Array | NarrowWeight,
    indices: Array,
    padding_idx: int = -1,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Array:
    """Return rows of a table."""
    if weight.ndim != 2:
        raise ValueError("The weight must be a matrix.")
    check_index(indices, weight.shape[0])
    if isinstance(weight, NarrowWeight):
        return weight.take(indices)
    return np.take(weight, indices, 0)


def embedding_bag(
    weight: Array,
    indices: Array,
    offsets: Array,
    scale_grad_by_freq: bool = False,
    mode: int = 0,
    sparse: bool = False,
    per_sample_weights: Array | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> tuple[Array, ...]:
    """Return sums (mode 0), means (1) or maxima (2) of rows, a bag of them from each offset to the next.

    Further results are for training: the bag of each index, the size of each bag without padding, and
    where each maximum was. Torch leaves some of them out.
    """
    if weight.ndim != 2 or indices.ndim != 1 or offsets.ndim != 1:
        raise ValueError("The weight must be a matrix, indices and offsets must have one axis.")
    if mode not in (0, 1, 2) or (per_sample_weights is not None and mode != 0):
        raise ValueError("mode must be 0, 1 or 2, and 0 with weights of samples.")
    if per_sample_weights is not None and per_sample_weights.shape != indices.shape:
        raise ValueError("There must be a weight for each index.")
    check_index(indices, weight.shape[0])
    ends = offsets.tolist() + ([] if include_last_offset else [indices.size])
    if ends[:1] not in ([], [0]) or ends != sorted(ends) or ends[-1:] not in ([], [indices.size]):
        raise ValueError("Offsets must begin with 0, not fall, and end with the number of indices.")
    skipped = -1 if padding_idx is None else axis_of(padding_idx, weight.shape[0])
    bags = max(len(ends) - 1, 0)
    result = np.zeros((bags, weight.shape[1]), wide(weight.dtype))
    bag_of, sizes = np.zeros(indices.size, indices.dtype), np.zeros(bags, indices.dtype)
    largest = np.zeros((bags, weight.shape[1]), indices.dtype)
    for bag, (start, end) in enumerate(pairwise(ends)):
        bag_of[start:end] = bag
        places = [place for place in range(start, end) if indices[place] != skipped]
        rows = weight[indices[places]].astype(result.dtype)
        if per_sample_weights is not None:
            rows = rows * per_sample_weights[places][:, None]
        sizes[bag] = len(places)
        if places and mode == 2:
            result[bag] = rows.max(axis=0)
            largest[bag] = indices[places][rows.argmax(axis=0)]
        elif places:
            result[bag] = rows.sum(axis=0) / (len(places) if mode == 1 else 1)
    return result.astype(weight.dtype), bag_of, sizes, largest if mode == 2 else sizes


def _embedding_bag(
    weight: Array,
    indices: Array,
    offsets: Array,
    scale_grad_by_freq: bool = False,
    mode: int = 0,
    sparse: bool = False,
    per_sample_weights: Array | None = None,
    include_last_offset: bool = False,
    padding_idx: int = -1,
) -> tuple[Array, ...]:
    """Return what `embedding_bag` does. A padding_idx of -1 means none."""
    padding = None if padding_idx == -1 else padding_idx
    options = (scale_grad_by_freq, mode, sparse, per_sample_weights, include_last_offset, padding)
    return embedding_bag(weight, indices, offsets, *options)


# ---------------------------------------------------------------- indices of several axes


def _places(indices: Indices) -> tuple[Any, ...]:
    """Return NumPy's form of indices: masks and integers, and all of an axis where there is None."""
    places: list[Any] = []
    for index in indices:
        if index is None:
            places.append(np.s_[:])
        elif index.dtype.kind not in "iub":
            raise TypeError("An index must be integers or bools.")
        else:
            places.append(index.astype(bool) if index.dtype in (np.bool_, np.uint8) else index)
    return tuple(places)


def index(self: Array, indices: Indices) -> Array:
    """Return entries at indices, one array or None for each axis. Masks stand for all their axes."""
    return np.asarray(self[_places(indices)])


def index_put(
    self: Array, indices: Indices, values: Array, accumulate: bool = False, unsafe: bool = False
) -> Array:
    """Return self with other entries at indices, or with values added there."""
    masks = [index for index in indices if index is not None]
    if values.size == 1 and not accumulate and len(masks) == 1 and masks[0].dtype == bool:
        values = values.astype(self.dtype)  # torch fills in the number here
    check_same_dtype(self, values)
    result, places = self.copy(), _places(indices)
    if accumulate:
        add: Any = np.logical_or if self.dtype == bool else np.add
        add.at(result, places, np.broadcast_to(values, result[places].shape))
    else:
        result[places] = np.broadcast_to(values, result[places].shape)
    return result


def take(self: Array, index: Array) -> Array:
    """Return entries of the flat array."""
    check_index(index, self.size, -self.size)
    return self.reshape(-1)[index]


def put(self: Array, index: Array, source: Array, accumulate: bool = False) -> Array:
    """Return self with other entries at indices of the flat array, or with the source added there."""
    if index.size != source.size:
        raise ValueError("There must be a number for each index.")
    check_index(index, self.size, -self.size)
    places = [index.reshape(-1)]
    return index_put(self.reshape(-1), places, source.reshape(-1), accumulate).reshape(self.shape)


# ---------------------------------------------------------------- whole entries of one axis


def index_select(self: Array, dim: int, index: Array) -> Array:
    """Return entries of an axis."""
    rows, places, _ = rows_of(self, dim, index)
    result = np.moveaxis(rows[places], 0, axis_of(dim, self.ndim))
    return result.reshape(()) if self.ndim == 0 else result


def index_copy(self: Array, dim: int, index: Array, source: Array) -> Array:
    """Return self with other entries of an axis."""
    rows, places, entries = rows_of(self, dim, index, source)
    rows = rows.copy()
    rows[places] = entries
    return with_rows(self, dim, rows)


def index_add(self: Array, dim: int, index: Array, source: Array, alpha: complex = 1) -> Array:
    """Return self with alpha * source added to entries of an axis."""
    rows, places, entries = rows_of(self, dim, index, source)
    if self.dtype == bool:
        rows = rows.copy()
        np.logical_or.at(rows, places, entries & bool(alpha))
        return with_rows(self, dim, rows)
    if category(dtype_of(alpha)) > max(category(self.dtype), 1):
        raise TypeError("alpha must be whole for integers.")
    sums = rows.astype(wide(self.dtype))
    np.add.at(sums, places, alpha * entries.astype(sums.dtype))
    return with_rows(self, dim, sums.astype(self.dtype))


def index_fill(self: Array, dim: int, index: Array, value: Operand) -> Array:
    """Return self with one number in entries of an axis."""
    size = np.atleast_1d(self).shape[axis_of(dim, self.ndim)]
    check_index(index, size, -size)
    rows, places, _ = rows_of(self, dim, index % max(size, 1))
    rows = rows.copy()
    rows[places] = number(self, value)
    return with_rows(self, dim, rows)


# ---------------------------------------------------------------- masks


def _check_mask(mask: Array) -> None:
    if mask.dtype != bool:
        raise TypeError("The mask must be bool.")


def masked_select(self: Array, mask: Array) -> Array:
    """Return the entries where the mask holds, as a vector."""
    _check_mask(mask)
    array, where = np.broadcast_arrays(self, mask)
    result: Array = array[where]
    return result.reshape(-1)


def masked_scatter(self: Array, mask: Array, source: Array) -> Array:
    """Return self with entries of the source, in order, where the mask holds."""
    _check_mask(mask)
    check_same_dtype(self, source)
    result, where = (np.array(array) for array in np.broadcast_arrays(self, mask))
    if where.sum() > source.size:
        raise ValueError("The source must have a number for each place.")
    result[where] = source.reshape(-1)[: where.sum()]
    return result


def nonzero(self: Array) -> Array:
    """Return the indices of the entries that are not 0, a row for each."""
    return np.argwhere(self)


def nonzero_numpy(self: Array) -> tuple[Array, ...]:
    """Return the indices of the entries that are not 0, an array for each axis."""
    return tuple(np.nonzero(np.atleast_1d(self)))


# ---------------------------------------------------------------- places in sorted arrays


def searchsorted(
    sorted_sequence: Array,
    self: Operand,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Array | None = None,
) -> Array:
    """Return where numbers would go in sorted rows: before equal ones, or after them with right."""
    if side not in (None, "left", "right") or (side == "left" and right):
        raise ValueError("side must be 'left' or 'right', and agree with right.")
    values = np.asarray(self)
    dtype = np.int32 if out_int32 else np.int64
    if sorter is not None and (sorter.shape != sorted_sequence.shape or sorter.dtype != np.int64):
        raise ValueError("sorter must be int64, in the shape of the sorted rows.")
    if sorted_sequence.ndim == 0 or category(result_type(sorted_sequence, values)) == 3:
        raise ValueError("The sorted rows must have an axis, and no complex numbers.")
    if is_array(self) and values.dtype != sorted_sequence.dtype:
        raise TypeError("Both must have one dtype.")
    if sorter is not None:
        check_index(sorter, sorted_sequence.shape[-1])
        sorted_sequence = np.take_along_axis(sorted_sequence, sorter, -1)
    where: Any = "right" if right or side == "right" else "left"
    if sorted_sequence.ndim == 1:
        return np.asarray(np.searchsorted(sorted_sequence, values, where)).astype(dtype)
    if values.ndim == 0 or sorted_sequence.shape[:-1] != values.shape[:-1]:
        raise ValueError("Sorted rows and numbers must have the same axes, except for the size of the last.")
    result = np.zeros(values.shape, dtype)
    for row in np.ndindex(*values.shape[:-1]):
        result[row] = np.searchsorted(sorted_sequence[row], values[row], where)
    return result


def bucketize(self: Operand, boundaries: Array, out_int32: bool = False, right: bool = False) -> Array:
    """Return between which boundaries numbers lie. One that equals a boundary is before it, unless right."""
    if boundaries.ndim != 1:
        raise ValueError("The boundaries must have one axis.")
    return searchsorted(boundaries, self, out_int32, right)


ALIASES = {
    "_embedding_bag": "_embedding_bag",
    "_embedding_bag_forward_only": "_embedding_bag",
    "_index_put_impl": "index_put",
    "_unsafe_index": "index",
    "_unsafe_index_put": "index_put",
    "argwhere": "nonzero",
}
