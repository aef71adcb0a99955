"""Pools of programs: many sequences stepped as one batch, with the bits of each alone."""

import threading

import numpy as np
import pytest
from test_program_streams import X, convolution, declared, flat, node, program, recurrent

from fastrnn.graph import Input, Size, Value
from fastrnn.program.streaming.pool import batch_size


def check_chunks(model, x, axis, rng, live=0.7):
    """x has a row for each stream. Some of them take some steps at a time."""
    pool = model.pool(capacity=2)
    count, steps = len(x), x.shape[axis]
    ids = [pool.open() for _ in range(count)]
    at, parts = [0] * count, [[] for _ in range(count)]
    while min(at) < steps:
        members = [i for i in range(count) if at[i] < steps and rng.random() < live]
        rng.shuffle(members)
        ends = [min(at[i] + int(rng.integers(0, 6)), steps) for i in members]
        chunks = [
            np.take(x[i : i + 1], range(at[i], end), axis) for i, end in zip(members, ends, strict=True)
        ]
        for i, end, got in zip(members, ends, pool.run([ids[i] for i in members], chunks), strict=True):
            parts[i].append(flat(got))
            at[i] = end
    for i in range(count):
        parts[i].append(flat(pool.finish(ids[i])))
        for index, wanted in enumerate(flat(model(x[i : i + 1]))):
            time_axis = pool._one.time_axis(index)
            own = [part[index] for part in parts[i]]
            got = own[-1] if time_axis is None else np.concatenate(own, time_axis)
            np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize(
    "make",
    [
        lambda rng: convolution(rng, 3, pad=4, dilation=2),
        lambda rng: convolution(rng, 3, padding=1),
        lambda rng: convolution(rng, 4, stride=2, padding=1),
        lambda rng: convolution(rng, 3, padding=2, groups=4),
    ],
)
def test_convolutions_in_a_pool(rng, make):
    check_chunks(make(rng), rng.standard_normal((11, 4, 20), dtype="float32"), 2, rng)


@pytest.mark.parametrize("operator", ["gru", "lstm"])
def test_recurrent_layers_in_a_pool(rng, operator):
    check_chunks(
        recurrent(rng, operator, ("y", "h_n")), rng.standard_normal((9, 15, 4), dtype="float32"), 1, rng
    )


def test_rows_and_steps_in_one_axis(rng):
    """B * T in one axis, and T * B."""
    for outer in (True, False):
        shape = (Size("*", Size("dim", "x", 0), Size("dim", "x", 1)), 4)
        turned = [] if outer else [node("transpose", "t", self=X, dim0=0, dim1=1)]
        nodes = [
            *turned,
            node("reshape", "r", self=X if outer else Value("t"), shape=shape),
            node("tanh", "y", self=Value("r")),
        ]
        model = program(("B", "T", 4), nodes)
        pool = model.pool(time="T") if True else None
        x = rng.standard_normal((5, 3, 4), dtype="float32")
        ids = [pool.open() for _ in range(5)]
        got = pool.run(ids, [x[i : i + 1] for i in range(5)])
        for i in range(5):
            np.testing.assert_array_equal(got[i], model(x[i : i + 1]))


def test_steps_of_a_pool_are_rows_of_a_batch(rng):
    model = recurrent(rng)
    pool = model.pool()
    x = rng.standard_normal((3, 6, 4), dtype="float32")
    whole = model(x)
    ids = [pool.open() for _ in range(3)]
    for t in range(6):
        order = rng.permutation(3)
        got = pool.step([ids[i] for i in order], x[order, t])
        np.testing.assert_array_equal(got, whole[order, t])


def test_streams_open_and_close_and_go_on(rng):
    model = recurrent(rng)
    pool = model.pool(capacity=1)
    x = rng.standard_normal((2, 8, 4), dtype="float32")
    first = pool.open()
    pool.run([first], [x[:1, :3]])
    second = pool.open(pool.state(first))
    assert len(pool) == 2 and pool.capacity == 2 and pool.ids() == [first, second]
    assert first in pool and second in pool
    a, b = pool.run([second, first], [x[:1, 3:], x[:1, 3:]])
    np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(a, model(x[:1])[:, 3:])
    state = pool.close(first)
    assert first not in pool and set(state) == {"y.h"} and state["y.h"].shape == (1, 1, 5)
    pool.reset([second])
    np.testing.assert_array_equal(pool.run([second], [x[:1]])[0], model(x[:1]))
    assert pool.open() not in (first, second)
    stream = model.stream(1)
    stream.state = state
    np.testing.assert_array_equal(stream.state["y.h"], state["y.h"])


