"""Pools: any stream among any others gives the bits that it gives alone, and errors change nothing."""

import copy
import gc
import multiprocessing
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from helpers import arrays_of, random_layer
from hypothesis import given, settings
from hypothesis import strategies as st

import fastrnn
from fastrnn.engine import backends

KINDS = ("RNN", "GRU", "LSTM")
TOKENS = 11


def random_model(rng, kind="LSTM", hidden_size=18, backend="auto", is_deep=True, has_tokens=False):
    """Float32: layers of one stack, or several recurrent ones with a head."""
    first = random_layer(
        rng, kind, 5, hidden_size, num_layers=1 + is_deep, precision="float32", backend=backend
    )
    layers = [first]
    if has_tokens:
        weight = rng.standard_normal((TOKENS, 5))
        layers.insert(0, fastrnn.Embedding.from_state_dict({"weight": weight}))
    if is_deep:
        weights = {"weight": rng.standard_normal((3, 7)), "bias": rng.standard_normal(3)}
        layers += [
            random_layer(rng, "GRU", hidden_size, 7, precision="float32", backend=backend),
            fastrnn.Linear.from_state_dict(weights, backend=backend),
            fastrnn.Sigmoid(),
        ]
    return fastrnn.Sequential(*layers)


def random_inputs(rng, model, *shape):
    if model.layers[0].takes_tokens:
        return rng.integers(TOKENS, size=shape)
    return rng.standard_normal((*shape, 5)).astype(np.float32)


def assert_same(got, wanted, backend="auto"):
    """Bit for bit on simd; to rounding on blas."""
    if backend == "blas" or not backends.ISAS:
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-5)
    else:
        np.testing.assert_array_equal(got, wanted)


def assert_same_states(got, wanted, backend="auto"):
    got, wanted = arrays_of(got), arrays_of(wanted)
    for one, other in zip(got, wanted, strict=True):
        assert_same(one, other, backend)


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
    kind=st.sampled_from(KINDS),
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
    (("alone", "GRU"), ("alone", "LSTM"), ("rows", "LSTM"), ("panels", "LSTM"), ("pipeline", "LSTM")),
)
def test_blocks_and_threads_of_a_step_do_not_change_a_bit(rng, count, threads, plan, kind):
    """However the states lie: in the order of their records or another."""
    model = random_model(rng, kind, 70)
    for layer in model.layers:
        if hasattr(layer, "engine"):
            layer.engine.take_plan(plan, threads)
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


def snapshot(pool):
    return [array.copy() for array in pool._streams.dump()]


def assert_unchanged(pool, before):
    for one, other in zip(before, pool._streams.dump(), strict=True):
        np.testing.assert_array_equal(one, other)


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


class Broken(fastrnn.Tanh):
    """A layer of somebody else, which fails when it is told to."""

    fails = False

    def __call__(self, x):
        if self.fails:
            raise RuntimeError("in the middle")
        return super().__call__(x)


def test_layers_of_others_run_in_a_pool_and_may_fail(rng):
    """They are called one by one, on copies of the states."""
    broken = Broken()
    model = fastrnn.Sequential(random_layer(rng, "LSTM", 5, 6), broken, random_layer(rng, "GRU", 6, 4))
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
    broken.fails = True
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


class Foreign(fastrnn.Tanh):
    """Somebody's layer, which is called; with no rows it would fail."""

    def __call__(self, x):
        return np.tanh(x / np.abs(x).max()) if x.size else x[[0]]


@pytest.mark.parametrize("is_called", (False, True))
@pytest.mark.parametrize("has_tokens", (False, True))
def test_empty_chunks_among_others_make_no_step(rng, has_tokens, is_called):
    """Some, all or none of the chunks, as arrays and as lists; with enough streams for several blocks."""
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


def test_who_waits_has_the_next_turn(rng):
    """Threads that make one step after the other do not keep a pool from others."""
    pool = random_layer(rng, "LSTM", precision="float32").pool()
    busy, alone = [pool.open() for _ in range(3)], pool.open()
    x = rng.standard_normal((1, 5)).astype(np.float32)
    made, is_over = [0] * len(busy), threading.Event()

    def go_on(index):
        while not is_over.is_set():
            pool.run([busy[index]], [np.repeat(x, 500, 0)])
            made[index] += 1

    threads = [threading.Thread(target=go_on, args=(index,)) for index in range(len(busy))]
    for thread in threads:
        thread.start()
    before = []
    try:
        for _ in range(200):
            first = sum(made)
            pool.step([alone], x)
            before.append(sum(made) - first)
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
    # Now and then this thread itself is held up on its way.
    assert sorted(before)[180] <= len(busy)


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


# ---------------------------------------------------------------- what comes in between


def test_arguments_may_use_the_pool_themselves(rng):
    """Whatever runs while an argument is read runs before the pool's turn."""
    pool = random_layer(rng, "GRU", precision="float32").pool()

    class Rows:
        def __init__(self, n):
            self.n = n

        def __array__(self, dtype=None, copy=None):
            assert len(arrays_of(pool.state(first))) == 1
            return np.ones((self.n, 5), np.float32)

    first = pool.open()
    assert pool.step((pool.open() for _ in range(3)), Rows(3)).shape == (3, 7)
    assert [len(y) for y in pool.run((pool.open() for _ in range(2)), (Rows(n) for n in (1, 4)))] == [1, 4]
    assert pool.open((np.ones((1, 7)),)[0]) and len(pool) == 7


