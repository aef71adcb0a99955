"""Softmax and normalisations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn.program.axes import axis_of
from fastrnn.program.lowering import lowers
from fastrnn.program.lowering.elementwise import real, same_type, to_type
from fastrnn.program.lowering.reductions import reduce
from fastrnn.program.views import FLOATS, is_constant

if TYPE_CHECKING:
    from fastrnn.program.planner import Planner


def row_function(
    planner: Planner, name: str, value: Any, axes: int, weight: Any = None, bias: Any = None, eps: float = 0
) -> Any:
    """A function of the last axes, taken together as rows, or NotImplemented."""
    from fastrnn.program.steps import RowFunctionStep

    view = planner.view(value)
    if view.dtype not in planner.tools.rows or view.size == 0:
        return NotImplemented
    # Rows may lie in any order, but each without gaps.
    order = sorted(range(view.ndim - axes), key=lambda axis: -abs(view.strides[axis]))
    turned = view.permute([*order, *range(view.ndim - axes, view.ndim)])
    source = planner.contiguous(turned)
    features = math.prod(source.shape[source.ndim - axes :])
    if any(array is not None and array.shape != (features,) for array in (weight, bias)):
        raise planner.error(f"weights of {features} features", "others")
    target = planner.new(source.dtype, source.shape)
    step = RowFunctionStep(
        planner.tools.rows[view.dtype], name, source.size // features, features, weight, bias, float(eps)
    )
    planner.add(step, [source], [target], [0])
    back = [order.index(axis) for axis in range(len(order))]
    return target.permute([*back, *range(view.ndim - axes, view.ndim)])


def _along_last(planner: Planner, name: str, value: Any, dim: int) -> Any:
    axis = axis_of(dim, value.ndim)
    if value.ndim == 0:
        return NotImplemented
    axes = [a for a in range(value.ndim) if a != axis] + [axis]
    result = row_function(planner, name, planner.view(value).permute(axes), 1)
    return (
        NotImplemented
        if result is NotImplemented
        else result.permute([axes.index(a) for a in range(len(axes))])
    )


@lowers("softmax", "_softmax", "log_softmax", "_log_softmax")
def softmax(planner: Planner, self: Any, dim: int, half_to_float: bool = False, dtype: Any = None) -> Any:
    if dtype is not None:
        self = to_type(planner, self, dtype)
    if self is NotImplemented:
        return NotImplemented
    return _along_last(planner, planner.operator.removeprefix("_"), self, dim)


@lowers("layer_norm")
def layer_norm(
    planner: Planner,
    input: Any,
    normalized_shape: Any,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Any:
    given = [array for array in (weight, bias) if array is not None]
    if not all(is_constant(array) and array.dtype == input.dtype for array in given):
        return NotImplemented
    if tuple(normalized_shape) != input.shape[max(input.ndim - len(normalized_shape), 0) :]:
        raise planner.error(f"last axes of shape {normalized_shape}", f"an array of shape {input.shape}")
    weight, bias = (
        None if a is None else np.ascontiguousarray(a.array().reshape(-1)) for a in (weight, bias)
    )
    return row_function(planner, "layer_norm", input, len(normalized_shape), weight, bias, eps)


@lowers("batch_norm")
def batch_norm(
    planner: Planner,
    input: Any,
    weight: Any = None,
    bias: Any = None,
    running_mean: Any = None,
    running_var: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Any:
    given = [array for array in (weight, bias, running_mean, running_var) if array is not None]
    if training or running_mean is None or running_var is None or input.dtype not in FLOATS:
        return NotImplemented
    if not all(map(is_constant, given)):
        return NotImplemented
    mean, variance = running_mean.array().astype(np.float64), running_var.array().astype(np.float64)
    scale = 1 / np.sqrt(variance + eps)
    if weight is not None:
        scale = scale * weight.array()
    shift = -mean * scale
    if bias is not None:
        shift = shift + bias.array()
    return scaled(planner, input, scale, shift, 1)


def scaled(planner: Planner, value: Any, scale: Any, shift: Any, axis: int) -> Any:
    """value * scale + shift, with a number of each along an axis."""
    shape = (-1, *[1] * (value.ndim - axis - 1))
    factor, summand = (planner.constant(array.astype(value.dtype).reshape(shape)) for array in (scale, shift))
    product = same_type(planner, "mul", value, factor)
    return same_type(planner, "add", product, summand)


@lowers("instance_norm")
def instance_norm(
    planner: Planner,
    input: Any,
    weight: Any = None,
    bias: Any = None,
    running_mean: Any = None,
    running_var: Any = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Any:
    if not use_input_stats or input.dtype not in FLOATS:
        return NotImplemented
    return _normalised(planner, input, list(range(2, input.ndim)), weight, bias, eps)


@lowers("group_norm")
def group_norm(
    planner: Planner,
    input: Any,
    num_groups: int,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Any:
    from fastrnn.program.lowering.shapes import reshaped

    if input.dtype not in FLOATS:
        return NotImplemented
    shape = input.shape
    grouped = reshaped(planner, input, (shape[0], num_groups, shape[1] // num_groups, *shape[2:]))
    result = _normalised(planner, grouped, list(range(2, grouped.ndim)), None, None, eps)
    if result is NotImplemented:
        return NotImplemented
    return _weighted(planner, reshaped(planner, result, shape), weight, bias)


def _normalised(planner: Planner, value: Any, axes: Sequence[int], weight: Any, bias: Any, eps: float) -> Any:
    view = planner.view(value)
    mean = reduce(planner, "mean", view, axes, True, view.dtype)
    variance = reduce(planner, "var", view, axes, True, view.dtype, 0.0)
    if mean is NotImplemented or variance is NotImplemented:
        return NotImplemented
    factor = planner.view(real(planner, "rsqrt", same_type(planner, "add", variance, float(eps))))
    centred = same_type(planner, "sub", view, mean)
    return _weighted(planner, same_type(planner, "mul", centred, factor), weight, bias)


def _weighted(planner: Planner, value: Any, weight: Any, bias: Any) -> Any:
    for name, array in (("mul", weight), ("add", bias)):
        if array is not None:
            spread = planner.view(array).reshape((array.size, *[1] * (value.ndim - 2)))
            value = same_type(planner, name, value, spread)
    return value
