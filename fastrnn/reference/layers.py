"""The definition of every layer in plain NumPy: slow, obvious, in float64.

The kernels are tested against these functions, and these functions against torch. Their output is the
self-test of a saved model. They never run a user's model, and never call a kernel. Products of narrow weights
are in `narrow`.

Equations: https://docs.pytorch.org/docs/stable/nn.html
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from fastrnn.arrays import Array
from fastrnn.importers.parameters import read_recurrent
from fastrnn.narrow import NarrowWeight
from fastrnn.reference.narrow import make_product
from fastrnn.spec import LayerSpec, RecurrentSpec

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

# The weights of a layer as the reference takes them: float64 arrays, or narrow weights.
Weights: TypeAlias = "Mapping[str, NDArray[np.float64] | NarrowWeight]"
# One step of a cell, from (gates of x, gates of h, h, c, nonlinearity) to the new (h, c).
Step: TypeAlias = Callable[[Array, Array, Array, Any, str], tuple[Array, Any]]

# ---------------------------------------------------------------- activations and normalisation


def sigmoid(x: Array) -> Array:
    """Return 1 / (1 + exp(-x)), without overflow."""
    small: Array = np.exp(-np.abs(x))
    result: Array = np.where(x >= 0, 1, small) / (1 + small)
    return result


def relu(x: Array) -> Array:
    """Return max(x, 0). A NaN stays a NaN."""
    result: Array = np.maximum(x, 0)
    return result


# The layers that ATen's operators define, by their names. Their options have ATen's names too.
ATEN = {
    "LeakyReLU": "leaky_relu",
    "ELU": "elu",
    "GELU": "gelu",
    "SiLU": "silu",
    "Softplus": "softplus",
    "Hardtanh": "hardtanh",
}


def activation(kind: str, x: Array, options: Mapping[str, Any]) -> Array:
    """Return what a layer of ``ATEN`` gives."""
    from fastrnn.reference.operators import activations  # late: few models need it

    with np.errstate(all="ignore"):
        result: Array = getattr(activations, ATEN[kind])(x, **options)
    return result


def softmax_reference(x: Array, dim: int = -1) -> Array:
    """Return exp(x), divided by its sum along axis `dim`."""
    powers: Array = np.exp(x - x.max(axis=dim, keepdims=True))
    result: Array = powers / powers.sum(axis=dim, keepdims=True)
    return result


def log_softmax_reference(x: Array, dim: int = -1) -> Array:
    """Return the logarithm of the softmax along axis `dim`."""
    shifted = x - x.max(axis=dim, keepdims=True)
    result: Array = shifted - np.log(np.exp(shifted).sum(axis=dim, keepdims=True))
    return result


def layer_norm_reference(
    x: Array, weight: Array | None = None, bias: Array | None = None, eps: float = 1e-5
) -> Array:
    """Normalise x over the axes of `weight`, or the last axis, to mean 0 and variance 1; scale and shift."""
    axes = tuple(range(-1 if weight is None else -weight.ndim, 0))
    centred = x - x.mean(axis=axes, keepdims=True)
    x = centred / np.sqrt((centred**2).mean(axis=axes, keepdims=True) + eps)
    if weight is not None:
        x = x * weight
    return x if bias is None else x + bias


def affine(kind: str, x: Array, tensors: Mapping[str, Array], options: Mapping[str, Any]) -> Array:
    """Return what Scale or BatchNorm1d gives for x (..., features)."""
    if kind == "Scale":
        result: Array = (x - tensors["mean"]) / tensors["scale"]
        low, high = options.get("clip") or (None, None)
        if low is not None:
            result = np.maximum(result, low)
        return result if high is None else np.minimum(result, high)
    result = (x - tensors["running_mean"]) / np.sqrt(tensors["running_var"] + options["eps"])
    if "weight" in tensors:
        result = result * tensors["weight"]
    return result + tensors.get("bias", 0.0)


def over_steps(kind: str, x: Array, lengths: Sequence[int] | NDArray[np.integer[Any]] | None = None) -> Array:
    """Return what Mean, Max or FinalState gives for x (T, B, features)."""
    T, B = x.shape[:2]
    rows = [x[: T if lengths is None else lengths[b], b] for b in range(B)]
    if kind == "FinalState":
        half = x.shape[-1] // 2
        return np.stack([np.concatenate((row[-1, :half], row[0, half:])) for row in rows])
    take = np.mean if kind == "Mean" else np.max
    return np.stack([take(row, axis=0) for row in rows])


def linear_reference(x: Array, tensors: Mapping[str, Any], in_order: bool = False) -> Array:
    """Return what Linear gives for x (..., features). `in_order` is that of `make_product`."""
    weight = tensors["weight"]
    if not isinstance(weight, NarrowWeight):
        result: Array = x @ weight.T + tensors.get("bias", 0.0)
        return result
    start = tensors.get("bias", np.zeros(len(weight.data)))
    y = make_product(weight, in_order)(x.reshape(-1, x.shape[-1]), start)
    return y.reshape(*x.shape[:-1], -1)


def convolution_reference(x: Array, tensors: Mapping[str, Array], options: Mapping[str, Any]) -> Array:
    """Return what Conv1d gives for x (T, B, channels)."""
    weight, stride, dilation = tensors["weight"], options["stride"], options["dilation"]
    outputs, columns, taps = weight.shape
    reach = dilation * (taps - 1)
    before, after = {"same": (reach // 2, reach - reach // 2), "valid": (0, 0)}.get(
        options["padding"], (options["padding"],) * 2
    )
    if options["causal"]:
        before, after = reach, 0
    x = np.pad(x, ((before, after), (0, 0), (0, 0)))
    y = np.zeros(((len(x) - reach - 1) // stride + 1, x.shape[1], outputs)) + tensors.get("bias", 0.0)
    part = outputs // options["groups"]
    if isinstance(weight, NarrowWeight):
        return _narrow_convolution(x, weight, y, options)
    for t in range(len(y)):
        for o in range(outputs):
            first = o // part * columns
            for k in range(taps):
                y[t, :, o] += x[t * stride + k * dilation, :, first : first + columns] @ weight[o, :, k]
    return y


def _narrow_convolution(x: Array, weight: NarrowWeight, start: Array, options: Mapping[str, Any]) -> Array:
    """Return the same of padded x with narrow weights: a product for each window of each group."""
    outputs, columns, taps = weight.shape
    part = outputs // options["groups"]
    y = np.zeros(start.shape, np.float32)
    for t, first in product(range(len(y)), range(0, outputs, part)):
        steps = t * options["stride"] + options["dilation"] * np.arange(taps)
        begin = first // part * columns
        windows = x[steps, :, begin : begin + columns].swapaxes(0, 1).reshape(x.shape[1], -1)
        rows = weight.part(slice(first, first + part), lambda array: array.swapaxes(1, 2).reshape(part, -1))
        y[t, :, first : first + part] = make_product(rows)(windows, start[t, :, first : first + part])
    return y


# ---------------------------------------------------------------- recurrent layers


def rnn_step(gates_x: Array, gates_h: Array, h: Array, c: None, nonlinearity: str) -> tuple[Array, None]:
    """Elman cell: h = tanh(W x + W h), or relu."""
    total = gates_x + gates_h
    return (np.tanh(total) if nonlinearity == "tanh" else relu(total)), c


def gru_step(gates_x: Array, gates_h: Array, h: Array, c: None, nonlinearity: str) -> tuple[Array, None]:
    """GRU whose reset gate is applied after the product: n = tanh(W x + r * (W h + b))."""
    x_r, x_z, x_n = np.split(gates_x, 3, axis=-1)
    h_r, h_z, h_n = np.split(gates_h, 3, axis=-1)
    r, z = sigmoid(x_r + h_r), sigmoid(x_z + h_z)
    return (1 - z) * np.tanh(x_n + r * h_n) + z * h, c


def lstm_step(gates_x: Array, gates_h: Array, h: Array, c: Array, nonlinearity: str) -> tuple[Array, Array]:
    """LSTM cell: c = f * c + i * g, h = o * tanh(c)."""
    i, f, g, o = np.split(gates_x + gates_h, 4, axis=-1)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


STEPS: dict[str, Step] = {"RNN": rnn_step, "GRU": gru_step, "LSTM": lstm_step}


def recurrent_reference(
    spec: RecurrentSpec,
    tensors: Mapping[str, ArrayLike | NarrowWeight],
    x: Array,
    h: ArrayLike,
    c: ArrayLike | None = None,
    lengths: Sequence[int] | NDArray[np.integer[Any]] | None = None,
    in_order: bool = False,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64] | None]:
    """Run a stack of recurrent layers.

    Parameters
    ----------
    spec : RecurrentSpec
    tensors : mapping of str to array
        The weights by torch's names.
    x : array (T, B, I)
    h : array (L*D, B, P)
    c : array (L*D, B, H), optional
        For an LSTM only.
    lengths : sequence of B integers, optional
        T for every row if not given.
    in_order : bool
        As in `make_product`, for narrow weights.

    Returns
    -------
    y : float64 array (T, B, D*P)
        0 beyond a row's length.
    h : float64 array (L*D, B, P)
        The state after each row's last step.
    c : float64 array (L*D, B, H), or None
        The same of an LSTM, else None.
    """
    weights = _weights(tensors)
    T, B = x.shape[:2]
    lengths = [T] * B if lengths is None else lengths
    x = np.asarray(x, np.float64)
    h = np.array(h, np.float64)
    c = None if c is None else np.array(c, np.float64)
    for first in range(0, spec.num_layers * spec.directions, spec.directions):
        y = np.zeros((T, B, spec.directions * spec.output_size))
        for index in range(first, first + spec.directions):
            step = _step_of(spec, weights, spec.suffixes()[index], in_order)
            direction = index - first
            columns = slice(direction * spec.output_size, (direction + 1) * spec.output_size)
            for b in range(B):
                times = range(lengths[b])
                for t in times if direction == 0 else reversed(times):
                    new, cell = step(x[t, b], h[index, b], None if c is None else c[index, b])
                    if c is not None:
                        c[index, b] = cell
                    h[index, b] = y[t, b, columns] = new
        x = y
    return y, h, c


def _weights(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Return wide weights as float64 arrays, and narrow ones as they are."""
    return {
        name: weight if isinstance(weight, NarrowWeight) else np.asarray(weight, np.float64)
        for name, weight in tensors.items()
    }


