"""Runs the chunks of a program: plans for them, made once and kept, and the states between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastrnn.arrays import Array
from fastrnn.errors import brief, message, quote
from fastrnn.graph import Input
from fastrnn.program.plans import Plan, make_plan
from fastrnn.program.streaming.chunks import WHOLE, Chunk, ChunkGraph, Signature, StateForm, length_of
from fastrnn.program.streaming.follow import Followed
from fastrnn.program.streaming.sizes import forms_at, shape_at

if TYPE_CHECKING:
    from fastrnn.program.program import Program

PLANS_KEPT = 64
# Pairs of numbers of steps at which a graph is looked at, most divisible ones first.
STEPS = ((336, 528), (5040, 7920), (337, 541))
# The size of axes of which nothing is known yet.
ROWS = 24


class Carried(NamedTuple):
    """What a stream keeps between chunks.

    Attributes
    ----------
    signature : Signature
    arrays : tuple of ndarray
        In the order of the signature.
    """

    signature: Signature
    arrays: tuple[Array, ...]


class Result(NamedTuple):
    """A result of a chunk: None if there is none yet."""

    array: Array | None
    steps: int


class PlannedChunk(NamedTuple):
    chunk: ChunkGraph
    plan: Plan | None


class Session:
    """How a program runs over the chunks of sequences, at given sizes of all other axes.

    Attributes
    ----------
    inputs : tuple of Input
        What a chunk is given.
    results : Any
        How the results are nested.
    time : str or None
        The name of the size that is time.
    lag : int
        By how many steps results come later than they would at the end of a sequence.
    looks_ahead : tuple of str
        The operators that look ahead, with their lines.
    """

    inputs: tuple[Input, ...]
    results: Any
    time: str | None
    lag: int
    looks_ahead: tuple[str, ...]

    def begin(self, arrays: Sequence[Array] | None) -> Carried | None:
        """Return the states before the first chunk. arrays: the inputs, of any number of steps.

        None: they depend on inputs, and none were given.
        """
        raise NotImplementedError

    def run(
        self, kind: str, steps: int, carried: Carried, arrays: Sequence[Array]
    ) -> tuple[list[Result], Carried]:
        """Return the results of a chunk, and the states after it. kind: "next" or "last"."""
        raise NotImplementedError

    def time_axis(self, index: int) -> int | None:
        """The axis of a result in which its steps lie."""
        raise NotImplementedError

    def step_axis(self, index: int) -> int | None:
        """The same, if nothing but one step for each step of the inputs lies there."""
        raise NotImplementedError

    # ------------------------------------------------------------ states as users see them

    def shown(self, carried: Carried) -> dict[str, Array]:
        """A copy of the states, by name."""
        arrays = {
            key: array.copy()
            for (key, _), array in zip(carried.signature.arrays, carried.arrays, strict=True)
        }
        return {**arrays, **{key: np.array(number) for key, number in carried.signature.numbers}}

    def read(self, where: str, state: Any) -> Carried:
        """The states that `shown` gave."""
        raise NotImplementedError


class FollowedSession(Session):
    """A program over whole sequences, whose states were found by following time."""

    def __init__(self, where: str, program: Program, time: str, sizes: Mapping[str, int]) -> None:
        self._graph, self._tools = program._planned, program._tools
        self.time, self.inputs, self.results = time, program._planned.inputs, program.spec.results
        self._sizes = dict(sizes)
        self.followed = follow(where, program, time, sizes)
        self._states: dict[str, StateForm] = {}
        self._plans: dict[Any, PlannedChunk] = {}
        first = self._write("first", 0, Signature())
        self._needs_arguments = any(kind == "argument" for kind, _ in first.sources)
        counts = self.followed.counts
        many = self._write("next", counts[0], first.after)
        self._usual = [key for key, _ in many.after.arrays] or ["nothing"]
        self._numbers = {key for chunk in (first, many) for key, _ in chunk.after.numbers}
        late = [0]
        for name, result in zip(self._graph.outputs, many.results, strict=True):
            if name in self.followed.places:
                rate, more = length_of(self.followed, name)
                late.append(int(rate * counts[0] + more) - result.steps)
        self.lag = max(late)
        self.looks_ahead = tuple(
            f"{action.node.operator} looks {action.ahead} ahead"
            f"{f' at {action.node.where}' if action.node.where else ''}"
            for action in self.followed.actions
            if self.lag and getattr(action, "ahead", 0)
        )

    def begin(self, arrays: Sequence[Array] | None) -> Carried | None:
        if arrays is None and self._needs_arguments:
            return None
        planned = self._planned("first", 0, Signature())
        return self._run(planned, (), arrays or ())[1]

    def run(
        self, kind: str, steps: int, carried: Carried, arrays: Sequence[Array]
    ) -> tuple[list[Result], Carried]:
        planned = self._planned(kind, steps, carried.signature)
        return self._run(planned, carried.arrays, arrays)

    def time_axis(self, index: int) -> int | None:
        place = self.followed.places.get(self._graph.outputs[index])
        return None if place is None else place.axis

    def step_axis(self, index: int) -> int | None:
        name = self._graph.outputs[index]
        place = self.followed.places.get(name)
        if place is None or not (place.is_alone or place.is_filled) or length_of(self.followed, name)[0] != 1:
            return None
        return place.axis

    def state_forms(self) -> Mapping[str, StateForm]:
        return self._states

    def _run(
        self, planned: PlannedChunk, states: Sequence[Array], arrays: Sequence[Array]
    ) -> tuple[list[Result], Carried]:
        chunk, plan = planned
        kinds: dict[str, Any] = {"argument": arrays, "state": states}
        given = [what if kind == "given" else kinds[kind][what] for kind, what in chunk.sources]
        made = [] if plan is None else plan.run(given)
        results = []
        for name, (index, count) in zip(self._graph.outputs, chunk.results, strict=True):
            place = self.followed.places.get(name)
            if index is None and place is not None:
                dtype, shape = self.followed.first[name]
                results.append(Result(np.empty(place.shaped(shape, 0), dtype), 0))
            else:
                results.append(Result(None if index is None else made[index], count))
        first = len(made) - len(chunk.after.arrays)
        after = tuple(np.ascontiguousarray(array) for array in made[first:])
        return results, Carried(chunk.after, after)

    # ------------------------------------------------------------ plans

    def _write(self, kind: str, steps: int, signature: Signature) -> ChunkGraph:
        return Chunk(self.followed, kind, steps, signature, self._states).write()

    def _planned(self, kind: str, steps: int, signature: Signature) -> PlannedChunk:
        key = kind, steps, signature
        # The one used last goes last. Threads that come here at once may make a plan twice.
        planned = self._plans.pop(key, None)
        if planned is None:
            chunk = self._write(kind, steps, signature)
            planned = PlannedChunk(chunk, self._plan(chunk) if chunk.graph.outputs else None)
        self._plans[key] = planned
        for old in list(self._plans)[: max(len(self._plans) - PLANS_KEPT, 0)]:
            self._plans.pop(old, None)
        return planned

    def _plan(self, chunk: ChunkGraph) -> Plan:
        graph = chunk.graph
        plan = make_plan(graph, self._tools, chunk.shapes, {})
        # What the next chunk reads has the sizes that its graph will be written for.
        states = plan.results[len(graph.outputs) - len(chunk.after.arrays) :]
        for (key, count), result in zip(chunk.after.arrays, states, strict=True):
            if result.shape != self._states[key].shape(count):
                raise AssertionError(f"{key} of {count} steps has shape {result.shape}")
        for name, (index, count) in zip(self._graph.outputs, chunk.results, strict=True):
            place = self.followed.places.get(name)
            if index is not None and place is not None:
                place = place._replace(is_filled=False)
                wanted = place.shaped(self.followed.first[name].shape, count)
                if plan.results[index].shape != wanted:
                    raise AssertionError(f"{name} of {count} steps has shape {plan.results[index].shape}")
        return plan

    # ------------------------------------------------------------ states as users see them

    def read(self, where: str, state: Any) -> Carried:
        if not isinstance(state, Mapping):
            raise TypeError(message(where, "a state as it was read", brief(state)))
        arrays, kept, numbers = [], [], []
        for key, value in state.items():
            form = self._states.get(key)
            array = np.asarray(value)
            if form is None:
                if key not in self._numbers or array.shape or array.dtype.kind not in "iu":
                    raise ValueError(message(where, f"a state of {quote(self._usual)}", f'"{key}"'))
                numbers.append((key, int(array)))
                continue
            count = WHOLE
            if form.place is not None and array.ndim == len(form.form.shape):
                count = form.place.steps(array.shape)
            wanted = form.shape(count)
            if array.shape != wanted or array.dtype != form.form.dtype or count == 0:
                expected = f"{key} of {form.form.dtype} and shape {wanted}"
                raise ValueError(message(where, expected, f"{array.dtype} of shape {array.shape}"))
            kept.append((key, count))
            arrays.append(np.array(array, order="C"))
        missing = [key for key, form in self._states.items() if form.place is None and key not in state]
        if missing:
            raise ValueError(message(where, f"a state of {quote(self._usual)}", f'none for "{missing[0]}"'))
        return Carried(Signature(tuple(kept), tuple(numbers)), tuple(arrays))


class DeclaredSession(Session):
    """A program that says which of its results are the next call's arguments: each chunk is a call."""

    def __init__(self, program: Program, sizes: Mapping[str, int]) -> None:
        graph = program.graph
        self._program = program
        self._links = {link.input: link for link in graph.states}
        self.inputs = tuple(form for form in graph.inputs if form.name not in self._links)
        self._states = [form for form in graph.inputs if form.name in self._links]
        outputs = [link.output for link in graph.states]
        self._shown = [index for index, name in enumerate(graph.outputs) if name not in outputs]
        structure = without(program.spec.results, {i: k for k, i in enumerate(self._shown)})
        self.results = {"tuple": []} if structure is None else structure
        self._sizes = dict(sizes)
        self.time, self.lag, self.looks_ahead = None, 0, ()
        self._signature = Signature(tuple((form.name, WHOLE) for form in self._states))

    def begin(self, arrays: Sequence[Array] | None) -> Carried | None:
        states = []
        for form in self._states:
            initial = self._links[form.name].initial
            shape = shape_at(form.shape, self._sizes)
            first = 0 if initial is None else self._program.graph.constants[initial]
            states.append(np.array(np.broadcast_to(first, shape), form.dtype, order="C"))
        return Carried(self._signature, tuple(states))

    def run(
        self, kind: str, steps: int, carried: Carried, arrays: Sequence[Array]
    ) -> tuple[list[Result], Carried]:
        if kind == "last":
            return [Result(None, 0) for _ in self._shown], carried
        graph = self._program.graph
        values = dict(zip((form.name for form in self.inputs), arrays, strict=True))
        values.update(zip((form.name for form in self._states), carried.arrays, strict=True))
        made = self._program.run([values[form.name] for form in graph.inputs])
        outputs, after = made[: len(graph.outputs)], made[len(graph.outputs) :]
        following = dict(zip((link.input for link in graph.states), after, strict=True))
        states = []
        for form, before in zip(self._states, carried.arrays, strict=True):
            array = np.ascontiguousarray(following[form.name])
            if array.shape != before.shape or array.dtype != before.dtype:
                hint = "A state keeps its shape from call to call."
                got = f"{array.dtype} of shape {array.shape}"
                where = "ProgramStream"
                raise ValueError(
                    message(where, f"{form.name} of {before.dtype} and shape {before.shape}", got, hint)
                )
            states.append(array)
        results = [Result(np.array(outputs[index], order="C"), 0) for index in self._shown]
        return results, Carried(carried.signature, tuple(states))

    def time_axis(self, index: int) -> int | None:
        return None

    def step_axis(self, index: int) -> int | None:
        return None

    def read(self, where: str, state: Any) -> Carried:
        names = [form.name for form in self._states]
        if not isinstance(state, Mapping) or set(state) != set(names):
            got = quote(map(str, state)) if isinstance(state, Mapping) and state else brief(state)
            raise ValueError(message(where, f"a state of {quote(names)}", got))
        arrays = []
        for form in self._states:
            array = np.asarray(state[form.name])
            wanted = shape_at(form.shape, self._sizes)
            if array.shape != wanted or not np.can_cast(array.dtype, form.dtype, "same_kind"):
                expected = f"{form.name} of {form.dtype} and shape {wanted}"
                raise ValueError(message(where, expected, f"{array.dtype} of shape {array.shape}"))
            arrays.append(np.array(array, form.dtype, order="C"))
        return Carried(self._signature, tuple(arrays))


