"""The tests that a saved model carries, as data: a self-test, and possibly an example from torch.

A self-test is a seeded input with the output of this package's own reference. It shows that a machine
computes what the weights say. It does not show that the layers are those of the torch module. An example
does, since its input and output come from that module.

Models are unknown here. `program.self_test` runs them.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

import numpy as np

from fastrnn.arrays import Array, Floats
from fastrnn.errors import join, message
from fastrnn.narrow import NarrowWeight
from fastrnn.reference import sequential_reference
from fastrnn.spec import LayerSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

SEED = 20240229
STEPS = 12
ROWS = 2
# How far an output may be from the expected one: SHARE of the largest value, plus ROUNDINGS times the change
# of the output when every weight is rounded to a neighbouring number.
SHARE = {"float32": 1e-5, "float64": 1e-11}
ROUNDINGS = 32
# What products round weights to, relatively, where that is coarser than the dtype they are stored in.
UNITS = {"bfloat16x2": 2.0**-15}
# Beside narrow weights, a difference in the last bit of h may round h to another narrow number. That spreads
# from step to step, until outputs differ as if every rounding of h had been another one. Moving the weights
# by half a unit and leaving operands unrounded changes outputs at least as much. This many times the largest
# such change is allowed.
NARROW_ROUNDINGS = 4


class Comparison(TypedDict):
    """The result of a test.

    Attributes
    ----------
    passed : bool
    largest_error, tolerance : float
        Absolute. The error is NaN if one output has a number where the other has NaN or infinity.
    values : int
        The number of values that were compared.
    hint : str
        Where outputs are not finite, and a change that would make them agree. "" if they agree or nothing was
        found.
    """

    passed: bool
    largest_error: float
    tolerance: float
    values: int
    hint: str


class Example(NamedTuple):
    """An input, and the output of torch's module for it.

    Attributes
    ----------
    x, y : ndarray
        As ``model(x, state, lengths=lengths)`` takes and returns them.
    state : state, optional
        The initial state.
    lengths : ndarray of int, optional
    tolerance : float, optional
        How far outputs may be from y, absolute. If not given, as far as rounding may take them.
    """

    x: Array
    y: Array
    state: Any = None
    lengths: Array | None = None
    tolerance: float | None = None


def disagreement(result: Comparison, what: str) -> ValueError:
    """Return the error for a model that is not saved since it does not agree with its example."""
    expected, got = f"the example's {what}", "another one"
    if np.isfinite(result["largest_error"]):
        expected = f"{expected} within {result['tolerance']:.3g}"
        got = f"one {result['largest_error']:.3g} away"
    return ValueError(message("save", expected, got, result["hint"]))


def warn_of_dropped(result: Comparison, precision: str) -> None:
    """Warn that a new file does not hold the example of the old one, with which it does not agree."""
    expected = f"the example's output in {precision}, within {result['tolerance']:.3g}"
    got = f"one {result['largest_error']:.3g} away"
    hint = "The new file does not hold the example from torch."
    warnings.warn(message("save", expected, got, hint), stacklevel=3)


def golden_output(
    specs: Sequence[LayerSpec], x: Array, batch_first: bool, precision: str
) -> tuple[NDArray[np.float64], float]:
    """Return the reference's output for an input, and how far that of a model may be from it."""
    wanted = np.ascontiguousarray(sequential_reference(specs, x, batch_first))
    with np.errstate(over="ignore", invalid="ignore"):
        other = sequential_reference(rounded(specs), x, batch_first)
    return wanted, tolerance(wanted, other, precision, bool(narrow_storages(specs)))


def narrow_storages(specs: Iterable[LayerSpec]) -> list[str]:
    """Return the storages of the narrow weights of layers."""
    weights = [weight for spec in specs for weight in spec.tensors.values()]
    return sorted({weight.storage for weight in weights if isinstance(weight, NarrowWeight)})


def rounded(specs: Iterable[LayerSpec]) -> list[LayerSpec]:
    """Return the layers with every weight rounded to a neighbouring number, up or down at random.

    Narrow weights become wide ones, half a unit of their storage away.
    """
    random = np.random.default_rng(SEED)
    return [
        LayerSpec(
            spec.kind,
            spec.options,
            {
                name: moved(weight, random.choice((-0.5, 0.5), weight.shape), _unit(spec))
                for name, weight in spec.tensors.items()
            },
        )
        for spec in specs
    ]


def _unit(spec: LayerSpec) -> float:
    """Return what products round the weights of a layer to, relatively; 0 for no more than their dtype."""
    precision = spec.options.get("precision", "float32")
    named = precision.values() if isinstance(precision, Mapping) else [precision]
    return max((UNITS.get(name, 0.0) for name in named), default=0.0)


def moved(weight: Array | NarrowWeight, units: Array, unit: float = 0) -> Array:
    """Return weights moved by this many units in their last place. `unit` is that of wide ones, if larger."""
    if not isinstance(weight, NarrowWeight):
        rounded: Array = weight * (1 + max(float(np.finfo(weight.dtype).eps), unit) * units)
        return rounded
    wide = np.asarray(weight, np.float64)
    if weight.scales is None:
        return wide * (1 + 2.0**-7 * units)
    return wide + units * weight.scales.reshape(-1, *[1] * (weight.ndim - 1))


def tolerance(wanted: Array, other: Array, precision: str, is_narrow: bool = False) -> float:
    """Return how far an output may be from the expected one. `other` is that of the rounded weights."""
    with np.errstate(over="ignore", invalid="ignore"):
        movement = np.abs(other - wanted)
    finite = np.isfinite(wanted) & np.isfinite(movement)
    scale = np.abs(wanted[finite]).max(initial=1.0)
    roundings = NARROW_ROUNDINGS if is_narrow else ROUNDINGS
    return float(SHARE[precision] * scale + roundings * movement[finite].max(initial=0.0))


def compare(output: Floats, wanted: Array, tolerance: float) -> Comparison:
    """Compare an output with the expected one, which has the same shape."""
    with np.errstate(over="ignore"):
        wanted = wanted.astype(output.dtype).astype(np.float64)
    finite = np.isfinite(wanted)
    same = np.array_equal(output[~finite], wanted[~finite], equal_nan=True)
    error = np.abs(output[finite] - wanted[finite]).max(initial=0.0) if same else np.nan
    return {
        "passed": bool(same and error <= tolerance),
        "largest_error": float(error),
        "tolerance": tolerance,
        "values": int(wanted.size),
        "hint": _what_is_not_finite(output, wanted) if not (same and np.isfinite(error)) else "",
    }


def _what_is_not_finite(output: Floats, wanted: Array) -> str:
    """Say how many numbers are NaN or infinite in one output and not in the other, and where the first is."""
    differs = ~((output == wanted) | (np.isnan(output) & np.isnan(wanted)))
    found = []
    for name, array in (("The expected output", wanted), ("The computed output", output)):
        counts = {"NaN": np.isnan(array) & differs, "infinity": np.isinf(array) & differs}
        places = np.argwhere(counts["NaN"] | counts["infinity"])
        if len(places):
            what = join(f"{word} at {where.sum()}" for word, where in counts.items() if where.any())
            first = f", first at {tuple(map(int, places[0]))}" if array.ndim else ""
            found.append(f"{name} has {what} of {array.size} places{first}.")
    return " ".join(found)
