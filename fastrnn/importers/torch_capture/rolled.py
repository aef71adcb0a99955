"""A trace with its loops rolled up, and with names in the place of the numbers of records.

The items of rolled traces of one module have the same names at all sizes, so `build` can compare them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from fastrnn.graph import Value
from fastrnn.importers.torch_capture.loops import Repeat
from fastrnn.importers.torch_capture.recorder import Constant, Record, Ref, Refused, Trace

STEPS_KEPT = 4


class Part(NamedTuple):
    """One of the results of an operator that gives as many as a size: the one with this number."""

    source: Any
    dim: int
    number: int


class All(NamedTuple):
    """In a list of values: what every step of a loop gave, stacked."""

    name: str
    is_reversed: bool


class Item(NamedTuple):
    """An operator: its record, with names for values."""

    name: str
    record: Record


class LoopItem(NamedTuple):
    """A loop.

    Attributes
    ----------
    steps : list of (int, list of Item)
        Some of the steps.
    before : dict of str to value
        What the first step takes in the place of a carried value, by its name in the body.
    """

    name: str
    steps: list[tuple[int, list[Item]]]
    total: int
    before: dict[str, Any]
    carried: dict[str, str]
    collected: list[str]
    last: list[str]
    shapes: dict[str, tuple[int, ...]]
    where: str


class RolledTrace(NamedTuple):
    items: list[Item | LoopItem]
    outputs: list[Any]
    mutated: dict[str, Any]


def roll(trace: Trace, numbers: Sequence[int | Repeat], input_names: Sequence[str]) -> RolledTrace:
    """Return a trace with its loops rolled up. numbers: its items, from `find_repeats`."""
    return _Roller(trace, numbers, input_names).roll()


class _Roller:
    def __init__(self, trace: Trace, numbers: Sequence[int | Repeat], input_names: Sequence[str]) -> None:
        self.trace, self.records, self.input_names = trace, trace.records, input_names
        self.places: dict[int, tuple[str, Repeat | None, int, int]] = {}  # name, loop, step, offset
        self.numbers = numbers
        for index, number in enumerate(numbers):
            if isinstance(number, Repeat):
                for i in range(number.length * number.steps):
                    step, offset = divmod(i, number.length)
                    self.places[number.start + i] = (f"v{index}.{offset}", number, step, offset)
            else:
                self.places[number] = (f"v{index}", None, 0, 0)
        self.collected: dict[Repeat, list[str]] = {n: [] for n in numbers if isinstance(n, Repeat)}
        self.last: dict[Repeat, list[str]] = {n: [] for n in numbers if isinstance(n, Repeat)}
        self.shapes: dict[Repeat, dict[str, tuple[int, ...]]] = {n: {} for n in self.collected}

    def roll(self) -> RolledTrace:
        outputs = [self.outside(value) for value in self.trace.outputs]
        mutated = {name: self.outside(value) for name, value in self.trace.mutated.items()}
        items: list[Item | LoopItem] = []
        # From the end, so that all that is read of a loop is known when it is reached.
        for index in reversed(range(len(self.numbers))):
            number = self.numbers[index]
            if isinstance(number, Repeat):
                items.append(self.loop(f"v{index}", number))
            else:
                record = self.records[number]
                arguments = {key: self.outside(value) for key, value in record.arguments.items()}
                items.append(Item(f"v{index}", record._replace(arguments=arguments)))
        return RolledTrace(items[::-1], outputs, mutated)

    # ------------------------------------------------------------ names

    def outside(self, value: Any) -> Any:
        """An argument outside of loops, or one that a loop takes from outside."""
        if isinstance(value, Constant):
            return Value(value.name)
        if isinstance(value, Ref):
            if value.record < 0:
                return Value(self.input_names[value.result])
            name, loop, step, _ = self.places[value.record]
            if loop is not None:
                own = result_name(name, value.result)
                if step != loop.steps - 1:
                    # One step of all.
                    self.note(loop, self.collected, own, value, True)
                    return Part(Value(f"{own}.all"), 0, step)
                self.note(loop, self.last, own, value, False)
                return Value(f"{own}.last")
            record = self.records[value.record]
            if record.operator == "unbind":
                source = self.outside(record.arguments["self"])
                dim = record.arguments.get("dim", 0)
                return Part(source, dim, value.result)
            return Value(result_name(name, value.result))
        if isinstance(value, tuple):
            return self.outside_list(value)
        return value

    def outside_list(self, value: tuple[Any, ...]) -> tuple[Any, ...]:
        """A list, in which all steps of a loop in order are one part."""
        parts: list[Any] = []
        at = 0
        while at < len(value):
            part = value[at]
            place = self.places.get(part.record) if isinstance(part, Ref) and part.record >= 0 else None
            if place is not None and place[1] is not None:
                run = value[at : at + place[1].steps]
                order = self.order(run, place[1])
                if order is not None:
                    own = result_name(place[0], part.result)
                    self.note(place[1], self.collected, own, part, True)
                    parts.append(All(f"{own}.all", order == "reversed"))
                    at += len(run)
                    continue
            parts.append(self.outside(part))
            at += 1
        return tuple(parts)

    def order(self, run: Sequence[Any], loop: Repeat) -> str | None:
        """ "forward" or "reversed" if a run of values is what every step of a loop gave."""
        if len(run) != loop.steps or not all(isinstance(r, Ref) and r.record >= 0 for r in run):
            return None
        places = [self.places[r.record] for r in run]
        if any(p[1] is not loop or p[3] != places[0][3] for p in places) or len({r.result for r in run}) > 1:
            return None
        steps = [p[2] for p in places]
        if steps == list(range(loop.steps)):
            return "forward"
        return "reversed" if steps == list(reversed(range(loop.steps))) else None

    def note(self, loop: Repeat, kept: dict[Repeat, list[str]], own: str, ref: Ref, is_all: bool) -> None:
        if own not in kept[loop]:
            kept[loop].append(own)
        shape = self.records[ref.record].results[ref.result][0]
        self.shapes[loop][f"{own}.all" if is_all else f"{own}.last"] = (
            (loop.steps, *shape) if is_all else shape
        )

    # ------------------------------------------------------------ loops

    def loop(self, name: str, loop: Repeat) -> LoopItem:
        carried: dict[str, str] = {}
        before: dict[str, Any] = {}
        count = loop.steps
        kept = sorted({*range(min(count, STEPS_KEPT - 1)), count - 1})
        steps = []
        # What each place takes from the step before, as the second step and all later ones say.
        taken: dict[tuple[int, ...], Ref] = {}
        for step in range(1, count):
            for path, ref in self.paths(loop, step):
                place = self.places.get(ref.record)
                if place is not None and place[1] is loop and place[2] != step:
                    if place[2] != step - 1:
                        raise Refused(
                            "a step of a loop takes a value from two steps before", self.where(loop)
                        )
                    key = Ref(place[3], ref.result)
                    if taken.setdefault(path, key) != key:
                        raise Refused("the steps of a loop take different values", self.where(loop))
        for path, key in taken.items():
            own = result_name(f"{name}.{key.record}", key.result)
            first = self.at(loop, 0, path)
            outer = self.outside(first)
            inner = f"{own}.before"
            # Two places may take the same value later and different ones at first.
            while inner in before and before[inner] != outer:
                inner += "'"
            before[inner], carried[inner] = outer, own
        for step in kept:
            items = []
            for offset in range(loop.length):
                record = self.records[loop.start + step * loop.length + offset]
                arguments = {
                    key: self.inside(value, loop, step, (offset, i), name, taken, before, carried)
                    for i, (key, value) in enumerate(record.arguments.items())
                }
                items.append(Item(f"{name}.{offset}", record._replace(arguments=arguments)))
            steps.append((step, items))
        return LoopItem(
            name,
            steps,
            count,
            before,
            carried,
            sorted(self.collected[loop]),
            sorted(self.last[loop]),
            self.shapes[loop],
            self.where(loop),
        )

    def inside(
        self,
        value: Any,
        loop: Repeat,
        step: int,
        path: tuple[int, ...],
        name: str,
        taken: Any,
        before: Any,
        carried: Any,
    ) -> Any:
        if isinstance(value, tuple) and not isinstance(value, (Ref, Constant)):
            return tuple(
                self.inside(part, loop, step, (*path, i), name, taken, before, carried)
                for i, part in enumerate(value)
            )
        if path in taken:
            own = result_name(f"{name}.{taken[path].record}", taken[path].result)
            outer = self.outside(self.at(loop, 0, path))
            return Value(next(n for n, b in before.items() if carried[n] == own and b == outer))
        if isinstance(value, Ref) and value.record >= 0:
            place = self.places[value.record]
            if place[1] is loop:
                if self.records[value.record].operator == "unbind":
                    record = self.records[value.record]
                    source = self.inside(
                        record.arguments["self"], loop, step, (place[3], 0), name, taken, before, carried
                    )
                    return Part(source, record.arguments.get("dim", 0), value.result)
                return Value(result_name(place[0], value.result))
        return self.outside(value)

    def paths(self, loop: Repeat, step: int) -> Iterator[tuple[tuple[int, ...], Ref]]:
        for offset in range(loop.length):
            record = self.records[loop.start + step * loop.length + offset]
            for i, value in enumerate(record.arguments.values()):
                yield from _paths(value, (offset, i))

    def at(self, loop: Repeat, step: int, path: tuple[int, ...]) -> Any:
        value: Any = list(self.records[loop.start + step * loop.length + path[0]].arguments.values())[path[1]]
        for index in path[2:]:
            value = value[index]
        return value

    def where(self, loop: Repeat) -> str:
        return self.records[loop.start].where


def _paths(value: Any, path: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], Ref]]:
    if isinstance(value, Ref):
        if value.record >= 0:
            yield path, value
    elif isinstance(value, tuple) and not isinstance(value, Constant):
        for index, part in enumerate(value):
            yield from _paths(part, (*path, index))


def result_name(name: str, result: int) -> str:
    return name if result == 0 else f"{name}:{result}"
