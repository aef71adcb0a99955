"""A user's own model next to the engines that are installed: ``fastrnn bench MODEL``."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import fastrnn.benchmark.measure as measuring
from fastrnn.benchmark.engines import PEERS, Engine
from fastrnn.benchmark.table import headline, left_out_notes, missing_notes, ratio_to_best, time_cell
from fastrnn.benchmark.work import Work, live_specs
from fastrnn.errors import join
from fastrnn.narrow import STORAGES
from fastrnn.program.sequential import Sequential
from fastrnn.terminal import print_table


def works_of(model: Sequential, T: int = 100, B: int = 32) -> dict[str, Work]:
    """What is timed, by name: one live step if the model can stream, and T steps of 1 row and of B rows."""
    specs = tuple(layer.spec() for layer in model.layers)
    works = {}
    with contextlib.suppress(ValueError):  # a layer that needs the whole sequence
        works["one step, 1 row"] = Work(live_specs("bench", model.layers), mode="step")
    for rows in dict.fromkeys((1, B)):
        works[f"{T} steps, {rows} row{'s' if rows > 1 else ''}"] = Work(specs, T, rows)
    return works


def bench_model(
    model: Sequential,
    T: int = 100,
    B: int = 32,
    rounds: int = measuring.ROUNDS,
    round_seconds: float = measuring.ROUND_SECONDS,
    peers: Sequence[Engine] = PEERS,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Time a model. The result can be written as JSON.

    Returns
    -------
    dict
        What `machine` returns, model, threads, narrow (the storages of narrow weights), and works. Each work
        has its name, T, B, mode, engines as `measure` returns them, and ratio, the best peer's time over ours
        (None without a peer).
    """
    works = works_of(model, T, B)
    measured = []
    for index, (name, work) in enumerate(works.items()):
        measured.append(measure_work(name, work, peers, rounds, round_seconds))
        report(index + 1, len(works))
    narrow = sorted(set().union(*(work.precisions for work in works.values())) & STORAGES.keys())
    return {**measuring.machine(), "model": repr(model), "threads": 1, "narrow": narrow, "works": measured}


def measure_work(
    name: str, work: Work, peers: Sequence[Engine], rounds: int, round_seconds: float
) -> dict[str, Any]:
    """Time a work. Returns its entry of the result."""
    times = measuring.measure(work, peers, rounds, round_seconds)
    size = {"T": work.T, "B": work.B, "mode": work.mode}
    return {"name": name, **size, "engines": times, "ratio": ratio_to_best(times)}


def print_result(result: dict[str, Any]) -> None:
    """Print what `bench_model` returned: a table for each work, and which engines are not in it."""
    print(headline(result))
    for work in result["works"]:
        print(f"\n{work['name']}")
        print_table(*_table(work["engines"]))
        if "p99" in work["engines"]["fastrnn"]:
            print("mean: of calls in a row; p50 and p99: of single calls")
    if result.get("narrow"):
        print(
            f"\nfastrnn has weights in {join(result['narrow'])}; the others have the same numbers in float32"
        )
    notes = left_out_notes({work["name"]: work["engines"] for work in result["works"]})
    notes += missing_notes(result)
    if notes:
        print("", *notes, sep="\n")


def _table(times: Mapping[str, Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of a work's table, with a row for each engine."""
    has_quantiles = "p99" in times["fastrnn"]
    ours = times["fastrnn"]["microseconds"]
    rows = []
    for name, record in times.items():
        is_timed = name != "fastrnn" and "microseconds" in record
        ratio = f"{record['microseconds'] / ours:.2f}" if is_timed else "-"
        quantiles = [time_cell(record, key) for key in ("p50", "p99")] if has_quantiles else []
        rows.append([name, time_cell(record), *quantiles, ratio])
    # The time of calls in a row is not a quantile of single calls: it may be above their p99.
    times_of = ["mean", "p50", "p99"] if has_quantiles else ["median"]
    return ["engine", *times_of, "time / fastrnn's"], rows
