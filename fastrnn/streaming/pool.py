"""Pools: many live sequences on one set of weights, stepped as one batch."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastrnn.arrays import Array, Floats, State, StateLike
from fastrnn.checks import check_positive
from fastrnn.errors import message
from fastrnn.operators.chain import LayerLike, StreamLayers
from fastrnn.streaming.errors import bound_twice
from fastrnn.streaming.slots import Slots, listed

# By id(): what a subclass takes for equal does not matter.
_pools: weakref.WeakValueDictionary[int, StreamPool] = weakref.WeakValueDictionary()


class StreamPool(Slots):
    """Many live sequences, each with a state of its own: step any of them as one batch.

    Made by ``model.pool()`` or ``layer.pool()``. The states lie in one block of memory, which grows by
    itself. A row's bits are those of a `Stream` and of the whole sequence, whoever it is stepped with
    (`blas`: to rounding). Threads may share a pool: their calls take turns. A call that raises leaves every
    stream as it was.

    A call within another one of the same thread, by a layer of one's own, raises RuntimeError; so do all in
    the child of a fork that came while another thread was changing states.

    Parameters
    ----------
    layers : list of layers
    capacity : int
        Streams that there is room for before the memory grows.

    Attributes
    ----------
    capacity : int
        Streams that there is room for now; ``len(pool)`` is how many are open.

    Raises
    ------
    ValueError
        A layer needs the whole sequence: a bidirectional one, or a Softmax over an axis other than the
        last. Or ``capacity`` is below 1.
    TypeError
        ``capacity`` is no whole number.

    Examples
    --------
    >>> pool = model.pool()
    >>> ann, bob = pool.open(), pool.open()
    >>> Y = pool.step([bob, ann], X)  # X[0] is bob's
    >>> state = pool.close(ann)
    """

    def __init__(self, layers: Sequence[LayerLike], capacity: int = 256) -> None:
        where = type(self).__name__
        if hasattr(self, "_layers"):
            raise bound_twice(where)
        capacity = check_positive(where, "capacity", capacity)
        self._layers = StreamLayers(where, layers)
        columns = [
            (shape[0], shape[1], layer.dtype)
            for layer in self._layers.recurrent
            for shape in layer.shape.state_shapes(None).values()
        ]
        self._bind(self._layers.compiled, columns, capacity)
        _pools[id(self)] = self

    def __repr__(self) -> str:
        layers = ", ".join(map(repr, self._layers.layers))
        return f"{type(self).__name__}([{layers}]), {len(self)} open"

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self._layers.layers, *self._dump())

    def open(self, state: StateLike = None) -> int:
        """Begin a stream, and give its id.

        Parameters
        ----------
        state : array-like or pair of them, optional
            As `Stream.state` has it; zeros if not given.

        Raises
        ------
        ValueError
            A shape or a number of arrays does not fit.
        TypeError
            What is given does not hold real numbers.
        MemoryError
            There is no memory for another stream.
        """
        given = None
        if state is not None:
            given = [array[:, None] for array in self._layers.check_state("StreamPool.open", state, None)]
        return self._open(given)

    def close(self, id: int) -> State | None:
        """End a stream and give its state, as `state` does; its id never comes back.

        Raises
        ------
        ValueError
            There is no open stream of that id.
        TypeError
            ``id`` is no whole number.
        """
        return self._pack(self._read("close", [id], True))

    def state(self, id: int) -> State | None:
        """A copy of a stream's state, shaped as the model returns it for one unbatched sequence.

        Raises
        ------
        ValueError
            There is no open stream of that id.
        TypeError
            ``id`` is no whole number.
        """
        return self._pack(self._read("state", [id], False))

    def run(self, ids: Iterable[int], chunks: Iterable[ArrayLike]) -> list[Floats]:
        """Make many time steps of each of these streams: the same as `step` on each, in one call.

        An interrupt waits for all of them: the steps are made, and what they gave is lost.

        Parameters
        ----------
        ids : sequence of int
            Of open streams, in any order, no two the same.
        chunks : sequence of array-like, each of shape (T, I)
            One for each id, of lengths that may differ. Tokens: integers, shape (T,). An empty one, ``[]``
            too, makes no step. Where the model takes one feature, numbers of shape (T,) are (T, 1).

        Returns
        -------
        list of ndarray, each of shape (T, features)

        Raises
        ------
        ValueError, TypeError
            As in `step`.
        """
        where = "StreamPool.run"
        ids = listed("run", ids)
        if not isinstance(chunks, Iterable) or isinstance(chunks, (set, frozenset, Mapping)):
            raise TypeError(message(where, "chunks in a sequence", type(chunks).__name__))
        chunks = list(chunks)
        if len(chunks) != len(ids):
            raise ValueError(message(where, f"a chunk for each of {len(ids)} ids", f"{len(chunks)}"))
        checked = [
            self._layers.check_steps(where, f"chunk {index}", chunk, ("T",))
            for index, chunk in enumerate(chunks)
        ]
        if self._layers.compiled is None:
            return self._run_layers(ids, checked)
        checked = [self._layers.plain(where, f"chunk {index}", x) for index, x in enumerate(checked)]
        outputs = [np.empty(self._layers.out_shape(x), self._layers.dtype) for x in checked]
        self._run(ids, checked, outputs)
        return outputs

    # ------------------------------------------------------------ what the steps ask for

    def _check_rows(self, X: object, n: int) -> Array:
        """A step's rows as the compiled chain takes them; or raise."""
        where = "StreamPool.step"
        return self._layers.plain(where, "X", self._layers.check_steps(where, "X", X, (n,)))

    def _check_out(self, out: Floats, X: Array) -> Array:
        return self._layers.check_out("StreamPool.step", out, X)

    def _step_layers(self, ids: Any, n: int, X: object, out: Floats | None) -> Floats:
        """`step` where the layers have to be called one by one."""
        x = self._layers.check_steps("StreamPool.step", "X", X, (n,))
        target = None if out is None else self._check_out(out, x)[None]

        def advance() -> Floats:
            arrays = self._read_all("step", ids)
            y: Floats = self._layers.run("StreamPool.step", x[None], self._by_layer(arrays), target)[0]
            self._write_all(arrays, n)
            return y

        y = self._in_turn("step", advance)
        return y if out is None else out

    def _run_layers(self, ids: Any, chunks: list[Array]) -> list[Floats]:
        def advance() -> list[Floats]:
            arrays = self._read_all("run", ids)
            outputs = []
            for index, chunk in enumerate(chunks):
                states = [np.ascontiguousarray(array[:, index : index + 1]) for array in arrays]
                outputs.append(
                    self._layers.run("StreamPool.run", chunk[:, None], self._by_layer(states), None)[:, 0]
                )
                for array, state in zip(arrays, states, strict=True):
                    array[:, index : index + 1] = state
            self._write_all(arrays, len(chunks))
            return outputs

        return self._in_turn("run", advance)

    def _by_layer(self, arrays: list[Floats]) -> list[list[Floats]]:
        """The arrays of all states, those of each recurrent layer together."""
        rest = iter(arrays)
        return [[next(rest) for _ in layer.shape.state_shapes(None)] for layer in self._layers.recurrent]

    def _pack(self, arrays: list[Floats]) -> State | None:
        """The state of one stream, of arrays (L, 1, columns)."""
        return self._layers.pack_state(self._by_layer([array[:, 0] for array in arrays]))


def _restore(
    cls: type[StreamPool], layers: list[LayerLike], uses: Array, slots: Array, records: Array
) -> StreamPool:
    pool = cls(layers, len(uses))
    pool._fill(uses, slots, records)
    return pool


def _forget_threads() -> None:
    """In a new process: the threads of the old one are gone, and with them what they were at."""
    for pool in _pools.values():
        pool._begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)
