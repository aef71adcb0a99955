"""Random steps of many streams with opens and closes in between: ``python tests/soak_pool.py STEPS``.

Every stream that ends, and at last every one that is left, must have the state, bit for bit, that the
model gives for its whole sequence offline; one of them is never closed. Prints how much memory the process
had after a tenth of the steps and at the end. test_pool.py runs it for a short while.
"""

import os
import sys
import time

import numpy as np

import fastrnn

STREAMS = 300  # that are open at once, about
ROWS = 4093  # of the table that all inputs are taken from; a prime, so that no stream's repeat soon
OFFLINE_STEPS = 10_000  # of a whole sequence that are made at once


def make_model(random):
    """Float32: two recurrent layers and a head."""

    def weights(*shapes):
        return {name: random.uniform(-0.4, 0.4, shape).astype(np.float32) for name, shape in shapes}

    lstm = weights(("weight_ih", (80, 6)), ("weight_hh", (80, 20)), ("bias_ih", (80,)), ("bias_hh", (80,)))
    gru = weights(("weight_ih", (30, 20)), ("weight_hh", (30, 10)), ("bias_ih", (30,)), ("bias_hh", (30,)))
    return fastrnn.Sequential(
        fastrnn.LSTM.from_state_dict(lstm),
        fastrnn.GRU.from_state_dict(gru),
        fastrnn.Linear.from_state_dict(weights(("weight", (2, 10)), ("bias", (2,)))),
    )


class Live:
    """An open stream: its inputs are rows of the table from a place of its own on."""

    def __init__(self, pool, place):
        self.id = pool.open()
        self.place = place
        self.steps = 0
        self.last = None


def arrays(state):
    (h, c), other = state
    return h, c, other


def is_right(model, table, stream, state):
    """Whether a stream's state and last output are those of its whole sequence."""
    offline = model.stream()
    y = None
    for begin in range(0, stream.steps, OFFLINE_STEPS):
        places = np.arange(begin, min(begin + OFFLINE_STEPS, stream.steps)) + stream.place
        y = offline.run(table[places % ROWS])[-1]
    same = all(np.array_equal(a, b) for a, b in zip(arrays(state), arrays(offline.state), strict=True))
    return same and (y is None or np.array_equal(y, stream.last))


def resident_bytes():
    """What the process has in memory; 0 where the system does not tell."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def main(steps):
    random = np.random.default_rng(0)
    model = make_model(random)
    table = random.standard_normal((ROWS, 6)).astype(np.float32)
    pool = model.pool(16)
    live = [Live(pool, 0)]
    made = ended = wrong = opened = 0
    early = 0
    began = time.monotonic()
    while made < steps:
        while len(live) < STREAMS or random.random() < 0.3:
            opened += 1
            live.append(Live(pool, 31 * opened))
        some = [live[i] for i in random.permutation(len(live))[: random.integers(1, len(live) + 1)]]
        if some[0] is not live[0] and len(live) > STREAMS // 2 and random.random() < 0.5:
            live.remove(some[0])
            wrong += not is_right(model, table, some[0], pool.close(some[0].id))
            ended += 1
            some = some[1:]
        ids = [stream.id for stream in some]
        places = np.array([stream.place + stream.steps for stream in some], int)
        if random.random() < 0.1:
            sizes = random.integers(1, 8, len(some))
            chunks = [table[np.arange(p, p + n) % ROWS] for p, n in zip(places, sizes, strict=True)]
            outputs = [y[-1] for y in pool.run(ids, chunks)]
        else:
            sizes = np.ones(len(some), int)
            outputs = pool.step(ids, table[places % ROWS])
        for stream, size, y in zip(some, sizes, outputs, strict=True):
            stream.steps += int(size)
            stream.last = y.copy()
        made += int(sizes.sum())
        if not early and made > steps / 10:
            early = resident_bytes()
    late = resident_bytes()
    longest = max(stream.steps for stream in live)
    wrong += sum(not is_right(model, table, stream, pool.close(stream.id)) for stream in live)
    seconds = time.monotonic() - began
    print(f"{made} steps in {seconds:.0f} s, {opened} opened, {ended} closed, the longest of {longest} steps")
    print(f"memory: {early / 2**20:.1f} MB after a tenth, {late / 2**20:.1f} MB at the end")
    print(f"wrong: {wrong or 'none'}")
    return 1 if wrong or len(pool) or late > early + 2 * 2**20 else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
