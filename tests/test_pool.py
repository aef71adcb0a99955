"""Pools: any stream among any others gives the bits that it gives alone, and errors change nothing."""

import copy
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import arrays_of, random_layer
from hypothesis import given, settings
from hypothesis import strategies as st
from live import (
    TOKENS,
    Foreign,
    Hooked,
    assert_same,
    assert_same_states,
    assert_unchanged,
    random_inputs,
    random_model,
    snapshot,
)

import fastrnn


class Live:
    """What a stream of a pool was given and what it gave."""

    def __init__(self, stream, state):
        self.id = stream
        self.state = state
        self.inputs = []
        self.outputs = []


ACTIONS = st.lists(
    st.tuples(st.sampled_from(["open", "close", "step", "run", "reset"]), st.integers(0, 2**32 - 1)),
    min_size=5,
    max_size=25,
)


@settings(max_examples=120)
@given(
    kind=st.sampled_from(["RNN", "GRU", "LSTM"]),
    hidden_size=st.sampled_from([1, 16, 18, 40]),
    backend=st.sampled_from(["auto", "blas"]),
    is_deep=st.booleans(),
    has_tokens=st.booleans(),
    capacity=st.integers(1, 5),
    actions=ACTIONS,
)
def test_pool_stream_and_sequence_agree(kind, hidden_size, backend, is_deep, has_tokens, capacity, actions):
    """Random opens, closes, resets, subsets, orders, chunks: each stream beside the whole sequence and a
    Stream."""
    model = random_model(np.random.default_rng(3), kind, hidden_size, backend, is_deep, has_tokens)
    pool = model.pool(capacity)
    live, closed = [], []
    for action, seed in [("open", 0), *actions]:
        rng = np.random.default_rng(seed)
        some = [live[i] for i in rng.permutation(len(live))[: rng.integers(len(live) + 1)]]
        if action == "open":
            for _ in range(rng.integers(1, 9)):
                state = None
                if rng.random() < 0.3:
                    state = model(random_inputs(rng, model, 2))[1]
                live.append(Live(pool.open(state), state))
        elif action == "close":
            for stream in some:
                state = pool.state(stream.id)
                assert_same_states(pool.close(stream.id), state)
                closed.append((stream, state))
                live.remove(stream)
        elif action == "step":
            X = random_inputs(rng, model, len(some))
            Y = pool.step([stream.id for stream in some], X)
            for stream, x, y in zip(some, X, Y, strict=True):
                stream.inputs.append(x[None])
                stream.outputs.append(y[None])
        elif action == "reset":
            pool.reset([stream.id for stream in some])
            for stream in some:
                stream.state, stream.inputs, stream.outputs = None, [], []
                assert not any(array.any() for array in arrays_of(pool.state(stream.id)))
        else:
            chunks = [random_inputs(rng, model, rng.integers(1, 12)) for _ in some]
            outputs = pool.run(np.array([stream.id for stream in some], int), chunks)
            for stream, x, y in zip(some, chunks, outputs, strict=True):
                stream.inputs.append(x)
                stream.outputs.append(y)
        assert len(pool) == len(live)
        assert all(stream.id in pool for stream in live)
        assert not any(stream.id in pool for stream, _ in closed)
    assert not any(thing in pool for thing in (-1, 2**70, 0.0, "0", None, []))
    ids = [stream.id for stream in live] + [stream.id for stream, _ in closed]
    assert len(set(ids)) == len(ids)
    for stream, state in closed + [(stream, pool.close(stream.id)) for stream in live]:
        if not stream.inputs:
            continue
        x, got = np.concatenate(stream.inputs), np.concatenate(stream.outputs)
        wanted, wanted_state = model(x, stream.state)
        assert_same(got, wanted, backend)
        assert_same_states(state, wanted_state, backend)
        lone = model.stream()
        if stream.state is not None:
            lone.state = stream.state
        assert_same([lone.step(row) for row in x], got, backend)
        assert_same_states(lone.state, state, backend)
    assert len(pool) == 0


