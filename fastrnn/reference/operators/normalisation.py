"""Numbers with mean 0 and variance 1, or with a given norm.

Formulas: https://docs.pytorch.org/docs/stable/nn.html#normalization-layers
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fastrnn.arrays import Array
from fastrnn.reference.operators.promotion import axis_of, category, real, wide, widened

Sizes = Sequence[int]


def _check_floats(self: Array) -> None:
    if category(self.dtype) != 2:
        raise TypeError("It takes floats.")


def _vector(name: str, array: Array | None, size: int) -> None:
    if array is not None and array.shape != (size,):
        raise ValueError(f"{name} must have the shape {(size,)}.")


def _per_channel(array: Array | None, ndim: int, missing: float) -> Array:
    """Return a number for each entry of axis 1, in a shape that broadcasts."""
    if array is None:
        return np.asarray(missing)
    return array.astype(wide(array.dtype)).reshape(1, -1, *[1] * (ndim - 2))


def _normalised(x: Array, axes: tuple[int, ...], eps: float) -> tuple[Array, Array, Array]:
    """Return x with mean 0 and variance 1 over axes, the mean, and 1 / the standard deviation."""
    mean = x.mean(axis=axes, keepdims=True)
    scale = 1 / np.sqrt(((x - mean) ** 2).mean(axis=axes, keepdims=True) + eps)
    return (x - mean) * scale, mean, scale


# ---------------------------------------------------------------- over the batch


def native_batch_norm(
    input: Array,
    weight: Array | None,
    bias: Array | None,
    running_mean: Array | None,
    running_var: Array | None,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[Array, Array, Array]:
    """Normalise each entry of axis 1, and return the mean and 1 / the standard deviation of training.

    They come from the running statistics, or with `training` from the batch. Running statistics are not
    updated.
    """
    _check_floats(input)
    if input.ndim < 2:
        raise ValueError("It takes at least two axes.")
    for name, array in {
        "weight": weight,
        "bias": bias,
        "running_mean": running_mean,
        "running_var": running_var,
    }.items():
        _vector(name, array, input.shape[1])
    x = widened(input, input.dtype)
    statistics = np.zeros(0), np.zeros(0)
    if training:
        if x.size == x.shape[1]:
            raise ValueError("A single number for each entry of axis 1 has no variance.")
        x, mean, scale = _normalised(x, (0, *range(2, input.ndim)), eps)
        statistics = mean.reshape(-1), scale.reshape(-1)
    elif running_mean is None or running_var is None:
        raise ValueError("Without training it needs running_mean and running_var.")
    else:
        variance = _per_channel(running_var, input.ndim, 1)
        x = (x - _per_channel(running_mean, input.ndim, 0)) / np.sqrt(variance + eps)
    x = x * _per_channel(weight, input.ndim, 1) + _per_channel(bias, input.ndim, 0)
    kept = input.dtype if weight is None else weight.dtype
    return x.astype(input.dtype), statistics[0].astype(kept), statistics[1].astype(kept)


def batch_norm(
    input: Array,
    weight: Array | None,
    bias: Array | None,
    running_mean: Array | None,
    running_var: Array | None,
    training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool = True,
) -> Array:
    """Normalise each entry of axis 1, by the running statistics, or with `training` by the batch's own."""
    if not input.size:
        return input
    return native_batch_norm(input, weight, bias, running_mean, running_var, training, momentum, eps)[0]


