"""The promise of narrow layers, by property: a row's bits depend on nothing but the row."""

import numpy as np
import pytest
from helpers import CELLS, arrays_of, make_layer, random_spec, random_state, random_tensors
from hypothesis import given, settings
from hypothesis import strategies as st

import fastrnn
from fastrnn.engine.backends import SIMD_PRODUCTS
from fastrnn.operators.recurrent import DIVISIONS

LEVELS = tuple(SIMD_PRODUCTS)
# Those with fused multiply-adds: the same sums.
FUSED = LEVELS[1:]
STORAGES = ("bfloat16", "int8")
PRECISIONS = (
    *STORAGES,
    {"input": "float32", "recurrent": "int8"},
    {"input": "bfloat16", "recurrent": "float32", "projection": "int8"},
    {"input": "int8", "recurrent": "bfloat16", "projection": "float32"},
)
SIZES = st.one_of(st.integers(1, 70), st.sampled_from([127, 128, 129, 300]))

pytestmark = pytest.mark.skipif(not LEVELS, reason="narrow products are those of simd")


def drawn_layers(draw, levels, cells, precisions, directions=(False, True)):
    """Make a layer, on each of the levels; what it is; and numbers."""
    spec = random_spec(
        draw(st.sampled_from(cells)),
        input_size=draw(SIZES),
        hidden_size=draw(SIZES),
        num_layers=draw(st.integers(1, 2)),
        bidirectional=draw(st.sampled_from(directions)),
        bias=draw(st.booleans()),
    )
    precision = draw(st.sampled_from(precisions))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    tensors = random_tensors(rng, spec, np.float32)
    layers = []
    for level in levels:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("FASTRNN_ISA", level)
            layers.append(make_layer(spec, tensors, precision=precision, threads=1))
    return layers, spec, rng


def drawn_rows(draw, spec, rng):
    """Draw x, lengths, and a state that may be far beyond 1."""
    steps, batch_size = draw(st.integers(1, 20)), draw(st.integers(1, 40))
    x = rng.standard_normal((steps, batch_size, spec.input_size)).astype(np.float32)
    lengths = draw(st.lists(st.integers(1, steps), min_size=batch_size, max_size=batch_size))
    scale = np.float32(draw(st.sampled_from([0, 1, 5])))
    return x, lengths, [part * scale for part in arrays_of(random_state(rng, spec, batch_size, np.float32))]


def as_state(parts):
    return tuple(parts) if len(parts) > 1 else parts[0]


def results(layer, x, state, lengths=None):
    """Return the output and the arrays of the state after it."""
    y, after = layer(x, as_state(state), lengths=lengths)
    return [y, *arrays_of(after)]


def assert_all_equal(got, wanted):
    for one, other in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(one, other)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_rows_bits_depend_on_nothing_else(data):
    """Not on its batch, on padding, on threads and how they share work, or on how memory lies."""
    draw = data.draw
    (layer,), spec, rng = drawn_layers(draw, [draw(st.sampled_from(LEVELS))], sorted(CELLS), PRECISIONS)
    x, lengths, state = drawn_rows(draw, spec, rng)
    batch_size = x.shape[1]
    whole, padded = results(layer, x, state), results(layer, x, state, lengths)
    rows = rng.permutation(batch_size)[: draw(st.integers(1, batch_size))]
    assert_all_equal(
        results(layer, x[:, rows], [part[:, rows] for part in state]),
        [whole[0][:, rows], *(part[:, rows] for part in whole[1:])],
    )
    for row in rows[:5]:
        own, length = [part[:, row : row + 1] for part in state], lengths[row]
        alone = results(layer, x[:length, row : row + 1], own)
        assert_all_equal(
            [array[:, 0] for array in alone], [padded[0][:length, row], *(p[:, row] for p in padded[1:])]
        )
        assert not padded[0][length:, row].any()
    lying = np.empty((batch_size, x.shape[0], x.shape[2] + 3), np.float32)[:, :, 2:-1].swapaxes(0, 1)
    lying[...] = x
    assert_all_equal(results(layer, lying, state), whole)
    layer._divide(draw(st.sampled_from(DIVISIONS)), draw(st.integers(2, 4)))
    assert_all_equal(results(layer, x, state), whole)
    assert_all_equal(results(layer, x, state, lengths), padded)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_streams_and_pools_have_the_bits_of_whole_sequences(data):
    draw = data.draw
    level = [draw(st.sampled_from(LEVELS))]
    (layer,), spec, rng = drawn_layers(draw, level, sorted(CELLS), PRECISIONS, [False])
    x, lengths, _ = drawn_rows(draw, spec, rng)
    steps, batch_size, _ = x.shape
    whole, _ = layer(x)
    stream = layer.stream(batch_size)
    cut = draw(st.integers(0, steps))
    np.testing.assert_array_equal(np.concatenate([stream.run(x[:cut]), stream.run(x[cut:])]), whole)
    stream.reset()
    np.testing.assert_array_equal(np.stack([stream.step(row) for row in x]), whole)
    # Each stream of a pool is stepped beside others, as often as it has steps.
    pool = layer.pool()
    ids = [pool.open() for _ in range(batch_size)]
    for t in range(steps):
        live = rng.permutation([m for m in range(batch_size) if lengths[m] > t])
        if len(live):
            y = pool.step([ids[m] for m in live], x[t, live])
            np.testing.assert_array_equal(y, whole[t, live])