@pytest.mark.parametrize("count", (1, 2, 7, 63, 64, 65, 200))
@pytest.mark.parametrize("threads", (1, 2, 3))
@pytest.mark.parametrize(
    "plan, kind",
    (("alone", "GRU"), ("alone", "LSTM"), ("rows", "LSTM"), ("units", "LSTM"), ("pipeline", "LSTM")),
)
def test_groups_and_threads_of_a_step_do_not_change_a_bit(rng, count, threads, plan, kind):
    """However the states lie: in the order of their records or another."""
    model = random_model(rng, kind, 70)
    for layer in model.layers:
        if hasattr(layer, "_divide"):
            layer._divide(plan, threads)
    pool = model.pool()
    ids = np.array([pool.open() for _ in range(count)])
    X = rng.standard_normal((4, count, 5)).astype(np.float32)
    out = np.full((count, 3), np.nan, np.float32)
    streams = [model.stream() for _ in range(count)]
    for x in X:
        order = rng.permutation(count)
        assert pool.step(ids[order], x[order], out=out) is out
        assert_same(
            out[np.argsort(order)], [stream.step(row) for stream, row in zip(streams, x, strict=True)]
        )
    lengths = rng.integers(1, 40, count)
    chunks = [random_inputs(rng, model, length) for length in lengths]
    order = rng.permutation(count)
    outputs = pool.run(ids[order], [chunks[i] for i in order])
    for got, i in zip(outputs, order, strict=True):
        assert_same(got, streams[i].run(chunks[i]))


# ---------------------------------------------------------------- errors


def test_wrong_ids_and_rows_leave_the_pool_as_it_was(rng):
    pool = random_model(rng).pool(4)
    a, b, c = (pool.open() for _ in range(3))
    X = random_inputs(rng, random_model(rng), 2)
    pool.step([a, b], X)
    pool.close(c)
    before = snapshot(pool)
    huge = 2**70
    wrong_ids = (
        ([a, c], "expected ids of open streams, got {c} at index 1. It is closed."),
        ([a, a], "expected each id once, got {a} again at index 1."),
        ([99, a], "expected ids of open streams, got 99 at index 0. open() gives one."),
        ([-1, a], "expected ids of open streams, got -1 at index 0."),
        ([huge, a], "expected ids of open streams"),
        (np.array([a, 2**63], np.uint64), "expected ids of open streams"),
    )
    for ids, words in wrong_ids:
        words = re.escape(words.format(a=a, c=c))
        with pytest.raises(ValueError, match=r"StreamPool\.step: " + words):
            pool.step(ids, X)
        with pytest.raises(ValueError, match=r"StreamPool\.run: " + words):
            pool.run(ids, [X, X])
        with pytest.raises(ValueError, match=r"StreamPool\.reset: " + words):
            pool.reset(ids)
    for ids in ([a, 1.0], [a, True], [a, None], 5, np.array([a, b], float), np.array([[a, b]])):
        with pytest.raises(TypeError, match=r"StreamPool\.step: expected ids to be"):
            pool.step(ids, X)
        with pytest.raises(TypeError, match=r"StreamPool\.reset: expected ids to be"):
            pool.reset(ids)
    for x in (X[:1], X[:, :4], X[0], np.zeros((3, 5), np.float32)):
        with pytest.raises(ValueError, match=r"StreamPool\.step: expected X of shape \(2, 5\)"):
            pool.step([a, b], x)
    with pytest.raises(TypeError, match="real numbers"):
        pool.step([a, b], [["a"] * 5] * 2)
    for out in (np.empty((2, 4), np.float32), np.empty((2, 3)), np.empty((3, 2), np.float32).T):
        with pytest.raises(ValueError, match="out to be a C-contiguous float32 array"):
            pool.step([a, b], X, out=out)
    with pytest.raises(TypeError, match="out to be a C-contiguous"):
        pool.step([a, b], X, out=[1])
    with pytest.raises(ValueError, match="a chunk for each of 2 ids, got 1"):
        pool.run([a, b], [X])
    with pytest.raises(ValueError, match=r"expected chunk 1 of shape \(T, 5\), got \(0, 4\)"):
        pool.run([a, b], [X, X[:0, :4]])
    for stream in (c, 99):
        for method in (pool.close, pool.state):
            with pytest.raises(ValueError, match="expected ids of open streams"):
                method(stream)
    with pytest.raises(TypeError, match="whole numbers"):
        pool.close("a")
    for state in (5, (np.zeros((2, 18)),) * 3, ((np.zeros((2, 17)), np.zeros((2, 18))), np.zeros((1, 7)))):
        with pytest.raises(ValueError, match="expected"):
            pool.open(state)
    assert_unchanged(pool, before)


def test_out_may_not_overlap_the_rows(rng):
    layer = random_layer(rng, "GRU", 5, 5, precision="float32")
    pool = layer.pool()
    ids = [pool.open(), pool.open()]
    X = rng.standard_normal((2, 5)).astype(np.float32)
    with pytest.raises(ValueError, match="apart from the inputs"):
        pool.step(ids, X, out=X)