def test_wrong_ids_and_arguments_change_nothing(rng):
    pool = recurrent(rng).pool()
    a, b = pool.open(), pool.open()
    pool.step([a, b], rng.standard_normal((2, 4)))
    closed = pool.open()
    pool.close(closed)
    before = [pool.state(a)["y.h"], pool.state(b)["y.h"]]
    x = np.zeros((2, 4))
    for ids, given, error, words in (
        ([a, a], x, ValueError, r"step: expected each id once, got 0 again at index 1"),
        ([a, 77], x, ValueError, r"ids of open streams, got 77 at index 1\. open\(\) gives one"),
        ([a, closed], x, ValueError, r"got 2 at index 1\. It is closed"),
        ([a, 0.5], x, TypeError, r"ids to be whole numbers, got list at index 1"),
        ({a, b}, x, TypeError, r"ids to be whole numbers in a sequence, got set"),
        ([a, b], x[:1], ValueError, r"x of shape \(B, 4\) with B = 2, as in the stream, got \(1, 4\)"),
        ([], x[:0], ValueError, r"ids of open streams, got none"),
    ):
        with pytest.raises(error, match=words):
            pool.step(ids, given)
    with pytest.raises(ValueError, match=r"run: expected a chunk for each of 2 ids, got 1"):
        pool.run([a, b], [np.zeros((1, 2, 4))])
    with pytest.raises(ValueError, match=r"x of shape \(B, T, 4\), got \(1, 2, 5\)"):
        pool.run([a, b], [np.zeros((1, 2, 4)), np.zeros((1, 2, 5))])
    for id, wanted in zip((a, b), before, strict=True):
        np.testing.assert_array_equal(pool.state(id)["y.h"], wanted)


def test_steps_of_programs_that_look_ahead_are_refused(rng):
    pool = convolution(rng, 3, padding=1).pool()
    id = pool.open()
    assert pool.lag == 1
    with pytest.raises(ValueError, match=r"one result for each step, got results that come late"):
        pool.step([id], np.zeros((1, 4)))
    assert pool.run([id], [np.zeros((1, 4, 3))])[0].shape == (1, 4, 2)


def test_operators_that_mix_rows_are_refused():
    nodes = [node("cat", "c", tensors=(X, X), dim=2), node("mean", self=Value("c"), dim=(0,), keepdim=True)]
    model = program(("B", "T", 4), nodes)
    words = r"pool: expected operators that compute each row apart, got mean over rows at model\.py:12"
    with pytest.raises(ValueError, match=words):
        model.pool(time="T")
    with pytest.raises(ValueError, match="one size that counts rows, got none"):
        program((2, "T", 4), [node("tanh", self=X)]).pool(time="T")


def test_an_input_without_rows_is_one_for_all(rng):
    nodes = [node("mul", "y", self=X, other=Value("scale"))]
    model = program(("B", "T", 4), nodes, more=(Input("scale", "float32", (4,)),))
    pool = model.pool(time="T")
    ids = [pool.open(), pool.open()]
    x, scale = rng.standard_normal((2, 3, 4), dtype="float32"), np.arange(4, dtype="float32")
    got = pool.run(ids, [(x[:1], scale), (x[1:], scale)])
    np.testing.assert_array_equal(np.concatenate(got), model(x, scale))
    with pytest.raises(ValueError, match="one scale for all streams, which has no rows, got several"):
        pool.run(ids, [(x[:1], scale), (x[1:], scale + 1)])


def test_declared_states_in_a_pool(rng):
    model = declared(None)
    pool = model.pool()
    ids = [pool.open() for _ in range(5)]
    x = rng.standard_normal((3, 5, 3), dtype="float32")
    for now in x:
        got = pool.step(ids, now)
    np.testing.assert_array_equal(got, ((x[0] + x[1]) + x[2]) * 2)
    np.testing.assert_array_equal(pool.state(ids[3])["s"], ((x[0] + x[1]) + x[2])[3:4])


def test_threads_take_turns(rng):
    model = recurrent(rng)
    pool = model.pool()
    x = rng.standard_normal((4, 20, 4), dtype="float32")
    ids = [pool.open() for _ in range(4)]
    got = [None] * 4

    def call(i):
        got[i] = np.concatenate([pool.run([ids[i]], [x[i : i + 1, t : t + 1]])[0] for t in range(20)], 1)

    threads = [threading.Thread(target=call, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(np.concatenate(got), model(x))


def test_batches_have_few_sizes():
    sizes = {batch_size(count) for count in range(1, 1025)}
    assert len(sizes) < 70
    assert all(count <= batch_size(count) <= max(count * 9 / 8, count) for count in range(1, 1025))
