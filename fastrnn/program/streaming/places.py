"""Where the followed axis of a value lies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple


class Place(NamedTuple):
    """Where steps lie in a value.

    The size of the axis is ``before * steps * after``: others may lie in it too, outside and inside of the
    steps, as in an axis of B * T.

    Attributes
    ----------
    axis : int
    before, after : int
    is_same : bool
        All steps are the same. The value is computed with one step, and repeated where it is used.
    is_filled : bool
        All along the axis is the same, whatever lies in it. Its size is then 1.
    """

    axis: int
    before: int = 1
    after: int = 1
    is_same: bool = False
    is_filled: bool = False

    @property
    def is_alone(self) -> bool:
        """Whether nothing but steps lies in the axis."""
        return self.before == self.after == 1

    def at(self, axis: int) -> Place:
        return self._replace(axis=axis)

    def steps(self, shape: Sequence[int]) -> int:
        """How many steps a value of a shape has."""
        return shape[self.axis] // (self.before * self.after)

    def shaped(self, shape: Sequence[int], steps: int) -> tuple[int, ...]:
        """The shape with another number of steps."""
        size = steps if self.is_filled else self.before * steps * self.after
        return (*shape[: self.axis], size, *shape[self.axis + 1 :])

    def opened(self, shape: Sequence[int], steps: int) -> tuple[int, ...]:
        """The shape with an axis of its own for the steps, at ``axis + 1``."""
        return (*shape[: self.axis], self.before, steps, self.after, *shape[self.axis + 1 :])


def changed_axis(first: Sequence[int], second: Sequence[int]) -> int | None:
    """The one axis that differs between two shapes; None: none or several do."""
    axes = [axis for axis, (a, b) in enumerate(zip(first, second, strict=True)) if a != b]
    return axes[0] if len(axes) == 1 else None


class Reshaped(NamedTuple):
    """Where steps are after a reshape, and how many of them became one."""

    place: Place
    joined: int


def reshaped(
    place: Place, old: tuple[Sequence[int], Sequence[int]], new: tuple[Sequence[int], Sequence[int]]
) -> Reshaped | None:
    """Where the steps are after a reshape; None: nowhere as steps.

    Parameters
    ----------
    place : Place
    old, new : pair of shapes
        Before and after, each at two numbers of steps.
    """
    axis = changed_axis(*new)
    if axis is None:
        return None
    outer = math.prod(old[0][: place.axis]) * place.before
    passed = math.prod(new[0][:axis])
    if not outer or not passed or outer % passed:
        return None
    before = outer // passed
    found = set()
    for was, now in zip(old, new, strict=True):
        steps = place.steps(was)
        if now[axis] % before:
            return None
        size = now[axis] // before
        if not size or not steps:
            return None
        if size % steps == 0:
            found.add((size // steps, 1))
        elif steps % size == 0 and before == 1:
            found.add((1, steps // size))
        else:
            return None
    if len(found) != 1:
        return None
    after, joined = found.pop()
    return Reshaped(Place(axis, before, after, place.is_same), joined)
