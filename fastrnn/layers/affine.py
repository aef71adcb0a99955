"""Scale and BatchNorm1d: each feature shifted and multiplied by numbers of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn import reference
from fastrnn.arrays import Array, Floats
from fastrnn.checks import (
    WIDE,
    check_array,
    check_flag,
    check_last_axis,
    check_number,
    check_precision,
)
from fastrnn.engine.backends import array_table, row_table
from fastrnn.errors import WeightError, brief, message
from fastrnn.importers.parameters import read_parameters, take_prefix
from fastrnn.layers.base import Layer, apply_rows, no_weights, own, shown
from fastrnn.operators.operator import Operator
from fastrnn.operators.stateless import Map
from fastrnn.spec import LayerSpec

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from typing_extensions import Self

# Operations on each feature: (name, vector or None, parameters).
Operations = list[tuple[str, "Floats | None", tuple[float, ...]]]


class _Affine(Layer):
    """The base class: operations whose second operands are vectors of features."""

    precision: str
    dtype: np.dtype[np.floating[Any]]
    tensors: dict[str, Floats]
    _function: Map | None

    def _set(self, tensors: Mapping[str, Array], precision: str) -> None:
        self.precision = precision
        self.dtype = check_precision(type(self).__name__, precision, WIDE)
        self.tensors = {name: own(array, self.dtype) for name, array in tensors.items()}
        features = len(next(iter(self.tensors.values())))
        self.features_in = self.features_out = features
        table = row_table(self.dtype)
        self._function = None
        if table is not None:
            kernels = array_table(self.dtype)
            self._function = Map(self.dtype.name, table, kernels, self.operations(), features)

    def operations(self) -> Operations:
        """Return what is done to each feature, in order: (name, vector or None, parameters)."""
        raise NotImplementedError

    def operator(self, dtype: np.dtype[Any]) -> Operator | None:
        return self._function

    def _apply(self, x: Floats) -> Floats:
        """Compute rows (..., features) of the layer's dtype."""
        if self._function is not None:
            return apply_rows(self._function, x)
        spec = self.spec()
        return reference.affine(spec.kind, x, self.tensors, spec.options).astype(self.dtype)


