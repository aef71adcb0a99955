"""Layers with narrow products: the reference on every instruction set, and the same bits everywhere."""

import json
import os
import pickle

import numpy as np
import pytest
from helpers import (
    CELLS,
    arrays_of,
    make_layer,
    random_layer,
    random_spec,
    random_state,
    random_tensors,
)
from safetensors import safe_open

import fastrnn
from fastrnn import reference
from fastrnn.engine.backends import ISAS, SIMD_PRODUCTS
from fastrnn.loading.verify import verify
from fastrnn.narrow import NarrowWeight
from fastrnn.operators.recurrent import DIVISIONS
from fastrnn.reference.narrow import make_product
from fastrnn.saving.golden import golden_output

STORAGES = ("bfloat16", "int8")
# Every precision of all matrices, and some of single ones.
PRECISIONS = (*STORAGES, {"recurrent": "int8"}, {"input": "bfloat16", "projection": "int8"})
KINDS = ("LSTM", "GRU", "RNN")
# The instruction sets with fused multiply-adds.
FUSED = tuple(isa for isa in SIMD_PRODUCTS if isa != "baseline")


def storages_of(precision):
    return {precision} if isinstance(precision, str) else set(precision.values())


def need(*precisions, isa=None):
    """Skip a test if products of these precisions are missing."""
    tables = [SIMD_PRODUCTS[isa]] if isa else list(SIMD_PRODUCTS.values())
    wanted = {("float32", storage) for precision in precisions for storage in storages_of(precision)}
    missing = [] if tables and all(wanted <= table.keys() for table in tables) else sorted(wanted)
    if missing:
        pytest.skip(f"no products of {missing}")


@pytest.fixture(params=ISAS)
def isa(request, monkeypatch):
    """Each instruction set of this processor, picked by FASTRNN_ISA."""
    if request.param not in SIMD_PRODUCTS:
        pytest.skip("this processor lacks it")
    monkeypatch.setenv("FASTRNN_ISA", request.param)
    return request.param


def assert_same(isa, precision, y, wanted):
    """The same bits; without fused multiply-adds, int8 has one rounding more."""
    if isa in FUSED or precision == "bfloat16":
        assert np.array_equal(y, wanted)
    else:
        assert np.abs(y - wanted).max() < 1e-5 * max(1, np.abs(wanted).max())


def narrow_layer(rng, cell, input_size, hidden_size, precision, **options):
    names = ("num_layers", "bidirectional", "bias")
    spec = random_spec(
        cell, input_size, hidden_size, **{name: options.pop(name) for name in names if name in options}
    )
    return spec, make_layer(spec, random_tensors(rng, spec, np.float32), precision=precision, **options)


# ---------------------------------------------------------------- against the reference


@pytest.mark.parametrize("rows", (1, 2, 3, 4, 7, 8, 16, 17, 33))
@pytest.mark.parametrize("sizes", ((1, 1), (31, 15), (32, 16), (33, 17), (64, 64), (100, 130), (520, 40)))
@pytest.mark.parametrize("precision", STORAGES)
def test_linear_has_the_bits_of_the_reference(rng, isa, precision, sizes, rows):
    need(precision, isa=isa)
    columns, outputs = sizes
    weights = {
        "weight": rng.standard_normal((outputs, columns)).astype(np.float32),
        "bias": rng.standard_normal(outputs).astype(np.float32),
    }
    x = rng.standard_normal((rows, columns)).astype(np.float32)
    for with_bias in (True, False):
        used = weights if with_bias else {"weight": weights["weight"]}
        layer = fastrnn.Linear.from_state_dict(used, precision=precision)
        assert_same(isa, precision, layer(x), reference.linear_reference(x, layer.tensors, in_order=True))


