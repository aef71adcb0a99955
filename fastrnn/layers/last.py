"""Last: the last valid time step of each row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn.arrays import Floats
from fastrnn.checks import (
    check_floats,
    check_lengths,
)
from fastrnn.errors import message
from fastrnn.layers.base import Layer, time_major
from fastrnn.operators.signature import Signature, Trait
from fastrnn.operators.stateless import LastStep

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


class Last(Layer):
    """The last valid time step of each row: ``output[:, -1]``, or ``output[b, lengths[b] - 1]``.

    In a Sequential it uses the model's layout and lengths. After a bidirectional layer it takes both
    halves of the features at that step, as indexing does in torch. In a stream every step is the last
    so far, so it passes each one on.

    Source: indexing of the "output" of torch's recurrent layers,
    https://docs.pytorch.org/docs/stable/nn.html#recurrent-layers
    """

    @property
    def signature(self) -> Signature:
        return Signature(Trait.LAST, gives_last=True)

    def operator(self, dtype: np.dtype[Any]) -> LastStep:
        return LastStep(dtype.name)

    def __call__(
        self, x: ArrayLike, *, lengths: ArrayLike | None = None, batch_first: bool = False
    ) -> Floats:
        """Take the last time step of each row.

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
        x = check_floats("Last", x)
        if x.ndim not in (2, 3) or 0 in x.shape:
            layout = "(B, T, F)" if batch_first else "(T, B, F)"
            raise ValueError(message("Last", f"x of shape {layout} or, unbatched, (T, F)", f"{x.shape}"))
        steps = time_major(x, batch_first)
        T, B = steps.shape[:2]
        # NumPy, since both only copy, and the operator needs a plan of rows in the order of their lengths.
        if lengths is None:
            rows = steps[-1].copy()
        else:
            rows = steps[check_lengths("Last", lengths, T, B) - 1, np.arange(B)]
        result: Floats = rows[0] if x.ndim == 2 else rows
        return result
