"""Signatures: what an operator, a layer or a model takes, returns and keeps as state, by name."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np


class Trait(enum.Enum):
    """How an operator looks at time."""

    ROWWISE = "each row by itself"
    STEPWISE = "step by step, with a state: time may be cut anywhere"
    WHOLE = "over whole sequences"
    LAST = "the last step of each row; in a stream every step is the last so far"
    IDENTITY = "gives what it takes"


class Signature(NamedTuple):
    """What an operator, a layer or a model takes, returns and keeps as state.

    Attributes
    ----------
    trait : Trait
        How it looks at time. A model has the trait of its most demanding layer: WHOLE before STEPWISE, and
        STEPWISE before ROWWISE.
    features_in : int or None
        The size of the last axis of the input. None: any size, or tokens, which have no such axis.
    features_out : int or None
        The size of the last axis of the output. None: that of the input.
    tokens : int or None
        The number of tokens, V: the input holds integers from 0 to V - 1. None: it holds real numbers.
    dtype : dtype or None
        The dtype of the output. None: that of the input.
    states : mapping of str to (int, int)
        The arrays of the state by name, in order. Each has this many layers and columns.
    gives_last : bool
        It returns one step only, the last of each row.
    """

    trait: Trait
    features_in: int | None = None
    features_out: int | None = None
    tokens: int | None = None
    dtype: np.dtype[Any] | None = None
    states: Mapping[str, tuple[int, int]] = MappingProxyType({})
    gives_last: bool = False

    @property
    def takes_tokens(self) -> bool:
        return self.tokens is not None

    def state_shapes(self, batch_size: int | None) -> dict[str, tuple[int, ...]]:
        """Return the shape of each array of a state by name: (layers, B, columns).

        With ``batch_size`` None it is (layers, columns).
        """
        rows = () if batch_size is None else (batch_size,)
        return {name: (layers, *rows, columns) for name, (layers, columns) in self.states.items()}
