"""Whole models: chains, saving, loading, the self-test."""

import json
import os
import pickle
import re

import numpy as np
import pytest
from helpers import assert_close, make_layer, random_layer, random_spec, random_tensors
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import fastrnn
from fastrnn.loading.verify import verify


@pytest.fixture
def state_dict(rng):
    """Embedding, LSTM and Linear, as a small classifier has them."""
    tensors = random_tensors(rng, random_spec("lstm", 5, 6), np.float32)
    return {
        "embedding.weight": rng.standard_normal((11, 5)).astype(np.float32),
        **{f"lstm.{name}": array for name, array in tensors.items()},
        "fc.weight": rng.standard_normal((3, 6)).astype(np.float32),
        "fc.bias": rng.standard_normal(3).astype(np.float32),
    }


@pytest.fixture
def classifier(state_dict):
    return fastrnn.Sequential(
        fastrnn.Embedding.from_state_dict(state_dict, "embedding"),
        fastrnn.LSTM.from_state_dict(state_dict, "lstm", batch_first=True),
        fastrnn.Last(),
        fastrnn.Dropout(0.2),
        fastrnn.Linear.from_state_dict(state_dict, "fc"),
        fastrnn.Softmax(),
    )


def test_model_equals_its_parts(rng, classifier):
    tokens = rng.integers(11, size=(4, 7))
    lengths = [7, 2, 1, 5]
    y, (h, c) = classifier(tokens, lengths=lengths)
    embedding, lstm, _, _, linear, softmax = classifier.layers
    output, (h_n, c_n) = lstm(embedding(tokens), lengths=lengths)
    last = np.stack([output[b, n - 1] for b, n in enumerate(lengths)])
    np.testing.assert_array_equal(y, softmax(linear(last)))
    np.testing.assert_array_equal(h, h_n)
    np.testing.assert_array_equal(c, c_n)


def test_model_carries_states_in_order(rng):
    model = fastrnn.Sequential(
        random_layer(rng, "GRU", 3, 4), fastrnn.Tanh(), random_layer(rng, "LSTM", 4, 2)
    )
    x = rng.standard_normal((9, 2, 3))
    whole, (gru_state, (h, c)) = model(x)
    first, state = model(x[:4])
    second, (gru_after, (h_after, c_after)) = model(x[4:], state)
    assert_close(np.concatenate([first, second]), whole, 1e-14)
    for got, wanted in ((gru_after, gru_state), (h_after, h), (c_after, c)):
        assert_close(got, wanted, 1e-14)
    with pytest.raises(ValueError, match="expected a tuple of 2 states"):
        model(x, gru_state)


def test_model_without_recurrence_has_no_state(rng):
    model = fastrnn.Sequential(fastrnn.ReLU())
    y, state = model(np.array([[-1.0, 2.0]]))
    assert state is None
    np.testing.assert_array_equal(y, [[0, 2]])
    with pytest.raises(ValueError, match="expected no state"):
        model(np.ones((1, 2)), np.ones(2))


def test_unbatched_model(rng, classifier):
    tokens = rng.integers(11, size=7)
    y, (h, _) = classifier(tokens)
    assert y.shape == (3,) and h.shape == (1, 6)
    np.testing.assert_allclose(y, classifier(tokens[None])[0][0], rtol=1e-5)


@pytest.mark.parametrize(
    "make, error, words",
    (
        (lambda rng: (), ValueError, "at least one layer, got none"),
        (lambda rng: (random_layer(rng, "GRU", 3, 4), random_layer(rng, "GRU", 5, 4)), ValueError,
         "layer 1, GRU(5, 4, precision='float64'): expected 5 features, got 4 from the layer before"),
        (lambda rng: (fastrnn.ReLU(), fastrnn.OneHot(3)), ValueError, "layers of tokens first"),
        (lambda rng: (fastrnn.Last(), random_layer(rng)), ValueError, "an input with time steps"),
        (lambda rng: (random_layer(rng, "GRU", 3, 4, batch_first=True), random_layer(rng, "GRU", 4, 4)),
         ValueError, "one batch_first for all layers"),
        (lambda rng: ("relu",), TypeError, "layers of fastrnn"),
    ),
)  # fmt: skip
def test_layers_that_do_not_fit_are_refused(rng, make, error, words):
    with pytest.raises(error, match=re.escape(words)):
        fastrnn.Sequential(*make(rng))


