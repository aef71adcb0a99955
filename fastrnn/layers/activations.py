"""The activations, layers without weights: ReLU, Tanh, Sigmoid, Softmax and LogSoftmax."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

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

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


class _RowLayer(Layer):
    """The base class of the activations: one function of a row for each dtype."""

    _function_name: ClassVar[str]
    _reference: ClassVar[staticmethod[..., Array]]

    def __init__(self) -> None:
        self._functions = {
            dtype: RowFunction(self._function_name, dtype.name, table)
            for dtype in map(np.dtype, (np.float32, np.float64))
            if (table := row_table(dtype)) is not None
        }

    def operator(self, dtype: np.dtype[Any]) -> Operator | None:
        return self._functions.get(dtype)


class _Activation(_RowLayer):
    """The base class of the functions that map each number by itself."""

    def __call__(self, x: ArrayLike) -> Floats:
        """Apply the function to each number.

        Parameters
        ----------
        x : array-like of real numbers, of any shape

        Returns
        -------
        ndarray of the shape of x
            float64 if x is float64, float32 otherwise.

        Raises
        ------
        TypeError
            ``x`` does not hold real numbers.
        """
        x = check_floats(type(self).__name__, x)
        if x.dtype not in self._functions:
            return type(self)._reference(x)
        return apply_rows(self._functions[x.dtype], x.reshape(1, -1)).reshape(x.shape)


class ReLU(_Activation):
    """The rectifier max(x, 0): torch's ``nn.ReLU``.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.ReLU.html
    """

    _function_name = "relu"
    _reference = staticmethod(reference.relu)


class Tanh(_Activation):
    """The hyperbolic tangent: torch's ``nn.Tanh``.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Tanh.html
    """

    _function_name = "tanh"
    _reference = staticmethod(np.tanh)


class Sigmoid(_Activation):
    """The logistic function 1 / (1 + exp(-x)): torch's ``nn.Sigmoid``.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Sigmoid.html
    """

    _function_name = "sigmoid"
    _reference = staticmethod(reference.sigmoid)


class _OverAxis(_RowLayer):
    """The base class of Softmax and LogSoftmax, which work along an axis."""

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
        """Apply the function along the axis ``dim``.

        Parameters
        ----------
        x : array-like of real numbers, of any shape with that axis

        Returns
        -------
        ndarray of the shape of x
            float64 if x is float64, float32 otherwise.

        Raises
        ------
        ValueError
            ``x`` has no axis ``dim``.
        TypeError
            ``x`` does not hold real numbers.
        """
        where = type(self).__name__
        x = check_floats(where, x)
        if not -x.ndim <= self.dim < x.ndim:
            raise ValueError(message(where, f"x with an axis {self.dim}", f"shape {x.shape}"))
        if x.dtype not in self._functions:
            with np.errstate(invalid="ignore"):  # an infinity gives NaN, as in torch
                return type(self)._reference(x, self.dim)
        rows = apply_rows(self._functions[x.dtype], np.moveaxis(x, self.dim, -1))
        return np.ascontiguousarray(np.moveaxis(rows, -1, self.dim))


class Softmax(_OverAxis):
    """exp(x) / sum(exp(x)) along the axis ``dim``: torch's ``nn.Softmax``.

    Parameters
    ----------
    dim : int
        The axis. A negative one counts from the end.

    Raises
    ------
    TypeError
        ``dim`` is not an integer.

    Notes
    -----
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Softmax.html
    """

    _function_name = "softmax"
    _reference = staticmethod(reference.softmax_reference)


class LogSoftmax(_OverAxis):
    """The logarithm of the softmax along the axis ``dim``: torch's ``nn.LogSoftmax``.

    Parameters
    ----------
    dim : int
        The axis. A negative one counts from the end.

    Raises
    ------
    TypeError
        ``dim`` is not an integer.

    Notes
    -----
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.LogSoftmax.html
    """

    _function_name = "log_softmax"
    _reference = staticmethod(reference.log_softmax_reference)
