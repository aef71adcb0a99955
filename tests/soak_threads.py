"""Random calls from 8 Python threads with forks in between: ``python tests/soak_threads.py SECONDS``.

Prints how many calls and forks were made; a wrong bit, a hang or a crash fails. test_threads.py runs it for
a short while.
"""

import faulthandler
import os
import sys
import threading
import time

import numpy as np

import fastrnn
from fastrnn.operators.recurrent import DIVISIONS
from fastrnn.spec import RecurrentSpec

CALLERS = 8


def make_cases():
    """Layers of every plan and of the planner's own choice, each with an input and the right output."""
    random = np.random.default_rng(0)
    cases = []
    for plan in (None, *DIVISIONS[1:]):
        for kind, size, T, B in (("LSTM", 96, 40, 9), ("GRU", 130, 30, 1), ("RNN", 64, 50, 20)):
            spec = RecurrentSpec(kind, 12, size, 2, plan == "direction")
            tensors = {
                name: random.uniform(-0.1, 0.1, shape).astype(np.float32)
                for name, shape in spec.tensor_shapes().items()
            }
            x = random.standard_normal((T, B, 12)).astype(np.float32)
            make = getattr(fastrnn, kind).from_state_dict
            layer = make(tensors)
            if plan is not None:
                layer._divide(plan, int(random.integers(2, 5)))
            cases.append((layer, x, make(tensors, threads=1)(x)[0]))
    return cases


def is_right(case):
    layer, x, wanted = case
    return np.array_equal(layer(x)[0], wanted)


def main(seconds):
    faulthandler.dump_traceback_later(seconds + 60, exit=True)
    cases = make_cases()
    end = time.monotonic() + seconds
    calls, wrong = [0] * CALLERS, []

    def call(number):
        random = np.random.default_rng(number)
        while time.monotonic() < end:
            if not is_right(cases[random.integers(len(cases))]):
                wrong.append(number)
            calls[number] += 1

    threads = [threading.Thread(target=call, args=(number,)) for number in range(CALLERS)]
    for thread in threads:
        thread.start()
    forks, random = 0, np.random.default_rng(CALLERS)
    while time.monotonic() < end:
        if hasattr(os, "fork"):
            pid = os.fork()
            if pid == 0:
                chosen = [cases[i] for i in random.permutation(len(cases))[:3]]
                os._exit(0 if all(map(is_right, chosen)) else 1)
            if os.waitpid(pid, 0)[1] != 0:
                wrong.append("fork")
            forks += 1
        time.sleep(0.02)
    for thread in threads:
        thread.join()
    faulthandler.cancel_dump_traceback_later()
    print(f"{sum(calls)} calls, {forks} forks, wrong: {wrong or 'none'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1])))
