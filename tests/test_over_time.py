"""FinalState, Mean and Max, and learned initial states: torch's numbers in calls, streams and pools."""

import copy
import pickle
import re

import numpy as np
import pytest
from helpers import assert_close, assert_states_close, make_layer, random_layer, random_spec, random_tensors
from hypothesis import given
from hypothesis import strategies as st

import fastrnn
from fastrnn.engine import backends

KINDS = ("FinalState", "Mean", "Max")
CELLS = ("rnn_tanh", "gru", "lstm", "lstm_proj")


def initial_of(rng, spec):
    """A learned initial state, (L*D, columns) each."""
    return tuple(rng.standard_normal(shape) for shape in spec.state_shapes(None).values())


def layer_with_state(rng, cell="lstm", **options):
    """A layer with a learned initial state, the same without one, and that state."""
    names = ("num_layers", "bidirectional")
    spec = random_spec(cell, 5, 6, **{name: options.pop(name) for name in names if name in options})
    tensors, initial = random_tensors(rng, spec), initial_of(rng, spec)
    given = initial if len(initial) == 2 else initial[0]
    return (
        make_layer(spec, tensors, initial_state=given, **options),
        make_layer(spec, tensors, **options),
        initial,
    )


# ---------------------------------------------------------------- one row of each sequence


@given(data=st.data())
def test_any_row_equals_torch(data):
    torch = pytest.importorskip("torch")
    draw = data.draw
    torch.manual_seed(draw(st.integers(0, 2**31)))
    batch_first, layers = draw(st.booleans()), draw(st.integers(1, 2))
    module = torch.nn.LSTM(5, draw(st.integers(1, 20)), layers, batch_first=batch_first, bidirectional=True)
    module = module.double()
    T, B = draw(st.integers(1, 40)), draw(st.integers(1, 5))
    lengths = draw(st.lists(st.integers(1, T), min_size=B, max_size=B))
    x = torch.randn(*((B, T) if batch_first else (T, B)), 5).double()
    pack = torch.nn.utils.rnn.pack_padded_sequence
    with torch.no_grad():
        packed, (h_n, _) = module(pack(x, lengths, batch_first, enforce_sorted=False))
        y, _ = torch.nn.utils.rnn.pad_packed_sequence(packed, batch_first=True)
    rows = [row[:n] for row, n in zip(y, lengths, strict=True)]
    wanted = {
        "FinalState": torch.cat((h_n[-2], h_n[-1]), -1),
        "Mean": torch.stack([row.mean(0) for row in rows]),
        "Max": torch.stack([row.amax(0) for row in rows]),
    }
    body = fastrnn.from_torch(module)
    for kind in KINDS:
        layer = getattr(fastrnn, kind)()
        model = fastrnn.Sequential(body, layer)
        got, _ = model(x.numpy(), lengths=np.array(lengths))
        assert_close(got, wanted[kind], 1e-12)
        np.testing.assert_array_equal(model(x.tolist(), lengths=lengths)[0], got)
        alone = layer(body(x, lengths=lengths)[0], lengths=lengths, batch_first=batch_first)
        np.testing.assert_array_equal(alone, got)


