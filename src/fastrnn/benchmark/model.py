"""A user's own model, beside the engines that are installed: ``fastrnn bench MODEL``."""

from collections.abc import Callable, Sequence
from typing import Any

import fastrnn.benchmark.measure as measuring
from fastrnn.benchmark.engines import PEERS, Engine
from fastrnn.benchmark.table import left_out_notes, ratio_to_best, time_cell
from fastrnn.benchmark.work import Work
from fastrnn.model import Sequential
from fastrnn.terminal import print_table


def works_of(model: Sequential, T: int = 100, B: int = 32) -> dict[str, Work]:
    """What is timed, by name: one live step where the model can stream, and T steps of 1 and B rows."""
    specs = tuple(layer.spec() for layer in model.layers)
    works = {}
    if _can_stream(model):
        works["one step, 1 row"] = Work(specs, mode="step")
    for rows in dict.fromkeys((1, B)):
        works[f"{T} steps, {rows} row{'s' if rows > 1 else ''}"] = Work(specs, T, rows)
    return works


def _can_stream(model: Sequential) -> bool:
    try:
        model.stream()
    except ValueError:
        return False
    return True


def bench_model(
    model: Sequential,
    T: int = 100,
    B: int = 32,
    rounds: int = measuring.ROUNDS,
    round_seconds: float = measuring.ROUND_SECONDS,
    peers: Sequence[Engine] = PEERS,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Time a model; the result as JSON keeps it.

    Returns
    -------
    dict
        What `machine` tells, model, threads, and works: for each its name, T, B, mode, the engines
        as `measure` gives them, and ratio, the best peer's time over ours (None without a peer).
    """
    works = works_of(model, T, B)
    measured = []
    for index, (name, work) in enumerate(works.items()):
        times = measuring.measure(work, peers, rounds, round_seconds)
        size = {"T": work.T, "B": work.B, "mode": work.mode}
        measured.append({"name": name, **size, "engines": times, "ratio": ratio_to_best(times)})
        report(index + 1, len(works))
    return {**measuring.machine(), "model": repr(model), "threads": 1, "works": measured}


def print_result(result: dict[str, Any]) -> None:
    """Print what `bench_model` gave: a table, and who is not in it."""
    versions = ", ".join(f"{name} {version}" for name, version in result["engines"].items())
    print(f"{result['model']}\n{result['processor']}; one thread each; {versions}\n")
    names = [name for name in result["engines"] if any(name in work["engines"] for work in result["works"])]
    rows = []
    for work in result["works"]:
        ratio = "-" if work["ratio"] is None else f"{work['ratio']:.2f}"
        rows.append((work["name"], *(time_cell(work["engines"].get(name)) for name in names), ratio))
    print_table(("median time", *names, "best peer / fastrnn"), rows)
    notes = left_out_notes({work["name"]: work["engines"] for work in result["works"]})
    if result["not_installed"]:
        notes.append(f"not installed: {', '.join(result['not_installed'])}; pip install 'fastrnn[bench]'")
    if notes:
        print("", *notes, sep="\n")
