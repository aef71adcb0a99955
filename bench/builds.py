"""Two builds of fastrnn, timed in turns in one run: which cases became slower.

Times of separate runs cannot be compared: machines drift by more than most changes matter. Here each build
has a process of its own that stays alive. The two take turns, a round each, and never run at the same time.
What counts is the ratio of their times in one round.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from fastrnn.benchmark.measure import (
    COMPARED,
    ROUND_SECONDS,
    ROUNDS,
    compare_outputs,
    machine,
    rounds_in_time,
    seconds_of_one,
    settle,
)
from fastrnn.benchmark.table import duration
from fastrnn.errors import message
from fastrnn.terminal import print_table

WORKER = Path(__file__).with_name("builds_worker.py")
# A median ratio above this is slower. It is measured again before it is believed.
LIMIT = 1.02


class CannotRun(Exception):
    """A build does not do a case; the text says why."""


class Build:
    """A build of fastrnn in a process of its own, which waits between requests. A context manager.

    Parameters
    ----------
    name : str
        What tables and messages call it.
    folder : str
        Where its ``fastrnn`` lies: in this folder, or in ``src`` there.

    Attributes
    ----------
    about : dict
        ``file`` and ``version`` of the package.

    Raises
    ------
    ValueError
        The folder holds no fastrnn.
    RuntimeError
        The package cannot be imported, or Python finds another one first.
    """

    def __init__(self, name, folder):
        self.name = name
        place = _place_of(name, folder)
        paths = [str(place), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = subprocess.Popen(
            [sys.executable, str(WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )
        try:
            self.about = self._read()
            if "error" in self.about:
                hint = f"Build it in {folder} first."
                got = self.about["error"]
                raise RuntimeError(message(name, f"a fastrnn in {place} that can be imported", got, hint))
            if not Path(self.about["file"]).resolve().is_relative_to(place.resolve()):
                raise RuntimeError(message(name, f"the fastrnn in {place}", self.about["file"]))
        except BaseException:
            self.close()
            raise

    def prepare(self, case, outputs):
        """Make a case ready; its first outputs go to a file.

        Parameters
        ----------
        case : dict
            What `builds_worker.prepare` takes.
        outputs : str
            Where the first outputs go (.npy).

        Raises
        ------
        CannotRun
        """
        answer = self._ask({"case": case, "compared": COMPARED, "outputs": outputs})
        if "error" in answer:
            raise CannotRun(f"{self.name}: {answer['error']}")

    def seconds(self, count, warm_up=0):
        """The seconds of `count` units of the case that was prepared, after some that are not timed."""
        return self._ask({"count": count, "warm_up": warm_up})["seconds"]

    def close(self):
        """End the process."""
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _ask(self, request):
        with contextlib.suppress(BrokenPipeError):  # then there is no answer either
            self._process.stdin.write(f"{json.dumps(request)}\n")
            self._process.stdin.flush()
        return self._read()

    def _read(self):
        line = self._process.stdout.readline()
        if not line:
            status = self._process.wait()
            raise RuntimeError(message(self.name, "an answer of its process", f"exit status {status}"))
        return json.loads(line)


def _place_of(name, folder):
    """The folder from which fastrnn is imported."""
    for place in (Path(folder), Path(folder, "src")):
        if (place / "fastrnn" / "__init__.py").is_file():
            return place
    expected = f"a folder that holds fastrnn{os.sep} or src{os.sep}fastrnn{os.sep}"
    raise ValueError(message(name, expected, str(folder)))


def compare_builds(
    before,
    after,
    cases,
    rounds=ROUNDS,
    round_seconds=ROUND_SECONDS,
    threads=1,
    report=lambda done, total: None,
):
    """Time cases on two builds; the result as JSON keeps it.

    A case whose median ratio is above LIMIT is made anew and measured again, with twice as many rounds. The
    second measurement counts: it has other memory, which may have been the reason.

    Parameters
    ----------
    before, after : Build
    cases : sequence of Case

    Returns
    -------
    dict
        processor, date, threads; before and after: what each build says about itself. cases, for each its
        name and either ``left_out``, why it was not timed; or before and after in microseconds, rounds,
        ``ratio``, the median over the rounds of after / before, its ``quartiles``, and for a case that was
        measured again ``first_ratio``. slower: the names of those that stayed above LIMIT.
    """
    builds = (before, after)
    entries = []
    for index, case in enumerate(cases):
        work = case.work(threads)
        try:
            entry = _measure(builds, work, rounds, round_seconds)
            if entry["ratio"] > LIMIT:
                again = _measure(builds, work, rounds, round_seconds, times_as_many=2)
                entry = {**again, "first_ratio": entry["ratio"]}
        except CannotRun as error:
            entry = {"left_out": str(error)}
        entries.append({"name": case.name, **entry})
        report(index + 1, len(cases))
    return {
        "processor": machine()["processor"],
        "date": time.strftime("%Y-%m-%d"),
        "threads": threads,
        "before": before.about,
        "after": after.about,
        "cases": entries,
        "slower": [entry["name"] for entry in entries if entry.get("ratio", 0) > LIMIT],
    }


def _measure(builds, work, rounds, round_seconds, times_as_many=1):
    """Make a work ready in both builds, compare what they give, and time it."""
    _prepare(builds, work)
    ones = [seconds_of_one(build.seconds, round_seconds / 4) for build in builds]
    count = max(1, round(round_seconds / max(ones)))
    rounds = times_as_many * rounds_in_time(rounds, count * sum(ones))
    return _take_turns(builds, work.threads, count, rounds, round_seconds)


def _prepare(builds, work):
    """Make a work ready in both builds; CannotRun where one cannot do it, or their outputs differ."""
    with tempfile.TemporaryDirectory() as folder:
        case = _write_case(work, os.path.join(folder, "case.npz"))
        first_outputs = []
        for build in builds:
            path = os.path.join(folder, f"{build.name}.npy")
            build.prepare(case, path)
            first_outputs.append(np.load(path))
    check = compare_outputs(*reversed(first_outputs), work.dtype.name)
    if "left_out" in check:
        apart = check.get("difference")
        raise CannotRun("outputs of other sizes" if apart is None else f"outputs that are {apart:.1g} apart")


def _write_case(work, path):
    """What a worker is given of a work, its arrays in a file."""
    spec = work.specs[0]
    arrays = {f"layer.{name}": array for name, array in spec.tensors.items()}
    if work.lengths is not None:
        arrays["lengths"] = np.array(work.lengths)
    np.savez(path, x=work.x(), **arrays)
    options = {**spec.options, "threads": work.threads}
    return {"file": path, "kind": spec.kind, "mode": work.mode, "options": options}


def _take_turns(builds, threads, count, rounds, round_seconds):
    """The times of both builds and their ratio, over rounds in which the two take turns at being first."""
    times = {build: [] for build in builds}
    for turn in range(rounds):
        for build in builds[:: -1 if turn % 2 else 1]:
            warm_up = settle(threads, count, round_seconds)
            times[build].append(build.seconds(count, warm_up) / count)
    before, after = (np.array(times[build]) for build in builds)
    low, ratio, high = (float(q) for q in np.quantile(after / before, (0.25, 0.5, 0.75)))
    return {
        "before": float(np.median(before) * 1e6),
        "after": float(np.median(after) * 1e6),
        "rounds": rounds,
        "ratio": ratio,
        "quartiles": [low, high],
    }


def is_clean(result):
    """Whether no case is slower and none was left out."""
    return not result["slower"] and all("ratio" in entry for entry in result["cases"])


def print_builds(result):
    """Print what `compare_builds` gave: a table of the ratios, and what is slower."""
    threads = result["threads"]
    print(f"{result['processor']}, {threads} thread{'s' if threads > 1 else ''}")
    for name in ("before", "after"):
        print(f"{name}: fastrnn {result[name]['version']}, {result[name]['file']}")
    timed = [entry for entry in result["cases"] if "ratio" in entry]
    if timed:
        print()
        print_table(
            ("case", "before", "after", "after / before", "quartiles"),
            [
                (
                    entry["name"],
                    duration(entry["before"]),
                    duration(entry["after"]),
                    f"{entry['ratio']:.3f}",
                    "{:.3f} to {:.3f}".format(*entry["quartiles"]),
                )
                for entry in timed
            ],
            width=None,
        )
    print()
    for entry in result["cases"]:
        if "left_out" in entry:
            print(f"not compared: {entry['name']}: {entry['left_out']}")
    slower = [entry for entry in timed if entry["name"] in result["slower"]]
    for entry in slower:
        times = f"{entry['ratio']:.3f} times the time, {entry['first_ratio']:.3f} at first"
        print(f"slower: {entry['name']}: {times}")
    again = sum("first_ratio" in entry for entry in timed)
    share = f"{100 * (LIMIT - 1):.0f} %"
    print(f"{len(slower)} of {len(timed)} cases slower by more than {share}; {again} were measured again")