def test_lengths_are_checked_before_anything_runs(classifier):
    with pytest.raises(ValueError, match="lengths from 1 to 3, got 4"):
        classifier(np.zeros((2, 3), int), lengths=[4, 1])
    with pytest.raises(ValueError, match="a batch beside lengths"):
        classifier(np.zeros(3, int), lengths=[3])


def test_model_survives_pickling(rng, classifier):
    tokens = rng.integers(11, size=(2, 5))
    again = pickle.loads(pickle.dumps(classifier))
    np.testing.assert_array_equal(again(tokens)[0], classifier(tokens)[0])


# ---------------------------------------------------------------- save and load


def all_layers_model(rng):
    def linear(rows, columns):
        weights = {"weight": rng.standard_normal((rows, columns)), "bias": rng.standard_normal(rows)}
        return fastrnn.Linear.from_state_dict(weights)

    norm = {"weight": rng.standard_normal(4), "bias": rng.standard_normal(4)}
    return fastrnn.Sequential(
        fastrnn.OneHot(5), linear(4, 5), fastrnn.LayerNorm.from_state_dict(norm, eps=1e-3),
        random_layer(rng, "RNN", 4, 6, precision="float32", bidirectional=True), fastrnn.ReLU(),
        random_layer(rng, "GRU", 12, 4, precision="float32", num_layers=2), fastrnn.LayerNorm(4),
        random_layer(rng, "LSTM", 4, 3, precision="float32"), fastrnn.Tanh(), fastrnn.Dropout(),
        fastrnn.Last(), linear(2, 3), fastrnn.LogSoftmax(), fastrnn.Sigmoid(), fastrnn.Softmax(),
    )  # fmt: skip


@pytest.mark.parametrize("precision", ("float32", "float64"))
@pytest.mark.parametrize("batch_first", (False, True))
def test_saved_model_comes_back(rng, tmp_path, precision, batch_first):
    layer = random_layer(rng, "GRU", 3, 6, precision=precision, batch_first=batch_first)
    fastrnn.Sequential(layer).save(tmp_path / "model.safetensors")
    model = fastrnn.load(tmp_path / "model.safetensors")
    x = rng.standard_normal((4, 2, 3))
    y, _ = model(x)
    np.testing.assert_array_equal(y, layer(x)[0])
    assert y.dtype == precision and repr(model.layers[0]) == repr(layer)
    assert verify(tmp_path / "model.safetensors")["passed"]
    assert sorted(os.listdir(tmp_path)) == ["model.safetensors"]


def test_every_layer_is_saved(rng, tmp_path):
    model = all_layers_model(rng)
    model.save(tmp_path / "m")
    again = fastrnn.load(tmp_path / "m")
    assert repr(again) == repr(model)
    tokens = rng.integers(5, size=(7, 3))
    np.testing.assert_array_equal(again(tokens)[0], model(tokens)[0])
    assert verify(tmp_path / "m")["passed"]


def test_saved_model_can_change_precision(rng, tmp_path):
    model = all_layers_model(rng)
    model.save(tmp_path / "m")
    wide = fastrnn.load(tmp_path / "m", precision="float64")
    tokens = rng.integers(5, size=(7, 3))
    y, _ = wide(tokens)
    assert y.dtype == np.float64
    assert_close(model(tokens)[0], y, 1e-5)


def test_nan_weights_can_be_saved(rng, tmp_path):
    layer = random_layer(rng, "GRU", 3, 4)
    tensors = {name: array.copy() for name, array in layer.tensors.items()}
    tensors["weight_hh_l0"][0, 0] = np.nan
    fastrnn.Sequential(fastrnn.GRU.from_state_dict(tensors)).save(tmp_path / "m")
    assert verify(tmp_path / "m")["passed"]