@pytest.mark.parametrize("precision", STORAGES)
def test_products_of_odd_numbers_have_the_bits_of_the_reference(rng, isa, precision):
    """Denormal, huge and tiny ones; NaN and infinity in x, each in a row of its own."""
    need(precision, isa=isa)
    weight = (rng.standard_normal((40, 70)) * 10.0 ** rng.integers(-18, 18, (40, 1))).astype(np.float32)
    weight[3] = 0
    weight[5] *= np.float32(1e-38)
    layer = fastrnn.Linear.from_state_dict({"weight": weight}, precision=precision)
    x = (rng.standard_normal((30, 70)) * 10.0 ** rng.integers(-38, 18, (30, 1))).astype(np.float32)
    x[4] = 0
    x[5] = 2.0**-140
    x[6, 2] = np.nan
    x[7, 3] = np.inf
    x[8, 69] = -np.inf
    y, wanted = layer(x), reference.linear_reference(x, layer.tensors, in_order=True)
    if isa in FUSED:
        assert np.array_equal(y, wanted, equal_nan=True)
    assert np.array_equal(np.isfinite(y[4:9]), np.isfinite(wanted[4:9]))


@pytest.mark.parametrize("hidden_size", (1, 15, 16, 33, 96))
@pytest.mark.parametrize("precision", STORAGES)
def test_a_relu_has_the_bits_of_the_reference(rng, isa, precision, hidden_size):
    """The one cell whose gates round nothing, so that its sums show."""
    need(precision, isa=isa)
    spec, layer = narrow_layer(rng, "rnn_relu", 35, hidden_size, precision, num_layers=2, bidirectional=True)
    x = rng.standard_normal((9, 3, 35)).astype(np.float32)
    h = random_state(rng, spec, 3, np.float32)
    y, h_n = layer(x, h, lengths=[9, 4, 1])
    wanted, wanted_h, _ = reference.recurrent_reference(spec, layer.tensors, x, h, None, [9, 4, 1], True)
    assert_same(isa, precision, y, wanted)
    assert_same(isa, precision, h_n, wanted_h)


@pytest.mark.parametrize("precision", PRECISIONS, ids=str)
@pytest.mark.parametrize("cell", CELLS)
def test_a_step_equals_the_reference(rng, isa, cell, precision):
    """One step from a state that the caller gives, beyond 1 too, but for what gates err by."""
    need(precision, isa=isa)
    spec, layer = narrow_layer(rng, cell, 37, 50, precision)
    for scale in (1, 5):
        state = random_state(rng, spec, 6, np.float32)
        state = tuple(array * np.float32(scale) for array in arrays_of(state))
        x = rng.standard_normal((1, 6, 37)).astype(np.float32)
        y, after = layer(x, state if len(state) > 1 else state[0])
        h, c = (*state, None)[:2]
        wanted, *wanted_state = reference.recurrent_reference(spec, layer.tensors, x, h, c, None, True)
        # What gates err by may be a whole unit of a narrow number that is projected.
        allowed = 1e-4 if cell != "lstm_proj" else 2e-2
        for one, other in zip((y, *arrays_of(after)), (wanted, *wanted_state), strict=False):
            assert np.abs(one - other).max() <= allowed * scale


@pytest.mark.parametrize("precision", PRECISIONS, ids=str)
@pytest.mark.parametrize("cell", CELLS)
def test_models_pass_their_self_test(rng, isa, cell, precision, tmp_path):
    need(precision, isa=isa)
    _, layer = narrow_layer(rng, cell, 12, 40, precision, num_layers=2, bidirectional=True)
    model = fastrnn.Sequential(layer, fastrnn.Last())
    found = model.verify()
    assert found["passed"] and found["tolerance"] < 0.2
    model.save(tmp_path / "m")
    assert verify(tmp_path / "m")["passed"]
    # Another model does not pass.
    other = fastrnn.Sequential(
        narrow_layer(rng, cell, 12, 40, precision, num_layers=2, bidirectional=True)[1]
    )
    x = rng.standard_normal((12, 2, 12))
    wanted, allowed = golden_output([layer.spec()], x, False, "float32")
    assert np.abs(other(x)[0] - wanted).max() > allowed