def _step_of(
    spec: RecurrentSpec, weights: Mapping[str, Any], suffix: str, in_order: bool
) -> Callable[[Array, Array, Any], tuple[Array, Any]]:
    """Return the function (x, h, c) to (h, c) of one layer in one direction."""
    make_step = STEPS[spec.kind]
    names = ("weight_ih", "weight_hh", "weight_hr", "bias_ih", "bias_hh")
    weight_ih, weight_hh, weight_hr, bias_ih, bias_hh = (weights.get(name + suffix) for name in names)
    assert weight_ih is not None and weight_hh is not None
    zeros = np.zeros(weight_ih.shape[0])
    bias_ih, bias_hh = (zeros if bias is None else bias for bias in (bias_ih, bias_hh))
    if any(isinstance(weight, NarrowWeight) for weight in (weight_ih, weight_hh, weight_hr)):
        return _narrow_step(spec, weight_ih, weight_hh, weight_hr, bias_ih, bias_hh, in_order)

    def step(x: Array, h: Array, c: Any) -> tuple[Array, Any]:
        gates_x, gates_h = weight_ih @ x + bias_ih, weight_hh @ h + bias_hh
        new, c = make_step(gates_x, gates_h, h, c, spec.nonlinearity)
        return (new if weight_hr is None else weight_hr @ new), c

    return step


