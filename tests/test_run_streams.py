"""``fastrnn run`` with stdin or stdout in place of a file."""

import io
import json
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from helpers import arrays_of, random_layer
from hypothesis import given, settings
from hypothesis import strategies as st

import fastrnn
from fastrnn.cli.running import pieces
from fastrnn.cli.running.input_stream import InputStream, run_live


def pipe(*arguments, data=b"", cwd=None):
    """The status of ``fastrnn run`` in a process of its own, its stdout as bytes, and its stderr."""
    command = [sys.executable, "-m", "fastrnn", "run", *map(str, arguments)]
    result = subprocess.run(command, input=data, capture_output=True, cwd=cwd)
    return result.returncode, result.stdout, result.stderr.decode()


def npy_bytes(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_npy_stream_in_is_a_npy_stream_out(model, rng, here):
    x = rng.standard_normal((50, 3)).astype(np.float32)
    status, out, err = pipe("model.safetensors", "-", "-o", "-", "--state", "s.npz", data=npy_bytes(x))
    wanted, (h, c) = model(x)
    assert status == 0 and out == npy_bytes(wanted) and err.startswith("stdout: (50, 2), ")
    with np.load("s.npz") as state:
        assert np.array_equal(state["state0"], h) and np.array_equal(state["state1"], c)


def test_raw_numbers_in_are_raw_numbers_out(model, rng, here):
    x = rng.standard_normal((50, 3)).astype("<f4")
    status, out, err = pipe("model.safetensors", "-", "-o", "-", "--json", data=x.tobytes())
    assert status == 0 and out == model(x)[0].tobytes()
    result = json.loads(err)
    assert (result["input"], result["output"]) == ([50, 3], [50, 2])


@pytest.mark.parametrize("is_raw", (False, True))
def test_a_stream_to_files(model, rng, here, is_raw):
    x = rng.standard_normal((50, 3)).astype("<f4")
    wanted, (h, _) = model(x)
    for name in ("y.npy", "y.npz"):
        data = x.tobytes() if is_raw else npy_bytes(x)
        status, out, err = pipe("model.safetensors", "-", "-o", name, data=data)
        assert (status, err) == (0, "") and out.startswith(f"{name}: (50, 2), ".encode())
    assert np.array_equal(np.load("y.npy"), wanted)
    with np.load("y.npz") as y:
        assert np.array_equal(y["y"], wanted) and np.array_equal(y["state0"], h)
    assert sorted(os.listdir()) == ["model.safetensors", "y.npy", "y.npz"]


@pytest.mark.parametrize("is_raw", (False, True))
def test_a_file_to_stdout(model, rng, here, is_raw):
    x = rng.standard_normal((50, 4, 3)).astype(np.float32)
    np.save("x.npy", x)
    status, out, err = pipe("model.safetensors", "x.npy", "-o", "-", *(["--raw"] if is_raw else []))
    wanted = model(x)[0]
    assert status == 0 and out == (wanted.tobytes() if is_raw else npy_bytes(wanted))
    assert err.startswith("stdout: (50, 4, 2)")


def test_stdout_that_is_a_terminal_gets_no_numbers(run, model, here, monkeypatch):
    np.save("x.npy", np.ones((5, 3)))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    status, out, err = run("run", "model.safetensors", "x.npy", "-o", "-")
    assert (status, out) == (2, "") and "stdout: expected a file or a pipe, got a terminal" in err


def test_a_live_pipe_gives_each_step_at_once(model, rng, here):
    """Before the next one is sent, and even if a step comes in two halves."""
    x = rng.standard_normal((5, 3)).astype("<f4")
    wanted = model(x)[0]
    command = [sys.executable, "-m", "fastrnn", "run", "model.safetensors", "-", "-o", "-"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as p:
        timer = threading.Timer(60, p.kill)
        timer.start()
        for row, y in zip(x, wanted, strict=True):
            data = row.tobytes()
            p.stdin.write(data[:5])
            p.stdin.flush()
            p.stdin.write(data[5:])
            p.stdin.flush()
            assert p.stdout.read(8) == y.tobytes()
        p.stdin.close()
        assert p.stdout.read() == b"" and p.wait() == 0
        timer.cancel()


def test_a_raw_stream_that_ends_within_a_step_says_so_after_the_whole_ones(model, rng, here):
    x = rng.standard_normal((8, 3)).astype("<f4")
    data = x.tobytes()[:-5]
    status, out, err = pipe("model.safetensors", "-", "-o", "-", data=data)
    assert status == 2 and out == model(x[:7])[0].tobytes()
    assert err == (
        "fastrnn run: stdin: expected whole steps of 12 bytes each, got 7 and 7 bytes of the next.\n"
    )
    assert pipe("model.safetensors", "-", "-o", "y.npy", data=data)[0] == 2
    assert os.listdir() == ["model.safetensors"]


@pytest.mark.parametrize(
    "data, words",
    (
        (b"", "stdin: expected a .npy stream, or raw numbers, got nothing."),
        (b"\x93NUMPY", "expected a whole .npy stream, got a damaged one (EOFError: 6 bytes of its header)"),
        (b"\x93NUMPY\x07\x00\x00\x00\x00\x00", "got a damaged one (ValueError: version 7)"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff", "got a damaged one (ValueError: a header of 42949673"),
        (b"\x93NUMPY\x01\x00\x06\x00{'a':(", "got a damaged one"),
        (npy_bytes(np.ones((8, 3)))[:-100], "8 items of 24 bytes, as its header says, got 3 and 20 bytes of"),
        (npy_bytes(np.ones((8, 3))) + b"!", "stdin: expected the end after the array, got more bytes."),
        (npy_bytes(np.ones((8, 2))), "stdin: expected 3 features in its last axis, got (8, 2)."),
        (npy_bytes(np.array(["x"])), "stdin: expected an array of real numbers, got an array of <U1."),
        (b"\x93NUMPY\x01\x00\x76\x00{'descr': '|O', 'fortran_order': False, 'shape': (1, 3), }".ljust(127)
         + b"\n", "stdin: expected an array of real numbers, got an array of Python objects."),
    ),
)  # fmt: skip
def test_streams_that_are_none_are_refused(model, here, data, words):
    for output in ("-", "y.npy"):
        status, _, err = pipe("model.safetensors", "-", "-o", output, data=data)
        assert status == 2 and words in err and "Traceback" not in err
    assert os.listdir() == ["model.safetensors"]


def test_a_token_out_of_range_is_told_by_its_step(rng, here):
    model = fastrnn.Sequential(fastrnn.OneHot(5), random_layer(rng, "GRU", 5, 4, precision="float32"))
    model.save("m.safetensors")
    tokens = np.array([1, 4, 0, 2], "<i8")
    status, out, _ = pipe("m.safetensors", "-", "-o", "-", data=tokens.tobytes())
    assert status == 0 and out == model(tokens)[0].tobytes()
    status, out, err = pipe("m.safetensors", "-", "-o", "-", data=np.array([1, 9], "<i8").tobytes())
    assert status == 2 and "stdin, from step 0 on: expected tokens from 0 to 4, got 9 at index (1,)." in err


def assert_states_equal(file, state):
    """Check that state0, state1, ... of an .npz are the arrays of a state."""
    for index, array in enumerate(arrays_of(state)):
        assert np.array_equal(file[f"state{index}"], array)


def test_a_raw_stream_wants_a_model_that_says_what_it_takes(here):
    fastrnn.Sequential(fastrnn.ReLU()).save("m.safetensors")
    status, out, err = pipe("m.safetensors", "-", "-o", "-", data=bytes(12))
    assert (status, out) == (2, b"") and "a model that says what numbers it takes, got one of any" in err
    x = np.array([[1.5, -2.0, np.nan]])
    status, out, err = pipe("m.safetensors", "-", "-o", "-", "--raw", data=npy_bytes(x))
    assert status == 0 and np.array_equal(np.frombuffer(out, "<f8"), [1.5, 0.0, np.nan], equal_nan=True)


def test_a_raw_stream_to_a_table(model, rng, here):
    pq = pytest.importorskip("pyarrow.parquet")
    x = rng.standard_normal((50, 3)).astype("<f4")
    assert pipe("model.safetensors", "-", "-o", "y.parquet", data=x.tobytes())[0] == 0
    y = pq.read_table("y.parquet")
    assert np.array_equal(np.stack([y["y0"], y["y1"]], axis=1), model(x)[0])


class Slowly(io.RawIOBase):
    """A stream whose bytes come in portions of given sizes."""

    def __init__(self, data, sizes):
        self.data, self.sizes = data, sizes

    def read1(self, most):
        size = min(most, self.sizes.pop() if self.sizes else len(self.data))
        taken, self.data = self.data[:size], self.data[size:]
        return taken


MODELS = {
    "time first": lambda rng: [random_layer(rng, "LSTM", 2, 5, precision="float32")],
    "rows first": lambda rng: [random_layer(rng, "GRU", 2, 3, precision="float32", batch_first=True)],
    "both ways": lambda rng: [random_layer(rng, "GRU", 2, 3, precision="float32", bidirectional=True)],
    "both ways, rows first": lambda rng: [
        random_layer(rng, "GRU", 2, 3, precision="float32", bidirectional=True, batch_first=True)
    ],
    "last step": lambda rng: [random_layer(rng, "GRU", 2, 3, precision="float32"), fastrnn.Last()],
    "softmax across": lambda rng: [
        random_layer(rng, "GRU", 2, 3, precision="float32", batch_first=True),
        fastrnn.Softmax(dim=0),
    ],
}  # fmt: skip


@pytest.mark.parametrize("is_fortran", (False, True))
@pytest.mark.parametrize("is_batched", (False, True))
@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("output", ("-", "y.npz"))
def test_every_kind_of_model_takes_a_stream(
    rng, here, kind, is_batched, is_fortran, output, run, monkeypatch
):
    monkeypatch.setattr(pieces, "PIECE_NUMBERS", 12)
    model = fastrnn.Sequential(*MODELS[kind](rng))
    model.save("m.safetensors")
    x = rng.standard_normal((6, 4, 2) if is_batched else (6, 2)).astype(np.float32)
    x = np.asfortranarray(x) if is_fortran else x
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(npy_bytes(x))))
    sent = io.TextIOWrapper(io.BytesIO())
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", sent)
        status = run("run", "m.safetensors", "-", "-o", output, "--state", "s.npz")[0]
    wanted, h = model(x)
    assert status == 0
    if output == "-":
        assert sent.buffer.getvalue() == npy_bytes(wanted)
    else:
        with np.load("y.npz") as y:
            assert np.array_equal(y["y"], wanted)
            assert_states_equal(y, h)
    with np.load("s.npz") as state:
        assert_states_equal(state, h)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("is_batched", (False, True))
def test_every_kind_of_model_gives_a_stream(run, rng, here, monkeypatch, kind, is_batched):
    monkeypatch.setattr(pieces, "PIECE_NUMBERS", 12)
    monkeypatch.setattr(pieces, "PIECE_ROWS", 1)
    model = fastrnn.Sequential(*MODELS[kind](rng))
    model.save("m.safetensors")
    x = rng.standard_normal((6, 4, 2) if is_batched else (6, 2)).astype(np.float32)
    np.save("x.npy", x)
    sent = io.TextIOWrapper(io.BytesIO())
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", sent)
        assert run("run", "m.safetensors", "x.npy", "-o", "-", "--state", "s.npz")[0] == 0
    wanted, h = model(x)
    assert sent.buffer.getvalue() == npy_bytes(wanted)
    with np.load("s.npz") as state:
        assert_states_equal(state, h)


STREAMED = fastrnn.Sequential(*MODELS["time first"](np.random.default_rng(0)))


@settings(max_examples=60)
@given(
    T=st.integers(1, 20),
    sizes=st.lists(st.integers(1, 40), max_size=40),
    is_raw=st.booleans(),
    dtype=st.sampled_from(("<f4", ">f8", "<i2", "|u1")),
)
def test_however_a_stream_comes_its_numbers_are_the_same(T, sizes, is_raw, dtype):
    x = np.random.default_rng(T).integers(0, 9, (T, 2)).astype("<f4" if is_raw else dtype)
    stream_in = InputStream(Slowly(x.tobytes() if is_raw else npy_bytes(x), sizes), STREAMED)
    found = list(run_live(stream_in))
    y = np.full((T, 5), np.nan, np.float32)
    for piece in found:
        (patch,) = piece.patches
        y[patch.place] = patch.values
    wanted, (h, c) = STREAMED(x)
    assert np.array_equal(y, wanted) and found[-1].done == T == stream_in.count
    assert np.array_equal(found[-1].state[0], h) and np.array_equal(found[-1].state[1], c)