def test_verify_finds_a_changed_weight(rng, tmp_path):
    fastrnn.Sequential(random_layer(rng, "LSTM", 3, 4, precision="float32")).save(tmp_path / "m")
    with safe_open(tmp_path / "m", "numpy") as file:
        metadata = file.metadata()
    tensors = load_file(tmp_path / "m")
    tensors["layers.0.weight_hh_l0"][2, 1] += 0.01
    save_file(tensors, tmp_path / "m", metadata)
    result = verify(tmp_path / "m")
    assert not result["passed"] and result["largest_error"] > result["tolerance"]


@pytest.mark.parametrize("path", (b"a", 3, None))
def test_save_takes_paths_alone(rng, path):
    with pytest.raises(TypeError, match="save: expected a path, got"):
        fastrnn.Sequential(random_layer(rng)).save(path)


@pytest.mark.parametrize("path", ("", "a\0b", "no/such/folder/a", "."))
def test_a_path_that_takes_no_file_is_an_os_error(rng, tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OSError):
        fastrnn.Sequential(random_layer(rng)).save(path)
    assert not any(tmp_path.iterdir())


def test_failed_save_leaves_the_old_file(rng, tmp_path, monkeypatch):
    model = fastrnn.Sequential(random_layer(rng, "LSTM", 3, 4))
    (tmp_path / "m").write_bytes(b"old")
    monkeypatch.setattr("fastrnn.saving.golden.sequential_reference", lambda *_: np.ones((12, 2, 4)))
    with pytest.raises(RuntimeError, match="save: expected the reference's output within"):
        model.save(tmp_path / "m")
    monkeypatch.undo()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("safetensors.numpy.save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        model.save(tmp_path / "m")
    assert (tmp_path / "m").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["m"]


@pytest.mark.parametrize(
    "change, words",
    (
        (lambda d: d.update(version=99), "version 1, got 99. It was written by another release"),
        (lambda d: d["layers"][0].update(kind="Transformer"), "layers of fastrnn, got 'Transformer'"),
        (lambda d: d["layers"][0].update(kind="__class__"), "layers of fastrnn"),
        (lambda d: d["layers"][0]["options"].update(colour=1), "options of LSTM, got 'colour'"),
        (lambda d: d["layers"][0]["options"].update(prefix="x"), "options of LSTM"),
        (lambda d: d["layers"][0]["options"].update(tensors={"weight": [[0]]}), "options of LSTM"),
        (lambda d: d["layers"][0].update(options=7), "the description of a saved model"),
        (lambda d: d["layers"][0].update(kind="ReLU", options={}), "layers that can be made"),
        (
            lambda d: d["layers"][0].update(kind="LayerNorm", options={"eps": 10**400}),
            "layers that can be made",
        ),
        (lambda d: d["layers"].append({"kind": "Linear", "options": {}}), "layers that can be made"),
        (
            lambda d: d["layers"].append({"kind": "OneHot", "options": {"num_classes": 2**70}}),
            "layers that can be made",
        ),
        (lambda d: d.update(tolerance="much"), "the description of a saved model"),
        (lambda d: d.update(tolerance=float("nan")), "the description of a saved model"),
        (lambda d: d["layers"][0]["options"].update(precision="int3"), "layers that can be made"),
        (lambda d: d["layers"].append({"kind": "GRU", "options": {}}), "layers that can be made"),
        (lambda d: d["layers"].clear(), "the description of a saved model"),
        (lambda d: d.pop("layers"), "the description of a saved model"),
        (lambda d: d.update(layers=3), "the description of a saved model"),
    ),
)
def test_damaged_descriptions_are_refused(rng, tmp_path, change, words):
    fastrnn.Sequential(random_layer(rng, "LSTM", 3, 4)).save(tmp_path / "m")
    with safe_open(tmp_path / "m", "numpy") as file:
        description = json.loads(file.metadata()["fastrnn"])
    change(description)
    save_file(load_file(tmp_path / "m"), tmp_path / "m", {"fastrnn": json.dumps(description)})
    with pytest.raises(fastrnn.FormatError, match=re.escape(words)):
        fastrnn.load(tmp_path / "m")
    save_file(load_file(tmp_path / "m"), tmp_path / "m", {"fastrnn": "{"})
    with pytest.raises(fastrnn.FormatError, match="the description of a saved model"):
        fastrnn.load(tmp_path / "m")


@pytest.mark.parametrize(
    "name, array",
    (
        ("golden.output", np.ones(1)),
        ("golden.output", np.ones((12, 2, 4), np.float32)),
        ("golden.output", np.ones((2, 12, 4))),
        ("golden.input", np.ones((1, 20000, 3))),
        ("golden.input", np.ones((12, 2, 3), np.int64)),
        ("golden.input", None),
    ),
)
def test_self_test_of_another_shape_is_refused(rng, tmp_path, name, array):
    fastrnn.Sequential(random_layer(rng, "LSTM", 3, 4)).save(tmp_path / "m")
    with safe_open(tmp_path / "m", "numpy") as file:
        metadata = file.metadata()
    tensors = {**load_file(tmp_path / "m"), name: array}
    save_file({key: value for key, value in tensors.items() if value is not None}, tmp_path / "m", metadata)
    with pytest.raises(fastrnn.FormatError, match="a self-test of this model, got another, or none"):
        verify(tmp_path / "m")


@pytest.mark.parametrize("layer", (fastrnn.Softmax(dim=7), fastrnn.LogSoftmax(dim=-9)))
def test_model_that_takes_no_input_is_the_files_fault(tmp_path, layer):
    description = {
        "version": 1,
        "tolerance": 1.0,
        "layers": [{"kind": type(layer).__name__, "options": {"dim": layer.dim}}],
    }
    golden = {"golden.input": np.ones((12, 2, 4)), "golden.output": np.ones((12, 2, 4))}
    save_file(golden, tmp_path / "m", {"fastrnn": json.dumps(description)})
    with pytest.raises(fastrnn.FormatError, match="a model that takes the inputs of its tests"):
        verify(tmp_path / "m")


@pytest.mark.parametrize("scale", (1, 2))
@pytest.mark.parametrize("cell", ("rnn_tanh", "rnn_relu", "gru", "lstm"))
def test_models_that_amplify_rounding_can_be_saved(rng, tmp_path, cell, scale):
    """Weights of a large scale make chaos of rounding: the self-test allows for what they do to it."""
    spec = random_spec(cell, 8, 64, 2)
    tensors = {name: scale * rng.standard_normal(shape) for name, shape in spec.tensor_shapes().items()}
    fastrnn.Sequential(make_layer(spec, tensors)).save(tmp_path / "m")
    assert verify(tmp_path / "m")["passed"]


def test_large_vocabulary_is_saved_in_little_memory(tmp_path):
    fastrnn.Sequential(fastrnn.OneHot(200_000)).save(tmp_path / "m")
    assert verify(tmp_path / "m")["passed"]


def test_options_of_the_caller_are_not_the_files_fault(rng, tmp_path):
    fastrnn.Sequential(random_layer(rng, "LSTM", 3, 4)).save(tmp_path / "m")
    for options in ({"threads": 0}, {"backend": "cuda"}, {"precision": "int4"}):
        with pytest.raises(ValueError, match="expected") as caught:
            fastrnn.load(tmp_path / "m", **options)
        assert not isinstance(caught.value, fastrnn.FormatError)
    with pytest.raises(TypeError, match="batch_first to be True or False"):
        fastrnn.load(tmp_path / "m", batch_first="no")


def test_saved_model_refuses_options_that_it_holds(rng, tmp_path):
    fastrnn.Sequential(random_layer(rng, "RNN", 3, 4)).save(tmp_path / "m")
    for options in ({"batch_first": True}, {"nonlinearity": "relu"}):
        with pytest.raises(ValueError, match="no options that the saved model holds"):
            fastrnn.load(tmp_path / "m", **options)


# ---------------------------------------------------------------- plain state dicts


def test_plain_chain_is_loaded(rng, tmp_path, state_dict):
    np.savez(tmp_path / "a", **state_dict)
    model = fastrnn.load(tmp_path / "a.npz", batch_first=True)
    assert repr(model) == "Sequential(Embedding(11, 5), LSTM(5, 6, batch_first=True), Linear(6, 3))"
    y, _ = model(rng.integers(11, size=(2, 4)))
    assert y.shape == (2, 4, 3)


def test_plain_chain_of_safetensors_needs_no_order(tmp_path, state_dict):
    """safetensors sorts its keys: fc comes before lstm, and is still the last."""
    save_file(state_dict, tmp_path / "a")
    assert repr(fastrnn.load(tmp_path / "a")).endswith("LSTM(5, 6), Linear(6, 3))")


def test_lone_recurrent_module_is_loaded(rng, tmp_path):
    for prefix in ("", "deep.inside."):
        tensors = random_tensors(rng, random_spec("lstm_proj", 3, 4, 2, True))
        np.savez(tmp_path / "a", **{prefix + name: array for name, array in tensors.items()})
        model = fastrnn.load(tmp_path / "a.npz")
        assert repr(model.layers[0]) == "LSTM(3, 4, num_layers=2, bidirectional=True, proj_size=2)"


def test_rnn_asks_for_its_nonlinearity(rng, tmp_path):
    tensors = random_tensors(rng, random_spec("rnn_tanh", 3, 4))
    np.savez(tmp_path / "a", **tensors)
    with pytest.raises(fastrnn.WeightError, match="no file says whether it is") as caught:
        fastrnn.load(tmp_path / "a.npz")
    assert 'fastrnn.RNN.from_state_dict(sd, "", nonlinearity=' in str(caught.value)
    assert fastrnn.load(tmp_path / "a.npz", nonlinearity="relu").layers[0].nonlinearity == "relu"


@pytest.mark.parametrize(
    "extra, words",
    (
        ({"gru.weight_ih_l0": (9, 2), "gru.weight_hh_l0": (9, 3)}, "got 2 recurrent modules"),
        ({"conv.weight": (2, 3, 4)}, '"conv" beside the recurrent module "lstm"'),
        ({"head.weight": (7, 3), "head.bias": (7,)}, '"head" beside the recurrent module'),
        ({"fc2.weight": (2, 6), "fc2.bias": (2,)}, 'the modules "fc" and "fc2"'),
        ({"norm.weight": (6,), "norm.bias": (6,)}, '"norm" beside'),
        ({"proj.weight": (5, 6)}, '"proj", which fits before "lstm" and after it'),
        ({"proj.weight": (7, 5)}, '"proj" beside'),
    ),
)
def test_doubtful_architectures_show_what_to_write(rng, tmp_path, state_dict, extra, words):
    np.savez(tmp_path / "a", **state_dict, **{name: np.ones(shape) for name, shape in extra.items()})
    with pytest.raises(fastrnn.WeightError) as caught:
        fastrnn.load(tmp_path / "a.npz")
    text = str(caught.value)
    assert words in text
    assert 'fastrnn.LSTM.from_state_dict(sd, "lstm"),' in text
    assert text.count("\n") > 4


def test_nonlinearity_is_for_an_rnn(rng, tmp_path):
    np.savez(tmp_path / "a", **random_tensors(rng, random_spec("lstm", 3, 4)))
    with pytest.raises(ValueError, match="an RNN to go with nonlinearity, got LSTM"):
        fastrnn.load(tmp_path / "a.npz", nonlinearity="tanh")


@pytest.mark.parametrize("shape", ((), (16,), (16, 0)))
def test_odd_recurrent_shapes_are_not_plain(tmp_path, shape):
    for name in ("weight_ih_l0", "weight_hh_l0"):
        other = {"weight_ih_l0": np.ones((16, 3)), "weight_hh_l0": np.ones((16, 4)), name: np.ones(shape)}
        np.savez(tmp_path / "a", **other)
        with pytest.raises(fastrnn.WeightError):
            fastrnn.load(tmp_path / "a.npz")
    np.savez(tmp_path / "a", weight_hh_l0=np.ones((16, 4)))
    with pytest.raises(fastrnn.WeightError):
        fastrnn.load(tmp_path / "a.npz")


def test_file_without_recurrence_is_not_plain(tmp_path):
    np.savez(tmp_path / "a", **{"fc.weight": np.ones((2, 3)), "fc.bias": np.ones(2)})
    with pytest.raises(fastrnn.WeightError, match="no recurrent module"):
        fastrnn.load(tmp_path / "a.npz")
