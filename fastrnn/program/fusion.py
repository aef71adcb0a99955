"""Element-wise operators: chains of them become one step that passes over the elements once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastrnn.program.views import View

if TYPE_CHECKING:
    from fastrnn.program.planner import Planner

MOST_OPERATIONS = 24
MOST_INPUTS = 10
ARITHMETICS = {"float32": "float32", "float64": "float64"}


class Operation(NamedTuple):
    """An operation of a chain. Operands are Views, Operations, or numbers."""

    name: str
    operands: tuple[Any, ...]
    parameters: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Chain:
    """A value that element-wise operations give, which is not computed yet.

    Attributes
    ----------
    arithmetic : str
        The type in which it is computed: "float32", "float64" or "int64".
    operation : Operation
    dtype : str
    shape : tuple of int
    """

    arithmetic: str
    operation: Operation
    dtype: str
    shape: tuple[int, ...]

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def computed(self, planner: Planner, target: View | None = None) -> View:
        """Add the step that computes it, and return where it lies."""
        inputs: list[View] = []
        program: list[tuple[str, list[Any], tuple[float, ...]]] = []
        _flatten(self.operation, inputs, [])
        places = {_key(view): index for index, view in enumerate(inputs)}
        numbers: dict[int, int] = {}
        result = _emit(self.operation, places, len(inputs), program, numbers)
        if target is None:
            target = planner.new(self.dtype, self.shape, _order(self.shape, inputs))
        step = map_step(planner, self.arithmetic, self.shape, inputs, program, [(target, result)])
        in_place = [
            index
            for index, view in enumerate(inputs)
            if view.dtype == target.dtype and view.shape == target.shape and view.strides == target.strides
        ]
        planner.add(step, inputs, [target], in_place)
        return target


def chain(
    planner: Planner,
    name: str,
    operands: Sequence[Any],
    arithmetic: str,
    dtype: str,
    parameters: Sequence[float] = (),
) -> Chain:
    """Return the value of an element-wise operation. Operands are Views, Chains and numbers."""
    shape = np.broadcast_shapes(*(o.shape for o in operands if isinstance(o, (View, Chain))))
    fused: list[Any] = []
    inputs: list[View] = []
    count = 1
    for operand in operands:
        if isinstance(operand, Chain):
            own: list[View] = []
            counted: list[int] = []
            _flatten(operand.operation, own, counted)
            is_same = (
                operand.arithmetic == arithmetic and operand.shape == shape and operand.dtype == arithmetic
            )
            union = {_key(view) for view in (*inputs, *own)}
            if is_same and count + len(counted) <= MOST_OPERATIONS and len(union) <= MOST_INPUTS:
                count += len(counted)
                inputs += own
                fused.append(operand.operation)
                continue
            operand = operand.computed(planner)
        if isinstance(operand, View):
            inputs.append(operand)
            operand = operand.expand(shape)
        fused.append(operand)
    return Chain(arithmetic, Operation(name, tuple(fused), tuple(parameters)), dtype, tuple(shape))


def map_step(
    planner: Planner,
    arithmetic: str,
    shape: Sequence[int],
    inputs: Sequence[View],
    program: Sequence[Any],
    outputs: Sequence[tuple[View, int]],
) -> Any:
    from fastrnn.program.steps import MapStep

    kernels = planner.tools.kernels[arithmetic if arithmetic in ARITHMETICS else "float32"]
    return MapStep(
        kernels,
        arithmetic,
        tuple(shape),
        [(view.dtype, view.strides) for view in inputs],
        list(program),
        [(view.dtype, view.strides, value) for view, value in outputs],
    )


def copy_step(planner: Planner, source: View, target: View) -> Any:
    """The step that copies a value, to another type if theirs differ."""
    whole = {"bool", "int32", "int64"}
    if source.dtype in whole and target.dtype in whole:
        arithmetic = "int64"
    else:
        arithmetic = "float64" if "float64" in (source.dtype, target.dtype) else "float32"
    if source.dtype in whole - {"bool"} and target.dtype == "float32":
        arithmetic = "float64"
    return map_step(planner, arithmetic, source.shape, [source], [("copy", [0], ())], [(target, 1)])


def _key(view: View) -> tuple[Any, ...]:
    return (id(view.storage), view.offset, view.dtype, view.shape, view.strides, view.advance)


def _flatten(
    operation: Operation, inputs: list[View], operations: list[int], seen: set[int] | None = None
) -> None:
    """Collect the inputs of an operation, each once, and count its operations."""
    seen = set() if seen is None else seen
    if id(operation) in seen:
        return
    seen.add(id(operation))
    operations.append(1)
    for part in operation.operands:
        if isinstance(part, Operation):
            _flatten(part, inputs, operations, seen)
        elif isinstance(part, View) and all(_key(part) != _key(view) for view in inputs):
            inputs.append(part)


def _emit(
    operation: Operation, places: dict[Any, int], count: int, program: list[Any], numbers: dict[int, int]
) -> int:
    from fastrnn.program.map_program import Scalar

    if id(operation) in numbers:
        return numbers[id(operation)]
    operands: list[Any] = []
    for part in operation.operands:
        if isinstance(part, Operation):
            operands.append(_emit(part, places, count, program, numbers))
        elif isinstance(part, View):
            operands.append(places[_key(part)])
        else:
            operands.append(Scalar(part))
    program.append((operation.name, operands, operation.parameters))
    numbers[id(operation)] = count + len(program) - 1
    return numbers[id(operation)]


def _order(shape: Sequence[int], inputs: Sequence[View]) -> list[int] | None:
    """The order of axes in memory: that of the first input that is as large."""
    for view in inputs:
        if 0 not in (stride for stride, size in zip(view.strides, shape, strict=True) if size != 1):
            return sorted(
                range(len(shape)), key=lambda axis: -abs(view.strides[axis]) if shape[axis] != 1 else 0
            )
    return None
