"""Recurrent layers and cells, from the definitions of layers, and the padding after the last step of rows.

A packed sequence of torch is padded data and lengths here: the operators of layers take `lengths`, one for
each row. Rows may be in any order. Equations: https://docs.pytorch.org/docs/stable/nn.html#recurrent-layers
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from fastrnn.arrays import Array
from fastrnn.importers.parameters import read_recurrent
from fastrnn.narrow import NarrowWeight
from fastrnn.reference.layers import STEPS, recurrent_reference
from fastrnn.reference.operators.promotion import category
from fastrnn.spec import GATES, RecurrentSpec

Recurrent: TypeAlias = Callable[..., Any]


def _check_dtypes(arrays: Sequence[Array | NarrowWeight]) -> None:
    wide = [array for array in arrays if not isinstance(array, NarrowWeight)]
    found = sorted({str(array.dtype) for array in wide})
    if len(found) > 1 or category(wide[0].dtype) != 2:
        raise TypeError(f"Input, states and parameters must be floats of one dtype, not {', '.join(found)}.")


# ---------------------------------------------------------------- layers


def _named(
    params: Sequence[Array | NarrowWeight], has_biases: bool, num_layers: int, directions: int
) -> dict[str, Array | NarrowWeight]:
    """Return the parameters by torch's names. Those of a layer and direction lie together."""
    names = ["weight_ih", "weight_hh"] + ["bias_ih", "bias_hh"] * has_biases
    cells = num_layers * directions
    if cells and len(params) == cells * (len(names) + 1):
        names.append("weight_hr")
    if len(params) != cells * len(names):
        raise ValueError(f"There must be {len(names)} parameters for each of {cells} cells.")
    ends = ("", "_reverse")[:directions]
    suffixes = [f"_l{layer}{end}" for layer in range(num_layers) for end in ends]
    keys = [f"{name}{suffix}" for suffix in suffixes for name in names]
    return dict(zip(keys, params, strict=True))


def _row_lengths(lengths: Array | None, batch: int, steps: int) -> list[int] | None:
    """Return the number of steps of each row. All have all if there are no lengths."""
    if lengths is None:
        return None
    counts = np.asarray(lengths)
    if counts.shape != (batch,) or counts.dtype.kind not in "iu":
        raise ValueError(f"lengths must be {batch} integers.")
    if batch and not 0 <= counts.min() <= counts.max() <= steps:
        raise ValueError(f"Every length must be in [0, {steps}].")
    return [int(count) for count in counts]


def _layers(
    kind: str,
    nonlinearity: str,
    input: Array,
    states: Sequence[Array],
    params: Sequence[Array | NarrowWeight],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
    lengths: Array | None,
) -> tuple[Array, ...]:
    """Run layers from states, and return the output and the states after each row's last step."""
    if train and dropout and num_layers > 1:
        raise ValueError("There is no training here: call eval() on the module.")
    _check_dtypes([input, *states, *params])
    tensors = _named(params, has_biases, num_layers, 2 if bidirectional else 1)
    spec, weights = read_recurrent("params", kind, tensors, "", nonlinearity)
    is_batch = input.ndim == 3
    if input.ndim not in (2, 3) or input.shape[-1] != spec.input_size:
        raise ValueError(f"input must have two axes or three, the last of {spec.input_size} entries.")
    if is_batch:
        x = input.swapaxes(0, 1) if batch_first else input
    else:
        x = input[:, None]
    steps, batch = x.shape[:2]
    if is_batch and not steps:
        raise ValueError("input must have at least one step.")
    initial = _batched_states(spec, states, batch if is_batch else None)
    counts = _row_lengths(lengths, batch, steps)
    c = initial[1] if len(initial) == 2 else None
    after = recurrent_reference(spec, weights, x, initial[0], c, counts)
    results = [array.astype(input.dtype) for array in after if array is not None]
    if not is_batch:
        return tuple(array[:, 0] for array in results)
    return (results[0].swapaxes(0, 1) if batch_first else results[0], *results[1:])


def _batched_states(spec: RecurrentSpec, states: Sequence[Array], batch: int | None) -> list[Array]:
    """Return states with an axis of rows."""
    shapes = list(spec.state_shapes(batch).values())
    if [state.shape for state in states] != shapes:
        raise ValueError(f"The states must have the shapes {', '.join(map(str, shapes))}.")
    return [state[:, None] if batch is None else state for state in states]


def lstm(
    input: Array,
    hx: Sequence[Array],
    params: Sequence[Array | NarrowWeight],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool = False,
    lengths: Array | None = None,
) -> tuple[Array, ...]:
    """Return y, h and c of a stack of LSTM layers.

    With `lengths`, y is 0 after a row's last step, h and c are those of its own last step, and the reverse
    direction begins there.
    """
    if len(hx) != 2:
        raise ValueError("hx must be h and c.")
    options = (has_biases, num_layers, dropout, train, bidirectional, batch_first, lengths)
    return _layers("LSTM", "tanh", input, hx, params, *options)


def _layers_of_one_state(kind: str, nonlinearity: str) -> Recurrent:
    """Return the operator of layers that have h alone."""

    def layers(
        input: Array,
        hx: Array,
        params: Sequence[Array | NarrowWeight],
        has_biases: bool,
        num_layers: int,
        dropout: float,
        train: bool,
        bidirectional: bool,
        batch_first: bool = False,
        lengths: Array | None = None,
    ) -> tuple[Array, ...]:
        """Return y and h of a stack of layers. `lengths` means what it does to an LSTM."""
        options = (has_biases, num_layers, dropout, train, bidirectional, batch_first, lengths)
        return _layers(kind, nonlinearity, input, [hx], params, *options)

    return layers


