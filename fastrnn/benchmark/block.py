"""Blocks of a live stream against their deadline: ``fastrnn bench MODEL --block N --rate R``."""

from collections.abc import Callable, Sequence
from typing import Any

import fastrnn.benchmark.measure as measuring
from fastrnn.benchmark.engines import PEERS, Engine
from fastrnn.benchmark.model import measure_work
from fastrnn.benchmark.table import duration, headline, left_out_notes, missing_notes, time_cell
from fastrnn.benchmark.tail import QUANTILES, histogram_lines
from fastrnn.benchmark.work import Work, live_specs
from fastrnn.program.sequential import Sequential
from fastrnn.terminal import print_table


def bench_block(
    model: Sequential,
    name: str,
    block: int,
    rate: float,
    rounds: int = measuring.ROUNDS,
    round_seconds: float = measuring.ROUND_SECONDS,
    peers: Sequence[Engine] = PEERS,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Time the blocks of a live sequence one by one. Each goes on from the state of the one before.

    Parameters
    ----------
    model : Sequential
    name : str
        What messages call the model.
    block : int
        Time steps in a block.
    rate : float
        Time steps per second. A block may take ``block / rate`` seconds.

    Returns
    -------
    dict
        What `bench_model` returns, with one work, and block, rate and budget (microseconds).

    Raises
    ------
    ValueError
        The model has a layer that needs the whole sequence.
    """
    work = Work(live_specs(name, model.layers), block, mode="block", deadline=block / rate)
    works = [measure_work(f"block of {block} steps", work, peers, rounds, round_seconds)]
    report(1, 1)
    size = {"block": block, "rate": rate, "budget": block / rate * 1e6}
    return {**measuring.machine(), "model": repr(model), "threads": 1, **size, "works": works}


def print_block(result: dict[str, Any]) -> None:
    """Print what `bench_block` returned: times, shares of the budget, and a histogram for each engine."""
    budget, work = result["budget"], result["works"][0]
    times = {name: record for name, record in work["engines"].items() if "calls" in record}
    ours = times["fastrnn"]
    print(headline(result))
    steps, rate = result["block"], result["rate"]
    print(f"\nblocks of {steps} at {rate:g} a second: {duration(budget)} each, the budget")
    rounds = ours["rounds"]
    print(f"{rounds} round{'s' * (rounds > 1)}; each times {ours['calls'] // rounds} blocks of fastrnn,")
    print(f"after {ours['warm_up']} that warm up and are not counted\n")
    print_table(
        ("engine", *QUANTILES),
        [(name, *(time_cell(record, key) for key in QUANTILES)) for name, record in times.items()],
    )
    print("\nshare of the budget, and blocks that missed it\n")
    print_table(
        ("engine", *QUANTILES, "missed"),
        [
            (name, *(f"{record[key] / budget:.1%}" for key in QUANTILES), _missed(record))
            for name, record in times.items()
        ],
    )
    for name, record in times.items():
        found = record["histogram"]
        print(f"\n{name}: blocks by the time that they took")
        for line in histogram_lines(found["edges"], found["counts"], budget):
            print(line)
    notes = left_out_notes({work["name"]: work["engines"]}) + missing_notes(result)
    if notes:
        print("", *notes, sep="\n")


def _missed(record: dict[str, Any]) -> str:
    return f"{record['missed']} of {record['calls']}"
