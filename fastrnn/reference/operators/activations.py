"""Activations, gates, softmax, and the layers that do something only in training."""

from __future__ import annotations

import numpy as np
from scipy import special  # type: ignore[import-untyped]

from fastrnn.arrays import Array
from fastrnn.reference.operators.promotion import (
    DType,
    Operand,
    axis_of,
    category,
    compute,
    compute_floating,
    widened,
)

# The constants of self-normalising networks, https://arxiv.org/abs/1706.02515
_SELU_ALPHA = 1.6732632423543772848170429916717
_SELU_SCALE = 1.0507009873554804934193349852946


def _check_floats(self: Array) -> None:
    if category(self.dtype) != 2:
        raise TypeError("It takes floats.")


# ---------------------------------------------------------------- piecewise linear


def relu(self: Array) -> Array:
    """Return max(self, 0)."""
    if category(self.dtype) not in (1, 2):
        raise TypeError("It takes integers and floats.")
    return compute(lambda x: np.maximum(x, 0), self)


def relu6(self: Array) -> Array:
    """Return self in [0, 6]."""
    return hardtanh(self, 0, 6)


def leaky_relu(self: Array, negative_slope: float = 0.01) -> Array:
    """Return self, below 0 times a slope."""
    _check_floats(self)
    return compute(lambda x: np.where(x > 0, x, x * negative_slope), self)


def prelu(self: Array, weight: Array) -> Array:
    """Return self, below 0 times a weight: one for all, or one for each entry of axis 1."""
    if weight.size == 1:
        return leaky_relu(self, weight.item())
    if weight.ndim != 1 or self.ndim < 2 or self.shape[1] != weight.size:
        raise ValueError("The weight must have one number, or one for each entry of axis 1.")
    return _prelu_kernel(self, weight.reshape(1, -1, *[1] * (self.ndim - 2)))


def _prelu_kernel(self: Array, weight: Array) -> Array:
    _check_floats(self)
    return compute(lambda x, w: np.where(x > 0, x, x * w), self, weight)


def rrelu(self: Array, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False) -> Array:
    """Return self, below 0 times the mean of the slopes that training draws."""
    _check_inference(training)
    if lower > upper:
        raise ValueError("lower must not be above upper.")
    return leaky_relu(self, (lower + upper) / 2)


def threshold(self: Array, threshold: float, value: float) -> Array:
    """Return self above the threshold, elsewhere the value."""
    return compute(lambda x: np.where(x <= threshold, value, x), self)


def hardtanh(self: Array, min_val: float = -1, max_val: float = 1) -> Array:
    """Return self in [min_val, max_val]."""
    if category(self.dtype) not in (1, 2):
        raise TypeError("It takes integers and floats.")
    return compute(lambda x: np.minimum(np.maximum(x, min_val), max_val), self)


def hardsigmoid(self: Array) -> Array:
    """Return (self + 3) / 6 in [0, 1]."""
    _check_floats(self)
    return compute(lambda x: np.minimum(np.maximum(x + 3, 0), 6) / 6, self)


def hardswish(self: Array) -> Array:
    """Return self times its hard sigmoid."""
    _check_floats(self)
    return compute(lambda x: x * np.minimum(np.maximum(x + 3, 0), 6) / 6, self)


def softshrink(self: Array, lambd: float = 0.5) -> Array:
    """Return self, moved towards 0 by lambd, and 0 where it would pass it."""
    _check_floats(self)
    if not lambd >= 0:
        raise ValueError("lambd must be at least 0.")
    return compute(lambda x: np.where(x > lambd, x - lambd, np.where(x < -lambd, x + lambd, x * 0)), self)


def hardshrink(self: Array, lambd: float = 0.5) -> Array:
    """Return self outside [-lambd, lambd], and 0 inside."""
    _check_floats(self)
    return compute(lambda x: np.where((x >= -lambd) & (x <= lambd), 0, x), self)


# ---------------------------------------------------------------- smooth


