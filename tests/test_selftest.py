"""A model beside what torch's module gave: examples, what would agree, and what was never compared."""

import json
import warnings

import numpy as np
import pytest
from helpers import assert_close, random_layer
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import fastrnn
from fastrnn.cli import main
from fastrnn.model import verify


@pytest.fixture
def run(capsys):
    """Run a command; give its status, stdout and stderr."""

    def call(*arguments):
        status = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


def tagger(rng, precision="float32", batch_first=True, kind="LSTM"):
    """An LSTM and a Linear, as a state dict has them; and the layers."""
    lstm = random_layer(rng, kind, 3, 6, precision=precision, batch_first=batch_first)
    fc = {"weight": rng.standard_normal((2, 6)), "bias": rng.standard_normal(2)}
    weights = {f"lstm.{name}": array for name, array in lstm.tensors.items()}
    weights |= {f"fc.{name}": array.astype(precision) for name, array in fc.items()}
    return weights, lstm, fastrnn.Linear.from_state_dict(fc, precision=precision)


# What a module's forward may do that no state dict tells, and the hint that finds it.
TAILS = {
    "sigmoid": (
        lambda lstm, fc: [lstm, fc, fastrnn.Sigmoid()],
        "It agrees with batch_first=True and Sigmoid().",
    ),
    "last": (lambda lstm, fc: [lstm, fastrnn.Last(), fc], "It agrees with batch_first=True and Last()."),
    "all": (
        lambda lstm, fc: [lstm, fastrnn.Last(), fc, fastrnn.Softmax()],
        "It agrees with batch_first=True, Last() and Softmax().",
    ),
    "layout": (lambda lstm, fc: [lstm, fc], "It agrees with batch_first=True."),
    "relu": (lambda lstm, fc: [lstm, fc, fastrnn.ReLU()], "It agrees with batch_first=True and ReLU()."),
}


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("kind", ("LSTM", "GRU"))
def test_what_no_file_tells_is_found_by_an_example(rng, tmp_path, tail, kind):
    weights, lstm, fc = tagger(rng, kind=kind)
    make, hint = TAILS[tail]
    right = fastrnn.Sequential(*make(lstm, fc))
    x = rng.standard_normal((4, 9, 3))
    y, _ = right(x)
    np.savez(tmp_path / "a.npz", **weights)
    wrong = fastrnn.load(tmp_path / "a.npz")
    result = wrong.verify(x, y)
    assert not result["passed"] and result["hint"].endswith(hint)
    with pytest.raises(ValueError, match=r"save: expected the example's output within .*It agrees with"):
        wrong.save(tmp_path / "m", example=(x, y))
    assert not (tmp_path / "m").exists()
    result = right.verify(x, y)
    assert result["passed"] and result["hint"] == "" and result["values"] == y.size
    right.save(tmp_path / "m", example=(x, y))
    found = verify(tmp_path / "m")
    assert found["passed"] and found["example"]["passed"] and found["taken_for_granted"] == []


@pytest.mark.parametrize("precision", ("float32", "float64"))
def test_an_example_may_have_state_and_lengths(rng, tmp_path, precision):
    lstm = random_layer(rng, "LSTM", 3, 6, precision=precision)
    model = fastrnn.Sequential(lstm, random_layer(rng, "GRU", 6, 4, precision=precision))
    x, lengths = rng.standard_normal((5, 3, 3)), [5, 2, 4]
    h, c, g = (rng.standard_normal((1, 3, n)) for n in (6, 6, 4))
    state = ((h, c), g)
    y, _ = model(x, state, lengths=lengths)
    assert model.verify(x, y, state, lengths=lengths)["passed"]
    assert not model.verify(x, y, lengths=lengths)["passed"]
    assert not model.verify(x, y, state)["passed"]
    model.save(tmp_path / "m", example=(x, y, state, lengths))
    assert verify(tmp_path / "m")["example"]["passed"]
    tensors = load_file(tmp_path / "m")
    np.testing.assert_array_equal(tensors["example.state2"], g)
    np.testing.assert_array_equal(tensors["example.lengths"], lengths)


