"""ProgramStream: a live sequence that a program runs over, chunk by chunk."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fastrnn.arrays import Array
from fastrnn.checks import check_positive
from fastrnn.errors import message, quote
from fastrnn.program.streaming.arguments import Arguments
from fastrnn.program.streaming.sessions import (
    ROWS,
    Carried,
    Result,
    Session,
    find_time,
    names_of_sizes,
    session_of,
)
from fastrnn.streaming.errors import taken_stream
from fastrnn.structure import rebuild

if TYPE_CHECKING:
    from fastrnn.program.program import Program


class ProgramStream:
    """A live sequence. `step` and `run` take its next steps, and it keeps what they need of the steps before.

    ``program.stream()`` makes one. Arrays have the layout that the program's own arguments and results have.
    The results of all chunks, joined along time, are those of the program over the whole sequence, bit for
    bit (with the ``blas`` backend up to rounding).

    A program with declared states (``export(state=...)``, or buffers that the module writes to) is called
    once for each chunk, with the states of the call before. In any other program time is followed through
    all operators: states of recurrent layers and loops over time, and the steps that convolutions, pools and
    other windows look back at, are carried. Where a window looks ahead, its results come later, by `lag`
    steps, and `finish` gives the last ones.

    A call that raises leaves the state as it was. Only one thread at a time may use a stream.

    Parameters
    ----------
    program : Program
    batch_size : int, optional
        How many rows the arrays have. If not given, as many as in the first call.
    time : str, optional
        The name of the size that is time. If not given, it is the one along which operators look at more
        than one step.

    Attributes
    ----------
    program : Program
    time : str or None
        The name of the size that is time. None: the program's states are declared.

    Raises
    ------
    ValueError
        An operator needs the whole sequence, which the message names. Or several sizes may be time, or there
        is no such size. Or ``batch_size`` is below 1, or the program has no rows.
    TypeError
        ``batch_size`` is not an integer.
    """

    def __init__(self, program: Program, batch_size: int | None = None, time: str | None = None) -> None:
        self.program = program
        self.time = find_time("stream", program, time)
        self._fixed_sizes: dict[str, int] = {}
        names = [name for name in names_of_sizes(program) if name != self.time]
        self.batch_size = batch_size
        if batch_size is not None:
            name = batch_name("stream", program, self.time)
            self._fixed_sizes[name] = check_positive("stream", "batch_size", batch_size)
        # At some sizes, to refuse now what cannot be streamed, and to know what is the same at all sizes.
        some = {name: self._fixed_sizes.get(name, ROWS) for name in names}
        self._known: Session = session_of("stream", program, self.time, some)
        self._arguments = Arguments("ProgramStream", program, self._known.inputs)
        self._lock, self._process = threading.Lock(), os.getpid()
        # The sizes that the states depend on.
        states = {link.input for link in program.graph.states}
        shapes = [form.shape for form in program.graph.inputs if form.name in states]
        self._names = [name for name in names if self.time or any(name in shape for shape in shapes)]
        self._sizes: dict[str, int] = {}
        self._session: Session | None = None
        self._carried: Carried | None = None
        self._restart()

    def __repr__(self) -> str:
        return f"ProgramStream({self.program!r}, batch_size={self.batch_size}, time={self.time!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (self.program, self.batch_size, self.time, self._sizes, self.state)

    @property
    def lag(self) -> int:
        """By how many steps results come later than the steps that they belong to.

        That is how far windows look ahead, counted in steps of the results.
        """
        return self._known.lag

    @property
    def looks_ahead(self) -> tuple[str, ...]:
        """The operators that look ahead, by how much, and their lines."""
        return self._known.looks_ahead

    @property
    def state(self) -> dict[str, Array] | None:
        """A copy of what is kept, by name. Assign it to go on from there, in any stream of the program.

        None: nothing is kept yet, since the first call says how many rows there are.

        Raises
        ------
        ValueError
            An assigned state has another name, shape or type.
        TypeError
            An assigned state is no dict.
        """
        with self._alone():
            return None if self._carried is None else self._session.shown(self._carried)  # type: ignore[union-attr]

    @state.setter
    def state(self, state: dict[str, Array] | None) -> None:
        with self._alone():
            if state is None:
                self._restart()
                return
            if self._session is None:
                hint = "batch_size says how many rows there are, as the first call does."
                raise ValueError(
                    message("ProgramStream.state", "a stream whose sizes are known", "another", hint)
                )
            self._carried = self._session.read("ProgramStream.state", state)

    def reset(self) -> None:
        """Begin a new sequence."""
        with self._alone():
            self._restart()

    def step(self, *args: Any, **kwargs: Any) -> Any:
        """Take one step.

        Parameters
        ----------
        args, kwargs
            What the program takes, without the axis that is time. States are left out. If states are
            declared, the arguments of one call.

        Returns
        -------
        object
            The program's results without the axis that is time, nested as they are, and without states. None
            stands for a result that has not come yet. A result that has more or fewer steps than the inputs,
            or other things in one axis with them, keeps this axis.

        Raises
        ------
        ValueError
            The shape of an array does not fit, or the program gives several steps for one.
        TypeError
            The arguments are nested in another way, or an array is of another type.
        RuntimeError
            Another thread is using the stream.
        """
        with self._alone():
            arrays, sizes = self._arguments.read(args, kwargs, self._sizes, self.time)
            results = self._advance(arrays, {**sizes, self.time: 1} if self.time else sizes)
            leaves = [self._one(index, result) for index, result in enumerate(results)]
            made = rebuild(self._known.results, leaves)
            self._commit()
            return made

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """Take the next steps, any number of them.

        Parameters
        ----------
        args, kwargs
            What the program takes, with the next steps along time. States are left out.

        Returns
        -------
        object
            The program's results, nested as they are, and without states: along time as many steps as are
            certain by now. A result without time is that of all steps so far.

        Raises
        ------
        ValueError, TypeError, RuntimeError
            As in `step`.
        """
        with self._alone():
            arrays, sizes = self._arguments.read(args, kwargs, self._sizes)
            results = self._advance(arrays, sizes)
            self._commit()
            return rebuild(self._known.results, [result.array for result in results])

    def finish(self) -> Any:
        """End the sequence, and return the results that windows held back. The stream begins a new one.

        Returns
        -------
        object
            As from `run`. None if nothing was run.
        """
        with self._alone():
            results = None
            if self._last is not None and self._session is not None and self._carried is not None:
                made, _ = self._session.run("last", 0, self._carried, self._last)
                results = rebuild(self._known.results, [result.array for result in made])
            self._restart()
            return results

    # ------------------------------------------------------------ inside

    def _restart(self) -> None:
        self._sizes = dict(self._fixed_sizes)
        self._session, self._carried = None, None
        self._last: list[Array] | None = None
        if all(name in self._sizes for name in self._names):
            self._session = session_of("stream", self.program, self.time, self._sizes)
            self._carried = self._session.begin(None)

    def _advance(self, arrays: list[Array], sizes: dict[str, int]) -> list[Result]:
        """Run a chunk. `_commit` makes what it changed the stream's state."""
        steps = sizes[self.time] if self.time is not None else 1
        sizes = {name: sizes[name] for name in self._names}
        session = self._session
        if session is None:
            session = session_of("stream", self.program, self.time, sizes)
        carried = session.begin(arrays) if self._carried is None else self._carried
        assert carried is not None
        results, after = session.run("next", steps, carried, arrays)
        self._next = session, after, sizes, arrays
        return results

    def _commit(self) -> None:
        self._session, self._carried, self._sizes, self._last = self._next

    def _one(self, index: int, result: Result) -> Array | None:
        """A result of one step."""
        axis = self._known.step_axis(index)
        if result.array is None or axis is None:
            return result.array
        if result.steps > 1:
            raise ValueError(
                message("ProgramStream.step", "one step of results", f"{result.steps}", "Use run().")
            )
        if result.steps == 0:
            return None
        return result.array.reshape(result.array.shape[:axis] + result.array.shape[axis + 1 :])

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other threads out. What is kept is replaced as a whole, so a fork finds it whole."""
        if self._process != os.getpid():
            self._lock, self._process = threading.Lock(), os.getpid()
        lock = self._lock
        if not lock.acquire(blocking=False):
            raise taken_stream("ProgramStream", False)
        try:
            yield
        finally:
            lock.release()


def batch_name(where: str, program: Program, time: str | None) -> str:
    """The name of the size that counts rows: the only one but time, or the one that all states have."""
    names = [name for name in names_of_sizes(program) if name != time]
    states = [
        form for form in program.graph.inputs if form.name in {link.input for link in program.graph.states}
    ]
    if states:
        names = [name for name in names if all(name in form.shape for form in states)]
    if len(names) != 1:
        got = f"{quote(names)}, any of which may be it" if names else "none"
        hint = "export(dynamic=...) names sizes."
        raise ValueError(message(where, "one size that counts rows", got, hint))
    return names[0]


def _restore(
    program: Program, batch_size: int | None, time: str | None, sizes: dict[str, int], state: Any
) -> ProgramStream:
    stream = ProgramStream(program, batch_size, time)
    if state is not None:
        stream._sizes = sizes
        stream._session = session_of("stream", program, stream.time, sizes)
        stream.state = state
    return stream
