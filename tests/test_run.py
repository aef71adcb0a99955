"""``fastrnn run``: one file to another, what it refuses, and tables."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from helpers import assert_close, random_layer
from hypothesis import given
from hypothesis import strategies as st

import fastrnn
from fastrnn.cli import main
from fastrnn.cli.running import draft, pieces, table
from fastrnn.cli.running.recording import Recording, check_recording
from fastrnn.spec import RecurrentSpec


def test_run_says_what_it_takes_for_granted(run, golden, tmp_path):
    np.save(tmp_path / "x.npy", np.ones((5, 3)))
    arguments = tmp_path / "x.npy", "-o", tmp_path / "y.npy", "--json"
    status, out, err = run("run", golden / "files" / "lstm_zip.pt", *arguments)
    assert status == 0 and json.loads(out)["output"] == [5, 4] and "Taken for granted: time first" in err
    run("convert", golden / "files" / "lstm_zip.pt", tmp_path / "model.safetensors")
    _, _, err = run("run", tmp_path / "model.safetensors", *arguments)
    assert err.startswith("This model was never compared with torch's output. Taken for granted: time first")


def test_run_names_a_wrong_token_where_it_is(run, rng, tmp_path):
    tensors = {
        name: rng.standard_normal(shape) for name, shape in RecurrentSpec("GRU", 3, 4).tensor_shapes().items()
    }
    model = fastrnn.Sequential(
        fastrnn.Embedding.from_state_dict({"weight": rng.standard_normal((9, 3))}),
        fastrnn.GRU.from_state_dict(tensors, batch_first=True),
    )
    model.save(tmp_path / "model.safetensors")
    for x, words in (
        ([[4, 8, 15], [1, 2, 3]], "x.npy: expected tokens from 0 to 8, got 15 at index (0, 2)."),
        (
            np.ones((2, 3, 4), int).tolist(),
            "x.npy: expected an array of shape (T,) or (B, T), got (2, 3, 4).",
        ),
    ):
        np.save(tmp_path / "x.npy", x)
        status, _, err = run(
            "run", tmp_path / "model.safetensors", tmp_path / "x.npy", "-o", tmp_path / "y.npy"
        )
        assert status == 2 and err == f"fastrnn run: {words}\n"


@pytest.mark.parametrize("numbers", (2**20, 40))
@pytest.mark.parametrize("shape", ((50, 3), (50, 4, 3)))
def test_run_equals_a_call(run, rng, tmp_path, monkeypatch, model, shape, numbers):
    monkeypatch.setattr(pieces, "PIECE_NUMBERS", numbers)
    x = rng.standard_normal(shape).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    status, _, err = run(
        "run",
        tmp_path / "model.safetensors",
        tmp_path / "x.npy",
        "-o",
        tmp_path / "y.npy",
        "--state",
        tmp_path / "state.npz",
    )
    assert (status, err) == (0, "")
    wanted, (h, c) = model(x)
    assert_close(np.load(tmp_path / "y.npy"), wanted, 1e-6)
    with np.load(tmp_path / "state.npz") as states:
        assert_close(states["state0"], h, 1e-6)
        assert_close(states["state1"], c, 1e-6)
    assert sorted(os.listdir(tmp_path)) == ["model.safetensors", "state.npz", "x.npy", "y.npy"]


@pytest.mark.parametrize("numbers", (2**20, 30))
@pytest.mark.parametrize("batch_first", (False, True))
@pytest.mark.parametrize("bidirectional", (False, True))
@pytest.mark.parametrize("takes_last", (False, True))
@pytest.mark.parametrize("has_lengths", (False, True))
def test_run_of_every_kind_of_model(
    run, rng, tmp_path, monkeypatch, numbers, batch_first, bidirectional, takes_last, has_lengths
):
    monkeypatch.setattr(pieces, "PIECE_NUMBERS", numbers)
    layers = [
        fastrnn.OneHot(5),
        random_layer(
            rng, "GRU", 5, 4, precision="float32", bidirectional=bidirectional, batch_first=batch_first
        ),
    ]
    model = fastrnn.Sequential(*layers, *([fastrnn.Last()] if takes_last else []))
    model.save(tmp_path / "m")
    tokens = rng.integers(5, size=(6, 20) if batch_first else (20, 6))
    lengths = np.array([20, 1, 7, 7, 19, 2]) if has_lengths else None
    np.savez(tmp_path / "x.npz", x=tokens, **({"lengths": lengths} if has_lengths else {}))
    status, _, err = run(
        "run", tmp_path / "m", tmp_path / "x.npz", "-o", tmp_path / "y.npy", "--state", tmp_path / "s.npz"
    )
    assert (status, err) == (0, "")
    wanted, h = model(tokens, lengths=lengths)
    assert_close(np.load(tmp_path / "y.npy"), wanted, 1e-6)
    with np.load(tmp_path / "s.npz") as states:
        assert_close(states["state0"], h, 1e-6)


def test_softmax_over_the_rows_is_not_cut(run, rng, tmp_path, monkeypatch, model):
    monkeypatch.setattr(pieces, "PIECE_NUMBERS", 40)
    x = rng.standard_normal((5, 6, 3)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    mixed = fastrnn.Sequential(model, fastrnn.Softmax(dim=1))
    mixed.save(tmp_path / "mixed")
    assert run("run", tmp_path / "mixed", tmp_path / "x.npy", "-o", tmp_path / "y.npy")[0] == 0
    assert_close(np.load(tmp_path / "y.npy"), mixed(x)[0], 1e-6)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_nothing_but_a_file_is_replaced(run, model, rng, tmp_path):
    """A device or a pipe stays what it is. A link is followed."""
    saved = tmp_path / "model.safetensors"
    np.save(tmp_path / "x.npy", rng.standard_normal((4, 3)))
    os.mkfifo(tmp_path / "pipe.npy")
    (tmp_path / "link.npy").symlink_to(tmp_path / "pipe.npy")
    for output in ("pipe.npy", "link.npy"):
        status, _, err = run("run", saved, tmp_path / "x.npy", "-o", tmp_path / output)
        assert status == 2 and "Not a regular file, so it is not replaced" in err
    assert (tmp_path / "pipe.npy").is_fifo()
    (tmp_path / "other.npy").symlink_to(tmp_path / "y.npy")
    status, _, _ = run("run", saved, tmp_path / "x.npy", "-o", tmp_path / "other.npy")
    assert status == 0 and (tmp_path / "other.npy").is_symlink()
    assert np.load(tmp_path / "y.npy").shape == (4, 2)


def test_two_outputs_may_not_be_one_file(run, model, rng, tmp_path):
    np.save(tmp_path / "x.npy", rng.standard_normal((4, 3)))
    files = ("-o", tmp_path / "same.npz", "--state", tmp_path / "." / "same.npz")
    status, _, err = run("run", tmp_path / "model.safetensors", tmp_path / "x.npy", *files)
    assert status == 2 and "another file than the other output" in err
    assert not (tmp_path / "same.npz").exists()


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="no way here to ask for room")
def test_a_disk_too_small_for_the_output_is_an_os_error(run, model, tmp_path, monkeypatch):
    """Otherwise the first write to a page without room raises a signal, and the process dies."""
    np.save(tmp_path / "x.npy", np.ones((5, 3)))

    def full(_, begin, size):
        assert begin == 0 and size == os.path.getsize(next(tmp_path.glob(".fastrnn-*/y.npy")))
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    status, _, err = run("run", tmp_path / "model.safetensors", tmp_path / "x.npy", "-o", tmp_path / "y.npy")
    assert status == 2 and "No space left on device" in err
    assert sorted(os.listdir(tmp_path)) == ["model.safetensors", "x.npy"]


@pytest.mark.skipif(os.name == "nt", reason="no such signal here")
def test_an_end_by_signal_leaves_nothing_begun(run, model, tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", np.ones((5, 3)))

    def kill(*_):
        assert list(tmp_path.glob(".fastrnn-*/lock"))
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(draft.Draft, "write", kill)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as caught:
        run("run", tmp_path / "model.safetensors", tmp_path / "x.npy", "-o", tmp_path / "y.npy")
    assert caught.value.code == 128 + signal.SIGTERM and signal.getsignal(signal.SIGTERM) is before
    assert sorted(os.listdir(tmp_path)) == ["model.safetensors", "x.npy"]


def test_a_replaced_file_keeps_its_permissions(run, model, tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", np.ones((5, 3)))
    output = tmp_path / "y.npy"
    output.touch(0o600)
    command = ("run", tmp_path / "model.safetensors", tmp_path / "x.npy", "-o", output)
    assert run(*command)[0] == 0 and output.stat().st_mode & 0o777 == 0o600
    monkeypatch.setattr(os, "access", lambda path, mode: path != str(output))
    status, _, err = run(*command)
    assert status == 2 and "No permission to write this file" in err


def test_a_message_names_the_command_once(run, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.ones(5))
    _, _, err = run("run", "model.safetensors", "x.npy", "-o", "y.npy")
    assert err == "fastrnn run: x.npy: expected an array of shape (T, I) or (T, B, I), got (5,).\n"


def test_json_stays_json_where_stderr_is_closed(run, golden, tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", np.ones((5, 3)))
    monkeypatch.setattr(sys, "stderr", None)
    status, out, _ = run(
        "run", golden / "files" / "lstm_zip.pt", tmp_path / "x.npy", "-o", tmp_path / "y.npy", "--json"
    )
    assert status == 0 and json.loads(out)["output"] == [5, 4]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no full device here")
@pytest.mark.parametrize("input, status", (("x.npy", 0), ("none.npy", 2)))
def test_a_full_stderr_stops_no_work(golden, tmp_path, input, status):
    np.save(tmp_path / "x.npy", np.ones((5, 3)))
    command = [sys.executable, "-m", "fastrnn", "run", golden / "files" / "lstm_zip.pt", input, "-o", "y.npy"]
    with open("/dev/full", "w") as full:
        assert subprocess.run(command, cwd=tmp_path, stderr=full).returncode == status
    assert (tmp_path / "y.npy").exists() is (status == 0)


def test_where_a_link_leads_is_looked_at_before_the_work(run, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.ones((5, 3)))
    os.symlink("nowhere/s.npz", "link.npz")
    command = ("run", "model.safetensors", "x.npy", "-o", "y.npy", "--state", "link.npz")
    status, _, err = run(*command)
    assert status == 2 and "No such folder to write in" in err and not os.path.exists("y.npy")
    os.mkdir("nowhere")
    assert run(*command)[0] == 0 and os.path.islink("link.npz") and os.path.isfile("nowhere/s.npz")


def test_a_folder_that_may_not_be_written_in_is_refused_before_the_work(run, model, tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", np.ones((5, 3)))
    monkeypatch.setattr(os, "access", lambda *_: False)  # whoever is root may write anywhere
    status, _, err = run("run", tmp_path / "model.safetensors", tmp_path / "x.npy", "-o", tmp_path / "y.npy")
    assert status == 2 and "No permission to write in this folder" in err
    assert not (tmp_path / "y.npy").exists()


def test_a_name_that_the_terminal_cannot_show_is_no_error(golden, tmp_path):
    np.save(tmp_path / "x.npy", np.ones((5, 3)))
    command = [
        sys.executable,
        "-m",
        "fastrnn",
        "run",
        golden / "files" / "lstm_zip.pt",
        "x.npy",
        "-o",
        "\xe9.npy",
    ]
    result = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=True,
    )
    assert rb"\xe9.npy: (5, 4)" in result.stdout


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_run_does_not_wait_at_a_pipe(run, model, tmp_path):
    os.mkfifo(tmp_path / "x.npy")
    status, _, err = run("run", tmp_path / "model.safetensors", tmp_path / "x.npy", "-o", tmp_path / "y.npy")
    assert status == 2 and err == "fastrnn run: x.npy: expected a regular file, got a pipe or a device.\n"


# ---------------------------------------------------------------- what inputs and outputs may be


@pytest.mark.parametrize(
    "arguments, words",
    (
        ("text.txt -o y.npy", 'text.txt: expected a name that ends in .npy, .npz or .parquet, or "-", '
         'got the ending ".txt".'),
        ("bare -o y.npy", "got no ending. It holds a NumPy array (.npy)."),
        ("right.npy -o y.csv", 'y.csv: expected a name that ends in .npy, .npz or .parquet, or "-"'),
        ("right.npy -o y", 'y: expected a name that ends in .npy, .npz or .parquet, or "-", got no end'),
        ("array.npz -o y.npy", "array.npz: expected what a .npz file holds, got a NumPy array (.npy). "
         "Rename it so that it ends in .npy."),
        ("lengths.npy -o y.npy", "what a .npy file holds, got a zip archive (.npz). Rename it"),
        ("text.npy -o y.npy", "expected what a .npy file holds, got a text."),
        ("hdf.npy -o y.npy", "expected what a .npy file holds, got an HDF5 file."),
        ("other.npz -o y.npy", "expected what a .npz file holds, got a file of no known kind."),
        ("empty.npy -o y.npy", "expected what a .npy file holds, got an empty file."),
        ("wrong.npy -o y.npy", "expected 3 features in its last axis"),
        ("flat.npy -o y.npy", "shape (T, I) or (T, B, I), got (5,)"),
        ("objects.npy -o y.npy", "objects.npy: expected an array of real numbers, got an array of Python "
         "objects. Only pickle can read objects"),
        ("words.npy -o y.npy", "words.npy: expected an array of real numbers, got one of <U4."),
        ("wrong.npy -o wrong.npy", "another file than the input"),
        ("wrong.npy -o model.safetensors", "another file than the input"),
        ("wrong.npy -o y.npy --state wrong.npy", "another file"),
        ("wrong.npy -o y.npy --state no/s", "No such folder"),
        ("lengths.npz -o y.npy", "lengths of shape (2,), got ()"),
        ("header.npy -o y.npy", "a whole .npy file"),
        ("right.npy -o .", "A folder cannot be replaced by a file: '.'"),
        ("right.npy -o y.npy --state=", "Not a valid file name"),
        ("right.npy -o y.npy --state s.npy", "--final-state: expected a name that ends in .npz, got s.npy"),
        ("right.npy -o " + "y" * 999, "File name too long"),
        ("lens.npz -o y.npy", 'lens.npz: expected no arrays but x, lengths, state0 and state1, '
         'got "lens" as well.'),
        ("two.npz -o y.npy", 'expected an array x, got the arrays "a" and "b".'),
        ("none.npz -o y.npy", "expected an array x, got none."),
        ("state.npz -o y.npy", 'expected an array x, got the arrays "state0".'),
        ("half.npz -o y.npy", 'expected all of "state0" and "state1", or none, got "state0".'),
        ("third.npz -o y.npy", 'got "state2" as well.'),
        ("shape.npz -o y.npy", "shape.npz: expected state1 of shape (1, 2, 6), got (1, 3, 6)."),
        ("right.npy -o y.npy --rows 2:3", "right.npy: expected at least one of the rows 0:2, got 2:3."),
        ("right.npy -o y.npy --rows=:-3", "right.npy: expected at least one of the rows 0:2, got :-3."),
        ("right.npy -o y.npy --rows 1:1", "right.npy: expected at least one of the rows 0:2, got 1:1."),
        ("steps.npy -o y.npy --rows 9:", "expected at least one of the time steps 0:5, got 9:."),
        ("right.npy -o y.npy --columns a", "expected a .parquet file with --columns, got a .npy"),
        ("right.npy -o y.npy --raw", "--raw: expected -o -, got right.npy -o y.npy. The option "
         "would have no effect."),
        ("right.npy -o - --restart", "--restart: expected an input and an output that are files"),
        ("- -o y.npy --rows 1:", "--rows: expected an input that is a file, got - -o y.npy."),
        ("right.npy steps.npy -o -", '-o: expected a folder where there are several inputs, got "-"'),
        ("right.npy - -o out", 'expected files where there are several inputs, got "-" (stdin)'),
        ("right.npy in/right.npy -o out", 'expected inputs of different names, got "right.npy" twice.'),
        ("right.npy steps.npy -o text.txt", "-o: expected a folder where there are several inputs, got t"),
        ("right.npy steps.npy -o out --state text.txt", "--final-state: expected a folder where there"),
        ("right.npy steps.npy -o .", "another file than the input"),
        ("right.npy wrong.npy -o out", "wrong.npy: expected 3 features in its last axis, got (5, 2, 9)"),
    ),
)  # fmt: skip
def test_what_run_refuses_leaves_nothing(run, model, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    x, h = np.ones((5, 2, 3)), np.ones((1, 2, 6))
    for name, array in (
        ("right", x),
        ("wrong", np.ones((5, 2, 9))),
        ("steps", x[:, 0]),
        ("flat", np.ones(5)),
    ):
        np.save(f"{name}.npy", array)
    for name, arrays in {
        "lengths": {"x": x, "lengths": np.array(3)},
        "lens": {"x": x, "lens": np.array([5, 5])},
        "two": {"a": x, "b": x},
        "none": {},
        "state": {"state0": h},
        "half": {"x": x, "state0": h},
        "third": {"x": x, "state0": h, "state1": h, "state2": h},
        "shape": {"x": x, "state0": h, "state1": np.ones((1, 3, 6))},
    }.items():
        np.savez(f"{name}.npz", **arrays)
    for name, other in (("bare", "right.npy"), ("array.npz", "right.npy"), ("lengths.npy", "lengths.npz")):
        shutil.copy(other, name)
    for name, data in (
        ("text.txt", b"some text"),
        ("text.npy", b"some text"),
        ("empty.npy", b""),
        ("hdf.npy", b"\x89HDF\r\n\x1a\n and more"),
        ("other.npz", b"\xff\x00\xff"),
        ("header.npy", b"\x93NUMPY\x01\x00\x06\x00{'a':("),
    ):
        (tmp_path / name).write_bytes(data)
    np.save("objects.npy", np.array([{}]), allow_pickle=True)
    np.save("words.npy", np.full((5, 3), "word"))
    os.mkdir("in")
    shutil.copy("right.npy", "in/right.npy")
    before = sorted(os.listdir())
    status, out, err = run("run", "model.safetensors", *arguments.split())
    assert status == 2 and words in err and "Traceback" not in err and out == "" and err.count("\n") == 1
    assert sorted(os.listdir()) == before


@pytest.mark.parametrize(
    "option, words",
    (
        (["--state", "s.npz"], "--final-state: expected a model that has a state, got"),
        (["--threads", "2"], "--threads: expected layers with weights, got"),
        (["--precision", "float64"], "--precision: expected layers that have a precision, got"),
    ),
)
def test_options_without_effect_are_refused(run, tmp_path, monkeypatch, option, words):
    monkeypatch.chdir(tmp_path)
    fastrnn.Sequential(fastrnn.ReLU()).save("m.safetensors")
    np.save("x.npy", np.ones((4, 3)))
    status, _, err = run("run", "m.safetensors", "x.npy", "-o", "y.npy", *option)
    assert status == 2 and words in err and not os.path.exists("y.npy")
    np.savez("x.npz", x=np.ones((4, 2, 3)), lengths=np.array([4, 2]))
    status, _, err = run("run", "m.safetensors", "x.npz", "-o", "y.npy")
    assert status == 2 and "x.npz: expected no lengths for this model, got lengths." in err


@pytest.mark.parametrize("text", ("5", "a:b", "1:2:3", "1.5:"))
def test_bounds_that_are_none_are_refused(capsys, text):
    with pytest.raises(SystemExit) as caught:
        main(["run", "m", "x.npy", "-o", "y.npy", "--rows", text])
    assert caught.value.code == 2 and "expected A:B, two whole numbers or one" in capsys.readouterr().err


@pytest.mark.parametrize("is_batched", (False, True))
@pytest.mark.parametrize("name", ("x", "audio"))
def test_a_state_that_was_written_is_where_the_next_part_begins(
    run, model, rng, tmp_path, monkeypatch, is_batched, name
):
    """And an output as .npz holds the states as --final-state writes them."""
    monkeypatch.chdir(tmp_path)
    x = rng.standard_normal((50, 4, 3) if is_batched else (50, 3)).astype(np.float32)
    np.save("first.npy", x[:20])
    status = run("run", "model.safetensors", "first.npy", "-o", "first.npz", "--state", "state.npz")[0]
    assert status == 0
    with np.load("first.npz") as first, np.load("state.npz") as state:
        assert sorted(first) == ["state0", "state1", "y"] and sorted(state) == ["state0", "state1"]
        assert all(np.array_equal(first[key], state[key]) for key in state)
        np.savez("second.npz", **{name: x[20:], **state})
        begin = first["y"]
    assert run("run", "model.safetensors", "second.npz", "-o", "second.npz.npy")[0] == 0
    wanted = model(x)[0]
    assert np.array_equal(np.concatenate([begin, np.load("second.npz.npy")]), wanted)


def test_the_rows_of_a_state_are_cut_with_those_of_x(run, rng, tmp_path, monkeypatch):
    """Through a model that takes whole rows, in pieces of a row each."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pieces, "PIECE_NUMBERS", 1)
    monkeypatch.setattr(pieces, "PIECE_MULTIPLY_ADDS", 1)
    layer = random_layer(rng, "GRU", 3, 4, precision="float32", bidirectional=True, batch_first=True)
    fastrnn.Sequential(layer).save("m.safetensors")
    x = rng.standard_normal((6, 9, 3)).astype(np.float32)
    h = rng.standard_normal((2, 6, 4)).astype(np.float32)
    lengths = np.array([9, 1, 5, 5, 2, 9])
    np.savez("x.npz", x=x, lengths=lengths, state0=h)
    for text, rows in (("1:5", slice(1, 5)), ("-2:", slice(-2, None)), (":3", slice(3)), (":", slice(None))):
        assert run("run", "m.safetensors", "x.npz", "-o", "y.npz", f"--rows={text}")[0] == 0
        wanted, state = layer(x[rows], h[:, rows], lengths=lengths[rows])
        with np.load("y.npz") as y:
            assert np.array_equal(y["y"], wanted) and np.array_equal(y["state0"], state)