def _native_batch_norm_legit(
    input: Array,
    weight: Array | None,
    bias: Array | None,
    running_mean: Array | None = None,
    running_var: Array | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> tuple[Array, Array, Array]:
    return native_batch_norm(input, weight, bias, running_mean, running_var, training, momentum, eps)


def _native_batch_norm_legit_no_training(
    input: Array,
    weight: Array | None,
    bias: Array | None,
    running_mean: Array,
    running_var: Array,
    momentum: float,
    eps: float,
) -> tuple[Array, Array, Array]:
    return native_batch_norm(input, weight, bias, running_mean, running_var, False, momentum, eps)


def instance_norm(
    input: Array,
    weight: Array | None,
    bias: Array | None,
    running_mean: Array | None,
    running_var: Array | None,
    use_input_stats: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool = True,
) -> Array:
    """Normalise each entry of axis 1 in each row by itself, or by the running statistics."""
    if not use_input_stats:
        return batch_norm(input, weight, bias, running_mean, running_var, False, momentum, eps)
    _check_floats(input)
    if input.ndim < 3:
        raise ValueError("It takes at least three axes.")
    _vector("weight", weight, input.shape[1])
    _vector("bias", bias, input.shape[1])
    x = _normalised(widened(input, input.dtype), tuple(range(2, input.ndim)), eps)[0]
    x = x * _per_channel(weight, input.ndim, 1) + _per_channel(bias, input.ndim, 0)
    return x.astype(input.dtype)


# ---------------------------------------------------------------- over each row


def native_group_norm(
    input: Array, weight: Array | None, bias: Array | None, N: int, C: int, HxW: int, group: int, eps: float
) -> tuple[Array, Array, Array]:
    """Normalise groups of entries of axis 1, and return means and 1 / standard deviations of the groups."""
    _check_floats(input)
    if group < 1 or C % group or input.size != N * C * HxW:
        raise ValueError("Axis 1 must divide into the groups, and N * C * HxW be all numbers.")
    _vector("weight", weight, C)
    _vector("bias", bias, C)
    groups = widened(input, input.dtype).reshape(N, group, C // group * HxW)
    x, mean, scale = _normalised(groups, (2,), eps)
    x = x.reshape(input.shape) * _per_channel(weight, input.ndim, 1) + _per_channel(bias, input.ndim, 0)
    return x.astype(input.dtype), mean[..., 0].astype(input.dtype), scale[..., 0].astype(input.dtype)


def group_norm(
    input: Array,
    num_groups: int,
    weight: Array | None = None,
    bias: Array | None = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Array:
    """Normalise groups of entries of axis 1."""
    if input.ndim < 2:
        raise ValueError("It takes at least two axes.")
    N, C, *rest = input.shape
    return native_group_norm(input, weight, bias, N, C, math.prod(rest), num_groups, eps)[0]


def _last_axes(input: Array, normalized_shape: int | Sizes, *parameters: Array | None) -> tuple[int, ...]:
    """Return the axes that are normalised. The parameters must have their shape."""
    shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    if not shape or input.shape[-len(shape) :] != shape:
        raise ValueError(f"The last axes of the input must be {shape}.")
    if any(array is not None and array.shape != shape for array in parameters):
        raise ValueError(f"Weight and bias must have the shape {shape}.")
    return tuple(range(input.ndim - len(shape), input.ndim))


def native_layer_norm(
    input: Array, normalized_shape: int | Sizes, weight: Array | None, bias: Array | None, eps: float
) -> tuple[Array, Array, Array]:
    """Normalise the last axes, and return means and 1 / standard deviations too."""
    _check_floats(input)
    axes = _last_axes(input, normalized_shape, weight, bias)
    x, mean, scale = _normalised(widened(input, input.dtype), axes, eps)
    x = x if weight is None else x * weight
    x = x if bias is None else x + bias
    return x.astype(input.dtype), mean.astype(input.dtype), scale.astype(input.dtype)


def layer_norm(
    input: Array,
    normalized_shape: int | Sizes,
    weight: Array | None = None,
    bias: Array | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Array:
    """Normalise the last axes."""
    return native_layer_norm(input, normalized_shape, weight, bias, eps)[0]


def _fused_rms_norm(
    input: Array, normalized_shape: int | Sizes, weight: Array | None = None, eps: float | None = None
) -> tuple[Array, Array]:
    """Divide the last axes by their root mean square, and return 1 / it too."""
    if category(input.dtype) < 2:
        raise TypeError("It takes floats and complex numbers.")
    axes = _last_axes(input, normalized_shape, weight)
    x = widened(input, input.dtype)
    small = float(np.finfo(input.dtype).eps) if eps is None else eps
    scale = 1 / np.sqrt((x**2).mean(axis=axes, keepdims=True) + small)
    result = x * scale if weight is None else x * scale * weight
    return result.astype(input.dtype), scale.astype(input.dtype)


def rms_norm(
    input: Array, normalized_shape: int | Sizes, weight: Array | None = None, eps: float | None = None
) -> Array:
    """Divide the last axes by their root mean square."""
    return _fused_rms_norm(input, normalized_shape, weight, eps)[0]


def local_response_norm(
    input: Array, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Array:
    """Divide by (k + alpha * mean square of `size` neighbours on axis 1) ** beta. Of torch.nn.functional."""
    _check_floats(input)
    if input.ndim < 3 or size < 1:
        raise ValueError("It takes at least three axes, and a size of at least 1.")
    x = widened(input, input.dtype)
    edges = [(0, 0), (size // 2, (size - 1) // 2)] + [(0, 0)] * (input.ndim - 2)
    squares = np.pad(x**2, edges)
    sums = np.sum([squares[:, first : first + x.shape[1]] for first in range(size)], axis=0)
    return np.asarray(x / (k + alpha * sums / size) ** beta).astype(input.dtype)


# ---------------------------------------------------------------- given norms


def _weight_norm_interface(v: Array, g: Array, dim: int = 0) -> tuple[Array, Array]:
    """Return v with the norms g over all axes but one, and the norms of v. Axis -1 means none: one norm."""
    x = widened(v, v.dtype)
    kept = None if dim == -1 else axis_of(dim, v.ndim)
    axes = tuple(axis for axis in range(v.ndim) if axis != kept)
    norms = np.sqrt((np.abs(x) ** 2).sum(axis=axes, keepdims=dim != -1))
    if dim != -1 and g.shape != norms.shape:
        raise ValueError(f"g must have the shape {norms.shape}.")
    return np.asarray(x * (g / norms)).astype(v.dtype), np.asarray(norms).astype(g.dtype)


def weight_norm(v: Array, g: Array, dim: int = 0) -> Array:
    """Return v, scaled to the norms g over all axes but one."""
    return _weight_norm_interface(v, g, dim)[0]


def renorm(self: Array, p: float, dim: int, maxnorm: float) -> Array:
    """Scale the entries of an axis whose p-norm is above maxnorm down to it."""
    if category(self.dtype) < 2:
        raise TypeError("It takes floats and complex numbers.")
    if self.ndim < 2 or p <= 0 or maxnorm < 0:
        raise ValueError("It takes at least two axes, p above 0, maxnorm of at least 0.")
    x = widened(self, self.dtype)
    axes = tuple(axis for axis in range(self.ndim) if axis != axis_of(dim, self.ndim))
    if p == math.inf:
        norms = np.abs(x).max(axis=axes, keepdims=True)
    else:
        norms = (np.abs(x) ** p).sum(axis=axes, keepdims=True) ** (1 / p)
    norms = norms.astype(real(self.dtype)).astype(norms.dtype)
    return np.asarray(x * np.where(norms > maxnorm, maxnorm / (norms + 1e-7), 1)).astype(self.dtype)


ALIASES = {
    "_fused_rms_norm": "_fused_rms_norm",
    "_native_batch_norm_legit": "_native_batch_norm_legit",
    "_native_batch_norm_legit_no_training": "_native_batch_norm_legit_no_training",
    "_weight_norm": "weight_norm",
    "_weight_norm_interface": "_weight_norm_interface",
}
