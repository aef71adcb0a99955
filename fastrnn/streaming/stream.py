"""Stream: a live sequence with its own state, on shared weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn.arrays import Array, Floats, State, StateLike
from fastrnn.checks import check_positive, check_rows
from fastrnn.errors import message
from fastrnn.operators.chain import LayerLike
from fastrnn.streaming.errors import bound_twice, wrong_states
from fastrnn.streaming.live_chain import LiveChain
from fastrnn.streaming.stream_base import Exclusive, StreamBase, copy_arrays

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


class Stream(StreamBase):
    """A live sequence. `step` and `run` take its next steps, and it keeps its state between them.

    ``layer.stream()`` or ``model.stream()`` makes one. It owns its state, and shares the weights with all
    other streams of the layer or model. Time is always the first axis, also with ``batch_first``. A call that
    raises leaves the state as it was. Only one thread at a time may use a stream: a second one gets a
    RuntimeError. If a thread was using it when the process was forked, its methods raise RuntimeError in the
    child until the whole state is reset or assigned.

    Parameters
    ----------
    layers : list of layers
    batch_size : int, optional
        None: one unbatched sequence, of which a step takes shape (I,). B: rows that step together, and a
        step takes (B, I). With layers that take tokens, a step takes () or (B,).

    Attributes
    ----------
    batch_size : int or None

    Raises
    ------
    ValueError
        A layer needs the whole sequence: it is bidirectional, a mean over time, or a Softmax over an axis
        other than the last. Or ``batch_size`` is below 1.
    TypeError
        ``batch_size`` is not an integer.
    """

    def __init__(self, layers: Sequence[LayerLike], batch_size: int | None = None) -> None:
        where = type(self).__name__
        if hasattr(self, "_chain"):
            raise bound_twice(where)
        if batch_size is not None:
            batch_size = check_positive(where, "batch_size", batch_size)
        self._chain = LiveChain(where, layers)
        self.batch_size = batch_size
        self._states: list[Floats] = self._chain.initial_arrays(batch_size)
        self._calls = CheckedCalls(self._chain, batch_size, self._states)
        self._bind(self._chain.runner, self._states, batch_size, self._calls)

    def __repr__(self) -> str:
        layers = ", ".join(map(repr, self._chain.layers))
        return f"{type(self).__name__}([{layers}], batch_size={self.batch_size})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._chain.layers, self.batch_size), self._copies("__reduce__")

    def __setstate__(self, states: list[Floats]) -> None:
        # A pickle may hold anything, and compiled code copies the bytes without a check.
        fits = len(states) == len(self._states) and all(
            type(array) is np.ndarray and array.shape == own.shape and array.dtype == own.dtype
            for array, own in zip(states, self._states, strict=True)
        )
        if not fits:
            raise wrong_states(type(self).__name__, "a stream of these layers")
        self._assign("__setstate__", [np.ascontiguousarray(array) for array in states])

    @property
    def state(self) -> State | None:
        """A copy of the state, in the form that the model returns. Assign a state to set it.

        It is h of shape (L, B, P), or (h, c) with c of shape (L, B, H) for an LSTM, in the layer's dtype.
        Without rows there is no B axis. With several recurrent layers it is a tuple of their states, and
        with none it is None.

        Raises
        ------
        ValueError
            The assigned state is None, or a shape or the number of arrays does not fit.
        TypeError
            The assigned state does not hold real numbers.
        RuntimeError
            Another thread is using the stream.
        """
        return self._chain.nest_state(self._copies("state"))

    @state.setter
    def state(self, state: StateLike) -> None:
        where = "Stream.state"
        if state is None:
            raise ValueError(message(where, "a state", "None", "reset() goes back to the initial one."))
        self._assign("state", self._chain.check_state(where, state, self.batch_size))

    def reset(self, rows: ArrayLike | None = None) -> None:
        """Set the state back to the initial one, in place: zeros, or what was learned.

        Parameters
        ----------
        rows : int or sequence of int, or of B bools, optional
            The rows of a batch to reset, from 0 to B - 1, or a mask of the rows. All if not given.

        Raises
        ------
        ValueError
            There is no such row, or the stream has no rows.
        TypeError
            ``rows`` does not hold integers or B bools.
        RuntimeError
            Another thread is using the stream.
        """
        chosen: Any = ...
        if rows is not None:
            if self.batch_size is None:
                hint = "stream(batch_size) makes one that has rows."
                raise ValueError(message("Stream.reset", "a stream that has rows", "one that has none", hint))
            chosen = (slice(None), check_rows("Stream.reset", rows, self.batch_size))
        with Exclusive(self, "reset", sets_all=rows is None):
            changed = [array.copy() for array in self._states]
            for array, initial in zip(changed, self._chain.initial_arrays(self.batch_size), strict=True):
                array[chosen] = initial[chosen]
            copy_arrays(changed, self._states)

    def _copies(self, method: str) -> list[Floats]:
        with Exclusive(self, method):
            return [array.copy() for array in self._states]

    def _assign(self, method: str, arrays: list[Floats]) -> None:
        """Set the whole state from plain arrays that fit."""
        with Exclusive(self, method, sets_all=True):
            copy_arrays(arrays, self._states)


class CheckedCalls:
    """Calls of a stream with arguments of any kind, or with layers that have to be called one by one.

    Parameters
    ----------
    chain : LiveChain
    batch_size : int or None
    states : list of ndarray
        The stream's own arrays, which are updated in place.
    """

    def __init__(self, chain: LiveChain, batch_size: int | None, states: list[Floats]) -> None:
        self._chain = chain
        self._rows = () if batch_size is None else (batch_size,)
        self._states = states

    def step(self, stream: StreamBase, x: ArrayLike, out: Floats | None) -> Floats:
        """Do what `Stream.step` does."""
        row = self._chain.check_steps("Stream.step", "x", x, self._rows)
        if out is None:
            y: Floats = self._advance(stream, "step", row[None], None)[0]
            return y
        self._advance(stream, "step", row[None], self._chain.check_out("Stream.step", out, row)[None])
        return out

    def run(self, stream: StreamBase, chunk: ArrayLike, out: Floats | None) -> Floats:
        """Do what `Stream.run` does."""
        x = self._chain.check_steps("Stream.run", "chunk", chunk, ("T", *self._rows))
        if out is None:
            return self._advance(stream, "run", x, None)
        self._advance(stream, "run", x, self._chain.check_out("Stream.run", out, x))
        return out

    def _advance(self, stream: StreamBase, method: str, x: Array, out: Array | None) -> Array:
        """Run checked x (T, ...) through the layers. The states change only after all layers have run."""
        chain = self._chain
        if chain.runner is not None:
            x = chain.plain(f"Stream.{method}", "x", x)
            y = np.empty(chain.out_shape(x), chain.signature.dtype) if out is None else out
            stream._run_plain(method, x, y)
            return y
        with Exclusive(stream, method):
            changed = [array.copy() for array in self._states]
            y = chain.run(f"Stream.{method}", x, changed, out)
            copy_arrays(changed, self._states)
        return y
