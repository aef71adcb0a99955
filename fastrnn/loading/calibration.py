"""Calibration: the features of a model's input brought to about one size, before its weights become int8.

A row of the input has one scale in int8. A feature that is much smaller than another one in the row is
rounded away. So each feature is divided by its largest magnitude in some typical input, and the weights that
it meets are multiplied by that: the same model, with numbers of about one size. The factors are powers of
two, so that nothing is rounded by it. They become a `Scale` before the first layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastrnn.checks import Precision, check_array
from fastrnn.errors import message
from fastrnn.layers import Layer, Linear, RecurrentLayer, Scale
from fastrnn.program.sequential import Sequential, build
from fastrnn.saving.golden import narrow_storages
from fastrnn.spec import LayerSpec

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

WHERE = "--calibrate"
# They are kept if they make the mean error this many times smaller.
GAIN = 1.1


class Calibrated(NamedTuple):
    """A narrow model, whether it has the factors, and its mean errors without them and with them."""

    model: Sequential
    plain: float
    scaled: float
    is_scaled: bool


def calibrate(
    model: Sequential, x: Any, precision: Precision, lengths: ArrayLike | None = None
) -> Calibrated:
    """Return a model at a precision, with factors for the features of its input if they help.

    Parameters
    ----------
    model : Sequential
        In float32 or float64.
    x : array-like
        A typical input, as the model takes it.
    precision : str or mapping
        One in which the first layer multiplies its input in int8.
    lengths : B integers, optional
        The number of time steps of each row.

    Raises
    ------
    ValueError
        The model is narrow already, its first layer does not multiply its input in int8, or x does not fit.
    """
    specs = [layer.spec() for layer in model.layers]
    stored = narrow_storages(specs)
    if stored:
        raise ValueError(message(WHERE, "weights that are not narrow yet", f"{stored[0]}"))
    plain = build(specs, precision)
    if not _multiplies_in_int8(plain.layers[0]):
        expected = "a first layer that multiplies its input in int8"
        raise ValueError(message(WHERE, expected, f"{plain.layers[0]!r}"))
    wanted, _ = model(x, lengths=lengths)
    factors = _factors(check_array(WHERE, "x", x))
    folded = [Scale(None, factors).spec(), _folded(specs[0], factors), *specs[1:]]
    scaled = build(folded, precision)
    before, after = (float(np.abs(one(x, lengths=lengths)[0] - wanted).mean()) for one in (plain, scaled))
    is_scaled = before > GAIN * after
    chosen = scaled if is_scaled else plain
    chosen.taken_for_granted, chosen.example, chosen._is_recast = model.taken_for_granted, model.example, True
    return Calibrated(chosen, before, after, is_scaled)


def _multiplies_in_int8(layer: Layer) -> bool:
    if not isinstance(layer, (Linear, RecurrentLayer)):
        return False
    precision: Precision = layer.precision
    return (precision["input"] if isinstance(precision, Mapping) else precision) == "int8"


def _factors(x: NDArray[Any]) -> NDArray[np.float64]:
    """Return the power of two next to the largest magnitude of each feature, 1 for one that is always 0."""
    largest = np.abs(x.astype(np.float64)).reshape(-1, x.shape[-1]).max(axis=0, initial=0)
    if not np.isfinite(largest).all():
        raise ValueError(message(WHERE, "x of finite numbers", "NaN or infinity"))
    largest[largest == 0] = 1
    factors: NDArray[np.float64] = np.exp2(np.clip(np.rint(np.log2(largest)), -60, 60))
    return factors


def _folded(spec: LayerSpec, factors: NDArray[np.float64]) -> LayerSpec:
    """Return a layer that takes its input divided by the factors."""
    meets_input = [name for name in spec.tensors if name == "weight" or name.startswith("weight_ih_l0")]
    changed = {name: spec.tensors[name] * factors.astype(np.float32) for name in meets_input}
    return LayerSpec(spec.kind, spec.options, {**spec.tensors, **changed})
