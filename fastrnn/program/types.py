"""The types of results, by torch's rules for operands of different types, as names.

The rules themselves are in `reference.operators.promotion`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from fastrnn.reference.operators.promotion import DType, dtype_of, floating, promoted


def result_type(operands: Iterable[Any]) -> str:
    """The type of a result of arrays, which have a shape and the name of a dtype, and Python scalars."""
    groups: tuple[list[DType], ...] = [], [], []
    for operand in operands:
        if hasattr(operand, "dtype"):
            groups[0 if operand.shape else 1].append(np.dtype(operand.dtype))
        else:
            groups[2].append(dtype_of(operand))
    return promoted(*groups).name


def float_type(dtype: str) -> str:
    """The type in which functions of real numbers are computed."""
    return floating(np.dtype(dtype)).name
