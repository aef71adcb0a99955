"""Plans of a graph for given sizes, made once and kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fastrnn.arrays import Array
from fastrnn.graph import Graph
from fastrnn.program.memory import lay_out
from fastrnn.program.planner import Operand, PlannedLoop, Planner, Toolbox
from fastrnn.program.views import Kind, View, dense_strides


class Plan(NamedTuple):
    """A plan that can be run.

    Attributes
    ----------
    compiled : CompiledPlan
    results : list of View
        Where the outputs of the graph, and then the next states, lie.
    """

    compiled: Any
    results: list[View]

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """Return the outputs, and then the next states, as new arrays."""
        outputs: list[Array] = self.compiled.run(tuple(inputs))
        return outputs


def make_plan(
    graph: Graph,
    tools: Toolbox,
    shapes: Sequence[tuple[int, ...]],
    largest: Mapping[str, int],
) -> Plan:
    """Plan a graph at given sizes.

    Parameters
    ----------
    shapes : sequence of tuple of int
        Of the inputs, which are C-contiguous.
    largest : mapping of str to int
        The largest numbers of the values whose numbers are sizes.
    """
    from fastrnn.engine.packing import backend_of
    from fastrnn.program.executor import CompiledPlan

    strides = [
        dense_strides(shape, np.dtype(form.dtype).itemsize)
        for form, shape in zip(graph.inputs, shapes, strict=True)
    ]
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
    results = [(view.storage.bytes, view.dtype, view.shape, view.strides, view.offset) for view in views]
    return Plan(CompiledPlan(items, shapes, results, total, tables, owners), views)
