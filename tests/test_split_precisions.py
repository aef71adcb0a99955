"""Products of float32 numbers as sums of two or three bfloat16 ones."""

import numpy as np
import pytest
from helpers import CELLS, make_layer, random_spec, random_tensors

import fastrnn

simd = pytest.importorskip("fastrnn.engine.simd.tables")


@pytest.fixture(params=tuple(simd.TABLES))
def isa(request, monkeypatch):
    """Each instruction set of this processor, picked by FASTRNN_ISA."""
    monkeypatch.setenv("FASTRNN_ISA", request.param)
    return request.param


@pytest.mark.parametrize("precision, share", (("bfloat16x3", 2), ("bfloat16x2", 60)))
@pytest.mark.parametrize("cell", CELLS)
def test_errors_are_near_those_of_float32(rng, isa, cell, precision, share):
    spec = random_spec(cell, 100, 130)
    tensors = random_tensors(rng, spec, np.float32)
    x = rng.standard_normal((50, 17, 100)).astype(np.float32)
    exact = make_layer(spec, tensors, precision="float64")(x)[0]
    errors = [
        np.abs(make_layer(spec, tensors, precision=name)(x)[0] - exact).max()
        for name in ("float32", precision)
    ]
    assert errors[1] <= share * errors[0]


@pytest.mark.parametrize("precision", ("bfloat16x2", "bfloat16x3"))
def test_models_keep_their_weights_in_float32(rng, precision, tmp_path):
    spec = random_spec("lstm", 6, 20)
    tensors = random_tensors(rng, spec, np.float32)
    linear = {"weight": rng.standard_normal((3, 20)), "bias": rng.standard_normal(3)}
    embedding = {"weight": rng.standard_normal((11, 6))}
    model = fastrnn.Sequential(
        fastrnn.Embedding.from_state_dict(embedding, precision=precision),
        fastrnn.LSTM.from_state_dict(tensors, precision=precision),
        fastrnn.Linear.from_state_dict(linear, precision=precision),
    )
    path = tmp_path / "model.safetensors"
    model.save(path)
    loaded = fastrnn.load(path)
    tokens = rng.integers(0, 11, (9, 4))
    np.testing.assert_array_equal(loaded(tokens)[0], model(tokens)[0])
    assert loaded.layers[1].precision == precision and loaded.verify()["passed"]
    assert loaded.layers[1].tensors["weight_hh_l0"].dtype == np.float32
    np.testing.assert_array_equal(loaded.layers[1].tensors["weight_hh_l0"], tensors["weight_hh_l0"])


def test_numbers_that_bfloat16_rounds_to_infinity(rng):
    """Nothing is left of them: a row that holds one gives infinities of its sign, or NaN where they meet."""
    layer = fastrnn.Linear.from_state_dict({"weight": np.eye(3), "bias": np.zeros(3)}, precision="bfloat16x3")
    x = np.array([[1, np.inf, 2], [1, np.nan, 2], [0.1, 0.2, 0.3]], np.float32)
    y = layer(x)
    assert (np.isnan(y[1]).all() and np.isnan(y[0, [0, 2]]).all() and y[0, 1] in (np.inf,)) or np.isnan(
        y[0, 1]
    )
    np.testing.assert_allclose(y[2], x[2], rtol=1e-7)


def test_programs_have_no_split_products(rng):
    """They say so, and never compute at another precision than they were asked for."""
    spec = random_spec("lstm", 6, 20)
    tensors = random_tensors(rng, spec, np.float32)
    program = fastrnn.with_heads(make_layer(spec, tensors), y=fastrnn.ReLU())
    words = "expected .*precision .*of .*got 'bfloat16x2'"
    for precision in ("bfloat16x2", {"recurrent": "bfloat16x2"}):
        with pytest.raises(ValueError, match=f"Program: {words}"):
            fastrnn.Program(program.spec, precision=precision)
        with pytest.raises(ValueError, match=f"with_heads: {words}"):
            fastrnn.with_heads(make_layer(spec, tensors, precision=precision), y=fastrnn.ReLU())
