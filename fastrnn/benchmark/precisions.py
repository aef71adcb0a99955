"""Time against error at every precision: ``fastrnn bench MODEL --precision all``."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

import fastrnn.benchmark.measure as measuring
from fastrnn.arrays import Array
from fastrnn.benchmark.engines import OURS, PEERS, Engine, Fastrnn, Job
from fastrnn.benchmark.model import works_of
from fastrnn.benchmark.narrow_engines import NARROW_PEERS
from fastrnn.benchmark.picture import marks_of, scatter
from fastrnn.benchmark.table import duration, headline, missing_notes
from fastrnn.benchmark.work import Work
from fastrnn.checks import PRECISIONS
from fastrnn.layers.registry import make_layers
from fastrnn.program.sequential import Sequential
from fastrnn.terminal import print_table

# Of ours. In float64 is computed what errors are measured from.
OUR_PRECISIONS = tuple(name for name in PRECISIONS if name != "float64")


class _Ours(Fastrnn):
    """This library with the layers of a work at another precision."""

    def __init__(self, precision: str) -> None:
        self.precision = precision

    def build(self, work: Work) -> Job:
        return super().build(at_precision(work, self.precision))


class _Exact(Work):
    """A work in float64, whose input is the numbers that the others get in float32."""

    def x(self) -> Array:
        x = super().x()
        return x if x.dtype.kind in "iu" else x.astype(np.float32).astype(np.float64)


def at_precision(work: Work, precision: str) -> Work:
    """The same work at another precision."""
    layers = make_layers(work.widened().specs, precision)
    return replace(work, specs=tuple(layer.spec() for layer in layers))


def contenders(peers: Sequence[Engine] | None = None) -> list[Engine]:
    """Every engine at every precision that it may have."""
    if peers is None:
        narrow = [engine for engines in NARROW_PEERS.values() for engine in engines]
        peers = [engine for engine in (*PEERS, *narrow) if engine.is_installed()]
    return [*map(_Ours, OUR_PRECISIONS), *peers]


def bench_precisions(
    model: Sequential,
    T: int,
    B: int,
    rounds: int,
    report: Callable[[int, int], None] = lambda done, total: None,
    *,
    round_seconds: float = measuring.ROUND_SECONDS,
    peers: Sequence[Engine] | None = None,
) -> dict[str, Any]:
    """Time a model at every precision of this library and of the peers.

    Returns
    -------
    dict
        What `machine` returns, model, threads, and works. Each work has its name, T, B, mode, and points: for
        each engine and precision the ``microseconds``, their ``quartiles`` and the largest ``error`` beside
        float64, absolute; or why it was ``left_out``.
    """
    works = works_of(model, T, B)
    measured = []
    for index, (name, work) in enumerate(works.items()):
        points = measure_points(work, contenders(peers), rounds, round_seconds)
        measured.append({"name": name, "T": work.T, "B": work.B, "mode": work.mode, "points": points})
        report(index + 1, len(works))
    return {**measuring.machine(), "model": repr(model), "threads": 1, "works": measured}


def measure_points(
    work: Work, engines: Sequence[Engine], rounds: int, round_seconds: float
) -> list[dict[str, Any]]:
    """The time and the largest error of a work on each engine."""
    exact = at_precision(work, "float64")
    job = OURS.build(_Exact(**{name: getattr(exact, name) for name in exact.__dataclass_fields__}))
    wanted = measuring.first_outputs(job)
    points, jobs, entries = [], {}, {}
    for engine in engines:
        entry: dict[str, Any] = {"engine": engine.name, "precision": engine.precision}
        points.append(entry)
        try:
            with engine.active():
                job = engine.build(work)
                got = measuring.first_outputs(job)
        except Exception as raised:  # whatever a peer raises, it cannot do this work
            if isinstance(engine, _Ours):
                raise
            entry["left_out"] = measuring.reason_of(raised)
            continue
        error = float(np.abs(got.reshape(wanted.shape) - wanted).max())
        if not np.isfinite(error):
            entry["left_out"] = "its output is not finite"
            continue
        entry["error"] = error
        jobs[engine], entries[engine] = job, entry
    for engine, times in measuring.take_turns(jobs, rounds, round_seconds, work).items():
        entries[engine] |= {name: times[name] for name in ("microseconds", "quartiles")}
    return points


# ---------------------------------------------------------------- text


def timed(work: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The points of a work that have a time, from the fastest to the slowest."""
    points = [point for point in work["points"] if "microseconds" in point]
    return sorted(points, key=lambda point: point["microseconds"])


def is_best(point: Mapping[str, Any], points: Sequence[Mapping[str, Any]]) -> bool:
    """Whether no other point is at least as fast and closer, or as close and faster."""
    return not any(
        other["microseconds"] <= point["microseconds"]
        and other["error"] <= point["error"]
        and (other["microseconds"], other["error"]) != (point["microseconds"], point["error"])
        for other in points
    )


def print_precisions(result: Mapping[str, Any]) -> None:
    """Print what `bench_precisions` returned: a picture and a table for each work."""
    print(headline(result))
    for work in result["works"]:
        points = timed(work)
        print(f"\n{work['name']}")
        print(*scatter(points), sep="\n")
        rows = [
            (
                mark,
                point["engine"],
                point["precision"],
                duration(point["microseconds"]),
                f"{point['error']:.1e}",
                "best" if is_best(point, points) else "",
            )
            for mark, point in zip(marks_of(points), points, strict=True)
        ]
        print_table(("", "engine", "precision", "time", "error", ""), rows)
    print("\nerror: the largest difference from float64")
    print("best: nothing else is both as fast and as close")
    notes = left_out(result) + missing_notes(result)
    if notes:
        print("", *notes, sep="\n")


def left_out(result: Mapping[str, Any]) -> list[str]:
    """A line for each engine, precision and reason why it was not timed."""
    places: dict[str, list[str]] = {}
    for work in result["works"]:
        for point in work["points"]:
            if "left_out" in point:
                text = f"{point['engine']} {point['precision']}: {point['left_out']}"
                places.setdefault(text, []).append(work["name"])
    count = len(result["works"])
    return [text if len(names) == count else f"{text} ({'; '.join(names)})" for text, names in places.items()]
