"""Narrow weights in layers, models and files, as far as no product is needed: an Embedding has none."""

import json
import os
import pickle
import re

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import fastrnn
from fastrnn.importers import read_stored
from fastrnn.loading.verify import verify
from fastrnn.narrow import NarrowWeight, narrowed
from fastrnn.saving.model_file import stored

STORAGES = ("bfloat16", "int8")
DTYPES = {"bfloat16": "BF16", "int8": "I8"}


def embedding(rng, precision, rows=9, features=5):
    weight = rng.standard_normal((rows, features)).astype(np.float32)
    return fastrnn.Embedding.from_state_dict({"weight": weight}, precision=precision), weight


# ---------------------------------------------------------------- layers


@pytest.mark.parametrize("precision", STORAGES)
def test_an_embedding_looks_up_stored_rows(rng, precision):
    layer, weight = embedding(rng, precision)
    wanted = np.asarray(narrowed("test", "weight", weight, precision))
    tokens = rng.integers(9, size=(6, 4))
    y = layer(tokens)
    assert y.dtype == np.float32 and np.array_equal(y, wanted[tokens])
    assert repr(layer) == f"Embedding(9, 5, precision='{precision}')"
    assert isinstance(layer.weight, NarrowWeight) and layer.weight.data.flags.writeable is False
    stream = fastrnn.Sequential(layer, fastrnn.ReLU()).stream(4)
    live = np.stack([stream.step(step) for step in tokens])
    assert np.array_equal(live, np.maximum(wanted[tokens], 0))
    again = pickle.loads(pickle.dumps(layer))
    assert again.precision == precision and np.array_equal(again(tokens), y)


@pytest.mark.parametrize("precision", STORAGES)
def test_layers_without_products_have_no_narrow_precision(precision):
    words = (
        f'precision to be one of "float32" and "float64", got \'{precision}\'. Layers with products have it'
    )
    for make in (
        lambda: fastrnn.OneHot(3, precision=precision),
        lambda: fastrnn.LayerNorm(3, precision=precision),
        lambda: fastrnn.Scale(0, [1.0, 2.0], precision=precision),
        lambda: fastrnn.LayerNorm.from_state_dict({"weight": np.ones(3)}, precision=precision),
    ):
        with pytest.raises(ValueError, match=re.escape(words)):
            make()
    with pytest.raises(ValueError, match=r"Linear: expected precision to be one of .*, got dict\."):
        fastrnn.Linear.from_state_dict({"weight": np.ones((2, 2))}, precision={"input": precision})


@pytest.mark.parametrize("name, words", (("bfloat16", "bfloat16"), ("qint8", "int8"), ("int8", "int8")))
def test_dtypes_of_torch_are_named_as_strings(name, words):
    torch = pytest.importorskip("torch")
    with pytest.raises(ValueError, match=rf'Write precision="{words}"\.'):
        fastrnn.Embedding.from_state_dict({"weight": np.ones((2, 2))}, precision=getattr(torch, name))


@pytest.mark.parametrize("backend", ("simd", "blas"))
def test_a_backend_without_a_storage_says_which_it_has(backend):
    from fastrnn.engine import backends

    if backend == "simd" and not backends.ISAS:
        pytest.skip("simd is not built here")
    with pytest.raises(ValueError, match='expected weights stored as one of "float32"'):
        backends.pick_backend("Linear", backend, "float32", 1, {"input": "int3"})


# ---------------------------------------------------------------- files


