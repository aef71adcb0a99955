"""The layers of a stream or pool: whether they can be live, and how arguments become plain arrays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np

from fastrnn.arrays import Array, Floats, StateLike, as_plain, flat_state
from fastrnn.checks import check_array, check_out, check_state, check_tokens
from fastrnn.errors import message
from fastrnn.operators.chain import Chain, LayerLike, StatefulLike, check_given, is_foreign, name_of
from fastrnn.operators.signature import Trait


class LiveChain(Chain):
    """The layers of a stream or pool, checked.

    Raises
    ------
    ValueError
        There is no layer, two neighbours do not fit, or a layer needs the whole sequence.
    TypeError
        An argument is not a layer, or a recurrent layer has a ``__call__`` from outside the package.
    """

    # Every step is the last so far.
    idle_traits = frozenset({Trait.IDENTITY, Trait.LAST})

    def __init__(self, where: str, layers: Sequence[LayerLike]) -> None:
        super().__init__(where, layers)
        for layer in self.stateful:
            if is_foreign(layer):
                hint = "Streams cannot run a recurrent layer with a __call__ of its own."
                raise TypeError(message(where, "recurrent layers of fastrnn", name_of(layer), hint))
            if layer.signature.trait is Trait.WHOLE:
                hint = "Its reverse direction begins at the end of the sequence: run it whole."
                raise ValueError(message(where, "layers that run forward", f"{layer!r}", hint))
        for other in self.layers:
            if other.signature.trait is Trait.WHOLE:
                hint = "It needs the whole sequence: call the model on it."
                raise ValueError(message(where, "layers that need no later steps", f"{other!r}", hint))
        self.layers = tuple(
            _of_last_axis(layer, axes) for layer, axes in zip(self.layers, _axes(self.layers), strict=True)
        )
        # Looked up once, since every call asks for them.
        self._takes_tokens, self._tokens = self.signature.takes_tokens, self.signature.tokens
        self._features_in, self._features_out = self.signature.features_in, self.signature.features_out
        self._dtype = self.signature.dtype

    def check_steps(self, where: str, name: str, x: object, leading: Sequence[int | str]) -> Array:
        """Return x as an array of shape (*leading, features), or (*leading,) for tokens; or raise.

        "T" in ``leading`` stands for any size. If the layers take one feature and there are no rows, numbers
        of shape (T,) become (T, 1).
        """
        x = check_array(where, name, x)
        shape = [*leading]
        if not self._takes_tokens:
            shape.append("I" if self._features_in is None else self._features_in)
        may_be_flat = shape == ["T", 1] and not self._takes_tokens
        if x.shape == (0,) and shape[:1] in ([0], ["T"]) and "I" not in shape:
            # An empty list has neither features nor a dtype of its own.
            sizes = [0, *map(int, shape[1:])]
            x = np.zeros(sizes, np.intp if self._takes_tokens else np.float64)
        elif may_be_flat and x.ndim == 1:
            x = x[:, None]
        fits = x.ndim == len(shape) and all(
            size == n or size == "T" or (size == "I" and n > 0)
            for size, n in zip(shape, x.shape, strict=True)
        )
        if not fits:
            text = f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"
            expected = f"{name} of shape {text}{' or (T,)' if may_be_flat else ''}"
            raise ValueError(message(where, expected, f"{x.shape}"))
        return x

    def plain(self, where: str, name: str, x: Array) -> Array:
        """Return checked rows as plain arrays for the runner, or raise if a token is out of range."""
        if self._tokens is not None:
            x = check_tokens(where, x, self._tokens, name)
        return as_plain(x, np.dtype(np.intp) if self._takes_tokens else self._dtype)

    def check_state(self, where: str, state: StateLike, batch_size: int | None) -> list[Floats]:
        """Check a state, and return its arrays, of all recurrent layers in order, as plain arrays."""
        return [
            as_plain(array, layer.signature.dtype)
            for layer, part in zip(self.stateful, self.split_state(where, state), strict=True)
            for array in check_state(where, part, layer.signature.state_shapes(batch_size))
        ]

    def state_arrays(self, batch_size: int | None) -> list[tuple[tuple[int, ...], np.dtype[Any]]]:
        """Return the shape and dtype of each array of a state.

        The shape is (layers, B, columns), or (layers, columns) with ``batch_size`` None.
        """
        return [
            (shape, layer.dtype)
            for layer in self.stateful
            for shape in layer.signature.state_shapes(batch_size).values()
        ]

    def out_shape(self, x: Array) -> tuple[int, ...]:
        """Return the shape of the output for x."""
        leading = x.shape if self._takes_tokens else x.shape[:-1]
        return (*leading, x.shape[-1] if self._features_out is None else self._features_out)

    def out_dtype(self, x: Array) -> np.dtype[Any]:
        """Return the dtype of the output for x. If no layer has one: float64 for float64, else float32."""
        if self._dtype is not None:
            return self._dtype
        return np.dtype(np.float64 if x.dtype.type is np.float64 else np.float32)

    def check_out(self, where: str, out: Floats, x: Array) -> Array:
        """Return out as a plain array, or raise if the output for x cannot be written to it."""
        return check_out(where, out, self.out_shape(x), self.out_dtype(x), [x])

    def run(self, where: str, x: Array, states: Sequence[Floats], out: Array | None) -> Array:
        """Call the layers one by one on checked x (T, ...), and update the arrays of all states in place.

        Time is the first axis, whatever the layout of the layers. An empty x calls none.
        """
        if not x.size:
            return np.empty(self.out_shape(x), self.out_dtype(x)) if out is None else out
        before, after = iter(self.split_state(where, self.nest_state(states))), []
        y: Any = x
        for layer in self.layers:
            if layer.signature.states:
                y, state = cast("StatefulLike", layer).run(y, next(before), None, None, False)
                after.append(state)
            elif layer.signature.trait is not Trait.LAST:
                y = check_given(where, layer, y, layer(y)) if is_foreign(layer) else layer(y)
        for array, value in zip(states, flat_state(after), strict=True):
            array[...] = value
        if out is None:
            return np.array(y, self.out_dtype(x)) if y is x else y
        out[...] = y
        return out


def _axes(layers: Sequence[LayerLike]) -> Iterator[int]:
    """Yield the number of axes of a batch of whole sequences before each layer: 3, and 2 after Last."""
    axes = 3
    for layer in layers:
        yield axes
        if layer.signature.gives_last:
            axes = 2


def _of_last_axis(layer: Any, axes: int) -> Any:
    """Return the layer, or raise if it works along an axis other than the last.

    A layer that names the last axis by its number is returned as one over axis -1: a stream has fewer axes.
    """
    dim = -1 if is_foreign(layer) else getattr(layer, "dim", -1)
    if dim == -1:
        return layer
    if dim != axes - 1:
        hint = "In a stream the axes before the last depend on how it is cut."
        expected = f"dim=-1 or {axes - 1}"
        if getattr(layer, "channels_first", False):
            expected = "features on the last axis"
        raise ValueError(message("Stream", expected, f"{layer!r}", hint))
    return layer.over_last_axis()
