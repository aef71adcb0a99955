"""ProgramPool: many live sequences that a program runs over, stepped as one batch."""

from __future__ import annotations

import operator
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastrnn.arrays import Array
from fastrnn.checks import check_chunks, check_positive
from fastrnn.errors import message
from fastrnn.program.streaming.arguments import Arguments
from fastrnn.program.streaming.batches import Rows, apart, taken, together
from fastrnn.program.streaming.chunks import Signature
from fastrnn.program.streaming.places import Place
from fastrnn.program.streaming.sessions import Carried, Result, find_time, session_of
from fastrnn.program.streaming.stream import batch_name
from fastrnn.streaming.errors import torn_pool, wrong_id, wrong_ids
from fastrnn.structure import rebuild

if TYPE_CHECKING:
    from fastrnn.program.program import Program


class Shelf:
    """The states of streams that have states of the same sizes.

    Parameters
    ----------
    arrays : sequence of ndarray
        The states of one stream.
    places : list of Place
        Where its row is in each.
    capacity : int
    """

    def __init__(self, arrays: Sequence[Array], places: Sequence[Place], capacity: int) -> None:
        self.places, self.capacity = list(places), capacity
        self._arrays = [np.empty((capacity, *array.shape), array.dtype) for array in arrays]
        self._free = list(range(capacity))[::-1]

    def add(self) -> int:
        """Return a slot that nobody uses. A full shelf doubles."""
        if not self._free:
            arrays = [np.concatenate([array, np.empty_like(array)]) for array in self._arrays]
            self._free = list(range(self.capacity, 2 * self.capacity))[::-1]
            self._arrays, self.capacity = arrays, 2 * self.capacity
        return self._free.pop()

    def remove(self, slot: int) -> None:
        self._free.append(slot)

    def read(self, slots: Sequence[int]) -> tuple[Array, ...]:
        """The states of these slots as those of one batch."""
        return tuple(
            together(array.take(slots, 0), place)
            for array, place in zip(self._arrays, self.places, strict=True)
        )

    def write(self, slots: Sequence[int], rows: Sequence[Array]) -> None:
        """Set the states of these slots. rows: (n, ...) for each state, as `apart` gives them."""
        for array, own in zip(self._arrays, rows, strict=True):
            array[slots] = own


class Group(NamedTuple):
    """Streams that are stepped together: their places among the ids of a call."""

    signature: Signature
    steps: int
    members: list[int]


class Done(NamedTuple):
    """What a group's chunk gave.

    Attributes
    ----------
    group : Group
    results : list of Result
        As (n, ...), with one row in each, where they have rows.
    result_places : list of Place or None
        Where the rows were in them. None: they have none.
    signature : Signature
    rows : list of ndarray
        The states, as (n, ...).
    places : list of Place
    """

    group: Group
    results: list[Result]
    result_places: list[Place | None]
    signature: Signature
    rows: list[Array]
    places: list[Place]


