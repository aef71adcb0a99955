"""The activations, layers without weights, which compute in the dtype of their input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from fastrnn import reference
from fastrnn.arrays import Array, Floats
from fastrnn.checks import (
    check_choice,
    check_floats,
    check_number,
)
from fastrnn.engine.backends import array_table, row_table
from fastrnn.errors import message
from fastrnn.layers.base import FLOATS, Layer, apply_rows
from fastrnn.operators.operator import Operator
from fastrnn.operators.stateless import Map, RowFunction
from fastrnn.spec import LayerSpec

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from typing_extensions import Self


class Activation(Layer):
    """The base class of the activations: a function of rows or numbers for each dtype.

    Its options are attributes by their names.
    """

    _function_name: ClassVar[str]
    _reference: ClassVar[staticmethod[..., Array]]

    def __init__(self) -> None:
        self._functions = {
            dtype: self._function(dtype.name, table)
            for dtype in FLOATS
            if (table := row_table(dtype)) is not None
        }

    def _function(self, dtype: str, table: Any) -> Operator:
        return RowFunction(self._function_name, dtype, table)

    def spec(self) -> LayerSpec:
        return LayerSpec(type(self).__name__, {name: getattr(self, name) for name in self.option_names})

    def operator(self, dtype: np.dtype[Any]) -> Operator | None:
        return self._functions.get(dtype)


class _Elementwise(Activation):
    """The base class of the functions that map each number by itself."""

    def __call__(self, x: ArrayLike | None = None, *, input: ArrayLike | None = None) -> Floats:
        """Apply the function to each number.

        Parameters
        ----------
        x : array-like of real numbers, of any shape
        input
            Another name of x: torch's.

        Returns
        -------
        ndarray of the shape of x
            float64 if x is float64, float32 otherwise.

        Raises
        ------
        TypeError
            ``x`` does not hold real numbers.
        """
        x = check_floats(type(self).__name__, x if input is None else input)
        if x.dtype not in self._functions:
            return self._define(x)
        return apply_rows(self._functions[x.dtype], x.reshape(1, -1)).reshape(x.shape)

    def _define(self, x: Floats) -> Floats:
        """Compute it by its definition."""
        return type(self)._reference(x)


class ReLU(_Elementwise):
    """The rectifier max(x, 0): torch's ``nn.ReLU``.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.ReLU.html
    """

    _function_name = "relu"
    _reference = staticmethod(reference.relu)


class Tanh(_Elementwise):
    """The hyperbolic tangent: torch's ``nn.Tanh``.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Tanh.html
    """

    _function_name = "tanh"
    _reference = staticmethod(np.tanh)


class Sigmoid(_Elementwise):
    """The logistic function 1 / (1 + exp(-x)): torch's ``nn.Sigmoid``.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Sigmoid.html
    """

    _function_name = "sigmoid"
    _reference = staticmethod(reference.sigmoid)


class _Mapped(_Elementwise):
    """The base class of those that the kernels of maps compute, by the name of the operation there."""

    def __init__(self, operation: str, *parameters: float) -> None:
        self._program = [(operation, None, parameters)]
        super().__init__()

    def _function(self, dtype: str, table: Any) -> Operator:
        return Map(dtype, table, array_table(dtype), self._program)

    def _define(self, x: Floats) -> Floats:
        return reference.activation(type(self).__name__, x, self.spec().options)


class LeakyReLU(_Mapped):
    """x, and below 0 x times a slope: torch's ``nn.LeakyReLU``.

    Parameters
    ----------
    negative_slope : float

    Raises
    ------
    TypeError, ValueError
        ``negative_slope`` is not a finite number.

    Notes
    -----
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.LeakyReLU.html
    """

    option_names = ("negative_slope",)

    def __init__(self, negative_slope: float = 0.01) -> None:
        self.negative_slope = check_number("LeakyReLU", "negative_slope", negative_slope)
        super().__init__("leaky_relu", self.negative_slope)


class ELU(_Mapped):
    """x, and below 0 alpha * (exp(x) - 1): torch's ``nn.ELU``.

    Parameters
    ----------
    alpha : float

    Raises
    ------
    TypeError, ValueError
        ``alpha`` is not a finite number.

    Notes
    -----
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.ELU.html
    """

    option_names = ("alpha",)

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = check_number("ELU", "alpha", alpha)
        super().__init__("elu", self.alpha, 1.0, 1.0)


class GELU(_Mapped):
    """x times the share of the standard normal distribution below x: torch's ``nn.GELU``.

    Parameters
    ----------
    approximate : {"none", "tanh"}
        "tanh" is the approximation by a hyperbolic tangent.

    Raises
    ------
    ValueError
        ``approximate`` is neither.

    Notes
    -----
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.GELU.html
    """

    option_names = ("approximate",)

    def __init__(self, approximate: str = "none") -> None:
        self.approximate = check_choice("GELU", "approximate", approximate, ("none", "tanh"))
        super().__init__("gelu" if approximate == "none" else "gelu_tanh")


class SiLU(_Mapped):
    """x times its logistic function, also called swish: torch's ``nn.SiLU``.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.SiLU.html
    """

    def __init__(self) -> None:
        super().__init__("silu")


class Softplus(_Mapped):
    """log(1 + exp(beta * x)) / beta: torch's ``nn.Softplus``.

    Parameters
    ----------
    beta : float
    threshold : float
        Where beta * x is above it, the result is x.

    Raises
    ------
    TypeError, ValueError
        An argument is not a finite number.

    Notes
    -----
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Softplus.html
    """

    option_names = ("beta", "threshold")

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        self.beta = check_number("Softplus", "beta", beta)
        self.threshold = check_number("Softplus", "threshold", threshold)
        super().__init__("softplus", self.beta, self.threshold)


class Hardtanh(_Mapped):
    """x, but at least ``min_val`` and at most ``max_val``: torch's ``nn.Hardtanh``.

    Parameters
    ----------
    min_val, max_val : float

    Raises
    ------
    TypeError, ValueError
        An argument is not a finite number, or ``min_val`` is not below ``max_val``.

    Notes
    -----
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Hardtanh.html
    """

    option_names = ("min_val", "max_val")

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0) -> None:
        self.min_val = check_number("Hardtanh", "min_val", min_val)
        self.max_val = check_number("Hardtanh", "max_val", max_val)
        if self.min_val >= self.max_val:
            got = f"{self.min_val} and {self.max_val}"
            raise ValueError(message("Hardtanh", "min_val below max_val", got))
        super().__init__("clamp", self.min_val, self.max_val)


class _OverAxis(Activation):
    """The base class of Softmax and LogSoftmax, which work along an axis."""

    option_names = ("dim",)

    def __init__(self, dim: int = -1) -> None:
        super().__init__()
        if isinstance(dim, bool) or not hasattr(dim, "__index__"):
            raise TypeError(message(type(self).__name__, "dim to be a whole number", repr(dim)))
        self.dim = dim.__index__()

    def operator(self, dtype: np.dtype[Any]) -> Operator | None:
        return super().operator(dtype) if self.dim == -1 else None

    def over_last_axis(self) -> Self:
        """Return the same function along the last axis."""
        return type(self)(-1)

    def __call__(self, x: ArrayLike | None = None, *, input: ArrayLike | None = None) -> Floats:
        """Apply the function along the axis ``dim``.

        Parameters
        ----------
        x : array-like of real numbers, of any shape with that axis
            A single number has an axis 0, as in torch.
        input
            Another name of x: torch's.

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
        x = check_floats(where, x if input is None else input)
        if x.ndim == 0 and self.dim in (0, -1):
            return self(x[None])[0, ...]
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
