"""What tests of streams and pools share: models, layers of somebody else, comparisons, threads."""

import threading
import time

import numpy as np
from helpers import arrays_of, random_layer

import fastrnn
from fastrnn.engine import backends

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
    if model.signature.takes_tokens:
        return rng.integers(TOKENS, size=shape)
    return rng.standard_normal((*shape, 5)).astype(np.float32)


class Hooked(fastrnn.Tanh):
    """A layer of somebody else. It is called within the turn of a pool, and calls a hook then."""

    hook = None

    def __call__(self, x):
        if self.hook is not None:
            self.hook()
        return super().__call__(x)


def until(condition):
    """Let other threads run until something is true."""
    while not condition():
        time.sleep(0)


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


class Foreign(fastrnn.Tanh):
    """Somebody's layer, which is called; with no rows it would fail."""

    def __call__(self, x):
        return np.tanh(x / np.abs(x).max()) if x.size else x[[0]]


def snapshot(pool):
    return [array.copy() for array in pool._streams.dump()]


def assert_unchanged(pool, before):
    for one, other in zip(before, pool._streams.dump(), strict=True):
        np.testing.assert_array_equal(one, other)


def in_threads(count, work):
    """Call work(index) in this many threads at once; what it raised."""
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
