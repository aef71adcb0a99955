"""Functions of two and three numbers: sums, products, quotients, powers, limits."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import special  # type: ignore[import-untyped]

from fastrnn.arrays import Array
from fastrnn.reference.operators.promotion import (
    Operand,
    category,
    compute,
    compute_floating,
    dtype_of,
    floating,
    is_array,
    result_type,
    widened,
)


def _check_weight(name: str, value: complex, *operands: Operand) -> None:
    """A factor of integers may not be a float, one of numbers not a bool."""
    weight, numbers = category(dtype_of(value)), category(result_type(*operands))
    if (weight == 0 < numbers) or weight > max(numbers, 1):
        raise TypeError(f"{name} may be a bool only for bools, and must be whole for integers.")


def _check_real(*operands: Operand) -> None:
    if category(result_type(*operands)) == 3:
        raise TypeError("It takes no complex numbers.")


def _check_floats(*operands: Operand) -> None:
    if category(result_type(*operands)) < 2:
        raise TypeError("It takes no integers.")


def _check_division(*operands: Operand) -> None:
    """Division that rounds takes no bools and no complex numbers, and divides no integer by 0."""
    if category(result_type(*operands)) not in (1, 2):
        raise TypeError("It takes integers and floats.")
    if category(result_type(*operands)) < 2 and not np.all(operands[-1]):
        raise ValueError("An integer divided by 0 has no result.")


# ---------------------------------------------------------------- sums and products


def add(self: Operand, other: Operand, alpha: complex = 1) -> Array:
    """Return self + alpha * other. The sum of bools is their disjunction."""
    _check_weight("alpha", alpha, self, other)
    return compute(lambda a, b: a + alpha * b, self, other)


def sub(self: Operand, other: Operand, alpha: complex = 1) -> Array:
    """Return self - alpha * other."""
    if any(category(dtype_of(operand)) == 0 for operand in (self, other)):
        raise TypeError("It takes no bool. Use logical_xor.")
    _check_weight("alpha", alpha, self, other)
    return compute(lambda a, b: a - alpha * b, self, other)


def rsub(self: Operand, other: Operand, alpha: complex = 1) -> Array:
    """Return other - alpha * self."""
    return sub(other, self, alpha)


def mul(self: Operand, other: Operand) -> Array:
    """Return self * other."""
    return compute(np.multiply, self, other)


def addcmul(self: Operand, tensor1: Operand, tensor2: Operand, value: complex = 1) -> Array:
    """Return self + value * tensor1 * tensor2."""
    if category(result_type(self, tensor1, tensor2)) < 2:
        value = int(np.real(value))
    return compute(lambda a, b, c: a + value * b * c, self, tensor1, tensor2)


def addcdiv(self: Operand, tensor1: Operand, tensor2: Operand, value: complex = 1) -> Array:
    """Return self + value * tensor1 / tensor2."""
    if category(result_type(tensor1, tensor2)) < 2:
        raise TypeError("It divides no integers.")
    return compute(lambda a, b, c: a + value * b / c, self, tensor1, tensor2)


def lerp(self: Operand, end: Operand, weight: Operand) -> Array:
    """Return self + weight * (end - self). With weight 1 it is exactly `end`."""
    near = np.abs(weight) < 0.5

    def line(a: Any, b: Any) -> Any:
        w = np.asarray(weight, np.result_type(a, np.asarray(weight).dtype))
        return np.where(near, a + w * (b - a), b - (b - a) * (1 - w))

    return compute(line, self, end)


def hypot(self: Operand, other: Operand) -> Array:
    """Return the square root of self**2 + other**2, without overflow on the way."""
    _check_floats(self, other)
    _check_real(self, other)
    return compute(np.hypot, self, other)


# ---------------------------------------------------------------- quotients and remainders


def div(self: Operand, other: Operand, rounding_mode: str | None = None) -> Array:
    """Return self / other: in floats, or rounded to 0 ("trunc") or down ("floor"), then in their dtype."""
    if rounding_mode is None:
        return compute_floating(np.divide, self, other)
    if rounding_mode not in ("trunc", "floor"):
        raise ValueError("rounding_mode must be None, 'trunc' or 'floor'.")
    _check_division(self, other)
    if rounding_mode == "floor":
        return compute(np.floor_divide, self, other)
    dtype = result_type(self, other)
    a, b = (np.asarray(operand).astype(dtype) for operand in (self, other))
    if category(dtype) == 2:  # the quotient is rounded to the dtype before it is cut
        return np.asarray(np.trunc(a / b)).astype(dtype)
    return np.asarray(a // b + ((a % b != 0) & ((a < 0) != (b < 0)))).astype(dtype)


def floor_divide(self: Operand, other: Operand) -> Array:
    """Return self / other, rounded down, in their dtype."""
    return div(self, other, "floor")


def fmod(self: Operand, other: Operand) -> Array:
    """Return what division leaves, with the sign of self."""
    _check_division(self, other)
    return compute(np.fmod, self, other)


def remainder(self: Operand, other: Operand) -> Array:
    """Return what division leaves, with the sign of other."""
    _check_division(self, other)
    return compute(np.remainder, self, other)


# ---------------------------------------------------------------- powers and logarithms


def _integer_power(base: Array, exponent: Array) -> Array:
    """Return a power of integers, rounded to 0 if the exponent is negative."""
    parity = np.where(exponent % 2 == 0, 1, base)
    negative = np.where(np.abs(base) == 1, parity, 0)
    return np.asarray(np.where(exponent < 0, negative, base ** np.where(exponent < 0, 0, exponent)))


def pow(self: Operand, exponent: Operand) -> Array:
    """Return self ** exponent."""
    if category(result_type(self, exponent)) >= 2:
        return compute(np.power, self, exponent)
    if category(result_type(self, exponent)) == 0:
        raise TypeError("It takes no bools.")
    if not is_array(exponent) and exponent < 0:  # type: ignore[operator]
        raise ValueError("Integers have no negative powers. Use floats.")
    return compute(_integer_power, self, exponent)


def float_power(self: Operand, exponent: Operand) -> Array:
    """Return self ** exponent in float64, or complex128."""
    is_complex = category(result_type(self, exponent)) == 3
    return compute(np.power, self, exponent, dtype=np.dtype("complex128" if is_complex else "float64"))


def xlogy(self: Operand, other: Operand) -> Array:
    """Return self * log(other): 0 where self is 0 and other is a number."""
    _check_real(self, other)
    return compute_floating(special.xlogy, self, other)


def _complex_logaddexp(a: Array, b: Array) -> Array:
    low, high = np.where(a.real < b.real, a, b), np.where(a.real < b.real, b, a)
    return np.asarray(high + np.log(1 + np.exp(low - high)))


def logaddexp(self: Operand, other: Operand) -> Array:
    """Return log(exp(self) + exp(other)), without overflow."""
    _check_floats(self, other)
    if category(result_type(self, other)) == 3:
        return compute(_complex_logaddexp, self, other)
    return compute(np.logaddexp, self, other)


def logaddexp2(self: Operand, other: Operand) -> Array:
    """Return log2(2**self + 2**other), without overflow."""
    _check_floats(self, other)
    _check_real(self, other)
    return compute(np.logaddexp2, self, other)


def atan2(self: Operand, other: Operand) -> Array:
    """Return the angle of the point (other, self)."""
    return compute_floating(np.arctan2, self, other)


def copysign(self: Operand, other: Operand) -> Array:
    """Return abs(self) with the sign of other."""
    dtype = floating(result_type(self, other))
    return np.asarray(np.copysign(widened(self, dtype), np.asarray(other))).astype(dtype)


# ---------------------------------------------------------------- limits


def maximum(self: Operand, other: Operand) -> Array:
    """Return the larger of two numbers, or NaN if one is NaN."""
    _check_real(self, other)
    return compute(np.maximum, self, other)


def minimum(self: Operand, other: Operand) -> Array:
    """Return the smaller of two numbers, or NaN if one is NaN."""
    _check_real(self, other)
    return compute(np.minimum, self, other)


def fmax(self: Operand, other: Operand) -> Array:
    """Return the larger of two numbers, or the one that is not NaN."""
    _check_real(self, other)
    return compute(np.fmax, self, other)


def fmin(self: Operand, other: Operand) -> Array:
    """Return the smaller of two numbers, or the one that is not NaN."""
    _check_real(self, other)
    return compute(np.fmin, self, other)


def clamp(self: Operand, min: Operand | None = None, max: Operand | None = None) -> Array:
    """Return self in [min, max]. It is max if min is larger."""
    limits = [limit for limit in (min, max) if limit is not None]
    if not limits:
        raise ValueError("It needs min or max.")
    _check_real(self, *limits)
    dtype = result_type(self, *limits)
    result = compute(np.positive, self, dtype=dtype) if category(dtype) else np.asarray(self)
    if min is not None:
        result = compute(np.maximum, result, min, dtype=dtype)
    return result if max is None else compute(np.minimum, result, max, dtype=dtype)


def clamp_min(self: Operand, min: Operand) -> Array:
    """Return self, at least min."""
    return clamp(self, min)


def clamp_max(self: Operand, max: Operand) -> Array:
    """Return self, at most max."""
    return clamp(self, None, max)


ALIASES = {
    "arctan2": "atan2",
    "clip": "clamp",
    "divide": "div",
    "multiply": "mul",
    "special_xlogy": "xlogy",
    "subtract": "sub",
    "true_divide": "div",
}
