"""A chain of layers in torch, as its users run it."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch

from fastrnn.benchmark.work import Work, recurrent_shape
from fastrnn.spec import GATES, LayerSpec


def make_runner(work: Work) -> Callable[..., Any]:
    """A function (x, state) to (y, state), as fastrnn's Sequential is one; weights of the work's own."""
    warnings.filterwarnings("ignore", "LSTM with projections is not supported with oneDNN")
    if work.is_step and len(work.specs) == 1 and _is_cell(work.specs[0]):
        return _cell_runner(work.specs[0])
    modules = [_module(spec) for spec in work.specs]
    if len(modules) == 1 and work.specs[0].kind in GATES and work.lengths is None:
        return cast("Callable[..., Any]", modules[0])  # torch's module alone, nothing of ours around it
    lengths = None if work.lengths is None else torch.tensor(work.lengths)
    axis = 1 if work.batch_first else 0

    def run(x: Any, states: Sequence[Any] | None = None) -> tuple[Any, Any]:
        behind = []
        before = iter(states or [None] * len(modules))
        for spec, module in zip(work.specs, modules, strict=True):
            if spec.kind == "Last":
                x = _last(x, axis, lengths)
            elif spec.kind not in GATES:
                x = module(x)
            elif lengths is None:
                x, state = module(x, next(before))
                behind.append(state)
            else:
                x, state = _run_packed(module, x, next(before), lengths, work)
                behind.append(state)
        return x, behind

    return run


def _is_cell(spec: LayerSpec) -> bool:
    """Whether torch has a cell for a layer, which steps up to 70 times as fast as the module."""
    if spec.kind not in GATES:
        return False
    shape = recurrent_shape(spec)
    return shape.num_layers == 1 and not shape.bidirectional and not shape.proj_size


def _cell_runner(spec: LayerSpec) -> Callable[..., Any]:
    shape = recurrent_shape(spec)
    more = {"nonlinearity": shape.nonlinearity} if spec.kind == "RNN" else {}
    cell = getattr(torch.nn, f"{spec.kind}Cell")(shape.input_size, shape.hidden_size, shape.bias, **more)
    cell = cell.to(getattr(torch, spec.options.get("precision", "float32"))).eval()
    cell.load_state_dict({name.removesuffix("_l0"): torch.tensor(a) for name, a in spec.tensors.items()})
    batch_first = spec.options.get("batch_first", False)

    def run(x: Any, state: Any = None) -> tuple[Any, Any]:
        state = cell(x[:, 0] if batch_first else x[0], state)
        h = state[0] if spec.kind == "LSTM" else state
        return h.unsqueeze(1 if batch_first else 0), state

    return run


def _run_packed(module: Any, x: Any, state: Any, lengths: Any, work: Work) -> tuple[Any, Any]:
    """Rows of different lengths, which torch's users pack and pad."""
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