def session_of(where: str, program: Program, time: str | None, sizes: Mapping[str, int]) -> Session:
    """Return how a program runs over chunks at given sizes; made once for all streams of the program."""
    key = time, tuple(sorted(sizes.items()))
    made: Session | None = program._sessions.get(key)
    if made is None:
        if time is None:
            made = DeclaredSession(program, sizes)
        else:
            made = FollowedSession(where, program, time, sizes)
        program._sessions[key] = made
        while len(program._sessions) > PLANS_KEPT:
            program._sessions.popitem(last=False)
    return made


# ---------------------------------------------------------------- which size is time


def follow(
    where: str, program: Program, name: str, sizes: Mapping[str, int], only_rows: bool = False
) -> Followed:
    """Follow a size of a program, at these sizes of the others."""
    graph = program._planned
    if program._largest:
        got = f"rows of several lengths, by the numbers in {program._largest[0]}"
        raise ValueError(message(where, "operators that go step by step in time", got))
    problem: ValueError | None = None
    for counts in STEPS if not only_rows else ((2, 5), (4, 6)):
        try:
            first, second = (forms_at(graph, program._tools, {**sizes, name: count}) for count in counts)
        except ValueError as error:
            problem = problem or error
            continue
        return Followed(where, graph, name, first, second, only_rows)
    raise ValueError(
        message(where, f"a program that runs at many sizes {name}", "one that does not", f"{problem}")
    )


