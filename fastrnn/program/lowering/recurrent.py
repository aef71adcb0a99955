"""Recurrent layers and cells: the operators of the library's own layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn.checks import MATRICES
from fastrnn.narrow import NarrowWeight
from fastrnn.program.fusion import chain
from fastrnn.program.lowering import lowers
from fastrnn.program.lowering.indexing import check_range
from fastrnn.program.lowering.shapes import constant_pad, fill
from fastrnn.program.views import FLOATS, View, is_constant

if TYPE_CHECKING:
    from fastrnn.program.planner import Planner

GATES = {"rnn_tanh": 1, "rnn_relu": 1, "gru": 3, "lstm": 4}


def _operator(
    planner: Planner, kind: str, params: Any, directions: int, layers: int, has_biases: bool
) -> Any:
    """The packed operator of constant parameters, made once."""
    from fastrnn.engine.packing import pack_recurrent
    from fastrnn.operators.recurrent import Recurrent

    key = (kind, *(id(p.storage.array) for p in params))
    packed = planner.tools.packed
    if key not in packed:
        arrays = [p.weight() for p in params]
        each = len(arrays) // (layers * directions)
        weights = [arrays[0], arrays[1], *([arrays[each - 1]] if each in (3, 5) else [])]
        storages = {
            name: weight.storage
            for name, weight in zip(MATRICES, weights, strict=False)
            if isinstance(weight, NarrowWeight)
        }
        picked = planner.tools.pick(params[0].dtype, **storages)
        cells = []
        for i in range(layers * directions):
            own = arrays[i * each : (i + 1) * each]
            b_ih, b_hh = own[2:4] if has_biases else (None, None)
            projection = own[-1] if each in (3, 5) else None
            cells.append(pack_recurrent(picked.products, kind, own[0], own[1], b_ih, b_hh, projection))
        packed[key] = Recurrent(cells, directions, picked.threads), params
    return packed[key][0]


def _check_layer(
    planner: Planner, kind: str, x: Any, states: list[View], params: Any, has_biases: bool, layers: int,
    directions: int, batch_first: bool, lengths: Any,
) -> None:  # fmt: skip
    """Check all shapes, on which compiled code relies."""
    gates = GATES[kind]
    cells = layers * directions
    each = len(params) // max(cells, 1)
    names = 4 if has_biases else 2
    if cells < 1 or len(params) != each * cells or each not in (names, names + (kind == "lstm")):
        raise planner.error(f"{names} parameters of each layer and direction", f"{len(params)}")
    rows, out = params[0].shape[0], params[1].shape[-1]
    units = rows // gates
    features = x.shape[-1]
    for i in range(cells):
        own = [array.shape for array in params[i * each : (i + 1) * each]]
        wanted: list[tuple[int, ...]] = [
            (rows, features if i < directions else directions * out),
            (rows, out),
        ]
        wanted += [(rows,)] * 2 if has_biases else []
        wanted += [(out, units)] if each > names else []
        if own != wanted or rows != units * gates or (each == names and out != units):
            raise planner.error("weights that fit together", " and ".join(map(str, own)))
    axes = x.shape[:-1]
    B = axes[0 if batch_first else 1] if len(axes) == 2 else 1
    batch = (B,) if len(axes) == 2 else ()
    expected = [(cells, *batch, out), *([(cells, *batch, units)] if kind == "lstm" else [])]
    if len(axes) not in (1, 2) or [state.shape for state in states] != expected:
        got = " and ".join(str(state.shape) for state in states)
        raise planner.error(f"states of shape {' and '.join(map(str, expected))}", got)
    if lengths is not None and lengths.shape != (B,):
        raise planner.error(f"lengths of shape ({B},)", f"{lengths.shape}")


def _layer(
    planner: Planner,
    kind: str,
    x: Any,
    hx: Any,
    params: Any,
    has_biases: bool,
    layers: int,
    bidirectional: bool,
    batch_first: bool,
    lengths: Any = None,
) -> Any:
    from fastrnn.program.recurrent_step import RecurrentStep

    states = [planner.view(state) for state in (hx if isinstance(hx, tuple) else (hx,))]
    if (
        not all(map(is_constant, params))
        or x.dtype not in FLOATS
        or any(s.dtype != x.dtype for s in states)
        or x.size == 0
    ):
        return NotImplemented
    directions = 2 if bidirectional else 1
    _check_layer(planner, kind, x, states, params, has_biases, layers, directions, batch_first, lengths)
    operator = _operator(planner, kind, params, directions, layers, has_biases)
    view = planner.view(x)
    is_batch = view.ndim == 3
    if not is_batch:
        view = view.unsqueeze(0 if batch_first else 1)
        states = [state.unsqueeze(1) for state in states]
    steps_axis = 1 if batch_first else 0
    T, B = view.shape[steps_axis], view.shape[1 - steps_axis]
    if view.strides[2] != view.itemsize and view.shape[2] != 1:
        order = [*sorted((0, 1), key=lambda axis: -abs(view.strides[axis])), 2]
        view = planner.contiguous(view.permute(order)).permute([order.index(axis) for axis in range(3)])
    x_step, x_row = view.strides[steps_axis], view.strides[1 - steps_axis]
    # The output lies as the input does.
    is_row_major = B > 1 and T > 1 and abs(x_row) > abs(x_step)
    features = directions * (
        params[-1].shape[0] if len(params) // (layers * directions) in (3, 5) else params[1].shape[1]
    )
    order = [1 - steps_axis, steps_axis, 2] if is_row_major else [steps_axis, 1 - steps_axis, 2]
    y = planner.new(view.dtype, (*view.shape[:2], features), order)
    after = []
    for state in states:
        target = planner.new(view.dtype, state.shape)
        if state.is_constant and not state.array().any():
            fill(planner, target, 0.0)
        else:
            planner.copy(state, target)
        after.append(target)
    given = [view, *after]
    if lengths is not None:
        given.append(planner.contiguous(lengths, "int64"))
        check_range(planner, "lengths", given[-1], 1, T)
    step = RecurrentStep(operator, T, B, x_step, x_row, is_row_major, lengths is not None)
    planner.add(step, given, [y], updated=range(1, 1 + len(after)))
    if not is_batch:
        y = y.select(1 - steps_axis, 0)
        after = [state.select(1, 0) for state in after]
    return [y, *after]


@lowers("lstm", "gru", "rnn_tanh", "rnn_relu")
def layer(
    planner: Planner,
    input: Any,
    hx: Any,
    params: Any,
    has_biases: bool,
    num_layers: int,
    dropout: float = 0.0,
    train: bool = False,
    bidirectional: bool = False,
    batch_first: bool = False,
    lengths: Any = None,
) -> Any:
    kind = planner.operator
    return _layer(
        planner, kind, input, hx, params, has_biases, num_layers, bidirectional, batch_first, lengths
    )


@lowers("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell")
def cell(
    planner: Planner, input: Any, hx: Any, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None
) -> Any:
    kind = planner.operator.removesuffix("_cell")
    params = (w_ih, w_hh) if b_ih is None else (w_ih, w_hh, b_ih, b_hh)
    x = planner.view(input)
    states = tuple(planner.view(state) for state in (hx if isinstance(hx, tuple) else (hx,)))
    is_batch = x.ndim == 2
    if not is_batch:
        x, states = x.unsqueeze(0), tuple(state.unsqueeze(0) for state in states)
    states = tuple(state.unsqueeze(0) for state in states)
    results = _layer(planner, kind, x.unsqueeze(0), states, params, b_ih is not None, 1, False, False)
    if results is NotImplemented:
        return NotImplemented
    after = [state.select(0, 0) for state in results[1:]]
    return after if is_batch else [state.select(0, 0) for state in after]


@lowers("pad_steps")
def pad_steps(
    planner: Planner, self: Any, lengths: Any, batch_first: bool, padding_value: float, total_length: int
) -> Any:
    """Steps after a row's last one as padding, and as many steps as the total."""
    view = planner.view(self)
    axis = 1 if batch_first else 0
    steps = min(view.shape[axis], total_length)
    view = view.slice(axis, 0, steps)
    numbers = planner.constant(np.arange(steps)).unsqueeze(0 if batch_first else 1)
    rows = planner.view(lengths).unsqueeze(1 if batch_first else 0)
    running = planner.view(chain(planner, "lt", (numbers, rows), "int64", "bool"))
    for _ in range(view.ndim - 2):
        running = running.unsqueeze(running.ndim)
    result = chain(planner, "where", (running, view, float(padding_value)), view.dtype, view.dtype)
    if total_length > steps:
        pad = [0, 0] * (view.ndim - axis - 1) + [0, total_length - steps]
        return constant_pad(planner, planner.view(result), tuple(pad), "constant", padding_value)
    return result
