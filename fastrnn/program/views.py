"""Where the values of a plan lie: storages, and views of them.

A view costs nothing. Its functions say which elements a slice or a permutation takes; nothing is copied.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from fastrnn.errors import message
from fastrnn.narrow import NarrowWeight


class Kind(enum.Enum):
    """Whose memory a storage is."""

    WORK = "the plan's, while it runs"
    INPUT = "an input of the call"
    OUTPUT = "an output of the call"
    CONSTANT = "an array that never changes"


class Storage:
    """Memory for values.

    Attributes
    ----------
    kind : Kind
    bytes : int
    index : int
        Of the input or output that it is.
    array : ndarray, NarrowWeight or None
        Of a constant. Narrow weights are seen as float32, and only products may use them.
    """

    __slots__ = ("array", "bytes", "index", "kind")

    def __init__(self, kind: Kind, size: int, index: int = 0, array: Any = None) -> None:
        self.kind, self.bytes, self.index, self.array = kind, size, index, array


# The types of real numbers that kernels compute in.
FLOATS = ("float32", "float64")


class StepNumber(NamedTuple):
    """A number that grows with the steps of a loop."""

    first: int
    slope: int


@dataclass(frozen=True, slots=True)
class View:
    """A value: the elements of a storage that it is made of.

    Attributes
    ----------
    storage : Storage
    offset : int
        Bytes to its first element.
    dtype : str
    shape, strides : tuple of int
        Strides in bytes.
    advance : int
        In a loop: the bytes by which it moves on with each step.
    """

    storage: Storage
    offset: int
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    advance: int = 0

    def replace(self, **changes: Any) -> View:
        return replace(self, **changes)

    @property
    def itemsize(self) -> int:
        return np.dtype(self.dtype).itemsize

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def is_constant(self) -> bool:
        return self.storage.kind is Kind.CONSTANT and not self.advance

    @property
    def is_contiguous(self) -> bool:
        return _same_strides(self.shape, self.strides, dense_strides(self.shape, self.itemsize))

    @property
    def is_whole(self) -> bool:
        """Whether it is all of its storage, without gaps."""
        order = sorted(range(self.ndim), key=lambda axis: -self.strides[axis])
        strides = dense_strides(self.shape, self.itemsize, order)
        return (
            self.offset == 0
            and self.size * self.itemsize == self.storage.bytes
            and not self.advance
            and _same_strides(self.shape, self.strides, strides)
        )

    @property
    def is_narrow(self) -> bool:
        """Whether it is a constant of narrow weights."""
        return isinstance(self.storage.array, NarrowWeight)

    def weight(self) -> Any:
        """The weights of a product: the array of a constant, or a NarrowWeight."""
        if not self.is_narrow:
            return self.array()
        weight: NarrowWeight = self.storage.array
        if self.shape == weight.shape:
            return weight
        return weight.part(slice(None), lambda rows: rows.reshape(self.shape))

    def array(self) -> Any:
        """The array of a constant."""
        if self.is_narrow:  # nothing but products may use them
            raise ValueError(message("program", "a product with narrow weights", "another use"))
        return np.ndarray(
            self.shape, self.dtype, self.storage.array.reshape(-1).view(np.uint8), self.offset, self.strides
        )

    # ------------------------------------------------------------ views of it

    def permute(self, axes: Sequence[int]) -> View:
        return self.replace(
            shape=tuple(self.shape[axis] for axis in axes), strides=tuple(self.strides[axis] for axis in axes)
        )

    def select(self, axis: int, index: int | StepNumber) -> View:
        first, slope = index if isinstance(index, StepNumber) else (index, 0)
        if first < 0:
            first += self.shape[axis]
        stride = self.strides[axis]
        return self.replace(
            offset=self.offset + first * stride,
            shape=self.shape[:axis] + self.shape[axis + 1 :],
            strides=self.strides[:axis] + self.strides[axis + 1 :],
            advance=self.advance + slope * stride,
        )

    def slice(self, axis: int, start: int | StepNumber, size: int, step: int = 1) -> View:
        first, slope = start if isinstance(start, StepNumber) else (start, 0)
        stride = self.strides[axis]
        return self.replace(
            offset=self.offset + (first * stride if size else 0),
            shape=(*self.shape[:axis], size, *self.shape[axis + 1 :]),
            strides=(*self.strides[:axis], stride * step, *self.strides[axis + 1 :]),
            advance=self.advance + slope * stride,
        )

    def flip(self, axis: int) -> View:
        last = self.offset + (self.shape[axis] - 1) * self.strides[axis]
        strides = (*self.strides[:axis], -self.strides[axis], *self.strides[axis + 1 :])
        return self.replace(offset=last, strides=strides)

    def unsqueeze(self, axis: int) -> View:
        return self.replace(
            shape=(*self.shape[:axis], 1, *self.shape[axis:]),
            strides=(*self.strides[:axis], 0, *self.strides[axis:]),
        )

    def expand(self, shape: Sequence[int]) -> View:
        """Broadcast to a shape of as many axes or more."""
        more = len(shape) - self.ndim
        strides = [0] * more + [
            0 if own == 1 and size != 1 else stride
            for own, size, stride in zip(self.shape, shape[more:], self.strides, strict=True)
        ]
        return self.replace(shape=tuple(shape), strides=tuple(strides))

    def as_real(self) -> View:
        """A value of complex numbers as one of real numbers, whose last axis is (real, imaginary)."""
        half = self.itemsize // 2
        return self.replace(dtype=f"float{8 * half}", shape=(*self.shape, 2), strides=(*self.strides, half))

    def reshape(self, shape: Sequence[int]) -> View | None:
        """The same elements in another shape; None if that takes a copy."""
        strides = _reshaped(self.shape, self.strides, tuple(shape), self.itemsize)
        return None if strides is None else self.replace(shape=tuple(shape), strides=strides)


class Padded(NamedTuple):
    """What an array with zeros around it is made of: a convolution may look beyond the array itself instead.

    Attributes
    ----------
    whole : View
        The array with the zeros.
    source : View
    before, after : tuple of int
        The zeros at both ends of each axis.
    """

    whole: View
    source: View
    before: tuple[int, ...]
    after: tuple[int, ...]


class Patches(NamedTuple):
    """What an array of patches is made of: a convolution of patches is one of the array itself.

    Attributes
    ----------
    source : View
        (B, channels, height, width), without padding.
    taps, stride, padding, dilation, positions : tuple of int
        For both axes; positions are those of the patches.
    """

    source: View
    taps: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    positions: tuple[int, ...]


def dense_strides(shape: Sequence[int], itemsize: int, order: Sequence[int] | None = None) -> tuple[int, ...]:
    """The strides of an array without gaps. order: its axes from the outermost to the innermost."""
    strides = [0] * len(shape)
    stride = itemsize
    for axis in reversed(range(len(shape)) if order is None else order):
        strides[axis] = stride
        stride *= shape[axis]
    return tuple(strides)


def _same_strides(shape: Sequence[int], a: Sequence[int], b: Sequence[int]) -> bool:
    return all(size == 1 or x == y for size, x, y in zip(shape, a, b, strict=True))


def _reshaped(
    shape: tuple[int, ...], strides: tuple[int, ...], new: tuple[int, ...], itemsize: int
) -> tuple[int, ...] | None:
    """The strides of a view of another shape, or None."""
    if math.prod(new) == 0:
        return dense_strides(new, itemsize)
    old = [(size, stride) for size, stride in zip(shape, strides, strict=True) if size != 1]
    # Axes that lie together, from the outermost to the innermost: [size, stride of the innermost].
    groups: list[list[int]] = []
    for size, stride in old:
        if groups and groups[-1][1] == size * stride:
            groups[-1] = [groups[-1][0] * size, stride]
        else:
            groups.append([size, stride])
    result = [0] * len(new)
    group = len(groups) - 1
    filled = 1
    for axis in reversed(range(len(new))):
        size = new[axis]
        if size == 1:
            result[axis] = 0
            continue
        if group < 0 or filled * size > groups[group][0] or groups[group][0] % (filled * size):
            return None
        result[axis] = groups[group][1] * filled
        filled *= size
        if filled == groups[group][0]:
            group, filled = group - 1, 1
    return tuple(result)


def is_constant(value: Any) -> bool:
    """Whether a value is an array that never changes."""
    return isinstance(value, View) and value.is_constant