@pytest.mark.parametrize("precision", STORAGES)
def test_narrow_weights_are_saved_narrow(rng, tmp_path, precision):
    layer, _ = embedding(rng, precision, 40, 64)
    model = fastrnn.Sequential(layer, fastrnn.LayerNorm.from_state_dict({"weight": np.ones(64, np.float32)}))
    model.save(tmp_path / "m")
    with safe_open(tmp_path / "m", "numpy") as file:
        description = json.loads(file.metadata()["fastrnn"])
        slices = {name: file.get_slice(name).get_dtype() for name in file.keys()}
    assert description["layers"][0]["options"] == {"precision": precision}
    assert slices["layers.0.weight"] == DTYPES[precision] and slices["layers.1.weight"] == "F32"
    assert slices.get("layers.0.weight.scale") == {"bfloat16": None, "int8": "F32"}[precision]
    again = fastrnn.load(tmp_path / "m")
    tokens = rng.integers(40, size=(3, 7))
    assert repr(again) == repr(model) and np.array_equal(again(tokens)[0], model(tokens)[0])
    stored = again.layers[0].weight
    assert stored.storage == precision and np.array_equal(stored.data, layer.weight.data)
    assert verify(tmp_path / "m")["passed"] and again.verify()["passed"]
    again.save(tmp_path / "n")
    assert (tmp_path / "n").read_bytes() == (tmp_path / "m").read_bytes()


@pytest.mark.parametrize("precision", STORAGES)
def test_a_reader_of_weights_gets_float32(rng, tmp_path, precision):
    layer, _ = embedding(rng, precision)
    fastrnn.Sequential(layer).save(tmp_path / "m")
    state_dict = fastrnn.load_state_dict(tmp_path / "m")
    assert state_dict.keys() == {"golden.input", "golden.output", "layers.0.weight"}
    assert np.array_equal(state_dict["layers.0.weight"], layer.weight)
    assert state_dict["layers.0.weight"].dtype == np.float32 and "fastrnn" in state_dict.metadata
    stored = read_stored(tmp_path / "m")["layers.0.weight"]
    assert isinstance(stored, NarrowWeight) and stored.storage == precision


@pytest.mark.parametrize("precision", STORAGES)
def test_a_wide_file_is_narrowed_as_it_is_loaded_and_a_narrow_one_widened(rng, tmp_path, precision):
    layer, weight = embedding(rng, "float32")
    norm = fastrnn.LayerNorm.from_state_dict({"weight": np.ones(5, np.float32)})
    fastrnn.Sequential(layer, norm).save(tmp_path / "wide")
    model = fastrnn.load(tmp_path / "wide", precision=precision)
    narrow = narrowed("test", "weight", weight, precision)
    assert np.array_equal(model.layers[0].weight, narrow)
    assert (model.layers[0].precision, model.layers[1].precision) == (precision, "float32")
    model.save(tmp_path / "narrow")
    for wide in ("float32", "float64"):
        model = fastrnn.load(tmp_path / "narrow", precision=wide)
        assert model.layers[0].weight.dtype == wide and np.array_equal(model.layers[0].weight, narrow)
        assert model.layers[1].precision == wide and model.verify()["passed"]
    other = next(name for name in STORAGES if name != precision)
    assert fastrnn.load(tmp_path / "narrow", precision=other).layers[0].weight.storage == other


def test_bfloat16_of_other_files_arrives_as_float32(tmp_path):
    """Only a file that `save` wrote has narrow weights."""
    weight = narrowed("test", "weight", np.array([[1.5, 2]], np.float32), "bfloat16")
    save_file(stored("layers.0.weight", weight), tmp_path / "m", {"about": "fastrnn"})
    array = read_stored(tmp_path / "m")["layers.0.weight"]
    assert isinstance(array, np.ndarray) and array.dtype == np.float32 and array.tolist() == [[1.5, 2]]


