"""Loops: steps that are repeated, with values that each step hands to the next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastrnn.graph import Node
from fastrnn.program.views import View

if TYPE_CHECKING:
    from fastrnn.program.planner import Planner


def lower_loop(planner: Planner, node: Node) -> None:
    """Add the steps of a loop's body, and what it gives."""
    loop = node.body
    assert loop is not None
    count = planner.resolve(loop.count)
    if not isinstance(count, int) or count < 0:
        raise planner.error("a loop of no fewer than 0 steps", f"{count}")
    # What the steps read from outside is there before the first one.
    for name in node.values():
        planner.values[name] = planner.view(planner.values[name])
    held: dict[str, View] = {}
    for inner, before, _ in loop.carried:
        first = planner.values[before]
        held[inner] = planner.new(first.dtype, first.shape)
        planner.copy(first, held[inner])
        planner.values[inner] = held[inner]
    collected: dict[str, View] = {}

    def body() -> None:
        for inner_node in loop.nodes:
            planner.lower(inner_node)
        for name in loop.collected:
            view = planner.view(planner.values[name])
            whole = planner.new(view.dtype, (count, *view.shape))
            collected[name] = whole
            planner.copy(view, whole.select(0, 0).replace(advance=whole.strides[0]))
        for name in loop.last:
            planner.values[name] = _own(planner, planner.values[name], held)
        # All next values are there before one takes the place of a value before.
        following = [_own(planner, planner.values[after], held) for _, _, after in loop.carried]
        for (inner, _, _), view in zip(loop.carried, following, strict=True):
            planner.copy(view.expand(held[inner].shape), held[inner])

    planner.loop(count, body)
    if count == 0:
        # What is carried is as before the loop.
        following = {after: inner for inner, _, after in loop.carried}
        for name in loop.last:
            inner = following.get(name, name)
            if inner not in held:
                raise planner.error("a loop of at least one step", "0")
            planner.values[name] = held[inner]
    results = [collected[name] for name in loop.collected] + [planner.values[name] for name in loop.last]
    for output, result in zip(node.outputs, results, strict=True):
        if output is not None:
            planner.values[output] = result


def _own(planner: Planner, value: Any, held: dict[str, View]) -> View:
    """A value that stays when the carried ones change."""
    view = planner.view(value)
    if view.advance or any(view.storage is own.storage for own in held.values()):
        view = planner.copied(view)
    return view
