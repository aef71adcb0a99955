"""What was measured, as people read it."""

from collections.abc import Collection, Mapping
from textwrap import fill
from typing import Any

from fastrnn.benchmark.engines import PINNED
from fastrnn.errors import join
from fastrnn.terminal import WIDTH

Times = Mapping[str, Mapping[str, Any]]


def best_peer(times: Times, among: Collection[str] | None = None) -> tuple[str, float] | None:
    """The fastest engine beside ours that has a time, and its microseconds; None where there is none."""
    peers = {
        name: float(record["microseconds"])
        for name, record in times.items()
        if name != "fastrnn" and "microseconds" in record and (among is None or name in among)
    }
    return min(peers.items(), key=lambda peer: peer[1]) if peers else None


def ratio_to_best(times: Times, among: Collection[str] | None = None) -> float | None:
    """The best peer's time over ours; None where no peer has one."""
    best = best_peer(times, among)
    return None if best is None else best[1] / float(times["fastrnn"]["microseconds"])


def duration(microseconds: float) -> str:
    """A time in three digits: 4.12 us, 65.0 us, 1.23 ms, 1.20 s."""
    for unit in ("us", "ms", "s"):
        if microseconds < 999.5 or unit == "s":
            break
        microseconds /= 1000
    digits = 2 if microseconds < 9.995 else 1 if microseconds < 99.95 else 0
    return f"{microseconds:.{digits}f} {unit}"


def time_cell(record: Mapping[str, Any] | None, name: str = "microseconds") -> str:
    """A time of one engine, by its name in the record; "-" where it has none."""
    return "-" if record is None or name not in record else duration(record[name])


def headline(result: Mapping[str, Any]) -> str:
    """Which model, on which processor, in which versions of the engines."""
    versions = ", ".join(f"{name} {version}" for name, version in result["engines"].items())
    machine = f"{result['processor']}; one thread each; {versions}"
    return f"{result['model']}\n{fill(machine, WIDTH)}"


def missing_notes(result: Mapping[str, Any]) -> list[str]:
    """Of each engine that is not installed two lines: the packages that it misses, and how they come."""
    notes = []
    for engine, packages in result["not_installed"].items():
        wanted = " ".join(PINNED.get(package, package) for package in packages)
        are = "is" if len(packages) == 1 else "are"
        notes += [f"{engine}: {join(packages)} {are} not installed", f"    pip install {wanted}"]
    return notes


def left_out_notes(named: Mapping[str, Times]) -> list[str]:
    """A line for each engine and reason that it has no time: where, and why."""
    places: dict[tuple[str, str], list[str]] = {}
    for name, times in named.items():
        for engine, record in times.items():
            if "left_out" in record:
                places.setdefault((engine, record["left_out"]), []).append(name)
    return [f"{engine}: {reason} ({'; '.join(names)})" for (engine, reason), names in places.items()]
