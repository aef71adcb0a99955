"""What single calls of a live sequence take: quantiles, those that come too late, and a histogram."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrnn.benchmark.table import duration

QUANTILES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999, "largest": 1.0}
# How many bins a histogram has at most, and how much wider one is than the one before it.
MOST_BINS = 16
FACTORS = (2**0.25, 2**0.5, 2.0, 4.0, 16.0)
BAR = 36


def tail(nanoseconds: Sequence[int], deadline: float | None = None) -> dict[str, Any]:
    """Sum up what calls took.

    Parameters
    ----------
    nanoseconds : sequence of int
        Of each call.
    deadline : float, optional
        Seconds that a call may take.

    Returns
    -------
    dict
        ``p50``, ``p99``, ``p99.9`` and ``largest`` in microseconds, ``calls``; with a deadline
        ``missed``, how many calls were not over before it, and ``histogram``: ``edges`` of the bins
        in microseconds, and their ``counts``.
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
    """Counts (bins,) of times between edges (bins + 1,): each so many times the last, the anchor one of them.

    The bins are as narrow as they can be while there are no more than MOST_BINS of them.
    """
    times = np.maximum(times, 1e-3)  # a coarse clock may tell 0
    logs = np.log(times / anchor)
    for factor in FACTORS:
        bins = np.floor(logs / np.log(factor)).astype(int)
        # By comparison with the edges: a logarithm may round to the other side of one.
        bins -= times < anchor * factor ** bins.astype(float)
        first = int(bins.min())
        if int(bins.max()) - first < MOST_BINS:
            break
    counts = np.bincount(bins - first)
    return anchor * factor ** np.arange(first, first + len(counts) + 1.0), counts


def histogram_lines(edges: Sequence[float], counts: Sequence[int], deadline: float) -> Iterator[str]:
    """A line for each bin, from its lower edge on, at most 60 columns wide; and one at the deadline (us)."""
    most = max(counts)
    for low, count in zip(edges, counts, strict=False):
        if low == deadline:
            yield f"{duration(low):>7}  {'- ' * (BAR // 2)} the budget"
        bar = "#" * (-(-BAR * count // most))
        yield f"{duration(low):>7}  {bar:<{BAR}}  {count:,}"