@pytest.mark.parametrize(
    "change, words",
    (
        (lambda t: t.pop("layers.0.weight.scale"), "layers that can be made"),
        (
            lambda t: t.update({"layers.0.weight.scale": np.ones(3, np.float32)}),
            "int8 weights and scales that fit",
        ),
        (lambda t: t.update({"layers.0.weight.scale": np.ones(9)}), "int8 weights and scales that fit"),
        (
            lambda t: t.update({"layers.0.weight.scale": np.full(9, np.nan, np.float32)}),
            "scales that are finite and at least 0",
        ),
        (
            lambda t: t.update({"layers.0.weight.scale": np.full(9, -1, np.float32)}),
            "scales that are finite and at least 0",
        ),
        (
            lambda t: t.update({"layers.0.weight": np.full((9, 5), -128, np.int8)}),
            "from -127 to 127, got -128",
        ),
        (lambda t: t.update({"layers.0.weight": np.zeros((), np.int8)}), "int8 weights and scales that fit"),
        (lambda t: t.update({"layers.0.weight": np.zeros((9, 0), np.int8)}), "layers that can be made"),
        (lambda t: t.update({"layers.0.weight": np.zeros((9, 5, 2), np.int8)}), "layers that can be made"),
        (
            lambda t: t.update({"layers.0.weight.scale.scale": np.ones(9, np.float32)}),
            "description of a saved",
        ),
        (
            lambda t: t.update({"layers.7.weight": np.ones((9, 5), np.int8)}),
            "the description of a saved model",
        ),
    ),
)
def test_damaged_narrow_files_are_refused(rng, tmp_path, change, words):
    layer, _ = embedding(rng, "int8")
    fastrnn.Sequential(layer).save(tmp_path / "m")
    with safe_open(tmp_path / "m", "numpy") as file:
        metadata = file.metadata()
    tensors = load_file(tmp_path / "m")
    change(tensors)
    save_file(tensors, tmp_path / "m", metadata)
    with pytest.raises(fastrnn.FormatError, match=re.escape(words)):
        fastrnn.load(tmp_path / "m")


def test_narrow_weights_where_none_belong_are_widened(rng, tmp_path):
    """A file may hold a bias or the weights of a LayerNorm in any type."""
    norm = {"weight": np.ones(5, np.float32), "bias": np.zeros(5, np.float32)}
    fastrnn.Sequential(fastrnn.LayerNorm.from_state_dict(norm)).save(tmp_path / "m")
    with safe_open(tmp_path / "m", "numpy") as file:
        metadata = file.metadata()
    tensors = load_file(tmp_path / "m")
    tensors["layers.0.weight"] = np.full(5, 127, np.int8)
    tensors["layers.0.weight.scale"] = np.full(5, 2, np.float32)
    save_file(tensors, tmp_path / "m", metadata)
    assert fastrnn.load(tmp_path / "m").layers[0].tensors["weight"].tolist() == [254] * 5


# ---------------------------------------------------------------- commands and programs


@pytest.mark.parametrize("precision", STORAGES)
def test_commands_take_narrow_models(rng, tmp_path, run, precision):
    layer, _ = embedding(rng, "float32", 300, 64)
    fastrnn.Sequential(layer).save(tmp_path / "wide")
    status, out, err = run("convert", tmp_path / "wide", tmp_path / "narrow", "--precision", precision)
    assert (status, err) == (0, "") and f"precision='{precision}'" in out
    bytes_each = {"bfloat16": 2, "int8": 1}[precision]
    saved = os.path.getsize(tmp_path / "wide") - os.path.getsize(tmp_path / "narrow")
    assert saved >= 300 * 64 * (4 - bytes_each) - 300 * 4 - 500
    status, out, _ = run("info", tmp_path / "narrow")
    assert status == 0 and re.search(rf"layers\.0\.weight +\(300, 64\) +{precision}\n", out)
    status, out, _ = run("info", tmp_path / "narrow", "--json")
    found = json.loads(out)
    assert found["tensors"]["layers.0.weight"] == {"shape": [300, 64], "dtype": precision}
    assert run("verify", tmp_path / "narrow")[0] == 0
    tokens = rng.integers(300, size=(4, 2))
    np.save(tmp_path / "x.npy", tokens)
    assert run("run", tmp_path / "narrow", tmp_path / "x.npy", "-o", tmp_path / "y.npy")[0] == 0
    wanted = fastrnn.load(tmp_path / "narrow")(tokens)[0]
    assert np.array_equal(np.load(tmp_path / "y.npy"), wanted)
    status, out, _ = run(
        "run", tmp_path / "wide", tmp_path / "x.npy", "-o", tmp_path / "z.npy", "--precision", precision
    )
    assert status == 0 and np.array_equal(np.load(tmp_path / "z.npy"), wanted)
