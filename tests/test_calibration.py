"""``convert --calibrate``: features of different sizes, before weights become int8."""

import numpy as np
import pytest
from helpers import make_layer, random_layer, random_spec, random_tensors

import fastrnn
from fastrnn.loading.calibration import calibrate


def uneven(rng, kind="lstm", **options):
    """A model whose input has features of very different sizes, as its weights expect, and such an input."""
    spec = random_spec(kind, 12, 16, **options)
    sizes = np.exp(2 * rng.standard_normal(12))
    tensors = random_tensors(rng, spec, np.float32)
    tensors = {n: w / sizes if n.startswith("weight_ih_l0") else w for n, w in tensors.items()}
    x = (rng.standard_normal((20, 3, 12)) * sizes).astype(np.float32)
    return fastrnn.Sequential(make_layer(spec, tensors)), x


@pytest.mark.parametrize("kind", ("lstm", "gru"))
def test_small_features_are_kept(rng, kind):
    model, x = uneven(rng, kind, num_layers=2, bidirectional=True)
    found = calibrate(model, x, "int8")
    assert found.is_scaled and found.scaled < found.plain / 3
    scale, layer = found.model.layers
    assert isinstance(scale, fastrnn.Scale) and layer.precision == "int8"
    wanted, _ = model(x)
    error = np.abs(found.model(x)[0] - wanted).mean()
    assert error == pytest.approx(found.scaled)
    lengths = calibrate(model, x, {"input": "int8"}, lengths=[20, 5, 1])
    assert lengths.is_scaled and lengths.model.layers[1].precision["recurrent"] == "float32"


def test_nothing_is_rounded_by_the_factors(rng):
    model, x = uneven(rng)
    scaled = calibrate(model, x, "int8").model
    mantissas, _ = np.frexp(np.asarray(scaled.layers[0].spec().tensors["scale"]))
    assert set(mantissas) == {0.5}


def test_a_linear_layer_is_calibrated(rng):
    sizes = np.exp(3 * rng.standard_normal(12))
    weight = rng.standard_normal((4, 12)) / sizes
    model = fastrnn.Sequential(fastrnn.Linear.from_state_dict({"weight": weight}))
    found = calibrate(model, rng.standard_normal((50, 12)) * sizes, "int8")
    assert found.is_scaled and found.scaled < found.plain / 3


def test_even_features_stay_as_they_are(rng):
    layer = random_layer(rng, "GRU", 12, 16, precision="float32")
    found = calibrate(fastrnn.Sequential(layer), rng.uniform(-1, 1, (20, 3, 12)), "int8")
    assert not found.is_scaled and len(found.model.layers) == 1


@pytest.mark.parametrize(
    "change, words",
    (
        (
            lambda m, x: (m, x, "bfloat16"),
            "that multiplies its input in int8, got LSTM",
        ),
        (lambda m, x: (m, x * np.nan, "int8"), "expected x of finite numbers, got NaN or infinity."),
        (
            lambda m, x: (calibrate(m, x, "int8").model, x, "int8"),
            "weights that are not narrow yet",
        ),
        (lambda m, x: (fastrnn.Sequential(fastrnn.Tanh(), *m.layers), x, "int8"), "got Tanh()"),
    ),
)
def test_what_cannot_be_calibrated(rng, change, words):
    with pytest.raises(ValueError) as caught:
        calibrate(*change(*uneven(rng)))
    assert words in str(caught.value)


def test_convert_calibrates(run, rng, tmp_path):
    model, x = uneven(rng)
    model.save(tmp_path / "wide.safetensors")
    np.save(tmp_path / "x.npy", x)
    paths = tmp_path / "wide.safetensors", tmp_path / "narrow.safetensors"
    status, out, err = run("convert", *paths, "--precision", "int8", "--calibrate", tmp_path / "x.npy")
    assert status == 0 and "Scale" in out and "They are scaled." in err
    narrow = fastrnn.load(paths[1])
    assert np.abs(narrow(x)[0] - model(x)[0]).mean() < 0.02
    assert run("verify", paths[1])[0] == 0
    status, _, err = run("convert", *paths, "--calibrate", tmp_path / "x.npy")
    assert status == 2 and "--calibrate: expected --precision int8 as well, got none." in err
