"""Comparing a model with torch's module: examples, what would agree, and what was never compared."""

import copy
import json
import pickle
import warnings

import numpy as np
import pytest
from helpers import assert_close, random_layer, random_spec, random_tensors
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import fastrnn
from fastrnn.loading.verify import verify


def tagger(rng, precision="float32", batch_first=True, kind="LSTM"):
    """Return the state dict of an LSTM and a Linear, and the two layers."""
    lstm = random_layer(rng, kind, 3, 6, precision=precision, batch_first=batch_first)
    fc = {"weight": rng.standard_normal((2, 6)), "bias": np.array([2.0, -2.0])}
    weights = {f"lstm.{name}": array for name, array in lstm.tensors.items()}
    weights |= {f"fc.{name}": array.astype(precision) for name, array in fc.items()}
    return weights, lstm, fastrnn.Linear.from_state_dict(fc, precision=precision)


# What the forward of a module may do that no state dict says, and the hint that names it.
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
def test_what_no_file_says_is_found_by_an_example(rng, tmp_path, tail, kind):
    weights, lstm, fc = tagger(rng, kind=kind)
    make, hint = TAILS[tail]
    right = fastrnn.Sequential(*make(lstm, fc))
    x = rng.standard_normal((4, 9, 3))
    y, _ = right(x)
    np.savez(tmp_path / "a.npz", **weights)
    wrong = fastrnn.load(tmp_path / "a.npz")
    result = wrong.verify(x, y)
    assert not result["passed"] and result["hint"].endswith(hint)
    with pytest.raises(ValueError, match=r"save: expected .* example's .*It agrees with"):
        wrong.save(tmp_path / "m", example=(x, y))
    assert not (tmp_path / "m").exists()
    result = right.verify(x, y)
    assert result["passed"] and result["hint"] == "" and result["values"] == y.size
    right.save(tmp_path / "m", example=(x, y))
    found = verify(tmp_path / "m")
    assert found["passed"] and found["example"]["passed"] and found["taken_for_granted"] is None


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
    assert right.verify(tokens.numpy(), y)[
        "passed"
    ]  # the axis of size 1 that squeeze removed does not matter
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


def test_what_no_layout_of_a_model_takes_is_an_error(rng):
    model = fastrnn.Sequential(random_layer(rng, "LSTM", 3, 4))
    x, y = np.ones((5, 2, 3)), np.ones((5, 2, 4))
    h = np.zeros((1, 5, 4))
    for arguments, words in (
        ((np.ones((5, 7)), y), r"LSTM: expected x of shape \(T, B, 3\)"),
        ((x, y, (1, 2)), r"LSTM: expected h of shape \(1, 2, 4\), got \(\)"),
        ((x, y, (h[:, :3], h[:, :3])), r"LSTM: expected h of shape \(1, 2, 4\), got \(1, 3, 4\)"),
    ):
        with pytest.raises(ValueError, match=words):
            model.verify(*arguments)
        with pytest.raises(ValueError, match=words):
            model.save("never", example=arguments)
    # A state of the other layout is for the hint to name, if it makes the outputs agree.
    other = fastrnn.Sequential(fastrnn.LSTM.from_state_dict(model.layers[0].tensors, batch_first=True))
    result = model.verify(x, other(x, (h, h))[0], (h, h))
    assert not result["passed"] and result["hint"].endswith("It agrees with batch_first=True.")


def test_a_tolerance_is_at_least_0(rng, tmp_path):
    model = fastrnn.Sequential(random_layer(rng, "GRU", 3, 4, precision="float32"))
    x = np.ones((5, 2, 3), np.float32)
    y, _ = model(x)
    assert model.verify(x, y, tolerance=0)["passed"]
    for tolerance in (-1, np.nan, np.inf):
        for call in (
            lambda t=tolerance: model.verify(x, y, tolerance=t),
            lambda t=tolerance: model.save("never", example=(x, y), tolerance=t),
            lambda t=tolerance: model.save("never", tolerance=t),
        ):
            with pytest.raises(ValueError, match=r"expected tolerance to be (at least 0|finite), got"):
                call()
    model.save(tmp_path / "m", example=(x, y), tolerance=0.5)
    content = (
        (tmp_path / "m").read_bytes().replace(b'example_tolerance\\": 0.5', b'example_tolerance\\": -.5')
    )
    with pytest.raises(fastrnn.FormatError):
        fastrnn.load(content)


