"""Element-wise operators: one operation of a chain each, or a few."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from fastrnn.program.fusion import Chain, chain
from fastrnn.program.lowering import lowers
from fastrnn.program.types import float_type, result_type
from fastrnn.program.views import FLOATS, StepNumber, View

if TYPE_CHECKING:
    from fastrnn.program.planner import Planner

WHOLE = ("bool", "int32", "int64")
TYPES = (*WHOLE, *FLOATS)


def _is_array(value: Any) -> bool:
    return isinstance(value, (View, Chain))


def _fits(*operands: Any) -> bool:
    """Whether the kernels have these operands' types."""
    return all(
        o.dtype in TYPES
        if _is_array(o)
        else isinstance(o, (bool, int, float)) and not isinstance(o, StepNumber)
        for o in operands
    ) and any(map(_is_array, operands))


def _arithmetic(dtype: str) -> str:
    return "int64" if dtype in WHOLE else dtype


def same_type(planner: Planner, name: str, *operands: Any, parameters: tuple[float, ...] = ()) -> Any:
    """An operation whose result has the operands' type."""
    if not _fits(*operands):
        return NotImplemented
    dtype = result_type(operands)
    return chain(planner, name, operands, _arithmetic(dtype), dtype, parameters)


def real(planner: Planner, name: str, *operands: Any, parameters: tuple[float, ...] = ()) -> Any:
    """An operation of real numbers."""
    if not _fits(*operands):
        return NotImplemented
    dtype = float_type(result_type(operands))
    if dtype == "float32" and any(_is_array(o) and o.dtype in ("int32", "int64") for o in operands):
        operands = tuple(to_type(planner, o, dtype) if _is_array(o) else o for o in operands)
    return chain(planner, name, operands, dtype, dtype, parameters)


def truth(planner: Planner, name: str, *operands: Any) -> Any:
    """A comparison."""
    if not _fits(*operands):
        return NotImplemented
    dtype = result_type(operands)
    return chain(planner, name, operands, _arithmetic(dtype), "bool")


def to_type(planner: Planner, value: Any, dtype: str) -> Any:
    """A value in another type."""
    if value.dtype == dtype:
        return value
    if value.dtype not in TYPES or dtype not in TYPES:
        return NotImplemented
    view = planner.view(value)
    if view.dtype in WHOLE and dtype in WHOLE:
        if dtype == "bool":
            return chain(planner, "ne", (view, 0), "int64", "bool")
        return chain(planner, "copy", (view,), "int64", dtype)
    if dtype == "bool":
        return chain(planner, "ne", (view, 0.0), view.dtype, "bool")
    if dtype in WHOLE:
        target = planner.new(dtype, view.shape)
        planner.copy(view, target)
        return target
    arithmetic = "float64" if view.dtype in ("int32", "int64", "float64") else dtype
    return chain(planner, "copy", (view,), arithmetic, dtype)


# ---------------------------------------------------------------- of one array


def _operations(names: str, **others: str) -> dict[str, str]:
    """Operations by operator: most have its name, others another one."""
    return {name: name for name in names.split()} | others


REAL = _operations(
    """
    sqrt rsqrt exp exp2 expm1 log log2 log10 log1p sin cos tan asin acos atan sinh cosh tanh sigmoid erf
    reciprocal silu mish tanhshrink softsign
    """,
    arctan="atan",
    log_sigmoid="logsigmoid",
    special_erf="erf",
)
SAME = _operations("neg abs sign relu", negative="neg", absolute="abs")
FLOATS_ONLY = _operations("floor ceil trunc frac hardsigmoid hardswish relu6 selu", fix="trunc")
BINARY = _operations("mul maximum minimum remainder fmod", multiply="mul")
COMPARISONS = _operations(
    "eq ne lt le gt ge logical_and logical_or logical_xor",
    not_equal="ne",
    less="lt",
    less_equal="le",
    greater="gt",
    greater_equal="ge",
)


def _register() -> None:
    for name, operation in REAL.items():
        lowers(name)(lambda planner, self, _operation=operation: real(planner, _operation, self))
    for name, operation in SAME.items():
        lowers(name)(lambda planner, self, _operation=operation: _same(planner, _operation, self))
    for name, operation in FLOATS_ONLY.items():
        lowers(name)(lambda planner, self, _operation=operation: _float(planner, _operation, self))
    for name, operation in BINARY.items():
        lowers(name)(
            lambda planner, self, other, _operation=operation: _binary(planner, _operation, self, other)
        )
    for name, operation in COMPARISONS.items():
        lowers(name)(
            lambda planner, self, other, _operation=operation: truth(planner, _operation, self, other)
        )


def _same(planner: Planner, operation: str, self: Any) -> Any:
    if self.dtype == "bool" or (operation == "relu" and self.dtype in WHOLE):
        return NotImplemented
    return same_type(planner, operation, self)


