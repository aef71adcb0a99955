"""``fastrnn run`` after an interruption, and over several inputs."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import random_layer

import fastrnn
from fastrnn.cli.running import file_to_file, pieces
from fastrnn.cli.running.draft import Draft
from fastrnn.cli.running.journal import Journal, read_journal, stamp, write_journal

MODELS = {
    "steps": lambda rng: [random_layer(rng, "LSTM", 2, 5, precision="float32", num_layers=2)],
    "steps, rows first": lambda rng: [random_layer(rng, "GRU", 2, 3, precision="float32", batch_first=True)],
    "last step": lambda rng: [random_layer(rng, "GRU", 2, 3, precision="float32"), fastrnn.Last()],
    "rows": lambda rng: [random_layer(rng, "GRU", 2, 3, precision="float32", bidirectional=True)],
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def small(monkeypatch):
    """A piece is one step or one row, and a journal follows each."""
    for name in ("PIECE_NUMBERS", "PIECE_MULTIPLY_ADDS", "PIECE_ROWS"):
        monkeypatch.setattr(pieces, name, 1)
    monkeypatch.setattr(file_to_file, "JOURNAL_SECONDS", 0)
    monkeypatch.setattr(file_to_file, "JOURNAL_SHARE", 0)


@pytest.fixture
def task(rng, here, small):
    """A model and an input of 9 steps, and the output that is wanted."""
    model = fastrnn.Sequential(random_layer(rng, "LSTM", 2, 5, precision="float32"))
    model.save("m.safetensors")
    x = rng.standard_normal((9, 2)).astype(np.float32)
    np.save("x.npy", x)
    return model(x)[0]


COMMAND = ("run", "m.safetensors", "x.npy", "-o", "y.npy")


def interrupted(monkeypatch, run, command, after, error=KeyboardInterrupt):
    """Run a command, and raise an error once this many patches have been written."""
    left = [after]
    write = Draft.write

    def count(self, patch):
        if not left[0]:
            raise error
        left[0] -= 1
        write(self, patch)

    with monkeypatch.context() as context:
        context.setattr(Draft, "write", count)
        return run(*command)


def drafts(folder="."):
    return sorted(Path(folder).glob(".fastrnn-*"))


@pytest.mark.parametrize("ending", ("npy", "npz", "parquet"))
@pytest.mark.parametrize("is_batched", (False, True))
@pytest.mark.parametrize("kind", MODELS)
def test_a_run_goes_on_wherever_it_was_interrupted(
    run, rng, here, small, monkeypatch, kind, is_batched, ending
):
    """Whether once or again and again, and the files are bit for bit those of a run that nothing stopped."""
    if ending == "parquet":
        pytest.importorskip("pyarrow")
        if is_batched and kind != "last step":
            pytest.skip("no table of 3 axes")
    fastrnn.Sequential(*MODELS[kind](rng)).save("m.safetensors")
    np.save("x.npy", rng.standard_normal((6, 4, 2) if is_batched else (6, 2)).astype(np.float32))
    command = ("run", "m.safetensors", "x.npy", "-o", f"y.{ending}", "--state", "s.npz")
    assert run(*command)[0] == 0
    wanted = Path(f"y.{ending}").read_bytes(), Path("s.npz").read_bytes()
    for after in (2, 3, 5):
        os.unlink(f"y.{ending}")
        os.unlink("s.npz")
        statuses = []
        while len(statuses) < 30:
            statuses.append(interrupted(monkeypatch, run, command, after)[0])
            if not statuses[-1]:
                break
            assert not os.path.exists(f"y.{ending}")
        assert statuses[-1] == 0 and set(statuses[:-1]) <= {130}
        assert (Path(f"y.{ending}").read_bytes(), Path("s.npz").read_bytes()) == wanted
        assert not drafts()


def test_an_interrupt_says_how_far_it_came_and_the_next_run_where_it_goes_on(run, task, monkeypatch):
    status, out, err = interrupted(monkeypatch, run, COMMAND, 4)
    assert (status, out) == (130, "")
    assert err == (
        "y.npy: 4 of 9 steps are done. Run the same command again to continue.\nfastrnn run: interrupted\n"
    )
    status, out, err = run(*COMMAND)
    assert (status, err) == (0, "y.npy: continues at step 4 of 9.\n") and out.startswith("y.npy: (9, 5), ")
    assert np.array_equal(np.load("y.npy"), task) and not drafts()
    assert run(*COMMAND)[2] == ""  # and is then made anew


@pytest.mark.parametrize("error", (SystemExit(143), OSError(28, "No space left on device"), MemoryError()))
def test_what_is_done_outlives_whatever_stops_a_run(run, task, monkeypatch, error):
    if isinstance(error, SystemExit):
        with pytest.raises(SystemExit):
            interrupted(monkeypatch, run, COMMAND, 4, error)
    else:
        assert interrupted(monkeypatch, run, COMMAND, 4, error)[0] == 2
    assert run(*COMMAND)[2].endswith("y.npy: continues at step 4 of 9.\n")
    assert np.array_equal(np.load("y.npy"), task)


@pytest.mark.parametrize("ending", ("npy", "npz"))
def test_what_is_done_outlives_a_failure_at_its_very_end(run, task, monkeypatch, ending):
    command = (*COMMAND[:-1], f"y.{ending}")

    def fail(made, path):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("fastrnn.cli.running.results.put_in_place", fail)
        assert run(*command)[0] == 2 and not os.path.exists(f"y.{ending}")
    assert run(*command)[2] == f"y.{ending}: continues at step 9 of 9.\n"
    found = np.load(f"y.{ending}")
    assert np.array_equal(found if ending == "npy" else found["y"], task) and not drafts()


def test_what_is_wrong_leaves_nothing(run, task, monkeypatch):
    assert interrupted(monkeypatch, run, COMMAND, 4, ValueError("wrong"))[0] == 2
    assert not drafts()


def test_an_interrupt_before_anything_is_done_leaves_nothing(run, task, monkeypatch):
    before = sorted(os.listdir())
    assert interrupted(monkeypatch, run, COMMAND, 0)[0] == 130
    assert sorted(os.listdir()) == before


KILLED = """
import os, signal, sys
from fastrnn.cli import main
from fastrnn.cli.running import file_to_file, pieces
pieces.PIECE_NUMBERS = pieces.PIECE_MULTIPLY_ADDS = pieces.PIECE_ROWS = 1
file_to_file.JOURNAL_SECONDS = file_to_file.JOURNAL_SHARE = 0
left = [int(sys.argv[1])]
def count(self, *arguments):
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    left[0] -= 1
    return write(self, *arguments)
