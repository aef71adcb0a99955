"""The command line, as a user meets it."""

import errno
import json
import os
import signal
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from helpers import assert_close, random_layer
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

import fastrnn
from fastrnn import demo, offline
from fastrnn.cli import main
from fastrnn.spec import RecurrentSpec
from fastrnn.terminal import print_table


@pytest.fixture
def run(capsys):
    """Run a command; give its status, stdout and stderr."""

    def call(*arguments):
        status = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


@pytest.fixture
def model(rng, tmp_path):
    weights = {"weight": rng.standard_normal((2, 6)), "bias": rng.standard_normal(2)}
    model = fastrnn.Sequential(
        random_layer(rng, "LSTM", 3, 6, precision="float32"), fastrnn.Linear.from_state_dict(weights)
    )
    model.save(tmp_path / "model.safetensors")
    return model


def test_help_of_every_command():
    for command in ([], ["info"], ["convert"], ["run"], ["bench"], ["verify"], ["demo"]):
        result = subprocess.run(
            [sys.executable, "-m", "fastrnn", *command, "--help"], capture_output=True, text=True, check=True
        )
        assert result.stdout.startswith("usage: fastrnn")


def test_info_shows_tensors_and_what_was_left_out(run, golden):
    status, out, _ = run("info", golden / "files" / "checkpoint_zip.pt")
    assert status == 0
    for words in ('under "model_state_dict"', "weight_ih_l0  (16, 3)  float32", "optimizer: dict of 2",
                  'fastrnn.LSTM.from_state_dict(sd, "")'):  # fmt: skip
        assert words in out
    status, out, _ = run("info", golden / "files" / "checkpoint_zip.pt", "--json")
    found = json.loads(out)
    assert found["tensors"]["weight_hh_l0"] == {"shape": [16, 4], "dtype": "float32"}
    assert found["left_out"]["epoch"] == 7 and found["recurrent"] == [""]


def test_info_names_the_state_dict_that_it_shows_and_the_others(run, tmp_path):
    torch = pytest.importorskip("torch")
    weights = torch.nn.GRU(3, 4).state_dict()
    torch.save({"model": weights, "ema": weights}, tmp_path / "two.pt")
    _, out, _ = run("info", tmp_path / "two.pt")
    assert 'two.pt", key="model")' in out and "ema: another state dict of 4" in out
    _, out, _ = run("info", tmp_path / "two.pt", "--key", "ema")
    assert 'two.pt", key="ema")' in out and "model: another state dict of 4" in out


def test_info_of_a_saved_model(run, model, tmp_path):
    _, out, _ = run("info", tmp_path / "model.safetensors")
    assert repr(model) in out


def test_convert_and_verify(run, golden, tmp_path):
    output = tmp_path / "model.safetensors"
    status, out, _ = run("convert", golden / "files" / "lstm_zip.pt", output, "--batch-first")
    assert status == 0 and "LSTM(3, 4, batch_first=True)" in out
    assert "never compared with torch's output. Taken for granted: an output for every step" in out
    assert "Taken for granted" in run("convert", output, tmp_path / "again.safetensors")[1]
    status, out, _ = run("verify", output)
    assert status == 0 and out.startswith("passed: ")
    status, out, _ = run("verify", output, "--json")
    assert json.loads(out)["passed"] is True


@pytest.mark.parametrize("wrong", (1, np.nan))
def test_verify_fails_with_status_1(run, model, tmp_path, wrong):
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["layers.1.bias"] += wrong
    with safe_open(tmp_path / "model.safetensors", "numpy") as file:
        save_file(tensors, tmp_path / "model.safetensors", file.metadata())
    status, out, _ = run("verify", tmp_path / "model.safetensors")
    assert status == 1 and out.startswith("FAILED")
    status, out, _ = run("verify", tmp_path / "model.safetensors", "--json")
    error = json.loads(out, parse_constant=pytest.fail)["largest_error"]
    assert status == 1 and (error is None if wrong != 1 else error == pytest.approx(1, abs=1e-3))


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
        ([[4, 8, 15], [1, 2, 3]], "input: expected tokens from 0 to 8, got 15 at index (0, 2)."),
        (
            np.ones((2, 3, 4), int).tolist(),
            "input: expected an array of shape (T,) or (B, T), got (2, 3, 4).",
        ),
    ):
        np.save(tmp_path / "x.npy", x)
        status, _, err = run(
            "run", tmp_path / "model.safetensors", tmp_path / "x.npy", "-o", tmp_path / "y.npy"
        )
        assert status == 2 and err == f"fastrnn run: {words}\n"