def test_wrong_tokens_leave_the_pool_as_it_was(rng):
    pool = random_model(rng, has_tokens=True).pool()
    ids = [pool.open(), pool.open()]
    before = snapshot(pool)
    for tokens in ([0, TOKENS], [-1, 0]):
        with pytest.raises(ValueError, match="tokens from 0 to 10"):
            pool.step(ids, np.array(tokens))
        with pytest.raises(ValueError, match="tokens from 0 to 10"):
            pool.run(ids, [[1, 2], tokens])
    assert_unchanged(pool, before)


def test_layers_of_others_run_in_a_pool_and_may_fail(rng):
    """They are called one by one, on copies of the states."""
    hooked = Hooked()
    model = fastrnn.Sequential(random_layer(rng, "LSTM", 5, 6), hooked, random_layer(rng, "GRU", 6, 4))
    pool = model.pool(1)
    ids = [pool.open() for _ in range(3)]
    X = rng.standard_normal((2, 5))
    wanted = [model.stream().run(x[None]) for x in X]
    got = pool.step(ids[:2], X)
    np.testing.assert_allclose(got, np.concatenate(wanted), rtol=0, atol=1e-13)
    chunks = [rng.standard_normal((length, 5)) for length in (3, 1, 4)]
    for got, chunk, stream in zip(pool.run(ids, chunks), chunks, ids, strict=True):
        lone = model.stream()
        if stream != ids[2]:
            lone.step(X[ids.index(stream)])
        np.testing.assert_allclose(got, lone.run(chunk), rtol=0, atol=1e-13)
        for one, other in zip(arrays_of(pool.state(stream)), arrays_of(lone.state), strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-13)
    before = snapshot(pool)

    def fail():
        raise RuntimeError("in the middle")

    hooked.hook = fail
    with pytest.raises(RuntimeError, match="in the middle"):
        pool.step(ids, np.ones((3, 5)))
    with pytest.raises(RuntimeError, match="in the middle"):
        pool.run(ids, chunks)
    assert_unchanged(pool, before)


def test_layers_that_need_the_whole_sequence_have_no_pool(rng):
    with pytest.raises(ValueError, match=r"expected layers that run forward, got LSTM.* begins at the end"):
        random_layer(rng, bidirectional=True).pool()
    with pytest.raises(ValueError, match="capacity to be at least 1"):
        random_layer(rng).pool(0)
    with pytest.raises(TypeError, match="capacity"):
        random_layer(rng).pool(2.5)


# ---------------------------------------------------------------- opening and closing


def test_a_pool_grows_and_its_streams_stay_as_they_are(rng):
    model = random_model(rng)
    pool = model.pool(1)
    ids, states = [], []
    for _ in range(70):
        ids.append(pool.open())
        pool.step(ids[-1:], rng.standard_normal((1, 5)))
        states.append(pool.state(ids[-1]))
    assert pool.capacity >= 70 and len(pool) == 70
    for stream, state in zip(ids, states, strict=True):
        assert_same_states(pool.close(stream), state)
    assert len(pool) == 0


def test_no_id_comes_back(rng):
    pool = random_layer(rng).pool(2)
    seen = set()
    for _ in range(100):
        stream = pool.open()
        assert stream not in seen
        assert not any(array.any() for array in arrays_of(pool.state(stream)))
        pool.step([stream], np.ones((1, 5)))
        seen.add(stream)
        pool.close(stream)
    assert pool.capacity == 2


def test_no_streams_are_a_step_too(rng):
    pool = random_model(rng).pool()
    assert pool.step([], np.empty((0, 5), np.float32)).shape == (0, 3)
    assert pool.step(np.empty(0, int), np.empty((0, 5))).dtype == np.float32
    assert pool.run([], []) == []
    pool.reset([])


def test_a_slot_whose_ids_are_used_up_is_not_given_out_again(rng):
    pool = random_layer(rng, "RNN").pool(2)
    uses, slots, records = pool._streams.dump()
    uses[0] = 2**31 - 2
    pool._streams.fill(uses, slots, records)
    last = pool.open()
    assert last == (2**31 - 2) << 32
    pool.close(last)
    ids = [pool.open() for _ in range(5)]
    assert len(set(ids)) == 5 and all(stream & 0xFFFFFFFF for stream in ids) and len(pool) == 5
    pool.step(ids, np.ones((5, 5)))
    for stream in ids:
        pool.close(stream)
    assert len(pool) == 0