@pytest.mark.skipif(len(FUSED) < 2, reason="there is one level")
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_every_level_has_the_same_sums(data):
    """A relu's gates round nothing, so that its sums show."""
    draw = data.draw
    layers, spec, rng = drawn_layers(draw, FUSED, ["rnn_relu"], STORAGES)
    x, lengths, state = drawn_rows(draw, spec, rng)
    wanted = results(layers[0], x, state, lengths)
    for layer in layers[1:]:
        assert_all_equal(results(layer, x, state, lengths), wanted)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_rows_of_models_are_their_own(data):
    """Of tokens, convolutions, recurrent and Linear layers; whole, alone, in chunks and in a pool."""
    draw = data.draw
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    channels, units, outputs = draw(SIZES), draw(SIZES), draw(SIZES)
    precision = draw(st.sampled_from(STORAGES))
    level, models = draw(st.sampled_from(LEVELS)), []
    tensors = {
        "embedding": {"weight": rng.standard_normal((11, 7))},
        "convolution": {
            "weight": rng.uniform(-0.3, 0.3, (channels, 7, 3)),
            "bias": rng.standard_normal(channels),
        },
        "recurrent": random_tensors(rng, random_spec("rnn_relu", channels, units)),
        "linear": {"weight": rng.standard_normal((outputs, units)), "bias": rng.standard_normal(outputs)},
    }
    for picked in (level, LEVELS[-1]):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("FASTRNN_ISA", picked)
            models.append(
                fastrnn.Sequential(
                    fastrnn.Embedding.from_state_dict(tensors["embedding"], precision=precision),
                    fastrnn.Conv1d.from_state_dict(tensors["convolution"], causal=True, precision=precision),
                    fastrnn.RNN.from_state_dict(
                        tensors["recurrent"], nonlinearity="relu", precision=precision
                    ),
                    fastrnn.Linear.from_state_dict(tensors["linear"], precision=precision),
                )
            )
    model, other = models
    steps, batch_size = draw(st.integers(1, 12)), draw(st.integers(1, 40))
    tokens = rng.integers(11, size=(steps, batch_size))
    whole, _ = model(tokens)
    if level in FUSED:
        np.testing.assert_array_equal(other(tokens)[0], whole)
    stream = model.stream(batch_size)
    cut = draw(st.integers(0, steps))
    np.testing.assert_array_equal(np.concatenate([stream.run(tokens[:cut]), stream.run(tokens[cut:])]), whole)
    pool = model.pool()
    ids = [pool.open() for _ in range(batch_size)]
    for t in range(steps):
        order = rng.permutation(batch_size)
        np.testing.assert_array_equal(pool.step([ids[m] for m in order], tokens[t, order]), whole[t, order])
    for row in rng.permutation(batch_size)[:4]:
        np.testing.assert_array_equal(model(tokens[:, row])[0], whole[:, row])
