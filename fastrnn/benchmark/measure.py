"""Time a work on several engines: compare their outputs first, then let them take turns."""

import gc
import platform
import time
from collections.abc import Callable, Iterable
from functools import partial
from itertools import repeat
from typing import Any

import numpy as np

from fastrnn.arrays import Array
from fastrnn.benchmark.engines import OURS, PEERS, Engine, Job, LeftOut
from fastrnn.benchmark.tail import tail
from fastrnn.benchmark.work import Work, agreement
from fastrnn.engine.backends import config
from fastrnn.errors import message

ROUNDS = 21
ROUND_SECONDS = 0.01
# How long all rounds of a work may take together. At least FEWEST_ROUNDS are made even if they take longer.
WORK_SECONDS = 4.0
FEWEST_ROUNDS = 11
# Calls of a live sequence that are timed one by one in a round: as many as fit into it, within these bounds.
# They have to be many, after a tenth as many that are not timed. The first call finds its code no longer in
# the caches, and of 100 calls it alone would be the 99th percentile. Blocks are more, since a 99.9th
# percentile needs thousands of calls over all rounds.
SINGLE_CALLS = {"step": (10, 1000), "pool": (10, 1000), "block": (200, 2000)}
# The pause before a round with several threads. The threads of the engine before it spin for a while after
# its last call, those of ONNX Runtime for 40 ms.
SETTLING_SECONDS = 0.06
# After that pause the cores need a few milliseconds to be as fast as before.
WARMING_SECONDS = 0.01
# How many units of work are compared: enough for a wrong state to show.
COMPARED = 3


def machine() -> dict[str, Any]:
    """What every result needs beside its figures: the processor, versions, and what is not installed."""
    processor = platform.processor()
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
        processor = names[0] if names else processor
    except OSError:
        pass
    return {
        "processor": processor,
        "config": config(),
        "engines": {engine.name: engine.version() for engine in (OURS, *PEERS) if engine.is_installed()},
        "not_installed": {engine.name: engine.missing() for engine in PEERS if not engine.is_installed()},
    }


def measure(
    work: Work,
    peers: Iterable[Engine] = PEERS,
    rounds: int = ROUNDS,
    round_seconds: float = ROUND_SECONDS,
    ours: Engine = OURS,
) -> dict[str, dict[str, Any]]:
    """Time a unit of a work on this library and on the peers that are installed.

    The outputs of every peer are compared with ours first. A peer that differs is not timed. Then the
    engines take turns, a round each, so that a slow moment of the machine hits all of them. A round begins
    with untimed calls, since the engine before it has filled the caches.

    Parameters
    ----------
    work : Work
    peers : engines
    rounds : int
        Fewer are made if they would take more than WORK_SECONDS.
    round_seconds : float
        How long a round takes, at least.
    ours : Engine
        This library. The outputs of the peers are compared with its own.

    Returns
    -------
    dict of str to dict
        By the engine's name. Either ``left_out``, the reason why it was not timed; or ``microseconds``, the
        median over the rounds of a unit's time, and its ``quartiles``. For a live sequence also what `tail`
        says of single calls, and ``warm_up``, how many calls came before them in each round. ``difference``
        is the largest one from our output.
    """
    results: dict[str, dict[str, Any]] = {}
    engines = [ours, *(engine for engine in peers if engine.is_installed())]
    jobs: dict[Engine, Job] = {}
    wanted: Array | None = None
    for engine in engines:
        try:
            with engine.active():
                job = engine.build(work)
                got = first_outputs(job)
        except Exception as error:  # whatever a peer raises, it cannot do this work
            if engine is ours:
                raise
            results[engine.name] = {"left_out": reason_of(error)}
            continue
        if wanted is None:
            wanted = got
            if not np.isfinite(wanted).all():
                raise ValueError(message("model", "finite outputs", "NaN or infinity"))
        results[engine.name] = check = compare_outputs(got, wanted, work.precision)
        if "left_out" not in check:
            jobs[engine] = job
    for engine, times in take_turns(jobs, rounds, round_seconds, work).items():
        results[engine.name] |= times
    return results


def reason_of(error: Exception) -> str:
    """Why an engine that raised this is left out."""
    kind = "" if isinstance(error, LeftOut) else f"{type(error).__name__}: "
    return f"{kind}{str(error)[:200]}"


