"""Chains of layers: whether they fit, and the states of those that have one."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn.errors import State, StateLike, message

if TYPE_CHECKING:
    import fastrnn


def split_state(where: str, layers: "Sequence[fastrnn.layers.Layer]", state: StateLike) -> list[StateLike]:
    """The state of each recurrent layer, out of the state of a model: one, or a tuple of them."""
    if state is None:
        return [None] * len(layers)
    if len(layers) == 1:
        return [state]
    if not isinstance(state, (tuple, list)) or len(state) != len(layers):
        got = f"{len(state)}" if isinstance(state, (tuple, list)) else type(state).__name__
        expected = f"a tuple of {len(layers)} states" if layers else "no state"
        raise ValueError(message(where, expected, got, "One for each recurrent layer, in order."))
    return list(state)


def join_state(states: Sequence[State]) -> State | None:
    """The state of a model: None, that of its one recurrent layer, or a tuple of them."""
    return None if not states else states[0] if len(states) == 1 else tuple(states)


def chain_features(where: str, layers: "Sequence[fastrnn.layers.Layer]") -> tuple[int | None, int | None]:
    """The features that a chain of layers takes and gives (None: any); or raise, if two do not fit."""
    taken: int | None = None
    given: int | None = None
    for index, layer in enumerate(layers):
        if layer.features_in is not None and given not in (None, layer.features_in):
            got = f"{given} from the layer before"
            raise ValueError(
                message(f"{where}: layer {index}, {layer!r}", f"{layer.features_in} features", got)
            )
        if given is None and taken is None:
            taken = layer.features_in
        given = given if layer.features_out is None else layer.features_out
    return taken, given


def output_dtype(layers: "Sequence[fastrnn.layers.Layer]") -> np.dtype[np.floating[Any]] | None:
    """The dtype that a chain gives: that of the last layer which has one; None: as it came in."""
    dtypes = [layer.dtype for layer in layers if hasattr(layer, "dtype")]
    return dtypes[-1] if dtypes else None