def test_finalizers_may_close_streams(rng):
    """The garbage collector may run them at any moment, also within a call of the pool."""
    pool = random_model(rng).pool(2)

    class Session:
        def __init__(self):
            self.id = pool.open()
            self.cycle = self

        def __del__(self):
            pool.close(self.id)

    threshold = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for step in range(300):
            session = Session()
            if step % 2:
                pool.step([session.id], rng.standard_normal((1, 5)))
            else:
                pool.run([session.id], [rng.standard_normal((3, 5)).tolist()])
            pool.state(session.id)
    finally:
        gc.set_threshold(*threshold)
    del session
    gc.collect()
    assert len(pool) == 0


def test_a_layer_that_uses_its_own_pool_is_told(rng):
    class Curious(fastrnn.Tanh):
        def __call__(self, x):
            pool.state(stream)
            return x

    pool = fastrnn.Sequential(random_layer(rng), Curious()).pool()
    stream = pool.open()
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"StreamPool\.state: expected one call at a time in a thread"):
            pool.step([stream], np.ones((1, 5)))
    assert not any(array.any() for array in arrays_of(pool.state(stream)))


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no alarm here")
def test_interrupts_leave_streams_and_pools_usable(rng):
    """At random moments of calls that follow one another; each is whole afterwards, or was not begun."""
    model = random_model(rng, hidden_size=40)
    x = rng.standard_normal((30, 5)).astype(np.float32)
    stream, pool = model.stream(), model.pool()
    ids = [pool.open() for _ in range(3)]

    def interrupt(*_):
        raise KeyboardInterrupt

    calls = (
        lambda: stream.run(x),
        lambda: stream.state,
        lambda: setattr(stream, "state", stream.state),
        lambda: stream.reset(),
        lambda: pool.step(ids, x[:3]),
        lambda: pool.run(ids, [x, x[:2], x[:9]]),
        lambda: pool.state(ids[0]),
        lambda: pickle.dumps(pool),
    )
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for round_ in range(400):
            try:
                signal.setitimer(signal.ITIMER_REAL, float(rng.uniform(1e-5, 2e-3)))
                while True:
                    calls[round_ % len(calls)]()
            except KeyboardInterrupt:
                pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    stream.reset()
    assert_same(stream.run(x), model(x)[0])
    state = pool.state(ids[0])
    assert_same(pool.run(ids[:1], [x])[0], model(x, state)[0])
    assert len(pool) == 3


FORK = """
import os, sys, threading, time
import numpy as np
import fastrnn
weights = {"weight_ih": (2400, 30), "weight_hh": (2400, 600), "bias_ih": (2400,), "bias_hh": (2400,)}
random = np.random.default_rng(0)
layer = fastrnn.LSTM.from_state_dict({n: random.uniform(-.05, .05, s) for n, s in weights.items()})
x = random.standard_normal((4000, 30)).astype(np.float32)
stream, pool = layer.stream(), layer.pool()
ids = [pool.open() for _ in range(20)]
WORK = dict(stream=lambda: stream.run(x), pool=lambda: pool.run(ids, [x[:500]] * 20))[sys.argv[1]]
thread = threading.Thread(target=WORK)
thread.start()
time.sleep(0.1)
pid = os.fork()
if pid:
    thread.join()
    WORK()
    sys.exit(os.waitpid(pid, 0)[1] != 0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize(
    "kind, script",
    (
        (
            "stream",
            """
for call in (lambda: stream.step(x[0]), lambda: stream.run(x[:2]), lambda: stream.state):
    try:
        call()
        os._exit(1)
    except RuntimeError as error:
        assert "expected a stream that no thread was using at the fork" in str(error), error
stream.reset()
assert np.array_equal(stream.run(x[:9]), layer(x[:9])[0])
""",
        ),
        (
            "pool",
            """
import pickle
for call in (
    lambda: pool.step(ids, x[:20]), lambda: pool.state(ids[0]), lambda: pool.open(),
    lambda: pickle.dumps(pool),
):
    try:
        call()
        os._exit(1)
    except RuntimeError as error:
        assert "expected a pool that no thread was using at the fork" in str(error), error
other = layer.pool()
assert np.array_equal(other.run([other.open()], [x[:9]])[0], layer(x[:9])[0])
""",
        ),
    ),
)
def test_what_a_fork_tears_says_so(kind, script):
    code = f"{FORK}\n{script}\nos._exit(0)"
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, kind], capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stdout + result.stderr


# ---------------------------------------------------------------- copies, processes, threads


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_while_threads_wait_for_their_turn_leaves_a_pool_that_answers():
    """Even if one of them has the lock already and does not know it."""
    script = """
