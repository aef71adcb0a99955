"""The same numbers in another shape or order of axes: views, and copies that torch makes of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastrnn.arrays import Array
from fastrnn.reference.operators.promotion import axis_of

Sizes = Sequence[int]


def _axes(dim: int | Sizes, ndim: int) -> tuple[int, ...]:
    """Return axes counted from the front, each once."""
    axes = tuple(axis_of(d, ndim) for d in ((dim,) if isinstance(dim, int) else dim))
    if len(set(axes)) != len(axes):
        raise ValueError("An axis is named twice.")
    return axes


# ---------------------------------------------------------------- sizes


def reshape(self: Array, shape: Sizes) -> Array:
    """Return self in another shape. One size may be -1."""
    sizes = tuple(int(size) for size in shape)
    if any(size < -1 for size in sizes):
        raise ValueError("A size may not be below -1.")
    return self.reshape(sizes)


def view(self: Array, size: Sizes | None = None, dtype: Any = None) -> Array:
    """Return self in another shape, or its bytes as another dtype."""
    if size is not None:
        return reshape(self, size)
    result: Array = np.ascontiguousarray(self).view(dtype)
    return result.reshape(*self.shape[:-1], -1) if self.ndim else result.reshape(())


def _reshape_alias(self: Array, size: Sizes, stride: Sizes) -> Array:
    return as_strided(self, size, stride)


def view_as(self: Array, other: Array) -> Array:
    """Return self in the shape of other."""
    return self.reshape(other.shape)


def flatten(self: Array, start_dim: int = 0, end_dim: int = -1) -> Array:
    """Make one axis of consecutive axes."""
    if self.ndim == 0:
        return self.reshape(1)
    start, end = axis_of(start_dim, self.ndim), axis_of(end_dim, self.ndim)
    if start > end:
        raise ValueError("start_dim must not come after end_dim.")
    return self.reshape(*self.shape[:start], math.prod(self.shape[start : end + 1]), *self.shape[end + 1 :])


def unflatten(self: Array, dim: int, sizes: Sizes) -> Array:
    """Make several axes of one. One size may be -1."""
    axis = axis_of(dim, self.ndim)
    known = math.prod(size for size in sizes if size != -1)
    filled = [self.shape[axis] // max(known, 1) if size == -1 else size for size in sizes]
    if not sizes or math.prod(filled) != self.shape[axis]:
        raise ValueError(f"The sizes must multiply to {self.shape[axis]}.")
    return self.reshape(*self.shape[:axis], *filled, *self.shape[axis + 1 :])


def ravel(self: Array) -> Array:
    """Return self with one axis."""
    return self.reshape(-1)


def squeeze(self: Array, dim: int | Sizes | None = None) -> Array:
    """Remove axes of size 1: all, or those of `dim` that are."""
    axes = range(self.ndim) if dim is None else _axes(dim, self.ndim) if self.ndim else ()
    return self.squeeze(tuple(axis for axis in axes if self.shape[axis] == 1))


def unsqueeze(self: Array, dim: int) -> Array:
    """Insert an axis of size 1."""
    return np.expand_dims(self, axis_of(dim, self.ndim + 1))


def expand(self: Array, size: Sizes) -> Array:
    """Repeat axes of size 1 to a shape. A size of -1 keeps that of self."""
    new = len(size) - self.ndim
    if new < 0 or any(wanted < 0 for wanted in size[:new]):
        raise ValueError("The shape must have a size for each axis of self, and new ones in front.")
    sizes = [have if want == -1 else want for want, have in zip(size[new:], self.shape, strict=True)]
    return np.broadcast_to(self, (*size[:new], *sizes))


def expand_as(self: Array, other: Array) -> Array:
    """Repeat axes of size 1 to the shape of other."""
    return expand(self, other.shape)


def broadcast_to(self: Array, size: Sizes) -> Array:
    """Repeat axes of size 1 to a shape."""
    return expand(self, size)


def broadcast_tensors(tensors: Sequence[Array]) -> tuple[Array, ...]:
    """Repeat axes of size 1 of all arrays to one shape."""
    return tuple(np.broadcast_arrays(*tensors))


def atleast_1d(self: Any = None, tensors: Sequence[Array] | None = None) -> Any:
    """Give 0-d arrays an axis."""
    return np.atleast_1d(self) if tensors is None else tuple(map(np.atleast_1d, tensors))


def atleast_2d(self: Any = None, tensors: Sequence[Array] | None = None) -> Any:
    """Give arrays two axes, new ones in front."""
    return np.atleast_2d(self) if tensors is None else tuple(map(np.atleast_2d, tensors))


def atleast_3d(self: Any = None, tensors: Sequence[Array] | None = None) -> Any:
    """Give arrays three axes: an array with one axis gets it in the middle, the third comes last."""
    return np.atleast_3d(self) if tensors is None else tuple(map(np.atleast_3d, tensors))


# ---------------------------------------------------------------- order of axes


def permute(self: Array, dims: Sizes) -> Array:
    """Return self with its axes in another order."""
    if len(dims) != self.ndim:
        raise ValueError("dims must name each axis once.")
    return self.transpose(_axes(dims, self.ndim))


def transpose(self: Array, dim0: int, dim1: int) -> Array:
    """Exchange two axes."""
    axes = axis_of(dim0, self.ndim), axis_of(dim1, self.ndim)
    return self.swapaxes(*axes) if self.ndim else self


def swapaxes(self: Array, axis0: int, axis1: int) -> Array:
    """Exchange two axes."""
    return transpose(self, axis0, axis1)


def t(self: Array) -> Array:
    """Exchange the axes of a matrix."""
    if self.ndim > 2:
        raise ValueError("It takes at most two axes.")
    return self.T


def numpy_T(self: Array) -> Array:
    """Reverse the order of all axes."""
    return self.T


def mT(self: Array) -> Array:
    """Exchange the last two axes."""
    if self.ndim == 1:
        raise ValueError("It takes matrices.")
    return self.swapaxes(-1, -2) if self.ndim else self


def mH(self: Array) -> Array:
    """Exchange the last two axes, and conjugate."""
    return mT(self).conj() if np.iscomplexobj(self) else mT(self)


def movedim(self: Array, source: int | Sizes, destination: int | Sizes) -> Array:
    """Move axes to other places. The others keep their order."""
    places = _axes(source, self.ndim), _axes(destination, self.ndim)
    return np.moveaxis(self, *places) if self.ndim else self


def flip(self: Array, dims: Sizes) -> Array:
    """Reverse axes."""
    axes = _axes(dims, self.ndim)
    return np.flip(self, axes) if self.ndim else self


def fliplr(self: Array) -> Array:
    """Reverse axis 1."""
    return flip(self, (1,))


def flipud(self: Array) -> Array:
    """Reverse axis 0."""
    if self.ndim == 0:
        raise ValueError("It takes an array with axes.")
    return flip(self, (0,))


def roll(self: Array, shifts: int | Sizes, dims: int | Sizes = ()) -> Array:
    """Move entries along axes, or along the flat array. What leaves at one end enters at the other."""
    steps = (shifts,) if isinstance(shifts, int) else tuple(shifts)
    axes = (dims,) if isinstance(dims, int) else tuple(dims)
    if len(steps) != (len(axes) or 1):
        raise ValueError("There must be one shift for each axis.")
    return np.roll(self, steps, axes) if axes else np.roll(self, steps[0])


def rot90(self: Array, k: int = 1, dims: Sizes = (0, 1)) -> Array:
    """Turn a plane by k right angles, from its first axis to its second."""
    first, second = dims
    return np.rot90(self, k, (first, second))


# ---------------------------------------------------------------- strides


def as_strided(self: Array, size: Sizes, stride: Sizes, storage_offset: int | None = None) -> Array:
    """Return entries of the flat array, at the places that strides give.

    Torch counts places in memory. They are the same for contiguous arrays that begin where their memory does.
    """
    places = _strided_places(size, stride, storage_offset)
    return self.reshape(-1)[places]


def _strided_places(size: Sizes, stride: Sizes, offset: int | None) -> Array:
    """Return where each entry lies in the flat array, in the shape of `size`."""
    if len(size) != len(stride):
        raise ValueError("There must be a stride for each size.")
    places = np.full(tuple(size), offset or 0)
    for axis, step in enumerate(stride):
        places += step * np.arange(size[axis]).reshape(-1, *[1] * (len(size) - axis - 1))
    return places


def as_strided_scatter(
    self: Array, src: Array, size: Sizes, stride: Sizes, storage_offset: int | None = None
) -> Array:
    """Return self with src at the places that strides give."""
    flat = self.reshape(-1).copy()
    flat[_strided_places(size, stride, storage_offset)] = src
    return flat.reshape(self.shape)


def unfold(self: Array, dimension: int, size: int, step: int) -> Array:
    """Return windows along an axis. Their entries are on a new last axis."""
    axis = axis_of(dimension, self.ndim)
    array = np.atleast_1d(self)
    if not 0 <= size <= array.shape[axis] or step <= 0:
        raise ValueError(f"size must be in [0, {array.shape[axis]}], step at least 1.")
    if self.ndim == 0:
        return array[:size]
    starts = np.arange(0, array.shape[axis] - size + 1, step)
    windows = np.take(array, starts[:, None] + np.arange(size), axis)
    return np.moveaxis(windows, axis + 1, -1)


# ---------------------------------------------------------------- the same array


def clone(self: Array) -> Array:
    """Return a copy."""
    return self.copy()


def alias(self: Array) -> Array:
    """Return self."""
    return self


ALIASES = {
    "_reshape_alias": "_reshape_alias",
    "_unsafe_view": "view",
    "adjoint": "mH",
    "alias_copy": "clone",
    "as_strided_copy": "as_strided",
    "contiguous": "alias",
    "detach": "alias",
    "expand_copy": "expand",
    "lift": "alias",
    "lift_fresh": "alias",
    "lift_fresh_copy": "clone",
    "matrix_H": "mH",
    "moveaxis": "movedim",
    "permute_copy": "permute",
    "reshape_as": "view_as",
    "squeeze_copy": "squeeze",
    "swapdims": "transpose",
    "t_copy": "t",
    "transpose_copy": "transpose",
    "unfold_copy": "unfold",
    "unsqueeze_copy": "unsqueeze",
    "view_copy": "view",
}