def names_of_sizes(program: Program) -> list[str]:
    """The names of sizes that may change."""
    sizes = (size for form in program.graph.inputs for size in form.shape)
    return list(dict.fromkeys(size for size in sizes if isinstance(size, str)))


def find_time(where: str, program: Program, time: str | None) -> str | None:
    """The name of the size that is time; None: the program's states are declared.

    If it is not given, it is the one along which operators look at more than one step.
    """
    names = names_of_sizes(program)
    if time is not None:
        if time not in names:
            expected = (
                f"time to be one of {quote(names)}" if names else "a program with sizes that may change"
            )
            raise ValueError(message(where, expected, brief(time), "export(dynamic=...) names sizes."))
        if program.graph.states:
            hint = "Its stream carries these."
            raise ValueError(message(where, "a program without declared states", "one that has some", hint))
        return time
    if program.graph.states:
        return None
    if not names:
        hint = "export(dynamic=...) names the sizes that may change."
        raise ValueError(message(where, "a program with a size that is time", "one of fixed sizes", hint))
    if program._times is None:
        program._times = _times(where, program, names)
    found = program._times
    if len(found) == 1:
        return found[0]
    likely = "T" if "T" in (found or names) else (found or names)[-1]
    got = "none along which operators look at several steps"
    if found:
        got = f"{quote(found)}, any of which may be it"
    raise ValueError(message(where, "to know which size is time", got, f'time="{likely}" says it.'))


