"""``python -m bench builds``: two builds in turns. Those made up here have a clock of their own."""

import json
from pathlib import Path

import pytest

import fastrnn
from bench import builds
from bench.__main__ import main
from bench.cases import Case

STUB = """
import time
import numpy as np

__version__ = "1"
clock = 0.0
made = {}
time.perf_counter = lambda: clock

def milliseconds(self):
    return 1.0

class Layer:
    added = 0.0

    @classmethod
    def from_state_dict(cls, tensors, precision, threads):
        layer = cls()
        layer.size = tensors["weight_hh_l0"].shape[1]
        made[cls] = made.get(cls, 0) + 1
        return layer

    def __call__(self, x, lengths=None, out=None):
        global clock
        clock += milliseconds(self) / 1e3
        out = np.empty((*x.shape[:-1], self.size), np.float32) if out is None else out
        out[...] = 1 + self.added
        return out, None

    def stream(self, B):
        return self

    pool = stream

    def open(self):
        return 0

    def reset(self):
        pass

    def run(self, x, out=None):
        return self(x, out=out)[0]

    def step(self, *arguments):
        x, *out = arguments[-2:] if len(arguments) > 1 else arguments
        return self.run(x, *out)

class RNN(Layer): pass
class GRU(Layer): pass
class LSTM(Layer): pass

def Sequential(layer):
    return layer
"""


def stub(tmp_path, name, change="", place="."):
    """A folder with a `fastrnn` whose calls take a millisecond by a clock of its own, except for a change."""
    package = tmp_path / name / place / "fastrnn"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(STUB + change)
    return str(tmp_path / name)


CASES = [
    Case("RNN", 3, 4, mode="step"),
    Case("RNN", 3, 4, T=5),
    Case("GRU", 3, 4, T=5, B=2),
    Case("LSTM", 3, 4, T=5, B=2, mode="block"),
    Case("LSTM", 3, 4, B=2, mode="pool"),
]


@pytest.fixture
def small_grid(monkeypatch):
    monkeypatch.setattr("bench.cases.GRID_OF_BUILDS", CASES)


@pytest.mark.parametrize("place", (".", "src"))
def test_builds_name_the_cases_that_became_slower(tmp_path, capsys, small_grid, place):
    before = stub(tmp_path, "before", place=place)
    slower = "def milliseconds(self): return 1.03 if isinstance(self, GRU) else 1.01"
    after = stub(tmp_path, "after", slower)
    path = tmp_path / "r.json"
    assert main(["builds", before, after, "--rounds", "3", "-o", str(path)]) == 1
    result = json.loads(path.read_text())
    assert Path(result["before"]["file"]) == tmp_path / "before" / place / "fastrnn" / "__init__.py"
    assert [entry["name"] for entry in result["cases"]] == [case.name for case in CASES]
    for entry in result["cases"]:
        ratio, rounds = (1.03, 6) if entry["name"].startswith("GRU") else (1.01, 3)
        assert entry["rounds"] == rounds and ("first_ratio" in entry) is (rounds == 6)
        assert [entry["ratio"], *entry["quartiles"]] == pytest.approx([ratio] * 3)
        assert (entry["before"], entry["after"]) == pytest.approx((1000, 1000 * ratio))
    assert result["slower"] == ["GRU 3->4, 5x2"]
    lines = capsys.readouterr().out.splitlines()
    assert "LSTM 3->4, chunk of 5x2  1.00 ms  1.01 ms  1.010           1.010 to 1.010" in lines
    assert lines[-2:] == [
        "slower: GRU 3->4, 5x2: 1.030 times the time, 1.030 at first",
        "1 of 5 cases slower by more than 2 %; 1 were measured again",
    ]
    assert main(["builds", after, before, "--rounds", "1"]) == 0
    assert main(["builds", before, after, "--rounds", "1", "--only", "RNN"]) == 0
    assert capsys.readouterr().out.endswith("0 of 2 cases slower by more than 2 %; 0 were measured again\n")


