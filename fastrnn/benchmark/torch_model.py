"""Layers in torch, as its users run them."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch

from fastrnn.benchmark.work import Work, recurrent_shape
from fastrnn.spec import GATES, LayerSpec


def make_function(work: Work, prepare: Callable[[Any], Any]) -> Callable[..., Any]:
    """A function from (x, state) to (y, state) with the work's weights, of modules after `prepare`."""
    warnings.filterwarnings("ignore", "LSTM with projections is not supported with oneDNN")
    is_step = work.keeps_state and work.T == 1
    modules = [
        _cells(spec, prepare) if is_step and _has_cells(spec) else prepare(_module(spec))
        for spec in work.specs
    ]
    if len(modules) == 1 and work.specs[0].kind in GATES and work.lengths is None:
        return cast("Callable[..., Any]", modules[0])  # no Python of ours around torch's module or cells
    lengths = None if work.lengths is None else torch.tensor(work.lengths)
    axis = 1 if work.batch_first else 0

    def run(x: Any, states: Sequence[Any] | None = None) -> tuple[Any, Any]:
        after = []
        before = iter(states or [None] * len(modules))
        for spec, module in zip(work.specs, modules, strict=True):
            if spec.kind == "Last":
                x = _last(x, axis, lengths)
            elif spec.kind not in GATES:
                x = module(x)
            elif lengths is None:
                x, state = module(x, next(before))
                after.append(state)
            else:
                x, state = _run_packed(module, x, next(before), lengths, work)
                after.append(state)
        return x, after

    return run


def _has_cells(spec: LayerSpec) -> bool:
    """Whether torch has cells for a layer. They step up to 70 times as fast as its module."""
    if spec.kind not in GATES:
        return False
    shape = recurrent_shape(spec)
    return not shape.bidirectional and not shape.proj_size


def _cells(spec: LayerSpec, prepare: Callable[[Any], Any]) -> Callable[..., Any]:
    """One step of a stack, with a cell for each layer. Called like its module, with a list of states."""
    axis = 1 if spec.options.get("batch_first", False) else 0
    is_lstm = spec.kind == "LSTM"
    cells = [prepare(_cell(spec, layer)) for layer in range(recurrent_shape(spec).num_layers)]

    def step(x: Any, states: Sequence[Any] | None = None) -> tuple[Any, list[Any]]:
        h, after = x.select(axis, 0), []
        for cell, state in zip(cells, states or [None] * len(cells), strict=True):
            state = cell(h, state)
            h = state[0] if is_lstm else state
            after.append(state)
        return h.unsqueeze(axis), after

    return step


def _cell(spec: LayerSpec, layer: int) -> Any:
    shape = recurrent_shape(spec)
    more = {"nonlinearity": shape.nonlinearity} if spec.kind == "RNN" else {}
    features = shape.input_size if layer == 0 else shape.hidden_size
    cell = getattr(torch.nn, f"{spec.kind}Cell")(features, shape.hidden_size, shape.bias, **more)
    cell = cell.to(getattr(torch, spec.options.get("precision", "float32"))).eval()
    ending = f"_l{layer}"
    tensors = {
        name.removesuffix(ending): torch.tensor(array)
        for name, array in spec.tensors.items()
        if name.endswith(ending)
    }
    cell.load_state_dict(tensors)
    return cell


def _run_packed(module: Any, x: Any, state: Any, lengths: Any, work: Work) -> tuple[Any, Any]:
    """Run rows of different lengths, packed and padded as torch's users do it."""
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        x, lengths, batch_first=work.batch_first, enforce_sorted=False
    )
    y, state = module(packed, state)
    padded, _ = torch.nn.utils.rnn.pad_packed_sequence(y, batch_first=work.batch_first, total_length=work.T)
    return padded, state


def _last(x: Any, axis: int, lengths: Any) -> Any:
    if lengths is None:
        return x.select(axis, -1)
    rows = torch.arange(len(lengths))
    return x[rows, lengths - 1] if axis == 1 else x[lengths - 1, rows]


def _module(spec: LayerSpec) -> Any:
    """The module of a layer, with its weights, ready for inference."""
    kind, options = spec.kind, spec.options
    tensors = {name: torch.tensor(array) for name, array in spec.tensors.items()}
    precision = getattr(torch, options.get("precision", "float32"))
    if kind == "OneHot":
        return lambda x: torch.nn.functional.one_hot(x, options["num_classes"]).to(precision)
    if kind in ("Dropout", "Last"):
        return torch.nn.Identity()
    if kind in GATES:
        shape = recurrent_shape(spec)
        more = {"nonlinearity": shape.nonlinearity} if kind == "RNN" else {}
        module = getattr(torch.nn, kind)(
            shape.input_size,
            shape.hidden_size,
            num_layers=shape.num_layers,
            bias=shape.bias,
            batch_first=options.get("batch_first", False),
            bidirectional=shape.bidirectional,
            **({"proj_size": shape.proj_size} if shape.proj_size else {}),
            **more,
        )
    elif kind == "Linear":
        module = torch.nn.Linear(*reversed(tensors["weight"].shape), bias="bias" in tensors)
    elif kind == "Embedding":
        module = torch.nn.Embedding(*tensors["weight"].shape)
    elif kind == "LayerNorm":
        features = options.get("normalized_shape") or len(tensors["weight"])
        module = torch.nn.LayerNorm(features, options["eps"], bool(tensors), bias="bias" in tensors)
    else:
        module = getattr(torch.nn, kind)(**options)
    module = module.to(precision).eval()
    module.load_state_dict(tensors)
    return module
