"""Numbers that differ between runs at different sizes, as expressions of sizes.

Two runs of a module differ in the numbers that depend on the sizes of its inputs. Each such number is looked
for among the sizes of the values before it, their sums, products and quotients. The plainest expression that
holds in all runs is taken. Whether it holds at other sizes is shown by running there (`export`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

from fastrnn.graph import Size

Vector = tuple[Any, ...]  # a number in each run
MOST_PAIRED = 40  # the sizes of which pairs are tried


class Sizes:
    """The sizes that are known so far, each with its numbers in all runs."""

    def __init__(self) -> None:
        self._known: dict[Vector, Size] = {}

    def add(self, name: str, shapes: Iterable[tuple[int, ...]]) -> None:
        """Add the axes of a value, which has these shapes in the runs."""
        for axis, vector in enumerate(zip(*shapes, strict=True)):
            if len(set(vector)) > 1:
                self._known.setdefault(vector, Size("dim", name, axis))

    def add_size(self, vector: Vector, size: Any) -> None:
        if len(set(vector)) > 1:
            self._known.setdefault(vector, size)

    def all(self) -> Iterable[tuple[Vector, Size]]:
        return self._known.items()

    def find(self, vector: Vector) -> Any:
        """Return the plainest expression of known sizes that has these numbers, or None."""
        if len(set(vector)) == 1:
            return vector[0]
        if any(isinstance(number, float) for number in vector):
            return self._find_float(vector)
        if vector in self._known:
            return self._known[vector]
        for search in (self._shifted, self._scaled, self._pairs, self._divided, self._triples):
            for size in search(vector):
                return size
        return None

    def _shifted(self, vector: Vector) -> Iterator[Size]:
        """a + n, n - a"""
        for known, size in self._known.items():
            shifts = {v - k for v, k in zip(vector, known, strict=True)}
            if len(shifts) == 1:
                shift = shifts.pop()
                yield Size("+", size, shift) if shift > 0 else Size("-", size, -shift)
            sums = {v + k for v, k in zip(vector, known, strict=True)}
            if len(sums) == 1:
                yield Size("-", sums.pop(), size)

    def _scaled(self, vector: Vector) -> Iterator[Size]:
        """a * n, a * n + m"""
        for known, size in self._known.items():
            slope = _slope(vector, known)
            if slope is not None:
                n, m = slope
                scaled = Size("*", size, n)
                yield scaled if m == 0 else Size("+", scaled, m) if m > 0 else Size("-", scaled, -m)

    def _pairs(self, vector: Vector) -> Iterator[Size]:
        """a * b, a + b, a - b, and these times a number"""
        known = list(self._known.items())[:MOST_PAIRED]
        for index, (a, first) in enumerate(known):
            for b, second in known[index:]:
                product = tuple(x * y for x, y in zip(a, b, strict=True))
                ratio = _ratio(vector, product)
                if ratio is not None:
                    both = Size("*", first, second)
                    yield both if ratio == 1 else Size("*", both, ratio)
                if vector == tuple(x + y for x, y in zip(a, b, strict=True)):
                    yield Size("+", first, second)
                if vector == tuple(x - y for x, y in zip(a, b, strict=True)):
                    yield Size("-", first, second)
                if vector == tuple(y - x for x, y in zip(a, b, strict=True)):
                    yield Size("-", second, first)
                if vector == tuple(max(x, y) for x, y in zip(a, b, strict=True)):
                    yield Size("max", first, second)
                if vector == tuple(min(x, y) for x, y in zip(a, b, strict=True)):
                    yield Size("min", first, second)

    def _divided(self, vector: Vector) -> Iterator[Size]:
        """a // n, (a + m) // n, -(-a // n), a // b, a % n, n * (a // n)"""
        known = list(self._known.items())[:MOST_PAIRED]
        for a, size in known:
            for n in _divisors(vector, a):
                for m in (0, *(m for k in range(1, n + 1) for m in (k, -k))):
                    if vector == tuple((x + m) // n for x in a):
                        shifted = size if m == 0 else Size("+", size, m) if m > 0 else Size("-", size, -m)
                        yield Size("//", shifted, n)
        for a, first in known:
            for b, second in known:
                if a != b and 0 not in b and vector == tuple(x // y for x, y in zip(a, b, strict=True)):
                    yield Size("//", first, second)
        for a, size in known:
            for n in range(2, 1025):
                if vector == tuple(x % n for x in a):
                    yield Size("%", size, n)
                if vector == tuple(-x % n for x in a):
                    yield Size("%", Size("-", 0, size), n)
                if vector == tuple(x // n * n for x in a):
                    yield Size("*", Size("//", size, n), n)
                if vector == tuple(-(-x // n) * n for x in a):
                    yield Size("*", Size("//", Size("+", size, n - 1), n), n)

    def _triples(self, vector: Vector) -> Iterator[Size]:
        """a * b * c, (a + n) * b, a // b * n, all times a number"""
        known = list(self._known.items())[:12]
        for a, first in known:
            for b, second in known:
                for c, third in known:
                    product = tuple(x * y * z for x, y, z in zip(a, b, c, strict=True))
                    ratio = _ratio(vector, product)
                    if ratio is not None:
                        yield Size("*", Size("*", Size("*", first, second), third), ratio)
        for a, first in known:
            if 0 in a or any(v % x for v, x in zip(vector, a, strict=True)):
                continue
            rest = tuple(v // x for v, x in zip(vector, a, strict=True))
            for search in (self._shifted, self._scaled, self._divided):
                for size in search(rest):
                    yield Size("*", size, first)

    def _find_float(self, vector: Vector) -> Any:
        """n * a, n / a, n * sqrt(a), n / sqrt(a)"""
        for known, size in self._known.items():
            for power, expression in (
                (1.0, size),
                (-1.0, Size("**", size, -1.0)),
                (0.5, Size("**", size, 0.5)),
                (-0.5, Size("**", size, -0.5)),
            ):
                factors = [v / k**power for v, k in zip(vector, known, strict=True) if k > 0]
                if len(factors) == len(vector) and all(
                    math.isclose(f, factors[0], rel_tol=1e-12) for f in factors
                ):
                    return expression if factors[0] == 1 else Size("*", expression, factors[0])
        return None


def _slope(vector: Vector, known: Vector) -> tuple[int, int] | None:
    """n and m with vector = n * known + m, in whole numbers; None if there are none."""
    low, high = known.index(min(known)), known.index(max(known))
    rise, run = vector[high] - vector[low], known[high] - known[low]
    if not run or rise % run:
        return None
    n = rise // run
    m = vector[low] - n * known[low]
    if n == 0 or any(v != n * k + m for v, k in zip(vector, known, strict=True)):
        return None
    return n, m


def _ratio(vector: Vector, known: Vector) -> int | None:
    """n with vector = n * known, in whole numbers."""
    if 0 in known or vector[0] % known[0]:
        return None
    n = vector[0] // known[0]
    return n if all(v == n * k for v, k in zip(vector, known, strict=True)) else None


def _divisors(vector: Vector, known: Vector) -> Iterator[int]:
    """The divisors n with which known // n may be vector."""
    rise = max(vector) - min(vector)
    run = max(known) - min(known)
    if rise <= 0:
        return
    for n in range(max(2, run // (rise + 1)), run // max(1, rise - 1) + 2 if rise > 1 else run + 2):
        if n <= 1024:
            yield n