def _narrow_step(
    spec: RecurrentSpec,
    weight_ih: Any,
    weight_hh: Any,
    weight_hr: Any,
    bias_ih: Any,
    bias_hh: Any,
    in_order: bool,
) -> Callable[[Array, Array, Any], tuple[Array, Any]]:
    """Return the same function with narrow weights: sums, biases and states are float32.

    The products of h are added to those of x. Only the n gate of a GRU has them apart.
    """
    make_step = STEPS[spec.kind]
    of_input, recurrent = make_product(weight_ih, in_order), make_product(weight_hh, in_order)
    projection = None if weight_hr is None else make_product(weight_hr, in_order)
    apart = 2 * spec.hidden_size if spec.kind == "GRU" else len(bias_ih)
    bias_x = (bias_ih + np.where(np.arange(len(bias_ih)) < apart, bias_hh, 0)).astype(np.float32)
    bias_h = np.where(np.arange(len(bias_hh)) < apart, 0, bias_hh).astype(np.float32)
    # |h| is at most 1 there, unless a caller's own is larger.
    least = 0.0 if spec.cell == "rnn_relu" or spec.proj_size else 1.0

    def step(x: Array, h: Array, c: Any) -> tuple[Array, Any]:
        sums = of_input(x[None], bias_x)[0]
        start = np.concatenate((sums[:apart], bias_h[apart:]))
        both = recurrent(h[None], start, least)[0]
        gates_x, gates_h = sums.astype(np.float64), both.astype(np.float64)
        gates_x[:apart] = 0
        new, c = make_step(gates_x, gates_h, h, c, spec.nonlinearity)
        if projection is not None:
            new = projection(new[None], np.zeros(spec.proj_size))[0]
        return new.astype(np.float32), None if c is None else c.astype(np.float32)

    return step


