"""Layers as nodes of a graph: a function for each kind of layer that a `Sequential` takes.

A node computes what its layer does, on the same kernels where there are some. `NODES` has the functions by
the names of layers. Nothing here runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from fastrnn.arrays import Array
from fastrnn.errors import message
from fastrnn.graph import Input, Node, StateLink, Value
from fastrnn.reference.layers import ATEN

# Letters of sizes that change: time and rows.
T, B = "T", "B"


class Flow(NamedTuple):
    """A value on its way through layers.

    Attributes
    ----------
    name, dtype : str
    has_time : bool
        It has an axis of time steps.
    """

    name: str
    dtype: str
    has_time: bool


class Writer:
    """Writes layers as nodes, one after the other.

    Parameters
    ----------
    batch_first : bool
        Values have shape (B, T, ...) instead of (T, B, ...).

    Attributes
    ----------
    nodes : list of Node
    constants : dict of str to ndarray
    states : list of tuple of (Input, StateLink)
        The arrays of each layer's state, in order. Their names are those of the layer's result and of the
        array.
    """

    def __init__(self, batch_first: bool) -> None:
        self.batch_first = batch_first
        self.time = 1 if batch_first else 0
        self.nodes: list[Node] = []
        self.constants: dict[str, Array] = {}
        self.states: list[tuple[tuple[Input, StateLink], ...]] = []
        self._layer = self._where = ""
        self._count = 0

    def write(self, part: str, layers: Iterable[Any], x: Flow) -> Flow:
        """Write layers. ``part`` is where they are, as errors name it and the names of values begin."""
        for index, layer in enumerate(layers):
            self._layer, self._count = f"{part}.{index}", 0
            kind = type(layer).__name__
            self._where = f"{self._layer}: {kind}"
            own = getattr(layer, "dtype", None)
            if own is not None and layer.tokens is None and own.name != x.dtype:
                x = x._replace(name=self.add("_to_copy", self=Value(x.name), dtype=own.name), dtype=own.name)
            name = NODES[kind](self, layer, x)
            dtype = x.dtype if own is None else own.name
            x = Flow(name, dtype, x.has_time and not layer.signature.gives_last)
        return x

    def add(self, operator: str, /, **arguments: Any) -> str:
        """Add a node of one result, and return its name."""
        return self.add_several(operator, 1, **arguments)[0]

    def add_several(self, operator: str, count: int, /, **arguments: Any) -> tuple[str, ...]:
        """Add a node of several results, and return their names."""
        names = tuple(self._name() for _ in range(count))
        self.nodes.append(Node(operator, arguments, names, self._where))
        return names

    def constant(self, name: str, array: Array) -> Value:
        """Keep an array of the layer."""
        whole = f"{self._layer}.{name}"
        self.constants[whole] = array
        return Value(whole)

    def optional(self, tensors: dict[str, Array], name: str) -> Value | None:
        """Keep an array of the layer, if it has one of this name."""
        return self.constant(name, tensors[name]) if name in tensors else None

    def keep_state(self, layer: Any, after: Iterable[str]) -> None:
        """Say which values are the next ones of the states that `state` gave."""
        links = []
        learned = getattr(layer, "initial", ())
        for index, (name, output) in enumerate(zip(layer.signature.states, after, strict=True)):
            count, columns = layer.signature.states[name]
            dtype = layer.dtype
            first = learned[index][:, None] if learned else np.zeros((count, 1, columns), dtype)
            initial = self.constant(f"{name}.first", np.ascontiguousarray(first))
            form = Input(f"{self._layer}.{name}", dtype.name, (count, B, columns))
            links.append((form, StateLink(form.name, output, initial.name)))
        self.states.append(tuple(links))

    def state(self, layer: Any) -> tuple[Value, ...]:
        """The arrays of the layer's state before it runs."""
        return tuple(Value(f"{self._layer}.{name}") for name in layer.signature.states)

    def refuse(self, expected: str, got: str, hint: str = "") -> ValueError:
        return ValueError(message(f"with_heads: {self._where}", expected, got, hint))

    def _name(self) -> str:
        self._count += 1
        return f"{self._layer}.{self._count}" if self._count > 1 else self._layer


# ---------------------------------------------------------------- layers over time


def _recurrent(w: Writer, layer: Any, x: Flow) -> str:
    shape = layer.shape
    operator = f"rnn_{shape.nonlinearity}" if shape.kind == "RNN" else shape.kind.lower()
    before = w.state(layer)
    order = [
        f"{name}{suffix}"
        for suffix in shape.suffixes()
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
    ]
    name, *after = w.add_several(
        operator,
        1 + len(before),
        input=Value(x.name),
        hx=before if len(before) == 2 else before[0],
        params=tuple(w.constant(name, layer.tensors[name]) for name in order if name in layer.tensors),
        has_biases=shape.bias,
        num_layers=shape.num_layers,
        dropout=0.0,
        train=False,
        bidirectional=shape.bidirectional,
        batch_first=w.batch_first,
    )
    w.keep_state(layer, after)
    return name


