"""Errors as numbers, and the result of a comparison with its text."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fastrnn.arrays import Array
from fastrnn.benchmark.table import duration
from fastrnn.terminal import table_lines


@dataclass(frozen=True)
class Error:
    """How far arrays of one name are apart.

    Attributes
    ----------
    name : str
    largest, mean : float
        Of the absolute differences. NaN if one has a number where the other has NaN or infinity.
    scale : float
        The largest magnitude in the arrays of the first model.
    """

    name: str
    largest: float
    mean: float
    scale: float


@dataclass(frozen=True)
class Point:
    """The errors of the outputs over the last steps before a point of a long run.

    Attributes
    ----------
    step : int
        The last step.
    largest, mean : float
        Of the absolute differences.
    """

    step: int
    largest: float
    mean: float


@dataclass(frozen=True)
class Cost:
    """What a model costs.

    Attributes
    ----------
    model : str
        What the model is.
    stored_bytes : int
        What its weights take in a file.
    memory_bytes : int
        What they take in memory, with the copy that is laid out for the kernels. Of a program it is what its
        constants take.
    microseconds : float
        The median time of a call.
    """

    model: str
    stored_bytes: int
    memory_bytes: int
    microseconds: float


@dataclass(frozen=True)
class Differences:
    """What `fastrnn.compare` found. ``str`` of it is a text to read.

    Attributes
    ----------
    layers : tuple of Error
        After each layer, where both models have the same kinds of layers. Each model goes on from its own
        activations. Empty for other models.
    results : tuple of Error
        The output "y" and the final states "state0", "state1", ... of models of layers. The results of
        programs have the names that the program gives them.
    drift : tuple of Point
        Errors of the outputs early, in the middle and late in a long run. Empty if there was none.
    growth : float or None
        The mean error at the last point of the run over that at the second. None without a run.
    a, b : Cost
        What the two models cost.
    notes : tuple of str
        What the numbers say, in sentences.
    """

    layers: tuple[Error, ...]
    results: tuple[Error, ...]
    drift: tuple[Point, ...]
    growth: float | None
    a: Cost
    b: Cost
    notes: tuple[str, ...]

    @property
    def largest_error(self) -> float:
        """The largest error of all results. NaN if one of them is."""
        errors = [error.largest for error in self.results]
        return math.nan if any(map(math.isnan, errors)) else max(errors, default=0.0)

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers for JSON, which has neither NaN nor infinity: None stands for them."""
        result: dict[str, Any] = _plain({**asdict(self), "largest_error": self.largest_error})
        return result

    def __str__(self) -> str:
        errors = [(error.name, _number(error.largest), _number(error.mean), f"{error.scale:.3g}")
                  for error in (*self.layers, *self.results)]  # fmt: skip
        lines = [*table_lines(("", "largest error", "mean error", "largest value"), errors, None)]
        if self.drift:
            rows = [(f"step {p.step:,}", _number(p.largest), _number(p.mean)) for p in self.drift]
            lines += ["", *table_lines(("in a long run", "largest error", "mean error"), rows, None)]
        costs = [
            (name, f"{_bytes(cost.stored_bytes)} / {_bytes(cost.memory_bytes)}", duration(cost.microseconds))
            for name, cost in (("a", self.a), ("b", self.b))
        ]
        lines += ["", *table_lines(("", "weights in files / in memory", "a call"), costs, None)]
        return "\n".join([f"a: {self.a.model}", f"b: {self.b.model}", "", *lines, "", *self.notes])


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def error_of(name: str, a: Array, b: Array) -> Error:
    """Return the error of two arrays of one shape. Where both have the same NaN or infinity it is 0."""
    kind = np.complex128 if "c" in (a.dtype.kind, b.dtype.kind) else np.float64
    a, b = a.astype(kind), b.astype(kind)
    is_same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore", over="ignore"):
        distances = np.where(is_same, 0.0, np.abs(b - a))
    distances[~is_same & ~(np.isfinite(a) & np.isfinite(b))] = np.nan
    scale = np.abs(a[np.isfinite(a)]).max(initial=0.0)
    if not distances.size:
        return Error(name, 0.0, 0.0, float(scale))
    return Error(name, float(distances.max()), float(distances.mean()), float(scale))


# ---------------------------------------------------------------- text


def _number(value: float) -> str:
    return "NaN" if math.isnan(value) else f"{value:.2g}"


def _bytes(count: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if count < 999.5 or unit == "GB":
            break
        count /= 1000
    return f"{count:.3g} {unit}"
