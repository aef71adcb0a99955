"""LayerNorm: each row brought to mean 0 and variance 1."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn import reference
from fastrnn.arrays import Array, Floats
from fastrnn.checks import (
    WIDE,
    check_floats,
    check_last_axis,
    check_number,
    check_positive,
    check_precision,
)
from fastrnn.engine.backends import row_table
from fastrnn.errors import WeightError, message
from fastrnn.importers.parameters import read_parameters
from fastrnn.layers.base import FLOATS, Layer, apply_rows, own, shown
from fastrnn.operators.operator import Operator
from fastrnn.operators.stateless import RowFunction
from fastrnn.spec import LayerSpec

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from typing_extensions import Self


class LayerNorm(Layer):
    """Layer normalisation over the last axis: torch's ``nn.LayerNorm``.

    (x - mean) / sqrt(variance + eps) * weight + bias, for x of shape (..., features), in float32 or float64.
    A layer that is made by its size has weight 1 and bias 0, and computes in the dtype of its input.
    ``LayerNorm.from_state_dict`` makes one with weights.

    Parameters
    ----------
    normalized_shape : int
        The size of the last axis.
    eps : float
        Added to the variance.
    precision : {"float32", "float64"}, optional
        The dtype of inputs and outputs. If not given: float64 if x is float64, float32 otherwise.

    Raises
    ------
    TypeError, ValueError
        An argument has the wrong type or a wrong value.

    Notes
    -----
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.LayerNorm.html
    """

    option_names = ("normalized_shape", "eps", "precision")

    def __init__(self, normalized_shape: int, eps: float = 1e-5, precision: str | None = None) -> None:
        self.normalized_shape = check_positive("LayerNorm", "normalized_shape", normalized_shape)
        self.features_in = self.features_out = self.normalized_shape
        self.eps = check_number("LayerNorm", "eps", eps)
        self.precision = precision
        self.dtype = None if precision is None else check_precision("LayerNorm", precision, WIDE)
        self._set({})

    def _set(self, tensors: Mapping[str, Array]) -> None:
        self.tensors: dict[str, Floats] = {}
        if self.dtype is not None:
            self.tensors = {name: own(array, self.dtype) for name, array in tensors.items()}
        weight, bias = self.tensors.get("weight"), self.tensors.get("bias")
        self._functions = {
            dtype: RowFunction("layer_norm", dtype.name, table, self.normalized_shape, weight, bias, self.eps)
            for dtype in (FLOATS if self.dtype is None else (self.dtype,))
            if (table := row_table(dtype)) is not None
        }

    @classmethod
    def from_state_dict(
        cls,
        state_dict: Mapping[str, Any],
        prefix: str = "",
        *,
        eps: float = 1e-5,
        precision: str = "float32",
    ) -> Self:
        """Make the layer from the weights of torch's module.

        Parameters
        ----------
        state_dict : mapping of str to array-like
            ``weight`` of shape (features,), and optionally ``bias`` of shape (features,). There may
            be no other key under ``prefix``.
        prefix : str
            The path of the module in the state dict.
        eps : float
            As in torch. A state dict does not record it.
        precision : {"float32", "float64"}
            The dtype of weights, inputs and outputs.

        Raises
        ------
        WeightError
            A key is missing or unknown, or an array has the wrong shape.
        TypeError, ValueError
            An argument has the wrong type or a wrong value.
        """
        tensors = read_parameters(
            "LayerNorm", state_dict, prefix, {"weight": 1, "bias": 1}, optional=("bias",)
        )
        shapes = {array.shape for array in tensors.values()}
        if len(shapes) > 1:
            raise WeightError(message("LayerNorm", "weight and bias of one shape", f"{shapes}"))
        self = cls(len(tensors["weight"]), eps, precision)
        self._set(tensors)
        return self

    def spec(self) -> LayerSpec:
        options: dict[str, Any] = {"eps": self.eps}
        if self.precision is not None:
            options["precision"] = self.precision
        if not self.tensors:
            options["normalized_shape"] = self.normalized_shape
        return LayerSpec("LayerNorm", options, self.tensors)

    def __call__(self, x: ArrayLike | None = None, *, input: ArrayLike | None = None) -> Floats:
        """Apply the layer.

        Parameters
        ----------
        x : array-like of real numbers, shape (..., features)
            Converted to the layer's dtype, if it has one.
        input
            Another name of x: torch's.

        Returns
        -------
        ndarray of the layer's dtype, or that of x, shape (..., features)

        Raises
        ------
        ValueError
            The last axis does not have ``normalized_shape`` elements.
        TypeError
            ``x`` does not hold real numbers.
        """
        x = check_floats("LayerNorm", x if input is None else input, self.dtype)
        x = check_last_axis("LayerNorm", x, x.dtype, self.normalized_shape)
        function = self._functions.get(x.dtype)
        if function is None:
            weight, bias = self.tensors.get("weight"), self.tensors.get("bias")
            return reference.layer_norm_reference(x, weight, bias, self.eps)
        return apply_rows(function, x)

    def operator(self, dtype: np.dtype[Any]) -> Operator | None:
        return self._functions.get(dtype)

    def __repr__(self) -> str:
        return f"LayerNorm({self.normalized_shape}, eps={self.eps}{shown(self.precision)})"
