"""The times of single calls of a live sequence: quantiles, missed deadlines, and a histogram."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrnn.benchmark.table import duration

QUANTILES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999, "largest": 1.0}
# The most bins that a histogram has, and by what factor each is wider than the one before.
MOST_BINS = 16
FACTORS = (2**0.25, 2**0.5, 2.0, 4.0, 16.0)
BAR = 36


def tail(nanoseconds: Sequence[int], deadline: float | None = None) -> dict[str, Any]:
    """Sum up the times of calls.

    Parameters
    ----------
    nanoseconds : sequence of int
        The time of each call.
    deadline : float, optional
        How many seconds a call may take.

    Returns
    -------
    dict
        ``p50``, ``p99``, ``p99.9`` and ``largest`` in microseconds, and ``calls``, their number. With a
        deadline also ``missed``, how many calls took that long or longer, and ``histogram``: the ``edges``
        of its bins in microseconds and their ``counts``.
    """
    times = np.array(nanoseconds) / 1e3
    found = {name: float(value) for name, value in zip(QUANTILES, _quantiles(times), strict=True)}
    result: dict[str, Any] = {**found, "calls": len(times)}
    if deadline is not None:
        edges, counts = histogram(times, deadline * 1e6)
        result["missed"] = int((times >= deadline * 1e6).sum())
        result["histogram"] = {"edges": edges.tolist(), "counts": counts.tolist()}
    return result


def _quantiles(times: NDArray[np.float64]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = np.quantile(times, list(QUANTILES.values()))
    return found


def histogram(
    times: NDArray[np.float64], anchor: float
) -> tuple[NDArray[np.float64], NDArray[np.signedinteger[Any]]]:
    """The edges (bins + 1,) of bins and the counts (bins,) of times in them.

    Each edge is a fixed factor times the one before, and the anchor falls on an edge. The bins are as narrow
    as MOST_BINS allows.
    """
    times = np.maximum(times, 1e-3)  # a coarse clock may say 0
    logs = np.log(times / anchor)
    for factor in FACTORS:
        bins = np.floor(logs / np.log(factor)).astype(int)
        # Compare with the edges themselves, since a logarithm may round to the other side of one.
        bins -= times < anchor * factor ** bins.astype(float)
        first = int(bins.min())
        if int(bins.max()) - first < MOST_BINS:
            break
    counts = np.bincount(bins - first)
    return anchor * factor ** np.arange(first, first + len(counts) + 1.0), counts


def histogram_lines(edges: Sequence[float], counts: Sequence[int], deadline: float) -> Iterator[str]:
    """A line for each bin, with its lower edge, and one at the deadline (us). At most 60 characters wide."""
    most = max(counts)
    for low, count in zip(edges, counts, strict=False):
        if low == deadline:
            yield f"{duration(low):>7}  {'- ' * (BAR // 2)} the budget"
        bar = "#" * (-(-BAR * count // most))
        yield f"{duration(low):>7}  {bar:<{BAR}}  {count:,}"