class Scale(_Affine):
    """What a scaler does to each feature: (x - mean) / scale, clipped if asked.

    It is for the preprocessing that a model was trained with, which no weights record. ``mean_`` and
    ``scale_`` of scikit-learn's StandardScaler fit.

    Parameters
    ----------
    mean, scale : array-like of real numbers, shape (features,)
        None stands for zeros as the mean, or for ones as the scale. One of them may be a single number.
    clip : number or pair of numbers, optional
        The results are at least the first and at most the second. None in a pair is no limit, and a number c
        stands for (-c, c).
    precision : {"float32", "float64"}
        The dtype of inputs and outputs. Inputs whose differences matter beside large values, such as times
        in seconds since 1970, need "float64".

    Raises
    ------
    TypeError, ValueError
        An argument has the wrong type, the shapes differ, a scale is 0, or a limit is not below the other.

    Notes
    -----
    Source: https://scikit-learn.org/stable/modules/generated/sklearn.preprocessing.StandardScaler.html
    """

    needs_weights = True
    option_names = ("clip", "precision")

    def __init__(
        self,
        mean: ArrayLike | None,
        scale: ArrayLike | None = None,
        clip: Any = None,
        precision: str = "float32",
    ) -> None:
        given = {"mean": mean, "scale": scale}
        arrays = {n: check_array("Scale", n, a) for n, a in given.items() if a is not None}
        shapes = {array.shape for array in arrays.values()} - {()}
        if len(shapes) != 1 or len(shape := shapes.pop()) != 1 or 0 in shape:
            got = ", ".join(f"{name} of shape {array.shape}" for name, array in arrays.items()) or "neither"
            raise ValueError(message("Scale", "mean and scale of shape (features,)", got))
        whole = {
            n: np.broadcast_to(arrays.get(n, usual), shape) for n, usual in (("mean", 0.0), ("scale", 1.0))
        }
        for name, array in whole.items():
            if not np.isfinite(array).all():
                raise ValueError(message("Scale", f"{name} to be finite", brief(array)))
        if not whole["scale"].all():
            where = int(np.flatnonzero(whole["scale"] == 0)[0])
            hint = "A feature that never changes has scale 1."
            raise ValueError(message("Scale", "scale without zeros", f"0 at {where}", hint))
        self.clip = _limits(clip)
        self._set(whole, precision)

    @classmethod
    def from_state_dict(
        cls, state_dict: Mapping[str, Any], prefix: str = "", *, clip: Any = None, precision: str = "float32"
    ) -> Self:
        """Make the layer from arrays by their names: ``mean`` and ``scale``, or one of them.

        Parameters
        ----------
        state_dict : mapping of str to array-like
        prefix : str
            The path of the arrays in the state dict.
        clip, precision
            As in `Scale`.

        Raises
        ------
        WeightError
            There is neither ``mean`` nor ``scale``, or another key.
        TypeError, ValueError
            An argument has the wrong type or a wrong value.
        """
        dimensions = dict.fromkeys(("mean", "scale"), 1)
        tensors = read_parameters("Scale", state_dict, prefix, dimensions, optional=("mean", "scale"))
        return cls(tensors.get("mean"), tensors.get("scale"), clip, precision)

    def spec(self) -> LayerSpec:
        options: dict[str, Any] = {"precision": self.precision}
        if self.clip is not None:
            options["clip"] = list(self.clip)
        return LayerSpec("Scale", options, self.tensors)

    def operations(self) -> Operations:
        operations: Operations = [("sub", self.tensors["mean"], ()), ("div", self.tensors["scale"], ())]
        if self.clip is not None:
            low, high = self.clip
            limits = -np.inf if low is None else low, np.inf if high is None else high
            operations.append(("clamp", None, limits))
        return operations

    def __call__(self, x: ArrayLike) -> Floats:
        """Apply the layer.

        Parameters
        ----------
        x : array-like of real numbers, shape (..., features)
            Converted to the layer's dtype.

        Returns
        -------
        ndarray of the layer's dtype, shape (..., features)

        Raises
        ------
        ValueError
            The last axis has another number of features.
        TypeError
            ``x`` does not hold real numbers.
        """
        assert self.features_in is not None
        return self._apply(check_last_axis("Scale", x, self.dtype, self.features_in))

    def __repr__(self) -> str:
        clip = "" if self.clip is None else f", clip={self.clip}"
        return f"Scale({self.features_in} features{clip}{shown(self.precision)})"


def _limits(clip: Any) -> tuple[float | None, float | None] | None:
    """Return the limits of a Scale."""
    if clip is None:
        return None
    if not isinstance(clip, Sequence) or isinstance(clip, str):
        most = check_number("Scale", "clip", clip)
        clip = -most, most
    if len(clip) != 2:
        raise ValueError(message("Scale", "clip to be a number or a pair", brief(clip)))
    low, high = (None if limit is None else check_number("Scale", "clip", limit) for limit in clip)
    if low is not None and high is not None and low >= high:
        raise ValueError(message("Scale", "the first limit of clip below the second", brief(clip)))
    return low, high


