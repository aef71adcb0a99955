"""Plans of a graph for given sizes, made once and kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fastrnn.arrays import Array
from fastrnn.graph import Graph
from fastrnn.program.memory import lay_out
from fastrnn.program.planner import Operand, PlannedLoop, Planner, Toolbox
from fastrnn.program.views import Kind, View


class Result(NamedTuple):
    """What a plan writes to an output: the array's size in bytes, and the view of it that is the result."""

    bytes: int
    view: View


class Plan(NamedTuple):
    """A plan that can be run.

    Attributes
    ----------
    compiled : CompiledPlan
    results : list of Result
        Of the outputs of the graph, and then of the next states.
    """

    compiled: Any
    results: list[Result]

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """Return the outputs, and then the next states, as new arrays."""
        outputs = tuple(np.empty(result.bytes, np.uint8) for result in self.results)
        self.compiled.run(tuple(inputs), outputs)
        return [
            np.ndarray(view.shape, view.dtype, array, view.offset, view.strides)
            for array, (_, view) in zip(outputs, self.results, strict=True)
        ]


def make_plan(
    graph: Graph,
    tools: Toolbox,
    shapes: Sequence[tuple[int, ...]],
    strides: Sequence[tuple[int, ...]],
    largest: Mapping[str, int],
) -> Plan:
    """Plan a graph at given sizes.

    Parameters
    ----------
    largest : mapping of str to int
        The largest numbers of the values whose numbers are sizes.
    """
    from fastrnn.engine.packing import backend_of
    from fastrnn.program.executor import CompiledPlan

    planner = Planner(graph, tools, shapes, strides, largest)
    views = planner.run()
    offsets, total = lay_out(planner.items)
    inputs = len(graph.inputs)
    owners: list[Any] = []

    def place(operand: Operand) -> tuple[int, int, int]:
        storage, offset, advance = operand
        if storage.kind is Kind.CONSTANT:
            owners.append(storage.array)
            return 0, storage.array.ctypes.data + offset, advance
        if storage.kind is Kind.WORK:
            return 1, offsets[id(storage)] + offset, advance
        base = 2 + storage.index + (inputs if storage.kind is Kind.OUTPUT else 0)
        return base, offset, advance

    items: list[tuple[Any, Any]] = []
    for item in planner.items:
        if isinstance(item, PlannedLoop):
            steps = [(s.step, [place(o) for o in (*s.inputs, *s.outputs)]) for s in item.steps]
            items.append((item.repetitions, steps))
        else:
            items.append((item.step, [place(o) for o in (*item.inputs, *item.outputs)]))
    tables = [*tools.rows.values(), backend_of(tools.pick("float32").products[0])]
    compiled = CompiledPlan(items, inputs + len(views), total, tables, owners)
    return Plan(compiled, [Result(view.storage.bytes, view) for view in views])
