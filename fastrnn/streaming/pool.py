"""Pools: many live sequences on one set of weights, stepped as one batch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from fastrnn.arrays import Array, Floats, State, StateLike
from fastrnn.checks import check_positive
from fastrnn.errors import message
from fastrnn.operators.chain import LayerLike
from fastrnn.streaming.errors import bound_twice, wrong_ids
from fastrnn.streaming.live_chain import LiveChain
from fastrnn.streaming.open_streams import OpenStreams

# Ids as compiled code takes them.
Ids: TypeAlias = Sequence[int] | Array


class StreamPool:
    """Many live sequences, each with a state of its own: step any of them as one batch.

    Made by ``model.pool()`` or ``layer.pool()``. The states lie together in memory, which grows by
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

    _streams = OpenStreams()  # of a pool whose __init__ was not called, or failed

    def __init__(self, layers: Sequence[LayerLike], capacity: int = 256) -> None:
        where = type(self).__name__
        if hasattr(self, "_chain"):
            raise bound_twice(where)
        capacity = check_positive(where, "capacity", capacity)
        self._chain = LiveChain(where, layers)
        columns = [(L, columns, dtype) for (L, columns), dtype in self._chain.state_arrays(None)]
        self._streams = OpenStreams(self._chain.runner, columns, capacity)

    def __repr__(self) -> str:
        layers = ", ".join(map(repr, self._chain.layers))
        return f"{type(self).__name__}([{layers}]), {len(self)} open"

    def __reduce__(self) -> tuple[Any, ...]:
        uses, slots, records = self._streams.dump()
        return type(self), (self._chain.layers, len(uses)), (uses, slots, records)

    def __setstate__(self, state: tuple[Array, Array, Array]) -> None:
        self._streams.fill(*state)

    def __len__(self) -> int:
        return len(self._streams)

    def __contains__(self, id: object) -> bool:
        """Whether a stream of this id is open."""
        return id in self._streams

    @property
    def capacity(self) -> int:
        """Streams that there is room for now; the number of open streams is ``len(pool)``."""
        return self._streams.capacity

    def ids(self) -> list[int]:
        """The ids of all open streams."""
        return self._streams.ids()

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
            given = [array[:, None] for array in self._chain.check_state("StreamPool.open", state, None)]
        return self._streams.open(given)

    def close(self, id: int) -> State | None:
        """End a stream and give its state, as `state` does; its id never comes back.

        Raises
        ------
        ValueError
            There is no open stream of that id.
        TypeError
            ``id`` is no whole number.
        """
        return self._pack(self._streams.read("close", [id], True))

    def state(self, id: int) -> State | None:
        """A copy of a stream's state, shaped as the model returns it for one unbatched sequence.

        Raises
        ------
        ValueError
            There is no open stream of that id.
        TypeError
            ``id`` is no whole number.
        """
        return self._pack(self._streams.read("state", [id], False))

    def reset(self, ids: Iterable[int]) -> None:
        """Bring the states of these streams back to zeros; they keep their ids.

        Parameters
        ----------
        ids : sequence of int
            Of open streams, in any order, no two the same.

        Raises
        ------
        ValueError
            An id is unknown, closed or given twice.
        TypeError
            ``ids`` does not hold whole numbers.
        RuntimeError
            The process was forked while another thread was changing states, or this call is inside another
            one.
        """
        self._streams.reset(_listed("StreamPool.reset", ids))

    def step(self, ids: Iterable[int], X: ArrayLike, out: Floats | None = None) -> Floats:
        """Make one time step of each of these streams.

        Parameters
        ----------
        ids : sequence of int
            Of open streams, in any order, no two the same.
        X : array-like, shape (n, I)
            A row for each id: real numbers; tokens: integers, shape (n,).
        out : ndarray, optional
            Where the result goes; C-contiguous, of its shape and dtype, apart from ``X``.

        Returns
        -------
        ndarray, shape (n, features)
            A row for each id, of the dtype of the last layer that has one; ``out`` if given.

        Raises
        ------
        ValueError
            An id is unknown, closed or given twice; or the shape of ``X``, a token or ``out`` does not fit.
        TypeError
            ``ids`` or ``X`` does not hold numbers of its kind, or ``out`` is no ndarray.
        RuntimeError
            The process was forked while another thread was changing states, or this call is inside another
            one.
        MemoryError
            There is not enough for the step.
        """
        ids = _listed("StreamPool.step", ids)
        y = self._streams.step(ids, X, out)
        return self._step_checked(ids, X, out) if y is None else y

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
        ids = _listed(where, ids)
        if not isinstance(chunks, Iterable) or isinstance(chunks, (set, frozenset, Mapping)):
            raise TypeError(message(where, "chunks in a sequence", type(chunks).__name__))
        chunks = list(chunks)
        if len(chunks) != len(ids):
            raise ValueError(message(where, f"a chunk for each of {len(ids)} ids", f"{len(chunks)}"))
        checked = [
            self._chain.check_steps(where, f"chunk {index}", chunk, ("T",))
            for index, chunk in enumerate(chunks)
        ]
        if self._chain.runner is None:
            return self._run_layers(ids, checked)
        checked = [self._chain.plain(where, f"chunk {index}", x) for index, x in enumerate(checked)]
        outputs = [np.empty(self._chain.out_shape(x), self._chain.signature.dtype) for x in checked]
        self._streams.run(ids, checked, outputs)
        return outputs

    def _step_checked(self, ids: Ids, X: ArrayLike, out: Floats | None) -> Floats:
        """`step` for arguments of any kind, and for layers that have to be called one by one."""
        where = "StreamPool.step"
        chain = self._chain
        x = chain.check_steps(where, "X", X, (len(ids),))
        if chain.runner is not None:
            x = chain.plain(where, "X", x)
        y = None if out is None else chain.check_out(where, out, x)
        if chain.runner is not None:
            if y is None:
                y = np.empty(chain.out_shape(x), chain.signature.dtype)
            self._streams.step_plain(ids, x, y)
        else:
            target = None if y is None else y[None]
            y = self._streams.change("step", ids, lambda arrays: chain.run(where, x[None], arrays, target)[0])
        return y if out is None else out

    def _run_layers(self, ids: Ids, chunks: list[Array]) -> list[Floats]:
        """`run` where the layers have to be called one by one."""

        def advance(arrays: list[Floats]) -> list[Floats]:
            outputs = []
            for index, chunk in enumerate(chunks):
                states = [np.ascontiguousarray(array[:, index : index + 1]) for array in arrays]
                y = self._chain.run("StreamPool.run", chunk[:, None], states, None)
                outputs.append(y[:, 0])
                for array, state in zip(arrays, states, strict=True):
                    array[:, index : index + 1] = state
            return outputs

        return self._streams.change("run", ids, advance)

    def _pack(self, arrays: list[Floats]) -> State | None:
        """The state of one stream, of arrays (L, 1, columns)."""
        return self._chain.nest_state([array[:, 0] for array in arrays])


def _listed(where: str, ids: Iterable[int]) -> Ids:
    """Ids in an array, or in a tuple, which nobody else changes. A set has no order that rows could have."""
    if type(ids) is list or type(ids) is tuple:
        return tuple(ids)
    if isinstance(ids, np.ndarray) and not isinstance(ids, np.ma.MaskedArray):
        return ids
    if isinstance(ids, (set, frozenset, np.ma.MaskedArray)) or not isinstance(ids, Iterable):
        raise wrong_ids(where, ids)
    return tuple(ids)
