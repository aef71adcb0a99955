"""Conv1d: torch's numbers, and a causal one the same bits in calls, streams and pools."""

import pickle
import re

import numpy as np
import pytest
from helpers import assert_close, random_layer
from hypothesis import given
from hypothesis import strategies as st

import fastrnn
from fastrnn import reference
from fastrnn.engine import backends

BACKENDS = ("simd", "blas") if backends.ISAS else ("blas",)


def weights_of(rng, channels=4, outputs=6, taps=3, groups=1, has_bias=True):
    tensors = {"weight": rng.standard_normal((outputs, channels // groups, taps)) / np.sqrt(channels * taps)}
    return tensors | ({"bias": rng.standard_normal(outputs)} if has_bias else {})


def make_conv(rng, channels=4, outputs=6, taps=3, has_bias=True, **options):
    tensors = weights_of(rng, channels, outputs, taps, options.get("groups", 1), has_bias)
    return fastrnn.Conv1d.from_state_dict(tensors, **options)


# ---------------------------------------------------------------- numbers


@pytest.mark.filterwarnings("ignore:Using padding='same'")  # torch copies the input
@given(data=st.data())
def test_any_convolution_equals_torch(data):
    torch = pytest.importorskip("torch")
    draw = data.draw
    torch.manual_seed(draw(st.integers(0, 2**31)))
    groups = draw(st.sampled_from((1, 1, 2, 3)))
    channels, outputs = (groups * draw(st.integers(1, 12)) for _ in range(2))
    taps, dilation = draw(st.integers(1, 5)), draw(st.integers(1, 3))
    causal = draw(st.booleans())
    options = {"dilation": dilation, "groups": groups}
    if not causal:
        options["padding"] = draw(st.sampled_from((0, 1, 4, "same", "valid")))
        options["stride"] = 1 if options["padding"] == "same" else draw(st.integers(1, 3))
    module = torch.nn.Conv1d(channels, outputs, taps, bias=draw(st.booleans()), **options).double()
    reach = dilation * (taps - 1)
    T, B = draw(st.integers(reach + 1, reach + 90)), draw(st.integers(1, 4))
    x = torch.randn(B, channels, T).double()
    with torch.no_grad():
        wanted = module(torch.nn.functional.pad(x, (reach, 0)) if causal else x).mT.numpy()
    rows = x.mT.numpy()
    for backend in BACKENDS:
        for batch_first in (False, True):
            layer = fastrnn.Conv1d.from_state_dict(
                module.state_dict(), **options, causal=causal, batch_first=batch_first,
                precision="float64", backend=backend, threads=draw(st.sampled_from((1, 2))),
            )  # fmt: skip
            y = layer(rows if batch_first else rows.swapaxes(0, 1))
            assert_close(y if batch_first else y.swapaxes(0, 1), wanted, 1e-12)
            assert_close(layer(input=rows[0]), wanted[0], 1e-12)
            assert layer.steps_out(T) == wanted.shape[1]


@pytest.mark.parametrize("batch_first", (False, True))
@pytest.mark.parametrize("options", ({"causal": True}, {"padding": "same"}, {"padding": 1, "groups": 2}))
def test_a_row_of_a_ragged_batch_is_that_row_alone(rng, options, batch_first):
    layer = make_conv(rng, batch_first=batch_first, precision="float64", **options)
    body = random_layer(rng, "GRU", 6, 5, batch_first=batch_first)
    model = fastrnn.Sequential(layer, fastrnn.Tanh(), body, fastrnn.Mean())
    x = rng.standard_normal((3, 9, 4))  # what pads the rows is no zeros
    lengths = np.array([4, 9, 1])
    given = x if batch_first else np.ascontiguousarray(x.swapaxes(0, 1))
    y = layer(given, lengths=lengths)
    y = y if batch_first else y.swapaxes(0, 1)
    means, _ = model(given, lengths=lengths)
    for b, n in enumerate(lengths):
        assert_close(y[b, :n], layer(x[b, :n]), 0 if backends.ISAS else 1e-13)
        assert not y[b, n:].any()
        assert_close(means[b], model(x[b, :n])[0], 1e-13)
    assert_close(model(given.tolist(), lengths=lengths)[0], means, 0 if backends.ISAS else 1e-13)


@pytest.mark.parametrize("precision", ("float32", "float64"))
@pytest.mark.parametrize("backend", BACKENDS)
def test_convolution_equals_reference(rng, backend, precision):
    layer = make_conv(
        rng, 6, 9, 4, stride=2, padding=3, dilation=2, groups=3, precision=precision, backend=backend
    )
    x = rng.standard_normal((20, 2, 6))
    wanted = reference.convolution_reference(x, layer.tensors, layer.spec().options)
    assert_close(layer(x), wanted, 1e-12 if precision == "float64" else 1e-5)


# ---------------------------------------------------------------- states


@pytest.mark.parametrize("precision", ("float32", "float64"))
@pytest.mark.parametrize("options", ({}, {"dilation": 3}, {"groups": 2}, {"taps": 1}, {"taps": 9}))
def test_streams_and_pools_give_the_bits_of_whole_calls(rng, options, precision):
    if not backends.ISAS:
        pytest.skip("the blas backend promises no bits")
    first = make_conv(rng, causal=True, precision=precision, **options)
    second = make_conv(rng, 6, 5, 2, causal=True, precision=precision, has_bias=False)
    body = random_layer(rng, "LSTM", 5, 7, precision=precision)
    x = rng.standard_normal((100, 3, 4)).astype(precision)
    for layers in ([first], [first, fastrnn.ReLU(), second], [first, second, body]):
        model = fastrnn.Sequential(*layers)
        whole, after = model(x)
        if len(layers) == 1:
            np.testing.assert_array_equal(first(x), whole)
        stream = model.stream(3)
        parts = [stream.run(x[:1]), stream.run(x[1:4]), stream.run(x[4:90])]
        parts.append(np.stack([stream.step(row) for row in x[90:]]))
        np.testing.assert_array_equal(np.concatenate(parts), whole)
        for one, other in zip(flat(stream.state), flat(after), strict=True):
            np.testing.assert_array_equal(one, other)
        single = model.stream()
        np.testing.assert_array_equal(
            np.concatenate([single.run(x[:7, 1]), single.run(x[7:, 1])]), whole[:, 1]
        )
        pool = model.pool(1)
        ids = [pool.open() for _ in range(3)]
        rows = [pool.step(ids[::-1], row[::-1].copy())[::-1] for row in x[:20]]
        np.testing.assert_array_equal(np.stack(rows), whole[:20])
        chunks = pool.run(ids, [x[20:, b] for b in range(3)])
        np.testing.assert_array_equal(np.stack(chunks, 1), whole[20:])
        # Whole calls that go on from a state.
        begun, state = model(x[:5])
        np.testing.assert_array_equal(np.concatenate((begun, model(x[5:], state)[0])), whole)
        np.testing.assert_array_equal(np.concatenate((begun, model(x[5:].tolist(), state)[0])), whole)
        stream.reset()
        np.testing.assert_array_equal(stream.run(x), whole)
        again = pickle.loads(pickle.dumps(model.stream(3)))
        np.testing.assert_array_equal(again.run(x), whole)


def flat(state):
    if state is None:
        return []
    return [a for part in state for a in flat(part)] if isinstance(state, tuple) else [state]


@pytest.mark.parametrize("lengths", (None, [2, 7, 1]))
def test_the_state_is_the_last_steps(rng, lengths):
    layer = make_conv(rng, dilation=2, causal=True)
    x = rng.standard_normal((7, 3, 4)).astype(np.float32)
    _, tail = fastrnn.Sequential(layer)(x, lengths=lengths)
    assert tail.shape == (1, 3, 4 * 4)
    padded = np.concatenate((np.zeros((4, 3, 4), np.float32), x))
    for b, n in enumerate(lengths or [7] * 3):
        np.testing.assert_array_equal(tail[0, b].reshape(4, 4), padded[n : n + 4, b])


# ---------------------------------------------------------------- files, and what is refused


@pytest.mark.parametrize(
    "options",
    ({"causal": True}, {"padding": "same", "batch_first": True}, {"stride": 2, "dilation": 6}, {"groups": 2}),
)
def test_models_survive_their_files(rng, tmp_path, options):
    layer = make_conv(rng, precision="float64", **options)
    body = random_layer(rng, "GRU", 6, 5, batch_first=layer.batch_first)
    for layers in ((layer, fastrnn.SiLU(), body, fastrnn.Last()), (layer,), (layer, fastrnn.Max())):
        model = fastrnn.Sequential(*layers)
        model.save(tmp_path / "m")
        again = fastrnn.load(tmp_path / "m")
        x = rng.standard_normal((20, 20, 4))
        np.testing.assert_array_equal(again(x)[0], model(x)[0])
        assert repr(again) == repr(model) and again.batch_first == layer.batch_first
        from fastrnn.loading.verify import verify

        assert verify(tmp_path / "m")["passed"]
    shown = make_conv(rng, stride=2, has_bias=False, precision="float64")
    assert repr(shown) == "Conv1d(4, 6, 3, stride=2, bias=False, precision='float64')"


def test_layers_over_time_read_as_text_take_a_layout(rng):
    from fastrnn.importers import Source, StateDict
    from fastrnn.loading.expression import make_from_expression

    tensors = {f"conv.{name}": a for name, a in weights_of(rng).items()}
    source = Source(b"")
    state_dict = StateDict(tensors, "npz")
    model, _ = make_from_expression(source, state_dict, 'Conv1d("conv", causal=True), Mean', batch_first=True)
    assert model.batch_first and model.taken_for_granted == ("no_activations",)


def test_wrong_arguments_are_refused(rng):
    causal, same = make_conv(rng, causal=True), make_conv(rng, padding="same")
    x = np.ones((5, 2, 4))
    for make, words in (
        (lambda: make_conv(rng, causal=True, stride=2), "no stride and no padding beside causal"),
        (lambda: make_conv(rng, causal=True, padding=1), "no stride and no padding beside causal"),
        (lambda: make_conv(rng, padding="same", stride=2), 'a stride of 1 beside padding="same"'),
        (lambda: make_conv(rng, padding=-1), "padding to be at least 0"),
        (lambda: make_conv(rng, taps=4)(x[:3]), "at least 4 time steps, got 3"),
        (lambda: make_conv(rng, taps=4, stride=3)(x[:3]), "at least 4 time steps, got 3"),
        (lambda: make_conv(rng)(x, lengths=[1, 2]), "no lengths beside a padding or stride"),
        (lambda: same(x[:, 0], lengths=[5]), "a batch beside lengths"),
        (lambda: same(x, lengths=[0, 5]), "lengths from 1 to 5"),
        (lambda: same(np.ones((5, 2, 3))), "x of shape (T, B, 4)"),
        (lambda: fastrnn.Sequential(causal)(x, np.ones((1, 2, 7))), "of shape (1, 2, 8), got (1, 2, 7)"),
        (
            lambda: fastrnn.Sequential(same).stream(),
            "layers that need no later steps, got Conv1d(4, 6, 3, padding",
        ),
        (lambda: fastrnn.Sequential(same).pool(), "layers that need no later steps"),
        (lambda: fastrnn.Sequential(same, make_conv(rng, 6, batch_first=True)), "one batch_first"),
    ):
        with pytest.raises(ValueError, match=re.escape(words)):
            make()
    for padding in ("reflect", 1.5, True):
        with pytest.raises(TypeError, match='a whole number, "same" or "valid"'):
            make_conv(rng, padding=padding)
    with pytest.raises(fastrnn.WeightError, match="divide into the groups, got 6 in 4 groups"):
        make_conv(rng, groups=4)
    with pytest.raises(fastrnn.WeightError, match="weight has the shape"):
        fastrnn.Conv1d.from_state_dict({"weight": np.ones((2, 3))})
    with pytest.raises(fastrnn.WeightError, match=re.escape("bias of shape (6,), got (5,)")):
        fastrnn.Conv1d.from_state_dict(weights_of(rng) | {"bias": np.ones(5)})


def test_from_torch_names_what_it_cannot_lay_out():
    """A layer of from_torch is called as the module, and that has the channels in the middle."""
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match=r"Conv1d.from_state_dict has channels last\. export takes it"):
        fastrnn.from_torch(torch.nn.Sequential(torch.nn.Conv1d(3, 4, 2), torch.nn.ReLU()))
