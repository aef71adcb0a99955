"""Activations, Scale and BatchNorm1d: torch's numbers, and the same bits however their rows are cut."""

import re

import numpy as np
import pytest
from helpers import assert_close, random_layer
from hypothesis import given
from hypothesis import strategies as st

import fastrnn
from fastrnn import reference
from fastrnn.engine import backends

TOLERANCES = {np.float32: 2e-6, np.float64: 1e-13}
# Layers by how they are written.
ACTIVATIONS = (
    "LeakyReLU()",
    "LeakyReLU(0.3)",
    "LeakyReLU(-1.5)",
    "ELU()",
    "ELU(0.4)",
    "GELU()",
    'GELU("tanh")',
    "SiLU()",
    "Softplus()",
    "Softplus(3.0, 2.0)",
    "Hardtanh()",
    "Hardtanh(-0.25, 2.5)",
)


def layer_of(text):
    return eval(f"fastrnn.{text}")


def numbers(rng, *shape, dtype=np.float64):
    """Numbers of all sizes, of both signs."""
    return (rng.standard_normal(shape) * np.exp(3 * rng.standard_normal(shape))).astype(dtype)


def random_scale(rng, features, **options):
    return fastrnn.Scale(rng.standard_normal(features), rng.uniform(0.5, 2, features), **options)


def random_norm(rng, features, is_affine=True, **options):
    tensors = {
        "running_mean": rng.standard_normal(features),
        "running_var": rng.uniform(0.5, 2, features),
        "num_batches_tracked": np.array(7),
    }
    if is_affine:
        tensors |= {"weight": rng.standard_normal(features), "bias": rng.standard_normal(features)}
    return fastrnn.BatchNorm1d.from_state_dict(tensors, **options)


def models(rng, features, precision):
    """A model around each kind of layer."""
    layers = [layer_of(text) for text in ACTIVATIONS]
    layers += [random_scale(rng, features, clip=1.5, precision=precision)]
    layers += [random_norm(rng, features, flag, precision=precision) for flag in (False, True)]
    body = random_layer(rng, "GRU", 5, features, precision=precision)
    return [fastrnn.Sequential(body, layer) for layer in layers]


# ---------------------------------------------------------------- numbers


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("text", ACTIVATIONS)
def test_activation_equals_torch(rng, text, dtype):
    torch = pytest.importorskip("torch")
    x = numbers(rng, 7, 33, dtype=dtype)
    x[0, :8] = 0, -0.0, np.inf, -np.inf, np.nan, 1e4, -1e4, 88
    if text == "GELU()":
        x[0, 2:4] = 5  # of infinity torch makes NaN in float32 alone
    module = text.replace('("tanh', '(approximate="tanh')
    wanted = eval(f"torch.nn.{module}")(torch.from_numpy(x)).numpy()
    got = layer_of(text)(x)
    assert got.dtype == dtype
    np.testing.assert_allclose(got, wanted, rtol=TOLERANCES[dtype], atol=TOLERANCES[dtype])
    np.testing.assert_array_equal(layer_of(text)(input=x[None]), got[None])


@pytest.mark.parametrize("text", ACTIVATIONS)
def test_activation_equals_its_definition(rng, text, monkeypatch):
    layer = layer_of(text)
    x = numbers(rng, 4, 17)
    got = layer(x)
    monkeypatch.setattr(layer, "_functions", {})  # as where the kernels are not built
    assert_close(layer(x), got, 1e-13 * np.abs(got).max())
    assert layer(x.astype(np.float32)).dtype == np.float32


@given(data=st.data())
def test_any_batch_norm_equals_torch(data):
    torch = pytest.importorskip("torch")
    draw = data.draw
    torch.manual_seed(draw(st.integers(0, 2**31)))
    features = draw(st.integers(1, 300))
    module = torch.nn.BatchNorm1d(
        features, eps=draw(st.sampled_from((1e-5, 0.1))), affine=draw(st.booleans())
    )
    for _ in range(2):
        module(torch.randn(9, features, 4) * 3 + 1)
    module = module.double().eval()
    layer = fastrnn.from_torch(module)
    assert layer.channels_first and layer.precision == "float64"
    for shape in ((3, features), (2, features, draw(st.integers(1, 5)))):
        x = torch.randn(shape).double()
        assert_close(layer(x), module(x).detach(), 1e-12)
    plain = fastrnn.BatchNorm1d.from_state_dict(module.state_dict(), eps=module.eps, precision="float64")
    x = torch.randn(4, 2, features).double()
    assert_close(plain(x), module(x.mT).mT.detach(), 1e-12)


