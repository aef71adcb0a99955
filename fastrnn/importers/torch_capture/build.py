"""From the traces of a module at several sizes to the nodes of one graph.

Item by item, what is the same in all traces is kept, and each number that differs becomes an expression of
sizes. A loop becomes one node. Its body is made in the same way from some of its steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from fastrnn.graph import ARITHMETIC, Loop, Node, Size, Value, values_of
from fastrnn.importers.torch_capture.loops import Repeat, find_repeats
from fastrnn.importers.torch_capture.optional import PADS
from fastrnn.importers.torch_capture.parts import without_parts
from fastrnn.importers.torch_capture.recorder import Record, Refused, Trace
from fastrnn.importers.torch_capture.rolled import (
    Item,
    LoopItem,
    Part,
    Peel,
    RolledTrace,
    Steps,
    result_name,
    roll,
)
from fastrnn.importers.torch_capture.sizes import Sizes

# The arguments that operators compute with, which may be arrays as well as numbers.
COMPUTED = {
    **dict.fromkeys(("add", "sub", "rsub", "mul", "div", "remainder", "floor_divide"), ("other",)),
    **dict.fromkeys(("eq", "ne", "lt", "le", "gt", "ge", "maximum", "minimum"), ("other",)),
    "where": ("self", "other"),
    "pow": ("exponent",),
}
# Operators that make an array of the shape of another one, and its number.
LIKE = {"zeros_like": 0.0, "ones_like": 1.0, "new_zeros": 0.0, "new_ones": 1.0}
PARTS = ("select", "slice", "narrow")


class Built:
    """The nodes of a graph.

    Attributes
    ----------
    nodes : list of Node
    outputs : list of str
    changed : dict of str to str
        The values that constants and inputs have in the end.
    turns : list of (size, int)
        Sizes of inputs at which padding becomes negative that was not so in any trace.
    """

    def __init__(
        self,
        traces: Sequence[Trace],
        input_names: Sequence[str],
        input_shapes: Sequence[Sequence[tuple[int, ...]]],
    ) -> None:
        """input_shapes: for each trace, the shapes of the inputs."""
        traces = without_parts(traces)
        found = find_repeats([trace.records for trace in traces])
        while True:
            try:
                self._build(traces, found, input_names, input_shapes)
                break
            except Peel as peel:
                at = peel.index
                found = [[*items[:at], *items[at].peel(peel.is_last), *items[at + 1 :]] for items in found]

    def _build(
        self,
        traces: Sequence[Trace],
        found: Sequence[Sequence[Any]],
        input_names: Sequence[str],
        input_shapes: Sequence[Sequence[tuple[int, ...]]],
    ) -> None:
        """Make the nodes of traces with these repeats.

        Raises
        ------
        Peel
            A step of a loop has to be an item of its own.
        """
        # One step alone does not show what a loop carries from step to step.
        kept = [
            k
            for k, items in enumerate(found)
            if all(i.repetitions > 1 for i in items if isinstance(i, Repeat))
        ]
        if not kept:
            raise Refused("loops of one step at all sizes that were tried", traces[0].records[0].where)
        # The longest first, which show best how steps differ.
        order = sorted(kept, key=lambda k: -len(traces[k].records))
        by_trace = {k: roll(traces[k], found[k], input_names, input_shapes[k]) for k in order}
        rolled = [by_trace[k] for k in kept]
        sizes = Sizes()
        for i, name in enumerate(input_names):
            sizes.add(name, [input_shapes[k][i] for k in kept])
        for value, numbers in _lengths(rolled):
            sizes.add_size(numbers, Size("largest", value.name))
        builder = _Builder(sizes)
        for index, items in enumerate(zip(*(trace.items for trace in rolled), strict=True)):
            if isinstance(items[0], LoopItem):
                try:
                    builder.loop(items)
                except Refused:
                    repeats = [found[k][index] for k in kept]
                    if any(repeat.peeled or repeat.repetitions < 3 for repeat in repeats):
                        raise
                    # Numbers of the first step may be others, as those of `t - 1 if t else 0` are.
                    raise Peel(index, False) from None
            else:
                builder.item(items)
        self.outputs = [
            builder.value(f"output{i}", values, "")
            for i, values in enumerate(zip(*(trace.outputs for trace in rolled), strict=True))
        ]
        if any(trace.changed.keys() != rolled[0].changed.keys() for trace in rolled):
            raise Refused("what it keeps from call to call depends on sizes", "")
        self.changed = {
            name: builder.value(f"{name}.next", [trace.changed[name] for trace in rolled], "")
            for name in rolled[0].changed
        }
        self.nodes = _in_order(builder.nodes)
        self.turns = builder.turns


class _Builder:
    """Makes nodes from samples: traces, or steps of a loop in them."""

    def __init__(self, sizes: Sizes, outer: _Builder | None = None, count: Any = None) -> None:
        """outer, count: of the body of a loop."""
        self.sizes, self.outer, self.count = sizes, outer, count
        self.nodes: list[Node] = []
        self.turns: list[tuple[Size, int]] = []
        self.packed: set[str] = set()
        self.parts: set[str] = set()  # values that are a part of another one

    def item(self, items: Sequence[Item]) -> None:
        records = [item.record for item in items]
        first = records[0]
        name = items[0].name
        if any(record.arguments.keys() != first.arguments.keys() for record in records):
            raise Refused("which arguments it has depends on sizes", first.where)
        if first.operator in LIKE and self.parts.intersection(values_of(first.arguments["self"])):
            sizes = [
                self.sizes.find(numbers) for numbers in zip(*(r.results[0][0] for r in records), strict=True)
            ]
            if None not in sizes:
                # The numbers of the part are not read: it need not be there.
                made = {
                    "size": tuple(sizes),
                    "fill_value": LIKE[first.operator],
                    "dtype": first.results[0][1],
                }
                records = [record._replace(operator="full", arguments=made) for record in records]
                first = records[0]
        arguments = {
            key: self.argument(f"{name}.{key}", [record.arguments[key] for record in records], first)
            for key in first.arguments
        }
        for number in arguments.get("pad", ()) if first.operator in PADS else ():
            self.turns.extend(_turns(number))
        for key in COMPUTED.get(first.operator, ()):
            if _depends_on_step(arguments.get(key)):
                try:
                    arguments[key] = self.numbers_of_steps(f"{name}.{key}.step", arguments[key], first.where)
                except LookupError:
                    raise Refused("it computes with a number that depends on the step", first.where) from None
        operator = first.operator
        if operator == "stack" and _has_steps(first):
            operator = "cat"  # its parts have the new axis already
        outputs = []
        for result in range(min(len(record.results) for record in records)):
            output = result_name(name, result)
            outputs.append(output)
            shapes, dtypes = zip(*(record.results[result] for record in records), strict=True)
            if len(set(dtypes)) > 1 or len(set(map(len, shapes))) > 1:
                raise Refused("its result has another type at other sizes", first.where)
            if first.operator == "_pack_padded_sequence" and result == 1:
                # One batch size for each step of the longest row.
                steps = tuple(shape[0] for shape in shapes)
                self.sizes.add_size(steps, Size("largest", arguments["lengths"].name))
            elif not self.is_packed(first.operator, arguments, result):
                self.sizes.add(output, shapes)
            else:
                self.packed.add(output)
        if operator in PARTS:
            self.parts.update(outputs)
        self.nodes.append(Node(operator, arguments, tuple(outputs), first.where))

    def is_packed(self, operator: str, arguments: dict[str, Any], result: int) -> bool:
        """Whether a result has the steps of packed rows along its first axis: programs have no such size."""
        if operator == "_pack_padded_sequence":
            return True
        taken = {name for value in arguments.values() for name in values_of(value)} & self.packed
        if operator == "_pad_packed_sequence" or not taken:
            return False
        return "batch_sizes" not in arguments or result == 0

    def value(self, name: str, values: Sequence[Any], where: str) -> str:
        """The name of a value that all samples take."""
        found = self.argument(name, values, Record("", {}, [], where))
        assert isinstance(found, Value)
        return found.name

    def argument(self, name: str, values: Sequence[Any], record: Record) -> Any:
        first, where = values[0], record.where
        if isinstance(first, tuple) and any(isinstance(part, Steps) for part in first):
            return self.list_with_steps(name, values, record)
        if all(isinstance(value, Part) for value in values):
            return self.part(name, values, record)
        if all(isinstance(value, tuple) and type(value) is tuple for value in values):
            if len({len(value) for value in values}) > 1:
                raise Refused("how many values it takes depends on sizes", where)
            return tuple(
                self.argument(f"{name}.{i}", parts, record)
                for i, parts in enumerate(zip(*values, strict=True))
            )
        if all(type(value) is type(first) and (value == first or value != value) for value in values):
            return first
        if isinstance(first, Value):
            raise Refused("which value it takes depends on sizes", where)
        if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
            return self.size(values, f"{record.operator} has a number that depends on sizes", where)
        raise Refused("what it does depends on sizes", where)

    def part(self, name: str, parts: Sequence[Part], record: Record) -> Value:
        """What one step of a loop gave."""
        source = self.argument(name, [part.source for part in parts], record)
        index = self.size([part.number for part in parts], "which step of a loop it takes", record.where)
        self.nodes.append(Node("select", {"self": source, "dim": 0, "index": index}, (name,), record.where))
        return Value(name)

    def size(self, numbers: Sequence[Any], what: str, where: str) -> Any:
        """The expression of sizes for numbers."""
        size = self.sizes.find(tuple(numbers))
        if size is None:
            found = ", ".join(map(str, numbers))
            raise Refused(f"{what}: no expression of sizes was found for {found}", where)
        return size

    def list_with_steps(self, name: str, values: Sequence[Any], record: Record) -> tuple[Any, ...]:
        """The parts of a stack or cat, some of which are all steps of a loop: as parts of a cat."""
        if record.operator not in ("stack", "cat", "concat", "concatenate"):
            raise Refused("how many values it takes depends on sizes", record.where)
        is_stack = record.operator == "stack"
        dim = record.arguments.get("dim", 0)
        parts = []
        if len({len(value) for value in values}) > 1:
            raise Refused("how many values it takes depends on sizes", record.where)
        for i, samples in enumerate(zip(*values, strict=True)):
            part = f"{name}.{i}"
            if isinstance(samples[0], Steps):
                parts.append(self.steps_as_one(part, samples, dim, is_stack, record))
            else:
                single = self.argument(part, samples, record)
                if is_stack:
                    self.nodes.append(Node("unsqueeze", {"self": single, "dim": dim}, (part,), record.where))
                    single = Value(part)
                parts.append(single)
        return tuple(parts)

    def steps_as_one(
        self, name: str, samples: Sequence[Any], dim: int, is_stack: bool, record: Record
    ) -> Value:
        """What steps of a loop gave, (steps, ...), along an axis of one value."""
        where = record.where
        if any(not isinstance(sample, Steps) for sample in samples):
            raise Refused("how many values it takes depends on sizes", where)
        value = self.argument(name, [sample.source for sample in samples], record)

        def add(operator: str, arguments: dict[str, Any]) -> Value:
            output = f"{name}.{len(self.nodes)}"
            self.nodes.append(Node(operator, arguments, (output,), where))
            return Value(output)

        strides = {sample.stride for sample in samples}
        if len(strides) > 1:
            raise Refused("which steps of a loop it takes depends on sizes", where)
        (stride,) = strides
        if stride < 0:
            value = add("flip", {"self": value, "dims": (0,)})
        firsts = [s.total - 1 - s.first if stride < 0 else s.first for s in samples]
        ends = [first + abs(stride) * (s.taken - 1) + 1 for first, s in zip(firsts, samples, strict=True)]
        if any(firsts) or abs(stride) > 1 or ends != [s.total for s in samples]:
            bounds = {
                "start": self.size(firsts, "the first step that it takes", where),
                "end": self.size(ends, "the last step that it takes", where),
                "step": abs(stride),
            }
            value = add("slice", {"self": value, "dim": 0, **bounds})
        value = add(
            "movedim", {"self": value, "source": 0, "destination": dim if is_stack or dim >= 0 else dim - 1}
        )
        if not is_stack:
            start = dim if dim >= 0 else dim - 1
            value = add("flatten", {"self": value, "start_dim": start, "end_dim": start + 1})
        return value

    def loop(self, items: Sequence[LoopItem]) -> None:
        first = items[0]
        count = self.size([item.total for item in items], "the number of steps of a loop", first.where)
        if any((item.before.keys(), item.carried) != (first.before.keys(), first.carried) for item in items):
            raise Refused("what a loop carries depends on sizes", first.where)
        samples = [(k, step) for k, item in enumerate(items) for step, _ in item.steps]
        inner = Sizes()
        inner.add_size(tuple(step for _, step in samples), Size("step"))
        inner.add_size(tuple(items[k].total for k, _ in samples), count)
        for vector, size in self.sizes.all():
            inner.add_size(tuple(vector[k] for k, _ in samples), size)
        body = _Builder(inner, self, count)
        for step_items in zip(*(records for item in items for _, records in item.steps), strict=True):
            body.item(step_items)
        carried = tuple(
            (
                name,
                self.value(f"{name}.first", [item.before[name] for item in items], first.where),
                first.carried[name],
            )
            for name in first.before
        )
        collected = sorted({name for item in items for name in item.collected})
        last = sorted({name for item in items for name in item.last})
        outputs = (*(f"{name}.all" for name in collected), *(f"{name}.last" for name in last))
        for output in outputs:
            shapes = [item.shapes.get(output) for item in items]
            if None not in shapes:
                self.sizes.add(output, shapes)  # type: ignore[arg-type]
        loop = Loop(tuple(body.nodes), count, carried, tuple(collected), tuple(last))
        self.nodes.append(Node("loop", {}, outputs, first.where, loop))

    def numbers_of_steps(self, name: str, size: Any, where: str) -> Value:
        """A number that each step computes with, as an array. Those of all steps are made before the loop."""
        assert self.outer is not None
        scale, offset = _line(size)
        whole = f"{name}.steps"
        end = self.count if (scale, offset) == (1, 0) else Size("+", Size("*", self.count, scale), offset)
        made = {"start": offset, "end": end, "step": scale, "dtype": "int64"}
        self.outer.nodes.append(Node("arange", made, (whole,), where))
        self.nodes.append(
            Node("select", {"self": Value(whole), "dim": 0, "index": Size("step")}, (name,), where)
        )
        return Value(name)


def _in_order(nodes: Sequence[Node]) -> list[Node]:
    """Nodes in an order in which each finds its values. A size may be the number in a later value."""
    makers = {name: index for index, node in enumerate(nodes) for name in node.outputs if name is not None}
    placed: dict[int, Node] = {}
    for first in range(len(nodes)):
        stack, open_nodes = [first], set()
        while stack:
            index = stack[-1]
            needed = {makers[name] for name in nodes[index].values() if name in makers} - placed.keys()
            if index in placed or not needed - {index}:
                placed.setdefault(index, nodes[stack.pop()])
                continue
            if index in open_nodes:
                raise Refused("a size depends on what it is a size of", nodes[index].where)
            open_nodes.add(index)
            stack += sorted(needed, reverse=True)
    return list(placed.values())


def _lengths(rolled: Sequence[RolledTrace]) -> Iterator[tuple[Value, tuple[int, ...]]]:
    """The values of which Python read a number that is a size, with the numbers."""
    for reads in zip(*(trace.reads for trace in rolled), strict=False):
        if isinstance(reads[0][0], Value) and all(value == reads[0][0] for value, _ in reads):
            yield reads[0][0], tuple(number for _, number in reads)


def _turns(number: Any) -> Iterator[tuple[Size, int]]:
    """A size and the least of it at which `n - size` is negative."""
    if isinstance(number, Size) and number.operator == "-":
        left, right = number.left, number.right
        if isinstance(left, int) and left > 0 and isinstance(right, Size) and right.operator == "dim":
            yield right, left + 1


def _depends_on_step(argument: Any) -> bool:
    if not isinstance(argument, Size):
        return False
    return argument.operator == "step" or any(
        _depends_on_step(part) for part in (argument.left, argument.right)
    )


def _line(size: Any) -> tuple[Any, Any]:
    """scale and offset with size = scale * step + offset, without the step.

    Raises
    ------
    LookupError
        There are none.
    """
    if not isinstance(size, Size) or size.operator in ("dim", "largest"):
        return 0, size
    if size.operator == "step":
        return 1, 0
    left, right = _line(size.left), _line(size.right)
    if size.operator in ("+", "-"):
        return tuple(_combined(size.operator, a, b) for a, b in zip(left, right, strict=True))
    if size.operator == "*" and right[0] == 0:
        return tuple(_combined("*", part, right[1]) for part in left)
    if size.operator == "*" and left[0] == 0:
        return tuple(_combined("*", part, left[1]) for part in right)
    if left[0] == right[0] == 0:
        return 0, size
    raise LookupError(size)


def _combined(operator: str, left: Any, right: Any) -> Any:
    """A size of two, without what changes nothing."""
    if not isinstance(left, Size) and not isinstance(right, Size):
        return ARITHMETIC[operator](left, right)
    if operator in ("+", "-") and right == 0:
        return left
    if operator == "*" and 0 in (left, right):
        return 0
    if operator == "*" and right == 1:
        return left
    return Size(operator, left, right)


def _has_steps(record: Record) -> bool:
    return any(
        isinstance(part, Steps)
        for value in record.arguments.values()
        if isinstance(value, tuple)
        for part in value
    )
