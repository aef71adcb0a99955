"""Where the rows of a batch are in the arrays of a program: those of many streams become one batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fastrnn.arrays import Array
from fastrnn.errors import message
from fastrnn.program.streaming.places import Place
from fastrnn.program.streaming.sessions import ROWS, STEPS, FollowedSession, Session, follow

if TYPE_CHECKING:
    from fastrnn.program.program import Program


class Rows:
    """Puts states and arguments of one row together as a batch, and takes them apart.

    Parameters
    ----------
    where : str
        Who asks, for messages.
    program : Program
    batch, time : str
        The names of the sizes that count rows and steps. time None: states are declared.
    session : Session
        At one row.

    Raises
    ------
    ValueError
        An operator or state mixes rows, or an input has none.
    """

    def __init__(self, where: str, program: Program, batch: str, time: str | None, session: Session) -> None:
        names = (size for form in program.graph.inputs for size in form.shape if isinstance(size, str))
        sizes = {name: STEPS[0][0] if name == time else ROWS for name in names if name != batch}
        self._followed = follow(where, program, batch, sizes, only_rows=True)
        self._where, self._session, self._time = where, session, time
        graph = program._planned
        self.inputs = [self._followed.places.get(form.name) for form in session.inputs]
        for form, place in zip(session.inputs, self.inputs, strict=True):
            if place is None and time is not None and time in form.shape:
                raise ValueError(message(where, "rows in all inputs that have steps", f"none in {form.name}"))
        states = {link.output for link in graph.states}
        self._outputs = [self._followed.places.get(name) for name in graph.outputs if name not in states]
        self._states: dict[str, Place] = {}
        if time is None:
            for form in graph.inputs:
                if form.name in self._followed.places:
                    self._states[form.name] = self._followed.places[form.name]

    @property
    def outputs(self) -> int:
        """How many results there are."""
        return len(self._outputs)

    def output_place(self, index: int, shape: Sequence[int], count: int) -> Place | None:
        """Where the rows are in a result of ``count`` of them; None: it has none."""
        place = self._outputs[index]
        if place is None:
            return None
        one = shape[place.axis] // count
        if place.is_filled:
            return Place(place.axis, 1, one)
        if place.axis == self._session.time_axis(index):
            place = _beside_steps(place, one)
            if place is None:
                raise ValueError(message(self._where, "rows in all results", f"none in result {index}"))
        return place

    def state_place(self, key: str, shape: Sequence[int], count: int) -> Place:
        """Where the rows are in a state of ``count`` of them."""
        if key in self._states:
            return self._states[key]
        assert isinstance(self._session, FollowedSession)
        form = self._session.state_forms()[key]
        place = self._followed.places.get(form.source)
        if place is not None and form.place is not None and place.axis == form.place.axis:
            place = _beside_steps(place, shape[place.axis] // count)
        elif place is not None and form.axis is not None:
            place = place.at(form.axis)
        if place is None or place.is_same or place.before * count * place.after != shape[place.axis]:
            raise ValueError(message(self._where, "rows in all states", f"none in {key}"))
        return place


def _beside_steps(place: Place, one: int) -> Place | None:
    """Where rows are in an axis of which steps are another part. one: its size with one row."""
    steps = STEPS[0][0]
    is_outside, is_inside = place.before % steps == 0, place.after % steps == 0
    if is_outside == is_inside:
        return None
    if is_inside:
        return Place(place.axis, place.before, one // place.before)
    return Place(place.axis, one // place.after, place.after)


# ---------------------------------------------------------------- together and apart


def together(rows: Array, place: Place) -> Array:
    """Arrays of one row each, (n, *shape), as one of n rows."""
    count, shape = len(rows), rows.shape[1:]
    axis = place.axis
    split = rows.reshape(count, *shape[:axis], place.before, place.after, *shape[axis + 1 :])
    moved = np.moveaxis(split, 0, axis + 1)
    size = place.before * count * place.after
    return np.ascontiguousarray(moved.reshape(*shape[:axis], size, *shape[axis + 1 :]))


def apart(array: Array, place: Place, count: int) -> Array:
    """An array of n rows as (n, *shape), with one row in each."""
    axis, shape = place.axis, array.shape
    split = array.reshape(*shape[:axis], place.before, count, place.after, *shape[axis + 1 :])
    moved = np.moveaxis(split, axis + 1, 0)
    return moved.reshape(count, *shape[:axis], place.before * place.after, *shape[axis + 1 :])


def taken(array: Array, place: Place | None, rows: Sequence[int]) -> Array:
    """Some rows of an array; all of it if it has none."""
    if place is None:
        return array
    return np.ascontiguousarray(np.take(array, rows, axis=place.axis))
