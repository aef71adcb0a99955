"""Operators and their runner: the bits of one layer after the other, and what layers say of themselves."""

import numpy as np
import pytest
from helpers import arrays_of, random_layer
from hypothesis import given, settings
from hypothesis import strategies as st

import fastrnn
from fastrnn.engine import backends
from fastrnn.engine.threads import team
from fastrnn.operators.chain import Chain, join_state
from fastrnn.operators.recurrent import DIVISIONS
from fastrnn.operators.signature import Signature, Trait

F32 = np.dtype(np.float32)
needs_simd = pytest.mark.skipif(not backends.SIMD_TABLES, reason="functions of rows are simd's alone")


def linear(rng, inputs, outputs, **options):
    weight = rng.standard_normal((outputs, inputs)) / inputs**0.5
    weights = {"weight": weight, "bias": rng.standard_normal(outputs)}
    return fastrnn.Linear.from_state_dict(weights, **options)


def draw_layers(data, rng, batch_first, backend, precision):
    """Layers that fit one another, the first with weights, on one thread; and whether they take tokens."""
    options = {"backend": backend, "precision": precision, "threads": 1}
    takes_tokens = data.draw(st.booleans())
    features = 5
    layers = []
    if takes_tokens:
        weights = {"weight": rng.standard_normal((11, features))}
        layers.append(fastrnn.Embedding.from_state_dict(weights, precision=precision))
    for _ in range(data.draw(st.integers(1, 3))):
        kind = data.draw(st.sampled_from(["LSTM", "GRU", "RNN"]))
        both = data.draw(st.booleans())
        # Of 40 units there are several parts.
        hidden_size = data.draw(st.sampled_from([6, 40]))
        depth = data.draw(st.integers(1, 2))
        layers.append(
            random_layer(
                rng,
                kind,
                features,
                hidden_size,
                num_layers=depth,
                bidirectional=both,
                batch_first=batch_first,
                **options,
            )
        )
        features = hidden_size * (1 + both)
        layers.append(data.draw(st.sampled_from([fastrnn.Dropout(), fastrnn.Tanh(), fastrnn.Softmax(-1)])))
    if data.draw(st.booleans()):
        layers.append(fastrnn.Last())
    layers += [linear(rng, features, 4, **options), fastrnn.Sigmoid()]
    return layers, takes_tokens


