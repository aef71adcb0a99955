"""Reductions over axes: sums, means, extremes, norms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fastrnn.program.axes import axes_of
from fastrnn.program.fusion import chain
from fastrnn.program.lowering import lowers
from fastrnn.program.lowering.elementwise import TYPES, WHOLE, real, same_type, to_type
from fastrnn.program.views import FLOATS, View

if TYPE_CHECKING:
    from fastrnn.program.planner import Planner

MOST_AXES = 6


def reduce(
    planner: Planner,
    name: str,
    value: Any,
    axes: Sequence[int],
    keepdim: bool,
    dtype: str,
    correction: float = 1,
) -> Any:
    """The reduction of a value over axes, in a type."""
    from fastrnn.program.steps import ReduceStep

    view = planner.view(value)
    if view.dtype not in TYPES or view.ndim > MOST_AXES or view.size == 0:
        return NotImplemented
    arithmetic = (
        "int64"
        if view.dtype in WHOLE and name not in ("mean", "var", "sum_squares", "sum_abs")
        else (view.dtype if view.dtype in FLOATS else dtype)
    )
    if arithmetic not in ("int64", *FLOATS):
        return NotImplemented
    kept = [axis for axis in range(view.ndim) if axis not in axes]
    shape = [view.shape[axis] for axis in kept]
    order = sorted(range(len(kept)), key=lambda i: -abs(view.strides[kept[i]]))
    target = planner.new(dtype, shape, order)
    kernels = planner.tools.kernels["float32" if arithmetic == "int64" else arithmetic]
    step = ReduceStep(
        kernels,
        name,
        arithmetic,
        view.shape,
        view.strides,
        view.dtype,
        tuple(axes),
        target.strides,
        dtype,
        correction,
    )
    planner.add(step, [view], [target])
    return _kept_axes(target, axes, view.ndim) if keepdim else target


def _kept_axes(view: View, axes: Sequence[int], ndim: int) -> View:
    for axis in range(ndim):
        if axis in axes:
            view = view.unsqueeze(axis)
    return view


def _sum_type(dtype: str, given: Any) -> str:
    return given or ("int64" if dtype in WHOLE else dtype)


@lowers("sum")
def sum_(planner: Planner, self: Any, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Any:
    wanted = _sum_type(self.dtype, dtype)
    if wanted != self.dtype and wanted != "int64":
        self = to_type(planner, self, wanted)
        if self is NotImplemented:
            return NotImplemented
    return reduce(planner, "sum", self, axes_of(dim, self.ndim), keepdim, wanted)


@lowers("mean")
def mean(planner: Planner, self: Any, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Any:
    if dtype not in (None, self.dtype) or self.dtype in WHOLE:
        return NotImplemented
    return reduce(planner, "mean", self, axes_of(dim, self.ndim), keepdim, self.dtype)


@lowers("prod")
def prod(planner: Planner, self: Any, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Any:
    if dtype is not None:
        return NotImplemented
    return reduce(planner, "prod", self, axes_of(dim, self.ndim), keepdim, _sum_type(self.dtype, None))


@lowers("amax", "amin")
def extreme(planner: Planner, self: Any, dim: Any = (), keepdim: bool = False) -> Any:
    return reduce(planner, planner.operator[1:], self, axes_of(dim, self.ndim), keepdim, self.dtype)


@lowers("max", "min")
def extreme_and_place(
    planner: Planner, self: Any, dim: Any = None, keepdim: bool = False, other: Any = None
) -> Any:
    name = planner.operator
    if other is not None:
        return same_type(planner, f"{name}imum", self, other)
    if dim is None:
        return reduce(planner, name, self, axes_of(None, self.ndim), False, self.dtype)
    self = planner.view(self)
    axes = axes_of(dim, self.ndim)
    values = reduce(planner, name, self, axes, keepdim, self.dtype)
    indices = reduce(planner, f"arg{name}", self, axes, keepdim, "int64")
    return NotImplemented if values is NotImplemented else [values, indices]


@lowers("argmax", "argmin")
def place_of_extreme(planner: Planner, self: Any, dim: Any = None, keepdim: bool = False) -> Any:
    return reduce(planner, planner.operator, self, axes_of(dim, self.ndim), keepdim, "int64")


@lowers("any", "all")
def truth_along(planner: Planner, self: Any, dim: Any = None, keepdim: bool = False) -> Any:
    return reduce(planner, planner.operator, self, axes_of(dim, self.ndim), keepdim, "bool")


@lowers("var")
def var(
    planner: Planner,
    self: Any,
    dim: Any = None,
    unbiased: Any = None,
    correction: Any = None,
    keepdim: bool = False,
) -> Any:
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    if self.dtype in WHOLE:
        return NotImplemented
    correction = (1 if unbiased in (None, True) else 0) if correction is None else correction
    return reduce(planner, "var", self, axes_of(dim, self.ndim), keepdim, self.dtype, float(correction))


@lowers("std")
def std(
    planner: Planner,
    self: Any,
    dim: Any = None,
    unbiased: Any = None,
    correction: Any = None,
    keepdim: bool = False,
) -> Any:
    value = var(planner, self, dim, unbiased, correction, keepdim)
    return NotImplemented if value is NotImplemented else real(planner, "sqrt", value)


@lowers("linalg_vector_norm")
def vector_norm(
    planner: Planner, self: Any, ord: Any = 2, dim: Any = None, keepdim: bool = False, dtype: Any = None
) -> Any:
    if dtype is not None or self.dtype in WHOLE:
        return NotImplemented
    axes = axes_of(dim, self.ndim)
    if ord == 2:
        squares = reduce(planner, "sum_squares", self, axes, keepdim, self.dtype)
        return NotImplemented if squares is NotImplemented else real(planner, "sqrt", squares)
    if ord == 1:
        return reduce(planner, "sum_abs", self, axes, keepdim, self.dtype)
    if ord in (math.inf, -math.inf):
        size = chain(planner, "abs", (self,), self.dtype, self.dtype)
        return reduce(planner, "max" if ord > 0 else "min", size, axes, keepdim, self.dtype)
    return NotImplemented


@lowers("norm", "frobenius_norm")
def norm(
    planner: Planner, self: Any, p: Any = 2, dim: Any = None, keepdim: bool = False, dtype: Any = None
) -> Any:
    return vector_norm(planner, self, 2 if p is None else p, dim, keepdim, dtype)
