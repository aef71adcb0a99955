"""What a map is, in plain Python: the operations that kernels have alone, and the axes that are left of a
shape."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

# The parameters that torch gives an operation where none are said.
DEFAULTS = {
    "elu": (1.0, 1.0, 1.0),
    "leaky_relu": (0.01,),
    "softplus": (1.0, 20.0),
    "softshrink": (0.5,),
    "hardshrink": (0.5,),
    "addcmul": (1.0,),
    "addcdiv": (1.0,),
}


class Scalar(NamedTuple):
    """An operand that is the same number for all elements."""

    value: float


Operand = Scalar | int
Array = tuple[str, Sequence[int]]
Operation = tuple[str, list[Operand], tuple[float, ...]]
Output = tuple[str, Sequence[int], Operand]

# Operations that take more than a few instructions.
SLOW = {
    "exp",
    "expm1",
    "log",
    "log2",
    "log10",
    "log1p",
    "exp2",
    "sin",
    "cos",
    "tan",
    "asin",
    "acos",
    "atan",
    "sinh",
    "cosh",
    "tanh",
    "erf",
    "sigmoid",
    "gelu",
    "gelu_tanh",
    "silu",
    "mish",
    "logsigmoid",
    "tanhshrink",
    "elu",
    "softplus",
    "pow",
    "atan2",
    "fmod",
    "remainder",
    "floor_divide",
    "trunc_divide",
}


def plain_program(
    program: Sequence[Operation], outputs: list[Output], inputs: Sequence[Array]
) -> tuple[list[Operation], list[Output]]:
    """A program with operations that kernels have alone, and with outputs that are results or whole
    inputs."""
    count = len(inputs)
    plain: list[Operation] = []
    places = {i: i for i in range(count)}

    def emit(name: str, operands: list[Operand], parameters: tuple[float, ...] = ()) -> int:
        plain.append((name, operands, parameters))
        return count + len(plain) - 1

    for i, (name, operands, parameters) in enumerate(program):
        operands = [operand if isinstance(operand, Scalar) else places[operand] for operand in operands]
        places[count + i] = emit_plain(emit, name, operands, parameters)
    for i, (dtype, strides, operand) in enumerate(outputs):
        if not isinstance(operand, Scalar):
            operand = places[operand]
        if isinstance(operand, Scalar) or (operand < count and (len(outputs) > 1 or 0 in inputs[operand][1])):
            operand = emit("copy", [operand])
        outputs[i] = dtype, strides, operand
    return plain, outputs


def emit_plain(
    emit: Callable[..., int], name: str, operands: list[Operand], parameters: tuple[float, ...]
) -> int:
    """Emit an operation as what kernels have. Return the number of its value."""
    if name == "relu6":
        return emit("clamp", operands, (0.0, 6.0))
    if name == "selu":
        return emit(
            "elu", operands, (1.6732632423543772848170429916717, 1.0507009873554804934193349852946, 1.0)
        )
    if name == "pow" and isinstance(operands[1], Scalar) and isinstance(operands[1].value, float):
        # As torch does: products and roots.
        x, power = operands[0], operands[1].value
        single = {1.0: "copy", 2.0: "square", 0.5: "sqrt", -0.5: "rsqrt", -1.0: "reciprocal"}
        if power in single:
            return emit(single[power], [x])
        if power == 3:
            return emit("mul", [emit("square", [x]), x])
        if power == -2:
            return emit("reciprocal", [emit("square", [x])])
    return emit(name, operands, parameters)


def collapse(sizes: Sequence[int], strides: Sequence[Sequence[int]]) -> tuple[list[int], list[list[int]]]:
    """Axes of one element go, and neighbours that lie together in all arrays become one; one axis is left
    at least."""
    kept = [axis for axis, size in enumerate(sizes) if size != 1]
    merged: list[int] = []
    lines: list[list[int]] = [[] for _ in strides]
    for axis in kept:
        size = sizes[axis]
        if merged and all(line[-1] == size * array[axis] for line, array in zip(lines, strides, strict=True)):
            merged[-1] *= size
            for line, array in zip(lines, strides, strict=True):
                line[-1] = array[axis]
        else:
            merged.append(size)
            for line, array in zip(lines, strides, strict=True):
                line.append(array[axis])
    if not merged:
        return [1], [[0] for _ in strides]
    return merged, lines


def turned_axis(strides: Sequence[Sequence[int]]) -> int | None:
    """The axis along which an array lies that does not lie along the last one. Both are taken together, in
    blocks. None if all arrays lie along the last axis."""
    near = [
        (abs(own[axis]), axis)
        for own in strides
        for axis in range(len(own) - 1)
        if 0 < abs(own[axis]) < abs(own[-1])
    ]
    return min(near)[1] if near else None
