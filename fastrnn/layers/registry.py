"""All layers by name, and making layers from their specifications."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fastrnn.layers.activations import LogSoftmax, ReLU, Sigmoid, Softmax, Tanh
from fastrnn.layers.base import Layer
from fastrnn.layers.dropout import Dropout
from fastrnn.layers.last import Last
from fastrnn.layers.linear import Linear
from fastrnn.layers.normalisation import LayerNorm
from fastrnn.layers.recurrent import GRU, LSTM, RNN
from fastrnn.layers.tokens import Embedding, OneHot
from fastrnn.spec import LayerSpec

LAYERS: dict[str, type[Layer]] = {
    cls.__name__: cls
    for cls in (
        RNN, GRU, LSTM, Embedding, OneHot, Linear, LayerNorm, Last, Dropout, ReLU, Tanh, Sigmoid,
        Softmax, LogSoftmax,
    )
}  # fmt: skip


def make_layers(
    specs: Iterable[LayerSpec],
    precision: str | None = None,
    threads: int | None = None,
    backend: str = "auto",
) -> list[Layer]:
    """Make layers from their specifications.

    ``precision`` replaces the one in the specifications. None keeps it. ``threads`` and ``backend`` go to the
    layers that have a backend.
    """
    layers = []
    for spec in specs:
        options = dict(spec.options)
        cls = LAYERS[spec.kind]
        if precision is not None and (spec.tensors or "precision" in options):
            options["precision"] = precision
        runtime: dict[str, Any] = {}
        if cls.has_backend:
            runtime = {"threads": threads, "backend": backend}
        layers.append(cls.from_spec(LayerSpec(spec.kind, options, spec.tensors), **runtime))
    return layers
