"""A trace with its loops rolled up, and with names in the place of the numbers of records.

The items of rolled traces of one module have the same names at all sizes, so `build` can compare them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from fastrnn.graph import Value
from fastrnn.importers.torch_capture.loops import Repeat
from fastrnn.importers.torch_capture.reads import lengths_read
from fastrnn.importers.torch_capture.recorder import Constant, Record, Ref, Refused, Trace

STEPS_KEPT = 4


class Part(NamedTuple):
    """What one step of a loop gave: an element of a value along its first axis."""

    source: Value
    number: int


class Steps(NamedTuple):
    """In a list of values: what steps of a loop gave, from the step ``first`` on, every ``stride``-th.

    ``taken`` of the loop's ``total`` steps.
    """

    source: Value
    first: int
    stride: int
    taken: int
    total: int


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
    carried : dict of str to str
        The value of the body that is the next one of each.
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
    changed: dict[str, Any]
    reads: list[tuple[Any, int]]


class Peel(Exception):
    """The first or the last step of a loop is not like the others. index: of the loop among the items."""

    def __init__(self, index: int, is_last: bool) -> None:
        super().__init__(index, is_last)
        self.index, self.is_last = index, is_last


def roll(
    trace: Trace,
    numbers: Sequence[int | Repeat],
    input_names: Sequence[str],
    input_shapes: Sequence[tuple[int, ...]],
) -> RolledTrace:
    """Return a trace with its loops rolled up. numbers: its items, from `find_repeats`.

    Raises
    ------
    Peel
        A step of a loop has to be an item of its own.
    """
    return _Roller(trace, numbers, input_names, input_shapes).roll()


class _Place(NamedTuple):
    """Where a record is: its name, and the loop, step and number within the step, if it is in one."""

    name: str
    loop: Repeat | None
    step: int
    offset: int


Path = tuple[int, ...]  # of an argument in a loop's step: record, argument, and so on within lists


class _Roller:
    def __init__(
        self,
        trace: Trace,
        numbers: Sequence[int | Repeat],
        input_names: Sequence[str],
        input_shapes: Sequence[tuple[int, ...]],
    ) -> None:
        self.trace, self.records, self.input_names = trace, trace.records, input_names
        self.input_shapes = input_shapes
        self.places: dict[int, _Place] = {}
        self.numbers = numbers
        for index, number in enumerate(numbers):
            if isinstance(number, Repeat):
                for i in range(number.length * number.repetitions):
                    step, offset = divmod(i, number.length)
                    self.places[number.start + i] = _Place(f"v{index}.{offset}", number, step, offset)
            else:
                self.places[number] = _Place(f"v{index}", None, 0, 0)
        loops = [number for number in numbers if isinstance(number, Repeat)]
        self.collected: dict[Repeat, list[str]] = {loop: [] for loop in loops}
        self.last: dict[Repeat, list[str]] = {loop: [] for loop in loops}
        self.shapes: dict[Repeat, dict[str, tuple[int, ...]]] = {loop: {} for loop in loops}
        self.rolled: dict[Repeat, _LoopRoller] = {}

    def roll(self) -> RolledTrace:
        outputs = [self.outside(value) for value in self.trace.outputs]
        changed = {name: self.outside(value) for name, value in self.trace.changed.items()}
        reads = [(self.outside(read.value), read.numbers) for read in lengths_read(self.trace)]
        items: list[Item | LoopItem] = []
        # From the end, so that all that is read of a loop is known when it is reached.
        for index in reversed(range(len(self.numbers))):
            number = self.numbers[index]
            if isinstance(number, Repeat):
                if number not in self.rolled:
                    self.rolled[number] = _LoopRoller(self, index, number)
                    self.rolled[number].prepare()
                items.append(self.rolled[number].item())
            else:
                record = self.records[number]
                arguments = {key: self.outside(value) for key, value in record.arguments.items()}
                items.append(Item(f"v{index}", record._replace(arguments=arguments)))
        return RolledTrace(items[::-1], outputs, changed, reads)

    def outside(self, value: Any) -> Any:
        """An argument outside of loops, or one that a loop takes from outside."""
        if isinstance(value, Constant):
            return Value(value.name)
        if isinstance(value, Ref):
            if value.record < 0:
                return Value(self.input_names[value.result])
            place = self.places[value.record]
            own = result_name(place.name, value.result)
            if place.loop is None:
                return Value(own)
            if place.step == place.loop.repetitions - 1:
                self.note(place.loop, self.last, own, value)
                return Value(f"{own}.last")
            held = self.held_before(place, own)
            if held is not None:
                # The same with a loop of few steps, in which it is from before the loop.
                self.note(place.loop, self.last, held, value)
                return Value(f"{held}.last")
            return self.part(value)
        if isinstance(value, tuple):
            return self.outside_list(value)
        return value

    def held_before(self, place: _Place, own: str) -> str | None:
        """The name in the last step of a value of a step shortly before, if it is carried there."""
        loop = place.loop
        assert loop is not None
        if loop not in self.rolled:
            self.rolled[loop] = _LoopRoller(self, self.numbers.index(loop), loop)
            self.rolled[loop].prepare()
        carried = self.rolled[loop].carried
        for _ in range(loop.repetitions - 1 - place.step):
            found = next((name for name, after in carried.items() if after == own), None)
            if found is None:
                return None
            own = found
        return own

    def part(self, value: Ref) -> Part:
        """What one step of a loop gave, taken from what all steps gave."""
        place = self.places[value.record]
        assert place.loop is not None
        own = result_name(place.name, value.result)
        self.note(place.loop, self.collected, own, value)
        return Part(Value(f"{own}.all"), place.step)

    def outside_list(self, value: tuple[Any, ...]) -> tuple[Any, ...]:
        """A list, in which what steps of a loop gave is one part."""
        parts: list[Any] = []
        at = 0
        while at < len(value):
            run = self.run(value[at:])
            if run > 1:
                place, second = (self.places[ref.record] for ref in value[at : at + 2])
                assert place.loop is not None
                stride, total = second.step - place.step, place.loop.repetitions
                parts.append(Steps(self.part(value[at]).source, place.step, stride, run, total))
                at += run
            else:
                parts.append(self.outside(value[at]))
                at += 1
        return tuple(parts)

    def run(self, values: Sequence[Any]) -> int:
        """How many of the first values are the same value of steps of one loop, at equal distances."""
        key, steps = None, list[int]()
        for value in values:
            place = self.places.get(value.record) if isinstance(value, Ref) and value.record >= 0 else None
            if place is None or place.loop is None or key not in (None, (place.name, value.result)):
                break
            if len(steps) > 1 and place.step - steps[-1] != steps[1] - steps[0]:
                break
            if steps and place.step == steps[-1]:
                break
            key = place.name, value.result
            steps.append(place.step)
        return len(steps)

    def note(self, loop: Repeat, kept: dict[Repeat, list[str]], own: str, ref: Ref) -> None:
        if own not in kept[loop]:
            kept[loop].append(own)
        shape = self.records[ref.record].results[ref.result][0]
        if kept is self.collected:
            self.shapes[loop][f"{own}.all"] = (loop.repetitions, *shape)
        else:
            self.shapes[loop][f"{own}.last"] = shape

    def form(self, value: Any) -> Any:
        """The shape and dtype of a value of the trace; of an input the shape alone."""
        if isinstance(value, Constant):
            tensor = self.trace.constants[value.name]
            return tuple(tensor.shape), str(tensor.dtype).removeprefix("torch.")
        if value.record < 0:
            return self.input_shapes[value.result], None
        return self.records[value.record].results[value.result]


class _LoopRoller:
    """Rolls up one loop of a trace."""

    def __init__(self, roller: _Roller, index: int, loop: Repeat) -> None:
        self.roller, self.index, self.loop = roller, index, loop
        self.name = f"v{index}"
        self.before: dict[str, Any] = {}
        self.carried: dict[str, str] = {}
        self.where = roller.records[loop.start].where
        # How the value at each place of a step is taken, by the path to it.
        self.taken: dict[Path, Callable[[Any], Any]] = {}

    def prepare(self) -> None:
        """Find out how each step takes its values."""
        self.check_shapes()
        for path, _ in self.paths():
            self.taken[path] = self.rule(path, [self.at(step, path) for step in range(self.loop.repetitions)])

    def item(self) -> LoopItem:
        loop = self.loop
        kept = sorted({*range(min(loop.repetitions, STEPS_KEPT - 1)), loop.repetitions - 1})
        steps = [(step, [self.body_item(step, offset) for offset in range(loop.length)]) for step in kept]
        roller = self.roller
        return LoopItem(
            self.name, steps, loop.repetitions, self.before, self.carried, sorted(roller.collected[loop]),
            sorted(roller.last[loop]), roller.shapes[loop], self.where,
        )  # fmt: skip

    def check_shapes(self) -> None:
        """Raise unless all steps give the same shapes."""
        count = self.loop.repetitions
        shapes = [[self.record(s, i).results for i in range(self.loop.length)] for s in range(count)]
        if all(step == shapes[0] for step in shapes):
            return
        is_first = all(step == shapes[1] for step in shapes[1:])
        is_last = all(step == shapes[0] for step in shapes[:-1])
        if not (is_first or is_last) or self.loop.peeled > 2:
            raise Refused("the shape of a value depends on the step of a loop", self.where)
        raise Peel(self.index, is_last)

    def body_item(self, step: int, offset: int) -> Item:
        record = self.record(step, offset)
        arguments = {
            key: self.inside(value, (offset, i)) for i, (key, value) in enumerate(record.arguments.items())
        }
        return Item(f"{self.name}.{offset}", record._replace(arguments=arguments))

    def inside(self, value: Any, path: Path) -> Any:
        if path in self.taken:
            return self.taken[path](value)
        if isinstance(value, tuple) and not isinstance(value, (Ref, Constant)):
            return tuple(self.inside(part, (*path, i)) for i, part in enumerate(value))
        return self.roller.outside(value)

    def rule(self, path: Path, values: Sequence[Any]) -> Callable[[Any], Any]:
        """How the steps take the value at a place, as the values of all steps there say."""
        roller, loop = self.roller, self.loop
        if all(value == values[0] for value in values):
            outer = roller.outside(values[0])
            return lambda value: outer
        last = roller.places.get(values[-1].record) if isinstance(values[-1], Ref) else None
        if last is None or last.loop is None:
            raise Refused("the steps of a loop take different values", self.where)
        if last.loop is not loop:
            places = [roller.places.get(value.record) if isinstance(value, Ref) else None for value in values]
            if any(p is None or p.loop is not last.loop or p.offset != last.offset for p in places):
                raise self.unlike(values)
            return roller.part
        lag = loop.repetitions - 1 - last.step
        own = result_name(f"{self.name}.{last.offset}", values[-1].result)
        for step in range(lag, loop.repetitions):
            place = roller.places.get(values[step].record) if isinstance(values[step], Ref) else None
            key = place is not None and (place.loop, place.step, place.offset, values[step].result)
            if key != (loop, step - lag, last.offset, values[-1].result):
                raise self.unlike(values)
        if lag == 0:
            return lambda value: Value(own)
        form = roller.form(values[-1])
        for first in values[:lag]:
            shape, dtype = roller.form(first)
            if shape != form[0] or dtype not in (None, form[1]):
                raise self.unlike(values)
        held = Value(self.hold(own, values[:lag]))
        return lambda value: held

    def hold(self, own: str, first: Sequence[Any]) -> str:
        """The name of a value of a step before, which is carried on as often as first has values."""
        after = own
        for distance, value in enumerate(reversed(first), start=1):
            outer = self.roller.outside(value)
            name = f"{own}.before{distance if distance > 1 else ''}"
            # Two places may take the same value later and different ones at first.
            while name in self.before and (self.before[name], self.carried[name]) != (outer, after):
                name += "'"
            self.before[name], self.carried[name] = outer, after
            after = name
        return after

    def unlike(self, values: Sequence[Any]) -> Exception:
        """The steps do not take the same: the first one may be different from the others."""
        if self.loop.repetitions > 2 and self.loop.peeled < 3:
            return Peel(self.index, False)
        return Refused("the steps of a loop take different values", self.where)

    def paths(self) -> Iterator[tuple[Path, Any]]:
        """The places of values in a step."""
        for offset in range(self.loop.length):
            for i, value in enumerate(self.record(0, offset).arguments.values()):
                yield from _paths(value, (offset, i))

    def at(self, step: int, path: Path) -> Any:
        value: Any = list(self.record(step, path[0]).arguments.values())[path[1]]
        for index in path[2:]:
            if index >= len(value):
                raise Refused("how many values a step of a loop takes depends on the step", self.where)
            value = value[index]
        return value

    def record(self, step: int, offset: int) -> Record:
        return self.roller.records[self.loop.start + step * self.loop.length + offset]


def _paths(value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    if isinstance(value, (Ref, Constant)):
        yield path, value
    elif isinstance(value, tuple):
        for index, part in enumerate(value):
            yield from _paths(part, (*path, index))


def result_name(name: str, result: int) -> str:
    return name if result == 0 else f"{name}:{result}"