def test_places_that_are_not_finite_are_named(rng, run, tmp_path):
    model = fastrnn.Sequential(random_layer(rng, "GRU", 3, 4, precision="float32"))
    model.save(tmp_path / "m")
    x = rng.standard_normal((5, 2, 3)).astype(np.float32)
    y, _ = model(x)
    y[1, 0, 2], y[3, 1, 0] = np.nan, np.inf
    result = model.verify(x, y)
    words = "The expected output has NaN at 1 and infinity at 1 of 40 places, first at (1, 0, 2)."
    assert not result["passed"] and np.isnan(result["largest_error"]) and result["hint"] == words
    with pytest.raises(
        ValueError, match=r"save: expected the example's output, got another one\. The expected"
    ):
        model.save("never", example=(x, y))
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    command = ("verify", tmp_path / "m", "--input", tmp_path / "x.npy", "--expect", tmp_path / "y.npy")
    status, out, _ = run(*command)
    assert status == 1 and "largest error NaN" in out and words in out
    found = json.loads(run(*command, "--json")[1], parse_constant=pytest.fail)
    assert found["largest_error"] is None and found["hint"] == words
    x[0, 0, 0] = np.nan  # the same in both outputs
    assert model.verify(x, model(x)[0])["passed"]
    result = model.verify(x, np.zeros((5, 2, 4), np.float32))
    assert result["hint"] == "The computed output has NaN at 20 of 40 places, first at (0, 0, 0)."


# ---------------------------------------------------------------- files that are saved again


def test_an_example_stays_with_a_model_that_is_saved_again(rng, run, tmp_path):
    _, lstm, fc = tagger(rng, precision="float64")
    model = fastrnn.Sequential(lstm, fc)
    x, (h, c) = rng.standard_normal((4, 9, 3)), rng.standard_normal((2, 1, 4, 6))
    lengths = [9, 1, 5, 2]
    y, _ = model(x, (h, c), lengths=lengths)
    model.save(tmp_path / "m", example=(x, y, (h, c), lengths))
    fastrnn.load(tmp_path / "m").save(tmp_path / "n")
    assert (tmp_path / "n").read_bytes() == (tmp_path / "m").read_bytes()
    assert run("convert", tmp_path / "m", tmp_path / "n")[0] == 0
    assert (tmp_path / "n").read_bytes() == (tmp_path / "m").read_bytes()
    copy.deepcopy(pickle.loads(pickle.dumps(fastrnn.load(tmp_path / "m")))).save(tmp_path / "n")
    assert (tmp_path / "n").read_bytes() == (tmp_path / "m").read_bytes()
    # At another precision it stays if it still agrees: the tolerance is then that of the precision.
    fastrnn.load(tmp_path / "m", precision="float32").save(tmp_path / "n")
    assert verify(tmp_path / "n")["example"]["passed"]


def test_an_example_that_a_new_file_cannot_hold_is_named(rng, run, tmp_path):
    _, lstm, fc = tagger(rng, precision="float64")
    model = fastrnn.Sequential(lstm, fc)
    x = rng.standard_normal((4, 9, 3))
    model.save(tmp_path / "m", example=(x, model(x)[0]), tolerance=1e-12)
    narrow = fastrnn.load(tmp_path / "m", precision="float32")
    words = "The new file does not hold the example from torch."
    with pytest.warns(
        UserWarning, match=f"^save: expected the example's output in float32, within .*{words}"
    ):
        narrow.save(tmp_path / "n")
    assert verify(tmp_path / "n")["example"] is None
    status, _, err = run("convert", tmp_path / "m", tmp_path / "n", "--precision", "float32")
    assert status == 0 and err.startswith("save: expected") and err.endswith(f"{words}\n")
    status, _, err = run("convert", tmp_path / "m", tmp_path / "n", "--last")
    assert status == 0 and err == "m: its example is not kept: it is of another output.\n"
    # A file's own model has to agree with it.
    change_tensors(tmp_path / "m", lambda tensors: tensors.update({"example.output": np.ones((4, 9, 2))}))
    with pytest.raises(ValueError, match="save: expected the example's output within 1e-12"):
        fastrnn.load(tmp_path / "m").save(tmp_path / "n")


