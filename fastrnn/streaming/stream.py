"""Streams: live sequences, each with a state of its own, on shared weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastrnn.arrays import Array, Floats, State, StateLike
from fastrnn.checks import check_positive, check_rows
from fastrnn.errors import message
from fastrnn.operators.chain import LayerLike, StreamLayers
from fastrnn.streaming.errors import bound_twice
from fastrnn.streaming.steps import Alone, Stepper, copy_arrays


class Stream(Stepper):
    """A live sequence: `step` or `run` it, and its state is kept.

    Made by ``layer.stream()`` or ``model.stream()``. It owns its state and shares the weights
    with every other stream of that layer or model. Time is always the first axis here,
    ``batch_first`` or not. A call that raises leaves the state as it was. In the child of a fork that came
    while another thread was at a stream, its methods raise RuntimeError until it is reset.

    Parameters
    ----------
    layers : list of layers
    batch_size : int, optional
        None: one unbatched sequence, a step takes (I,). B: rows that go in step, a step takes
        (B, I). Layers of tokens take () and (B,).

    Attributes
    ----------
    batch_size : int or None

    Raises
    ------
    ValueError
        A layer needs the whole sequence: a bidirectional one, or a Softmax over an axis other
        than the last. Or ``batch_size`` is below 1.
    TypeError
        ``batch_size`` is no whole number.
    """

    def __init__(self, layers: Sequence[LayerLike], batch_size: int | None = None) -> None:
        where = type(self).__name__
        if hasattr(self, "_layers"):
            raise bound_twice(where)
        if batch_size is not None:
            batch_size = check_positive(where, "batch_size", batch_size)
        self._layers = StreamLayers(where, layers)
        self.batch_size = batch_size
        self._rows = () if batch_size is None else (batch_size,)
        self._states: list[list[Floats]] = [
            [np.zeros(shape, layer.dtype) for shape in layer.shape.state_shapes(batch_size).values()]
            for layer in self._layers.recurrent
        ]
        if self._layers.compiled is not None:
            states = [(h, c[0] if c else None) for h, *c in self._states]
            self._bind(self._layers.compiled, states, batch_size)

    def __repr__(self) -> str:
        layers = ", ".join(map(repr, self._layers.layers))
        return f"{type(self).__name__}([{layers}], batch_size={self.batch_size})"

    def __reduce__(self) -> tuple[Any, ...]:
        with Alone(self, "__reduce__"):
            states = [[array.copy() for array in arrays] for arrays in self._states]
        return _restore, (type(self), self._layers.layers, self.batch_size, states)

    def _step_checked(self, x: ArrayLike, out: Floats | None) -> Floats:
        """`step` for whatever it is given."""
        x = self._layers.check_steps("Stream.step", "x", x, self._rows)
        if out is None:
            y: Floats = self._advance("step", x[None], None)[0]
            return y
        self._advance("step", x[None], self._layers.check_out("Stream.step", out, x)[None])
        return out

    def run(self, chunk: ArrayLike, out: Floats | None = None) -> Floats:
        """Make many time steps: the same as `step` on each, in one call.

        An interrupt waits for the whole chunk: its steps are made, and what they gave is lost.

        Parameters
        ----------
        chunk : array-like, shape (T, I) or (T, B, I)
            Real numbers; tokens: integers, shape (T,) or (T, B). An empty chunk, ``[]`` too, makes no step.
            Where the model takes one feature and there are no rows, numbers of shape (T,) are (T, 1).
        out : ndarray, optional
            Where the result goes; C-contiguous, of its shape and dtype, apart from ``chunk``.

        Returns
        -------
        ndarray, shape (T, features) or (T, B, features)
            Of the dtype of the last layer that has one; ``out`` if given.

        Raises
        ------
        ValueError, TypeError, RuntimeError
            As in `step`.
        """
        x = self._layers.check_steps("Stream.run", "chunk", chunk, ("T", *self._rows))
        if out is None:
            return self._advance("run", x, None)
        self._advance("run", x, self._layers.check_out("Stream.run", out, x))
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
        RuntimeError
            Another thread is using the stream.
        """
        with Alone(self, "state"):
            copies = [[array.copy() for array in arrays] for arrays in self._states]
        return self._layers.pack_state(copies)

    @state.setter
    def state(self, state: StateLike) -> None:
        where = "Stream.state"
        if state is None:
            raise ValueError(message(where, "a state", "None", "reset() goes back to zeros."))
        given = self._layers.check_state(where, state, self.batch_size)
        with Alone(self, "state", heals=True):
            copy_arrays(given, _flat(self._states))

    def reset(self, rows: ArrayLike | None = None) -> None:
        """Set the state back to zeros, in place.

        Parameters
        ----------
        rows : int or sequence of int, or of B bools, optional
            Of a batch, those rows alone; from 0 to B - 1. All if not given.

        Raises
        ------
        ValueError
            There is no such row, or the stream has no rows.
        TypeError
            ``rows`` are no whole numbers.
        RuntimeError
            Another thread is using the stream.
        """
        chosen: Any = ...
        if rows is not None:
            if self.batch_size is None:
                hint = "stream(batch_size) makes one that has rows."
                raise ValueError(message("Stream.reset", "a stream that has rows", "one that has none", hint))
            chosen = (slice(None), check_rows("Stream.reset", rows, self.batch_size))
        with Alone(self, "reset", heals=rows is None):
            states = _flat(self._states)
            changed = [array.copy() for array in states]
            for array in changed:
                array[chosen] = 0
            copy_arrays(changed, states)

    def _advance(self, method: str, x: Array, out: Array | None) -> Array:
        """Run checked x (T, ...) through the layers; the states change when all of them have run."""
        layers = self._layers
        if layers.compiled is not None:
            x = layers.plain(f"Stream.{method}", "x", x)
            y = np.empty(layers.out_shape(x), layers.dtype) if out is None else out
            self._run_plain(method, x, y)
            return y
        with Alone(self, method):
            states = [[array.copy() for array in arrays] for arrays in self._states]
            y = layers.run(f"Stream.{method}", x, states, out)
            copy_arrays(_flat(states), _flat(self._states))
        return y


def _flat(states: Sequence[Sequence[Array]]) -> list[Array]:
    """The arrays of the states of all layers."""
    return [array for arrays in states for array in arrays]


def _restore(
    cls: type[Stream],
    layers: list[LayerLike],
    batch_size: int | None,
    states: list[list[Floats]],
) -> Stream:
    stream = cls(layers, batch_size)
    given, own = _flat(states), _flat(stream._states)
    # A pickle may hold anything, and compiled code copies as many bytes as there should be.
    fits = len(given) == len(own) and all(
        type(array) is np.ndarray and array.shape == mine.shape and array.dtype == mine.dtype
        for array, mine in zip(given, own, strict=True)
    )
    if not fits:
        raise ValueError(message(cls.__name__, "the states of a stream of these layers", "others"))
    copy_arrays([np.ascontiguousarray(array) for array in given], own)
    return stream