@pytest.mark.parametrize("precision", STORAGES)
def test_convolutions_equal_the_reference(rng, isa, precision):
    need(precision, isa=isa)
    weights = {"weight": rng.standard_normal((8, 3, 4)).astype(np.float32), "bias": rng.standard_normal(8)}
    for options in ({"causal": True}, {"stride": 2, "padding": 1}, {"dilation": 2, "padding": "same"}):
        layer = fastrnn.Conv1d.from_state_dict(weights, groups=2, precision=precision, **options)
        x = rng.standard_normal((20, 3, 6)).astype(np.float32)
        wanted = reference.sequential_reference([layer.spec()], x)
        assert np.abs(layer(x) - wanted).max() < 1e-5
        assert f"precision='{precision}'" in repr(layer)


# ---------------------------------------------------------------- the numeric promise


@pytest.mark.parametrize("precision", PRECISIONS, ids=str)
@pytest.mark.parametrize("cell", CELLS)
def test_the_same_bits_for_rows_chunks_and_streams(rng, isa, cell, precision):
    need(precision, isa=isa)
    _, layer = narrow_layer(rng, cell, 21, 45, precision, num_layers=2)
    x = rng.standard_normal((23, 19, 21)).astype(np.float32)
    y, state = layer(x)
    assert np.isfinite(y).all()
    for rows in (slice(0, 1), slice(3, 7), slice(1, 18)):
        part, _ = layer(x[:, rows])
        assert np.array_equal(part, y[:, rows])
    stream = layer.stream(19)
    chunks = np.concatenate([stream.run(x[:2]), stream.step(x[2])[None], stream.run(x[3:])])
    assert np.array_equal(chunks, y)
    for one, other in zip(arrays_of(stream.state), arrays_of(state), strict=True):
        assert np.array_equal(one, other)
    pool = layer.pool()
    ids = [pool.open() for _ in range(19)]
    order = rng.permutation(19)
    live = np.empty_like(y)
    for t, step in enumerate(x):
        live[t, order] = pool.step([ids[i] for i in order], step[order])
    assert np.array_equal(live, y)


