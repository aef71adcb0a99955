"""Layers against torch's recorded outputs, so that they are tested where torch is not installed."""

import numpy as np
import pytest
from helpers import assert_close

import fastrnn

LAYERS = (
    "rnn_tanh",
    "rnn_relu_2_layers",
    "rnn_both_directions_lengths",
    "gru",
    "gru_no_bias_3_layers",
    "gru_2_layers_both_directions_lengths",
    "lstm",
    "lstm_2_layers_both_directions",
    "lstm_lengths",
    "lstm_proj",
    "lstm_proj_all",
)
OTHERS = {
    "Linear": {},
    "Linear_no_bias": {},
    "LayerNorm": {"eps": 1e-3},
    "Embedding": {},
    "ReLU": {},
    "Tanh": {},
    "Sigmoid": {},
    "Softmax": {"dim": -1},
    "LogSoftmax": {"dim": 1},
}


def part_of(path, name):
    """Return the weights of one case in a golden file, and its other arrays."""
    with np.load(path) as file:
        arrays = {key.removeprefix(f"{name}/"): file[key] for key in file if key.startswith(f"{name}/")}
    weights = {key.removeprefix("weights/"): arrays.pop(key) for key in list(arrays) if "/" in key}
    return weights, arrays


@pytest.mark.parametrize("precision, tolerance", (("float64", 1e-12), ("float32", 2e-6)))
@pytest.mark.parametrize("backend", ("auto", "blas"))
@pytest.mark.parametrize("name", LAYERS)
def test_layer_equals_recorded_torch(golden, name, backend, precision, tolerance):
    weights, arrays = part_of(golden / "layers.npz", name)
    cls = getattr(fastrnn, name.partition("_")[0].upper())
    options = {"nonlinearity": "relu"} if "relu" in name else {}
    layer = cls.from_state_dict(weights, precision=precision, backend=backend, **options)
    state = (arrays["h0"], arrays["c0"]) if "c0" in arrays else arrays["h0"]
    lengths = arrays.get("lengths")
    y, after = layer(arrays["x"], state, lengths=lengths)
    assert y.dtype == precision
    assert_close(y, arrays["y"], tolerance)
    for letter, array in zip("hc", after if "c0" in arrays else (after,), strict=False):
        assert_close(array, arrays[f"{letter}n"], tolerance)


@pytest.mark.parametrize("precision, tolerance", (("float64", 1e-12), ("float32", 4e-6)))
@pytest.mark.parametrize("name", OTHERS)
def test_other_layer_equals_recorded_torch(golden, name, precision, tolerance):
    weights, arrays = part_of(golden / "others.npz", name)
    with np.load(golden / "others.npz") as file:
        x, tokens = file["x"], file["tokens"]
    cls = getattr(fastrnn, name.partition("_")[0])
    if weights:
        layer = cls.from_state_dict(weights, precision=precision, **OTHERS[name])
    else:
        layer = cls(**OTHERS[name])
    y = layer(tokens if name == "Embedding" else x.astype(precision))
    assert y.dtype == precision
    assert_close(y, arrays["y"], tolerance)
