"""The axes and sizes that operators' arguments name: lowerings and the rules of streams read them alike."""

from __future__ import annotations

from typing import Any


def axis_of(dim: int, ndim: int) -> int:
    """An axis, counted from the front. A 0-d array has one axis here, as in torch."""
    return dim % max(ndim, 1)


def axes_of(dim: Any, ndim: int) -> list[int]:
    """The axes of an argument that names one or several, in their order. None and () are all."""
    if dim is None or dim == () or not ndim:
        return list(range(ndim))
    return sorted({axis_of(d, ndim) for d in listed(dim)})


def listed(value: Any) -> tuple[Any, ...]:
    """An argument that is a number or several, as several."""
    return value if isinstance(value, tuple) else (value,)


def for_each(value: Any, axes: int) -> tuple[Any, ...]:
    """A number for each of these axes. One number is for all."""
    numbers = listed(value)
    return numbers * axes if len(numbers) == 1 else numbers


def swapped(ndim: int, first: int, second: int) -> list[int]:
    """The old axis of each new one, where two change places."""
    axes = list(range(ndim))
    if axes:
        first, second = axis_of(first, ndim), axis_of(second, ndim)
        axes[first], axes[second] = axes[second], axes[first]
    return axes


def moved(ndim: int, source: Any, destination: Any) -> list[int]:
    """The old axis of each new one, where some move elsewhere and the others stay in order."""
    sources, targets = ([axis_of(dim, ndim) for dim in listed(dims)] for dims in (source, destination))
    rest = iter([axis for axis in range(ndim) if axis not in sources])
    places = dict(zip(targets, sources, strict=True))
    return [places[axis] if axis in places else next(rest) for axis in range(ndim)]


def slice_bounds(start: int | None, end: int | None, size: int) -> tuple[int, int]:
    """Where a slice of an axis begins and ends, both in the axis, the end not before the start."""
    first, last = (
        default if at is None else min(max(at + size if at < 0 else at, 0), size)
        for at, default in ((start, 0), (end, size))
    )
    return first, max(last, first)
