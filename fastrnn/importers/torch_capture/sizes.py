"""Numbers that differ between runs at different sizes, as expressions of sizes.

Two runs of a module differ in the numbers that depend on the sizes of its inputs. Each such number is looked
for among the sizes of the values before it, their sums, products and quotients. The plainest expression that
holds in all runs is taken. Whether it holds at other sizes is shown by running there (`export`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from fastrnn.graph import ARITHMETIC, Size

Vector = tuple[Any, ...]  # a number in each run
MOST_PAIRED = 40  # the sizes of which pairs are tried
MOST_DIVISOR = 1024


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
        plain = (self._linear, self._paired, self._divided)
        for searches in ((self._linear,), (self._clamped,), plain, (self._triples,)):
            found = [size for search in searches for size in search(vector)]
            if found:
                return min(found, key=_cost)
        return None

    def _linear(self, vector: Vector) -> Iterator[Size]:
        """n * a + m"""
        for known, size in self._known.items():
            line = _slope(vector, known)
            if line is not None:
                yield _sum([(line[0], size)], line[1])

    def _clamped(self, vector: Vector) -> Iterator[Size]:
        """max and min of a number and a + m or m - a: what is cut off, or added, at a limit"""
        for name, chosen in (("max", max), ("min", min)):
            limit = min(vector) if name == "max" else max(vector)
            free = [k for k, v in enumerate(vector) if v != limit]
            if len({vector[k] for k in free}) < 2:
                continue
            for known, size in self._known.items():
                if size.operator == "step":  # a first step that is unlike the others is no step of the loop
                    continue
                for n in (1, -1):
                    m = vector[free[0]] - n * known[free[0]]
                    if vector == tuple(chosen(n * x + m, limit) for x in known):
                        yield Size(name, _sum([(n, size)], m), limit)

    def _paired(self, vector: Vector) -> Iterator[Size]:
        """n * a + m * b + k, n * a * b + k, max and min"""
        known = list(self._known.items())[:MOST_PAIRED]
        for index, (a, first) in enumerate(known):
            for b, second in known[index:]:
                line = _slope(vector, tuple(x * y for x, y in zip(a, b, strict=True)))
                if line is not None:
                    yield _sum([(line[0], Size("*", first, second))], line[1])
                plane = _plane(vector, a, b)
                if plane is not None:
                    n, m, k = plane
                    yield _sum([(n, first), (m, second)], k)
                for name, chosen in (("max", max), ("min", min)):
                    if vector == tuple(map(chosen, a, b)):
                        yield Size(name, first, second)

    def _divided(self, vector: Vector) -> Iterator[Size]:
        """(a + m) // n, also of sums and differences of two sizes; a // b, a % n, n * (a // n)"""
        known = list(self._known.items())[:MOST_PAIRED]
        yield from self._quotients(vector, known)
        for a, first in known:
            for b, second in known:
                if a != b and 0 not in b and vector == tuple(x // y for x, y in zip(a, b, strict=True)):
                    yield Size("//", first, second)
        for a, size in known:
            for n in range(2, MOST_DIVISOR + 1):
                # What is left, or missing, to a multiple, and halves of it as in padding of both ends.
                for sign, one in ((1, size), (-1, Size("-", 0, size))):
                    rest = tuple(sign * x % n for x in a)
                    more = vector[0] - rest[0]
                    if all(v - x == more for v, x in zip(vector, rest, strict=True)):
                        yield _sum([(1, Size("%", one, n))], more)
                    half = 2 * vector[0] - rest[0]
                    for up in (half, half + 1):
                        if vector == tuple((x + up) // 2 for x in rest):
                            yield Size("//", _sum([(1, Size("%", one, n))], up), 2)
                for multiple, up in ((size, 0), (Size("+", size, n - 1), n - 1)):
                    # n * (a // n), and a part of it that was halved or moved.
                    line = _slope(vector, tuple((x + up) // n for x in a)) if n <= 64 else None
                    if line is not None:
                        yield _sum([(line[0], Size("//", multiple, n))], line[1])
        few = known[:12]
        sums = []
        for index, (a, first) in enumerate(few):
            for b, second in few[index + 1 :]:
                sums.append((tuple(x + y for x, y in zip(a, b, strict=True)), Size("+", first, second)))
                sums.append((tuple(x - y for x, y in zip(a, b, strict=True)), Size("-", first, second)))
                sums.append((tuple(y - x for x, y in zip(a, b, strict=True)), Size("-", second, first)))
        yield from self._quotients(vector, sums)
        # What is left beside the quotient of a difference: a - (a - b) // n.
        for a, first in few:
            rest = tuple(x - v for x, v in zip(a, vector, strict=True))
            for size in self._quotients(rest, sums):
                yield Size("-", first, size)

    @staticmethod
    def _quotients(vector: Vector, known: Sequence[tuple[Vector, Any]]) -> Iterator[Size]:
        for a, size in known:
            for n in _divisors(vector, a):
                # All m with n * v <= x + m < n * (v + 1) in each run.
                low = max(n * v - x for v, x in zip(vector, a, strict=True))
                high = min(n * v + n - 1 - x for v, x in zip(vector, a, strict=True))
                for m in sorted(range(max(low, -n), min(high, n) + 1), key=lambda m: (abs(m), m < 0)):
                    yield Size("//", _sum([(1, size)], m), n)

    def _triples(self, vector: Vector) -> Iterator[Size]:
        """a * b * c, (n * a + m) * b, a // n * b, all times a number"""
        known = list(self._known.items())[:12]
        for a, first in known:
            for b, second in known:
                for c, third in known:
                    product = tuple(x * y * z for x, y, z in zip(a, b, c, strict=True))
                    line = _slope(vector, product)
                    if line is not None and line[1] == 0:
                        yield _sum([(line[0], Size("*", Size("*", first, second), third))], 0)
        for a, first in known:
            if 0 in a or any(v % x for v, x in zip(vector, a, strict=True)):
                continue
            rest = tuple(v // x for v, x in zip(vector, a, strict=True))
            for search in (self._linear, self._paired, self._divided):
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


def _cost(size: Any) -> int:
    """How much is said by an expression: its sizes, operators and the digits of its numbers."""
    if not isinstance(size, Size):
        return abs(size).bit_length() + 1 if isinstance(size, int) else 8
    if size.operator in ARITHMETIC:
        # Few modules divide a size by another one.
        is_ratio = size.operator == "//" and isinstance(size.right, Size)
        return (4 if is_ratio else 1) + _cost(size.left) + _cost(size.right)
    return 2


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


def _plane(vector: Vector, a: Vector, b: Vector) -> tuple[int, int, int] | None:
    """n, m and k with vector = n * a + m * b + k, in whole numbers; None if there are none."""
    rows = [(x - a[0], y - b[0], v - vector[0]) for x, y, v in zip(a[1:], b[1:], vector[1:], strict=True)]
    for i, (x, y, v) in enumerate(rows):
        for other_x, other_y, other_v in rows[i + 1 :]:
            area = x * other_y - other_x * y
            if area:
                n, m = v * other_y - other_v * y, x * other_v - other_x * v
                if n % area or m % area:
                    return None
                n, m = n // area, m // area
                k = vector[0] - n * a[0] - m * b[0]
                fits = n and m and all(n * x + m * y + k == v for x, y, v in zip(a, b, vector, strict=True))
                return (n, m, k) if fits else None
    return None


def _sum(terms: Sequence[tuple[int, Any]], number: int) -> Any:
    """The expression of a sum of multiples and a number, with what is positive first."""
    result: Any = None
    for factor, size in sorted(terms, key=lambda term: term[0] < 0):
        part = size if abs(factor) == 1 else Size("*", size, abs(factor))
        if result is None:
            result = part if factor > 0 else Size("-", number, part)
            number = number if factor > 0 else 0
        else:
            result = Size("+" if factor > 0 else "-", result, part)
    if number:
        result = Size("+" if number > 0 else "-", result, abs(number))
    return result


def _divisors(vector: Vector, known: Vector) -> Iterator[int]:
    """The divisors n with which known // n may be vector."""
    rise = max(vector) - min(vector)
    run = max(known) - min(known)
    if rise <= 0:
        return
    most = run // max(1, rise - 1) + 1 if rise > 1 else run + 1
    yield from range(max(2, run // (rise + 1)), min(most, MOST_DIVISOR) + 1)
