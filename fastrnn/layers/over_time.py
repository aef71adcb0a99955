"""The layers that leave one row of each sequence: Last, FinalState, Mean and Max over its valid steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn import reference
from fastrnn.arrays import Floats, as_plain
from fastrnn.checks import (
    check_floats,
    check_lengths,
)
from fastrnn.engine.backends import array_table, row_table
from fastrnn.errors import message
from fastrnn.layers.base import FLOATS, Layer, time_major
from fastrnn.operators.operator import Operator
from fastrnn.operators.signature import Signature, Trait
from fastrnn.operators.stateless import LastStep, OverSteps

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


class OverTime(Layer):
    """The base class."""

    @property
    def signature(self) -> Signature:
        return Signature(Trait.WHOLE, gives_last=True)

    def __call__(
        self, x: ArrayLike, *, lengths: ArrayLike | None = None, batch_first: bool = False
    ) -> Floats:
        """Take one row of each sequence.

        Parameters
        ----------
        x : array-like of real numbers, shape (T, B, F)
            (B, T, F) with ``batch_first``; (T, F) is one unbatched sequence.
        lengths : B integers, optional
            The number of time steps of each row, from 1 to T. All T if not given.
        batch_first : bool
            x has shape (B, T, F).

        Returns
        -------
        ndarray, shape (B, F)
            (F,) if x is unbatched. float64 if x is float64, float32 otherwise.

        Raises
        ------
        ValueError
            ``x`` has another number of axes or is empty, or a length is out of range.
        TypeError
            ``x`` does not hold real numbers, or ``lengths`` does not hold integers.
        """
        where = type(self).__name__
        x = check_floats(where, x)
        if x.ndim not in (2, 3) or 0 in x.shape:
            layout = "(B, T, F)" if batch_first else "(T, B, F)"
            raise ValueError(message(where, f"x of shape {layout} or, unbatched, (T, F)", f"{x.shape}"))
        steps = time_major(x, batch_first)
        T, B = steps.shape[:2]
        rows = self._rows(steps, None if lengths is None else check_lengths(where, lengths, T, B))
        result: Floats = rows[0] if x.ndim == 2 else rows
        return result

    def _rows(self, steps: Floats, lengths: NDArray[np.intp] | None) -> Floats:
        """Return (B, F) from steps (T, B, F)."""
        raise NotImplementedError


class Last(OverTime):
    """The last valid time step of each row: ``output[:, -1]``, or ``output[b, lengths[b] - 1]``.

    In a Sequential it uses the model's layout and lengths. After a bidirectional layer it takes both
    halves of the features at that step, as indexing does in torch. `FinalState` takes the reverse half where
    that direction ends. In a stream every step is the last so far, so it passes each one on.

    Source: indexing of the "output" of torch's recurrent layers,
    https://docs.pytorch.org/docs/stable/nn.html#recurrent-layers
    """

    @property
    def signature(self) -> Signature:
        return Signature(Trait.LAST, gives_last=True)

    def operator(self, dtype: np.dtype[Any]) -> LastStep:
        return LastStep(dtype.name)

    # NumPy, since both only copy, and the operator needs a plan of rows in the order of their lengths.
    def _rows(self, steps: Floats, lengths: NDArray[np.intp] | None) -> Floats:
        if lengths is None:
            last: Floats = steps[-1].copy()
            return last
        rows: Floats = steps[lengths - 1, np.arange(steps.shape[1])]
        return rows


class FinalState(Last):
    """The final h of both directions: ``torch.cat((h_n[-2], h_n[-1]), -1)`` of a bidirectional layer.

    Each row has the forward half of the features at its last valid step, and the reverse half at its first
    step, where the reverse direction ends. In a Sequential it follows a bidirectional layer. Only layers that
    look at each number alone may come between.

    Source: "h_n" of torch's recurrent layers, https://docs.pytorch.org/docs/stable/nn.html#recurrent-layers
    """

    after_both_directions = True

    @property
    def signature(self) -> Signature:
        return Signature(Trait.WHOLE, gives_last=True)

    def operator(self, dtype: np.dtype[Any]) -> LastStep:
        return LastStep(dtype.name, True)

    def _rows(self, steps: Floats, lengths: NDArray[np.intp] | None) -> Floats:
        features = steps.shape[-1]
        if features % 2:
            got = f"{features} features"
            raise ValueError(message("FinalState", "the features of two directions", got))
        rows = super()._rows(steps, lengths)
        rows[:, features // 2 :] = steps[0, :, features // 2 :]
        return rows


class _Reduced(OverTime):
    """The base class of what is computed of all valid steps."""

    def __init__(self) -> None:
        self._operators = {
            dtype: OverSteps(type(self).__name__.lower(), dtype.name, table, array_table(dtype))
            for dtype in FLOATS
            if (table := row_table(dtype)) is not None
        }

    def operator(self, dtype: np.dtype[Any]) -> Operator | None:
        return self._operators.get(dtype)

    def _rows(self, steps: Floats, lengths: NDArray[np.intp] | None) -> Floats:
        if steps.dtype not in self._operators:
            rows = reference.over_steps(type(self).__name__, steps, lengths)
            narrow: Floats = rows.astype(steps.dtype)
            return narrow
        out = np.empty(steps.shape[1:], steps.dtype)
        self._operators[steps.dtype].call(as_plain(steps), out, lengths)
        return out


class Mean(_Reduced):
    """The mean of the valid time steps of each row: ``output.mean(1)`` without what pads it.

    In a Sequential it uses the model's layout and lengths. It needs whole sequences, so streams and pools
    refuse it.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.mean.html
    """


class Max(_Reduced):
    """The largest of the valid time steps of each row, for each feature: ``output.amax(1)`` without padding.

    In a Sequential it uses the model's layout and lengths. It needs whole sequences, so streams and pools
    refuse it. A NaN among the steps gives NaN, as in torch.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.amax.html
    """
