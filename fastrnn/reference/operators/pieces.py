"""Parts of an array, arrays with other parts, and arrays that are joined."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastrnn.arrays import Array
from fastrnn.reference.operators.promotion import axis_of, result_type

Sizes = Sequence[int]
_ALL = np.index_exp[:]


def _along(axis: int, index: Any) -> tuple[Any, ...]:
    """Return the index that is `index` on one axis, and all of the axes before it."""
    return (*_ALL * axis, index)


def _axis(self: Array, dim: int) -> int:
    """Return an axis that the array has."""
    if self.ndim == 0:
        raise IndexError("An array without axes has no parts.")
    return axis_of(dim, self.ndim)


# ---------------------------------------------------------------- parts


def _span(size: int, start: int | None, end: int | None, step: int) -> Any:
    """Return the part of an axis from start to end. Both are cut to the axis."""
    if step <= 0:
        raise ValueError("step must be at least 1.")
    first, last, _ = np.s_[start:end].indices(size)
    return np.s_[first : max(first, last) : step]


def slice(
    self: Array, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Array:
    """Return every step-th entry of an axis from start to end."""
    axis = _axis(self, dim)
    return np.asarray(self[_along(axis, _span(self.shape[axis], start, end, step))])


def select(self: Array, dim: int, index: int) -> Array:
    """Return one entry of an axis, without the axis."""
    return np.asarray(self[_along(_axis(self, dim), index)])


def narrow(self: Array, dim: int, start: int | Array, length: int) -> Array:
    """Return the entries of an axis from start on."""
    axis, first = _axis(self, dim), operator.index(np.asarray(start)[()])
    size = self.shape[axis]
    if not -size <= first <= size:
        raise IndexError(f"start must be in [{-size}, {size}].")
    first = first + size if first < 0 else first
    if length < 0 or first + length > size:
        raise ValueError(f"The axis has {size} entries.")
    return np.asarray(self[_along(axis, np.s_[first : first + length])])


def diagonal(self: Array, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Array:
    """Return the diagonal of two axes as a new last axis. It is empty outside the array."""
    axes = _axis(self, dim1), _axis(self, dim2)
    if axes[0] == axes[1]:
        raise ValueError("It takes two axes.")
    return self.diagonal(offset, *axes)


def unbind(self: Array, dim: int = 0) -> tuple[Array, ...]:
    """Return the entries of an axis, each without it."""
    return tuple(np.moveaxis(self, _axis(self, dim), 0))


def split_with_sizes(self: Array, split_sizes: Sizes, dim: int = 0) -> tuple[Array, ...]:
    """Cut an axis into parts of these sizes."""
    axis = _axis(self, dim)
    if sum(split_sizes) != self.shape[axis] or any(size < 0 for size in split_sizes):
        raise ValueError(f"The sizes must sum to {self.shape[axis]}.")
    ends = np.cumsum(split_sizes, dtype=int)
    return tuple(
        self[_along(axis, np.s_[end - size : end])] for end, size in zip(ends, split_sizes, strict=True)
    )


def split(
    self: Array, split_size: int | Sizes | None = None, dim: int = 0, split_sizes: Sizes | None = None
) -> tuple[Array, ...]:
    """Cut an axis into parts of one size, the last of which may be smaller, or of several sizes."""
    sizes = split_sizes if split_size is None else split_size
    if sizes is None or not isinstance(sizes, int):
        return split_with_sizes(self, sizes or (), dim)
    size = self.shape[_axis(self, dim)]
    if sizes < 0 or (sizes == 0 and size):
        raise ValueError("The size must be at least 1.")
    count = max(1, math.ceil(size / max(sizes, 1)))
    return split_with_sizes(self, [sizes if size else 0] * (count - 1) + [size - sizes * (count - 1)], dim)


def chunk(self: Array, chunks: int, dim: int = 0) -> tuple[Array, ...]:
    """Cut an axis into at most this many parts of one size, the last of which may be smaller."""
    if chunks < 1:
        raise ValueError("chunks must be at least 1.")
    size = self.shape[_axis(self, dim)]
    part = math.ceil(size / chunks)
    return split(self, part, dim) if part else split_with_sizes(self, [0] * chunks, dim)


def tensor_split(
    self: Array,
    sections: int | None = None,
    dim: int = 0,
    indices: Sizes | None = None,
    tensor_indices_or_sections: Array | None = None,
) -> tuple[Array, ...]:
    """Cut an axis into this many parts, the first of which may be larger by 1, or before these indices."""
    cuts: Any = sections if indices is None else list(indices)
    if tensor_indices_or_sections is not None:
        cuts = tensor_indices_or_sections.tolist()
    return tuple(np.array_split(self, cuts, _axis(self, dim)))


def _split_evenly(self: Array, dim: int, sections: int | None, indices: Sizes | None) -> tuple[Array, ...]:
    """Cut an axis into equal parts, or before these indices."""
    if sections is not None and (sections < 1 or self.shape[dim] % sections):
        raise ValueError("The axis must have a multiple of this many entries.")
    return tensor_split(self, sections, dim, indices)


def hsplit(self: Array, sections: int | None = None, indices: Sizes | None = None) -> tuple[Array, ...]:
    """Cut axis 1, or the only one."""
    return _split_evenly(self, _axis(self, 0 if self.ndim == 1 else 1), sections, indices)


def vsplit(self: Array, sections: int | None = None, indices: Sizes | None = None) -> tuple[Array, ...]:
    """Cut axis 0 of an array with at least two."""
    if self.ndim < 2:
        raise ValueError("It takes at least two axes.")
    return _split_evenly(self, 0, sections, indices)


def dsplit(self: Array, sections: int | None = None, indices: Sizes | None = None) -> tuple[Array, ...]:
    """Cut axis 2."""
    return _split_evenly(self, _axis(self, 2), sections, indices)


# ---------------------------------------------------------------- arrays with other parts


def _with(self: Array, index: Any, src: Array) -> Array:
    result = self.copy()
    if result[index].shape != src.shape:
        raise ValueError(f"src must have the shape {result[index].shape}.")
    result[index] = src
    return result


def slice_scatter(
    self: Array, src: Array, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Array:
    """Return self with src as a slice of it."""
    axis = _axis(self, dim)
    span = _along(axis, _span(self.shape[axis], start, end, step))
    return _with(self, span, np.broadcast_to(src, self[span].shape))


def select_scatter(self: Array, src: Array, dim: int, index: int) -> Array:
    """Return self with src as one entry of an axis."""
    return _with(self, _along(_axis(self, dim), index), src)


def diagonal_scatter(self: Array, src: Array, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Array:
    """Return self with src as a diagonal."""
    places = np.arange(self.size).reshape(self.shape)
    where = diagonal(places, offset, dim1, dim2)
    return _with(self.reshape(-1), where, src).reshape(self.shape)


def _triangle(self: Array, diagonal: int, is_lower: bool) -> Array:
    if self.ndim < 2:
        raise ValueError("It takes at least two axes.")
    rows, columns = np.ogrid[: self.shape[-2], : self.shape[-1]]
    kept = columns - rows <= diagonal if is_lower else columns - rows >= diagonal
    return np.where(kept, self, np.zeros((), self.dtype))


def tril(self: Array, diagonal: int = 0) -> Array:
    """Return matrices with 0 above a diagonal."""
    return _triangle(self, diagonal, True)


def triu(self: Array, diagonal: int = 0) -> Array:
    """Return matrices with 0 below a diagonal."""
    return _triangle(self, diagonal, False)


def diag_embed(self: Array, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Array:
    """Return zeros with the last axis as the diagonal of two new axes."""
    size = self.shape[-1] + abs(offset)
    matrices = np.zeros((*self.shape[:-1], size, size), self.dtype)
    steps = np.arange(self.shape[-1])
    matrices[..., steps + max(0, -offset), steps + max(0, offset)] = self
    axes = axis_of(dim1, self.ndim + 1), axis_of(dim2, self.ndim + 1)
    if axes[0] == axes[1]:
        raise ValueError("It takes two axes.")
    return np.moveaxis(matrices, (-2, -1), axes)


def diag(self: Array, diagonal: int = 0) -> Array:
    """Return the matrix with a diagonal, or a diagonal of a matrix."""
    if self.ndim not in (1, 2):
        raise ValueError("It takes one axis or two.")
    return diag_embed(self, diagonal) if self.ndim == 1 else self.diagonal(diagonal)


def diagflat(self: Array, offset: int = 0) -> Array:
    """Return the matrix with all entries on a diagonal."""
    return diag_embed(self.reshape(-1), offset)


# ---------------------------------------------------------------- joined arrays


def _same_dtype(tensors: Sequence[Array]) -> list[Array]:
    if not tensors:
        raise ValueError("It takes at least one array.")
    dtype = result_type(*tensors)
    return [array.astype(dtype) for array in tensors]


def cat(tensors: Sequence[Array], dim: int = 0) -> Array:
    """Join arrays along an axis. Those of shape (0,) join with every other."""
    arrays = _same_dtype(tensors)
    kept = [array for array in arrays if array.shape != (0,)] or arrays[:1]
    return np.concatenate(kept, _axis(kept[0], dim))


def stack(tensors: Sequence[Array], dim: int = 0) -> Array:
    """Join arrays of one shape along a new axis."""
    arrays = _same_dtype(tensors)
    return np.stack(arrays, axis_of(dim, arrays[0].ndim + 1))


def hstack(tensors: Sequence[Array]) -> Array:
    """Join arrays along axis 1, or the only one."""
    arrays = [np.atleast_1d(array) for array in tensors]
    return cat(arrays, 0 if arrays and arrays[0].ndim == 1 else 1)


def vstack(tensors: Sequence[Array]) -> Array:
    """Join arrays along axis 0 as rows."""
    return cat([np.atleast_2d(array) for array in tensors], 0)


def dstack(tensors: Sequence[Array]) -> Array:
    """Join arrays along axis 2."""
    return cat([np.atleast_3d(array) for array in tensors], 2)


def column_stack(tensors: Sequence[Array]) -> Array:
    """Join arrays along axis 1. Those with one axis are columns."""
    return cat([array.reshape(-1, 1) if array.ndim < 2 else array for array in tensors], 1)


# ---------------------------------------------------------------- repeated entries


def repeat(self: Array, repeats: Sizes) -> Array:
    """Repeat the whole along each axis. There may be new axes in front."""
    if len(repeats) < self.ndim or any(count < 0 for count in repeats):
        raise ValueError("There must be a count for each axis, and none below 0.")
    return np.tile(self, tuple(repeats))


def tile(self: Array, dims: Sizes) -> Array:
    """Repeat the whole along the last axes, or with new ones in front."""
    return repeat(self, (1,) * (self.ndim - len(dims)) + tuple(dims))


def repeat_interleave(
    self: Array | None = None,
    repeats: int | Array = 1,
    dim: int | None = None,
    output_size: int | None = None,
) -> Array:
    """Repeat each entry of an axis, or of the flat array. With counts alone: repeat indices."""
    if self is None:
        return np.repeat(np.arange(np.size(repeats), dtype=np.asarray(repeats).dtype), repeats)
    axis = None if dim is None else axis_of(dim, self.ndim)
    return np.repeat(np.atleast_1d(self), repeats, axis)


def meshgrid(tensors: Sequence[Array], indexing: str = "ij") -> tuple[Array, ...]:
    """Return a grid's coordinates, an array for each axis."""
    return tuple(np.meshgrid(*tensors, indexing=indexing))  # type: ignore[call-overload]


def cartesian_prod(tensors: Sequence[Array]) -> Array:
    """Return all tuples of entries, one from each array, as rows."""
    if len(tensors) == 1:
        return tensors[0]
    return np.stack([grid.reshape(-1) for grid in meshgrid(tensors)], 1)


ALIASES = {
    "concat": "cat",
    "concatenate": "cat",
    "diagonal_copy": "diagonal",
    "narrow_copy": "narrow",
    "row_stack": "vstack",
    "select_copy": "select",
    "slice_copy": "slice",
    "split_with_sizes_copy": "split_with_sizes",
    "unbind_copy": "unbind",
    "unsafe_chunk": "chunk",
    "unsafe_split": "split",
    "unsafe_split_with_sizes": "split_with_sizes",
}