# ---------------------------------------------------------------- whole models


def sequential_reference(
    specs: Iterable[LayerSpec], x: ArrayLike, batch_first: bool = False
) -> NDArray[np.float64]:
    """Run layers in order over whole sequences, from zero states, in float64.

    Parameters
    ----------
    specs : iterable of LayerSpec
    x : array (T, B, I), or (T, B) of tokens
        (B, T, I) or (B, T) with `batch_first`.
    batch_first : bool

    Returns
    -------
    float64 array
        The output of the last layer.
    """
    x = np.asarray(x)
    for spec in specs:
        x = _layer_reference(spec, _weights(spec.tensors), x, batch_first)
    return np.asarray(x, np.float64)


def _layer_reference(spec: LayerSpec, tensors: Mapping[str, Any], x: Array, batch_first: bool) -> Array:
    kind, options = spec.kind, spec.options
    if kind in STEPS:
        nonlinearity = options.get("nonlinearity", "tanh")
        stack, tensors = read_recurrent("reference", kind, tensors, "", nonlinearity)
        steps = x.swapaxes(0, 1) if batch_first else x
        states = {name: np.zeros(shape) for name, shape in stack.state_shapes(steps.shape[1]).items()}
        for name, state in states.items():
            if f"{name}_0" in tensors:
                state[...] = tensors[f"{name}_0"][:, None]
        y, _, _ = recurrent_reference(stack, tensors, steps, states["h"], states.get("c"))
        return y.swapaxes(0, 1) if batch_first else y
    if kind == "Embedding":
        rows: Array = np.asarray(tensors["weight"])[x]
        return rows
    if kind == "OneHot":
        is_hot: Array = x[..., None] == np.arange(options["num_classes"])
        return is_hot.astype(np.float64)
    if kind == "Linear":
        return linear_reference(x, tensors)
    if kind == "LayerNorm":
        return layer_norm_reference(x, tensors.get("weight"), tensors.get("bias"), options["eps"])
    if kind == "BatchNorm1d" and options.get("channels_first"):
        return np.moveaxis(affine(kind, np.moveaxis(x, 1, -1), tensors, options), -1, 1)
    if kind in ("BatchNorm1d", "Scale"):
        return affine(kind, x, tensors, options)
    if kind == "Conv1d":
        y = convolution_reference(x.swapaxes(0, 1) if batch_first else x, tensors, options)
        return y.swapaxes(0, 1) if batch_first else y
    if kind in ("FinalState", "Mean", "Max"):
        return over_steps(kind, x.swapaxes(0, 1) if batch_first else x)
    if kind == "Last":
        return x[:, -1] if batch_first else x[-1]
    if kind in ATEN:
        return activation(kind, x, options)
    simple: dict[str, Callable[[Array], Array]] = {
        "Dropout": lambda x: x,
        "ReLU": relu,
        "Tanh": np.tanh,
        "Sigmoid": sigmoid,
        "Softmax": lambda x: softmax_reference(x, options["dim"]),
        "LogSoftmax": lambda x: log_softmax_reference(x, options["dim"]),
    }
    return simple[kind](x)