def _convolution(w: Writer, layer: Any, x: Flow) -> str:
    name = x.name if w.batch_first else w.add("transpose", self=Value(x.name), dim0=0, dim1=1)  # (B, T, C)
    before, after = layer.margins
    if layer.is_stateful:
        (state,) = w.state(layer)
        steps = w.add("reshape", self=state, shape=(-1, before, layer.in_channels))
        name = w.add("cat", tensors=(Value(steps), Value(name)), dim=1)
        last = w.add("slice", self=Value(name), dim=1, start=-before)
        after_it = w.add("reshape", self=Value(last), shape=(1, -1, before * layer.in_channels))
        w.keep_state(layer, [after_it])
        before = 0
    name = w.add("transpose", self=Value(name), dim0=1, dim1=2)  # (B, C, T)
    if before != after:
        name = w.add("constant_pad_nd", self=Value(name), pad=(before, after), value=0.0)
        before = 0
    name = w.add(
        "conv1d",
        input=Value(name),
        weight=w.constant("weight", layer.tensors["weight"]),
        bias=w.optional(layer.tensors, "bias"),
        stride=(layer.stride,),
        padding=(before,),
        dilation=(layer.dilation,),
        groups=layer.groups,
    )
    return w.add("permute", self=Value(name), dims=(0, 2, 1) if w.batch_first else (2, 0, 1))


def _last(w: Writer, layer: Any, x: Flow) -> str:
    return w.add("select", self=Value(x.name), dim=w.time, index=-1)


def _final_state(w: Writer, layer: Any, x: Flow) -> str:
    halves = w.add_several("chunk", 2, self=Value(x.name), chunks=2, dim=-1)
    ends = (-1, 0)  # where the two directions end
    rows = [w.add("select", self=Value(h), dim=w.time, index=i) for h, i in zip(halves, ends, strict=True)]
    return w.add("cat", tensors=tuple(map(Value, rows)), dim=-1)


def _mean(w: Writer, layer: Any, x: Flow) -> str:
    return w.add("mean", self=Value(x.name), dim=(w.time,))


def _max(w: Writer, layer: Any, x: Flow) -> str:
    return w.add("amax", self=Value(x.name), dim=(w.time,))


# ---------------------------------------------------------------- layers over rows


def _embedding(w: Writer, layer: Any, x: Flow) -> str:
    return w.add("embedding", weight=w.constant("weight", layer.weight), indices=Value(x.name))


def _one_hot(w: Writer, layer: Any, x: Flow) -> str:
    hot = w.add("one_hot", self=Value(x.name), num_classes=layer.num_classes)
    return w.add("_to_copy", self=Value(hot), dtype=layer.dtype.name)


def _linear(w: Writer, layer: Any, x: Flow) -> str:
    weight, bias = w.constant("weight", layer.tensors["weight"]), w.optional(layer.tensors, "bias")
    return w.add("linear", input=Value(x.name), weight=weight, bias=bias)


def _layer_norm(w: Writer, layer: Any, x: Flow) -> str:
    weight, bias = (w.optional(layer.tensors, name) for name in ("weight", "bias"))
    shape = (layer.normalized_shape,)
    return w.add(
        "layer_norm", input=Value(x.name), normalized_shape=shape, weight=weight, bias=bias, eps=layer.eps
    )


def _affine(w: Writer, layer: Any, x: Flow) -> str:
    """Scale and BatchNorm1d, by the operations of the layer itself."""
    if getattr(layer, "channels_first", False) and x.has_time:
        hint = "Without channels_first each step is a row."
        raise w.refuse("x without time steps beside channels_first", "some", hint)
    name = x.name
    for operation, array, parameters in layer.operations():
        if operation == "clamp":
            low, high = (None if abs(limit) == np.inf else limit for limit in parameters)
            name = w.add("clamp", self=Value(name), min=low, max=high)
        else:
            name = w.add(operation, self=Value(name), other=w.constant(operation, array))
    return name


def _dropout(w: Writer, layer: Any, x: Flow) -> str:
    return w.add("alias", self=Value(x.name))


def _activation(operator: str) -> Callable[[Writer, Any, Flow], str]:
    """A function of the input alone, whose options have the names of the operator's arguments."""

    def write(w: Writer, layer: Any, x: Flow) -> str:
        options = {name: getattr(layer, name) for name in layer.option_names}
        return w.add(operator, self=Value(x.name), **options)

    return write


NODES: dict[str, Callable[[Writer, Any, Flow], str]] = {
    "RNN": _recurrent,
    "GRU": _recurrent,
    "LSTM": _recurrent,
    "Embedding": _embedding,
    "OneHot": _one_hot,
    "Linear": _linear,
    "Conv1d": _convolution,
    "Scale": _affine,
    "LayerNorm": _layer_norm,
    "BatchNorm1d": _affine,
    "Last": _last,
    "FinalState": _final_state,
    "Mean": _mean,
    "Max": _max,
    "Dropout": _dropout,
    "ReLU": _activation("relu"),
    "Tanh": _activation("tanh"),
    "Sigmoid": _activation("sigmoid"),
    "Softmax": _activation("softmax"),
    "LogSoftmax": _activation("log_softmax"),
    **{kind: _activation(operator) for kind, operator in ATEN.items()},
}
