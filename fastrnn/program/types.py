"""The types of results: torch's rules for operands of different types.

Source: https://docs.pytorch.org/docs/stable/tensor_attributes.html#type-promotion-doc
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

CATEGORIES = ("bool", "int", "float", "complex")
DEFAULTS = {"bool": "bool", "int": "int64", "float": "float32", "complex": "complex64"}


def category(dtype: str) -> str:
    if dtype == "bool":
        return "bool"
    return "complex" if dtype.startswith("complex") else "float" if dtype.startswith("float") else "int"


def category_of_number(number: Any) -> str:
    if isinstance(number, bool):
        return "bool"
    return "int" if isinstance(number, int) else "float" if isinstance(number, float) else "complex"


def result_type(operands: Iterable[Any]) -> str:
    """The type of a result of arrays, which have a shape and a dtype, and numbers.

    Arrays with axes count before arrays without, and these before numbers: a later kind changes the type
    only if it is of a higher category.
    """
    dtypes: list[list[str]] = [[], [], []]
    for operand in operands:
        if hasattr(operand, "dtype"):
            dtypes[0 if operand.shape else 1].append(str(operand.dtype))
        else:
            dtypes[2].append(DEFAULTS[category_of_number(operand)])
    found = ""
    for level in dtypes:
        for dtype in level:
            if not found:
                found = dtype
        if level:
            best = level[0]
            for dtype in level[1:]:
                best = promote(best, dtype)
            if CATEGORIES.index(category(best)) > CATEGORIES.index(category(found)) or level is dtypes[0]:
                found = promote(found, best) if category(best) == category(found) else best
    return found


def promote(a: str, b: str) -> str:
    if a == b:
        return a
    if category(a) == category(b):
        return np.promote_types(a, b).name
    return a if CATEGORIES.index(category(a)) > CATEGORIES.index(category(b)) else b


def float_type(dtype: str) -> str:
    """The type in which functions of real numbers are computed."""
    return dtype if category(dtype) in ("float", "complex") else "float32"