class ProgramPool:
    """Many live sequences, each with its own state. Any of them can be stepped as one batch.

    ``program.pool()`` makes one, if one size of the program counts rows that no operator mixes. A stream's
    results have the same bits as in a `ProgramStream`, whichever streams it is stepped with (with the
    ``blas`` backend they are the same up to rounding). Threads may share a pool: their calls take turns. A
    call that raises leaves every stream as it was.

    Parameters
    ----------
    program : Program
    capacity : int
        The number of streams that fit before the memory grows.
    time : str, optional
        As for a `ProgramStream`.

    Attributes
    ----------
    program : Program
    time : str or None

    Raises
    ------
    ValueError
        An operator needs the whole sequence or mixes rows, which the message names. Or several sizes may be
        time, or may count rows. Or ``capacity`` is below 1.
    TypeError
        ``capacity`` is not an integer.

    Examples
    --------
    >>> pool = program.pool()
    >>> ann, bob = pool.open(), pool.open()
    >>> Y = pool.step([bob, ann], X)  # X[0] is bob's
    >>> state = pool.close(ann)
    """

    def __init__(self, program: Program, capacity: int = 256, time: str | None = None) -> None:
        self.program = program
        self._capacity = check_positive("pool", "capacity", capacity)
        self.time = find_time("pool", program, time)
        self._batch = batch_name("pool", program, self.time)
        for form in program.graph.inputs:
            is_state = any(link.input == form.name for link in program.graph.states)
            others = [size for size in form.shape if isinstance(size, str) and size != self._batch]
            if is_state and others:
                hint = "stream() makes one for each sequence."
                got = f"{others[0]} in {form.name}"
                raise ValueError(message("pool", "states of known sizes but for rows", got, hint))
        self._one = session_of("pool", program, self.time, {self._batch: 1})
        self._rows = Rows("pool", program, self._batch, self.time, self._one)
        self._arguments = Arguments("ProgramPool", program, self._one.inputs)
        first = self._one.begin(None)
        if first is None:
            hint = "stream() makes one for each sequence."
            raise ValueError(message("pool", "first states that depend on no argument", "others", hint))
        self._first = first
        self._shelves: dict[Signature, Shelf] = {}
        self._open: dict[int, tuple[Signature, int]] = {}
        self._next = 0
        self._lock, self._process, self._is_torn = threading.Lock(), os.getpid(), False
        self._apart(first, 1)  # refuses states without rows now

    def __repr__(self) -> str:
        return f"ProgramPool({self.program!r}), {len(self)} open"

    def __len__(self) -> int:
        return len(self._open)

    def __contains__(self, id: object) -> bool:
        """Return whether a stream with this id is open."""
        return id in self._open

    @property
    def capacity(self) -> int:
        """The number of streams that fit now. ``len(pool)`` is the number of open streams."""
        return self._capacity

    @property
    def lag(self) -> int:
        """As that of a `ProgramStream`."""
        return self._one.lag

    def ids(self) -> list[int]:
        """Return the ids of all open streams, as a list of int."""
        with self._turn():
            return list(self._open)

    def open(self, state: Mapping[str, Array] | None = None) -> int:
        """Open a stream, and return its id.

        Parameters
        ----------
        state : dict of str to array, optional
            The initial state, as `state` or ``ProgramStream.state`` of one row gave it.

        Raises
        ------
        ValueError
            It has another name, shape or type.
        TypeError
            It is no dict.
        """
        with self._turn():
            carried = self._first if state is None else self._one.read("ProgramPool.open", state)
            rows, places = self._apart(carried, 1)
            with self._changing():
                while len(self._open) >= self._capacity:
                    self._capacity *= 2
                id, self._next = self._next, self._next + 1
                self._place(id, carried.signature, places, rows, 0)
            return id

    def close(self, id: int) -> dict[str, Array]:
        """Close a stream, and return its state as `state` does. Its id is never used again.

        Raises
        ------
        ValueError
            No open stream has this id.
        TypeError
            ``id`` is not an integer.
        """
        with self._turn():
            (own,) = self._checked("close", [id])
            state = self._state(own)
            with self._changing():
                self._remove(own)
            return state

    def state(self, id: int) -> dict[str, Array]:
        """Return a copy of a stream's state, as ``ProgramStream.state`` of one row gives it.

        Raises
        ------
        ValueError
            No open stream has this id.
        TypeError
            ``id`` is not an integer.
        """
        with self._turn():
            (own,) = self._checked("state", [id])
            return self._state(own)

    def reset(self, ids: Iterable[int]) -> None:
        """Let these streams begin new sequences. They keep their ids.

        Raises
        ------
        ValueError
            An id is unknown, closed or given twice.
        TypeError
            ``ids`` does not hold integers.
        """
        with self._turn():
            rows, places = self._apart(self._first, 1)
            with self._changing():
                for id in self._checked("reset", ids):
                    self._remove(id)
                    self._place(id, self._first.signature, places, rows, 0)

    def step(self, ids: Iterable[int], *args: Any, **kwargs: Any) -> Any:
        """Take one step in each of these streams.

        Parameters
        ----------
        ids : sequence of int
            Ids of open streams, each at most once, in any order.
        args, kwargs
            As for ``ProgramStream.step``, with a row for each id.

        Returns
        -------
        object
            As from ``ProgramStream.step``, with a row for each id.

        Raises
        ------
        ValueError
            An id is unknown, closed or given twice, or the shape of an array does not fit. Or results come
            late, or not at each step: `run` is for such programs.
        TypeError
            ``ids`` does not hold integers, or an argument is of another type.
        """
        with self._turn():
            ids = self._checked("step", ids)
            arrays, _ = self._arguments.read(args, kwargs, {self._batch: len(ids)}, self.time)
            if not ids:
                raise ValueError(message("ProgramPool.step", "ids of open streams", "none"))
            done = [
                self._run(group, [ids[member] for member in group.members], arrays, group.members)
                for group in self._groups(ids, [1] * len(ids))
            ]
            made = rebuild(
                self._one.results, [self._joined(done, index, len(ids)) for index in range(self._count)]
            )
            self._commit(ids, done)
            return made

    def run(self, ids: Iterable[int], chunks: Iterable[Any]) -> list[Any]:
        """Take several steps in each of these streams, in one call.

        Parameters
        ----------
        ids : sequence of int
            Ids of open streams, each at most once, in any order.
        chunks : sequence
            For each id what ``ProgramStream.run`` takes for one row: an array with one row, or a tuple of
            the arguments if there are several. They may have different numbers of steps.

        Returns
        -------
        list
            For each id what ``ProgramStream.run`` returns.

        Raises
        ------
        ValueError, TypeError
            As in `step`.
        """
        with self._turn():
            ids = self._checked("run", ids)
            read = [
                self._arguments.read(chunk if isinstance(chunk, tuple) else (chunk,), {}, {self._batch: 1})
                for chunk in check_chunks("ProgramPool.run", chunks, len(ids))
            ]
            steps = [sizes[self.time] if self.time is not None else 1 for _, sizes in read]
            done, results = [], [None] * len(ids)
            for group in self._groups(ids, steps):
                own = [read[member][0] for member in group.members]
                arrays = [
                    self._side_by_side(index, parts) for index, parts in enumerate(zip(*own, strict=True))
                ]
                one = self._run(group, [ids[member] for member in group.members], arrays, range(len(own)))
                done.append(one)
                for row, member in enumerate(group.members):
                    leaves = [
                        result.array
                        if result.array is None or place is None
                        else together(result.array[row : row + 1], place)
                        for result, place in zip(one.results, one.result_places, strict=True)
                    ]
                    results[member] = rebuild(self._one.results, leaves)
            self._commit(ids, done)
            return results

    def finish(self, id: int) -> Any:
        """End the sequence of a stream, and return the results that windows held back. It begins a new one.

        Raises
        ------
        ValueError
            No open stream has this id.
        TypeError
            ``id`` is not an integer.
        """
        with self._turn():
            (own,) = self._checked("finish", [id])
            signature, slot = self._open[own]
            carried = Carried(signature, self._shelves[signature].read([slot]))
            given = [np.empty(0)] * len(self._one.inputs)
            results, _ = self._one.run("last", 0, carried, given)
            rows, places = self._apart(self._first, 1)
            with self._changing():
                self._remove(own)
                self._place(own, self._first.signature, places, rows, 0)
            return rebuild(self._one.results, [result.array for result in results])

    # ------------------------------------------------------------ groups

    @property
    def _count(self) -> int:
        return self._rows.outputs

    def _groups(self, ids: Sequence[int], steps: Sequence[int]) -> list[Group]:
        """Streams with states of the same sizes that take as many steps."""
        groups: dict[tuple[Signature, int], list[int]] = {}
        for member, (id, count) in enumerate(zip(ids, steps, strict=True)):
            groups.setdefault((self._open[id][0], count), []).append(member)
        return [Group(signature, count, members) for (signature, count), members in groups.items()]

    def _run(self, group: Group, ids: Sequence[int], arrays: Sequence[Array], members: Sequence[int]) -> Done:
        """Run a chunk of a group. members: its rows in the arrays."""
        count = len(ids)
        # Few sizes of batches, so that few plans are made: the rows beyond are the first one again.
        more = batch_size(count) - count
        slots = [self._open[id][1] for id in ids]
        slots += slots[:1] * more
        rows = [*members, *list(members)[:1] * more]
        session = session_of("pool", self.program, self.time, {self._batch: len(rows)})
        given = [taken(array, place, rows) for array, place in zip(arrays, self._rows.inputs, strict=True)]
        carried = Carried(group.signature, self._shelves[group.signature].read(slots))
        results, after = session.run("next", group.steps, carried, given)
        cut, own_places = [], []
        for index, result in enumerate(results):
            place = None
            if result.array is not None:
                place = self._rows.output_place(index, result.array.shape, len(rows))
                if place is not None:
                    result = result._replace(array=apart(result.array, place, len(rows))[:count])
            cut.append(result)
            own_places.append(place)
        states, places = self._apart(after, len(rows))
        return Done(group, cut, own_places, after.signature, [array[:count] for array in states], places)

    def _commit(self, ids: Sequence[int], done: Sequence[Done]) -> None:
        """Make what chunks changed the streams' states."""
        with self._changing():
            for one in done:
                own = [ids[member] for member in one.group.members]
                if one.signature == one.group.signature:
                    self._shelves[one.signature].write([self._open[id][1] for id in own], one.rows)
                    continue
                for row, id in enumerate(own):
                    self._remove(id)
                    self._place(id, one.signature, one.places, one.rows, row)

    # ------------------------------------------------------------ rows of results and arguments

    def _side_by_side(self, index: int, parts: Sequence[Array]) -> Array:
        """An argument of several streams as one of a batch."""
        place = self._rows.inputs[index]
        if place is not None:
            return np.concatenate(parts, place.axis)
        if any(not np.array_equal(part, parts[0], equal_nan=part.dtype.kind == "f") for part in parts):
            name = self._one.inputs[index].name
            raise ValueError(
                message("ProgramPool.run", f"one {name} for all streams, which has no rows", "several")
            )
        return parts[0]

    def _joined(self, done: Sequence[Done], index: int, count: int) -> Array | None:
        """A result of one step of all streams."""
        axis, place = self._one.step_axis(index), done[0].result_places[index]
        first = done[0].results[index]
        counts = {one.results[index].steps for one in done}
        if len(counts) > 1 or (axis is not None and counts != {1}):
            got = "results that come late, or several at once"
            raise ValueError(message("ProgramPool.step", "one result for each step", got, "Use run()."))
        if first.array is None:
            return None
        if place is None:
            return first.array if axis is None else _without(first.array, axis)
        whole = np.empty((count, *first.array.shape[1:]), first.array.dtype)
        for one in done:
            array = one.results[index].array
            assert array is not None
            whole[one.group.members] = array
        made = together(whole, place)
        return made if axis is None else _without(made, axis)

    # ------------------------------------------------------------ states

    def _apart(self, carried: Carried, count: int) -> tuple[list[Array], list[Place]]:
        """The states of a batch as (n, ...), and where the rows were in each."""
        places = [
            self._rows.state_place(key, array.shape, count)
            for (key, _), array in zip(carried.signature.arrays, carried.arrays, strict=True)
        ]
        rows = [apart(array, place, count) for array, place in zip(carried.arrays, places, strict=True)]
        return rows, places

    def _place(
        self, id: int, signature: Signature, places: Sequence[Place], rows: Sequence[Array], row: int
    ) -> None:
        shelf = self._shelves.get(signature)
        if shelf is None:
            # Most streams are where a stream begins, or where it goes on for long; few are between.
            capacity = self._capacity if signature == self._first.signature else 16
            shelf = Shelf([array[0] for array in rows], places, capacity)
            self._shelves[signature] = shelf
        slot = shelf.add()
        shelf.write([slot], [array[row : row + 1] for array in rows])
        self._open[id] = signature, slot

    def _remove(self, id: int) -> None:
        signature, slot = self._open.pop(id)
        self._shelves[signature].remove(slot)

    def _state(self, id: int) -> dict[str, Array]:
        signature, slot = self._open[id]
        return self._one.shown(Carried(signature, self._shelves[signature].read([slot])))

    # ------------------------------------------------------------ checks

    def _checked(self, method: str, ids: Iterable[int]) -> list[int]:
        where = f"ProgramPool.{method}"
        if isinstance(ids, (set, frozenset, Mapping, np.ma.MaskedArray)) or not isinstance(ids, Iterable):
            raise wrong_ids(where, ids)
        listed = []
        for index, id in enumerate(ids):
            try:
                own = operator.index(id)
            except TypeError:
                raise wrong_ids(where, ids, index) from None
            if isinstance(id, (bool, np.bool_)):
                raise wrong_ids(where, ids, index)
            if own not in self._open or own in listed:
                raise wrong_id(where, own, index, own in listed, 0 <= own < self._next)
            listed.append(own)
        return listed

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Let one thread in at a time."""
        if self._process != os.getpid():
            if self._is_torn:
                raise torn_pool("ProgramPool")
            self._lock, self._process = threading.Lock(), os.getpid()
        with self._lock:
            yield

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """States are half changed meanwhile: a fork would leave them so in the child."""
        self._is_torn = True
        yield
        self._is_torn = False


def batch_size(count: int) -> int:
    """How many rows are stepped for this many streams: at most an eighth more."""
    if count <= 8:
        return count
    unit = 1 << (count.bit_length() - 4)
    return -(-count // unit) * unit


def _without(array: Array, axis: int) -> Array:
    """An array without an axis of one."""
    return array.reshape(array.shape[:axis] + array.shape[axis + 1 :])
