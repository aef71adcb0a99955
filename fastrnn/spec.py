"""Specifications: what a layer is, as immutable data that can be saved. Never how it is run.

Shape letters, the same everywhere:

    T time   B batch   I input   H hidden   P columns of h (proj_size, else H)
    G gates  L layers  D directions  V vocabulary

Gate order is torch's: i, f, g, o in an LSTM; r, z, n in a GRU.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
# What a state dict does not say about a model, and what is therefore taken for granted: name to words.
GRANTED = {
    "time_first": "time first",
    "every_step": "an output for every step",
    "no_activations": "no activations",
}


class LayerSpec(NamedTuple):
    """One layer, as importers produce it and files keep it.

    Attributes
    ----------
    kind : str
        The name of the class: ``fastrnn.<kind>``.
    options : mapping of str to object
        The options that the class is made with.
    tensors : mapping of str to array-like
        The weights by torch's names, without a prefix.
    """

    kind: str
    options: Mapping[str, Any] = {}
    tensors: Mapping[str, Any] = {}


class RecurrentSpec(NamedTuple):
    """The shape of a stack of recurrent layers, in torch's words.

    Source: https://docs.pytorch.org/docs/stable/nn.html#recurrent-layers
    """

    kind: str
    input_size: int
    hidden_size: int
    num_layers: int = 1
    bidirectional: bool = False
    proj_size: int = 0
    bias: bool = True
    nonlinearity: str = "tanh"

    @property
    def directions(self) -> int:
        """D, which is 1 or 2."""
        return 2 if self.bidirectional else 1

    @property
    def output_size(self) -> int:
        """P, the columns of h and of each direction's output."""
        return self.proj_size or self.hidden_size

    @property
    def cell(self) -> str:
        """The name of the cell: "rnn_tanh", "rnn_relu", "gru" or "lstm"."""
        return f"rnn_{self.nonlinearity}" if self.kind == "RNN" else self.kind.lower()

    def describe(self, **more: object) -> str:
        """Return the call that makes it in torch, "LSTM(3, 4, num_layers=2)", with `more` options."""
        options = {
            "num_layers": self.num_layers,
            "bias": self.bias,
            "bidirectional": self.bidirectional,
            "proj_size": self.proj_size,
            "nonlinearity": self.nonlinearity,
            **more,
        }
        usual = {**self._field_defaults, "batch_first": False, "precision": "float32"}
        shown = [f"{name}={value!r}" for name, value in options.items() if value != usual[name]]
        return f"{self.kind}({', '.join([str(self.input_size), str(self.hidden_size), *shown])})"

    def suffixes(self) -> list[str]:
        """Return the endings of the keys of each layer and direction: _l0, _l0_reverse, _l1, ..."""
        ends = ("", "_reverse") if self.bidirectional else ("",)
        return [f"_l{layer}{end}" for layer in range(self.num_layers) for end in ends]

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every tensor of the stack by its key."""
        rows = GATES[self.kind] * self.hidden_size
        shapes: dict[str, tuple[int, ...]] = {}
        for index, suffix in enumerate(self.suffixes()):
            is_first = index < self.directions
            columns = self.input_size if is_first else self.directions * self.output_size
            shapes[f"weight_ih{suffix}"] = (rows, columns)
            shapes[f"weight_hh{suffix}"] = (rows, self.output_size)
            if self.bias:
                shapes[f"bias_ih{suffix}"] = shapes[f"bias_hh{suffix}"] = (rows,)
            if self.proj_size:
                shapes[f"weight_hr{suffix}"] = (self.proj_size, self.hidden_size)
        return shapes

    def state_shapes(self, batch_size: int | None) -> dict[str, tuple[int, ...]]:
        """Return the shape of each array of a state by its name: "h", and "c" of an LSTM.

        `batch_size` is None for an unbatched state.
        """
        first: tuple[int, ...] = (self.num_layers * self.directions,)
        if batch_size is not None:
            first += (batch_size,)
        shapes = {"h": (*first, self.output_size)}
        if self.kind == "LSTM":
            shapes["c"] = (*first, self.hidden_size)
        return shapes