@given(data=st.data())
def test_any_scale_equals_its_definition(data):
    draw = data.draw
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    features, rows = draw(st.integers(1, 300)), draw(st.integers(0, 40))
    clip = draw(st.sampled_from((None, 2.0, (None, 0.5), (-0.5, None), (0.0, 1.0))))
    precision = draw(st.sampled_from(("float32", "float64")))
    mean, scale, x = rng.standard_normal((3, features))[:, None]
    x = rng.standard_normal((rows, features))
    layer = fastrnn.Scale(mean[0], scale[0], clip, precision)
    low, high = layer.clip or (None, None)
    wanted = (x - mean) / scale
    wanted = wanted if low is None and high is None else np.clip(wanted, low, high)
    # As far as rounding x, the mean and the scale takes it.
    reach = (np.abs(wanted) + (np.abs(x) + np.abs(mean)) / np.abs(scale)).max(initial=1)
    tolerance = 4 * np.finfo(precision).eps * reach
    assert_close(layer(x), wanted, tolerance)
    layer._function = None  # as where the kernels are not built
    assert_close(layer(x), wanted, tolerance)


def test_scale_takes_what_scalers_have():
    x = np.array([[1.0, 2.0], [3.0, 6.0]])
    np.testing.assert_array_equal(fastrnn.Scale([1, 2], [2, 4])(x), [[0, 0], [1, 1]])
    np.testing.assert_array_equal(fastrnn.Scale([1, 2])(x), [[0, 0], [2, 4]])
    np.testing.assert_array_equal(fastrnn.Scale(None, [2, 4])(x), [[0.5, 0.5], [1.5, 1.5]])
    np.testing.assert_array_equal(fastrnn.Scale(1, [2, 4], clip=0.25)(x), [[0, 0.25], [0.25, 0.25]])
    layer = fastrnn.Scale.from_state_dict(
        {"in.mean": [1.0, 2.0], "in.scale": [2.0, 4.0]}, "in", clip=(0, None)
    )
    np.testing.assert_array_equal(layer([[0, 6]]), [[0, 1]])
    assert repr(layer) == "Scale(2 features, clip=(0.0, None))"


# ---------------------------------------------------------------- dtypes


def test_layers_without_weights_compute_in_the_dtype_of_their_input(rng):
    x = rng.standard_normal((4, 8))
    layers = [layer_of(text) for text in ACTIVATIONS] + [fastrnn.LayerNorm(8)]
    for layer in layers:
        for dtype in (np.float32, np.float64):
            assert layer(x.astype(dtype)).dtype == dtype
        assert layer(x.astype(np.float16)).dtype == np.float32
        assert layer.signature.dtype is None
    assert fastrnn.LayerNorm(8, precision="float32")(x).dtype == np.float32
    assert_close(fastrnn.LayerNorm(8)(x), reference.layer_norm_reference(x), 1e-13)
    assert repr(fastrnn.LayerNorm(8)) == "LayerNorm(8, eps=1e-05)"


def test_a_softmax_takes_a_single_number():
    for dim in (0, -1):
        np.testing.assert_array_equal(fastrnn.Softmax(dim)(3.0), 1.0)
        assert fastrnn.LogSoftmax(dim)(3.0).shape == ()
    with pytest.raises(ValueError, match="an axis 1"):
        fastrnn.Softmax(1)(3.0)


# ---------------------------------------------------------------- streams, files, pickles


@pytest.mark.parametrize("features", (1, 3, 17, 128, 129, 300))
@pytest.mark.parametrize("precision", ("float32", "float64"))
def test_streams_and_pools_give_the_bits_of_whole_calls(rng, precision, features):
    if not backends.ISAS:
        pytest.skip("the blas backend promises no bits")
    x = rng.standard_normal((7, 3, 5)).astype(precision)
    for model in models(rng, features, precision):
        assert model._chain.runner is not None
        whole, _ = model(x)
        np.testing.assert_array_equal(model.layers[1](model.layers[0](x)[0]), whole)
        stream = model.stream(3)
        np.testing.assert_array_equal(stream.run(x[:3]), whole[:3])
        np.testing.assert_array_equal(np.stack([stream.step(row) for row in x[3:]]), whole[3:])
        pool = model.pool()
        ids = [pool.open() for _ in range(3)]
        np.testing.assert_array_equal(np.stack([pool.step(ids, row) for row in x]), whole)
        single = model.stream()
        np.testing.assert_array_equal(np.stack([single.step(row) for row in x[:, 1]]), whole[:, 1])