def _float(planner: Planner, operation: str, self: Any) -> Any:
    return NotImplemented if self.dtype in WHOLE else same_type(planner, operation, self)


def _binary(planner: Planner, operation: str, self: Any, other: Any) -> Any:
    if _fits(self, other) and result_type((self, other)) == "bool":
        return NotImplemented
    return same_type(planner, operation, self, other)


_register()


@lowers("square")
def square(planner: Planner, self: Any) -> Any:
    return NotImplemented if self.dtype == "bool" else same_type(planner, "square", self)


@lowers("logical_not")
def logical_not(planner: Planner, self: Any) -> Any:
    return truth(planner, "logical_not", self)


@lowers("bitwise_not")
def bitwise_not(planner: Planner, self: Any) -> Any:
    return truth(planner, "logical_not", self) if self.dtype == "bool" else NotImplemented


@lowers("bitwise_and", "__and__", "bitwise_or", "__or__")
def bitwise(planner: Planner, self: Any, other: Any) -> Any:
    name = planner.operator.removeprefix("bitwise_").strip("_")
    if not _fits(self, other):
        return NotImplemented
    dtype = result_type((self, other))
    if dtype == "bool":
        return truth(planner, f"logical_{name}", self, other)
    return same_type(planner, f"bitwise_{name}", self, other) if dtype in WHOLE else NotImplemented


@lowers("isnan", "isinf", "isfinite")
def is_special(planner: Planner, self: Any) -> Any:
    if self.dtype in WHOLE:
        return NotImplemented
    return truth(planner, planner.operator, self)


# ---------------------------------------------------------------- arithmetic


@lowers("add")
def add(planner: Planner, self: Any, other: Any, alpha: Any = 1) -> Any:
    return _sum(planner, "add", self, other, alpha)


@lowers("sub", "subtract")
def sub(planner: Planner, self: Any, other: Any, alpha: Any = 1) -> Any:
    return _sum(planner, "sub", self, other, alpha)


@lowers("rsub")
def rsub(planner: Planner, self: Any, other: Any, alpha: Any = 1) -> Any:
    return _sum(planner, "sub", other, self, alpha)


def _sum(planner: Planner, name: str, self: Any, other: Any, alpha: Any) -> Any:
    if not _fits(self, other) or result_type((self, other)) == "bool":
        return NotImplemented
    if alpha != 1:
        other = other * alpha if not _is_array(other) else same_type(planner, "mul", other, alpha)
        if other is NotImplemented:
            return NotImplemented
    return same_type(planner, name, self, other)


@lowers("div", "divide", "true_divide")
def div(planner: Planner, self: Any, other: Any, rounding_mode: Any = None) -> Any:
    if rounding_mode is None:
        return real(planner, "div", self, other)
    if not _fits(self, other):
        return NotImplemented
    dtype = result_type((self, other))
    if dtype in WHOLE:
        name = "floor_divide" if rounding_mode == "floor" else "trunc_divide"
        return NotImplemented if dtype == "bool" else same_type(planner, name, self, other)
    if rounding_mode == "floor":
        return same_type(planner, "floor_divide", self, other)
    return chain(planner, "trunc", (real(planner, "div", self, other),), dtype, dtype)


@lowers("floor_divide")
def floor_divide(planner: Planner, self: Any, other: Any) -> Any:
    return div(planner, self, other, "floor")


@lowers("pow")
def power(planner: Planner, self: Any, exponent: Any) -> Any:
    if not _fits(self, exponent):
        return NotImplemented
    dtype = result_type((self, exponent))
    if dtype in WHOLE:
        return NotImplemented
    if not _is_array(exponent):
        exponent = float(exponent)
    return same_type(planner, "pow", self, exponent)


@lowers("atan2", "arctan2")
def atan2(planner: Planner, self: Any, other: Any) -> Any:
    return real(planner, "atan2", self, other)


@lowers("where")
def where(planner: Planner, condition: Any, self: Any = None, other: Any = None) -> Any:
    if self is None or not _fits(condition, self, other) or condition.dtype != "bool":
        return NotImplemented
    dtype = result_type((self, other))
    return chain(planner, "where", (condition, self, other), _arithmetic(dtype), dtype)


@lowers("masked_fill")
def masked_fill(planner: Planner, self: Any, mask: Any, value: Any) -> Any:
    if not _fits(self, mask, value) or mask.dtype != "bool":
        return NotImplemented
    return chain(planner, "where", (mask, value, self), _arithmetic(self.dtype), self.dtype)


