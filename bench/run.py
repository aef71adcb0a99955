"""A whole run: the machine's limits, every case, cold start and size; and how the result is judged."""

import contextlib
import math
import subprocess
import sys
import time

from bench.cases import (
    GEOMETRIC_MEAN,
    MINIMUM,
    ONNX,
    OWN,
    PEERS,
    POOL_ORDER,
    POOL_RATIOS,
    POOL_STREAMS,
    RTNEURAL,
    RTNEURAL_GFLOPS,
    RTNEURAL_MICROSECONDS,
    SCALING,
    SCALING_WHILE_BUSY,
    SEQUENCE_MEAN,
    TORCH,
)
from bench.narrow import IN_FLOAT32, NarrowCase
from bench.pools import BESIDE_POOLS, SHUFFLED
from bench.probe import NoCompiler, probe
from bench.startup import cold_starts, installed_sizes
from fastrnn.benchmark import engines
from fastrnn.benchmark.measure import ROUND_SECONDS, ROUNDS, machine, measure
from fastrnn.benchmark.narrow_engines import peers_at
from fastrnn.benchmark.table import best_peer

RESULT_VERSION = 4


def run(
    cases,
    rounds=ROUNDS,
    round_seconds=ROUND_SECONDS,
    threads=1,
    is_busy=False,
    starts=0,
    report=lambda done, total: None,
):
    """Measure cases. The result can be written as JSON.

    With more than one thread, this library on one thread is measured too. With `is_busy`, another process
    keeps a core busy meanwhile. With `starts`, that many cold starts are timed, and installed sizes are
    added.

    The machine's limits are measured before the cases and after them, and the higher figure counts.
    """
    result = {
        "version": RESULT_VERSION,
        "date": time.strftime("%Y-%m-%d"),
        **machine(),
        "threads": threads,
        "busy": is_busy,
        "limits": None,
        "cases": [],
    }
    limits = _limits(result) if cases and not is_busy else None
    with _busy_core() if is_busy else contextlib.nullcontext():
        for index, case in enumerate(cases):
            times = measure(case.work(threads), _beside(case, threads), rounds, round_seconds)
            result["cases"].append({**case.as_dict(), "engines": times})
            report(index + 1, len(cases))
    if limits is not None:
        limits = limits.best(probe())
        result["limits"] = limits.as_dict()
    if starts:
        result["cold_start"] = cold_starts(starts)
        result["installed"] = installed_sizes()
    for case, entry in zip(cases, result["cases"], strict=True):
        _judge(case, entry, limits, threads)
        if threads > 1:
            _judge_threads(entry, is_busy)
        if case.mode == "pool" and not isinstance(case, NarrowCase):
            _judge_pool(entry, result["cases"])
    result["summary"] = summarise(result["cases"], threads)
    return result


def _beside(case, threads):
    """The engines that a case is measured beside."""
    one_thread = [engines.ONE_THREAD] if threads > 1 else []
    if isinstance(case, NarrowCase):
        return [*one_thread, IN_FLOAT32, *peers_at(case.precision)]
    return [*one_thread, *engines.PEERS, *(BESIDE_POOLS if case.mode == "pool" else [])]


@contextlib.contextmanager
def _busy_core():
    """Keep the last core busy with another process."""
    script = "import os; os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})\nwhile True: pass"
    process = subprocess.Popen([sys.executable, "-c", script])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _limits(result):
    """The machine's limits. None without a compiler, and then the result says why."""
    try:
        return probe()
    except NoCompiler as error:
        result["no_limits"] = str(error)
        return None