def test_ids_of_any_integer_type_and_any_sequence(rng):
    pool = random_layer(rng, "RNN").pool()
    a, b = pool.open(), pool.open()
    X = rng.standard_normal((2, 5))
    for ids in ((a, b), {a: 1, b: 2}, np.array([a, b], np.uint64), [np.int64(a), np.uint64(b)], iter([a, b])):
        assert pool.step(ids, X).shape == (2, 7)


def test_ids_of_another_pool_do_not_fit(rng):
    layer = random_layer(rng, "RNN")
    pools = [layer.pool() for _ in range(3)]
    ids = [pool.open() for pool in pools]
    assert len(set(ids)) == 3 and all(0 < id < 2**53 for id in ids)
    with pytest.raises(ValueError, match=r"expected ids of open streams, got .* at index 0"):
        pools[0].state(ids[1])
    again = pickle.loads(pickle.dumps(pools[0]))
    assert ids[0] in again and again.open() not in ids
    again.close(ids[0])
    with pytest.raises(ValueError, match="closed"):
        again.state(ids[0])


@pytest.mark.parametrize("tokens", (False, True))
def test_a_step_of_nobody(rng, tokens):
    layers = [fastrnn.Embedding.from_state_dict({"weight": rng.standard_normal((9, 5))})] if tokens else []
    pool = fastrnn.Sequential(*layers, random_layer(rng, "GRU")).pool()
    for ids, X in (([], []), (np.array([]), np.array([])), ((), np.empty(0, int))):
        assert pool.step(ids, X).shape == (0, 7)
    assert pool.run([], []) == []


@pytest.mark.parametrize("is_called", (False, True))
@pytest.mark.parametrize("has_tokens", (False, True))
def test_empty_chunks_among_others_make_no_step(rng, has_tokens, is_called):
    """Some, all or none of the chunks, as arrays and as lists; with enough streams for several groups."""
    model = random_model(rng, has_tokens=has_tokens)
    if is_called:
        model = fastrnn.Sequential(*model.layers, Foreign())
    pool = model.pool()
    ids = [pool.open(model(random_inputs(rng, model, 2))[1]) for _ in range(150)]
    for lengths in (rng.integers(0, 4, 150), np.zeros(150, int), np.eye(150, dtype=int)[77]):
        streams = [model.stream() for _ in ids]
        for stream, id in zip(streams, ids, strict=True):
            stream.state = pool.state(id)
        chunks = [random_inputs(rng, model, length) for length in lengths]
        outputs = pool.run(ids, [c if len(c) or index % 2 else [] for index, c in enumerate(chunks)])
        for id, stream, chunk, y in zip(ids, streams, chunks, outputs, strict=True):
            assert y.shape == (len(chunk), 3) and y.dtype == np.float32
            assert_same(y, stream.run(chunk))
            assert_same_states(pool.state(id), stream.state)


def test_flat_chunks_are_one_feature(rng):
    layer = random_layer(rng, "GRU", 1, 5, precision="float32")
    x = rng.standard_normal((3, 6)).astype(np.float32)
    pools = [layer.pool(), layer.pool()]
    ids = [[pool.open() for _ in x] for pool in pools]
    wanted = pools[0].run(ids[0], x[:, :, None])
    for one, other, alone in zip(pools[1].run(ids[1], x), wanted, x, strict=True):
        assert one.shape == (6, 5)
        np.testing.assert_array_equal(one, other)
        assert_same(one, layer.stream().run(alone))
    assert pools[1].run(ids[1], [[], x[1], x[2][:, None]])[0].shape == (0, 5)
    with pytest.raises(ValueError, match=r"expected chunk 0 of shape \(T, 1\) or \(T,\), got \(\)"):
        pools[1].run(ids[1][:1], [1.0])


def test_states_go_from_pool_to_stream_and_back(rng):
    model = random_model(rng)
    x = rng.standard_normal((9, 5)).astype(np.float32)
    wanted = model(x)[0]
    stream, pool = model.stream(), model.pool()
    stream.run(x[:3])
    a = pool.open(stream.state)
    assert_same(pool.run([a], [x[3:5]])[0], wanted[3:5])
    stream.state = pool.close(a)
    assert_same(stream.run(x[5:]), wanted[5:])


# ---------------------------------------------------------------- copies


def test_a_pool_survives_pickling(rng):
    pool = random_model(rng).pool(2)
    ids = [pool.open() for _ in range(5)]
    pool.close(ids.pop(1))
    X = rng.standard_normal((4, 5)).astype(np.float32)
    pool.step(ids, X)
    assert pickle.dumps(pool) == pickle.dumps(pool)
    others = [pickle.loads(pickle.dumps(pool)), copy.deepcopy(pool)]
    wanted, new = pool.step(ids, X), pool.open()
    for other in others:
        assert len(other) == 4
        np.testing.assert_array_equal(other.step(ids, X), wanted)
        assert other.open() == new


