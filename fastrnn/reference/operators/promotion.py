"""The dtype of a result, and operands in it.

Torch ranks dtypes by category: bool, integers, floats, complex numbers. In each category, arrays with axes
come before 0-d arrays, and both before Python scalars: an operand decides the dtype only if its category is
above that of all who come before it. https://docs.pytorch.org/docs/stable/tensor_attributes.html
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from fastrnn.arrays import Array

# An array, or a Python scalar (bool, int, float or complex).
Operand: TypeAlias = "Array | complex"
DType: TypeAlias = np.dtype[Any]

DEFAULT = np.dtype("float32")
_WEAK = {bool: np.dtype("bool"), int: np.dtype("int64"), float: DEFAULT, complex: np.dtype("complex64")}
_CATEGORIES = {"b": 0, "i": 1, "u": 1, "f": 2, "c": 3}


def is_array(operand: object) -> bool:
    """Whether an operand is an array. NumPy's scalars are: they are what NumPy makes of 0-d arrays."""
    return isinstance(operand, (np.ndarray, np.generic))


def category(dtype: DType) -> int:
    """Return the rank of a dtype's category: 0 bool, 1 integers, 2 floats, 3 complex numbers."""
    return _CATEGORIES[dtype.kind]


def dtype_of(operand: Operand) -> DType:
    """Return the dtype of one operand. That of a Python scalar is torch's default."""
    return np.asarray(operand).dtype if is_array(operand) else _WEAK[type(operand)]


def promote_types(a: DType, b: DType) -> DType:
    """Return the dtype of two arrays with axes. Unlike in NumPy, integers and float32 make float32."""
    low, high = sorted((a, b), key=category)
    if category(low) == category(high) or category(low) == 2:
        return np.promote_types(a, b)
    return high


def promoted(with_axes: Sequence[DType], without_axes: Sequence[DType], scalars: Sequence[DType]) -> DType:
    """Return the dtype of the result of arrays with axes, 0-d arrays and Python scalars of these dtypes."""
    groups = (with_axes, without_axes, scalars)
    found = [functools.reduce(promote_types, group) for group in groups if group]
    result = found[-1]
    for higher in reversed(found[:-1]):
        if category(higher) >= category(result):
            result = higher
        elif category(higher) == 2:  # with complex: the precision of the floats
            result = np.result_type(higher, np.complex64)
        elif category(higher) == 0 or category(result) >= 2:
            result = promote_types(higher, result)
        else:
            result = higher
    return result


def result_type(*operands: Operand) -> DType:
    """Return the dtype of the result of operands."""
    groups: tuple[list[DType], ...] = [], [], []
    for operand in operands:
        group = 2 if not is_array(operand) else 1 if np.ndim(operand) == 0 else 0
        groups[group].append(dtype_of(operand))
    return promoted(*groups)


def floating(dtype: DType) -> DType:
    """Return the dtype of a function with real results: torch's default for integers and bool."""
    return DEFAULT if category(dtype) < 2 else dtype


def real(dtype: DType) -> DType:
    """Return the dtype of absolute values."""
    return np.zeros(0, dtype).real.dtype


def wide(dtype: DType) -> DType:
    """Return the dtype in which results of a dtype are computed, before they are rounded."""
    return np.result_type(dtype, np.float64) if category(dtype) >= 2 else dtype


def widened(operand: Operand, dtype: DType) -> Array:
    """Return an operand, rounded to a dtype, in the dtype in which to compute."""
    return np.asarray(operand).astype(dtype).astype(wide(dtype))


def compute(function: Callable[..., Any], *operands: Operand, dtype: DType | None = None) -> Array:
    """Apply a function element by element to operands in their common dtype, or in the one that is given."""
    dtype = result_type(*operands) if dtype is None else dtype
    return np.asarray(function(*(widened(operand, dtype) for operand in operands))).astype(dtype)


def compute_floating(function: Callable[..., Any], *operands: Operand) -> Array:
    """Apply a function element by element. Integers are floats to it."""
    return compute(function, *operands, dtype=floating(result_type(*operands)))


def axis_of(dim: int, ndim: int) -> int:
    """Return an axis, counted from the front. A 0-d array has one axis here, as in torch."""
    most = 1 if ndim == 0 else ndim
    if not -most <= dim < most:
        raise IndexError(f"The axis must be in [{-most}, {most - 1}].")
    return dim % most