def test_a_state_that_does_not_fit_an_example_is_damage(rng, tmp_path):
    model = fastrnn.Sequential(random_layer(rng, "GRU", 3, 4))
    x, h = rng.standard_normal((5, 2, 3)), np.zeros((1, 2, 4))
    model.save(tmp_path / "m", example=(x, model(x, h)[0], h))
    change_tensors(tmp_path / "m", lambda tensors: tensors.update({"example.state1": h}))
    with pytest.raises(fastrnn.FormatError, match="m: expected an example of this model, got another"):
        fastrnn.load(tmp_path / "m")


# ---------------------------------------------------------------- what no file can hold


@pytest.mark.parametrize("dim", (7, -9, 2**64))
@pytest.mark.parametrize("cls", (fastrnn.Softmax, fastrnn.LogSoftmax))
def test_an_axis_that_is_not_there_is_a_value_error(rng, cls, dim):
    model = fastrnn.Sequential(random_layer(rng, "GRU", 3, 4), cls(dim))
    x = np.ones((5, 2, 3))
    for call in (model.verify, lambda: model.verify(x, x), lambda: model.save("never")):
        with pytest.raises(ValueError, match=f"{cls.__name__}: expected x with an axis {dim}, got shape"):
            call()


def test_a_subclass_of_a_layer_runs_but_has_no_file(rng):
    class Mine(fastrnn.LSTM):
        pass

    class Other(fastrnn.ReLU):
        pass

    x = np.ones((5, 2, 3))
    lstm = Mine.from_state_dict(random_layer(rng, "LSTM", 3, 4).tensors)
    for layers, words in (([lstm], "Mine, a subclass of LSTM"), ([Other()], "Other, a subclass of ReLU")):
        model = fastrnn.Sequential(*layers)
        y, _ = model(x)
        for name, call in (("verify", model.verify), ("save", lambda m=model: m.save("never")),
                           ("verify", lambda m=model, y=y: m.verify(x, y))):  # fmt: skip
            with pytest.raises(
                TypeError, match=f"{name}: expected layers of fastrnn's own classes, got {words}"
            ):
                call()


def test_without_an_example_a_model_is_tested_beside_the_reference(rng):
    model = fastrnn.Sequential(random_layer(rng, "GRU", 3, 4))
    result = model.verify()
    assert result["passed"] and result["values"] == 12 * 2 * 4


@pytest.mark.parametrize("noise", (0.0, 1e-6))
def test_networks_that_amplify_rounding_are_allowed_for_it(rng, noise):
    """With large weights the float32 output is far from the float64 one, as torch's would be."""
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
    assert model.taken_for_granted == ("time_first", "every_step", "no_activations")
    assert fastrnn.load(tmp_path / "a.npz", batch_first=True).taken_for_granted[0] == "every_step"
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
    assert compared.taken_for_granted is None


def test_a_model_that_was_written_out_takes_nothing_for_granted(rng, tmp_path):
    _, lstm, fc = tagger(rng)
    fastrnn.Sequential(lstm, fc).save(tmp_path / "m")
    assert fastrnn.load(tmp_path / "m").taken_for_granted is None
    assert verify(tmp_path / "m")["example"] is None