import os, signal, sys, threading, time
import numpy as np
import fastrnn
weights = {"weight_ih": (96, 32), "weight_hh": (96, 32)}
random = np.random.default_rng(0)
weights = {name: random.uniform(-1, 1, shape) for name, shape in weights.items()}
pool = fastrnn.GRU.from_state_dict(weights, threads=1).pool()
ids, X = [pool.open() for _ in range(64)], np.zeros((64, 32), np.float32)
sys.setswitchinterval(10)
def work():
    while True:
        pool.step(ids, X)
        time.sleep(0)
for _ in range(3):
    threading.Thread(target=work, daemon=True).start()
answers = set()
for _ in range(30):
    pool.step(ids, X)
    if (child := os.fork()) == 0:
        signal.alarm(5)
        try:
            pool.step(ids, X)
        except RuntimeError:
            os._exit(7)
        os._exit(0)
    answers.add(os.waitpid(child, 0)[1])
print(sorted(answers), flush=True)
os._exit(not answers <= {0, 7 << 8})
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=250)
    assert result.returncode == 0, result.stdout + result.stderr


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


def test_states_of_another_pool_are_refused(rng):
    small, large = (random_layer(rng, "GRU", 5, size).pool(4) for size in (6, 60))
    small.open()
    uses, slots, records = small._streams.dump()
    for content in (
        (uses, slots, records),
        (uses[:2], slots, records),
        (uses, slots + 4, records),
        (uses, np.r_[slots, slots], np.r_[records, records]),
        (uses - 1, slots, records),
    ):
        with pytest.raises(ValueError, match="expected the states of a pool of this model"):
            (
                large if content[2] is records and len(content[0]) == 4 and content[1] is slots else small
            )._streams.fill(*content)


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
        for layer, other in zip(one._layers.layers, copied(one)._layers.layers, strict=True):
            assert other is layer


def _steps_in_a_child(stream, pool, ids, x, results):
    results.put((stream.step(x), pool.step(ids, np.stack([x] * len(ids)))))


@pytest.mark.parametrize("method", ("fork", "spawn"))
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_streams_and_pools_go_on_in_another_process(rng, method):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} here")
    model = random_model(rng, hidden_size=200)
    x = rng.standard_normal(5).astype(np.float32)
    stream, pool = model.stream(), model.pool()
    ids = [pool.open(), pool.open()]
    stream.step(x)
    pool.step(ids, np.stack([x, x]))
    context = multiprocessing.get_context(method)
    results = context.Queue()
    child = context.Process(target=_steps_in_a_child, args=(stream, pool, ids, x, results))
    child.start()
    got = results.get(timeout=60)
    child.join()
    assert_same(got[0], stream.step(x))
    assert_same(got[1], pool.step(ids, np.stack([x, x])))


def in_threads(count, work):
    """Call work(index) in so many threads at once; what it raised."""
    raised = []

    def run(index):
        try:
            work(index)
        except Exception as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


@pytest.mark.parametrize("hidden_size", (18, 300))
def test_threads_with_streams_of_their_own(rng, hidden_size):
    """Eight threads on one model: the bits of one thread."""
    model = random_model(rng, hidden_size=hidden_size)
    x = rng.standard_normal((8, 60, 5)).astype(np.float32)
    wanted = [model(row)[0] for row in x]

    def work(index):
        for _ in range(5):
            stream = model.stream()
            assert_same([stream.step(row) for row in x[index]], wanted[index])

    assert in_threads(8, work) == []


def test_threads_share_a_pool(rng):
    """Their calls take turns: each with streams of its own, opened and closed meanwhile."""
    model = random_model(rng, "GRU", 40)
    x = rng.standard_normal((8, 20, 5)).astype(np.float32)
    wanted = [model(row)[0] for row in x]
    pool = model.pool(1)

    def work(index):
        for _ in range(10):
            stream = pool.open()
            got = [pool.step([stream], row[None])[0] for row in x[index][:10]]
            got.extend(pool.run([stream], [x[index][10:]])[0])
            assert_same(got, wanted[index])
            pool.close(stream)

    assert in_threads(8, work) == []
    assert len(pool) == 0


def test_a_second_thread_on_a_stream_is_refused(rng):
    """It gets an error; the state is whole: that of the steps that were made."""
    model = random_model(rng, hidden_size=300, is_deep=False)
    stream = model.stream()
    x = rng.standard_normal((3000, 5)).astype(np.float32)
    made = []

    def work(index):
        for _ in range(4):
            stream.run(x)
            made.append(index)

    raised = in_threads(4, work)
    for error in raised:
        assert isinstance(error, RuntimeError)
        assert str(error) == "Stream.run: expected one thread at a time, got a second one."
    assert raised, "the threads never met"
    wanted = model.stream()
    for _ in made:
        wanted.run(x)
    for one, other in zip(arrays_of(stream.state), arrays_of(wanted.state), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_soak_of_opens_steps_and_closes():
    """A short form of it; `python tests/soak_pool.py 10000000` is the long one."""
    soak = Path(__file__).with_name("soak_pool.py")
    result = subprocess.run([sys.executable, soak, "100000"], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.endswith("wrong: none\n")