@pytest.mark.parametrize("precision", ("float32", "float64"))
def test_models_survive_their_files(rng, tmp_path, precision):
    x = rng.standard_normal((7, 3, 5))
    for index, model in enumerate(models(rng, 6, precision)):
        path = tmp_path / f"{index}.safetensors"
        model.save(path)
        again = fastrnn.load(path)
        np.testing.assert_array_equal(again(x)[0], model(x)[0])
        assert repr(again) == repr(model)


def test_a_saved_batch_norm_keeps_torchs_layout(tmp_path):
    torch = pytest.importorskip("torch")
    nn = torch.nn
    module = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.SiLU(), nn.Linear(4, 2))
    module(torch.randn(20, 5))
    model = fastrnn.from_torch(module.eval())
    x = torch.randn(3, 5)
    model.save(tmp_path / "m", example=(x, module(x)))
    again = fastrnn.load(tmp_path / "m")
    assert_close(again(x)[0], module(x).detach(), 1e-6)
    with pytest.raises(ValueError, match="features on the last axis, got BatchNorm1d"):
        model.stream()
    # After Last there are two axes, in which torch's layout is ours.
    body = random_layer(np.random.default_rng(0), "GRU", 5, 4, precision="float32")
    fastrnn.Sequential(body, fastrnn.Last(), again.layers[1]).stream().step(np.ones(5))


# ---------------------------------------------------------------- what is refused


def test_wrong_options_are_refused(rng):
    for make, words in (
        (lambda: fastrnn.GELU("erf"), 'approximate to be one of "none" and "tanh"'),
        (lambda: fastrnn.LeakyReLU(np.nan), "negative_slope to be finite"),
        (lambda: fastrnn.Hardtanh(1, 1), "min_val below max_val, got 1.0 and 1.0"),
        (lambda: fastrnn.Scale(None), "mean and scale of shape (features,), got neither"),
        (lambda: fastrnn.Scale(0, 1), "mean and scale of shape (features,)"),
        (lambda: fastrnn.Scale([1, 2], [1, 2, 3]), "got mean of shape (2,), scale of shape (3,)"),
        (lambda: fastrnn.Scale([1, 2], [1, 0]), "scale without zeros, got 0 at 1"),
        (lambda: fastrnn.Scale([1, np.inf]), "mean to be finite"),
        (lambda: fastrnn.Scale([1], clip=(2, 1)), "the first limit of clip below the second"),
        (lambda: fastrnn.Scale([1], clip=(2, 1, 3)), "clip to be a number or a pair"),
        (lambda: random_scale(rng, 3)(np.ones((2, 4))), "x of shape (..., 3), got (2, 4)"),
        (lambda: random_norm(rng, 3)(np.ones((3, 2))), "x of shape (..., 3), got (3, 2)"),
        (
            lambda: random_norm(rng, 3, channels_first=True)(np.ones((3, 2))),
            "(B, 3) or (B, 3, T), got (3, 2)",
        ),
    ):
        with pytest.raises(ValueError, match=re.escape(words)):
            make()
    with pytest.raises(TypeError, match="trained weights"):
        fastrnn.BatchNorm1d(3)
    with pytest.raises(fastrnn.WeightError, match="running_mean is missing"):
        fastrnn.BatchNorm1d.from_state_dict({"weight": np.ones(3), "running_var": np.ones(3)})
    with pytest.raises(fastrnn.WeightError, match="arrays of one shape"):
        fastrnn.BatchNorm1d.from_state_dict({"running_mean": np.ones(3), "running_var": np.ones(4)})


def test_from_torch_refuses_statistics_of_each_batch():
    torch = pytest.importorskip("torch")
    with pytest.raises(ValueError, match="a BatchNorm1d with the statistics of training"):
        fastrnn.from_torch(torch.nn.BatchNorm1d(3, track_running_stats=False))


@pytest.mark.parametrize("layer", (fastrnn.ReLU(), fastrnn.Softmax(), fastrnn.Last()))
def test_the_order_of_bytes_does_not_change_the_type(layer):
    assert layer(np.ones((2, 3), ">f8")).dtype == np.float64
    assert layer(np.ones((2, 3), ">f4")).dtype == np.float32
