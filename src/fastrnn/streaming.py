"""Streams: live sequences, each with a state of its own, on shared weights."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import ArrayLike

from fastrnn._engine import Stepper
from fastrnn.chain import chain_features, join_state, output_dtype, split_state
from fastrnn.errors import (
    Array,
    Floats,
    State,
    StateLike,
    check_array,
    check_out,
    check_positive,
    check_state,
    message,
)

if TYPE_CHECKING:
    import fastrnn


class Stream(Stepper):
    """A live sequence: `step` or `run` it, and its state is kept.

    Made by ``layer.stream()`` or ``model.stream()``. It owns its state and shares the weights
    with every other stream of that layer or model. Time is always the first axis here,
    ``batch_first`` or not. A call that raises leaves the state as it was.

    Parameters
    ----------
    layers : list of layers
    batch_size : int, optional
        None: one unbatched sequence, a step takes (I,). B: rows that go in step, a step takes
        (B, I). Layers of tokens take () and (B,).

    Raises
    ------
    ValueError
        A layer needs the whole sequence: a bidirectional one, or a Softmax over an axis other
        than the last. Or ``batch_size`` is below 1.
    TypeError
        ``batch_size`` is no whole number.
    """

    def __init__(self, layers: "Sequence[fastrnn.layers.Layer]", batch_size: int | None = None) -> None:
        where = type(self).__name__
        if batch_size is not None:
            batch_size = check_positive(where, "batch_size", batch_size)
        self.batch_size = batch_size
        if not layers:
            raise ValueError(message(where, "at least one layer", "none"))
        # Any, since is_recurrent tells them apart and no type does.
        self._layers: list[Any] = [
            _of_last_axis(layer, axes) for layer, axes in zip(layers, _axes(layers), strict=True)
        ]
        self._recurrent = cast(
            "list[fastrnn.layers.RecurrentLayer[State]]", [layer for layer in layers if layer.is_recurrent]
        )
        for layer in self._recurrent:
            if layer.bidirectional:
                hint = "Its reverse direction begins at the end of the sequence: run it whole."
                raise ValueError(message(where, "layers that run forward", f"{layer!r}", hint))
        self._takes_tokens = layers[0].takes_tokens
        self._features_in, self._features_out = chain_features(where, layers)
        self._dtype = output_dtype(layers)
        self._states: list[list[Floats]] = [
            [np.zeros(shape, layer.dtype) for shape in layer.shape.state_shapes(batch_size).values()]
            for layer in self._recurrent
        ]
        self._next_states = [[np.empty_like(a) for a in arrays] for arrays in self._states]
        # One recurrent layer alone: its plain steps go straight to the engine.
        if len(layers) == 1 and self._recurrent:
            h, *c = self._states[0]
            self.bind(self._recurrent[0].engine, h, c[0] if c else None, batch_size is not None)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (self._layers, self.batch_size, self._states)

    def step_checked(self, x: ArrayLike, out: Floats | None) -> Floats:
        """`step` for whatever it is given."""
        x = self._check("step", x, has_time=False)
        if out is None:
            y: Floats = self._advance(x[None], None)[0]
            return y
        self._advance(x[None], self._check_out("step", out, x)[None])
        return out

    def run(self, chunk: ArrayLike, out: Floats | None = None) -> Floats:
        """Make many time steps: the same as `step` on each, in one call.

        Parameters
        ----------
        chunk : array-like, shape (T, I) or (T, B, I)
            Real numbers; tokens: integers, shape (T,) or (T, B). T is at least 1.
        out : ndarray, optional
            Where the result goes; C-contiguous, of its shape and dtype, apart from ``chunk``.

        Returns
        -------
        ndarray, shape (T, features) or (T, B, features)
            Of the dtype of the last layer that has one; ``out`` if given.

        Raises
        ------
        ValueError, TypeError
            As in `step`.
        """
        x = self._check("run", chunk, has_time=True)
        if out is None:
            return self._advance(x, None)
        self._advance(x, self._check_out("run", out, x))
        return out

    @property
    def state(self) -> State | None:
        """A copy of the state, shaped as the model returns it; assign one to set it.

        h of shape (L*D, B, P), or (h, c) with c (L*D, B, H) for an LSTM, without B where there are
        no rows; a tuple of them where there are several recurrent layers, None where there is none.

        Raises
        ------
        ValueError
            What is assigned is None, or a shape or a number of arrays does not fit.
        TypeError
            What is assigned does not hold real numbers.
        """
        return join_state(
            [
                layer.pack_state([array.copy() for array in arrays])
                for layer, arrays in zip(self._recurrent, self._states, strict=True)
            ]
        )

    @state.setter
    def state(self, state: StateLike) -> None:
        where = "Stream.state"
        if state is None:
            raise ValueError(message(where, "a state", "None", "reset() goes back to zeros."))
        given = []
        for layer, part in zip(self._recurrent, split_state(where, self._recurrent, state), strict=True):
            given.append(check_state(where, part, layer.shape.state_shapes(self.batch_size)))
        _copy_states(given, self._states)

    def reset(self) -> None:
        """Set the state back to zeros, in place; raises nothing."""
        for arrays in self._states:
            for array in arrays:
                array[...] = 0

    def _check(self, method: str, x: object, has_time: bool) -> Array:
        """x as an array of the axes that this stream's steps have."""
        x = check_array(f"Stream.{method}", "x", x)
        shape: list[int | str] = ["T"] if has_time else []
        shape += [] if self.batch_size is None else [self.batch_size]
        if not self._takes_tokens:
            shape.append("I" if self._features_in is None else self._features_in)
        fits = x.ndim == len(shape) and all(
            size in ("T", "I") or size == n for size, n in zip(shape, x.shape, strict=True)
        )
        if not fits or 0 in x.shape:
            text = f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"
            raise ValueError(message(f"Stream.{method}", f"x of shape {text}", f"{x.shape}"))
        return x

    def _check_out(self, method: str, out: Floats, x: Array) -> Array:
        leading = x.shape if self._takes_tokens else x.shape[:-1]
        features = x.shape[-1] if self._features_out is None else self._features_out
        dtype = getattr(out, "dtype", None) if self._dtype is None else self._dtype
        return check_out(f"Stream.{method}", out, (*leading, features), dtype, [x])

    def _advance(self, x: Array, out: Array | None) -> Array:
        """Run x (T, ...) through the layers; the states change when all of them have run."""
        _copy_states(self._states, self._next_states)
        states = iter(self._next_states)
        rows = 1 if self.batch_size is None else self.batch_size
        for index, layer in enumerate(self._layers):
            if not layer.is_recurrent:
                x = x if layer.is_last_step else layer(x)
                continue
            x = np.require(x, layer.dtype, ("C", "A"))
            if out is None or index < len(self._layers) - 1:
                y = np.empty((*x.shape[:-1], layer.features_out), layer.dtype)
            else:
                y = out
            layer.advance(x.reshape(len(x), rows, -1), next(states), y.reshape(len(x), rows, -1))
            x = y
        if out is not None and out is not x:
            out[...] = x
            x = out
        _copy_states(self._next_states, self._states)
        return x


def _copy_states(source: Sequence[Sequence[Array]], target: list[list[Floats]]) -> None:
    """Write the states of all layers into the arrays of others, which stay where they are."""
    for values, arrays in zip(source, target, strict=True):
        for value, array in zip(values, arrays, strict=True):
            array[...] = value


def _restore(
    layers: "list[fastrnn.layers.Layer]", batch_size: int | None, states: list[list[Floats]]
) -> Stream:
    stream = Stream(layers, batch_size)
    _copy_states(states, stream._states)
    return stream


def _axes(layers: "Sequence[fastrnn.layers.Layer]") -> Iterator[int]:
    """How many axes a batch of whole sequences has before each layer: 3, and 2 behind Last."""
    axes = 3
    for layer in layers:
        yield axes
        if layer.is_last_step:
            axes = 2


def _of_last_axis(layer: Any, axes: int) -> Any:
    """The layer, its softmax over the last axis by the name -1; or raise."""
    dim = getattr(layer, "dim", -1)
    if dim == -1:
        return layer
    if dim != axes - 1:
        hint = "In a stream the axes before the last depend on how it is cut."
        raise ValueError(message("Stream", f"dim=-1 or {axes - 1}", f"{layer!r}", hint))
    return type(layer)(-1)
