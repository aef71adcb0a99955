"""How each operator becomes views, chains of operations and steps.

A lowering takes the planner and the operator's arguments: views and chains for arrays, numbers for sizes. It
returns a value or a list of them, or NotImplemented for a case that it leaves to the operator's definition in
NumPy, which `fallback` runs. In the order of reading:

    elementwise    arithmetic, comparisons, activations: one operation each
    shapes         views, and what copies
    reductions     sums, means, extremes, norms
    products       projections, products of matrices
    convolutions   convolutions and pools
    rows           softmax and normalisations
    indexing       rows of tables
    recurrent      layers and cells
    loops          bodies that are repeated
    reference      any other operator, by its definition
"""

from collections.abc import Callable
from typing import Any

from fastrnn.program.lowering.reference import fallback

__all__ = ["LOWERINGS", "fallback", "lowers"]

LOWERINGS: dict[str, Callable[..., Any]] = {}


def lowers(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function as the lowering of these operators."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        LOWERINGS.update(dict.fromkeys(names, function))
        return function

    return register


from fastrnn.program.lowering import (  # noqa: E402 - they register themselves
    convolutions,
    elementwise,
    indexing,
    products,
    recurrent,
    reductions,
    rows,
    shapes,
)

MODULES = (convolutions, elementwise, indexing, products, recurrent, reductions, rows, shapes)