@pytest.mark.parametrize("precision", ("float32", "float64"))
@pytest.mark.parametrize("kind", KINDS)
def test_a_row_does_not_depend_on_its_batch(rng, kind, precision):
    body = random_layer(rng, "GRU", 5, 40, bidirectional=True, precision=precision)
    model = fastrnn.Sequential(body, fastrnn.Tanh(), getattr(fastrnn, kind)())
    x = rng.standard_normal((50, 4, 5)).astype(precision)
    lengths = [50, 1, 33, 7]
    whole, _ = model(x, lengths=np.array(lengths))
    for b, n in enumerate(lengths):
        alone, _ = model(np.ascontiguousarray(x[:n, b]))
        if backends.ISAS:
            np.testing.assert_array_equal(alone, whole[b])
        assert_close(alone, whole[b], 1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_survive_their_file(rng, tmp_path, kind):
    body = random_layer(rng, "LSTM", 5, 6, bidirectional=True, batch_first=True)
    linear = fastrnn.Linear.from_state_dict({"weight": rng.standard_normal((2, 12))}, precision="float64")
    model = fastrnn.Sequential(body, fastrnn.Dropout(), getattr(fastrnn, kind)(), linear)
    model.save(tmp_path / "m")
    again = fastrnn.load(tmp_path / "m")
    x = rng.standard_normal((3, 7, 5))
    np.testing.assert_array_equal(again(x)[0], model(x)[0])
    assert repr(again) == repr(model) and again(x)[0].shape == (3, 2)


def test_means_of_what_kernels_do_not_compute(rng, monkeypatch):
    x = rng.standard_normal((9, 3, 4))
    for kind in ("Mean", "Max"):
        layer = getattr(fastrnn, kind)()
        wanted = layer(x, lengths=[9, 1, 4])
        monkeypatch.setattr(layer, "_operators", {})
        assert_close(layer(x, lengths=[9, 1, 4]), wanted, 1e-14)
        assert layer(x.astype(np.float32)).dtype == np.float32
    x[3, 0, 1] = np.nan
    assert np.isnan(fastrnn.Max()(x)[0, 1])


def test_rows_where_they_mean_nothing_are_refused(rng):
    forward = random_layer(rng, "GRU", 5, 6)
    both = random_layer(rng, "GRU", 5, 6, bidirectional=True)
    linear = fastrnn.Linear.from_state_dict({"weight": np.ones((12, 12))}, precision="float64")
    final, mean = fastrnn.FinalState(), fastrnn.Mean()
    for layers in ((forward, final), (both, linear, final), (final,)):
        with pytest.raises(ValueError, match="a bidirectional layer before it, got none"):
            fastrnn.Sequential(*layers)
    with pytest.raises(ValueError, match="an input with time steps, got what Mean gives"):
        fastrnn.Sequential(both, mean, fastrnn.Last())
    for make in (fastrnn.Sequential(forward, mean).stream, fastrnn.Sequential(forward, mean).pool):
        with pytest.raises(ValueError, match=re.escape("layers that need no later steps, got Mean()")):
            make()
    with pytest.raises(ValueError, match="the features of two directions, got 3 features"):
        final(np.ones((2, 1, 3)))


def test_an_example_finds_the_final_state(rng):
    torch = pytest.importorskip("torch")
    module = torch.nn.GRU(3, 4, bidirectional=True).double()
    x = torch.randn(5, 2, 3).double()
    with torch.no_grad():
        h_n = module(x)[1]
    model = fastrnn.Sequential(fastrnn.from_torch(module))
    result = model.verify(x, torch.cat((h_n[-2], h_n[-1]), -1))
    assert not result["passed"] and result["hint"].endswith("It agrees with FinalState().")


# ---------------------------------------------------------------- learned initial states


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("options", ({}, {"num_layers": 2}, {"bidirectional": True, "batch_first": True}))
@pytest.mark.parametrize("precision", ("float32", "float64"))
def test_calls_begin_with_the_learned_state(rng, cell, options, precision):
    layer, plain, initial = layer_with_state(rng, cell, precision=precision, **options)
    x = rng.standard_normal((3, 4, 5)).astype(precision)
    B = 3 if layer.batch_first else 4
    state = [np.repeat(array[:, None], B, 1).astype(precision) for array in initial]
    wanted, after = plain(x, tuple(state) if len(state) == 2 else state[0])
    out = np.empty_like(wanted)
    for lengths in (None, [2] * B):
        wanted, after = plain(x, tuple(state) if len(state) == 2 else state[0], lengths=lengths)
        for array in (x, x.tolist()):
            got, got_after = layer(array, lengths=lengths)
            np.testing.assert_array_equal(got, wanted)
            assert_states_close(got_after, after, 0)
        np.testing.assert_array_equal(layer(x, lengths=lengths, out=out)[0], wanted)
        np.testing.assert_array_equal(fastrnn.Sequential(layer)(x, lengths=lengths)[0], wanted)
    unbatched = [array.astype(precision) for array in initial]
    row = np.ascontiguousarray(x[0] if layer.batch_first else x[:, 0])
    wanted, _ = plain(row, tuple(unbatched) if len(unbatched) == 2 else unbatched[0])
    np.testing.assert_array_equal(layer(row)[0], wanted)
    # A given state counts.
    np.testing.assert_array_equal(layer(x, plain(x)[1])[0], plain(x, plain(x)[1])[0])


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("has_runner", (True, False))
def test_streams_and_pools_begin_with_the_learned_state(rng, cell, has_runner):
    first, _, initial = layer_with_state(rng, cell, precision="float32")
    second = random_layer(rng, "GRU", first.features_out, 3, precision="float32")
    layers = [first, second, fastrnn.LayerNorm(3)]
    if not has_runner:
        layers.insert(0, fastrnn.LayerNorm(5))  # no dtype is known before the first layer
    model = fastrnn.Sequential(*layers)
    x = rng.standard_normal((6, 3, 5)).astype(np.float32)
    whole, _ = model(x)
    for rows in (None, 3):
        stream = model.stream(rows)
        part = x[:, 0] if rows is None else x
        wanted = whole[:, 0] if rows is None else whole
        shapes = [np.asarray(a).shape for a in flat(stream.state)]
        assert shapes[0] == ((1, initial[0].shape[1]) if rows is None else (1, 3, initial[0].shape[1]))
        for _ in range(2):
            assert_close(stream.run(part), wanted, 0 if backends.ISAS else 1e-6)
            stream.reset()
        if rows:
            stream.run(x)
            kept = flat(stream.state)
            stream.reset([1])
            for before, now, begin in zip(kept, flat(stream.state), flat(model.stream(3).state), strict=True):
                np.testing.assert_array_equal(now[:, 1], begin[:, 1])
                np.testing.assert_array_equal(now[:, 0], before[:, 0])
        with pytest.raises(ValueError, match="goes back to the initial one"):
            stream.state = None
    pool = model.pool(2)
    ids = [pool.open() for _ in range(3)]
    for _ in range(2):
        assert_close(np.stack([pool.step(ids, row) for row in x]), whole, 0 if backends.ISAS else 1e-6)
        pool.reset(ids)
    for one, other in zip(flat(pool.state(ids[0])), flat(model.stream().state), strict=True):
        np.testing.assert_array_equal(one, other)
    again = pickle.loads(pickle.dumps(pool))
    np.testing.assert_array_equal(again.step([again.open()], x[0, :1]), whole[0, :1])


def flat(state):
    return [a for part in state for a in flat(part)] if isinstance(state, tuple) else [state]


@pytest.mark.parametrize("cell", CELLS)
def test_learned_states_survive_files_and_pickles(rng, tmp_path, cell):
    layer, plain, _ = layer_with_state(rng, cell, bidirectional=True, precision="float64")
    model = fastrnn.Sequential(layer, fastrnn.FinalState())
    x = rng.standard_normal((4, 2, 5))
    model.save(tmp_path / "m")
    for again in (fastrnn.load(tmp_path / "m"), pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        np.testing.assert_array_equal(again(x)[0], model(x)[0])
        assert repr(again) == repr(model) and "initial_state=...)" in repr(model)
    assert "initial_state" not in repr(plain)
    narrow = fastrnn.load(tmp_path / "m", precision="float32")
    assert narrow.layers[0].initial[0].dtype == np.float32
    layer._divide("direction", 2)
    assert_close(layer(x)[0], fastrnn.Sequential(layer)(x)[0], 0)
    assert np.abs(layer(x)[0] - plain(x)[0]).max() > 1e-3


def test_learned_states_are_taken_as_modules_keep_them(rng):
    spec = random_spec("lstm", 5, 6, num_layers=2)
    tensors = {f"rnn.{name}": array for name, array in random_tensors(rng, spec).items()}
    h, c = initial_of(rng, spec)
    x = rng.standard_normal((3, 5))
    make = fastrnn.LSTM.from_state_dict
    wanted = make(tensors, "rnn", initial_state=(h, c))(x)[0]
    np.testing.assert_array_equal(make(tensors, "rnn", initial_state=(h[:, None], c[:, None]))(x)[0], wanted)
    np.testing.assert_array_equal(make(tensors | {"rnn.h_0": h, "rnn.c_0": c}, "rnn")(x)[0], wanted)
    for state, error, words in (
        (h, ValueError, "LSTM: expected initial_state to be a pair (h_0, c_0)"),
        ((h,), ValueError, "to be a pair"),
        ((h, c[:1]), fastrnn.WeightError, "c_0 of shape (2, 6), got (1, 6)"),
        ((h[:, :5], c), fastrnn.WeightError, "h_0 of shape (2, 6), got (2, 5)"),
        ((h[None], c), fastrnn.WeightError, "h_0 of shape (2, 6), got (1, 2, 6)"),
    ):
        with pytest.raises(error, match=re.escape(words)):
            make(tensors, "rnn", initial_state=state)
    with pytest.raises(fastrnn.WeightError, match="h_0 and c_0, got no c_0"):
        make(tensors | {"rnn.h_0": h}, "rnn")
    gru = random_tensors(rng, random_spec("gru", 5, 6))
    assert fastrnn.GRU.from_state_dict(gru, initial_state=np.ones(6)).initial[0].shape == (1, 6)
    with pytest.raises(fastrnn.WeightError, match="c_0 is not one of its keys"):
        fastrnn.GRU.from_state_dict(gru | {"c_0": np.ones((1, 6))})