class BatchNorm1d(_Affine):
    """Batch normalisation with the statistics of training: torch's ``nn.BatchNorm1d`` in ``eval()``.

    (x - running_mean) / sqrt(running_var + eps) * weight + bias. ``BatchNorm1d.from_state_dict`` makes one.
    Each step is a row: x has shape (..., features), as in all layers here. torch's module takes (B, features)
    too, but has the features of a batch of sequences in the middle, (B, features, T). With ``channels_first``
    the layer takes these shapes of torch's, and `from_torch` makes it so.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.BatchNorm1d.html
    """

    needs_weights = True
    option_names = ("eps", "channels_first", "precision")
    eps: float
    channels_first: bool

    def __init__(self, *sizes: object, **options: object) -> None:
        raise no_weights(type(self))

    @classmethod
    def from_state_dict(
        cls,
        state_dict: Mapping[str, Any],
        prefix: str = "",
        *,
        eps: float = 1e-5,
        channels_first: bool = False,
        precision: str = "float32",
    ) -> Self:
        """Make the layer from the weights of torch's module.

        Parameters
        ----------
        state_dict : mapping of str to array-like
            ``running_mean`` and ``running_var`` of shape (features,), and optionally ``weight`` and ``bias``
            of that shape. ``num_batches_tracked`` is not needed.
        prefix : str
            The path of the module in the state dict.
        eps : float
            As in torch. A state dict does not record it.
        channels_first : bool
            x has shape (B, features) or (B, features, T) instead of (..., features).
        precision : {"float32", "float64"}
            The dtype of weights, inputs and outputs.

        Raises
        ------
        WeightError
            A key is missing or unknown, or an array has the wrong shape.
        TypeError, ValueError
            An argument has the wrong type or a wrong value.
        """
        entries = take_prefix("BatchNorm1d", state_dict, prefix)
        entries.pop("num_batches_tracked", None)
        names = ("running_mean", "running_var", "weight", "bias")
        tensors = read_parameters(
            "BatchNorm1d", entries, "", dict.fromkeys(names, 1), optional=("weight", "bias")
        )
        shapes = {array.shape for array in tensors.values()}
        if len(shapes) > 1:
            raise WeightError(message("BatchNorm1d", "arrays of one shape", f"{shapes}"))
        self = cls.__new__(cls)
        self.eps = check_number("BatchNorm1d", "eps", eps)
        self.channels_first = check_flag("BatchNorm1d", "channels_first", channels_first)
        self._set(tensors, precision)
        return self

    def spec(self) -> LayerSpec:
        options: dict[str, Any] = {"eps": self.eps, "precision": self.precision}
        if self.channels_first:
            options["channels_first"] = True
        return LayerSpec("BatchNorm1d", options, self.tensors)

    def operations(self) -> Operations:
        wide = {name: array.astype(np.float64) for name, array in self.tensors.items()}
        factor = wide.get("weight", 1.0) / np.sqrt(wide["running_var"] + self.eps)
        operations: Operations = [
            ("sub", self.tensors["running_mean"], ()),
            ("mul", own(factor, self.dtype), ()),
        ]
        if "bias" in self.tensors:
            operations.append(("add", self.tensors["bias"], ()))
        return operations

    def operator(self, dtype: np.dtype[Any]) -> Operator | None:
        return None if self.channels_first else super().operator(dtype)

    @property
    def dim(self) -> int:
        """The axis of the features."""
        return 1 if self.channels_first else -1

    def over_last_axis(self) -> Self:
        """Return the layer that takes (..., features)."""
        spec = self.spec()
        return type(self).from_spec(spec._replace(options={**spec.options, "channels_first": False}))

    def __call__(self, x: ArrayLike | None = None, *, input: ArrayLike | None = None) -> Floats:
        """Apply the layer.

        Parameters
        ----------
        x : array-like of real numbers, shape (..., features)
            With ``channels_first`` (B, features) or (B, features, T). Converted to the layer's dtype.
        input
            Another name of x: torch's.

        Returns
        -------
        ndarray of the layer's dtype and the shape of x

        Raises
        ------
        ValueError
            x has another number of features, or with ``channels_first`` of axes.
        TypeError
            ``x`` does not hold real numbers.
        """
        assert self.features_in is not None
        x = x if input is None else input
        if not self.channels_first:
            return self._apply(check_last_axis("BatchNorm1d", x, self.dtype, self.features_in))
        x = check_array("BatchNorm1d", "x", x, self.dtype)
        if x.ndim not in (2, 3) or x.shape[1] != self.features_in:
            expected = f"x of shape (B, {self.features_in}) or (B, {self.features_in}, T)"
            raise ValueError(message("BatchNorm1d", expected, f"{x.shape}"))
        return np.ascontiguousarray(np.moveaxis(self._apply(np.moveaxis(x, 1, -1)), -1, 1))

    def __repr__(self) -> str:
        affine = "" if "weight" in self.tensors else ", affine=False"
        first = ", channels_first=True" if self.channels_first else ""
        return f"BatchNorm1d({self.features_in}, eps={self.eps}{affine}{first}{shown(self.precision)})"