gru = _layers_of_one_state("GRU", "tanh")
rnn_tanh = _layers_of_one_state("RNN", "tanh")
rnn_relu = _layers_of_one_state("RNN", "relu")


# ---------------------------------------------------------------- cells


def _cell(
    kind: str,
    nonlinearity: str,
    input: Array,
    states: Sequence[Array],
    w_ih: Array | NarrowWeight,
    w_hh: Array | NarrowWeight,
    b_ih: Array | None,
    b_hh: Array | None,
) -> tuple[Array, ...]:
    """Return the states after one step."""
    biases = [bias for bias in (b_ih, b_hh) if bias is not None]
    _check_dtypes([input, *states, w_ih, w_hh, *biases])
    hidden = w_hh.shape[-1]
    state_shape = (*input.shape[:-1], hidden)
    if any(state.shape != state_shape for state in states):
        raise ValueError(f"The states must have the shape {state_shape}.")
    gates = GATES[kind] * hidden
    shapes = (gates, input.shape[-1]), (gates, hidden)
    if (w_ih.shape, w_hh.shape) != shapes:
        raise ValueError(f"The weights must have the shapes {shapes[0]} and {shapes[1]}.")
    if any(bias.shape != (gates,) for bias in biases):
        raise ValueError(f"The biases must have the shape {(gates,)}.")
    if isinstance(w_ih, NarrowWeight) or isinstance(w_hh, NarrowWeight):
        given: dict[str, Any] = {"weight_ih_l0": w_ih, "weight_hh_l0": w_hh}
        if biases:
            zeros = np.zeros(gates)
            given["bias_ih_l0"] = zeros if b_ih is None else b_ih
            given["bias_hh_l0"] = zeros if b_hh is None else b_hh
        return _one_step(kind, nonlinearity, input, states, given)
    x, h, *rest = (array.astype(np.float64) for array in (input, *states))
    c = rest[0] if rest else None
    gates_x = x @ w_ih.T.astype(np.float64) + (0 if b_ih is None else b_ih)
    gates_h = h @ w_hh.T.astype(np.float64) + (0 if b_hh is None else b_hh)
    after = STEPS[kind](gates_x, gates_h, h, c, nonlinearity)
    return tuple(state.astype(input.dtype) for state in after if state is not None)


def _one_step(
    kind: str, nonlinearity: str, input: Array, states: Sequence[Array], given: Mapping[str, Any]
) -> tuple[Array, ...]:
    """Return the states after one step of a layer, whose tensors are given."""
    spec, tensors = read_recurrent("params", kind, given, "", nonlinearity)
    rows = input.reshape(1, -1, input.shape[-1])
    firsts = [state.reshape(1, -1, state.shape[-1]) for state in states]
    _, *after = recurrent_reference(spec, tensors, rows, firsts[0], firsts[1] if firsts[1:] else None)
    return tuple(
        array.reshape(state.shape).astype(input.dtype)
        for array, state in zip(after, states, strict=False)
        if array is not None
    )


def lstm_cell(
    input: Array,
    hx: Sequence[Array],
    w_ih: Array | NarrowWeight,
    w_hh: Array | NarrowWeight,
    b_ih: Array | None = None,
    b_hh: Array | None = None,
) -> tuple[Array, ...]:
    """Return h and c after one step of an LSTM."""
    if len(hx) != 2:
        raise ValueError("hx must be h and c.")
    return _cell("LSTM", "tanh", input, hx, w_ih, w_hh, b_ih, b_hh)


def _cell_of_one_state(kind: str, nonlinearity: str) -> Recurrent:
    """Return the operator of a cell that has h alone."""

    def cell(
        input: Array,
        hx: Array,
        w_ih: Array | NarrowWeight,
        w_hh: Array | NarrowWeight,
        b_ih: Array | None = None,
        b_hh: Array | None = None,
    ) -> Array:
        """Return h after one step."""
        return _cell(kind, nonlinearity, input, [hx], w_ih, w_hh, b_ih, b_hh)[0]

    return cell


gru_cell = _cell_of_one_state("GRU", "tanh")
rnn_tanh_cell = _cell_of_one_state("RNN", "tanh")
rnn_relu_cell = _cell_of_one_state("RNN", "relu")


# ---------------------------------------------------------------- padding


def pad_steps(
    self: Array,
    lengths: Array,
    batch_first: bool = False,
    padding_value: float = 0.0,
    total_length: int | None = None,
) -> Array:
    """Give all steps at or after a row's length the padding value, and the axis of time a length.

    The axis of time is cut or extended to `total_length`, if there is one. It is axis 0, or 1 with
    `batch_first`. Not of ATen: it is what remains of unpacking a packed sequence.
    """
    axis = 1 if batch_first else 0
    if self.ndim < 2:
        raise ValueError("It takes an axis of time and one of rows.")
    counts = _row_lengths(lengths, self.shape[1 - axis], self.shape[axis])
    total = self.shape[axis] if total_length is None else total_length
    if total < 0:
        raise ValueError("total_length must be at least 0.")
    steps = np.moveaxis(self, axis, 0)
    result = np.full((total, *steps.shape[1:]), padding_value, self.dtype)
    for row, count in enumerate(counts or ()):
        result[:count, row] = steps[: min(count, total), row]
    return np.moveaxis(result, 0, axis)
