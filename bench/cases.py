"""The grid of work that is measured. Everything here is declared; nothing is picked afterwards."""

from dataclasses import asdict, dataclass

import numpy as np

from fastrnn.spec import RecurrentSpec


@dataclass(frozen=True)
class Case:
    """One piece of work: a layer, a batch, and a number of time steps.

    mode "step" is one step of a live sequence, its state kept from call to call; "sequence" is T
    steps in one call, from zero states.
    """

    kind: str
    input_size: int
    hidden_size: int
    T: int = 1
    B: int = 1
    mode: str = "sequence"
    num_layers: int = 1
    bidirectional: bool = False
    precision: str = "float32"

    @property
    def name(self):
        """For people: LSTM 128->128, 100x1."""
        size = f"{self.kind} {self.input_size}->{self.hidden_size}"
        if self.num_layers > 1:
            size += f" x{self.num_layers}"
        if self.bidirectional:
            size += " both ways"
        if self.precision != "float32":
            size += f" {self.precision}"
        return f"{size}, {'step' if self.mode == 'step' else self.T}x{self.B}"

    def spec(self):
        """The RecurrentSpec of the layer."""
        return RecurrentSpec(
            self.kind, self.input_size, self.hidden_size, self.num_layers, self.bidirectional
        )

    def tensors(self):
        """Seeded weights of torch's usual scale."""
        random = np.random.default_rng(self.hidden_size)
        bound = 1 / np.sqrt(self.hidden_size)
        return {
            name: random.uniform(-bound, bound, shape).astype(self.precision)
            for name, shape in self.spec().tensor_shapes().items()
        }

    def x(self):
        """A seeded input (T, B, I)."""
        random = np.random.default_rng(self.T)
        return random.standard_normal((self.T, self.B, self.input_size)).astype(self.precision)

    def as_dict(self):
        """For the result file."""
        return asdict(self)


KINDS = ("LSTM", "GRU", "RNN")
STEPS = [Case(kind, size, size, mode="step") for kind in KINDS for size in (32, 64, 96, 128, 256, 512, 1024)]
SEQUENCES = [
    *(Case("LSTM", size, size, T=100) for size in (64, 128, 256, 512, 1024)),
    *(Case(kind, size, size, T=100) for kind in ("GRU", "RNN") for size in (128, 256)),
    *(Case(kind, size, size, T=100, B=B) for kind in KINDS for size in (128, 256) for B in (8, 32)),
    Case("LSTM", 1024, 1024, T=100, B=64),
    Case("LSTM", 256, 512, T=100, B=128),
    Case("LSTM", 256, 256, T=100, num_layers=2, bidirectional=True),
    Case("LSTM", 128, 128, T=100, precision="float64"),
]
GRID = [*STEPS, *SEQUENCES]