def _times(where: str, program: Program, names: Sequence[str]) -> list[str]:
    """The sizes along which operators look at several places: those that may be time, if any may."""
    found = [name for name in names if _looks_along(where, program, name, names)]
    if len(found) < 2:
        return found
    errors: dict[str, ValueError] = {}
    for name in found:
        try:
            follow(where, program, name, {other: ROWS for other in names if other != name})
        except ValueError as error:
            errors[name] = error
    if len(errors) == len(found):
        raise errors["T" if "T" in errors else found[-1]]
    return [name for name in found if name not in errors]


def _looks_along(where: str, program: Program, name: str, names: Sequence[str]) -> bool:
    """Whether an operator looks at several places along a size, at small and at large sizes of the others."""
    for others in (24, 360):
        try:
            follow(where, program, name, {other: others for other in names if other != name}, only_rows=True)
        except ValueError:
            continue
        return False
    return True


# ---------------------------------------------------------------- results without states


def without(structure: Any, kept: Mapping[int, int]) -> Any:
    """A structure with these arrays alone, renumbered; None if nothing is left.

    A tuple or list of which one part is left becomes this part.
    """
    ((kind, content),) = structure.items()
    if kind == "array":
        return {"array": kept[content]} if content in kept else None
    if kind == "constant":
        return structure
    if kind == "dict":
        named = {key: without(part, kept) for key, part in content.items()}
        named = {key: part for key, part in named.items() if part is not None}
        return {"dict": named} if named else None
    own = content[1] if kind == "named" else content
    parts = [part for part in (without(part, kept) for part in own) if part is not None]
    if len(parts) == len(own):
        return {kind: [content[0], parts] if kind == "named" else parts}
    return None if not parts else parts[0] if len(parts) == 1 else {"tuple": parts}