def elu(self: Array, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> Array:
    """Return scale * self, below 0 scale * alpha * (exp(input_scale * self) - 1)."""
    _check_floats(self)
    return compute(lambda x: scale * np.where(x > 0, x, alpha * np.expm1(input_scale * x)), self)


def celu(self: Array, alpha: float = 1.0) -> Array:
    """Return self, below 0 alpha * (exp(self / alpha) - 1)."""
    if alpha == 0:
        raise ValueError("alpha must not be 0.")
    return elu(self, alpha, 1, 1 / alpha)


def selu(self: Array) -> Array:
    """Return the ELU that keeps mean 0 and variance 1."""
    return elu(self, _SELU_ALPHA, _SELU_SCALE)


def gelu(self: Array, approximate: str = "none") -> Array:
    """Return self times the normal distribution up to self, or its approximation with tanh."""
    _check_floats(self)
    if approximate == "tanh":
        factor = np.sqrt(2 / np.pi)
        return compute(lambda x: x / 2 * (1 + np.tanh(factor * (x + 0.044715 * x**3))), self)
    if approximate != "none":
        raise ValueError("approximate must be 'none' or 'tanh'.")
    return compute(lambda x: x * special.ndtr(x), self)


def silu(self: Array) -> Array:
    """Return self times its sigmoid."""
    if category(self.dtype) < 2:
        raise TypeError("It takes floats and complex numbers.")
    return compute(lambda x: x / (1 + np.exp(-x)), self)


def softplus(self: Array, beta: float = 1, threshold: float = 20) -> Array:
    """Return log(1 + exp(beta * self)) / beta; self where beta * self is above the threshold."""
    _check_floats(self)
    return compute(lambda x: np.where(x * beta > threshold, x, np.logaddexp(0, x * beta) / beta), self)


def mish(self: Array) -> Array:
    """Return self * tanh(softplus(self))."""
    _check_floats(self)
    return compute(lambda x: x * np.tanh(np.logaddexp(0, x)), self)


def log_sigmoid(self: Array) -> Array:
    """Return the logarithm of the sigmoid."""
    _check_floats(self)
    return compute(lambda x: -np.logaddexp(0, -x), self)


def log_sigmoid_forward(self: Array) -> tuple[Array, Array]:
    """Return the logarithm of the sigmoid, and exp(-abs(self)), which only training reads."""
    return log_sigmoid(self), compute(lambda x: np.exp(-np.abs(x)), self)


def softsign(self: Operand) -> Array:
    """Return self / (1 + abs(self)). Of torch.nn.functional."""
    return compute_floating(lambda x: x / (1 + np.abs(x)), self)


def tanhshrink(self: Operand) -> Array:
    """Return self - tanh(self). Of torch.nn.functional."""
    return compute_floating(lambda x: x - np.tanh(x), self)


def glu(self: Array, dim: int = -1) -> Array:
    """Return the first half of an axis times the sigmoid of its second half."""
    _check_floats(self)
    axis = axis_of(dim, self.ndim)
    if self.ndim == 0 or self.shape[axis] % 2:
        raise ValueError("The axis must have an even size.")
    values, gates = np.split(self, 2, axis)
    return compute(lambda a, b: a / (1 + np.exp(-b)), values, gates)


# ---------------------------------------------------------------- softmax


def _scored(self: Array, dtype: str | None) -> tuple[Array, DType]:
    """Return self as wide floats, and the dtype of the result."""
    scores_dtype = self.dtype if dtype is None else np.dtype(dtype)
    if category(scores_dtype) != 2:
        raise TypeError("It takes floats. Name one as dtype for others.")
    return widened(self, scores_dtype), scores_dtype


def _log_softmax(scores: Array, dim: int) -> Array:
    axis = axis_of(dim, scores.ndim)
    if scores.size == 0:
        return scores
    scores, shape = np.atleast_1d(scores), scores.shape
    shifted = scores - scores.max(axis=axis, keepdims=True)
    result: Array = shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))
    return result.reshape(shape)


def softmax(self: Array, dim: int, dtype: str | None = None) -> Array:
    """Return exp(self), divided by its sum along an axis."""
    scores, result_dtype = _scored(self, dtype)
    return np.exp(_log_softmax(scores, dim)).astype(result_dtype)


def log_softmax(self: Array, dim: int, dtype: str | None = None) -> Array:
    """Return the logarithm of the softmax along an axis."""
    scores, result_dtype = _scored(self, dtype)
    return _log_softmax(scores, dim).astype(result_dtype)


def softmin(self: Array, dim: int, dtype: str | None = None) -> Array:
    """Return the softmax of -self. Of torch.nn.functional."""
    return softmax(-self, dim, dtype)


def _safe_softmax(self: Array, dim: int, dtype: str | None = None) -> Array:
    """Return the softmax, and 0 where all scores of a row are -inf."""
    is_empty = (self == -np.inf).all(axis=axis_of(dim, self.ndim), keepdims=True)
    result = softmax(self, dim, dtype)
    return np.where(is_empty, np.zeros((), result.dtype), result)


# ---------------------------------------------------------------- what training alone does


def _check_inference(train: bool | None) -> None:
    if train:
        raise ValueError("There is no training here: call eval() on the module.")


def dropout(input: Array, p: float, train: bool) -> Array:
    """Return the input."""
    _check_inference(train and p > 0)
    return input


def native_dropout(input: Array, p: float, train: bool | None) -> tuple[Array, Array]:
    """Return the input, and that all of it was kept."""
    _check_inference(train)
    return input, np.ones(input.shape, bool)


ALIASES = {
    "_log_softmax": "log_softmax",
    "_prelu_kernel": "_prelu_kernel",
    "_safe_softmax": "_safe_softmax",
    "_softmax": "softmax",
    "alpha_dropout": "dropout",
    "feature_alpha_dropout": "dropout",
    "feature_dropout": "dropout",
    "special_log_softmax": "log_softmax",
    "special_softmax": "softmax",
}
