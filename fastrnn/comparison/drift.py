"""Errors over many steps: whether rounding adds up."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from fastrnn.arrays import Array
from fastrnn.comparison.differences import Point, error_of
from fastrnn.comparison.subjects import Piece

# Where in a run errors are looked at: early, in the middle and late.
SHARES = (0.01, 0.1, 0.5, 1.0)
# Errors at a point are those of this share of the run before it.
WINDOW = 0.01
# A mean error that becomes this many times as large is said to grow.
GROWS = 2.0


def window_of(steps: int) -> int:
    """Return how many steps before a point are looked at."""
    return max(1, round(WINDOW * steps))


def find_points(a: Iterator[Piece], b: Iterator[Piece], steps: int) -> tuple[Point, ...]:
    """Return the errors of two runs at some points.

    A run yields pieces: the number of steps, and the results over them. Results of as many steps are
    compared step by step, others piece by piece.
    """
    largest, mean = np.zeros(steps), np.zeros(steps)
    done = 0
    for (count, ours), (_, theirs) in zip(a, b, strict=True):
        end = min(done + count, steps)
        each = [_steps_apart(one, other, end - done) for one, other in zip(ours, theirs, strict=True)]
        if each:
            largest[done:end] = np.max([errors[0] for errors in each], axis=0)
            mean[done:end] = np.mean([errors[1] for errors in each], axis=0)
        done = end
    points = []
    for step in dict.fromkeys(max(1, round(share * steps)) for share in SHARES):
        window = slice(max(0, step - window_of(steps)), step)
        points.append(Point(step, float(largest[window].max()), float(mean[window].mean())))
    return tuple(points)


def _steps_apart(a: Array, b: Array, steps: int) -> tuple[Array, Array]:
    """Return the largest and the mean error of each step."""
    if len(a.shape) and len(a) == steps:
        errors = [error_of("", one, other) for one, other in zip(a, b, strict=True)]
    else:
        errors = [error_of("", a, b)] * steps
    return np.array([error.largest for error in errors]), np.array([error.mean for error in errors])


def growth_of(points: Sequence[Point]) -> float | None:
    """Return the mean error at the last point over that at the second. None if there is no run.

    At the first point the states may still be on their way from zeros, where errors are small.
    """
    if not points:
        return None
    first, last = points[min(1, len(points) - 1)].mean, points[-1].mean
    return last / first if first else 1.0 if not last else float("inf")