@pytest.mark.parametrize("block", (2**20, 40))
@pytest.mark.parametrize("shape", ((50, 3), (50, 4, 3)))
def test_run_equals_a_call(run, rng, tmp_path, monkeypatch, model, shape, block):
    monkeypatch.setattr(offline, "BLOCK_NUMBERS", block)
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
    assert not (tmp_path / "y.npy.part").exists()


@pytest.mark.parametrize("block", (2**20, 30))
@pytest.mark.parametrize("batch_first", (False, True))
@pytest.mark.parametrize("bidirectional", (False, True))
@pytest.mark.parametrize("takes_last", (False, True))
@pytest.mark.parametrize("has_lengths", (False, True))
def test_run_of_every_kind_of_model(
    run, rng, tmp_path, monkeypatch, block, batch_first, bidirectional, takes_last, has_lengths
):
    monkeypatch.setattr(offline, "BLOCK_NUMBERS", block)
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


@pytest.mark.parametrize(
    "arguments, words",
    (
        (["info", "nothing.pt"], "fastrnn info: [Errno 2]"),
        (["info", "text.txt"], "fastrnn info: text.txt: expected a state_dict"),
        (["verify", "lstm.pt"], "expected a model that fastrnn saved, got torch zip. fastrnn convert makes"),
        (["run", "model.safetensors", "text.txt", "-o", "y.npy"], "expected an input as .npy or .npz"),
        (["run", "model.safetensors", "wrong.npy", "-o", "y.npy"], "expected 3 features in its last axis"),
        (["run", "model.safetensors", "flat.npy", "-o", "y.npy"], "shape (T, I) or (T, B, I), got (5,)"),
        (["run", "model.safetensors", "objects.npy", "-o", "y.npy"], "a whole .npy file"),
        (["run", "model.safetensors", "wrong.npy", "-o", "wrong.npy"], "another file than the input"),
        (["convert", "lstm.pt", "no/such/folder/m"], "No such folder to write in: 'no/such/folder/m'"),
        (["convert", "lstm.pt", "lstm.pt"], "another file than the input, got lstm.pt"),
        (["convert", "lstm.pt", "m", "--nonlinearity", "tanh"], "an RNN beside nonlinearity, got LSTM"),
        (["run", "model.safetensors", "wrong.npy", "-o", "model.safetensors"], "another file than the input"),
        (["run", "model.safetensors", "wrong.npy", "-o", "y", "--state", "wrong.npy"], "another file"),
        (["run", "model.safetensors", "wrong.npy", "-o", "y", "--state", "no/s"], "No such folder"),
        (["run", "model.safetensors", "lengths.npz", "-o", "y.npy"], "lengths of shape (2,), got ()"),
        (["run", "model.safetensors", "header.npy", "-o", "y.npy"], "a whole .npy file"),
        (["run", "model.safetensors", "right.npy", "-o", "."], "A folder, which no file replaces: '.'"),
        (["run", "model.safetensors", "right.npy", "-o", "y", "--state", ""], "No name of a file"),
        (["run", "model.safetensors", "right.npy", "-o", "y" * 999], "File name too long"),
    ),
)  # fmt: skip
def test_errors_are_one_line_and_status_2(run, model, golden, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("some text")
    (tmp_path / "lstm.pt").write_bytes((golden / "files" / "lstm_zip.pt").read_bytes())
    np.save("right.npy", np.ones((5, 2, 3)))
    np.save("wrong.npy", np.ones((5, 2, 9)))
    np.save("flat.npy", np.ones(5))
    np.savez("lengths.npz", x=np.ones((5, 2, 3)), lengths=np.array(3))
    (tmp_path / "header.npy").write_bytes(b"\x93NUMPY\x01\x00\x06\x00{'a':(")
    np.save("objects.npy", np.array([{}]), allow_pickle=True)
    before = sorted(os.listdir())
    status, _, err = run(*arguments)
    assert status == 2 and words in err and "Traceback" not in err
    assert sorted(os.listdir()) == before


def test_softmax_over_the_rows_is_not_cut(run, rng, tmp_path, monkeypatch, model):
    monkeypatch.setattr(offline, "BLOCK_NUMBERS", 40)
    x = rng.standard_normal((5, 6, 3)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    mixed = fastrnn.Sequential(model, fastrnn.Softmax(dim=1))
    mixed.save(tmp_path / "mixed")
    assert run("run", tmp_path / "mixed", tmp_path / "x.npy", "-o", tmp_path / "y.npy")[0] == 0
    assert_close(np.load(tmp_path / "y.npy"), mixed(x)[0], 1e-6)


def test_reader_that_goes_away_is_no_error():
    for command in (["demo"], ["info", demo.weights_path()]):
        process = subprocess.Popen(
            [sys.executable, "-m", "fastrnn", *map(str, command)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        process.stdout.close()
        error = process.stderr.read()
        process.stderr.close()
        assert (process.wait(), error) == (0, b"")


def test_unknown_command_is_status_2():
    with pytest.raises(SystemExit) as caught:
        main(["dance"])
    assert caught.value.code == 2


# ---------------------------------------------------------------- the demo


def test_demo_writes_words(run):
    status, out, _ = run("demo", "--length", "300")
    assert status == 0
    assert "Sequential(Embedding(96, 32), LSTM(32, 144), Linear(144, 96))" in out
    assert "us per character" in out
    words = set(out.partition("\nSequential")[0].lower().split())
    assert len(words & {"the", "a", "of", "is", "to", "in", "and", "that", "class", "function"}) >= 4


def test_demo_as_json(run):
    _, out, err = run("demo", "--length", "50", "--prompt", "A list ", "--seed", "3", "--json")
    result = json.loads(out)
    assert result["text"].startswith("A list ") and len(result["text"]) == 57
    assert result["microseconds"] > 0 and err.startswith("A list ")
    again = json.loads(run("demo", "--length", "50", "--prompt", "A list ", "--seed", "3", "--json")[1])
    assert again["text"] == result["text"]


def test_demo_agrees_with_torch():
    pytest.importorskip("torch")
    model = fastrnn.load(demo.weights_path())
    result = demo.compare_with_torch(model, demo.encode("The value of the expression is a tuple."))
    assert result["largest_difference"] < 1e-4


def test_demo_weights_are_small():
    assert os.path.getsize(demo.weights_path()) <= 500_000


def test_demo_text_goes_both_ways():
    assert demo.decode(demo.encode("Hello, (world)\n")) == "Hello, (world)\n"
    assert demo.decode(demo.encode("né")) == "n?"


# ---------------------------------------------------------------- where results go


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_nothing_but_a_file_is_replaced(run, model, rng, tmp_path):
    """A device or a pipe stays what it is; behind a link, the file is written."""
    saved = tmp_path / "model.safetensors"
    np.save(tmp_path / "x.npy", rng.standard_normal((4, 3)))
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    for output in ("pipe", "link"):
        status, _, err = run("run", saved, tmp_path / "x.npy", "-o", tmp_path / output)
        assert status == 2 and "No regular file, so it is not replaced" in err
    assert (tmp_path / "pipe").is_fifo()
    (tmp_path / "other").symlink_to(tmp_path / "y.npy")
    status, _, _ = run("run", saved, tmp_path / "x.npy", "-o", tmp_path / "other")
    assert status == 0 and (tmp_path / "other").is_symlink()
    assert np.load(tmp_path / "y.npy").shape == (4, 2)


def test_two_outputs_may_not_be_one_file(run, model, rng, tmp_path):
    np.save(tmp_path / "x.npy", rng.standard_normal((4, 3)))
    files = ("-o", tmp_path / "same", "--state", tmp_path / "." / "same")
    status, _, err = run("run", tmp_path / "model.safetensors", tmp_path / "x.npy", *files)
    assert status == 2 and "another file than the other output" in err
    assert not (tmp_path / "same").exists()


def test_a_full_disk_is_an_os_error(run, model, tmp_path, monkeypatch):
    def full(*_):
        raise SafetensorError("No space left on device")

    monkeypatch.setattr("fastrnn.saving.save_file", full)
    status, _, err = run("convert", tmp_path / "model.safetensors", tmp_path / "out.safetensors")
    assert status == 2 and "No space left on device" in err
    assert sorted(os.listdir(tmp_path)) == ["model.safetensors"]


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="no way here to ask for room")
def test_a_disk_too_small_for_the_output_is_an_os_error(run, model, tmp_path, monkeypatch):
    """Else the first write to a page without room is a signal, and the process dies."""
    np.save(tmp_path / "x.npy", np.ones((5, 3)))

    def full(_, begin, size):
        assert begin == 0 and size == os.path.getsize(next(tmp_path.glob(".fastrnn-*")))
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    status, _, err = run("run", tmp_path / "model.safetensors", tmp_path / "x.npy", "-o", tmp_path / "y.npy")
    assert status == 2 and "No space left on device" in err
    assert sorted(os.listdir(tmp_path)) == ["model.safetensors", "x.npy"]


@pytest.mark.skipif(os.name == "nt", reason="no such signal here")
def test_an_end_by_signal_leaves_nothing_begun(run, model, tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", np.ones((5, 3)))

    def kill(*_):
        assert list(tmp_path.glob(".fastrnn-*"))
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(offline._Output, "write", kill)
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
    assert status == 2 and "The file may not be written" in err


def test_a_self_test_of_another_size_is_not_made(run, tmp_path):
    """A file of 2 kB that names a layer of 2^30 features."""
    options = {"normalized_shape": 2**30, "eps": 1e-5, "precision": "float32"}
    layers = [{"kind": "LayerNorm", "options": options}]
    golden = {name: np.zeros((12, 2, 4)) for name in ("golden.input", "golden.output")}
    description = json.dumps({"version": 1, "tolerance": 1.0, "layers": layers})
    save_file(golden, tmp_path / "large.safetensors", {"fastrnn": description})
    tracemalloc.start()
    status, _, err = run("verify", tmp_path / "large.safetensors")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert status == 2 and "a self-test of this model, got another" in err and peak < 2**24


def test_a_wrong_environment_is_not_the_file_s_fault(run, model, tmp_path, monkeypatch):
    monkeypatch.setenv("FASTRNN_NUM_THREADS", "many")
    status, _, err = run("verify", tmp_path / "model.safetensors")
    assert status == 2
    assert err == "fastrnn verify: FASTRNN_NUM_THREADS: expected a whole number of at least 1, got 'many'.\n"


def test_the_lowest_temperature_takes_the_likeliest(run):
    texts = [run("demo", "--length", 20, "--temperature", t, "--json")[1] for t in ("1e-320", "1e-5")]
    assert json.loads(texts[0])["text"] == json.loads(texts[1])["text"]


def test_names_of_a_file_stay_on_their_line(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with open("bad\nname\x1b[31m.pt", "w") as file:
        file.write("no weights")
    status, _, err = run("info", "bad\nname\x1b[31m.pt")
    assert (
        status == 2 and err.startswith("fastrnn info: bad?name?[31m.pt: expected ") and err.count("\n") == 1
    )
    np.savez(
        "names.npz", **{f"\x1b]0;\nrnn.{name}": np.ones((4, 4)) for name in ("weight_ih_l0", "weight_hh_l0")}
    )
    status, out, _ = run("info", "names.npz")
    assert status == 0 and "?]0;?rnn.weight_ih_l0" in out and "\x1b" not in out


def test_names_do_not_steer_a_terminal(capsys, monkeypatch):
    """Neither by markup nor by control characters."""
    pytest.importorskip("rich")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    print_table(("tensor",), [("a[/b]",), ("c\x1b]0;d\x07\ne",)])
    shown = capsys.readouterr().out
    assert "a[/b]" in shown and "c?]0;d??e" in shown and "\x07" not in shown


@pytest.mark.parametrize(
    "arguments, words",
    (
        (["demo", "--seed", "-1"], "--seed: expected a number from 0 on, got -1."),
        (["demo", "--length", "0"], "--length: expected a number from 1 on, got 0."),
        (["demo", "--length", "many"], "--length: invalid int value: 'many'"),
        (["demo", "--temperature", "nan"], "--temperature: expected a number above 0, got nan."),
        (["demo", "--temperature", "hot"], "--temperature: invalid float value: 'hot'"),
        (["demo", "--temperature", "inf"], "--temperature: expected a number above 0, got inf."),
        (["demo", "--prompt", ""], "--prompt: expected at least one character, got none."),
        (["bench", "m", "--rounds", "0"], "--rounds: expected a number from 1 on, got 0."),
        (["bench", "m", "--batch", "-1"], "--batch: expected a number from 1 on, got -1."),
    ),
)  # fmt: skip
def test_arguments_out_of_range_are_refused(capsys, arguments, words):
    with pytest.raises(SystemExit) as exit:
        main(arguments)
    assert exit.value.code == 2
    assert capsys.readouterr().err.endswith(f"fastrnn {arguments[0]}: error: argument {words}\n")


def test_a_message_names_the_command_once(run, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.ones(5))
    _, _, err = run("run", "model.safetensors", "x.npy", "-o", "y.npy")
    assert err == "fastrnn run: input: expected an array of shape (T, I) or (T, B, I), got (5,).\n"


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


DEMO = [sys.executable, "-m", "fastrnn", "demo", "--json", "--length", "2000"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no full device here")
def test_a_full_stderr_costs_no_result():
    with open("/dev/full", "w") as full:
        result = subprocess.run(DEMO, stdout=subprocess.PIPE, stderr=full, check=True)
    assert len(json.loads(result.stdout)["text"]) > 2000


def test_a_reader_of_stderr_that_goes_away_costs_no_result():
    process = subprocess.Popen(DEMO, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stderr.close()
    out = process.stdout.read()
    process.stdout.close()
    assert process.wait() == 0 and len(json.loads(out)["text"]) > 2000


def test_the_streams_of_the_caller_stay_as_they_were(run, capsys):
    before = sys.stdout, sys.stdout.errors, sys.stderr
    assert run("info", demo.weights_path())[0] == 0
    assert (sys.stdout, sys.stdout.errors, sys.stderr) == before


def test_where_a_link_leads_is_looked_at_before_the_work(run, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.ones((5, 3)))
    os.symlink("nowhere/s.npz", "link")
    command = ("run", "model.safetensors", "x.npy", "-o", "y.npy", "--state", "link")
    status, _, err = run(*command)
    assert status == 2 and "No such folder to write in" in err and not os.path.exists("y.npy")
    os.mkdir("nowhere")
    assert run(*command)[0] == 0 and os.path.islink("link") and os.path.isfile("nowhere/s.npz")


def test_a_folder_that_may_not_be_written_in_is_refused_before_the_work(run, model, tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", np.ones((5, 3)))
    monkeypatch.setattr(os, "access", lambda *_: False)  # whoever is root may write anywhere
    status, _, err = run("run", tmp_path / "model.safetensors", tmp_path / "x.npy", "-o", tmp_path / "y.npy")
    assert status == 2 and "The folder may not be written in" in err
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


def test_weights_that_are_no_numbers_are_named(run, tmp_path):
    np.savez(tmp_path / "nan.npz", weight_ih_l0=np.ones((4, 3)), weight_hh_l0=np.full((4, 1), np.nan))
    status, _, err = run("convert", tmp_path / "nan.npz", tmp_path / "model.safetensors")
    assert status == 0 and err == "nan.npz: weight_hh_l0 holds NaN or infinity.\n"
    np.save(tmp_path / "x.npy", np.ones((5, 3)))
    status, _, err = run("run", tmp_path / "model.safetensors", tmp_path / "x.npy", "-o", tmp_path / "y.npy")
    assert status == 0 and err.startswith("model.safetensors: layers.0.weight_hh_l0 holds NaN or infinity.\n")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_run_does_not_wait_at_a_pipe(run, model, tmp_path):
    os.mkfifo(tmp_path / "x.npy")
    status, _, err = run("run", tmp_path / "model.safetensors", tmp_path / "x.npy", "-o", tmp_path / "y.npy")
    assert status == 2 and err == "fastrnn run: x.npy: expected a regular file, got a pipe or a device.\n"