def test_a_pickle_holds_open_states_alone(rng):
    pool = random_layer(rng, "LSTM", 5, 64).pool(100)
    few = len(pickle.dumps(pool))
    ids = [pool.open() for _ in range(100)]
    pool.step(ids, rng.standard_normal((100, 5)))
    assert len(pickle.dumps(pool)) > few + 100 * 2 * 64 * 8
    for stream in ids:
        pool.close(stream)
    assert len(pickle.dumps(pool)) == few


@pytest.mark.parametrize(
    "change",
    (
        lambda uses, slots, records: (uses, slots, records[:, :-1]),
        lambda uses, slots, records: (uses[:2], slots, records),
        lambda uses, slots, records: (uses, slots + 4, records),
        lambda uses, slots, records: (uses, slots - 1, records),
        lambda uses, slots, records: (uses, np.r_[slots, slots], np.r_[records, records]),
        lambda uses, slots, records: (-uses, slots, records),
        lambda uses, slots, records: (uses + 2**31, slots, records),
    ),
)
def test_states_of_another_pool_are_refused(rng, change):
    pool = random_layer(rng, "GRU", 5, 6).pool(4)
    pool.open()
    make, arguments, state = pool.__reduce__()
    make(*arguments).__setstate__(state)
    before = snapshot(pool)
    with pytest.raises(ValueError, match="StreamPool: expected the states of a pool of this model"):
        pool.__setstate__(change(*state))
    assert_unchanged(pool, before)


class OwnPool(fastrnn.StreamPool):
    """Somebody's subclass."""


class OwnStream(fastrnn.Stream):
    """Somebody's subclass."""


def test_subclasses_stay_what_they_are(rng):
    layers = random_model(rng).layers
    assert type(pickle.loads(pickle.dumps(OwnPool(layers)))) is OwnPool
    assert type(copy.deepcopy(OwnStream(layers))) is OwnStream


@pytest.mark.parametrize("copied", (copy.copy, copy.deepcopy))
def test_copies_share_the_weights(rng, copied):
    model = random_model(rng)
    for one in (model.stream(), model.pool()):
        for layer, other in zip(one._chain.layers, copied(one)._chain.layers, strict=True):
            assert other is layer


def test_a_soak_of_opens_steps_and_closes():
    """A short form of it; `python tests/soak_pool.py 10000000` is the long one."""
    soak = Path(__file__).with_name("soak_pool.py")
    result = subprocess.run([sys.executable, soak, "100000"], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.endswith("wrong: none\n")


class _Converted:
    """A chunk whose conversion runs code of its own."""

    def __init__(self, change, array):
        self.change, self.array = change, array

    def __array__(self, dtype=None, copy=None):
        self.change()
        return self.array


class _Liar(np.ndarray):
    def __len__(self):
        return 100_000


def test_ids_that_change_during_a_call_do_no_harm(rng):
    pool = random_layer(rng, "GRU", 3, 5, precision="float32").pool()
    chunk = np.ones((2, 3), np.float32)
    ids = np.array([pool.open() for _ in range(4)])
    chunks = [_Converted(lambda: ids.resize(1, refcheck=False), chunk), *[chunk] * 3]
    assert len(pool.run(ids, chunks)) == 4
    ids = np.array(pool.ids())
    with pytest.raises(ValueError, match="expected ids that stay as they are"):
        pool.step(ids, _Converted(lambda: ids.resize(1, refcheck=False), np.ones((4, 3), np.float32)))
    with pytest.raises(ValueError, match="a chunk for each of 1 ids"):
        pool.run(np.array([pool.open()]).view(_Liar), [chunk] * 100_000)


class _Reused(fastrnn.layers.Layer):
    """A layer from outside that gives the same array again and again."""

    features_in = features_out = 5

    def __init__(self):
        self.array = np.empty((6, 1, 5), np.float32)

    def __call__(self, x):
        self.array[...] = x
        return self.array


def test_results_of_a_layer_that_uses_its_array_again_are_apart(rng):
    layer = random_layer(rng, "LSTM", 3, 5, precision="float32")
    pool = fastrnn.Sequential(layer, _Reused()).pool()
    chunks = [rng.standard_normal((6, 3)).astype(np.float32) for _ in range(2)]
    for y, chunk in zip(pool.run([pool.open(), pool.open()], chunks), chunks, strict=True):
        np.testing.assert_array_equal(y, layer(chunk)[0])
