"""Layers with weights that are not recurrent: Linear, Embedding, LayerNorm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from fastrnn import reference
from fastrnn._engine import Dense, Link, RowFunction, Tokens
from fastrnn._pack import pack_dense
from fastrnn.backends import pick_backend, row_table
from fastrnn.errors import (
    Array,
    Floats,
    WeightError,
    as_plain,
    check_last_axis,
    check_number,
    check_positive,
    check_precision,
    check_threads,
    check_tokens,
    message,
)
from fastrnn.layers.base import Layer, apply_rows, no_weights, own, shown
from fastrnn.spec import LayerSpec, read_parameters

if TYPE_CHECKING:
    from typing_extensions import Self


class Linear(Layer):
    """x W^T + b over the last axis: torch's ``nn.Linear``; made by ``Linear.from_state_dict``.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Linear.html
    """

    has_backend = True
    needs_weights = True
    option_names = ("precision",)
    in_features: int
    out_features: int
    precision: str
    dtype: np.dtype[np.floating[Any]]
    tensors: dict[str, Floats]
    _engine: Dense

    def __init__(self, *sizes: object, **options: object) -> None:
        raise no_weights(type(self))

    @classmethod
    def _make(cls, tensors: Mapping[str, Array], precision: str, threads: int | None, backend: str) -> Self:
        self = cls.__new__(cls)
        dtype = check_precision("Linear", precision)
        self.precision = precision
        self.dtype = dtype
        self.threads = check_threads("Linear", threads)
        self.backend = backend
        self.tensors = {name: own(array, dtype) for name, array in tensors.items()}
        self.out_features, self.in_features = self.tensors["weight"].shape
        self.features_out, self.features_in = self.out_features, self.in_features
        picked = pick_backend("Linear", backend, dtype, self.threads)
        packed = pack_dense(picked.table, self.tensors["weight"], self.tensors.get("bias"))
        self._engine = Dense(packed, picked.table, picked.threads)
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
            ``weight`` (out, in), and ``bias`` (out,), which may be missing; no other key below ``prefix``.
        prefix : str
            The path of the module in the state dict.
        precision : {"float32", "float64"}
            The type of weights, inputs and outputs.
        threads : int, optional
        backend : {"auto", "simd", "blas"}
            Both as in `LSTM.from_state_dict`.

        Raises
        ------
        WeightError
            A key is missing, surplus or misshapen.
        TypeError, ValueError
            An argument is of a wrong kind or value.
        """
        tensors = read_parameters("Linear", state_dict, prefix, {"weight": 2, "bias": 1}, optional=("bias",))
        rows, bias = tensors["weight"].shape[0], tensors.get("bias")
        if bias is not None and bias.shape != (rows,):
            raise WeightError(message("Linear", f"bias of shape ({rows},)", f"{bias.shape}"))
        return cls._make(tensors, precision, threads, backend)

    def spec(self) -> LayerSpec:
        return LayerSpec("Linear", {"precision": self.precision}, self.tensors)

    def __call__(self, x: ArrayLike) -> Floats:
        """Apply the layer.

        Parameters
        ----------
        x : array-like of real numbers, shape (..., in)

        Returns
        -------
        ndarray of the layer's dtype, shape (..., out)

        Raises
        ------
        ValueError
            The last axis is not of ``in_features``.
        TypeError
            ``x`` does not hold real numbers.
        """
        x = check_last_axis("Linear", x, self.dtype, self.in_features)
        out = np.empty((*x.shape[:-1], self.out_features), self.dtype)
        if out.size:
            rows = as_plain(x.reshape(-1, self.in_features))
            self._engine.run(rows, out.reshape(-1, self.out_features))
        return out

    def link(self, dtype: np.dtype[Any]) -> Link:
        return self._engine

    def __repr__(self) -> str:
        bias = "" if "bias" in self.tensors else ", bias=False"
        return f"Linear({self.in_features}, {self.out_features}{bias}{shown(self.precision)})"