def test_the_command_line_says_what_was_never_compared(rng, run, tmp_path):
    weights, _, _ = tagger(rng)
    np.savez(tmp_path / "a.npz", **weights)
    status, out, _ = run("convert", tmp_path / "a.npz", tmp_path / "m")
    never = "This model was never compared with torch's output. Taken for granted: time first, an output"
    assert status == 0 and never in out and f"fastrnn verify {tmp_path / 'm'} --input x.npy" in out
    assert never in run("info", tmp_path / "m")[1]
    assert json.loads(run("info", tmp_path / "m", "--json")[1])["taken_for_granted"][0] == "time_first"
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
    assert status == 0 and "Last()" in out and "compared with torch" in out and "never compared" not in out
    assert (
        "holds an example from torch, which `fastrnn verify` compares with.\nNothing is"
        in run("info", tmp_path / "m")[1]
    )
    # verify: later, for a model that was never compared.
    run("convert", tmp_path / "a.npz", tmp_path / "n", "--batch-first", "--last")
    status, out, _ = run("verify", tmp_path / "n", *example)
    assert status == 0 and out.startswith("passed: 8 values")
    assert "never compared" in run("verify", tmp_path / "n")[1]
    status, out, _ = run("verify", tmp_path / "n", *example, "--keep")
    assert status == 0 and "holds the example" in out
    assert "compared with torch" in run("verify", tmp_path / "n")[1]
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
        (["--input", "x.npy"], "both --input and --expect, got one of them"),
        (["--state", "s.npz"], "--input and --expect as well"),
        (["--keep"], "--input and --expect as well"),
        (["--input", "x.npy", "--expect", "two.npz"], "two.npz: expected one array, y"),
        (["--input", "x.npy", "--expect", "text"], "arrays as .npy or .npz"),
        (
            ["--input", "x.npy", "--expect", "x.npy", "--state", "two.npz"],
            "two.npz: expected h, or h and c, or state0",
        ),
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


def change_tensors(path, change):
    """Write a saved model again with changed tensors."""
    with safe_open(path, "numpy") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata)


@pytest.fixture
def with_example(rng, tmp_path):
    """The path of a model that was saved with an example."""
    _, lstm, fc = tagger(rng)
    model = fastrnn.Sequential(lstm, fc)
    x = rng.standard_normal((2, 5, 3))
    model.save(tmp_path / "m", example=(x, model(x)[0]))
    return tmp_path / "m"


@pytest.mark.parametrize(
    "change",
    (
        lambda tensors: tensors.update({"example.surplus": np.ones(2)}),
        lambda tensors: tensors.pop("example.output"),
        lambda tensors: tensors.update({"example.state3": np.ones(2)}),
    ),
)
def test_damaged_examples_are_refused(with_example, change):
    change_tensors(with_example, change)
    with pytest.raises(fastrnn.FormatError, match="the description of a saved model"):
        fastrnn.load(with_example)


def test_verify_finds_an_example_that_changed(with_example):
    change_tensors(
        with_example, lambda tensors: tensors.update({"example.output": tensors["example.output"] + 1})
    )
    result = verify(with_example)
    assert not result["passed"] and result["self_test_passed"]
    assert_close(result["example"]["largest_error"], 1.0, 1e-5)


def test_a_wrong_nonlinearity_is_found(rng):
    weights = random_tensors(rng, random_spec("rnn_tanh", 3, 4), np.float32)
    models = [
        fastrnn.Sequential(fastrnn.RNN.from_state_dict(weights, nonlinearity=n)) for n in ("tanh", "relu")
    ]
    x = rng.standard_normal((6, 2, 3))
    for model, other, name in ((*models, "relu"), (*models[::-1], "tanh")):
        result = model.verify(x, other(x)[0])
        assert not result["passed"] and result["hint"] == f'It agrees with nonlinearity="{name}".'


# ---------------------------------------------------------------- what an example decides


@pytest.mark.parametrize(
    "x_shape, open_",
    (
        ((4, 9, 3), ()),
        ((9, 3), ("time_first",)),  # an unbatched sequence fits both layouts
        ((1, 1, 3), ("time_first", "every_step")),
        ((1, 4, 3), ("every_step",)),  # one step: its output is the last
    ),
)
def test_what_an_example_does_not_decide_stays_open(rng, run, tmp_path, x_shape, open_):
    weights, _, _ = tagger(rng)
    weights["fc.bias"] = np.array([5, -5], np.float32)  # every activation changes these outputs
    np.savez(tmp_path / "a.npz", **weights)
    model = fastrnn.load(tmp_path / "a.npz")
    x = rng.standard_normal(x_shape)
    y, _ = model(x)
    model.save(tmp_path / "m", example=(x, y))
    assert verify(tmp_path / "m")["taken_for_granted"] == (list(open_) if open_ else None)
    if not open_:
        return
    with pytest.warns(UserWarning, match="m: Its example from torch fits other choices too"):
        fastrnn.load(tmp_path / "m")
    assert "Still taken for granted" in run("info", tmp_path / "m")[1]