def test_rows_without_an_axis_of_rows_are_steps(run, model, rng, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x = rng.standard_normal((30, 3)).astype(np.float32)
    np.save("x.npy", x)
    assert run("run", "model.safetensors", "x.npy", "-o", "y.npy", "--rows", "10:-5")[0] == 0
    assert np.array_equal(np.load("y.npy"), model(x[10:-5])[0])


@given(n=st.integers(1, 6), begin=st.none() | st.integers(-8, 8), end=st.none() | st.integers(-8, 8))
def test_bounds_are_those_of_a_slice(n, begin, end):
    model = fastrnn.Sequential(fastrnn.ReLU())
    x = np.arange(2.0 * n).reshape(n, 2)
    wanted = x[begin:end]
    if len(wanted):
        cut, layout = check_recording("input", model, Recording(x), slice(begin, end))
        assert np.array_equal(cut.x, wanted) and layout.T == len(wanted)
    else:
        with pytest.raises(ValueError, match="input: expected at least one of the time steps"):
            check_recording("input", model, Recording(x), slice(begin, end))


def test_numbers_in_a_row_are_steps_of_one_feature(run, rng, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    layer = random_layer(rng, "RNN", 1, 4, precision="float32")
    fastrnn.Sequential(layer).save("m.safetensors")
    x = rng.standard_normal(20).astype(np.float32)
    np.save("x.npy", x)
    np.savez("x.npz", sound=x)
    for name in ("x.npy", "x.npz"):
        assert run("run", "m.safetensors", name, "-o", "y.npy")[0] == 0
        assert np.array_equal(np.load("y.npy"), layer(x[:, None])[0])


def test_threads_are_those_of_the_model(run, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.ones((5, 3)))
    seen = []
    make = fastrnn.LSTM.from_spec.__func__
    monkeypatch.setattr(
        fastrnn.LSTM, "from_spec", classmethod(lambda cls, spec, **o: seen.append(o) or make(cls, spec, **o))
    )
    assert run("run", "model.safetensors", "x.npy", "-o", "y.npy", "--threads", "1")[0] == 0
    assert run("run", "model.safetensors", "x.npy", "-o", "y.npy")[0] == 0
    assert [options["threads"] for options in seen] == [1, None]


# ---------------------------------------------------------------- tables


def test_a_table_goes_through_a_model(run, model, rng, tmp_path, monkeypatch):
    """Columns of any type of numbers, in their order or in that of --columns; the rest is not touched."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(table, "NUMBERS_AT_ONCE", 20)  # several batches of rows
    a, b = rng.standard_normal(33), rng.standard_normal(33).astype(np.float32)
    c = rng.integers(-9, 9, 33)
    pq.write_table(pa.table({"a": a, "b": b, "c": c}), "x.parquet", row_group_size=7)
    pq.write_table(pa.table({"c": c, "who": ["w"] * 33, "b": b, "a.a": a}), "mixed.parquet")
    wanted, _ = model(np.stack([a, b, c], axis=1))
    for arguments in (["x.parquet"], ["mixed.parquet", "--columns", "a.a,b,c"]):
        assert run("run", "model.safetensors", *arguments, "-o", "y.parquet")[0] == 0
        y = pq.read_table("y.parquet")
        assert y.column_names == ["y0", "y1"] and y.schema.field("y0").type == pa.float32()
        assert np.array_equal(np.stack([y["y0"], y["y1"]], axis=1), wanted)
    assert run("run", "model.safetensors", "x.parquet", "-o", "y.npy", "--rows", "5:9")[0] == 0
    assert np.array_equal(np.load("y.npy"), model(np.stack([a, b, c], axis=1)[5:9])[0])


def test_a_table_keeps_its_precision_where_the_model_has_none(run, tmp_path, monkeypatch):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    monkeypatch.chdir(tmp_path)
    fastrnn.Sequential(fastrnn.ReLU()).save("m.safetensors")
    pq.write_table(pa.table({"a": [1 + 2**-40, -1.0], "b": [3, 2**31]}), "x.parquet")
    assert run("run", "m.safetensors", "x.parquet", "-o", "y.npy")[0] == 0
    assert np.load("y.npy").tolist() == [[1 + 2**-40, 3.0], [0.0, 2.0**31]]


@pytest.mark.parametrize("is_batched", (False, True))
def test_the_last_step_as_a_table_is_a_row_each(run, rng, tmp_path, monkeypatch, is_batched):
    pq = pytest.importorskip("pyarrow.parquet")
    monkeypatch.chdir(tmp_path)
    model = fastrnn.Sequential(random_layer(rng, "GRU", 3, 4), fastrnn.Last())
    model.save("m.safetensors")
    x = rng.standard_normal((7, 2, 3) if is_batched else (7, 3))
    np.save("x.npy", x)
    assert run("run", "m.safetensors", "x.npy", "-o", "y.parquet")[0] == 0
    y = pq.read_table("y.parquet")
    assert np.array_equal(np.stack([y[name] for name in y.column_names], axis=-1), np.atleast_2d(model(x)[0]))


def test_a_column_of_whole_numbers_is_tokens(run, rng, tmp_path, monkeypatch):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    monkeypatch.chdir(tmp_path)
    model = fastrnn.Sequential(fastrnn.OneHot(5), random_layer(rng, "GRU", 5, 4, precision="float32"))
    model.save("m.safetensors")
    tokens = rng.integers(5, size=30).astype(np.uint8)
    pq.write_table(pa.table({"t": tokens, "f": np.ones(30)}), "x.parquet")
    assert run("run", "m.safetensors", "x.parquet", "-o", "y.npy", "--columns", "t")[0] == 0
    assert np.array_equal(np.load("y.npy"), model(tokens)[0])
    for columns, words in (
        ("f", 'expected columns of whole numbers (tokens), got "f" (double). --columns picks some.'),
        ("t,t", 'expected each column once, got "t" twice.'),
    ):
        status, _, err = run("run", "m.safetensors", "x.parquet", "-o", "z.npy", "--columns", columns)
        assert status == 2 and words in err
    pq.write_table(pa.table({"t": tokens, "u": tokens}), "x.parquet")
    status, _, err = run("run", "m.safetensors", "x.parquet", "-o", "z.npy")
    assert status == 2 and 'expected 1 column of tokens, got 2 ("t" and "u")' in err


@pytest.mark.parametrize(
    "columns, words",
    (
        (None, 'expected columns of numbers, got "who" (string), "is" (bool). --columns picks some.'),
        ("a,b,n", 'expected columns without nulls, got nulls in "n". Fill them; pandas writes NaN as'),
        ("a,z,y", 'expected the columns "z" and "y", got none of that name among "a", "b", "n", "who" and'),
        ("a,b", 'expected 3 columns, as many as the model has features, got 2 ("a" and "b").'),
    ),
)  # fmt: skip
def test_columns_that_do_not_fit_are_named(run, model, tmp_path, monkeypatch, columns, words):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    monkeypatch.chdir(tmp_path)
    floats = [1.0, 2.0]
    arrays = {"a": floats, "b": floats, "n": [1.0, None], "who": ["x", "y"], "is": [True, False]}
    pq.write_table(pa.table(arrays), "x.parquet")
    options = [] if columns is None else ["--columns", columns]
    status, _, err = run("run", "model.safetensors", "x.parquet", "-o", "y.npy", *options)
    assert status == 2 and words in err and sorted(os.listdir()) == ["model.safetensors", "x.parquet"]


def test_tables_that_cannot_be(run, model, tmp_path, monkeypatch):
    pytest.importorskip("pyarrow")
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.ones((5, 2, 3)))
    status, _, err = run("run", "model.safetensors", "x.npy", "-o", "y.parquet")
    assert status == 2 and "y.parquet: expected an output of 2 axes in a table, got one of 3." in err
    (tmp_path / "x.parquet").write_bytes(b"PAR1 and nothing of a table PAR1")
    status, _, err = run("run", "model.safetensors", "x.parquet", "-o", "y.npy")
    assert status == 2 and "x.parquet: expected a whole .parquet file, got a damaged one" in err


def test_without_pyarrow_a_table_says_how_to_get_it(run, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    np.save("x.npy", np.ones((5, 3)))
    for files in (
        ("x.parquet", "-o", "y.npy"),
        ("x.npy", "-o", "y.parquet"),
        ("x.npy", "x.parquet", "-o", "o"),
    ):
        status, _, err = run("run", "model.safetensors", *files)
        assert status == 2 and "expected pyarrow, which reads and writes .parquet files, got none." in err
        assert err.endswith("pip install pyarrow brings it.\n") and not {"y.npy", "y.parquet", "o"} & {
            *os.listdir()
        }
