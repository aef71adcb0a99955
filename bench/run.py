"""Measure: check the outputs first, then take turns."""

import platform
import time

import numpy as np

from bench.engines import ENGINES, is_installed
from fastrnn.backends import config

ROUNDS = 21
ROUND_SECONDS = 0.01
# How far two engines may differ: float32 sums in different orders.
AGREEMENT = {"float32": 1e-4, "float64": 1e-10}


def machine():
    """What a figure means nothing without."""
    model = platform.processor()
    try:
        with open("/proc/cpuinfo") as file:
            model = next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return {
        "processor": model,
        "config": config(),
        "engines": {engine.name: engine.version() for engine in ENGINES if is_installed(engine)},
        "not_installed": [engine.name for engine in ENGINES if not is_installed(engine)],
    }


def measure(case, rounds=ROUNDS):
    """Median and 99th percentile in microseconds of one unit of the case's work, by engine.

    Every engine's first outputs are compared with ours; one that differs has no time. Then the
    engines take turns, a round each, so that a slow moment of the machine hits all of them.
    """
    built = {engine.name: engine.build(case) for engine in ENGINES if is_installed(engine)}
    built = {name: pair for name, pair in built.items() if pair is not None}
    results = {name: {} for name in built}
    outputs = {name: _first_outputs(*pair) for name, pair in built.items()}
    calls = {"fastrnn": built["fastrnn"][0]}
    for name, (call, _) in built.items():
        difference = float(np.abs(outputs[name] - outputs["fastrnn"]).max())
        results[name]["largest_difference"] = difference
        if difference <= AGREEMENT[case.precision]:
            calls[name] = call
    times = {name: [] for name in calls}
    counts = {name: _calls_in_a_round(call) for name, call in calls.items()}
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(_seconds(call, counts[name]) / counts[name])
    for name, seconds in times.items():
        results[name]["median"] = float(np.median(seconds) * 1e6)
        results[name]["p99"] = float(np.quantile(seconds, 0.99) * 1e6)
    return results


def _first_outputs(call, output):
    """The outputs of the first two units of work, one behind the other."""
    outputs = []
    for _ in range(2):
        call()
        outputs.append(np.array(output()))
    return np.stack(outputs)


def _seconds(call, count):
    began = time.perf_counter()
    for _ in range(count):
        call()
    return time.perf_counter() - began


def _calls_in_a_round(call):
    count = 1
    while (seconds := _seconds(call, count)) < ROUND_SECONDS / 4:
        count *= 2
    return max(1, round(count * ROUND_SECONDS / seconds))
