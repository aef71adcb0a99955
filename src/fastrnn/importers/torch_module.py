"""A live torch.nn module to its layers; torch itself is never imported here."""

from typing import Any

from fastrnn.errors import message
from fastrnn.spec import LayerSpec

RECURRENT = ("RNN", "GRU", "LSTM")
CELLS = {"RNNCell": "RNN", "GRUCell": "GRU", "LSTMCell": "LSTM"}
PLAIN = ("ReLU", "Tanh", "Sigmoid")
DROPOUTS = ("Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout", "FeatureAlphaDropout")
SUPPORTED = (
    "RNN, GRU, LSTM and their cells, Linear, Embedding, LayerNorm, dropouts, Identity, ReLU, Tanh, "
    "Sigmoid, Softmax, LogSoftmax and Sequential"
)


def read_module(module: Any) -> list[LayerSpec]:
    """Return the LayerSpecs of a torch.nn module, in order.

    Raises
    ------
    TypeError
        A module, or one inside it, is of another class; a subclass or a parametrised one counts
        as such, since its forward may differ.
    ValueError
        A module has an option that no layer here has.
    """
    if isinstance(module, type) or not hasattr(module, "state_dict"):
        raise TypeError(_refusal(module))
    dtypes = {str(tensor.dtype) for tensor in module.state_dict().values()}
    return _read(module, "float64" if "torch.float64" in dtypes else "float32")


def _read(module: Any, precision: str) -> list[LayerSpec]:
    kind = type(module).__name__
    if not type(module).__module__.startswith("torch.nn.modules."):
        raise TypeError(_refusal(module))
    if kind == "Sequential":
        return [spec for child in module for spec in _read(child, precision)]
    return [_read_leaf(kind, module, precision)]


def _refusal(module: object) -> str:
    kind = module if isinstance(module, type) else type(module)
    name = f"{kind.__module__}.{kind.__qualname__}{' (the class)' if kind is module else ''}"
    hint = "Convert its parts, or write the Sequential out with from_state_dict."
    return message("from_torch", f"a torch.nn module ({SUPPORTED})", name, hint)


def _read_leaf(kind: str, module: Any, precision: str) -> LayerSpec:
    tensors = dict(module.state_dict())
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
        return LayerSpec(CELLS[kind], options, tensors)
    if kind == "Linear":
        return LayerSpec("Linear", weighted, tensors)
    if kind == "Embedding":
        if module.max_norm is not None:
            raise ValueError(message("from_torch", "an Embedding without max_norm", repr(module)))
        return LayerSpec("Embedding", weighted, tensors)
    if kind == "LayerNorm":
        if len(module.normalized_shape) != 1:
            raise ValueError(message("from_torch", "a LayerNorm over the last axis", repr(module)))
        options = {**weighted, "eps": module.eps}
        if not tensors:
            options["normalized_shape"] = module.normalized_shape[0]
        return LayerSpec("LayerNorm", options, tensors)
    if kind in ("Softmax", "LogSoftmax"):
        if module.dim is None:
            raise ValueError(message("from_torch", f"a {kind} with a dim", "dim=None"))
        return LayerSpec(kind, {"dim": module.dim})
    if kind in PLAIN:
        return LayerSpec(kind)
    if kind in DROPOUTS or kind == "Identity":
        return LayerSpec("Dropout", {"p": getattr(module, "p", 0.0)})
    raise TypeError(_refusal(module))