def _judge(case, entry, limits, threads):
    """Add to the entry of a case its ratio, its share of the machine's limit, and the ratio at the limit."""
    times = entry["engines"]
    ours = times["fastrnn"]["microseconds"]
    if case.against == RTNEURAL and limits is not None:
        per_sample = RTNEURAL_MICROSECONDS[case.hidden_size]
        times[RTNEURAL] = {
            "recorded": case.T * per_sample * RTNEURAL_GFLOPS / limits.gflops["float32"],
        }
    best = best_peer(times, {peer.name for peer in engines.PEERS})
    entry["peer_ratio"] = None if best is None else best[1] / ours
    entry["ratio"] = entry["peer_ratio"]
    if case.against in (TORCH, ONNX, OWN):
        entry["ratio"] = times.get(case.against, {}).get("microseconds", math.nan) / ours
        entry["ratio"] = None if math.isnan(entry["ratio"]) else entry["ratio"]
    if case.against == RTNEURAL:
        entry["ratio"] = times[RTNEURAL]["recorded"] / ours if RTNEURAL in times else None
    entry["flops"], entry["bytes"] = case.flops(), case.bytes()
    entry["gflops"] = case.flops() / ours / 1e3
    entry["limit"] = None
    if limits is not None:
        kind, wanted, microseconds = case.limit(limits, threads)
        share = microseconds / ours
        most = None if entry["ratio"] is None else entry["ratio"] / share
        entry["limit"] = {"kind": kind, "wanted": wanted, "share": share, "ratio": most}
        entry["target"] = case.wanted(most)


def _judge_threads(entry, is_busy):
    """Add how many times faster a case is than on one thread. No other target of the case counts then."""
    times = entry["engines"]
    entry["target"] = MINIMUM
    entry["scaling"] = times[engines.ONE_THREAD.name]["microseconds"] / times["fastrnn"]["microseconds"]
    entry["scaling_wanted"] = SCALING_WHILE_BUSY if is_busy else SCALING.get(entry["name"])


def _judge_pool(entry, entries):
    """Add the times of the same streams in other ways, over a step of the pool; and the missed targets."""
    times = {name: record.get("microseconds") for name, record in entry["engines"].items()}
    steps = [e for e in entries if e["name"] == entry["name"].partition(",")[0] + ", step"]
    if steps:
        times["a lone stream"] = entry["B"] * steps[0]["engines"]["fastrnn"]["microseconds"]
    ours = times.pop("fastrnn")
    entry["pool"] = {name: time / ours for name, time in times.items() if time}
    entry["pool_missed"] = []
    if entry["B"] == POOL_STREAMS:
        entry["pool_missed"] = [
            name for name, wanted in POOL_RATIOS.items() if entry["pool"].get(name, math.inf) < wanted
        ]
        if entry["pool"].get(SHUFFLED.name, math.inf) > POOL_ORDER:
            entry["pool_missed"].append(SHUFFLED.name)


def geometric_mean(ratios):
    """The geometric mean of numbers. None of none."""
    return math.exp(sum(map(math.log, ratios)) / len(ratios)) if ratios else None


def _means(name, wanted, entries):
    """The geometric mean of the ratios, and of the ratios at the machine's limits."""
    return {
        name: geometric_mean([entry["ratio"] for entry in entries]),
        f"{name}_of": len(entries),
        f"{name}_wanted": wanted,
        f"{name}_at_limit": geometric_mean([e["limit"]["ratio"] for e in entries if e["limit"]]),
    }


def summarise(entries, threads):
    """The figures over all cases, and the names of the cases that miss their targets."""
    compared = [entry for entry in entries if entry["against"] == PEERS and entry["ratio"]]
    sequences = [entry for entry in compared if entry["mode"] == "sequence" and threads > 1]
    everywhere = {entry["name"]: entry["peer_ratio"] for entry in entries if entry["peer_ratio"]}
    lowest = min(everywhere, key=everywhere.get, default=None)
    missed = [entry for entry in entries if entry["ratio"] and entry["ratio"] < entry["target"]]
    return {
        **_means("geometric_mean", GEOMETRIC_MEAN, compared),
        **_means("sequence_mean", SEQUENCE_MEAN, sequences),
        "minimum": everywhere.get(lowest),
        "minimum_case": lowest,
        "minimum_wanted": MINIMUM,
        "missed_scaling": [
            e["name"] for e in entries if e.get("scaling_wanted") and e["scaling"] < e["scaling_wanted"]
        ],
        "missed_pool": [f"{e['name']}: {name}" for e in entries for name in e.get("pool_missed", [])],
        "missed": [e["name"] for e in missed],
        "missed_within_limit": [e["name"] for e in missed if e["limit"]["ratio"] >= e["target"]]
        if all(e["limit"] for e in missed)
        else None,
        "below_minimum": [name for name, ratio in everywhere.items() if ratio < MINIMUM],
        "below_limit": [
            e["name"] for e in entries if e["limit"] and e["limit"]["share"] < (e["limit"]["wanted"] or 0)
        ],
    }