@pytest.mark.parametrize("precision", STORAGES)
@pytest.mark.parametrize("division", DIVISIONS[1:])
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_bits_for_any_number_of_threads(rng, precision, division, kind):
    need(precision)
    layer = random_layer(
        rng, kind, 40, 100, precision=precision, num_layers=2, bidirectional=division == "direction"
    )
    x = rng.standard_normal((30, 9, 40)).astype(np.float32)
    lengths = rng.integers(1, 31, 9)
    wanted, state = layer(x, lengths=lengths)
    layer._divide(division, 2)
    y, after = layer(x, lengths=lengths)
    assert np.array_equal(y, wanted)
    for one, other in zip(arrays_of(after), arrays_of(state), strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("precision", STORAGES)
def test_sums_have_the_same_bits_on_every_instruction_set(rng, monkeypatch, precision):
    need(precision)
    weights = {
        "weight": rng.standard_normal((70, 130)).astype(np.float32),
        "bias": rng.standard_normal(70).astype(np.float32),
    }
    x = rng.standard_normal((9, 130)).astype(np.float32)
    results = []
    for name in FUSED:
        monkeypatch.setenv("FASTRNN_ISA", name)
        results.append(fastrnn.Linear.from_state_dict(weights, precision=precision)(x))
    assert all(np.array_equal(result, results[0]) for result in results)


# ---------------------------------------------------------------- layers and models


def test_a_precision_of_each_matrix(rng):
    need(*STORAGES)
    spec, layer = narrow_layer(rng, "lstm_proj", 5, 8, {"recurrent": "int8", "projection": "bfloat16"})
    stored = {name: getattr(weight, "storage", None) for name, weight in layer.tensors.items()}
    assert {name: storage for name, storage in stored.items() if storage is not None} == {
        "weight_hh_l0": "int8",
        "weight_hr_l0": "bfloat16",
    }
    shown = "{'input': 'float32', 'recurrent': 'int8', 'projection': 'bfloat16'}"
    assert repr(layer) == f"LSTM(5, 8, proj_size=4, precision={shown})"
    # What all matrices have in common is shown once, and one that is not there does not count.
    for precision, wanted in (
        ({"input": "int8", "recurrent": "int8", "projection": "int8"}, "int8"),
        ({"recurrent": "float32"}, "float32"),
    ):
        assert make_layer(spec, random_tensors(rng, spec), precision=precision).precision == wanted
    gru = random_layer(rng, "GRU", precision={"input": "int8", "recurrent": "int8", "projection": "bfloat16"})
    assert gru.precision == "int8"


@pytest.mark.parametrize("precision", STORAGES)
def test_layers_keep_narrow_weights_alone(rng, precision):
    need(precision)
    spec, layer = narrow_layer(rng, "lstm", 64, 64, precision)
    for name, weight in layer.tensors.items():
        assert isinstance(weight, NarrowWeight) == name.startswith("weight")
    numbers = 2 * 256 * 64
    scales = 0 if precision == "bfloat16" else 2 * 256 * 4
    matrices = [weight for weight in layer.tensors.values() if isinstance(weight, NarrowWeight)]
    assert (
        sum(weight.nbytes for weight in matrices) == numbers * (2 if precision == "bfloat16" else 1) + scales
    )
    x = rng.standard_normal((5, 2, 64)).astype(np.float32)
    y = layer(x)[0]
    assert y.dtype == np.float32
    for again in (
        pickle.loads(pickle.dumps(layer)),
        make_layer(spec, layer.tensors, precision=precision),
        make_layer(
            spec, {name: np.asarray(array) for name, array in layer.tensors.items()}, precision=precision
        ),
    ):
        assert again.precision == precision and np.array_equal(again(x)[0], y)


@pytest.mark.parametrize("precision", STORAGES)
@pytest.mark.parametrize("kind", ("LSTMCell", "GRUCell", "RNNCell"))
def test_cells_have_narrow_products(rng, kind, precision):
    need(precision)
    layer = random_layer(rng, kind.removesuffix("Cell"), 6, 9, precision=precision)
    cell = getattr(fastrnn, kind).from_state_dict(layer.tensors, precision=precision)
    x = rng.standard_normal((4, 6)).astype(np.float32)
    assert np.array_equal(arrays_of(cell(x))[0], layer(x[None])[0][0])
    assert repr(cell) == f"{kind}(6, 9, precision='{precision}')"


@pytest.mark.parametrize("precision", PRECISIONS, ids=str)
def test_a_whole_model_is_saved_and_loaded(rng, tmp_path, run, precision):
    need(precision, *STORAGES)
    wide = fastrnn.Sequential(
        fastrnn.Embedding.from_state_dict({"weight": rng.standard_normal((11, 6)).astype(np.float32)}),
        random_layer(rng, "LSTM", 6, 64, precision="float32"),
        fastrnn.LayerNorm.from_state_dict({"weight": np.ones(64, np.float32)}),
        fastrnn.Linear.from_state_dict({"weight": rng.standard_normal((3, 64)), "bias": np.ones(3)}),
        fastrnn.Sigmoid(),
    )
    wide.save(tmp_path / "wide")
    model = fastrnn.load(tmp_path / "wide", precision=precision)
    of_others = precision if isinstance(precision, str) else "float32"
    assert [getattr(layer, "precision", None) for layer in model.layers] == [
        of_others, model.layers[1].precision, "float32", of_others, None,
    ]  # fmt: skip
    tokens = rng.integers(11, size=(9, 4))
    y = model(tokens)[0]
    assert 0 < np.abs(y - wide(tokens)[0]).max() < 0.1
    model.save(tmp_path / "narrow")
    again = fastrnn.load(tmp_path / "narrow")
    assert repr(again) == repr(model) and np.array_equal(again(tokens)[0], y)
    assert os.path.getsize(tmp_path / "narrow") < os.path.getsize(tmp_path / "wide")
    with safe_open(tmp_path / "narrow", "numpy") as file:
        description = json.loads(file.metadata()["fastrnn"])
    assert description["layers"][1]["options"]["precision"] == model.layers[1].precision
    assert verify(tmp_path / "narrow")["passed"]
    back = fastrnn.load(tmp_path / "narrow", precision="float32")
    assert back.verify()["passed"] and 0 < np.abs(y - back(tokens)[0]).max() < 0.05
    if isinstance(precision, str):
        assert run("convert", tmp_path / "wide", tmp_path / "other", "--precision", precision)[0] == 0
        assert (tmp_path / "other").read_bytes() == (tmp_path / "narrow").read_bytes()
    for command in ("verify", "info"):
        assert run(command, tmp_path / "narrow")[0] == 0


@pytest.mark.parametrize("precision", STORAGES)
def test_an_example_of_the_wide_model_is_kept_by_the_narrow_one(rng, tmp_path, precision):
    """It may be as far away as narrow weights and operands take it, and no further."""
    need(precision)
    layer = random_layer(rng, "GRU", 5, 40, precision="float32")
    x = rng.standard_normal((30, 2, 5)).astype(np.float32)
    fastrnn.Sequential(layer).save(tmp_path / "wide", (x, layer(x)[0]))
    model = fastrnn.load(tmp_path / "wide", precision=precision)
    model.save(tmp_path / "narrow")
    result = verify(tmp_path / "narrow")
    assert result["passed"] and result["example"]["passed"]
    assert 1e-5 < result["example"]["largest_error"] < result["example"]["tolerance"] < 0.2
    assert not model.verify(x, -layer(x)[0])["passed"]


@pytest.mark.parametrize("precision", STORAGES)
def test_modules_of_torch_become_narrow_models(rng, precision):
    torch = pytest.importorskip("torch")
    need(precision)
    module = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.LayerNorm(6), torch.nn.ReLU()).eval()
    model = fastrnn.from_torch(module, precision=precision)
    assert [getattr(layer, "precision", None) for layer in model.layers] == [precision, "float32", None]
    lstm = fastrnn.from_torch(torch.nn.LSTM(4, 6).bfloat16(), precision=precision)
    assert lstm.precision == precision
    # bfloat16 numbers stay what they are.
    assert fastrnn.from_torch(torch.nn.LSTM(4, 6).bfloat16()).precision == "float32"