def test_an_activation_that_changes_nothing_stays_open(rng, tmp_path):
    weights, _, _fc = tagger(rng)
    weights["fc.bias"] = np.full(2, 100, np.float32)  # ReLU would give the same
    np.savez(tmp_path / "a.npz", **weights)
    model = fastrnn.load(tmp_path / "a.npz")
    x = rng.standard_normal((4, 9, 3))
    model.save(tmp_path / "m", example={"x": x, "y": model(x)[0]})
    assert verify(tmp_path / "m")["taken_for_granted"] == ["no_activations"]


def test_layers_that_were_written_down_were_not_compared_either(rng, run, tmp_path):
    weights, _, _ = tagger(rng)
    np.savez(tmp_path / "a.npz", **weights)
    status, out, err = run("convert", tmp_path / "a.npz", tmp_path / "m", "--layers", "lstm")
    assert status == 0 and 'a.npz: not used: the modules "fc".' in err and "never compared" in out
    with pytest.warns(UserWarning, match="m: This model was never compared with torch's output. Taken for"):
        fastrnn.load(tmp_path / "m")


def test_the_warning_comes_once_for_each_content(rng, tmp_path):
    contents = []
    for _ in range(2):
        weights, _, _ = tagger(rng)
        np.savez(tmp_path / "a.npz", **weights)
        fastrnn.load(tmp_path / "a.npz").save(tmp_path / "m")
        contents.append((tmp_path / "m").read_bytes())
    for content in contents:
        with pytest.warns(UserWarning, match="bytes: This model was never compared"):
            fastrnn.load(content)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            fastrnn.load(content)


def test_a_tolerance_goes_with_its_example(rng, run, tmp_path):
    weights, _, _ = tagger(rng)
    np.savez(tmp_path / "a.npz", **weights)
    x = rng.standard_normal((4, 9, 3))
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", fastrnn.load(tmp_path / "a.npz")(x)[0] + 1e-3)
    example = "--input", tmp_path / "x.npy", "--expect", tmp_path / "y.npy"
    assert run("convert", tmp_path / "a.npz", tmp_path / "m", *example)[0] == 2
    assert run("convert", tmp_path / "a.npz", tmp_path / "m", *example, "--tolerance", "0.01")[0] == 0
    found = verify(tmp_path / "m")["example"]
    assert found["passed"] and found["tolerance"] == 0.01
    run("convert", tmp_path / "a.npz", tmp_path / "n")
    assert run("verify", tmp_path / "n", *example, "--keep")[0] == 1
    assert run("verify", tmp_path / "n", *example, "--keep", "--tolerance", "0.01")[0] == 0
    assert verify(tmp_path / "n")["passed"]


def test_states_of_a_file_are_told_by_their_names(rng, run, tmp_path):
    _, lstm, fc = tagger(rng)
    model = fastrnn.Sequential(lstm, fc)
    model.save(tmp_path / "m")
    x, (h, c) = rng.standard_normal((4, 9, 3)), rng.standard_normal((2, 1, 4, 6))
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", model(x, (h, c))[0])
    for name, arrays, status in (
        ("a", {"c": c, "h": h}, 0), ("b", {"state1": c, "state0": h}, 0), ("c", {"h0": h, "c0": c}, 2),
    ):  # fmt: skip
        np.savez(tmp_path / f"{name}.npz", **arrays)
        found = run("verify", tmp_path / "m", "--input", tmp_path / "x.npy", "--expect", tmp_path / "y.npy",
                    "--state", tmp_path / f"{name}.npz")  # fmt: skip
        assert found[0] == status, found
