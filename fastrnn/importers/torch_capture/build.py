"""From the traces of a module at several sizes to the nodes of one graph.

Item by item, what is the same in all traces is kept, and each number that differs becomes an expression of
sizes. A loop becomes one node. Its body is made in the same way from some of its steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastrnn.graph import Loop, Node, Size, Value
from fastrnn.importers.torch_capture.loops import Repeat, find_repeats
from fastrnn.importers.torch_capture.recorder import Record, Refused, Trace
from fastrnn.importers.torch_capture.rolled import All, Item, LoopItem, Part, result_name, roll
from fastrnn.importers.torch_capture.sizes import Sizes


class Built:
    """The nodes of a graph.

    Attributes
    ----------
    nodes : list of Node
    outputs : list of str
    mutated : dict of str to str
        The values that constants and inputs have in the end.
    """

    def __init__(
        self,
        traces: Sequence[Trace],
        input_names: Sequence[str],
        input_shapes: Sequence[Sequence[tuple[int, ...]]],
    ) -> None:
        """input_shapes: for each input, its shape in each trace."""
        found = find_repeats([trace.records for trace in traces])
        # One step alone does not show what a loop carries from step to step.
        kept = [
            k for k, items in enumerate(found) if all(i.steps > 1 for i in items if isinstance(i, Repeat))
        ]
        if not kept:
            raise Refused("loops of one step at all sizes that were tried", traces[0].records[0].where)
        sizes = Sizes()
        for name, shapes in zip(input_names, input_shapes, strict=True):
            sizes.add(name, [shapes[k] for k in kept])
        rolled = [roll(traces[k], found[k], input_names) for k in kept]
        builder = _Builder(sizes)
        for items in zip(*(trace.items for trace in rolled), strict=True):
            if isinstance(items[0], LoopItem):
                builder.loop(items)
            else:
                builder.item(items)
        self.outputs = [
            builder.value(f"output{i}", values, "")
            for i, values in enumerate(zip(*(trace.outputs for trace in rolled), strict=True))
        ]
        self.mutated = {
            name: builder.value(name, [trace.mutated[name] for trace in rolled], "")
            for name in rolled[0].mutated
        }
        self.nodes = builder.nodes


class _Builder:
    """Makes nodes from samples: traces, or steps of a loop in them."""

    def __init__(self, sizes: Sizes) -> None:
        self.sizes = sizes
        self.nodes: list[Node] = []

    def item(self, items: Sequence[Item]) -> None:
        records = [item.record for item in items]
        first = records[0]
        if first.operator == "unbind":
            # Its results are taken one by one, as parts.
            return
        name = items[0].name
        arguments = {
            key: self.argument(f"{name}.{key}", [record.arguments[key] for record in records], first)
            for key in first.arguments
        }
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
            self.sizes.add(output, shapes)
        self.nodes.append(Node(operator, arguments, tuple(outputs), first.where))

    def value(self, name: str, values: Sequence[Any], where: str) -> str:
        """The name of a value that all samples take."""
        found = self.argument(name, values, Record("", {}, [], where))
        assert isinstance(found, Value)
        return found.name

    def argument(self, name: str, values: Sequence[Any], record: Record) -> Any:
        first, where = values[0], record.where
        if isinstance(first, tuple) and any(isinstance(part, All) for part in first):
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
            size = self.sizes.find(tuple(values))
            if size is not None:
                return size
            numbers = ", ".join(map(str, values))
            raise Refused(f"no expression of sizes was found for {numbers}", where)
        raise Refused("what it does depends on sizes", where)

    def part(self, name: str, parts: Sequence[Part], record: Record) -> Value:
        """One of the results of an `unbind`, or what one step of a loop gave."""
        source = self.argument(name, [part.source for part in parts], record)
        index = self.sizes.find(tuple(part.number for part in parts))
        if index is None:
            raise Refused("which step it takes depends on sizes", record.where)
        self.nodes.append(
            Node("select", {"self": source, "dim": parts[0].dim, "index": index}, (name,), record.where)
        )
        return Value(name)

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
            if isinstance(samples[0], All):
                parts.append(self.steps_as_one(part, samples[0], dim, is_stack, record))
            else:
                single = self.argument(part, samples, record)
                if is_stack:
                    self.nodes.append(Node("unsqueeze", {"self": single, "dim": dim}, (part,), record.where))
                    single = Value(part)
                parts.append(single)
        return tuple(parts)

    def steps_as_one(self, name: str, steps: All, dim: int, is_stack: bool, record: Record) -> Value:
        """All steps of a loop, (steps, ...), along an axis of one value."""
        value = Value(steps.name)
        where = record.where

        def add(operator: str, arguments: dict[str, Any]) -> Value:
            output = f"{name}.{len(self.nodes)}"
            self.nodes.append(Node(operator, arguments, (output,), where))
            return Value(output)

        if steps.is_reversed:
            value = add("flip", {"self": value, "dims": (0,)})
        value = add(
            "movedim", {"self": value, "source": 0, "destination": dim if is_stack or dim >= 0 else dim - 1}
        )
        if not is_stack:
            start = dim if dim >= 0 else dim - 1
            value = add("flatten", {"self": value, "start_dim": start, "end_dim": start + 1})
        return value

    def loop(self, items: Sequence[LoopItem]) -> None:
        first = items[0]
        count = self.sizes.find(tuple(item.total for item in items))
        if count is None:
            raise Refused("no expression of sizes gives the number of steps of a loop", first.where)
        samples = [(k, step) for k, item in enumerate(items) for step, _ in item.steps]
        inner = Sizes()
        for vector, size in self.sizes.all():
            inner.add_size(tuple(vector[k] for k, _ in samples), size)
        inner.add_size(tuple(step for _, step in samples), Size("step"))
        body = _Builder(inner)
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
        if any(item.before.keys() != first.before.keys() for item in items):
            raise Refused("what a loop carries depends on sizes", first.where)
        collected = sorted({name for item in items for name in item.collected})
        last = sorted({name for item in items for name in item.last})
        outputs = (*(f"{name}.all" for name in collected), *(f"{name}.last" for name in last))
        for output in outputs:
            shapes = [item.shapes.get(output) for item in items]
            if None not in shapes:
                self.sizes.add(output, shapes)  # type: ignore[arg-type]
        loop = Loop(tuple(body.nodes), count, carried, tuple(collected), tuple(last))
        self.nodes.append(Node("loop", {}, outputs, first.where, loop))


def _has_steps(record: Record) -> bool:
    return any(
        isinstance(part, All)
        for value in record.arguments.values()
        if isinstance(value, tuple)
        for part in value
    )