@pytest.mark.parametrize("precision", STORAGES)
def test_a_narrow_model_is_timed_beside_wide_engines(rng, tmp_path, run, precision):
    need(precision)
    model = fastrnn.Sequential(random_layer(rng, "LSTM", 4, 32, precision=precision))
    model.save(tmp_path / "m")
    options = ("--steps", 5, "--batch", 2, "--rounds", 1)
    status, out, _ = run("bench", tmp_path / "m", *options)
    assert status == 0 and f"fastrnn has weights in {precision}; the others have the same numbers" in out


def test_int8_is_exact_for_whole_numbers(rng, isa):
    """Weights and operands whose largest magnitude is 127 times a power of two are quantised exactly."""
    need("int8", isa=isa)
    weight = rng.integers(-127, 128, (50, 75)).astype(np.float32)
    weight[:, 1] = 127
    x = rng.integers(-127, 128, (5, 75)).astype(np.float32)
    x[:, 0] = -127
    layer = fastrnn.Linear.from_state_dict({"weight": weight / 64}, precision="int8")
    assert np.array_equal(layer(x / 32), (x @ weight.T) / 2048)


def test_wide_matrices_beside_narrow_ones_are_those_of_float32(rng):
    """A product of float32 in front of a narrow one is float32's own."""
    need("int8")
    spec, layer = narrow_layer(rng, "rnn_relu", 30, 20, {"recurrent": "int8"})
    x = rng.standard_normal((1, 4, 30)).astype(np.float32)
    tensors = {name: np.asarray(weight) for name, weight in layer.tensors.items()}
    wide = make_layer(spec, tensors)
    assert np.array_equal(layer(x)[0], wide(x)[0])  # h is 0: all of it is the product of x
    product = make_product(layer.tensors["weight_hh_l0"])
    h = rng.standard_normal((1, 4, 20)).astype(np.float32)
    gates = x[0] @ tensors["weight_ih_l0"].T + tensors["bias_ih_l0"] + tensors["bias_hh_l0"]
    assert np.abs(layer(x, h)[0][0] - np.maximum(product(h[0], gates), 0)).max() < 1e-5
