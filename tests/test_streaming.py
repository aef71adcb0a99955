"""Streams: steps and chunks give what the whole sequence gives, and errors change nothing."""

import pickle
import re
import tracemalloc

import numpy as np
import pytest
from helpers import arrays_of, assert_close, assert_states_close, random_layer
from hypothesis import given, settings
from hypothesis import strategies as st
from live import Foreign

import fastrnn

TOLERANCE = 1e-13  # on the blas backend, to rounding


def random_model(rng, kind="LSTM", batch_first=False):
    weights = {"weight": rng.standard_normal((3, 6)), "bias": rng.standard_normal(3)}
    return fastrnn.Sequential(
        random_layer(rng, kind, 4, 5, num_layers=2, batch_first=batch_first),
        random_layer(rng, "GRU", 5, 6, batch_first=batch_first),
        fastrnn.Linear.from_state_dict(weights, precision="float64"),
        fastrnn.Softmax(),
    )


@settings(max_examples=60)
@given(
    kind=st.sampled_from(["RNN", "GRU", "LSTM"]),
    batch_size=st.sampled_from([None, 1, 3]),
    cuts=st.lists(st.integers(1, 6), min_size=1, max_size=8),
    batch_first=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_any_cut_equals_the_whole(kind, batch_size, cuts, batch_first, seed):
    rng = np.random.default_rng(seed)
    model = random_model(rng, kind, batch_first)
    rows = () if batch_size is None else (batch_size,)
    x = rng.standard_normal((sum(cuts), *rows, 4))
    swap = batch_first and batch_size is not None
    wanted, wanted_state = model(x.swapaxes(0, 1) if swap else x)
    wanted = wanted.swapaxes(0, 1) if swap else wanted
    stream = model.stream(batch_size)
    begin = 0
    for size in cuts:
        part = x[begin : begin + size]
        out = np.full((size, *rows, 3), np.nan)
        if size == 1:
            row = out[0]
            assert stream.step(part[0], out=row) is row
        elif size % 2:
            assert stream.run(part, out=out) is out
        else:
            out = stream.run(part)
        assert_close(out, wanted[begin : begin + size], TOLERANCE)
        begin += size
    assert_states_close(stream.state, wanted_state, TOLERANCE)


@pytest.mark.parametrize("kind", ("RNN", "GRU", "LSTM"))
def test_stream_of_a_layer(rng, kind):
    layer = random_layer(rng, kind)
    x = rng.standard_normal((6, 5))
    wanted, wanted_state = layer(x)
    stream = layer.stream()
    for t in range(6):
        assert_close(stream.step(x[t]), wanted[t], TOLERANCE)
    assert_states_close(stream.state, wanted_state, TOLERANCE)


def test_stream_of_tokens(rng):
    model = fastrnn.Sequential(
        fastrnn.OneHot(5, precision="float64"), random_layer(rng, "GRU", 5, 3), fastrnn.Last()
    )
    stream = model.stream()
    tokens = [0, 4, 2]
    assert_close(np.stack([stream.step(token) for token in tokens])[-1], model(tokens)[0], TOLERANCE)
    batched = model.stream(2)
    assert batched.step([1, 2]).shape == (2, 3)
    with pytest.raises(ValueError, match="tokens from 0 to 4"):
        batched.step([1, 5])


def test_state_is_a_copy_both_ways(rng):
    stream = random_model(rng).stream(2)
    x = rng.standard_normal((2, 4))
    stream.step(x)
    saved = stream.state
    wanted = stream.step(x)
    for array in arrays_of(stream.state):
        array[...] = 9
    stream.state = saved
    for array in arrays_of(saved):
        array[...] = 9
    np.testing.assert_array_equal(stream.step(x), wanted)
    stream.reset()
    assert not any(array.any() for array in arrays_of(stream.state))


def test_whole_sequence_continues_as_a_stream(rng):
    layer = random_layer(rng, "LSTM")
    x = rng.standard_normal((6, 5))
    wanted, _ = layer(x)
    stream = layer.stream()
    stream.state = layer(x[:4])[1]
    assert_close(stream.run(x[4:]), wanted[4:], TOLERANCE)


@pytest.mark.parametrize(
    "method, x, words",
    (
        ("step", np.ones(3), "Stream.step: expected x of shape (4,), got (3,)"),
        ("step", np.ones((1, 4)), "expected x of shape (4,), got (1, 4)"),
        ("run", np.ones((0, 3)), "expected chunk of shape (T, 4), got (0, 3)"),
        ("run", np.ones(4), "expected chunk of shape (T, 4), got (4,)"),
        ("step", [], "expected x of shape (4,), got (0,)"),
        ("run", np.ones((2, 1, 4)), "expected chunk of shape (T, 4)"),
    ),
)
def test_wrong_steps_leave_the_stream_as_it_was(rng, method, x, words):
    stream = random_model(rng).stream()
    stream.step(np.ones(4))
    before = arrays_of(stream.state)
    with pytest.raises(ValueError, match=re.escape(words)):
        getattr(stream, method)(x)
    with pytest.raises(ValueError, match=re.escape("out to be a C-contiguous float64 array of shape (3,)")):
        stream.step(np.ones(4), out=np.ones(4))
    for one, other in zip(before, arrays_of(stream.state), strict=True):
        np.testing.assert_array_equal(one, other)


def test_error_inside_the_chain_leaves_the_stream_as_it_was(rng):
    class Broken(fastrnn.Tanh):
        def __call__(self, x):
            raise RuntimeError("in the middle")

    stream = fastrnn.Sequential(random_layer(rng), Broken()).stream()
    with pytest.raises(RuntimeError, match="in the middle"):
        stream.step(np.ones(5))
    assert not any(array.any() for array in arrays_of(stream.state))


def test_wrong_states_are_refused(rng):
    stream = random_model(rng).stream(2)
    good = stream.state
    for state in (None, good[0], (good[0], np.ones((1, 3, 6))), (*good, good[1])):
        with pytest.raises(ValueError, match="expected"):
            stream.state = state


def test_layers_that_need_the_whole_sequence_have_no_stream(rng):
    with pytest.raises(ValueError, match=r"expected layers that run forward, got LSTM.* begins at the end"):
        random_layer(rng, bidirectional=True).stream()
    for dim in (0, 1):
        with pytest.raises(ValueError, match="expected dim=-1 or 2"):
            fastrnn.Sequential(random_layer(rng), fastrnn.Softmax(dim=dim)).stream()
    with pytest.raises(ValueError, match="at least one layer"):
        fastrnn.Stream([])
    with pytest.raises(ValueError, match="batch_size to be at least 1"):
        random_layer(rng).stream(0)


EMPTY_MODELS = {
    "one layer": lambda rng: [random_layer(rng, "LSTM", 4, 5)],
    "compiled": lambda rng: random_model(rng).layers,
    "called": lambda rng: [random_layer(rng, "GRU", 4, 5, precision="float32"), Foreign()],
    "tokens": lambda rng: [fastrnn.OneHot(4, precision="float64"), random_layer(rng, "GRU", 4, 5)],
    "tokens, called": lambda rng: [fastrnn.OneHot(4), Foreign(), random_layer(rng, "RNN", 4, 5)],
}


@pytest.mark.parametrize("batch_size", (None, 3))
@pytest.mark.parametrize("name", EMPTY_MODELS)
def test_an_empty_chunk_makes_no_step(rng, name, batch_size):
    """As an array and as a list, into out too: no rows, of the right type, and the state as it was."""
    model = fastrnn.Sequential(*EMPTY_MODELS[name](rng))
    rows = () if batch_size is None else (batch_size,)
    features = () if name.startswith("tokens") else (4,)
    x = np.ones((2, *rows, *features), np.intp if name.startswith("tokens") else np.float64)
    stream, other = model.stream(batch_size), model.stream(batch_size)
    wanted = stream.run(x)
    np.testing.assert_array_equal(other.run(x), wanted)
    before = stream.state
    for chunk in (x[:0], x[:0].tolist(), np.empty(0, np.float32), []):
        y = stream.run(chunk)
        assert y.shape == (0, *wanted.shape[1:]) and y.dtype == wanted.dtype
        out = np.empty_like(y)
        assert stream.run(chunk, out=out) is out
        with pytest.raises(ValueError, match=r"Stream\.run: expected out to be a C-contiguous"):
            stream.run(chunk, out=np.empty_like(wanted))
    for one, array in zip(arrays_of(before), arrays_of(stream.state), strict=True):
        np.testing.assert_array_equal(one, array)
    np.testing.assert_array_equal(stream.run(x), other.run(x))


def test_an_empty_chunk_of_features_that_nobody_tells_is_refused():
    with pytest.raises(ValueError, match=r"expected chunk of shape \(T, I\), got \(0,\)"):
        fastrnn.ReLU().stream().run([])
    assert fastrnn.ReLU().stream().run(np.empty((0, 3))).shape == (0, 3)


@pytest.mark.parametrize("name", ("lone", "head", "called"))
def test_a_flat_chunk_is_one_feature(rng, name):
    """Numbers (n,), of any type and with any stride, give the bits of (n, 1)."""
    layers = [random_layer(rng, "LSTM", 1, 5, num_layers=2, precision="float32")]
    layers += {"lone": [], "head": [fastrnn.Softmax()], "called": [Foreign()]}[name]
    model = fastrnn.Sequential(*layers)
    x = rng.standard_normal(12).astype(np.float32)
    wanted = model.stream().run(x[:, None])
    assert wanted.shape == (12, 5)
    out = np.full_like(wanted, np.nan)
    for chunk in (x, np.repeat(x, 2)[::2], x.tolist(), x.astype(np.float64)):
        np.testing.assert_array_equal(model.stream().run(chunk), wanted)
        assert model.stream().run(chunk, out=out) is out
        np.testing.assert_array_equal(out, wanted)


def test_only_a_chunk_of_one_feature_may_be_flat(rng):
    layer = random_layer(rng, "GRU", 1, 4)
    for stream, shape in ((layer.stream(1), "(T, 1, 1)"), (layer.stream(3), "(T, 3, 1)")):
        with pytest.raises(ValueError, match=re.escape(f"expected chunk of shape {shape}, got (3,)")):
            stream.run(np.ones(3))
    with pytest.raises(ValueError, match=re.escape("expected chunk of shape (T, 1) or (T,), got (3, 2)")):
        layer.stream().run(np.ones((3, 2)))
    with pytest.raises(ValueError, match=re.escape("expected x of shape (1,), got ()")):
        layer.stream().step(1.0)
    with pytest.raises(ValueError, match="overlaps"):
        fastrnn.Linear.from_state_dict({"weight": [[2.0]]}, precision="float64").stream().run(
            chunk := np.ones(3), out=chunk[:, None]
        )
    tokens = fastrnn.Embedding.from_state_dict({"weight": np.arange(4.0)[:, None]}).stream()
    np.testing.assert_array_equal(tokens.run([3, 0]), [[3], [0]])


def test_softmax_over_the_last_axis_by_its_number(rng):
    """torch's usual head, LogSoftmax(dim=1) after the last step, is one over the features."""
    layer = random_layer(rng)
    for parts in ((fastrnn.Last(), fastrnn.LogSoftmax(dim=1)), (fastrnn.Softmax(dim=2),)):
        model = fastrnn.Sequential(layer, *parts)
        x = rng.standard_normal((4, 2, 5))
        wanted, _ = model(x)
        y = model.stream(2).run(x)
        assert_close(y[-1], wanted if wanted.ndim == 2 else wanted[-1], TOLERANCE)


def test_out_of_a_stream_without_weights_is_checked():
    with pytest.raises(TypeError, match="out to be a C-contiguous"):
        fastrnn.ReLU().stream().step(np.ones(3), out=[1])


def test_one_layer_twice_in_a_model(rng):
    layer = random_layer(rng, "GRU", 3, 3)
    model = fastrnn.Sequential(layer, layer)
    x = rng.standard_normal((4, 3))
    stream = model.stream()
    out = np.empty((4, 3))
    assert_close(stream.run(x, out=out), model(x)[0], TOLERANCE)


@pytest.mark.parametrize("batch_size", (None, 3))
@pytest.mark.parametrize("is_lone", (False, True))
def test_stream_survives_pickling(rng, is_lone, batch_size):
    stream = (random_layer(rng, "LSTM", 4, 5) if is_lone else random_model(rng)).stream(batch_size)
    x = np.ones(4) if batch_size is None else np.ones((batch_size, 4))
    stream.step(x)
    again = pickle.loads(pickle.dumps(stream))
    np.testing.assert_array_equal(again.step(x), stream.step(x))
    np.testing.assert_array_equal(again.step(x * 2), stream.step(x * 2))


@pytest.mark.parametrize("kind", ("RNN", "GRU", "LSTM"))
@pytest.mark.parametrize("batch_size", (None, 1, 4))
def test_steps_of_any_array_are_the_same(rng, kind, batch_size):
    """Plain arrays take a short way, all others a long one: lists, views, other types."""
    layer = random_layer(rng, kind, 5, 7, num_layers=2, precision="float32")
    rows = () if batch_size is None else (batch_size,)
    x = rng.standard_normal((12, *rows, 5)).astype(np.float32)
    wide = np.repeat(x, 2, axis=-1)[..., ::2]
    plain, other = layer.stream(batch_size), layer.stream(batch_size)
    forms = (np.ndarray.tolist, lambda a: a.astype(np.float64), lambda a: a.astype(">f4"), lambda a: a)
    for t in range(12):
        y = plain.step(x[t])
        out = np.full((*rows, 7), np.nan, np.float32)
        given = wide[t] if t % 5 == 4 else forms[t % 4](x[t])
        assert other.step(given, out=out) is out
        np.testing.assert_array_equal(y, out)
    before = plain.state
    with pytest.raises(ValueError, match="out to be a C-contiguous float32 array"):
        plain.step(x[0], out=np.empty((*rows, 8), np.float32))
    with pytest.raises(ValueError, match=r"Stream\.step: expected x of shape"):
        plain.step(x[0][..., :4])
    for one, array in zip(arrays_of(before), arrays_of(plain.state), strict=True):
        np.testing.assert_array_equal(one, array)


def test_out_of_a_step_must_be_apart_from_x(rng):
    stream = random_layer(rng, "GRU", 7, 7).stream()
    x = rng.standard_normal(7)
    with pytest.raises(ValueError, match="apart from the inputs"):
        stream.step(x, out=x)


def test_out_may_be_of_a_subclass_with_its_own_indexing(rng):
    """np.matrix has two axes always."""
    layer = random_layer(rng, "rnn_tanh", 4, 3)
    x = rng.standard_normal((2, 4))
    matrix = np.zeros((2, 3)).view(np.matrix)
    assert layer.stream(2).step(x, matrix) is matrix
    np.testing.assert_array_equal(np.asarray(matrix), layer.stream(2).step(x))
    assert layer.stream().run(x, matrix) is matrix
    np.testing.assert_array_equal(np.asarray(matrix), layer.stream().run(x))
    assert layer(x, out=matrix)[0] is matrix
    np.testing.assert_array_equal(np.asarray(matrix), layer(x)[0])


def peak_of(call):
    """Bytes that a call takes at most, besides what is there."""
    call()
    tracemalloc.start()
    try:
        call()
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        call()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("backend", ("auto", "blas"))
def test_steady_steps_with_out_allocate_no_array(rng, backend):
    weights = {"weight": rng.standard_normal((600, 500)), "bias": rng.standard_normal(600)}
    model = fastrnn.Sequential(
        random_layer(rng, "LSTM", 700, 500, precision="float32", backend=backend),
        fastrnn.Linear.from_state_dict(weights, backend=backend),
        fastrnn.Tanh(),
    )
    x, out = rng.standard_normal((7, 700)).astype(np.float32), np.empty((7, 600), np.float32)
    one, rows, pool = model.stream(), model.stream(7), model.pool()
    ids = [pool.open() for _ in range(7)]
    smallest = 500 * 4
    assert peak_of(lambda: one.step(x[0], out=out[0])) < smallest / 2
    assert peak_of(lambda: one.run(x, out=out)) < smallest
    assert peak_of(lambda: rows.step(x, out=out)) < smallest / 2
    assert peak_of(lambda: pool.step(ids, x, out=out)) < smallest / 2


@pytest.mark.parametrize("has_head", (False, True))
def test_memory_of_a_run_does_not_grow_with_time(rng, has_head):
    layer = random_layer(rng, "GRU", 2, 8, precision="float32", num_layers=2)
    model = fastrnn.Sequential(layer, fastrnn.Tanh()) if has_head else layer
    peaks = []
    for steps in (10_000, 1_000_000):
        stream = model.stream()
        x, out = np.zeros((steps, 2), np.float32), np.empty((steps, 8), np.float32)
        tracemalloc.start()
        try:
            stream.run(x, out=out)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[1] <= peaks[0] + 4096


def test_a_state_that_does_not_fit_its_type_changes_nothing(rng):
    """Overflow is an error where the caller wants that: before the first array is written."""
    stream = random_layer(rng, "LSTM", precision="float32").stream()
    stream.step(np.ones(5))
    before = stream.state
    with np.errstate(over="raise"), pytest.raises(FloatingPointError):
        stream.state = (np.zeros((1, 7)), np.full((1, 7), 1e300))
    for one, other in zip(arrays_of(before), arrays_of(stream.state), strict=True):
        np.testing.assert_array_equal(one, other)


def test_odd_tokens_are_refused():
    class Bad(np.int64):
        def __index__(self):
            raise ZeroDivisionError

    stream = fastrnn.Embedding.from_state_dict({"weight": np.ones((5, 3))}).stream()
    assert stream.step(np.uint8(4)).shape == stream.step(True + 1).shape == (3,)
    for token in (5, -1, np.int64(5), np.uint64(2**64 - 1)):
        with pytest.raises(
            ValueError, match=rf"Stream\.step: expected x to hold tokens from 0 to 4, got {token}"
        ):
            stream.step(token)
    for token in (True, 1.0, np.timedelta64(1), "1", None, 2**70):
        with pytest.raises((TypeError, ValueError), match=r"Stream\.step: expected x to "):
            stream.step(token)
    with pytest.raises(ZeroDivisionError):
        stream.step(Bad(1))


@pytest.mark.parametrize(
    "layers", ((fastrnn.Dropout(),), (fastrnn.ReLU(), fastrnn.Dropout()), (fastrnn.Last(),))
)
def test_layers_without_a_type_give_floats_of_their_own(layers):
    model = fastrnn.Sequential(*layers)
    x = np.array([0.5, 0.7])
    stream, pool = model.stream(), model.pool()
    ids = [pool.open()]
    for y in (stream.step(x), pool.step(ids, x[None])[0], pool.run(ids, [x[None]])[0][0]):
        np.testing.assert_array_equal(y, x)
        assert y.dtype == np.float64 and not np.shares_memory(y, x)
    assert stream.step([1, 2]).dtype == np.float32
    assert pool.step([], np.empty((0, 2), np.float32)).dtype == np.float32
    for out in (np.zeros(2, int), np.zeros(2, "U8"), np.zeros(2, np.float32)):
        with pytest.raises(ValueError, match="out to be a C-contiguous float64 array"):
            stream.step(x, out=out)


def test_a_recurrent_layer_of_somebody_else_has_no_stream(rng):
    class LSTM(fastrnn.LSTM):
        def __call__(self, x, state=None, **options):
            return np.full((*x.shape[:-1], 7), 7.0), state

    layer = random_layer(rng, "LSTM")
    own = LSTM.from_state_dict(layer.tensors)
    for make in (own.stream, own.pool):
        with pytest.raises(
            TypeError, match=r"expected recurrent layers of fastrnn, got test_streaming.*LSTM\."
        ):
            make()


class Wider(fastrnn.Tanh):
    """Somebody's layer that gives other shapes than it says."""

    def __call__(self, x):
        return np.concatenate([x, x], axis=self.axis)


@pytest.mark.parametrize("axis", (0, 1, -1))
def test_what_a_layer_of_somebody_else_gives_is_checked(rng, axis):
    wider = Wider()
    wider.axis = axis
    model = fastrnn.Sequential(random_layer(rng), wider, random_layer(rng, "GRU", 7, 4))
    stream, pool = model.stream(2), model.pool()
    ids = [pool.open(), pool.open()]
    for call in (
        lambda: stream.step(np.ones((2, 5))),
        lambda: stream.run(np.ones((3, 2, 5))),
        lambda: pool.step(ids, np.ones((2, 5))),
        lambda: pool.run(ids, [np.ones((3, 5))] * 2),
    ):
        with pytest.raises(ValueError, match=r"expected test_streaming\.Wider to give"):
            call()
    assert not any(array.any() for array in arrays_of(stream.state) + arrays_of(pool.state(ids[0])))


@pytest.mark.parametrize("make", (fastrnn.Stream, fastrnn.StreamPool))
def test_streams_take_what_a_model_takes(rng, make):
    layer = random_layer(rng)
    embedding = fastrnn.Embedding.from_state_dict({"weight": np.ones((5, 7))})
    assert repr(layer) in repr(make(iter([layer])))
    for layers, words in (
        ([layer, embedding], "expected layers of tokens first"),
        ([fastrnn.Last(), layer], "expected an input with time steps"),
        ([5], "expected layers of fastrnn, got 5"),
        (layer, "expected layers in a sequence"),
        ([], "expected at least one layer"),
    ):
        with pytest.raises((ValueError, TypeError), match=words):
            make(layers)


@pytest.mark.parametrize("make", (fastrnn.Stream, fastrnn.StreamPool))
def test_an_object_that_is_not_made_or_made_twice_is_refused(rng, make):
    layers = [random_layer(rng)]
    one = make(layers)
    with pytest.raises(RuntimeError, match="expected one call of __init__, got a second one"):
        one.__init__([random_layer(rng, "GRU", 3, 4)])
    x = np.ones(5)
    wanted = layers[0](x[None])[0][0]
    if make is fastrnn.Stream:
        np.testing.assert_allclose(one.step(x), wanted, rtol=0, atol=TOLERANCE)
    else:
        np.testing.assert_allclose(one.step([one.open()], x[None])[0], wanted, rtol=0, atol=TOLERANCE)
    empty = make.__new__(make)
    calls = {"step": ([0], [x]), "run": ([0], [x]), "reset": ([0],)}
    if make is fastrnn.StreamPool:
        calls |= {"open": (), "close": (0,), "state": (0,), "ids": (), "__contains__": (0,)}
        assert len(empty) == empty.capacity == 0
    for name, arguments in calls.items():
        with pytest.raises((AttributeError, RuntimeError)):
            getattr(empty, name)(*arguments)


def test_out_of_a_lying_subclass_is_seen_through(rng):
    class Liar(np.ndarray):
        shape = (7,)
        dtype = np.dtype(np.float64)

        def view(self, *_):
            return np.zeros(7)

    stream = random_layer(rng).stream()
    with pytest.raises(ValueError, match=r"out to be a C-contiguous float64 array of shape \(7,\)"):
        stream.step(np.ones(5), out=np.zeros(1).view(Liar))


def test_reprs_say_what_there_is(rng):
    layer = random_layer(rng, "GRU", precision="float32")
    assert repr(layer.stream(3)) == "Stream([GRU(5, 7)], batch_size=3)"
    pool = layer.pool()
    pool.open()
    assert repr(pool) == "StreamPool([GRU(5, 7)]), 1 open"


def test_a_stream_is_not_restored_from_the_states_of_another(rng):
    stream = random_layer(rng, "LSTM", 3, 6).stream()
    stream.step(np.ones(3))
    make, (layers, batch_size), [h, c] = stream.__reduce__()
    again = make(layers, batch_size)
    again.__setstate__([h[:], c[:]])
    np.testing.assert_array_equal(again.state[0], stream.state[0])
    for size, states in (
        (None, [h, c, np.zeros(9)]),
        (None, [h]),
        (3, [h, c]),
        (None, [h[:, :2], c]),
        (None, [h.astype(np.float16), c]),
        (None, [h.astype(object), c]),
        (None, [h.tolist(), c]),
    ):
        other = make(layers, size)
        with pytest.raises(ValueError, match="Stream: expected the states of a stream of these layers"):
            other.__setstate__(states)
        assert not any(array.any() for array in arrays_of(other.state))