def test_builds_name_no_case_that_was_slower_once(tmp_path, capsys, small_grid):
    """Until the layer is made anew."""
    before = stub(tmp_path, "before")
    after = stub(tmp_path, "after", "def milliseconds(self): return 1 + (made[type(self)] == 1)")
    path = tmp_path / "r.json"
    command = ["builds", before, after, "--only", "GRU", "--rounds", "1", "-o", str(path)]
    assert main(command) == 0
    (entry,) = json.loads(path.read_text())["cases"]
    assert (entry["first_ratio"], entry["ratio"]) == pytest.approx((2, 1)) and entry["rounds"] == 2
    assert capsys.readouterr().out.endswith("0 of 1 cases slower by more than 2 %; 1 were measured again\n")


def test_builds_are_compared_round_by_round(tmp_path, small_grid):
    """A machine that slows down for both changes no ratio, and each build is first in every other round."""
    folder = stub(tmp_path, "one")
    order = []

    class Drifting(builds.Build):
        def seconds(self, count, warm_up=0):
            order.append(self.name)
            return super().seconds(count, warm_up) * (1 + (len(order) - 1) // 2)

    with Drifting("before", folder) as before, Drifting("after", folder) as after:
        builds._prepare((before, after), CASES[0].work())
        found = builds._take_turns((before, after), 1, 5, 4, 0.01)
    assert order == ["before", "after", "after", "before"] * 2
    assert [found["ratio"], *found["quartiles"]] == pytest.approx([1] * 3)
    assert (found["before"], found["after"]) == pytest.approx((2500, 2500))


@pytest.mark.parametrize(
    "change, words",
    (
        ("GRU.added = 0.5", "outputs that are 0.5 apart"),
        ("GRU.added = np.nan", "outputs that are nan apart"),
        ("del GRU", "after: AttributeError: module 'fastrnn' has no attribute 'GRU'"),
        ("def milliseconds(self): raise ValueError('no')", "after: ValueError: no"),
    ),
)
def test_what_a_build_cannot_do_is_told(tmp_path, capsys, small_grid, change, words):
    command = ["builds", stub(tmp_path, "before"), stub(tmp_path, "after", change), "--only", "GRU"]
    assert main([*command, "--rounds", "1"]) == 1
    out = capsys.readouterr().out
    assert f"not compared: GRU 3->4, 5x2: {words}\n" in out
    assert out.endswith("0 of 0 cases slower by more than 2 %; 0 were measured again\n")


@pytest.mark.parametrize(
    "change, words",
    (
        (
            "import nothing_of_this_name",
            "after: expected a fastrnn in {} that can be imported, got ModuleNotFound",
        ),
        (
            "__file__ = '/elsewhere/fastrnn/__init__.py'",
            "after: expected the fastrnn in {}, got /elsewhere/fast",
        ),
        (
            "import os; milliseconds = lambda self: os._exit(3)",
            "after: expected an answer of its process, got exit",
        ),
    ),
)
def test_builds_that_do_not_run_are_named(tmp_path, capsys, small_grid, change, words):
    before, after = stub(tmp_path, "before"), stub(tmp_path, "after", change)
    assert main(["builds", before, after]) == 2
    assert words.format(after) in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main(["builds", str(tmp_path / "empty"), after]) == 2
    assert "before: expected a folder that holds fastrnn" in capsys.readouterr().err


def test_this_build_is_timed_in_every_mode():
    """Beside itself: whole sequences, ragged ones, steps, chunks and pools."""
    folder = Path(fastrnn.__file__).parents[1]
    cases = [*CASES, Case("GRU", 3, 4, T=5, B=3, is_ragged=True), Case("RNN", 3, 4, B=3, mode="step")]
    cases.append(Case("LSTM", 3, 4, T=5, precision="float64", proj_size=2))
    told = []
    with builds.Build("before", folder) as before, builds.Build("after", folder) as after:
        result = builds.compare_builds(
            before, after, cases, 1, 1e-4, report=lambda *counts: told.append(counts)
        )
    assert told == [(count, len(cases)) for count in range(1, len(cases) + 1)]
    assert result["before"] == {"file": fastrnn.__file__, "version": fastrnn.__version__} == result["after"]
    assert [entry.get("left_out") for entry in result["cases"]] == [None] * len(cases)
