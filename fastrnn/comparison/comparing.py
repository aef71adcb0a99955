"""`compare`: two models on the same input."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn.benchmark.measure import FEWEST_ROUNDS, rounds_in_time, seconds_of_calls, seconds_of_one
from fastrnn.benchmark.table import duration
from fastrnn.checks import check_positive
from fastrnn.comparison.differences import Cost, Differences, Error, Point, error_of
from fastrnn.comparison.drift import GROWS, find_points, growth_of, window_of
from fastrnn.comparison.subjects import WHERE, OfLayers, OfProgram, subject
from fastrnn.errors import join, message

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from fastrnn.layers import Layer
    from fastrnn.program.program import Program
    from fastrnn.program.sequential import Sequential

STEPS = 10_000
ROUND_SECONDS = 0.01
# Two times that differ by less are called equal.
NOISE = 0.03


def compare(
    a: Sequential | Program | Layer,
    b: Sequential | Program | Layer,
    x: ArrayLike | tuple[Any, ...],
    *,
    lengths: ArrayLike | None = None,
    steps: int = STEPS,
    rounds: int = FEWEST_ROUNDS,
) -> Differences:
    """Compare two models on one input: errors, drift over a long run, sizes and times.

    It is made for a model and the same model at a narrower precision, or before and after another change.

    Parameters
    ----------
    a, b : Sequential, Program or layer
        The original, and the model that is compared with it. They take the same input and give results of
        the same shapes.
    x : array-like or tuple
        The input; or the arguments as a tuple: (x, state) of layers, all arguments of a program.
    lengths : B integers, optional
        The number of time steps of each row. Programs have none.
    steps : int
        How many steps the long run has. It repeats x, with the states that the steps before it left. With
        ``lengths`` it repeats the longest row.
    rounds : int
        How often each model is timed. They take turns.

    Returns
    -------
    Differences
        ``print`` shows a table. Its attributes are the numbers, ``as_dict()`` has them for JSON.

    Raises
    ------
    ValueError
        A model does not take the input, or results have other shapes.
    TypeError
        ``a`` or ``b`` is something else, or an argument does not hold real numbers.

    Examples
    --------
    >>> narrow = fastrnn.load("model.safetensors", precision="int8")
    >>> found = fastrnn.compare(fastrnn.load("model.safetensors"), narrow, x)
    >>> print(found)
    >>> found.largest_error < 0.01
    """
    steps = check_positive(WHERE, "steps", steps)
    rounds = check_positive(WHERE, "rounds", rounds)
    one, other = subject(a), subject(b)
    mine, theirs = one.read(x, lengths), other.read(x, lengths)
    results = _errors(one.results(*mine), other.results(*theirs))
    layers = _layers(one, other, mine, theirs)
    points: tuple[Point, ...] = ()
    notes = []
    try:
        window = window_of(steps)
        runs = one.pieces(steps, window, *mine), other.pieces(steps, window, *theirs)
        points = find_points(*runs, steps)
    except (ValueError, TypeError) as error:
        notes.append(f"There was no long run: {error}")
    costs = _costs(one, other, mine, theirs, rounds)
    notes = [*_of_drift(points, steps), *notes, *_of_costs(*costs)]
    return Differences(layers, results, points, growth_of(points), *costs, tuple(notes))


def _errors(a: dict[str, Any], b: dict[str, Any]) -> tuple[Error, ...]:
    """Return the error of each result. A model of layers is beside a program whose results are in order."""
    if len(a) != len(b):
        raise ValueError(message(WHERE, f"as many results as a has, {join(a)}", join(b)))
    errors = []
    for (name, ours), theirs in zip(a.items(), b.values(), strict=True):
        if ours.shape != theirs.shape:
            raise ValueError(
                message(WHERE, f"{name} of shape {ours.shape} from b, as from a", f"{theirs.shape}")
            )
        errors.append(error_of(name, ours, theirs))
    return tuple(errors)


def _layers(
    one: OfLayers | OfProgram, other: OfLayers | OfProgram, mine: Any, theirs: Any
) -> tuple[Error, ...]:
    """Return the error after each layer of two models of the same kinds of layers."""
    if not isinstance(one, OfLayers) or not isinstance(other, OfLayers):
        return ()
    kinds, others = ([type(layer).__name__ for layer in s.model.layers] for s in (one, other))
    if kinds != others:
        return ()
    pairs = zip(one.each_layer(*mine), other.each_layer(*theirs), strict=True)
    return tuple(
        error_of(f"layer {index}, {kinds[index]}", *pair)
        for index, pair in enumerate(pairs)
        if pair[0].shape == pair[1].shape
    )


def _costs(
    one: OfLayers | OfProgram, other: OfLayers | OfProgram, mine: Any, theirs: Any, rounds: int
) -> tuple[Cost, Cost]:
    """Return what both models cost. Their calls take turns, a round each."""
    calls = partial(one.call, *mine), partial(other.call, *theirs)
    timers = [partial(seconds_of_calls, call) for call in calls]
    seconds = [seconds_of_one(timer, ROUND_SECONDS / 4) for timer in timers]
    counts = [max(1, round(ROUND_SECONDS / own)) for own in seconds]
    rounds = rounds_in_time(rounds, sum(s * count for s, count in zip(seconds, counts, strict=True)))
    times = [[timer(n) / n for timer, n in zip(timers, counts, strict=True)] for _ in range(rounds)]
    medians = np.median(times, axis=0) * 1e6
    first, second = (
        Cost(repr(s.model), s.stored_bytes(), s.memory_bytes(), float(median))
        for s, median in zip((one, other), medians, strict=True)
    )
    return first, second


def _of_drift(points: tuple[Point, ...], steps: int) -> list[str]:
    growth = growth_of(points)
    if growth is None:
        return []
    early = f"step {points[min(1, len(points) - 1)].step:,}"
    if not growth <= GROWS:
        return [f"The mean error grows: after {steps:,} steps it is {growth:.3g} times that of {early}."]
    return [f"Errors do not grow: after {steps:,} steps the mean is {growth:.2f} times that of {early}."]


def _of_costs(a: Cost, b: Cost) -> list[str]:
    """Say how size and time compare, plainly where the smaller one is slower."""
    size = a.stored_bytes / b.stored_bytes if b.stored_bytes else 1.0
    told = []
    if size > 1:
        told.append(f"The weights of b take {size:.2f} times less room in files.")
    elif size < 1:
        told.append(f"The weights of b take {1 / size:.2f} times more room in files.")
    times = f"{duration(b.microseconds)} instead of {duration(a.microseconds)}"
    ratio = b.microseconds / a.microseconds
    if abs(ratio - 1) <= NOISE:
        return [*told, f"Both take the same time on this machine: {times}."]
    if ratio < 1:
        return [*told, f"b is {1 / ratio:.2f} times as fast as a on this machine: {times}."]
    if size > 1:
        text = f"b is smaller, but it is SLOWER on this machine: {times}, {ratio:.2f} times as long."
        return [*told, text]
    return [*told, f"b is slower than a on this machine: {times}, {ratio:.2f} times as long."]
