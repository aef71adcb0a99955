"""All layers by name, and making layers from their specifications."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fastrnn.checks import Precision
from fastrnn.errors import message
from fastrnn.layers.activations import (
    ELU,
    GELU,
    Hardtanh,
    LeakyReLU,
    LogSoftmax,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
)
from fastrnn.layers.affine import BatchNorm1d, Scale
from fastrnn.layers.base import Layer
from fastrnn.layers.cells import GRUCell, LSTMCell, RNNCell
from fastrnn.layers.convolution import Conv1d
from fastrnn.layers.dropout import Dropout
from fastrnn.layers.linear import Linear
from fastrnn.layers.normalisation import LayerNorm
from fastrnn.layers.over_time import FinalState, Last, Max, Mean
from fastrnn.layers.recurrent import GRU, LSTM, RNN
from fastrnn.layers.tokens import Embedding, OneHot
from fastrnn.spec import LayerSpec

LAYERS: dict[str, type[Layer]] = {
    cls.__name__: cls
    for cls in (
        RNN, GRU, LSTM, RNNCell, GRUCell, LSTMCell, Embedding, OneHot, Linear, Conv1d, Scale, LayerNorm,
        BatchNorm1d, Last, FinalState, Mean, Max, Dropout, ReLU, Tanh, Sigmoid, Softmax, LogSoftmax,
        LeakyReLU, ELU, GELU, SiLU, Softplus, Hardtanh,
    )
}  # fmt: skip


def specs_of(where: str, layers: Iterable[Layer]) -> list[LayerSpec]:
    """Return the specifications of layers. Raise TypeError if one is of a class that is not of fastrnn."""
    specs = []
    for layer in layers:
        cls = type(layer)
        if LAYERS.get(cls.__name__) is not cls:
            bases = [base.__name__ for base in cls.__mro__[1:] if LAYERS.get(base.__name__) is base]
            got = f"{cls.__name__}, a subclass of {bases[0] if bases else 'Layer'}"
            hint = "What a subclass computes is in its code, which no file holds and no reference knows."
            raise TypeError(message(where, "layers of fastrnn's own classes", got, hint))
        specs.append(layer.spec())
    return specs


def make_layers(
    specs: Iterable[LayerSpec],
    precision: Precision | None = None,
    threads: int | None = None,
    backend: str = "auto",
) -> list[Layer]:
    """Make layers from their specifications.

    ``precision`` replaces the one in the specifications. None keeps it. Layers without products take float32
    for a narrow one, and only recurrent layers take one that names matrices. ``threads`` and ``backend`` go
    to the layers that have a backend.
    """
    layers = []
    for spec in specs:
        options = dict(spec.options)
        cls = LAYERS[spec.kind]
        if precision is not None and (spec.tensors or "precision" in options):
            options["precision"] = cls.precision_in(precision)
        runtime: dict[str, Any] = {}
        if cls.has_backend:
            runtime = {"threads": threads, "backend": backend}
        layers.append(cls.from_spec(LayerSpec(spec.kind, options, spec.tensors), **runtime))
    return layers