@needs_simd
@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_model_in_compiled_code_gives_the_bits_of_its_layers(data):
    """On one thread, layer after layer; then however the runner divides its calls. On blas to rounding."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    batch_first = data.draw(st.booleans())
    backend = data.draw(st.sampled_from(["simd", "blas"]))
    precision = data.draw(st.sampled_from(["float32", "float64"]))
    layers, takes_tokens = draw_layers(data, rng, batch_first, backend, precision)
    T, B = data.draw(st.sampled_from([1, 2, 9, 40])), data.draw(st.sampled_from([None, 1, 3, 10]))
    shape = (T,) if B is None else (B, T) if batch_first else (T, B)
    x = rng.integers(11, size=shape) if takes_tokens else rng.standard_normal((*shape, 5)).astype(precision)
    lengths = None
    if B is not None and data.draw(st.booleans()):
        lengths = np.array(data.draw(st.lists(st.integers(1, T), min_size=B, max_size=B)), np.intp)
    chain = Chain("here", layers)
    calls, state = [], None
    for _ in range(2):
        output, after = chain.run_each(x, chain.split_state("here", state), lengths, batch_first)
        calls.append((state, output, join_state(after)))
        state = join_state(after)
    division = data.draw(st.sampled_from([None, *DIVISIONS]))
    for layer in chain.stateful:
        if division is not None:
            layer._divide(division, data.draw(st.integers(1, 3)))
    tolerance = 0 if backend == "simd" else {"float32": 1e-5, "float64": 1e-12}[precision]
    for state, output, after in calls:
        got = chain.runner.call(x, state, None, lengths, batch_first)
        assert got is not None, "plain arguments were not taken"
        for one, other in zip(arrays_of(got), arrays_of((output, after)), strict=True):
            assert one.dtype == precision
            np.testing.assert_allclose(one, other, rtol=0, atol=tolerance)


@needs_simd
@pytest.mark.parametrize(
    "change",
    (
        lambda x: x.astype(np.float64),
        lambda x: x[:, :, ::-1],
        lambda x: x[..., :4],
        lambda x: x[:0],
        lambda x: x[0, 0],
        lambda x: x.tolist(),
        lambda x: np.ma.array(x),
        lambda x: x.astype(">f4"),
    ),
)
def test_the_runner_leaves_alone_what_is_not_plain(rng, change):
    model = fastrnn.Sequential(random_layer(rng, "LSTM", 5, 6, precision="float32"), linear(rng, 6, 4))
    x = rng.standard_normal((7, 3, 5)).astype(np.float32)
    runner = model._chain.runner
    assert runner.call(x) is not None
    assert runner.call(change(x)) is None


@needs_simd
def test_the_runner_leaves_alone_states_lengths_and_outputs_that_do_not_fit(rng):
    runner = random_layer(rng, "LSTM", 5, 6, precision="float32")._runner
    x = rng.standard_normal((7, 3, 5)).astype(np.float32)
    h, out = np.zeros((1, 3, 6), np.float32), np.empty((7, 3, 6), np.float32)
    assert runner.call(x, (h, h.copy()), out, np.array([7, 1, 3])) is not None
    for state in (h, (h,), [h, h], (h, h[:, :2]), (h, h.astype(np.float64)), (h, out[:1])):
        assert runner.call(x, state, out) is None
    for lengths in (
        [7, 1, 3],
        np.array([8, 1, 3]),
        np.array([0, 1, 3]),
        np.array([7, 1]),
        np.array([7.0, 1, 3]),
    ):
        assert runner.call(x, None, None, lengths) is None
    assert runner.call(x[:, 0], None, None, np.array([7])) is None
    for other in (out[:6], out.astype(np.float64), out[:, ::-1], out.tolist()):
        assert runner.call(x, None, other) is None
    both = np.empty((8, 3, 6), np.float32)
    assert runner.call(both[:7, :, :5], None, both[1:]) is None


def test_layers_say_what_they_take_give_and_keep(rng):
    lstm = random_layer(rng, "LSTM", 5, 6, num_layers=2, precision="float32")
    both = random_layer(rng, "GRU", 5, 6, bidirectional=True, precision="float32")
    embedding = fastrnn.Embedding.from_state_dict({"weight": np.zeros((11, 5), np.float32)})
    assert lstm.signature == Signature(Trait.STEPWISE, 5, 6, None, F32, {"h": (2, 6), "c": (2, 6)})
    assert both.signature == Signature(Trait.WHOLE, 5, 12, None, F32, {"h": (2, 6)})
    assert embedding.signature == Signature(Trait.ROWWISE, None, 5, 11, F32)
    assert linear(rng, 6, 4).signature == Signature(Trait.ROWWISE, 6, 4, None, F32)
    assert fastrnn.Tanh().signature == Signature(Trait.ROWWISE)
    assert fastrnn.Dropout().signature == Signature(Trait.IDENTITY)
    assert fastrnn.Last().signature == Signature(Trait.LAST, gives_last=True)
    model = fastrnn.Sequential(embedding, lstm, fastrnn.Last(), linear(rng, 6, 4))
    states = {"state0": (2, 6), "state1": (2, 6)}
    assert model.signature == Signature(Trait.STEPWISE, None, 4, 11, F32, states, True)
    assert model.signature.state_shapes(None) == {"state0": (2, 6), "state1": (2, 6)}
    assert model.signature.state_shapes(7) == {"state0": (2, 7, 6), "state1": (2, 7, 6)}


def test_a_plan_is_the_same_however_often_it_is_made(rng):
    """Nothing that a plan says depends on the plans or calls before it."""
    operator = random_layer(rng, "LSTM", 8, 64, num_layers=2, precision="float32", threads=4)._operator
    plans = {
        (T, B, ragged): operator.plan(T, B, ragged, 4, 150, 1)
        for T in (1, 50)
        for B in (1, 40)
        for ragged in (0, 1)
    }
    for (T, B, ragged), plan in reversed(plans.items()):
        assert operator.plan(T, B, ragged, 4, 150, 1) == plan
        assert plan["bytes"] <= operator.room(T, B, ragged, 4)


def test_a_chunk_has_room_for_one_thread_whoever_was_free_when_it_was_planned(rng):
    """The plan of one thread may want more memory than that of several, and may come after it."""
    layer = random_layer(rng, "LSTM", 16, 16, num_layers=2, precision="float32")
    layer._divide("pipeline", 2)
    alone = layer._operator.plan(80, 1, False, 1, 150, 1)
    divided = layer._operator.plan(80, 1, False, 2, 150, 1)
    short = layer._operator.room(40, 1, False, 2)
    assert divided["bytes"] < short < alone["bytes"], "the case that this test is about"
    stream = layer.stream()
    stream.run(np.zeros((40, 16), np.float32))
    stream.run(np.zeros((80, 16), np.float32))
    assert stream._chunk_bytes() >= alone["bytes"]


def test_what_follows_last_is_planned_for_its_own_rows(rng):
    """Not for all steps: sharing a few rows costs more than they take."""
    lstm = random_layer(rng, "LSTM", 16, 64, precision="float32", threads=1)
    model = fastrnn.Sequential(lstm, fastrnn.Last(), linear(rng, 64, 64))
    x = rng.standard_normal((500, 8, 16)).astype(np.float32)
    model(x)
    before = team.jobs()
    for _ in range(20):
        model(x)
    assert team.jobs() == before


def test_more_rows_than_any_memory_has_are_refused(rng):
    """Rows of a broadcast array, which take no memory themselves."""
    model = fastrnn.Sequential(random_layer(rng, "GRU", 1, 256, precision="float32"), fastrnn.Last())
    with pytest.raises(MemoryError):
        model(np.broadcast_to(np.zeros((1, 1), np.float32), (2**54, 1)))