write = file_to_file.Draft.write
file_to_file.Draft.write = count
main(sys.argv[2:])
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no such signal here")
@pytest.mark.parametrize("after", (0, 1, 5, 8))
def test_a_run_goes_on_after_a_kill(run, task, after):
    killed = subprocess.run([sys.executable, "-c", KILLED, str(after), *COMMAND])
    assert killed.returncode == -signal.SIGKILL and len(drafts()) == 1
    err = run(*COMMAND)[2]
    assert err == (f"y.npy: continues at step {after} of 9.\n" if after else "")
    assert np.array_equal(np.load("y.npy"), task) and not drafts()


def other_model(rng):
    fastrnn.Sequential(random_layer(rng, "LSTM", 2, 5, precision="float32")).save("m.safetensors")


def other_input(rng):
    np.save("x.npy", rng.standard_normal((9, 2)).astype(np.float32))


def input_changed_in_place(_):
    """And with its old modification time."""
    before = os.stat("x.npy")
    with open("x.npy", "r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(b"\0\0\0\0")
    os.utime("x.npy", ns=(before.st_atime_ns, before.st_mtime_ns))


def damaged_journal(_):
    journal = drafts()[0] / "journal.npz"
    journal.write_bytes(journal.read_bytes()[:-30])


def missing_array(_):
    os.unlink(drafts()[0] / "y.npy")


def shorter_array(_):
    np.save(drafts()[0] / "y.npy", np.zeros((3, 5), np.float32))


def nothing(_):
    pass


@pytest.mark.parametrize(
    "change, options, words",
    (
        (other_model, [], "of another model"),
        (other_input, [], "of another input, or of this one before it changed"),
        (input_changed_in_place, [], "of another input, or of this one before it changed"),
        (nothing, ["--rows", "1:"], "of other options"),
        (nothing, ["--precision", "float64"], "of other options"),
        (damaged_journal, [], "damaged"),
        (missing_array, [], "damaged"),
        (shorter_array, [], "damaged"),
    ),
)
def test_a_draft_that_does_not_fit_is_not_used(run, rng, task, monkeypatch, change, options, words):
    interrupted(monkeypatch, run, COMMAND, 4)
    change(rng)
    status, _, err = run(*COMMAND, *options)
    assert (status, err) == (0, f"y.npy: starts over, since its draft is {words}.\n")
    model = fastrnn.load("m.safetensors", precision="float64" if "float64" in options else None)
    assert np.array_equal(np.load("y.npy"), model(np.load("x.npy")[1 if "--rows" in options else 0 :])[0])
    assert not drafts()


def test_a_draft_of_another_instruction_set_is_not_used(run, task, monkeypatch):
    if len(fastrnn.engine.backends.SIMD_TABLES) < 2:
        pytest.skip("one instruction set here")
    interrupted(monkeypatch, run, COMMAND, 4)
    monkeypatch.setenv("FASTRNN_ISA", "baseline")
    assert "is of another release of fastrnn or another machine" in run(*COMMAND)[2]


def test_a_draft_that_is_another_s_is_not_touched_by_a_command_that_fails(run, task, monkeypatch):
    interrupted(monkeypatch, run, COMMAND, 4)
    assert run(*COMMAND, "--rows", "99:")[0] == 2
    assert run(*COMMAND)[2] == "y.npy: continues at step 4 of 9.\n"


def test_restart_begins_anew(run, task, monkeypatch):
    interrupted(monkeypatch, run, COMMAND, 4)
    status, _, err = run(*COMMAND, "--restart")
    assert (status, err) == (0, "") and np.array_equal(np.load("y.npy"), task) and not drafts()


@pytest.mark.skipif(
    not fastrnn.engine.backends.ISAS, reason="in the blas backend they may round in another way"
)
def test_threads_may_differ(run, task, monkeypatch):
    interrupted(monkeypatch, run, COMMAND, 4)
    assert run(*COMMAND, "--threads", "1")[2] == "y.npy: continues at step 4 of 9.\n"
    assert np.array_equal(np.load("y.npy"), task)


def test_two_runs_at_one_output_do_not_meet(run, task):
    with Draft("y.npy"):
        status, _, err = run(*COMMAND)
        assert status == 2 and not os.path.exists("y.npy")
        assert (
            err
            == "fastrnn run: y.npy: expected no other run that writes it, got one. Wait for it, or stop it.\n"
        )
    assert run(*COMMAND)[0] == 0 and np.array_equal(np.load("y.npy"), task)


def test_runs_that_begin_at_once_give_one_whole_output(task):
    """However they meet, one that ends with status 0 has made the output, and nothing else is left."""
    command = [sys.executable, "-m", "fastrnn", *COMMAND]
    runs = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(4)]
    statuses = [process.wait() for process in runs]
    assert set(statuses) <= {0, 2} and 0 in statuses
    assert np.array_equal(np.load("y.npy"), task) and not drafts()


