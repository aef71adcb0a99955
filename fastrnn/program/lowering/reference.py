"""Any operator by its definition in NumPy: at plan time for constants, else as a step that calls it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn.errors import message
from fastrnn.graph import all_nodes
from fastrnn.program.fusion import Chain
from fastrnn.program.views import StepNumber, View

if TYPE_CHECKING:
    from fastrnn.program.planner import Planner


def fallback(planner: Planner, operator: str, arguments: Mapping[str, Any]) -> Any:
    """The results of an operator that no lowering takes."""
    function = planner.tools.references.get(operator)
    if function is None:
        raise ValueError(missing(planner.graph, operator))
    views: list[View] = []
    arguments = {name: _with_views(planner, value, views) for name, value in arguments.items()}
    if all(view.is_constant for view in views):
        results = function(**_filled(arguments, [view.array() for view in views]))
        return _each(results, planner.constant)
    try:
        samples, given = _sample(function, arguments, views, np.zeros)
    except (ValueError, IndexError) as error:
        # The definition says what is wrong in the error that it wraps.
        got = str(error.__cause__ or error).rstrip(".")
        raise planner.error("arguments that fit together", f"others: {got}") from error
    if _depends_on_numbers(function, arguments, views, given):
        raise planner.error("a result whose shape depends on sizes alone", "one that depends on numbers")
    targets = [None if array is None else planner.new(array.dtype.name, array.shape) for array in given]
    kept = [index for index, target in enumerate(targets) if target is not None]
    views_of_results = [target for target in targets if target is not None]
    from fastrnn.program.executor import ReferenceStep

    step = ReferenceStep(
        operator,
        lambda *arrays: _listed(function(**_filled(arguments, arrays)), kept),
        [(view.dtype, view.shape, view.strides) for view in views],
        [(view.dtype, view.shape, view.strides) for view in views_of_results],
    )
    planner.add(step, views, views_of_results, is_needed=True)
    return targets if isinstance(samples, (tuple, list)) else targets[0]


def _sample(
    function: Any, arguments: Mapping[str, Any], views: list[View], make: Any
) -> tuple[Any, list[Any]]:
    """What an operator gives for constants and arrays of one number: the results, and a list of them."""
    arrays = [view.array() if view.is_constant else make(view.shape, view.dtype) for view in views]
    with np.errstate(all="ignore"):
        samples = function(**_filled(arguments, arrays))
    return samples, [
        None if array is None else np.asarray(array)
        for array in (samples if isinstance(samples, (tuple, list)) else [samples])
    ]


def _listed(results: Any, kept: list[int]) -> list[Any]:
    """Those of an operator's results that are arrays."""
    results = results if isinstance(results, (tuple, list)) else [results]
    return [results[index] for index in kept]


def _depends_on_numbers(
    function: Any, arguments: Mapping[str, Any], views: list[View], given: Sequence[Any]
) -> bool:
    """Whether the shapes of the results are others for other numbers."""
    try:
        _, others = _sample(function, arguments, views, np.ones)
    except (ValueError, IndexError):  # they are no indices here
        return False
    return [np.shape(array) for array in given] != [np.shape(array) for array in others]


def missing(graph: Any, operator: str) -> str:
    """The message for an operator that there is not."""
    uses = [node.where for node in all_nodes(graph.nodes) if node.operator == operator]
    places = [where for where in dict.fromkeys(uses) if where]
    times = "once" if len(uses) == 1 else f"{len(uses)} times"
    hint = f"It is used {times}{', first at ' + places[0] if places else ''}."
    return message("program", "operators that fastrnn has", operator, hint)


class _At:
    """The place of an array among those of a call."""

    def __init__(self, index: int) -> None:
        self.index = index


def _with_views(planner: Planner, value: Any, views: list[View]) -> Any:
    if isinstance(value, View) and value.is_narrow:
        return value.weight()
    if isinstance(value, (View, Chain)):
        views.append(planner.view(value))
        return _At(len(views) - 1)
    if isinstance(value, StepNumber):
        raise planner.error(
            "arguments that are the same in all steps of a loop", f"{planner.operator} with another one"
        )
    if type(value) is tuple:
        return tuple(_with_views(planner, part, views) for part in value)
    return value


def _filled(arguments: Mapping[str, Any], arrays: Any) -> dict[str, Any]:
    return {name: _fill(value, arrays) for name, value in arguments.items()}


def _fill(value: Any, arrays: Any) -> Any:
    if isinstance(value, _At):
        return arrays[value.index]
    return tuple(_fill(part, arrays) for part in value) if type(value) is tuple else value


def _each(results: Any, change: Any) -> Any:
    if isinstance(results, (tuple, list)):
        return [None if part is None else change(part) for part in results]
    return change(results)
