"""The states of a stream as one list of arrays: of each recurrent layer h, and c where it has one."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastrnn.arrays import Floats, State
from fastrnn.operators.chain import StreamLayers


def state_shapes(
    layers: StreamLayers, batch_size: int | None
) -> list[tuple[tuple[int, ...], np.dtype[np.floating[Any]]]]:
    """The shape and the dtype of each array: (L, B, columns), without B where batch_size is None."""
    return [
        (shape, layer.dtype)
        for layer in layers.recurrent
        for shape in layer.shape.state_shapes(batch_size).values()
    ]


def by_layer(layers: StreamLayers, arrays: Sequence[Floats]) -> list[list[Floats]]:
    """The same arrays, those of each recurrent layer in a list of their own."""
    rest = iter(arrays)
    return [[next(rest) for _ in layer.shape.state_shapes(None)] for layer in layers.recurrent]


def pack(layers: StreamLayers, arrays: Sequence[Floats]) -> State | None:
    """The state as the model returns it."""
    return layers.pack_state(by_layer(layers, arrays))
