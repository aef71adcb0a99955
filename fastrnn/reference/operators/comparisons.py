"""Comparisons, logic, bits, and choices that depend on them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastrnn.arrays import Array
from fastrnn.reference.operators.promotion import (
    Operand,
    category,
    compute,
    dtype_of,
    is_array,
    result_type,
)


def _comparison(function: Callable[..., Any], is_order: bool = True) -> Callable[[Operand, Operand], Array]:
    """Return the operator that compares numbers in their common dtype."""

    def operator(self: Operand, other: Operand) -> Array:
        dtype = result_type(self, other)
        if is_order and category(dtype) == 3:
            raise TypeError("Complex numbers have no order.")
        if category(dtype) == 1:  # a number may be outside the range of the integers
            return np.asarray(function(self, other))
        return np.asarray(function(np.asarray(self).astype(dtype), np.asarray(other).astype(dtype)))

    return operator


def _logic(function: Callable[..., Any]) -> Callable[[Operand, Operand], Array]:
    """Return the operator that takes every number except 0 as true."""

    def operator(self: Operand, other: Operand) -> Array:
        return np.asarray(function(self, other))

    return operator


def _bits(function: Callable[..., Any]) -> Callable[[Operand, Operand], Array]:
    """Return an operator of integers and bools."""

    def operator(self: Operand, other: Operand) -> Array:
        if category(result_type(self, other)) > 1:
            raise TypeError("It takes integers and bools.")
        return compute(function, self, other)

    return operator


def _shift(function: Callable[..., Any], beyond: Callable[[Any], Any]) -> Callable[[Operand, Operand], Array]:
    """Return an operator that shifts integers. By less than 0, or all bits, the result is `beyond`."""

    def shift(a: Any, b: Any) -> Any:
        outside = (b < 0) | (b >= 8 * a.dtype.itemsize)
        return np.where(outside, beyond(a), function(a, np.where(outside, 0, b)))

    def operator(self: Operand, other: Operand) -> Array:
        dtype = result_type(self, other)
        if category(dtype) == 2:
            return compute(lambda a, b: function(1.0, b, a), self, other)
        if category(dtype) != 1:
            raise TypeError("It takes integers.")
        return compute(shift, self, other)

    return operator


eq = _comparison(np.equal, is_order=False)
ne = _comparison(np.not_equal, is_order=False)
lt = _comparison(np.less)
le = _comparison(np.less_equal)
gt = _comparison(np.greater)
ge = _comparison(np.greater_equal)

logical_and = _logic(np.logical_and)
logical_or = _logic(np.logical_or)
logical_xor = _logic(np.logical_xor)

bitwise_and = _bits(np.bitwise_and)
bitwise_or = _bits(np.bitwise_or)
bitwise_xor = _bits(np.bitwise_xor)
bitwise_left_shift = _shift(np.left_shift, np.zeros_like)
bitwise_right_shift = _shift(np.right_shift, lambda a: np.where(a < 0, -1, 0))


def logical_not(self: Operand) -> Array:
    """Whether self is 0."""
    return np.asarray(np.logical_not(self))


def bitwise_not(self: Operand) -> Array:
    """Return the complement of every bit."""
    if category(dtype_of(self)) > 1:
        raise TypeError("It takes integers and bools.")
    return np.asarray(np.invert(self))


def isnan(self: Operand) -> Array:
    """Whether self is NaN."""
    return np.asarray(np.isnan(self))


def isinf(self: Operand) -> Array:
    """Whether self is an infinity."""
    return np.asarray(np.isinf(self))


def isfinite(self: Operand) -> Array:
    """Whether self is neither NaN nor an infinity."""
    return np.asarray(np.isfinite(self))


def isposinf(self: Array) -> Array:
    """Whether self is +inf."""
    return np.asarray(np.isposinf(self))


def isneginf(self: Array) -> Array:
    """Whether self is -inf."""
    return np.asarray(np.isneginf(self))


def isclose(
    self: Operand, other: Operand, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> Array:
    """Whether abs(self - other) <= atol + rtol * abs(other)."""
    if rtol < 0 or atol < 0:
        raise ValueError("rtol and atol must be at least 0.")
    return np.asarray(np.isclose(self, other, rtol, atol, equal_nan))


def equal(self: Array, other: Array) -> Array:
    """Whether shapes and all numbers are equal."""
    return np.asarray(np.array_equal(self, other))


def where(condition: Array, self: Operand | None = None, other: Operand | None = None) -> Any:
    """Return self where the condition holds, else other. Given the condition alone: where it holds."""
    if self is None or other is None:
        return tuple(np.nonzero(np.atleast_1d(condition)))
    dtype = result_type(self, other)
    return np.where(condition, np.asarray(self).astype(dtype), np.asarray(other).astype(dtype))


def masked_fill(self: Array, mask: Array, value: Operand) -> Array:
    """Return self, and the value where the mask holds, in self's dtype."""
    if mask.dtype != bool:
        raise TypeError("The mask must be bool.")
    if is_array(value) and np.ndim(value):
        raise ValueError("The value must have no axes.")
    if category(dtype_of(value)) == 3 and 0 < category(self.dtype) < 3:
        raise TypeError(f"The value cannot become {self.dtype}.")
    if category(self.dtype) == 1 and not np.isfinite(value):
        raise OverflowError(f"The value cannot become {self.dtype}.")
    return np.asarray(np.where(mask, np.asarray(value).astype(self.dtype), self))


ALIASES = {
    "__and__": "bitwise_and",
    "__lshift__": "bitwise_left_shift",
    "__or__": "bitwise_or",
    "__rshift__": "bitwise_right_shift",
    "__xor__": "bitwise_xor",
    "greater": "gt",
    "greater_equal": "ge",
    "less": "lt",
    "less_equal": "le",
    "not_equal": "ne",
}
