"""The command line, as a user meets it."""

import json
import os
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

import fastrnn
from fastrnn import demo
from fastrnn.cli import main
from fastrnn.terminal import print_table


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


@pytest.mark.parametrize(
    "arguments, words",
    (
        (["info", "nothing.pt"], "fastrnn info: [Errno 2]"),
        (["info", "text.txt"], "fastrnn info: text.txt: expected a state_dict"),
        (["verify", "lstm.pt"], "expected a model that fastrnn saved, got torch zip. fastrnn convert makes"),
        (["convert", "lstm.pt", "no/such/folder/m"], "No such folder to write in: 'no/such/folder/m'"),
        (["convert", "lstm.pt", "lstm.pt"], "another file than the input, got lstm.pt"),
        (["convert", "lstm.pt", "m", "--nonlinearity", "tanh"], "an RNN to go with nonlinearity, got LSTM"),
    ),
)  # fmt: skip
def test_errors_are_one_line_and_status_2(run, model, golden, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("some text")
    (tmp_path / "lstm.pt").write_bytes((golden / "files" / "lstm_zip.pt").read_bytes())
    before = sorted(os.listdir())
    status, _, err = run(*arguments)
    assert status == 2 and words in err and "Traceback" not in err
    assert sorted(os.listdir()) == before


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


def test_help_says_which_state_is_meant(capsys):
    """The state that an example began in, or the one that a run ends in. --state is either, by command."""
    for command, long, other in (
        ("convert", "--initial-state S, --state S", "--final-state"),
        ("verify", "--initial-state S, --state S", "--final-state"),
        ("run", "--final-state FILE, --state FILE", "--initial-state"),
    ):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        text = " ".join(capsys.readouterr().out.split())
        assert long in text and other not in text


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


def test_a_full_disk_is_an_os_error(run, model, tmp_path, monkeypatch):
    def full(*_):
        raise SafetensorError("No space left on device")

    monkeypatch.setattr("safetensors.numpy.save_file", full)
    status, _, err = run("convert", tmp_path / "model.safetensors", tmp_path / "out.safetensors")
    assert status == 2 and "No space left on device" in err
    assert sorted(os.listdir(tmp_path)) == ["model.safetensors"]


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
        (["demo", "--seed", "-1"], "--seed: expected a number of at least 0, got -1."),
        (["demo", "--length", "0"], "--length: expected a number of at least 1, got 0."),
        (["demo", "--length", "many"], "--length: invalid int value: 'many'"),
        (["demo", "--temperature", "nan"], "--temperature: expected a number above 0, got nan."),
        (["demo", "--temperature", "hot"], "--temperature: invalid float value: 'hot'"),
        (["demo", "--temperature", "inf"], "--temperature: expected a number above 0, got inf."),
        (["demo", "--prompt", ""], "--prompt: expected at least one character, got none."),
        (["bench", "m", "--rounds", "0"], "--rounds: expected a number of at least 1, got 0."),
        (["bench", "m", "--batch", "-1"], "--batch: expected a number of at least 1, got -1."),
    ),
)  # fmt: skip
def test_arguments_out_of_range_are_refused(capsys, arguments, words):
    with pytest.raises(SystemExit) as exit:
        main(arguments)
    assert exit.value.code == 2
    assert capsys.readouterr().err.endswith(f"fastrnn {arguments[0]}: error: argument {words}\n")


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


def test_weights_that_are_no_numbers_are_named(run, tmp_path):
    np.savez(tmp_path / "nan.npz", weight_ih_l0=np.ones((4, 3)), weight_hh_l0=np.full((4, 1), np.nan))
    status, _, err = run("convert", tmp_path / "nan.npz", tmp_path / "model.safetensors")
    words = "weight_hh_l0 holds NaN or infinity at 4 of 4 places, first at (0, 0).\n"
    assert status == 0 and err == f"nan.npz: {words}"
    assert run("info", tmp_path / "nan.npz")[2] == f"nan.npz: {words}"
    for command in ("info", "verify"):
        status, _, err = run(command, tmp_path / "model.safetensors")
        assert status == 0 and err == f"model.safetensors: layers.0.{words}"
    np.save(tmp_path / "x.npy", np.ones((5, 3)))
    status, _, err = run("run", tmp_path / "model.safetensors", tmp_path / "x.npy", "-o", tmp_path / "y.npy")
    assert status == 0 and err.startswith(f"model.safetensors: layers.0.{words}")
