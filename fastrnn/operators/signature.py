"""What an operator, a layer or a model takes, gives and keeps, by name."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np


class Trait(enum.Enum):
    """How an operator looks at time."""

    ROWWISE = "each row by itself"
    STEPWISE = "step by step, with a state: time may be cut anywhere"
    WHOLE = "over whole sequences"
    LAST = "the last step of each row; in a stream every step is the last so far"
    IDENTITY = "gives what it takes"


@dataclass(frozen=True)
class Signature:
    """What an operator takes, gives and keeps.

    Attributes
    ----------
    trait : Trait
        How it looks at time. Of a model: that of its most demanding layer, WHOLE before STEPWISE before
        ROWWISE.
    features_in : int or None
        The last axis of what it takes. None: any, or tokens, which have no such axis.
    features_out : int or None
        The last axis of what it gives. None: as many as it takes.
    tokens : int or None
        How many tokens there are, from 0 on. None: it takes numbers.
    dtype : dtype or None
        Of what it gives. None: that of what it takes.
    states : mapping of str to (int, int)
        The arrays of its state by name, in order: layers and columns of each.
    gives_last : bool
        It gives one step, the last of each row.
    """

    trait: Trait
    features_in: int | None = None
    features_out: int | None = None
    tokens: int | None = None
    dtype: np.dtype[Any] | None = None
    states: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    gives_last: bool = False

    @property
    def takes_tokens(self) -> bool:
        return self.tokens is not None

    def state_shapes(self, batch_size: int | None) -> dict[str, tuple[int, ...]]:
        """The shapes of the arrays of a state, by name: (layers, B, columns), without B where that is
        None."""
        rows = () if batch_size is None else (batch_size,)
        return {name: (layers, *rows, columns) for name, (layers, columns) in self.states.items()}
