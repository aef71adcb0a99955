"""Layers without weights that map numbers to numbers: ReLU, Tanh, Sigmoid, Softmax, LogSoftmax."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from fastrnn import reference
from fastrnn.arrays import Array, Floats
from fastrnn.checks import (
    check_floats,
)
from fastrnn.engine.backends import row_table
from fastrnn.errors import message
from fastrnn.layers.base import Layer, apply_rows
from fastrnn.operators.operator import Operator
from fastrnn.operators.stateless import RowFunction
from fastrnn.spec import LayerSpec


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

    def operator(self, dtype: np.dtype[Any]) -> Operator | None:
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
        x = check_floats(type(self).__name__, x)
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

    def operator(self, dtype: np.dtype[Any]) -> Operator | None:
        return super().operator(dtype) if self.dim == -1 else None

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
        x = check_floats(where, x)
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