@pytest.mark.skipif(not hasattr(os, "symlink") or os.name == "nt", reason="no links here")
def test_a_link_in_the_place_of_a_draft_is_not_followed(run, task):
    with Draft("y.npy") as draft:
        folder = draft.folder
    os.mkdir("elsewhere")
    os.symlink("elsewhere", folder)
    status, _, err = run(*COMMAND)
    assert status == 2 and "expected a folder of this user" in err and not os.listdir("elsewhere")


def test_a_journal_is_read_as_it_was_written(here, rng):
    state = (rng.standard_normal((1, 2, 3)), rng.standard_normal(4).astype(np.float32))
    journal = Journal({"model": "m"}, 7, {"y": ((3, 4), "<f4")}, state, {"/y": [1, 2]}, {"input": [1]})
    write_journal("j.npz", journal)
    again = read_journal("j.npz")
    assert all(np.array_equal(one, other) for one, other in zip(again.state, state, strict=True))
    assert [a.dtype for a in again.state] == [a.dtype for a in state]
    assert Journal(**{**vars(again), "state": ()}) == Journal(**{**vars(journal), "state": ()})
    assert read_journal("none.npz") is None and os.listdir() == ["j.npz"]


# ---------------------------------------------------------------- several inputs


@pytest.fixture
def several(rng, here, small):
    """Three inputs of different lengths; the command over them, and the outputs that are wanted."""
    model = fastrnn.Sequential(random_layer(rng, "GRU", 2, 5, precision="float32"))
    model.save("m.safetensors")
    os.mkdir("in")
    wanted = {}
    for index, name in enumerate(("a.npy", "b.npz", "c.npy")):
        x = rng.standard_normal((3 + index, 2)).astype(np.float32)
        np.savez(f"in/{name}", x=x) if name.endswith("z") else np.save(f"in/{name}", x)
        wanted[name] = model(x)
    return ("run", "m.safetensors", *(f"in/{name}" for name in wanted), "-o", "out/deep"), wanted


