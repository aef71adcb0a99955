"""Layers without weights: one-hot tokens, activations, the last step."""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from fastrnn import reference
from fastrnn._engine import Link, RowFunction, Tokens
from fastrnn.backends import row_table
from fastrnn.errors import (
    Array,
    Floats,
    check_array,
    check_lengths,
    check_number,
    check_positive,
    check_precision,
    check_tokens,
    message,
)
from fastrnn.layers.base import Layer, apply_rows, time_major
from fastrnn.spec import LayerSpec

# What Dropout passes on.
Anything = TypeVar("Anything")


class OneHot(Layer):
    """1 at each token's place, 0 elsewhere: ``torch.nn.functional.one_hot`` as floats.

    Parameters
    ----------
    num_classes : int
        V: the tokens are from 0 to V - 1.
    precision : {"float32", "float64"}
        The type of outputs.

    Raises
    ------
    TypeError, ValueError
        An argument is of a wrong kind or value.

    Notes
    -----
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.one_hot.html
    """

    takes_tokens = True
    option_names = ("num_classes", "precision")

    def __init__(self, num_classes: int, precision: str = "float32") -> None:
        self.num_classes = check_positive("OneHot", "num_classes", num_classes)
        self.num_tokens = self.features_out = self.num_classes
        self.precision = precision
        self.dtype = check_precision("OneHot", precision)

    def spec(self) -> LayerSpec:
        options = {"num_classes": self.num_classes, "precision": self.precision}
        return LayerSpec("OneHot", options)

    def __call__(self, tokens: ArrayLike) -> Floats:
        """Tokens (...), integers from 0 to V - 1, to an array (..., V) of the layer's dtype.

        Raises
        ------
        ValueError
            A token is out of range.
        TypeError
            ``tokens`` does not hold whole numbers.
        """
        tokens = check_tokens("OneHot", tokens, self.num_classes)
        out = np.zeros((*tokens.shape, self.num_classes), self.dtype)
        np.put_along_axis(out, tokens[..., None].astype(np.intp), 1, axis=-1)
        return out

    def link(self, dtype: np.dtype[Any]) -> Link:
        return Tokens(None, dtype.name, self.num_classes, self.num_classes)


def _floats(where: str, x: object) -> Floats:
    """x as an array of floats: its own type where it is one, else float32."""
    x = check_array(where, "x", x)
    return x if x.dtype in (np.float32, np.float64) else x.astype(np.float32)


class Dropout(Layer):
    """Nothing: at inference torch's ``nn.Dropout`` passes its input on.

    Parameters
    ----------
    p : float
        Kept, and of no effect. A TypeError or ValueError if it is no finite number.

    Notes
    -----
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Dropout.html
    """

    option_names = ("p",)
    passes_on = True

    def __init__(self, p: float = 0.5) -> None:
        self.p = check_number("Dropout", "p", p)

    def spec(self) -> LayerSpec:
        return LayerSpec("Dropout", {"p": self.p})

    def __call__(self, x: Anything) -> Anything:
        """x as it is, of any shape and type; nothing is checked."""
        return x


class _RowLayer(Layer):
    """What the layers share that have no weights and do the same to every row: a function for each dtype."""

    _reference: ClassVar[staticmethod[..., Array]]

    def __init__(self) -> None:
        name = next(cls.__name__ for cls in type(self).__mro__ if "_reference" in vars(cls))
        self._functions = {
            dtype: RowFunction(name, dtype.name, table)
            for dtype in map(np.dtype, (np.float32, np.float64))
            if (table := row_table(dtype)) is not None
        }

    def link(self, dtype: np.dtype[Any]) -> Link | None:
        return self._functions.get(dtype)


class _Activation(_RowLayer):
    """What the activations share."""

    def __call__(self, x: ArrayLike) -> Floats:
        """x of any shape to an array of that shape: float64 of float64, else float32.

        Raises
        ------
        TypeError
            x does not hold real numbers.
        """
        x = _floats(type(self).__name__, x)
        if x.dtype not in self._functions:
            return type(self)._reference(x)
        return apply_rows(self._functions[x.dtype], x.reshape(1, -1)).reshape(x.shape)


class ReLU(_Activation):
    """max(x, 0): torch's ``nn.ReLU``.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.ReLU.html
    """

    _reference = staticmethod(reference.relu)


