"""A worker on a busy core, then random calls from 8 Python threads with forks in between.

``python tests/soak_threads.py SECONDS`` runs both. ``--forks N`` runs the second alone until it has forked N
times, as test_threads.py does. A wrong bit, a hang or a crash fails.
"""

import argparse
import ctypes
import faulthandler
import os
import subprocess
import sys
import threading
import time
from itertools import product

import numpy as np

import fastrnn
from fastrnn.engine.backends import SIMD_PRODUCTS
from fastrnn.operators.recurrent import DIVISIONS
from fastrnn.spec import RecurrentSpec

CALLERS = 8
HANG = 120  # seconds after which nothing more is expected
FETCHES = 3


PRECISIONS = ("float32", "bfloat16", "int8") if SIMD_PRODUCTS else ("float32",)


def make_layers(kind, size, plan=None, threads=2, precision="float32"):
    """A layer that divides its calls by a plan, or as it likes, and the same one on one thread."""
    random = np.random.default_rng(0)
    spec = RecurrentSpec(kind, 12, size, 2, plan == "direction")
    tensors = {
        name: random.uniform(-0.1, 0.1, shape).astype(np.float32)
        for name, shape in spec.tensor_shapes().items()
    }
    make = getattr(fastrnn, kind).from_state_dict
    layer = make(tensors, precision=precision)
    if plan is not None:
        layer._divide(plan, threads)
    return layer, make(tensors, threads=1, precision=precision)


def make_cases():
    """Layers of every precision and plan, each with an input and the right output."""
    random = np.random.default_rng(0)
    cases = []
    sizes = (("LSTM", 96, 40, 9), ("GRU", 130, 30, 1), ("RNN", 64, 50, 20))
    for precision, plan in product(PRECISIONS, (None, *DIVISIONS[1:])):
        for kind, size, T, B in sizes:
            layer, alone = make_layers(kind, size, plan, int(random.integers(2, 5)), precision)
            x = random.standard_normal((T, B, 12)).astype(np.float32)
            cases.append((layer, x, alone(x)[0]))
    return cases


def is_right(case):
    layer, x, wanted = case
    return np.array_equal(layer(x)[0], wanted)


def soak_calls(is_enough):
    """Call and fork until the number of forks is enough; what went wrong."""
    cases = make_cases()
    is_over = threading.Event()
    called = threading.Semaphore(0)
    calls, wrong = [0] * CALLERS, []

    def call(number):
        random = np.random.default_rng(number)
        while not is_over.is_set():
            if not is_right(cases[random.integers(len(cases))]):
                wrong.append(number)
            calls[number] += 1
            called.release()

    threads = [threading.Thread(target=call, args=(number,)) for number in range(CALLERS)]
    for thread in threads:
        thread.start()
    forks, random = 0, np.random.default_rng(CALLERS)
    while not is_enough(forks):
        for _ in range(CALLERS):  # calls go on between two forks
            called.acquire()
        if hasattr(os, "fork"):
            pid = os.fork()
            if pid == 0:
                chosen = [cases[i] for i in random.permutation(len(cases))[:3]]
                os._exit(0 if all(map(is_right, chosen)) else 1)
            if os.waitpid(pid, 0)[1] != 0:
                wrong.append("fork")
        forks += 1
    is_over.set()
    for thread in threads:
        thread.join()
    print(f"{sum(calls)} calls, {forks} forks, wrong: {wrong or 'none'}")
    return wrong


def soak_places():
    """A caller fetches a worker from a core that another process keeps busy; what went wrong.

    Only a real scheduler shows it, in some of many calls.
    """
    layer, alone = make_layers("LSTM", 200, "units")
    x = np.random.default_rng(1).standard_normal((300, 1, 12)).astype(np.float32)
    case = layer, x, alone(x)[0]
    where = ctypes.CDLL(None).sched_getcpu
    cores = os.sched_getaffinity(0)
    if len(cores) < 2:
        return []
    before = set(os.listdir("/proc/self/task"))
    wrong = 0 if is_right(case) else 1
    [worker] = [int(task) for task in set(os.listdir("/proc/self/task")) - before]

    def place():
        with open(f"/proc/self/task/{worker}/stat") as file:
            return int(file.read().rpartition(")")[2].split()[36])

    own = {max(cores)}
    hold = f"import os; os.sched_setaffinity(0, {own})\nwhile True: pass"
    busy = subprocess.Popen([sys.executable, "-c", hold])
    calls = fetched = 0
    try:
        while fetched < FETCHES:
            os.sched_setaffinity(worker, own)
            core = where()
            wrong += not is_right(case)
            calls += 1
            fetched += (
                os.sched_getaffinity(worker) == cores and place() == core == where() and core not in own
            )
    finally:
        busy.kill()
        busy.wait()
    print(f"{calls} calls on a busy core, {fetched} workers fetched, wrong: {wrong or 'none'}")
    return ["places"] * wrong


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("seconds", type=float, nargs="?", default=60)
    parser.add_argument("--forks", type=int)
    options = parser.parse_args()
    if options.forks is not None:
        faulthandler.dump_traceback_later(HANG, exit=True)
        return soak_calls(lambda forks: forks >= options.forks)
    faulthandler.dump_traceback_later(options.seconds + HANG, exit=True)
    wrong = soak_places() if sys.platform.startswith("linux") else []
    end = time.monotonic() + options.seconds
    return wrong + soak_calls(lambda forks: time.monotonic() > end)


if __name__ == "__main__":
    sys.exit(1 if main() else 0)