def compare_outputs(got: Array, wanted: Array, precision: str) -> dict[str, Any]:
    """The largest difference, as a share of the largest value if above 1. ``left_out`` if it is too large."""
    if got.size != wanted.size:
        return {"left_out": f"its output has {got.size} numbers, ours {wanted.size}"}
    difference = np.abs(got.reshape(wanted.shape) - wanted).max()
    difference = float(difference / max(1.0, np.abs(wanted).max()))
    if not difference <= agreement(precision):  # a NaN is a wrong answer too
        return {"difference": difference, "left_out": f"its output is {difference:.1g} away from ours"}
    return {"difference": difference}


def first_outputs(job: Job) -> Array:
    """The outputs of the first units of work, stacked."""
    outputs = []
    for _ in range(COMPARED):
        job.call()
        outputs.append(np.array(job.output()))
    return np.stack(outputs)


def take_turns(
    jobs: dict[Engine, Job], rounds: int, round_seconds: float, work: Work
) -> dict[Engine, dict[str, Any]]:
    """Time jobs, a round each in turns. Returns the times of each, as `measure` does."""
    threads = work.threads
    counts, singles = {}, {}
    few, many = SINGLE_CALLS.get(work.mode, (0, 0))
    seconds_of_all = 0.0
    for engine, job in jobs.items():
        with engine.active():
            one = seconds_of_one(partial(seconds_of_calls, job.call), round_seconds / 4)
        counts[engine] = max(1, round(round_seconds / one))
        singles[engine] = min(many, max(few, counts[engine]))
        seconds_of_all += one * (counts[engine] + singles[engine])
    rounds = rounds_in_time(rounds, seconds_of_all)
    means: dict[Engine, list[float]] = {engine: [] for engine in jobs}
    times: dict[Engine, list[int]] = {engine: [] for engine in jobs}
    warm_up: dict[Engine, int] = {}
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            for engine, job in jobs.items():
                count, single = counts[engine], singles[engine]
                with engine.active():
                    warming = settle(threads, count, round_seconds)
                    seconds_of_calls(job.call, warming)
                    means[engine].append(seconds_of_calls(job.call, count) / count)
                    _single_calls(job.call, single // 10)
                    times[engine] += _single_calls(job.call, single)
                    warm_up[engine] = warming + count + single // 10
    finally:
        gc.enable()
    results: dict[Engine, dict[str, Any]] = {}
    for engine, values in means.items():
        low, median, high = (float(q) for q in np.quantile(values, (0.25, 0.5, 0.75)) * 1e6)
        results[engine] = {"microseconds": median, "quartiles": [low, high], "rounds": rounds}
        if work.keeps_state:
            results[engine] |= {"warm_up": warm_up[engine], **tail(times[engine], work.deadline)}
    return results


def seconds_of_calls(call: Callable[[], object], count: int) -> float:
    """The seconds that this many calls take."""
    began = time.perf_counter()
    for _ in repeat(None, count):
        call()
    return time.perf_counter() - began


def _single_calls(call: Callable[[], object], count: int) -> list[int]:
    """The nanoseconds that each of `count` calls takes."""
    clock = time.perf_counter_ns
    result = []
    for _ in repeat(None, count):
        began = clock()
        call()
        result.append(clock() - began)
    return result


def seconds_of_one(seconds_of: Callable[[int], float], enough: float) -> float:
    """The seconds of one call, from the first power of two of calls that takes at least `enough` seconds.

    ``seconds_of(count)`` makes that many calls and gives the seconds that they took.
    """
    count = 1
    while (seconds := seconds_of(count)) < enough:
        count *= 2
    return seconds / count


def rounds_in_time(rounds: int, seconds: float) -> int:
    """How many rounds of this many seconds to make: `rounds`, or fewer where they would take too long."""
    return min(rounds, max(FEWEST_ROUNDS, round(WORK_SECONDS / seconds)))


def settle(threads: int, count: int, round_seconds: float) -> int:
    """Wait until the cores are free for a round of `count` calls; how many untimed calls come before them."""
    if threads == 1:
        return max(1, count // 10)
    time.sleep(SETTLING_SECONDS)
    return max(1, round(count * WARMING_SECONDS / round_seconds))
