"""Linear: a matrix product and a bias."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn.arrays import Array, Floats, as_plain
from fastrnn.checks import (
    check_last_axis,
    check_precision,
    check_threads,
)
from fastrnn.engine.backends import pick_backend
from fastrnn.engine.packing import pack_dense
from fastrnn.errors import WeightError, message
from fastrnn.importers.parameters import read_parameters
from fastrnn.layers.base import ProductLayer, bytes_of, own, own_weight, shown
from fastrnn.narrow import NarrowWeight
from fastrnn.operators.stateless import Dense
from fastrnn.spec import LayerSpec

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from typing_extensions import Self


class Linear(ProductLayer):
    """x W^T + b over the last axis: torch's ``nn.Linear``.

    ``Linear.from_state_dict`` makes one. It maps x (..., in) to (..., out), in float32 or float64. Its
    products may be in bfloat16 or int8.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Linear.html
    """

    has_backend = True
    option_names = ("precision",)
    in_features: int
    out_features: int
    precision: str
    dtype: np.dtype[np.floating[Any]]
    tensors: dict[str, Floats | NarrowWeight]
    _operator: Dense

    @classmethod
    def _make(
        cls, tensors: Mapping[str, Array | NarrowWeight], precision: str, threads: int | None, backend: str
    ) -> Self:
        self = cls.__new__(cls)
        dtype = check_precision("Linear", precision)
        self.precision = precision
        self.dtype = dtype
        self.threads = check_threads("Linear", threads)
        self.backend = backend
        weight = own_weight("Linear", "weight", tensors["weight"], dtype, precision)
        bias = own(tensors["bias"], dtype) if "bias" in tensors else None
        self.tensors = {"weight": weight} if bias is None else {"weight": weight, "bias": bias}
        self.out_features, self.in_features = weight.shape
        self.features_out, self.features_in = self.out_features, self.in_features
        picked = pick_backend("Linear", backend, dtype, self.threads, {"input": precision})
        packed = pack_dense(picked.products[0], weight, bias)
        self.packed_bytes = bytes_of([packed])
        self._operator = Dense(packed, picked.threads)
        return self

    @classmethod
    def from_state_dict(
        cls,
        state_dict: Mapping[str, Any],
        prefix: str = "",
        *,
        precision: str = "float32",
        threads: int | None = None,
        backend: str = "auto",
    ) -> Self:
        """Make the layer from the weights of torch's module.

        Parameters
        ----------
        state_dict : mapping of str to array-like
            ``weight`` of shape (out, in), and optionally ``bias`` of shape (out,). There may be no
            other key under ``prefix``.
        prefix : str
            The path of the module in the state dict.
        precision : {"float32", "float64", "bfloat16", "bfloat16x2", "bfloat16x3", "int8"}
            The dtype of weights, inputs and outputs; or how the weights are stored, as in
            `LSTM.from_state_dict`.
        threads : int, optional
            As in `LSTM.from_state_dict`.
        backend : {"auto", "simd", "blas"}
            As in `LSTM.from_state_dict`.

        Raises
        ------
        WeightError
            A key is missing or unknown, or an array has the wrong shape.
        TypeError, ValueError
            An argument has the wrong type or a wrong value.
        """
        tensors = read_parameters("Linear", state_dict, prefix, {"weight": 2, "bias": 1}, optional=("bias",))
        rows, bias = tensors["weight"].shape[0], tensors.get("bias")
        if bias is not None and bias.shape != (rows,):
            raise WeightError(message("Linear", f"bias of shape ({rows},)", f"{bias.shape}"))
        return cls._make(tensors, precision, threads, backend)

    def spec(self) -> LayerSpec:
        return LayerSpec("Linear", {"precision": self.precision}, self.tensors)

    def __call__(self, x: ArrayLike | None = None, *, input: ArrayLike | None = None) -> Floats:
        """Apply the layer.

        Parameters
        ----------
        x : array-like of real numbers, shape (..., in)
            Converted to the layer's dtype.
        input
            Another name of x: torch's.

        Returns
        -------
        ndarray of the layer's dtype, shape (..., out)

        Raises
        ------
        ValueError
            The last axis does not have ``in_features`` elements.
        TypeError
            ``x`` does not hold real numbers.
        """
        x = check_last_axis("Linear", x if input is None else input, self.dtype, self.in_features)
        out = np.empty((*x.shape[:-1], self.out_features), self.dtype)
        if out.size:
            rows = as_plain(x.reshape(-1, self.in_features))
            self._operator.apply(rows, out.reshape(-1, self.out_features))
        return out

    def operator(self, dtype: np.dtype[Any]) -> Dense:
        return self._operator

    def __repr__(self) -> str:
        bias = "" if "bias" in self.tensors else ", bias=False"
        return f"Linear({self.in_features}, {self.out_features}{bias}{shown(self.precision)})"
