"""The places of windows that move over the last axes of an array.

A kernel's places are its taps. Output o meets tap k at place o * stride + k * dilation of the padded input.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np

Sizes: TypeAlias = Sequence[int]


def each(name: str, value: int | Sizes, axes: int, least: int) -> tuple[int, ...]:
    """Return a number for each axis. One number is for all."""
    numbers = (value,) if isinstance(value, int) else tuple(value)
    numbers = numbers * axes if len(numbers) == 1 else numbers
    if len(numbers) != axes or any(number < least for number in numbers):
        raise ValueError(f"{name} must be {axes} integers of at least {least}.")
    return numbers


def taps(kernel: Sizes, stride: Sizes, dilation: Sizes, count: Sizes) -> Iterator[tuple[Any, Any]]:
    """Give for each tap its index in a kernel, and the index of what `count` outputs meet in padded input."""
    for tap in np.ndindex(*kernel):
        starts = [k * d for k, d in zip(tap, dilation, strict=True)]
        spans = [np.s_[a : a + (n - 1) * s + 1 : s] for a, n, s in zip(starts, count, stride, strict=True)]
        yield (..., *tap), (..., *spans)
