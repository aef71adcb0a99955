"""From a live torch.nn module to layers. torch itself is never imported here.

Only classes that are known by name are read. A module that might compute anything else is refused.
"""

from collections.abc import Iterator
from typing import Any

from fastrnn.errors import message
from fastrnn.spec import LayerSpec

RECURRENT = ("RNN", "GRU", "LSTM")
CELLS = ("RNNCell", "GRUCell", "LSTMCell")
PLAIN = ("ReLU", "Tanh", "Sigmoid", "SiLU")
# Activations whose options have the names of the module's attributes.
OPTIONS = {
    "LeakyReLU": ("negative_slope",),
    "ELU": ("alpha",),
    "GELU": ("approximate",),
    "Softplus": ("beta", "threshold"),
    "Hardtanh": ("min_val", "max_val"),
}
DROPOUTS = ("Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout", "FeatureAlphaDropout")
KINDS = (
    *RECURRENT, *CELLS, *PLAIN, *OPTIONS, *DROPOUTS, "Identity", "Linear", "Embedding", "LayerNorm",
    "BatchNorm1d", "Softmax", "LogSoftmax",
)  # fmt: skip
SUPPORTED = (
    "RNN, GRU, LSTM and their cells, Linear, Embedding, LayerNorm, BatchNorm1d, dropouts, Identity, ReLU, "
    "Tanh, Sigmoid, Softmax, LogSoftmax, LeakyReLU, ELU, GELU, SiLU, Softplus, Hardtanh and Sequential"
)


def read_module(module: Any) -> list[LayerSpec]:
    """Return the layers of a torch.nn module, in order.

    Parameters
    ----------
    module : torch.nn.Module

    Returns
    -------
    list of LayerSpec

    Raises
    ------
    TypeError
        The module, or one inside it, is of another class. A subclass counts as another class, since its
        forward may differ, unless torch.nn.utils.parametrize made it from a known class.
    ValueError
        A module has an option that no layer of fastrnn has, or a hook or forward of its own.
    """
    leaves = list(_leaves(module))
    dtypes = {str(tensor.dtype) for leaf in leaves for tensor in leaf.state_dict().values()}
    precision = "float64" if "torch.float64" in dtypes else "float32"
    return [_read_leaf(_kind_of(leaf), leaf, precision) for leaf in leaves]


def _leaves(module: Any) -> Iterator[Any]:
    """Yield the modules in order. Raise unless each is of a known class with an unchanged forward.

    Nothing of a module is read before. The state dict of a quantised module, or of one with extra state,
    holds more than tensors.
    """
    kind = None if isinstance(module, type) else _kind_of(module)
    if kind == "Sequential":
        _check_forward(module)
        for child in module:
            yield from _leaves(child)
    elif kind in KINDS:
        _check_forward(module)
        yield module
    else:
        raise TypeError(_refusal(module))


def _kind_of(module: Any) -> str | None:
    """Return the name of the module's class if it is one of torch.nn, else None."""
    cls = type(module)
    if cls.__module__ == "torch.nn.utils.parametrize" and cls.__name__.startswith("Parametrized"):
        cls = cls.__mro__[1]
    return cls.__name__ if cls.__module__.startswith("torch.nn.modules.") else None


def _check_forward(module: Any) -> None:
    """Raise ValueError if a module may compute something else than its class does."""
    hooks = [
        hook
        for name in ("_forward_hooks", "_forward_pre_hooks")
        for hook in getattr(module, name, {}).values()
        # The older weight norm, spectral norm and pruning are hooks. The state dict has their parts.
        if not type(hook).__module__.startswith("torch.nn.utils.")
    ]
    if hooks or "forward" in vars(module):
        what = "a hook of its own" if hooks else "a forward of its own"
        hint = "Remove it, or write the Sequential out with from_state_dict."
        raise ValueError(message("from_torch", f"a plain {type(module).__name__}", f"one with {what}", hint))


def _tensors_of(module: Any) -> dict[str, Any]:
    """Return the parameters by name, with those of torch.nn.utils.parametrize as the module computes them."""
    tensors = dict(module.state_dict())
    parametrized = getattr(module, "parametrizations", None)
    if parametrized is None:
        return tensors
    if module.training:
        got = "a parametrized one in training mode"
        raise ValueError(message("from_torch", "a module in eval()", got, "Call its eval() first."))
    whole = {name: getattr(module, name) for name in parametrized}
    return {name: t for name, t in tensors.items() if not name.startswith("parametrizations.")} | whole


def _refusal(module: object) -> str:
    kind = module if isinstance(module, type) else type(module)
    name = f"{kind.__module__}.{kind.__qualname__}{' (the class)' if kind is module else ''}"
    hint = "Convert its parts, or write the Sequential out with from_state_dict."
    if kind.__qualname__ == "Conv1d":
        hint = "It takes (B, channels, T), fastrnn.Conv1d.from_state_dict has channels last. export takes it."
    return message("from_torch", f"a torch.nn module ({SUPPORTED})", name, hint)


def _read_leaf(kind: str | None, module: Any, precision: str) -> LayerSpec:
    tensors = _tensors_of(module)
    weighted = {"precision": precision}
    if kind in RECURRENT:
        options = {**weighted, "batch_first": module.batch_first}
        if kind == "RNN":
            options["nonlinearity"] = module.nonlinearity
        return LayerSpec(kind, options, tensors)
    if kind in CELLS:
        options = dict(weighted)
        if kind == "RNNCell":
            options["nonlinearity"] = module.nonlinearity
        return LayerSpec(kind, options, tensors)
    if kind == "Linear":
        return LayerSpec("Linear", weighted, tensors)
    if kind == "Embedding":
        if module.max_norm is not None:
            raise ValueError(message("from_torch", "an Embedding without max_norm", repr(module)))
        return LayerSpec("Embedding", weighted, tensors)
    if kind == "LayerNorm":
        if len(module.normalized_shape) != 1:
            raise ValueError(message("from_torch", "a LayerNorm over the last axis", repr(module)))
        if not tensors:
            return LayerSpec(kind, {"normalized_shape": module.normalized_shape[0], "eps": module.eps})
        return LayerSpec(kind, {**weighted, "eps": module.eps}, tensors)
    if kind == "BatchNorm1d":
        if module.running_mean is None:
            got = "one that computes them of each batch"
            raise ValueError(message("from_torch", "a BatchNorm1d with the statistics of training", got))
        return LayerSpec(kind, {**weighted, "eps": module.eps, "channels_first": True}, tensors)
    if kind in ("Softmax", "LogSoftmax"):
        if module.dim is None:
            raise ValueError(message("from_torch", f"a {kind} with a dim", "dim=None"))
        return LayerSpec(kind, {"dim": module.dim})
    if kind in OPTIONS:
        return LayerSpec(kind, {name: getattr(module, name) for name in OPTIONS[kind]})
    if kind in PLAIN:
        return LayerSpec(kind)
    return LayerSpec("Dropout", {"p": getattr(module, "p", 0.0)})
