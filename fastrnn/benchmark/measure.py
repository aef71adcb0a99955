"""Time a work on several engines: compare what they give, then take turns."""

import gc
import platform
import time
from collections.abc import Callable, Iterable
from functools import partial
from itertools import repeat
from typing import Any

import numpy as np

from fastrnn.arrays import Array
from fastrnn.benchmark.engines import OURS, PEERS, Engine, LeftOut, Runner
from fastrnn.benchmark.tail import tail
from fastrnn.benchmark.work import Work
from fastrnn.engine.backends import config
from fastrnn.errors import message

ROUNDS = 21
ROUND_SECONDS = 0.01
# What all rounds of a work may take together; fewer than FEWEST_ROUNDS are not made for it.
WORK_SECONDS = 4.0
FEWEST_ROUNDS = 11
# Calls of a live sequence that are timed one by one in a round: as many as fit into it, within these numbers.
# Many, and a tenth as many before them untimed: of 100 the first, whose code the caches have lost, is the
# 99th percentile. Blocks are more, since a 99.9th percentile wants thousands of all rounds.
SINGLE_CALLS = {"step": (10, 1000), "pool": (10, 1000), "block": (200, 2000)}
# How far two engines may differ, as a share of the largest value: sums in different orders.
AGREEMENT = {"float32": 1e-4, "float64": 1e-10}
# Before a round with several threads: those of the engine before it spin on for a while, ONNX Runtime's for
# 40 ms. Meanwhile the cores fall asleep, and need a few milliseconds to be as fast as before.
SETTLING_SECONDS = 0.06
WARMING_SECONDS = 0.01
# Units of work whose outputs are compared: enough that a wrong state shows.
COMPARED = 3


def machine() -> dict[str, Any]:
    """What a figure means nothing without: processor, versions, and what is not installed, with the packages
    that are missing."""
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
) -> dict[str, dict[str, Any]]:
    """Time a unit of a work on this library and on the peers that are installed.

    The outputs of every peer are compared with ours first; one that differs has no time. Then the
    engines take turns, a round each, so that a slow moment of the machine hits all of them. A
    round begins with untimed calls, since the engine before it has filled the caches.

    Parameters
    ----------
    work : Work
    peers : engines
    rounds : int
        Fewer where they would take more than WORK_SECONDS.
    round_seconds : float
        What a round takes at least.

    Returns
    -------
    dict of str to dict
        By the engine's name. Either ``left_out``, why there is no time; or ``microseconds``, the
        median over the rounds of a unit's time, ``quartiles`` of the same, and for a live sequence
        what `tail` tells of single calls, and ``warm_up``, how many came before them in each round.
        ``difference``: the largest, to our output.
    """
    results: dict[str, dict[str, Any]] = {}
    engines = [OURS, *(engine for engine in peers if engine.is_installed())]
    runners: dict[Engine, Runner] = {}
    wanted: Array | None = None
    for engine in engines:
        try:
            with engine.active():
                runner = engine.build(work)
                got = _first_outputs(runner)
        except Exception as error:  # what a peer cannot do is its own loss, whatever it raises
            if engine is OURS:
                raise
            kind = "" if isinstance(error, LeftOut) else f"{type(error).__name__}: "
            results[engine.name] = {"left_out": f"{kind}{str(error)[:200]}"}
            continue
        if wanted is None:
            wanted = got
            if not np.isfinite(wanted).all():
                raise ValueError(message("model", "finite outputs", "NaN or infinity"))
        results[engine.name] = check = compare_outputs(got, wanted, work.dtype.name)
        if "left_out" not in check:
            runners[engine] = runner
    for engine, times in _take_turns(runners, rounds, round_seconds, work).items():
        results[engine.name] |= times
    return results


def compare_outputs(got: Array, wanted: Array, precision: str) -> dict[str, Any]:
    """The largest difference, as a share of the largest value where that is above 1; or left_out."""
    if got.size != wanted.size:
        return {"left_out": f"its output has {got.size} numbers, ours {wanted.size}"}
    difference = np.abs(got.reshape(wanted.shape) - wanted).max()
    difference = float(difference / max(1.0, np.abs(wanted).max()))
    if not difference <= AGREEMENT[precision]:  # a NaN is a wrong answer too
        return {"difference": difference, "left_out": f"its output is {difference:.1g} away from ours"}
    return {"difference": difference}


def _first_outputs(runner: Runner) -> Array:
    """The outputs of the first units of work, one behind the other."""
    outputs = []
    for _ in range(COMPARED):
        runner.call()
        outputs.append(np.array(runner.output()))
    return np.stack(outputs)


def _take_turns(
    runners: dict[Engine, Runner], rounds: int, round_seconds: float, work: Work
) -> dict[Engine, dict[str, Any]]:
    threads = work.threads
    counts, singles = {}, {}
    few, many = SINGLE_CALLS.get(work.mode, (0, 0))
    seconds_of_all = 0.0
    for engine, runner in runners.items():
        with engine.active():
            one = seconds_of_one(partial(_seconds, runner.call), round_seconds / 4)
        counts[engine] = max(1, round(round_seconds / one))
        singles[engine] = min(many, max(few, counts[engine]))
        seconds_of_all += one * (counts[engine] + singles[engine])
    rounds = rounds_in_time(rounds, seconds_of_all)
    means: dict[Engine, list[float]] = {engine: [] for engine in runners}
    times: dict[Engine, list[int]] = {engine: [] for engine in runners}
    warm_up: dict[Engine, int] = {}
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            for engine, runner in runners.items():
                count, single = counts[engine], singles[engine]
                with engine.active():
                    warming = settle(threads, count, round_seconds)
                    _seconds(runner.call, warming)
                    means[engine].append(_seconds(runner.call, count) / count)
                    _single_calls(runner.call, single // 10)
                    times[engine] += _single_calls(runner.call, single)
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


def _seconds(call: Callable[[], object], count: int) -> float:
    began = time.perf_counter()
    for _ in repeat(None, count):
        call()
    return time.perf_counter() - began


def _single_calls(call: Callable[[], object], count: int) -> list[int]:
    """Nanoseconds of each of some calls."""
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