def check_outputs(wanted, folder="out/deep"):
    assert sorted(os.listdir(folder)) == sorted(wanted)
    for name, (y, h) in wanted.items():
        found = np.load(f"{folder}/{name}")
        if name.endswith("z"):
            assert np.array_equal(found["y"], y) and np.array_equal(found["state0"], h)
            found.close()
        else:
            assert np.array_equal(found, y)


def test_several_inputs_go_to_a_folder(run, several):
    command, wanted = several
    status, out, err = run(*command, "--state", "states")
    assert (status, err) == (0, "")
    check_outputs(wanted)
    assert sorted(os.listdir("states")) == ["a.npz", "b.npz", "c.npz"]
    for name, (_, h) in wanted.items():
        with np.load(f"states/{name[0]}.npz") as state:
            assert list(state) == ["state0"] and np.array_equal(state["state0"], h)
    lines = out.splitlines()
    assert lines[0].split() == ["output", "shape"] and lines[2].split() == ["b.npz", "(4,", "5)"]
    assert lines[4].startswith("3 outputs in out/deep, ") and max(map(len, lines)) <= 60
    results = json.loads(run(*command, "--json")[1])["outputs"]
    assert results[0] == {"name": "a.npy", "input": [3, 2], "output": [3, 5], "was_there": False}


def test_long_names_fit_their_line(run, several):
    command, _ = several
    os.rename("in/a.npy", f"in/{'a' * 100}.npy")
    status, out, _ = run("run", "m.safetensors", f"in/{'a' * 100}.npy", *command[3:])
    assert status == 0 and max(map(len, out.splitlines())) <= 60 and out.count("a") >= 100


@pytest.mark.parametrize("after", range(1, 12))
def test_finished_outputs_are_not_made_again(run, several, monkeypatch, after):
    command, wanted = several
    interrupted(monkeypatch, run, command, after)
    made = {path.name: stamp(path) for path in sorted(Path("out/deep").glob("*.np?"))}
    assert list(made) == ["a.npy", "b.npz", "c.npy"][: (after >= 3) + (after >= 7)]
    status, out, _ = run(*command)
    assert status == 0 and out.count("made earlier") == len(made) and max(map(len, out.splitlines())) <= 60
    check_outputs(wanted)
    assert all(stamp(f"out/deep/{name}") == found for name, found in made.items())
    assert "made earlier" not in run(*command)[1]


def test_a_finished_output_that_changed_is_made_again(run, several, monkeypatch):
    command, wanted = several
    interrupted(monkeypatch, run, command, 8)
    np.save("out/deep/a.npy", np.ones(3))
    os.unlink("out/deep/b.npz")
    status, out, err = run(*command)
    assert status == 0 and "made earlier" not in out
    assert err.count("starts over, since its draft is of an output that was removed or changed since") == 2
    check_outputs(wanted)


def test_restart_makes_finished_outputs_again(run, several, monkeypatch):
    command, wanted = several
    interrupted(monkeypatch, run, command, 8)
    status, out, err = run(*command, "--restart")
    assert (status, err) == (0, "") and "made earlier" not in out
    check_outputs(wanted)


def test_an_interrupt_before_the_first_output_leaves_no_folder(run, several, monkeypatch):
    command, _ = several
    assert interrupted(monkeypatch, run, command, 0)[0] == 130
    assert not os.path.exists("out")


def test_one_progress_tells_of_all_inputs(run, several, monkeypatch, capsys):
    command, _ = several
    monkeypatch.setattr("fastrnn.terminal.find_spec", lambda name: None)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    told = run(*command)[2].replace("\n", "").split("\r")[1:]
    shares = [int(text.split()[-2]) for text in told]
    assert len(told) == 12 and told[-1] == "3 inputs 100 %" and shares == sorted(shares)