@lowers("clamp", "clip")
def clamp(planner: Planner, self: Any, min: Any = None, max: Any = None) -> Any:
    given = [bound for bound in (min, max) if bound is not None]
    if not given or not _fits(self, *given):
        return NotImplemented
    dtype = result_type((self, *given))
    if dtype == "bool":
        return NotImplemented
    if not any(map(_is_array, given)) and dtype not in WHOLE:
        low = -math.inf if min is None else float(min)
        high = math.inf if max is None else float(max)
        return (
            same_type(planner, "clamp", self, parameters=(low, high))
            if dtype == self.dtype
            else NotImplemented
        )
    value = self
    if min is not None:
        value = chain(planner, "maximum", (value, min), _arithmetic(dtype), dtype)
    if max is not None:
        value = chain(planner, "minimum", (value, max), _arithmetic(dtype), dtype)
    return value


@lowers("clamp_min")
def clamp_min(planner: Planner, self: Any, min: Any) -> Any:
    return clamp(planner, self, min)


@lowers("clamp_max")
def clamp_max(planner: Planner, self: Any, max: Any) -> Any:
    return clamp(planner, self, None, max)


@lowers("addcmul")
def addcmul(planner: Planner, self: Any, tensor1: Any, tensor2: Any, value: Any = 1) -> Any:
    if not _fits(self, tensor1, tensor2) or result_type((self, tensor1, tensor2)) in WHOLE:
        return NotImplemented
    return same_type(planner, "addcmul", self, tensor1, tensor2, parameters=(float(value),))


@lowers("lerp")
def lerp(planner: Planner, self: Any, end: Any, weight: Any) -> Any:
    if not _fits(self, end, weight):
        return NotImplemented
    return same_type(planner, "lerp", self, end, weight)


# ---------------------------------------------------------------- activations


@lowers("leaky_relu")
def leaky_relu(planner: Planner, self: Any, negative_slope: float = 0.01) -> Any:
    return same_type(planner, "leaky_relu", self, parameters=(float(negative_slope),))


@lowers("elu")
def elu(planner: Planner, self: Any, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> Any:
    return same_type(planner, "elu", self, parameters=(float(alpha), float(scale), float(input_scale)))


@lowers("celu")
def celu(planner: Planner, self: Any, alpha: float = 1.0) -> Any:
    return same_type(planner, "elu", self, parameters=(float(alpha), 1.0, 1.0 / alpha))


@lowers("gelu")
def gelu(planner: Planner, self: Any, approximate: str = "none") -> Any:
    return same_type(planner, "gelu" if approximate == "none" else "gelu_tanh", self)


@lowers("softplus")
def softplus(planner: Planner, self: Any, beta: float = 1, threshold: float = 20) -> Any:
    return same_type(planner, "softplus", self, parameters=(float(beta), float(threshold)))


@lowers("hardtanh")
def hardtanh(planner: Planner, self: Any, min_val: float = -1, max_val: float = 1) -> Any:
    if self.dtype in WHOLE:
        return NotImplemented
    return same_type(planner, "clamp", self, parameters=(float(min_val), float(max_val)))


@lowers("softshrink")
def softshrink(planner: Planner, self: Any, lambd: float = 0.5) -> Any:
    return same_type(planner, "softshrink", self, parameters=(float(lambd),))


@lowers("hardshrink")
def hardshrink(planner: Planner, self: Any, lambd: float = 0.5) -> Any:
    return same_type(planner, "hardshrink", self, parameters=(float(lambd),))


@lowers("threshold")
def threshold(planner: Planner, self: Any, threshold: float, value: float) -> Any:
    if self.dtype in WHOLE:
        return NotImplemented
    return same_type(planner, "threshold", self, parameters=(float(threshold), float(value)))


@lowers("prelu")
def prelu(planner: Planner, self: Any, weight: Any) -> Any:
    if not _fits(self, weight) or self.dtype != weight.dtype:
        return NotImplemented
    weight = planner.view(weight)
    if weight.size == 1 and weight.is_constant:
        slope = float(weight.array().reshape(()))
        return same_type(planner, "leaky_relu", self, parameters=(slope,))
    slopes = weight.reshape((weight.size, *[1] * max(0, self.ndim - 2))) if self.ndim > 1 else weight
    if slopes is None:
        return NotImplemented
    view = planner.view(self)
    scaled = same_type(planner, "mul", slopes, view)
    positive = chain(planner, "gt", (view, 0.0), view.dtype, view.dtype)
    return chain(planner, "where", (positive, view, scaled), view.dtype, view.dtype)


@lowers("glu")
def glu(planner: Planner, self: Any, dim: int = -1) -> Any:
    view = planner.view(self)
    axis = dim % view.ndim
    half = view.shape[axis] // 2
    gate = real(planner, "sigmoid", view.slice(axis, half, half))
    return (
        NotImplemented
        if gate is NotImplemented
        else same_type(planner, "mul", view.slice(axis, 0, half), gate)
    )


@lowers("to", "_to_copy", "type_as")
def to(planner: Planner, self: Any, dtype: Any = None, other: Any = None, **_: Any) -> Any:
    if other is not None:
        dtype = other.dtype
    return self if dtype is None else to_type(planner, self, dtype)
