"""StreamPool: many live sequences on shared weights, stepped as one batch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from fastrnn.arrays import Array, Floats, State, StateLike
from fastrnn.checks import check_chunks, check_positive
from fastrnn.operators.chain import LayerLike
from fastrnn.streaming.errors import bound_twice, wrong_ids
from fastrnn.streaming.live_chain import LiveChain
from fastrnn.streaming.open_streams import OpenStreams

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

# Ids in the form that compiled code takes.
Ids: TypeAlias = Sequence[int] | Array


class StreamPool:
    """Many live sequences, each with its own state. Any of them can be stepped as one batch.

    ``model.pool()`` or ``layer.pool()`` makes one. The memory for the states grows when it is needed. A
    stream's results have the same bits as in a `Stream` or in a call on the whole sequence, whichever streams
    it is stepped with (with the ``blas`` backend they are the same up to rounding). Threads may share a
    pool: their calls take turns. A call that raises leaves every stream as it was.

    RuntimeError is raised in two cases. One is a call inside another call of the same pool in the same
    thread, which a layer of your own can make. The other is any call in the child of a fork, if another
    thread was changing states at the fork.

    Parameters
    ----------
    layers : list of layers
    capacity : int
        The number of streams that fit before the memory grows.

    Attributes
    ----------
    capacity : int
        The number of streams that fit now. ``len(pool)`` is the number of open streams.

    Raises
    ------
    ValueError
        A layer needs the whole sequence: it is bidirectional, a mean over time, or a Softmax over an axis
        other than the last. Or ``capacity`` is below 1.
    TypeError
        ``capacity`` is not an integer.
    MemoryError
        There is not enough memory for this many streams.

    Examples
    --------
    >>> pool = model.pool()
    >>> ann, bob = pool.open(), pool.open()
    >>> Y = pool.step([bob, ann], X)  # X[0] is bob's
    >>> state = pool.close(ann)
    """

    _streams = OpenStreams()  # for a pool whose __init__ was not called or failed

    def __init__(self, layers: Sequence[LayerLike], capacity: int = 256) -> None:
        where = type(self).__name__
        if hasattr(self, "_chain"):
            raise bound_twice(where)
        capacity = check_positive(where, "capacity", capacity)
        self._chain = LiveChain(where, layers)
        columns = [(L, columns, dtype) for (L, columns), dtype in self._chain.state_arrays(None)]
        initial = None
        if any(getattr(layer, "initial", ()) for layer in self._chain.stateful):
            initial = self._chain.initial_arrays(None)
        self._streams = OpenStreams(self._chain.runner, columns, capacity, initial)

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
        """Return whether a stream with this id is open."""
        return id in self._streams

    @property
    def capacity(self) -> int:
        """The number of streams that fit now. ``len(pool)`` is the number of open streams."""
        return self._streams.capacity

    def ids(self) -> list[int]:
        """Return the ids of all open streams, as a list of int."""
        return self._streams.ids()

    def open(self, state: StateLike = None) -> int:
        """Open a stream, and return its id.

        Parameters
        ----------
        state : array-like, pair or tuple of them, optional
            The initial state, in the form of `Stream.state` without rows. If not given: zeros, or
            what was learned.

        Returns
        -------
        int

        Raises
        ------
        ValueError
            A shape or the number of arrays does not fit.
        TypeError
            The state does not hold real numbers.
        MemoryError
            There is not enough memory for another stream.
        """
        given = None
        if state is not None:
            given = [array[:, None] for array in self._chain.check_state("StreamPool.open", state, None)]
        return self._streams.open(given)

    def close(self, id: int) -> State | None:
        """Close a stream, and return its state as `state` does. Its id is never used again.

        Raises
        ------
        ValueError
            No open stream has this id.
        TypeError
            ``id`` is not an integer.
        """
        return self._pack(self._streams.read("close", [id], True))

    def state(self, id: int) -> State | None:
        """Return a copy of a stream's state, in the form that the model returns for one unbatched sequence.

        Raises
        ------
        ValueError
            No open stream has this id.
        TypeError
            ``id`` is not an integer.
        """
        return self._pack(self._streams.read("state", [id], False))

    def reset(self, ids: Iterable[int]) -> None:
        """Set the states of these streams back to the initial ones. They keep their ids.

        Parameters
        ----------
        ids : sequence of int
            Ids of open streams, each at most once, in any order.

        Raises
        ------
        ValueError
            An id is unknown, closed or given twice.
        TypeError
            ``ids`` does not hold integers.
        RuntimeError
            The process was forked while another thread was changing states, or the call is inside another
            call of the same pool.
        """
        self._streams.reset(_listed("StreamPool.reset", ids))

    def step(self, ids: Iterable[int], X: ArrayLike, out: Floats | None = None) -> Floats:
        """Make one time step in each of these streams.

        Parameters
        ----------
        ids : sequence of int
            Ids of open streams, each at most once, in any order.
        X : array-like, shape (n, I)
            Real numbers, one row for each id. For layers that take tokens: integers of shape (n,).
        out : ndarray, optional
            An array for the result: C-contiguous, of its shape and dtype, and apart from ``X``.

        Returns
        -------
        ndarray, shape (n, features)
            One row for each id. ``out`` if given. The dtype is that of the last layer that has one.

        Raises
        ------
        ValueError
            An id is unknown, closed or given twice, a token is out of range, or the shape of ``X`` or
            ``out`` does not fit.
        TypeError
            ``ids`` does not hold integers, ``X`` does not hold numbers of the right kind, or ``out`` is not
            an ndarray.
        RuntimeError
            The process was forked while another thread was changing states, or the call is inside another
            call of the same pool.
        MemoryError
            There is not enough memory for the step.
        """
        ids = _listed("StreamPool.step", ids)
        y = self._streams.step(ids, X, out)
        return self._step_checked(ids, X, out) if y is None else y

    def run(self, ids: Iterable[int], chunks: Iterable[ArrayLike]) -> list[Floats]:
        """Make several time steps in each of these streams, in one call.

        The result is that of `step` called for each time step. An interrupt waits until all steps are made.
        The states then include these steps, but the outputs are lost.

        Parameters
        ----------
        ids : sequence of int
            Ids of open streams, each at most once, in any order.
        chunks : sequence of array-like, each of shape (T, I)
            One chunk for each id. T may differ. For layers that take tokens: integers of shape (T,). An
            empty chunk, also ``[]``, makes no step. If the model takes one feature, numbers of shape (T,)
            are read as (T, 1).

        Returns
        -------
        list of ndarray, each of shape (T, features)
            One array for each id. The dtype is that of the last layer that has one.

        Raises
        ------
        ValueError, TypeError, RuntimeError, MemoryError
            As in `step`.
        """
        where = "StreamPool.run"
        ids = _listed(where, ids)
        if isinstance(ids, np.ndarray):
            ids = np.array(ids)  # the conversion of a chunk may run code that changes the caller's array
        checked = [
            self._chain.check_steps(where, f"chunk {index}", chunk, ("T",))
            for index, chunk in enumerate(check_chunks(where, chunks, len(ids)))
        ]
        if self._chain.runner is None:
            return self._run_layers(ids, checked)
        checked = [self._chain.plain(where, f"chunk {index}", x) for index, x in enumerate(checked)]
        outputs = [np.empty(self._chain.out_shape(x), self._chain.signature.dtype) for x in checked]
        self._streams.run(ids, checked, outputs)
        return outputs

    def _step_checked(self, ids: Ids, X: ArrayLike, out: Floats | None) -> Floats:
        """Do what `step` does for arguments of any kind, and for layers that have to be called one by one."""
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
        """Do what `run` does for layers that have to be called one by one."""

        def advance(arrays: list[Floats]) -> list[Floats]:
            outputs = []
            for index, chunk in enumerate(chunks):
                states = [np.ascontiguousarray(array[:, index : index + 1]) for array in arrays]
                y = self._chain.run("StreamPool.run", chunk[:, None], states, None)
                outputs.append(y[:, 0].copy())  # a layer from outside may use its array again
                for array, state in zip(arrays, states, strict=True):
                    array[:, index : index + 1] = state
            return outputs

        return self._streams.change("run", ids, advance)

    def _pack(self, arrays: list[Floats]) -> State | None:
        """Return the state of one stream from arrays of shape (L, 1, columns)."""
        return self._chain.nest_state([array[:, 0] for array in arrays])


def _listed(where: str, ids: Iterable[int]) -> Ids:
    """Return an array of ids as it is, and other ids as a tuple, which nobody else can change.

    A set is refused: it has no order for the rows to follow.
    """
    if type(ids) is list or type(ids) is tuple:
        return tuple(ids)
    if isinstance(ids, np.ndarray) and not isinstance(ids, np.ma.MaskedArray):
        return ids
    if isinstance(ids, (set, frozenset, np.ma.MaskedArray)) or not isinstance(ids, Iterable):
        raise wrong_ids(where, ids)
    return tuple(ids)
