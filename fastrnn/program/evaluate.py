"""A graph by the definitions of its operators: what a program computes, slowly."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from fastrnn.arrays import Array
from fastrnn.errors import brief_error, message
from fastrnn.graph import Graph, Loop, Node, Size, Value

# What operators raise for arguments that do not fit. Files may hold arguments of any kind.
UNFIT = (
    TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError, StopIteration,
)  # fmt: skip


def evaluate(graph: Graph, inputs: Mapping[str, Array], wanted: Sequence[str]) -> list[Array]:
    """Return the values of these names. Nodes that none of them needs do not run.

    Raises
    ------
    ValueError
        The arguments of an operator do not fit, in whatever way: a graph may come from a file that anyone
        wrote.
    """
    from fastrnn.reference.operators import OPERATORS

    values: dict[str, Any] = {**graph.constants, **inputs}
    needed = set(wanted)
    for node in reversed(graph.nodes):
        if needed.intersection(node.outputs):
            needed.update(node.values())
    nodes = [node for node in graph.nodes if needed.intersection(node.outputs)]
    with np.errstate(all="ignore"):
        _run(nodes, values, OPERATORS, 0)
    for name in wanted:
        if name not in values:
            raise ValueError(message("program", f"a node that gives {name}", "none"))
    return [values[name] for name in wanted]


def _run(nodes: Iterable[Node], values: dict[str, Any], operators: Mapping[str, Any], step: int) -> None:
    def read(size: Size) -> int:
        if size.operator == "dim":
            return int(values[size.left].shape[size.right])
        return int(values[size.left].max()) if size.operator == "largest" else step

    def resolved(argument: Any) -> Any:
        if isinstance(argument, Value):
            return values[argument.name]
        if isinstance(argument, Size):
            return argument.evaluate(read)
        return tuple(map(resolved, argument)) if isinstance(argument, tuple) else argument

    for node in nodes:
        try:
            if node.body is not None:
                results: Any = _loop(node.body, resolved(node.body.count), values, operators)
            else:
                arguments = {name: resolved(argument) for name, argument in node.arguments.items()}
                results = operators[node.operator](**arguments)
        except UNFIT as error:
            if isinstance(error, ValueError) and ": expected " in str(error):
                raise
            hint = f"At {node.where}" if node.where else ""
            got = brief_error(error)
            raise ValueError(message(node.operator, "arguments that fit together", got, hint)) from error
        given = results if isinstance(results, (tuple, list)) else [results]
        values.update((n, r) for n, r in zip(node.outputs, given, strict=False) if n is not None)


def _loop(loop: Loop, count: int, values: Mapping[str, Any], operators: Mapping[str, Any]) -> list[Any]:
    inner = dict(values)
    for name, before, _ in loop.carried:
        inner[name] = values[before]
    collected: dict[str, list[Any]] = {name: [] for name in loop.collected}
    last: list[Any] = []
    for step in range(count):
        _run(loop.nodes, inner, operators, step)
        for name, parts in collected.items():
            parts.append(inner[name])
        last = [inner[name] for name in loop.last]
        following = [inner[after] for _, _, after in loop.carried]
        inner.update((name, value) for (name, _, _), value in zip(loop.carried, following, strict=True))
    if count == 0:
        # What is carried is as before the loop. Shapes are those that a step would give.
        inner.update((after, inner[name]) for name, _, after in loop.carried)
        shown = dict(inner)
        _run(loop.nodes, shown, operators, 0)
        empty = [np.empty((0, *np.shape(shown[name])), np.asarray(shown[name]).dtype) for name in collected]
        return empty + [inner[name] for name in loop.last]
    return [np.stack(parts) for parts in collected.values()] + last