class Tanh(_Activation):
    """The hyperbolic tangent: torch's ``nn.Tanh``.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Tanh.html
    """

    _reference = staticmethod(np.tanh)


class Sigmoid(_Activation):
    """1 / (1 + exp(-x)): torch's ``nn.Sigmoid``.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Sigmoid.html
    """

    _reference = staticmethod(reference.sigmoid)


class _OverAxis(_RowLayer):
    """What Softmax and LogSoftmax share: the axis."""

    option_names = ("dim",)

    def __init__(self, dim: int = -1) -> None:
        super().__init__()
        if isinstance(dim, bool) or not hasattr(dim, "__index__"):
            raise TypeError(message(type(self).__name__, "dim to be a whole number", repr(dim)))
        self.dim = dim.__index__()

    def spec(self) -> LayerSpec:
        return LayerSpec(type(self).__name__, {"dim": self.dim})

    def link(self, dtype: np.dtype[Any]) -> Link | None:
        return super().link(dtype) if self.dim == -1 else None

    def __call__(self, x: ArrayLike) -> Floats:
        """x of any shape to an array of that shape: float64 of float64, else float32.

        Raises
        ------
        ValueError
            x has no axis ``dim``.
        TypeError
            x does not hold real numbers.
        """
        where = type(self).__name__
        x = _floats(where, x)
        if not -x.ndim <= self.dim < x.ndim:
            raise ValueError(message(where, f"x with an axis {self.dim}", f"shape {x.shape}"))
        if x.dtype not in self._functions:
            with np.errstate(invalid="ignore"):  # an infinity makes a NaN, as in torch
                return type(self)._reference(x, self.dim)
        rows = apply_rows(self._functions[x.dtype], np.moveaxis(x, self.dim, -1))
        return np.ascontiguousarray(np.moveaxis(rows, -1, self.dim))


class Softmax(_OverAxis):
    """Exponentials over their sum along axis ``dim``: torch's ``nn.Softmax``.

    Parameters
    ----------
    dim : int
        A TypeError if it is no whole number.

    Notes
    -----
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Softmax.html
    """

    _reference = staticmethod(reference.softmax_reference)


class LogSoftmax(_OverAxis):
    """The logarithm of the softmax along axis ``dim``: torch's ``nn.LogSoftmax``.

    Parameters
    ----------
    dim : int
        A TypeError if it is no whole number.

    Notes
    -----
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.LogSoftmax.html
    """

    _reference = staticmethod(reference.log_softmax_reference)


class Last(Layer):
    """The last valid time step of each row: ``output[:, -1]``, or ``output[b, lengths[b] - 1]``.

    In a Sequential the layout and the lengths are those of the model. Of a bidirectional layer
    it takes both halves at that step, as indexing in torch does. In a stream every step is
    the last so far.

    Source: the indexing of torch's "output", https://docs.pytorch.org/docs/stable/nn.html#recurrent-layers
    """

    is_last_step = True
    passes_on = True

    def __call__(
        self, x: ArrayLike, *, lengths: ArrayLike | None = None, batch_first: bool = False
    ) -> Floats:
        """Take the last time step of each row.

        Parameters
        ----------
        x : array-like of real numbers, shape (T, B, F)
            (B, T, F) with ``batch_first``; (T, F) is one unbatched sequence.
        lengths : B integers, optional
            The time steps of each row, from 1 to T; all T if not given.
        batch_first : bool

        Returns
        -------
        ndarray, shape (B, F)
            (F,) unbatched; float64 of float64, else float32.

        Raises
        ------
        ValueError
            ``x`` has another number of axes or no element, or a length does not fit.
        TypeError
            ``x`` does not hold real numbers, or ``lengths`` no whole ones.
        """
        x = _floats("Last", x)
        if x.ndim not in (2, 3) or 0 in x.shape:
            layout = "(B, T, F)" if batch_first else "(T, B, F)"
            raise ValueError(message("Last", f"x of shape {layout} or, unbatched, (T, F)", f"{x.shape}"))
        steps = time_major(x, batch_first)
        T, B = steps.shape[:2]
        if lengths is None:
            rows = steps[-1].copy()
        else:
            rows = steps[check_lengths("Last", lengths, T, B) - 1, np.arange(B)]
        result: Floats = rows[0] if x.ndim == 2 else rows
        return result
