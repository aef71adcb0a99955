"""Results as text."""

from collections.abc import Collection, Mapping
from textwrap import fill
from typing import Any

from fastrnn.benchmark.engines import PINNED
from fastrnn.errors import join
from fastrnn.terminal import WIDTH

Times = Mapping[str, Mapping[str, Any]]


def best_peer(times: Times, among: Collection[str] | None = None) -> tuple[str, float] | None:
    """The fastest of the other engines and its microseconds. None if none was timed."""
    peers = {
        name: float(record["microseconds"])
        for name, record in times.items()
        if name != "fastrnn" and "microseconds" in record and (among is None or name in among)
    }
    return min(peers.items(), key=lambda peer: peer[1]) if peers else None


def ratio_to_best(times: Times, among: Collection[str] | None = None) -> float | None:
    """The best peer's time over ours. None if no peer was timed."""
    best = best_peer(times, among)
    return None if best is None else best[1] / float(times["fastrnn"]["microseconds"])


def duration(microseconds: float) -> str:
    """A time with three digits: 4.12 us, 65.0 us, 1.23 ms, 1.20 s."""
    for unit in ("us", "ms", "s"):
        if microseconds < 999.5 or unit == "s":
            break
        microseconds /= 1000
    digits = 2 if microseconds < 9.995 else 1 if microseconds < 99.95 else 0
    return f"{microseconds:.{digits}f} {unit}"


def time_cell(record: Mapping[str, Any] | None, name: str = "microseconds") -> str:
    """One time of an engine, by its name in the record. "-" if there is none."""
    return "-" if record is None or name not in record else duration(record[name])


def headline(result: Mapping[str, Any]) -> str:
    """The model, the processor, and the versions of the engines."""
    machine = f"{result['processor']}; one thread each; {versions(result)}"
    return f"{result['model']}\n{fill(machine, WIDTH)}"


def versions(result: Mapping[str, Any]) -> str:
    """The engines of a result with their versions."""
    return ", ".join(f"{name} {version}" for name, version in result["engines"].items())


def missing_notes(result: Mapping[str, Any]) -> list[str]:
    """Two lines for each engine that is not installed: what it lacks, and how to install that."""
    notes = []
    for engine, packages in result["not_installed"].items():
        wanted = " ".join(PINNED.get(package, package) for package in packages)
        are = "is" if len(packages) == 1 else "are"
        notes += [f"{engine}: {join(packages)} {are} not installed", f"    pip install {wanted}"]
    return notes


def left_out_notes(named: Mapping[str, Times]) -> list[str]:
    """A line for each engine and each reason why it was not timed, with the cases in parentheses."""
    places: dict[tuple[str, str], list[str]] = {}
    for name, times in named.items():
        for engine, record in times.items():
            if "left_out" in record:
                places.setdefault((engine, record["left_out"]), []).append(name)
    return [f"{engine}: {reason} ({'; '.join(names)})" for (engine, reason), names in places.items()]