def test_an_example_of_torch_passes_and_a_wrong_one_fails(tmp_path):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)

    class Classifier(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = torch.nn.Embedding(11, 5)
            self.lstm = torch.nn.LSTM(5, 6, batch_first=True, num_layers=2)
            self.fc = torch.nn.Linear(6, 1)

        def forward(self, tokens):
            return torch.sigmoid(self.fc(self.lstm(self.embedding(tokens))[0][:, -1])).squeeze(-1)

    module = Classifier().eval()
    tokens = torch.randint(11, (4, 30))
    with torch.no_grad():
        y = module(tokens).numpy()
    torch.save(module.state_dict(), tmp_path / "a.pt")
    model = fastrnn.load(tmp_path / "a.pt")
    assert model.verify(tokens.numpy(), y)["hint"].endswith(
        "It agrees with batch_first=True, Last() and Sigmoid()."
    )
    sd = fastrnn.load_state_dict(tmp_path / "a.pt")
    right = fastrnn.Sequential(
        fastrnn.Embedding.from_state_dict(sd, "embedding"),
        fastrnn.LSTM.from_state_dict(sd, "lstm", batch_first=True),
        fastrnn.Last(),
        fastrnn.Linear.from_state_dict(sd, "fc"),
        fastrnn.Sigmoid(),
    )
    assert right.verify(tokens.numpy(), y)["passed"]  # the axis of one that squeeze took counts nothing
    off = right.verify(tokens.numpy(), y + 1e-3)
    assert not off["passed"] and off["largest_error"] == pytest.approx(1e-3, rel=0.01)
    assert right.verify(tokens.numpy(), y + 1e-3, tolerance=0.01)["passed"]


def test_an_example_that_is_none_is_refused(rng):
    model = fastrnn.Sequential(random_layer(rng, "GRU", 3, 4))
    x = np.ones((5, 3))
    for example, error, words in (
        ((x,), TypeError, "example to be"),
        (x, TypeError, "example to be"),
        ((x, None), ValueError, "x and y together, got no y"),
        ((x, "y"), TypeError, "y to hold real numbers"),
        ((x, x, (x, x)), ValueError, "h"),
    ):
        with pytest.raises(error, match=words):
            model.save("never", example=example)
    with pytest.raises(ValueError, match="x and y together, got no x"):
        model.verify(y=x)
    result = model.verify(np.ones((5, 7)), x)
    assert not result["passed"] and "does not take this input" in result["hint"]


def test_without_an_example_a_model_is_tested_beside_the_reference(rng):
    model = fastrnn.Sequential(random_layer(rng, "GRU", 3, 4))
    result = model.verify()
    assert result["passed"] and result["values"] == 12 * 2 * 4


@pytest.mark.parametrize("noise", (0.0, 1e-6))
def test_networks_that_amplify_rounding_are_allowed_for_it(rng, noise):
    """Large weights: the float32 output is far from the float64 one, and torch's would be as far."""
    layer = random_layer(rng, "RNN", 3, 40, precision="float32")
    tensors = {name: array * 4 for name, array in layer.tensors.items()}
    model = fastrnn.Sequential(fastrnn.RNN.from_state_dict(tensors))
    wide = fastrnn.Sequential(fastrnn.RNN.from_state_dict(tensors, precision="float64"))
    x = rng.standard_normal((50, 2, 3))
    assert model.verify(x, wide(x)[0].astype(np.float32))["passed"]


# ---------------------------------------------------------------- never compared


def test_what_was_taken_for_granted_stays_with_the_file(rng, tmp_path):
    weights, _, _ = tagger(rng)
    np.savez(tmp_path / "a.npz", **weights)
    model = fastrnn.load(tmp_path / "a.npz")
    assert model.taken_for_granted == ("time first", "an output for every step", "no activations")
    assert (
        fastrnn.load(tmp_path / "a.npz", batch_first=True).taken_for_granted[0] == "an output for every step"
    )
    model.save(tmp_path / "m")
    with pytest.warns(UserWarning, match=r"^m: This model was never compared with torch's output. Taken for"):
        again = fastrnn.load(tmp_path / "m")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fastrnn.load(tmp_path / "m")  # once
    assert again.taken_for_granted == model.taken_for_granted
    again.save(tmp_path / "n")
    assert verify(tmp_path / "n")["taken_for_granted"] == list(model.taken_for_granted)
    x = rng.standard_normal((5, 2, 3))
    again.save(tmp_path / "n", example=(x, model(x)[0]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compared = fastrnn.load(tmp_path / "n")
    assert compared.taken_for_granted == ()


def test_a_model_that_was_written_out_takes_nothing_for_granted(rng, tmp_path):
    _, lstm, fc = tagger(rng)
    fastrnn.Sequential(lstm, fc).save(tmp_path / "m")
    assert fastrnn.load(tmp_path / "m").taken_for_granted == ()
    assert verify(tmp_path / "m")["example"] is None


def test_the_command_line_says_what_was_never_compared(rng, run, tmp_path):
    weights, _, _ = tagger(rng)
    np.savez(tmp_path / "a.npz", **weights)
    status, out, _ = run("convert", tmp_path / "a.npz", tmp_path / "m")
    never = "This model was never compared with torch's output. Taken for granted: time first, an output"
    assert status == 0 and never in out and f"fastrnn verify {tmp_path / 'm'} --input x.npy" in out
    assert never in run("info", tmp_path / "m")[1]
    assert json.loads(run("info", tmp_path / "m", "--json")[1])["taken_for_granted"][0] == "time first"
    status, out, _ = run("verify", tmp_path / "m")
    assert status == 0 and out.startswith("passed: self-test") and never in out
    found = json.loads(run("verify", tmp_path / "m", "--json")[1])
    assert found["passed"] and found["example"] is None and len(found["taken_for_granted"]) == 3


def test_the_command_line_compares_and_keeps(rng, run, tmp_path):
    weights, lstm, fc = tagger(rng)
    np.savez(tmp_path / "a.npz", **weights)
    right = fastrnn.Sequential(lstm, fastrnn.Last(), fc)
    x = rng.standard_normal((4, 9, 3))
    h, c = rng.standard_normal((2, 1, 4, 6))
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", right(x, (h, c))[0])
    np.savez(tmp_path / "s.npz", h=h, c=c)
    np.save(tmp_path / "other.npy", right(x)[0])
    example = "--input", tmp_path / "x.npy", "--expect", tmp_path / "y.npy", "--state", tmp_path / "s.npz"
    # convert: refused while it does not agree, and nothing is written.
    status, _, err = run("convert", tmp_path / "a.npz", tmp_path / "m", *example)
    assert (
        status == 2 and "It agrees with batch_first=True and Last()." in err and not (tmp_path / "m").exists()
    )
    status, out, _ = run("convert", tmp_path / "a.npz", tmp_path / "m", *example, "--batch-first", "--last")
    assert status == 0 and "Last()" in out and "beside torch" in out and "never compared" not in out
    assert run("info", tmp_path / "m")[1].endswith(
        "holds an example from torch: `fastrnn verify` compares.\n"
    )
    # verify: later, for a model that was never compared.
    run("convert", tmp_path / "a.npz", tmp_path / "n", "--batch-first", "--last")
    status, out, _ = run("verify", tmp_path / "n", *example)
    assert status == 0 and out.startswith("passed: 8 values")
    assert "never compared" in run("verify", tmp_path / "n")[1]
    status, out, _ = run("verify", tmp_path / "n", *example, "--keep")
    assert status == 0 and "keeps the example" in out
    assert "beside torch" in run("verify", tmp_path / "n")[1]
    assert json.loads(run("verify", tmp_path / "n", "--json")[1])["example"]["passed"] is True
    status, out, _ = run(
        "verify", tmp_path / "n", "--input", tmp_path / "x.npy", "--expect", tmp_path / "other.npy"
    )
    assert status == 0  # zero states are the default
    status, out, _ = run(
        "verify", tmp_path / "n", *example[:2], "--expect", tmp_path / "other.npy", *example[4:]
    )
    assert status == 1 and out.startswith("FAILED")
    # a state dict may be compared as well
    status, out, _ = run("verify", tmp_path / "a.npz", *example, "--batch-first")
    assert status == 1 and "It agrees with Last()." in out


@pytest.mark.parametrize(
    "arguments, words",
    (
        (["--input", "x.npy"], "--input and --expect together"),
        (["--state", "s.npz"], "--input and --expect beside it"),
        (["--keep"], "--input and --expect beside it"),
        (["--input", "x.npy", "--expect", "two.npz"], "two.npz: expected one array, y"),
        (["--input", "x.npy", "--expect", "text"], "arrays as .npy or .npz"),
        (["--input", "x.npy", "--expect", "x.npy", "--state", "two.npz"], "a state of 2 arrays, got 3"),
    ),
)
def test_wrong_examples_of_the_command_line_are_named(rng, run, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    _, lstm, fc = tagger(rng)
    fastrnn.Sequential(lstm, fc).save("m")
    np.save("x.npy", np.ones((2, 5, 3)))
    np.savez("two.npz", a=np.ones(2), b=np.ones(2), c=np.ones(3))
    (tmp_path / "text").write_text("text")
    status, _, err = run("verify", "m", *arguments)
    assert status == 2 and words in err


@pytest.mark.parametrize(
    "name, array",
    (("example.surplus", np.ones(2)), ("example.output", None), ("example.state3", np.ones(2))),
)
def test_damaged_examples_are_refused(rng, tmp_path, name, array):
    _, lstm, fc = tagger(rng)
    model = fastrnn.Sequential(lstm, fc)
    x = rng.standard_normal((2, 5, 3))
    model.save(tmp_path / "m", example=(x, model(x)[0]))
    with safe_open(tmp_path / "m", "numpy") as file:
        metadata = file.metadata()
    tensors = {**load_file(tmp_path / "m"), name: array}
    save_file({key: value for key, value in tensors.items() if value is not None}, tmp_path / "m", metadata)
    with pytest.raises(fastrnn.FormatError, match="the description of a saved model"):
        fastrnn.load(tmp_path / "m")


def test_verify_finds_an_example_that_changed(rng, tmp_path):
    _, lstm, fc = tagger(rng)
    model = fastrnn.Sequential(lstm, fc)
    x = rng.standard_normal((2, 5, 3))
    model.save(tmp_path / "m", example=(x, model(x)[0]))
    with safe_open(tmp_path / "m", "numpy") as file:
        metadata = file.metadata()
    tensors = load_file(tmp_path / "m")
    tensors["example.output"] = tensors["example.output"] + 1
    save_file(tensors, tmp_path / "m", metadata)
    result = verify(tmp_path / "m")
    assert not result["passed"] and result["self_test_passed"]
    assert_close(result["example"]["largest_error"], 1.0, 1e-5)