class Embedding(Layer):
    """A row of weights for each token: torch's ``nn.Embedding``; made by ``Embedding.from_state_dict``.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Embedding.html
    """

    takes_tokens = True
    needs_weights = True
    option_names = ("precision",)
    num_embeddings: int
    embedding_dim: int
    precision: str
    dtype: np.dtype[np.floating[Any]]
    weight: Floats

    def __init__(self, *sizes: object, **options: object) -> None:
        raise no_weights(type(self))

    @classmethod
    def _make(cls, weight: Array, precision: str) -> Self:
        self = cls.__new__(cls)
        self.precision = precision
        self.dtype = check_precision("Embedding", precision)
        self.weight = own(weight, self.dtype)
        self.num_embeddings, self.embedding_dim = self.weight.shape
        self.num_tokens, self.features_out = self.weight.shape
        return self

    @classmethod
    def from_state_dict(
        cls, state_dict: Mapping[str, Any], prefix: str = "", *, precision: str = "float32"
    ) -> Self:
        """Make the layer from the weights of torch's module.

        Parameters
        ----------
        state_dict : mapping of str to array-like
            ``weight`` (V, features); no other key below ``prefix``.
        prefix : str
            The path of the module in the state dict.
        precision : {"float32", "float64"}
            The type of weights and outputs.

        Raises
        ------
        WeightError
            The weight is missing or misshapen, or there is another key.
        TypeError, ValueError
            An argument is of a wrong kind or value.
        """
        tensors = read_parameters("Embedding", state_dict, prefix, {"weight": 2})
        return cls._make(tensors["weight"], precision)

    def spec(self) -> LayerSpec:
        return LayerSpec("Embedding", {"precision": self.precision}, {"weight": self.weight})

    def __call__(self, tokens: ArrayLike) -> Floats:
        """Look the tokens up.

        Parameters
        ----------
        tokens : array-like of integers from 0 to V - 1, shape (...)

        Returns
        -------
        ndarray of the layer's dtype, shape (..., features)

        Raises
        ------
        ValueError
            A token is out of range.
        TypeError
            ``tokens`` does not hold whole numbers.
        """
        rows: Floats = self.weight[check_tokens("Embedding", tokens, self.num_embeddings)]
        return rows

    def link(self, dtype: np.dtype[Any]) -> Link:
        return Tokens(self.weight, dtype.name, *self.weight.shape)

    def __repr__(self) -> str:
        return f"Embedding({self.num_embeddings}, {self.embedding_dim}{shown(self.precision)})"


class LayerNorm(Layer):
    """Mean 0 and variance 1 over the last axis, then weight and bias: torch's ``nn.LayerNorm``.

    Parameters
    ----------
    normalized_shape : int
        The features of the last axis.
    eps : float
        Added to the variance.
    precision : {"float32", "float64"}
        The type of weights, inputs and outputs.

    Raises
    ------
    TypeError, ValueError
        An argument is of a wrong kind or value.

    Notes
    -----
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.LayerNorm.html
    """

    option_names = ("normalized_shape", "eps", "precision")

    def __init__(self, normalized_shape: int, eps: float = 1e-5, precision: str = "float32") -> None:
        self.normalized_shape = check_positive("LayerNorm", "normalized_shape", normalized_shape)
        self.features_in = self.features_out = self.normalized_shape
        self.eps = check_number("LayerNorm", "eps", eps)
        self.precision = precision
        self.dtype = check_precision("LayerNorm", precision)
        self._set({})

    def _set(self, tensors: Mapping[str, Array]) -> None:
        self.tensors: dict[str, Floats] = {name: own(array, self.dtype) for name, array in tensors.items()}
        table = row_table(self.dtype)
        self._function: RowFunction | None = None
        if table is not None:
            parts = self.tensors.get("weight"), self.tensors.get("bias")
            self._function = RowFunction(
                "LayerNorm", self.dtype.name, table, self.normalized_shape, *parts, self.eps
            )

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
            ``weight`` (features,), and ``bias`` (features,), which may be missing; no other key
            below ``prefix``.
        prefix : str
            The path of the module in the state dict.
        eps : float
            As in torch; a state dict does not tell it.
        precision : {"float32", "float64"}
            The type of weights, inputs and outputs.

        Raises
        ------
        WeightError
            A key is missing, surplus or misshapen.
        TypeError, ValueError
            An argument is of a wrong kind or value.
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
        options = {"eps": self.eps, "precision": self.precision}
        if not self.tensors:
            options["normalized_shape"] = self.normalized_shape
        return LayerSpec("LayerNorm", options, self.tensors)

    def __call__(self, x: ArrayLike) -> Floats:
        """Apply the layer.

        Parameters
        ----------
        x : array-like of real numbers, shape (..., features)

        Returns
        -------
        ndarray of the layer's dtype, shape (..., features)

        Raises
        ------
        ValueError
            The last axis is not of ``normalized_shape``.
        TypeError
            ``x`` does not hold real numbers.
        """
        x = check_last_axis("LayerNorm", x, self.dtype, self.normalized_shape)
        if self._function is None:
            weight, bias = self.tensors.get("weight"), self.tensors.get("bias")
            return reference.layer_norm_reference(x, weight, bias, self.eps)
        return apply_rows(self._function, x)

    def link(self, dtype: np.dtype[Any]) -> Link | None:
        return self._function

    def __repr__(self) -> str:
        return f"LayerNorm({self.normalized_shape}, eps={self.eps}{shown(self.precision)})"
