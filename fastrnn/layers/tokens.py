"""The layers that take tokens: Embedding and OneHot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn.arrays import Array, Floats
from fastrnn.checks import (
    WIDE,
    check_positive,
    check_precision,
    check_tokens,
)
from fastrnn.importers.parameters import read_parameters
from fastrnn.layers.base import Layer, ProductLayer, own_weight, shown
from fastrnn.narrow import NarrowWeight
from fastrnn.operators.stateless import TokenRows
from fastrnn.spec import LayerSpec

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from typing_extensions import Self


class OneHot(Layer):
    """A vector for each token, 1 at its index and 0 elsewhere: ``torch.nn.functional.one_hot`` as floats.

    Parameters
    ----------
    num_classes : int
        V, the number of tokens: they are integers from 0 to V - 1.
    precision : {"float32", "float64"}
        The dtype of the output.

    Raises
    ------
    TypeError, ValueError
        An argument has the wrong type or a wrong value.

    Notes
    -----
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.one_hot.html
    """

    option_names = ("num_classes", "precision")

    def __init__(self, num_classes: int, precision: str = "float32") -> None:
        self.num_classes = check_positive("OneHot", "num_classes", num_classes)
        self.tokens = self.features_out = self.num_classes
        self.precision = precision
        self.dtype = check_precision("OneHot", precision, WIDE)

    def spec(self) -> LayerSpec:
        options = {"num_classes": self.num_classes, "precision": self.precision}
        return LayerSpec("OneHot", options)

    def __call__(self, tokens: ArrayLike) -> Floats:
        """Return a one-hot vector for each token.

        Parameters
        ----------
        tokens : array-like of integers from 0 to V - 1, shape (...)

        Returns
        -------
        ndarray of the layer's dtype, shape (..., V)

        Raises
        ------
        ValueError
            A token is out of range.
        TypeError
            ``tokens`` does not hold integers.
        """
        tokens = check_tokens("OneHot", tokens, self.num_classes)
        # NumPy, whose zeros above 32 MB are pages that nothing has to write. The operator writes each zero.
        out = np.zeros((*tokens.shape, self.num_classes), self.dtype)
        np.put_along_axis(out, tokens[..., None].astype(np.intp), 1, axis=-1)
        return out

    def operator(self, dtype: np.dtype[Any]) -> TokenRows:
        return TokenRows(None, dtype.name, self.num_classes, self.num_classes)


class Embedding(ProductLayer):
    """A row of the weights for each token: torch's ``nn.Embedding``.

    ``Embedding.from_state_dict`` makes one. It maps integers (...) to (..., features), in float32 or float64.
    Rows may be stored in bfloat16 or int8.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Embedding.html
    """

    option_names = ("precision",)
    num_embeddings: int
    embedding_dim: int
    precision: str
    dtype: np.dtype[np.floating[Any]]
    weight: Floats | NarrowWeight

    @classmethod
    def _make(cls, weight: Array | NarrowWeight, precision: str) -> Self:
        self = cls.__new__(cls)
        self.precision = precision
        self.dtype = check_precision("Embedding", precision)
        self.weight = own_weight("Embedding", "weight", weight, self.dtype, precision)
        self.num_embeddings, self.embedding_dim = self.weight.shape
        self.tokens, self.features_out = self.weight.shape
        return self

    @classmethod
    def from_state_dict(
        cls, state_dict: Mapping[str, Any], prefix: str = "", *, precision: str = "float32"
    ) -> Self:
        """Make the layer from the weights of torch's module.

        Parameters
        ----------
        state_dict : mapping of str to array-like
            ``weight`` of shape (V, features). There may be no other key under ``prefix``.
        prefix : str
            The path of the module in the state dict.
        precision : {"float32", "float64", "bfloat16", "bfloat16x2", "bfloat16x3", "int8"}
            The dtype of weights and outputs. At "bfloat16" and "int8" rows are stored in that type, and
            outputs are float32.

        Raises
        ------
        WeightError
            The weight is missing or has the wrong shape, or there is another key.
        TypeError, ValueError
            An argument has the wrong type or a wrong value.
        """
        tensors = read_parameters("Embedding", state_dict, prefix, {"weight": 2})
        return cls._make(tensors["weight"], precision)

    def spec(self) -> LayerSpec:
        return LayerSpec("Embedding", {"precision": self.precision}, {"weight": self.weight})

    def __call__(self, tokens: ArrayLike | None = None, *, input: ArrayLike | None = None) -> Floats:
        """Look up the row of each token.

        Parameters
        ----------
        tokens : array-like of integers from 0 to V - 1, shape (...)
        input
            Another name of tokens: torch's.

        Returns
        -------
        ndarray of the layer's dtype, shape (..., features)

        Raises
        ------
        ValueError
            A token is out of range.
        TypeError
            ``tokens`` does not hold integers.
        """
        given = tokens if input is None else input
        tokens = check_tokens("Embedding", given, self.num_embeddings).astype(np.intp, copy=False)
        # NumPy, since both only copy, and the operator needs an output made beforehand.
        if isinstance(self.weight, NarrowWeight):
            return self.weight.take(tokens)
        rows: Floats = self.weight.take(tokens, axis=0)
        return rows

    def operator(self, dtype: np.dtype[Any]) -> TokenRows:
        return TokenRows(self.weight, dtype.name, *self.weight.shape)

    def __repr__(self) -> str:
        return f"Embedding({self.num_embeddings}, {self.embedding_dim}{shown(self.precision)})"
