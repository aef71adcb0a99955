"""What the engines are given to do."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from fastrnn.arrays import Array
from fastrnn.checks import WIDE
from fastrnn.importers.parameters import read_recurrent
from fastrnn.spec import GATES, LayerSpec, RecurrentSpec
from fastrnn.streaming.live_chain import LiveChain

if TYPE_CHECKING:
    import fastrnn

SEED = 20240229
# How far two engines may differ, as a share of the largest value. They sum in different orders. At narrow
# precisions, others do not round what weights are multiplied with, or round it in another way.
AGREEMENT = {"float32": 1e-4, "float64": 1e-10, "bfloat16": 5e-2, "int8": 1e-1}
AGREEMENT |= {"bfloat16x2": 1e-3, "bfloat16x3": AGREEMENT["float32"]}


@dataclass(frozen=True)
class Work:
    """Some layers, and how much is run through them.

    Attributes
    ----------
    specs : tuple of LayerSpec
        The layers, as ``layer.spec()`` gives them.
    T, B : int
        Time steps of a call, and rows. T is 1 if the mode is "step".
    mode : {"sequence", "step", "block", "pool"}
        "sequence": T steps in one call, from zero states.
        "step": one step of a live sequence, whose state is kept from call to call.
        "block": T steps of a live sequence.
        "pool": one step of each of B live sequences. Engines without pools keep their states as one batch.
    lengths : tuple of int, optional
        The time steps of each row, if they differ.
    deadline : float, optional
        How many seconds a call may take, if it has a deadline.
    threads : int
        How many threads each engine may use.
    """

    specs: tuple[LayerSpec, ...]
    T: int = 1
    B: int = 1
    mode: str = "sequence"
    lengths: tuple[int, ...] | None = None
    threads: int = 1
    deadline: float | None = None

    @property
    def keeps_state(self) -> bool:
        """Whether a call goes on from the state that the one before left."""
        return self.mode != "sequence"

    @property
    def precisions(self) -> set[str]:
        """The precisions of the layers, or of the matrices of layers, that have one: float32, int8, ..."""
        given = [spec.options["precision"] for spec in self.specs if "precision" in spec.options]
        return {part for one in given for part in ([one] if isinstance(one, str) else one.values())}

    @property
    def precision(self) -> str:
        """The precision that limits how far other engines may be from our outputs: the coarsest."""
        narrow = sorted(self.precisions - WIDE.keys(), key=agreement)
        return narrow[-1] if narrow else self.dtype.name

    def widened(self) -> "Work":
        """The same work in float32 if it has narrow weights: the same numbers, for engines without them."""
        if self.precision == self.dtype.name:
            return self
        return replace(self, specs=tuple(map(_widened, self.specs)))

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of inputs that are not tokens."""
        return np.dtype("float64" if "float64" in self.precisions else "float32")

    @property
    def batch_first(self) -> bool:
        """Whether inputs are (B, T, ...)."""
        return any(spec.options.get("batch_first", False) for spec in self.specs)

    @property
    def num_tokens(self) -> int | None:
        """How many tokens the first layer knows. None if it takes numbers."""
        first = self.specs[0]
        if first.kind == "Embedding":
            return int(first.tensors["weight"].shape[0])
        return int(first.options["num_classes"]) if first.kind == "OneHot" else None

    @property
    def features_in(self) -> int:
        """The size of the last axis of inputs that are not tokens. 4 if any size would do."""
        for spec in self.specs:
            if spec.kind in GATES:
                return recurrent_shape(spec).input_size
            if spec.kind == "Linear":
                return int(spec.tensors["weight"].shape[1])
            if spec.kind == "LayerNorm":
                return int(spec.options.get("normalized_shape") or spec.tensors["weight"].shape[0])
        return 4

    def x(self) -> Array:
        """A seeded input as the layers take it: (T, B, I) or (B, T, I). Tokens have no I."""
        random = np.random.default_rng(SEED)
        shape = (self.B, self.T) if self.batch_first else (self.T, self.B)
        if self.num_tokens is not None:
            return random.integers(self.num_tokens, size=shape)
        return random.standard_normal((*shape, self.features_in)).astype(self.dtype)


def agreement(precision: str) -> float:
    """How far two engines may differ at a precision, as a share of the largest value."""
    return AGREEMENT.get(precision, max(AGREEMENT.values()))


def _widened(spec: LayerSpec) -> LayerSpec:
    options = {**spec.options, "precision": "float32"} if "precision" in spec.options else spec.options
    return LayerSpec(spec.kind, options, {name: np.asarray(weight) for name, weight in spec.tensors.items()})


def live_specs(where: str, layers: Sequence["fastrnn.layers.Layer"]) -> tuple[LayerSpec, ...]:
    """The layers as a stream runs them: Last passes on every step, and a softmax is over the last axis.

    Raises
    ------
    ValueError
        A layer needs the whole sequence.
    """
    live = cast("tuple[fastrnn.layers.Layer, ...]", LiveChain(where, layers).layers)
    return tuple(LayerSpec("Dropout") if layer.signature.gives_last else layer.spec() for layer in live)


def recurrent_shape(spec: LayerSpec) -> RecurrentSpec:
    """The RecurrentSpec of an RNN, GRU or LSTM."""
    nonlinearity = spec.options.get("nonlinearity", "tanh")
    return read_recurrent(spec.kind, spec.kind, spec.tensors, "", nonlinearity)[0]


def ragged_lengths(T: int, B: int) -> tuple[int, ...]:
    """Seeded lengths from 1 to T, in no order. At least one is T."""
    lengths: NDArray[np.int64] = np.random.default_rng(SEED).integers(1, T + 1, size=B)
    lengths[B // 2] = T
    return tuple(int(length) for length in lengths)
