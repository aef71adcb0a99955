"""The fork guard: what is called in the child of a fork, and what the team and the blas backend do then."""

import multiprocessing
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from live import assert_same, random_model

TESTS = Path(__file__).parent
TIMEOUT = 120  # seconds; far more than any of this takes

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


def test_watchers_are_called_in_every_child(tmp_path):
    """forks.c: each once, in order, after the generation; also while other threads change the list."""
    compiler = [
        *shlex.split(os.environ.get("CC", "cc")),
        "-std=gnu11",
        "-pthread",
        "-Wall",
        "-Wextra",
        "-Werror",
    ]
    include = TESTS.parent / "fastrnn" / "engine"
    try:
        subprocess.run(
            [*compiler, f"-I{include}", TESTS / "forks.c", "-o", tmp_path / "forks"],
            check=True,
            timeout=TIMEOUT,
        )
    except FileNotFoundError:
        pytest.skip("no compiler")
    assert subprocess.run([tmp_path / "forks"], timeout=TIMEOUT).returncode == 0


def child(script):
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script]
    result = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


def test_a_fork_in_the_middle_of_a_job():
    """The child has a team of its own: nobody waits for the job, or for the threads that were at it."""
    script = """
import os, threading
from fastrnn.engine.threads import team
parent, meeting, children = os.getpid(), threading.Barrier(2), []

def share():
    "The threads of a grid of two slices that run at the same time."
    meeting, threads = threading.Barrier(2, timeout=60), []
    team.share_function(lambda phase, slice: threads.append(meeting.wait()), 2, 2, 2, longest=1e12)
    return sorted(threads)

def fork(phase, slice):
    meeting.wait()
    if slice == 0:
        pid = os.fork()
        if pid == 0:
            os._exit(0 if share() == [0, 0, 1, 1] else 1)
        children.append(pid)

for _ in range(20):
    team.share_function(fork, 1, 2, 2, longest=1e12)
print(*{os.waitpid(pid, 0)[1] for pid in children}, len(children), share())
"""
    assert child(script) == ["0", "20", "[0,", "0,", "1,", "1]"]


def test_a_fork_while_another_thread_loads_blas():
    """The child can load it: nobody has to wait for locks of the thread, which is gone."""
    script = """
import os, signal, threading, time
from fastrnn.engine import backends
begun, forking, find = threading.Event(), threading.Event(), backends.openblas_of_scipy
def find_slowly():
    begun.set()
    forking.wait()
    time.sleep(0.2)
    return find()
backends.openblas_of_scipy = find_slowly
os.register_at_fork(before=forking.set)  # the last one registered is called first
thread = threading.Thread(target=backends.pick_backend, args=("test", "blas", "float32"))
thread.start()
begun.wait()
pid = os.fork()
if pid == 0:
    signal.alarm(30)
    backends.pick_backend("test", "blas", "float32")
    os._exit(0)
print(os.waitpid(pid, 0)[1])
"""
    assert child(script) == ["0"]


def test_blas_has_its_threads_again_in_a_child():
    """Also if a call of another thread, which is gone, was under way: nobody waits for its lock."""
    script = """
import ctypes, os, threading
import fastrnn, numpy as np
from fastrnn.engine.blas.openblas import openblas_of_scipy
tensors = {"weight_ih_l0": np.ones((64, 8)), "weight_hh_l0": np.full((64, 64), 0.01)}
layer = fastrnn.RNN.from_state_dict(tensors, backend="blas", threads=1)
x = np.random.default_rng(0).standard_normal((300, 8)).astype(np.float32)
wanted = layer(x)[0]
addresses = openblas_of_scipy()
get = ctypes.CFUNCTYPE(ctypes.c_int)(addresses[0]) if addresses else lambda: 2
if addresses:
    ctypes.CFUNCTYPE(None, ctypes.c_int)(addresses[1])(2)
is_over = threading.Event()
def call():
    while not is_over.is_set():
        layer(x)
threads = [threading.Thread(target=call) for _ in range(2)]
for thread in threads:
    thread.start()
statuses = set()
for _ in range(20):
    pid = os.fork()
    if pid == 0:
        is_right = get() == 2 and np.array_equal(layer(x)[0], wanted) and get() == 2
        os._exit(0 if is_right else 1)
    statuses.add(os.waitpid(pid, 0)[1])
is_over.set()
print(*statuses)
"""
    assert child(script) == ["0"]


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
