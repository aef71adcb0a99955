"""Rules of operators that take some of the steps, or put others before or after them: pads, slices, cats.

The steps of padding before the first one are there from the beginning; those after the last one come when the
sequence ends. Where a slice leaves out the last steps, a step is certain once as many have come after it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from fastrnn.graph import Node, Value
from fastrnn.program.axes import slice_bounds
from fastrnn.program.streaming.follow import Followed, follows
from fastrnn.program.streaming.places import Place


class Part(NamedTuple):
    """A slice: every stride-th step, from one on to some before the last.

    Attributes
    ----------
    node : Node
    source : str
    place : Place
    first, stride : int
    left : int
        How many of the last steps are not there.
    held : int
        How many of them have to come before a step is certain: less than `left` where the steps come late.
    """

    node: Node
    source: str
    place: Place
    first: int
    stride: int
    left: int
    held: int

    @property
    def ahead(self) -> int:
        return self.held

    def build(self, chunk: Any) -> None:
        name = self.node.outputs[0]
        key = f"{name}.held"
        given = chunk.queue(key, self.source, alone=self.place.before == 1)
        skip = chunk.number(f"{name}.skip", self.first)
        skipped = min(skip, given.steps)
        there = given.steps - skipped
        held = self.left if chunk.is_last else self.held
        steps = max(-(-(there - held) // self.stride), 0)
        first = steps * self.stride
        chunk.keep(key, given, skipped + min(first, there))
        chunk.set_number(f"{name}.skip", skip - skipped + max(first - there, 0))
        end = skipped + max(first - self.stride + 1, 0)
        chunk.pass_on(name, chunk.part(given, skipped, end, self.stride))


class Last(NamedTuple):
    """The last steps so far.

    Attributes
    ----------
    node : Node
    source : str
    place : Place
    steps : int
    """

    node: Node
    source: str
    place: Place
    steps: int

    def build(self, chunk: Any) -> None:
        name = self.node.outputs[0]
        key = f"{name}.last"
        given = chunk.queue(key, self.source)
        count = min(self.steps, given.steps)
        chunk.keep(key, given, given.steps - count)
        if count < self.steps:
            chunk.so_far[name] = None
        else:
            last = chunk.part(given, given.steps - count, given.steps)
            arguments = {**self.node.arguments, "self": Value(last.name)}
            chunk.so_far[name] = chunk.emit(self.node._replace(arguments=arguments))[0]


class Padded(NamedTuple):
    """Steps of a number before the first step and after the last one; less than none: steps left out.

    Attributes
    ----------
    source : str
    name : str
    before, after : int
    held : int
        As in a `Part`, where steps are left out.
    padding : float
    """

    source: str
    name: str
    before: int
    after: int
    held: int
    padding: float

    @property
    def ahead(self) -> int:
        return self.held

    def build(self, chunk: Any) -> None:
        key = f"{self.name}.held"
        given = chunk.queue(
            key, self.source, max(self.before, 0), max(self.after, 0), self.padding, alone=True
        )
        skip = chunk.number(f"{self.name}.skip", max(-self.before, 0))
        skipped = min(skip, given.steps)
        held = max(-self.after, 0) if chunk.is_last else self.held
        end = max(given.steps - held, skipped)
        chunk.keep(key, given, end)
        chunk.set_number(f"{self.name}.skip", skip - skipped)
        chunk.pass_on(self.name, chunk.part(given, skipped, end))


class Beside(NamedTuple):
    """Arrays without steps before the first step and after the last one.

    Attributes
    ----------
    source : str
    name : str
    place : Place
    before, after : tuple of str
    """

    source: str
    name: str
    place: Place
    before: tuple[str, ...]
    after: tuple[str, ...]

    def build(self, chunk: Any) -> None:
        given = chunk.queue(f"{self.name}.steps", self.source, alone=True)
        if chunk.is_first:
            given = chunk.joined([*(chunk.array(name, self.place) for name in self.before), given])
        if chunk.is_last:
            given = chunk.joined([given, *(chunk.array(name, self.place) for name in self.after)])
        chunk.pass_on(self.name, given)


class Head(NamedTuple):
    """The first steps.

    Attributes
    ----------
    source, name : str
    steps : int
        How many.
    """

    source: str
    name: str
    steps: int

    def build(self, chunk: Any) -> None:
        given = chunk.flows[self.source]
        taken = chunk.number(f"{self.name}.taken")
        more = min(self.steps - taken, given.steps)
        chunk.pass_on(self.name, chunk.part(given, 0, more))
        chunk.set_number(f"{self.name}.taken", taken + more)


class AfterHead(NamedTuple):
    """A value's steps after the first steps of another one.

    Attributes
    ----------
    head, source, name : str
    steps : int
        How many the head has.
    """

    head: str
    source: str
    name: str
    steps: int

    def build(self, chunk: Any) -> None:
        key = f"{self.name}.steps"
        head, given = chunk.flows[self.head], chunk.queue(key, self.source, alone=True)
        there = chunk.number(f"{self.name}.there") + head.steps
        chunk.set_number(f"{self.name}.there", there)
        passed = given.steps if there == self.steps or chunk.is_last else 0
        chunk.keep(key, given, passed)
        chunk.pass_on(self.name, chunk.joined([head, chunk.part(given, 0, passed)]))


# ---------------------------------------------------------------- rules


@follows(
    "pad", "constant_pad_nd", "reflection_pad1d", "reflection_pad2d", "reflection_pad3d", "replication_pad1d",
    "replication_pad2d", "replication_pad3d",
)  # fmt: skip
def pad(f: Followed, node: Node) -> Any:
    given, result = node.arguments["self"], node.outputs[0]
    place = f.place(given)
    assert place is not None and result is not None
    name = "pad" if "pad" in node.arguments else "padding"
    sizes = list(f.number(node, name))
    at = 2 * (len(f.shape(given)) - 1 - place.axis)
    before, after = sizes[at : at + 2] if at < len(sizes) else (0, 0)
    if before == after == 0:
        return f.rows(f.fixed(node), [place])
    mode = node.operator.split("_")[0] if "pad" != node.operator else node.arguments.get("mode", "constant")
    if mode != "constant":
        f.refuse(node, f"{mode} padding over {f.axis_word}")
    if place.is_same or place.before > 1:
        f.refuse(node, "padding of an axis in which there is more than steps")
    value = node.arguments.get("value", 0)
    source = given.name
    sizes[at : at + 2] = 0, 0
    held = _held(f, source, max(-after, 0))
    f.put(result, Place(place.axis), source, f.there(source, alone=True) + before - held)
    steps = Padded(source, result, before, after, held, 0 if value is None else value)
    if not any(sizes):
        return steps
    # The other axes first: steps of padding are as large as the steps between them.
    inner = f"{result}.padded"
    made = f.fixed(node, **{name: tuple(sizes)})._replace(outputs=(inner,))
    f.places[inner] = place
    shapes = [
        place.shaped(shape, place.steps(own))
        for shape, own in zip(f.shapes(result), f.shapes(given.name), strict=True)
    ]
    f.add_form(inner, f.first[result].dtype, (shapes[0], shapes[1]))
    return Both(f.rows(made, [place]), steps._replace(source=inner))


class Both(NamedTuple):
    """One action, then another one."""

    first: Any
    second: Any

    @property
    def ahead(self) -> Any:
        return self.second.ahead

    @property
    def node(self) -> Any:
        return self.first.node

    def build(self, chunk: Any) -> None:
        chunk.run(self.first)
        chunk.run(self.second)


def part_of_steps(f: Followed, node: Node, place: Place) -> Any:
    """The action of a select, slice or narrow along the steps."""
    source, name = node.arguments["self"].name, node.outputs[0]
    assert name is not None
    if f.only_rows or place.before > 1:
        f.refuse(node, f"{node.operator} of some {f.steps_word}")
    if place.is_same:
        return _same_part(f, node, place)
    if node.operator.startswith("select"):
        indices = f.pair(node.arguments["index"])
        sizes = [shape[place.axis] for shape in f.shapes(source)]
        if place.is_alone and all(i in (-1, n - 1) for i, n in zip(indices, sizes, strict=True)):
            f.so_far.add(name)
            return Last(f.fixed(node, index=-1), source, place, 1)
        f.refuse(node, f"step {indices[0]} alone")
    found = [_bounds(f, node, index) for index in range(2)]
    (first, end, size, stride), (other, other_end, other_size, _) = found
    if (
        size - first == other_size - other
        and first != other
        and end == size
        and place.is_alone
        and stride == 1
    ):
        f.so_far.add(name)
        count = size - first
        arguments = {"self": node.arguments["self"], "dim": place.axis, "start": 0, "end": count}
        return Last(Node("slice", arguments, node.outputs, node.where), source, place, count)
    if first == other == 0 < end == other_end < min(size, other_size) and stride == 1 and place.is_alone:
        f.places[name] = Place(place.axis)
        f.heads[name] = end
        return Head(source, name, end)
    if first != other or size - end != other_size - other_end:
        f.refuse(node, f"{node.operator} of steps at the beginning or the end")
    if first == 0 and end == size and stride == 1:
        f.places[name] = place
        return f.rows(Node("alias", {"self": node.arguments["self"]}, node.outputs, node.where), [place])
    left = size - end
    held = _held(f, source, left)
    count = -(-(f.there(source, alone=True) - first - held) // stride)
    f.put(name, Place(place.axis), source, count, stride == 1)
    return Part(node, source, Place(place.axis), first, stride, left, held)


def _held(f: Followed, source: str, left: int) -> int:
    """How many steps have to come after one before it is certain that it is not among the last ones."""
    if not left or not f.is_even.get(source, True):
        return left
    return max(left - f.late.get(source, 0) * f.places[source].after, 0)


def _bounds(f: Followed, node: Node, index: int) -> tuple[int, int, int, int]:
    """The first step, that after the last one, the size and the stride of a slice."""
    source, axis = node.arguments["self"].name, f.places[node.arguments["self"].name].axis
    size = f.shapes(source)[index][axis]
    start = f.pair(node.arguments.get("start"))[index]
    if node.operator.startswith("narrow"):
        first = start + size if start < 0 else start
        return first, first + f.pair(node.arguments["length"])[index], size, 1
    first, end = slice_bounds(start, f.pair(node.arguments.get("end"))[index], size)
    return first, end, size, f.number(node, "step", 1)


def _same_part(f: Followed, node: Node, place: Place) -> Any:
    """A part of what is the same at all steps."""
    if node.operator.startswith("select"):
        made = node._replace(arguments={"self": node.arguments["self"], "dim": place.axis, "index": 0})
        return f.rows(made, [None])
    return f.rows(Node("alias", {"self": node.arguments["self"]}, node.outputs, node.where), [place])


def _after_head(f: Followed, node: Node, axis: int, names: list[str]) -> AfterHead:
    """The action of a cat of a few first steps and a sequence."""
    (head, source), result = names, node.outputs[0]
    own = f.places[source]
    assert result is not None
    if own.axis != axis or own.before > 1 or own.is_same or f.places[head].axis != axis:
        f.refuse(node, "cat of one sequence after another")
    if f.first[head].dtype != f.first[source].dtype:
        f.refuse(node, "cat of steps of several types")
    steps = f.heads[head]
    f.put(result, Place(axis), source, steps + f.there(source, alone=True))
    return AfterHead(head, source, result, steps)


def joined_steps(f: Followed, node: Node, axis: int) -> Any:
    """The action of a cat along the steps: arrays without steps before and after the sequence."""
    names = [argument.name for argument in node.arguments["tensors"]]
    result = node.outputs[0]
    assert result is not None
    moving = [index for index, name in enumerate(names) if name in f.places]
    own = f.places[names[moving[0]]]
    if len(names) == len(moving) == 2 and names[0] in f.heads and names[1] not in f.heads:
        return _after_head(f, node, axis, names)
    if any(name in f.heads for name in names):
        f.refuse(node, "cat of the first steps alone")
    if f.only_rows or len(moving) > 1 or own.before > 1 or own.is_same:
        what = "rows with rows" if f.only_rows else "one sequence after another"
        f.refuse(node, f"cat of {what}")
    dtypes = {f.first[name].dtype for name in names}
    if len(dtypes) > 1:
        f.refuse(node, "cat of steps of several types")
    at = moving[0]
    place = Place(axis)
    count = sum(f.first[name].shape[axis] for name in names[:at])
    f.put(result, own if len(names) == 1 else place, names[at], count + f.there(names[at], alone=True))
    if len(names) == 1:
        made = Node("alias", {"self": Value(names[0])}, node.outputs, node.where)
        return f.rows(made, [own])
    return Beside(names[at], result, place, tuple(names[:at]), tuple(names[at + 1 :]))
