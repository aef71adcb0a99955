"""What may come between the calls of streams and pools: themselves, other threads, interrupts and forks."""

import gc
import inspect
import itertools
import os
import pickle
import subprocess
import sys
import threading

import numpy as np
import pytest
from helpers import arrays_of, random_layer
from live import Hooked, assert_same, in_threads, random_model, until

import fastrnn
from fastrnn.streaming.stream_base import Exclusive

# ---------------------------------------------------------------- arguments, finalizers, layers


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
    assert len(pool) == 6


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
    hooked = Hooked()
    pool = fastrnn.Sequential(random_layer(rng), hooked).pool()
    stream = pool.open()
    hooked.hook = lambda: pool.state(stream)
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"StreamPool\.state: expected one call at a time in a thread"):
            pool.step([stream], np.ones((1, 5)))
    assert not any(array.any() for array in arrays_of(pool.state(stream)))


# ---------------------------------------------------------------- interrupts


class Interrupts:
    """Raises KeyboardInterrupt at the place of that number in the Python code of streams and pools.

    A place is where a function begins or has returned: that is where Python itself looks for interrupts.
    """

    def __init__(self, number):
        self.rest = number

    def __enter__(self):
        self.before = sys.getprofile()
        sys.setprofile(self.look)
        return self

    def __exit__(self, *_):
        sys.setprofile(self.before)

    def look(self, frame, event, argument):
        code = frame.f_code
        is_ours = f"{os.sep}streaming{os.sep}" in code.co_filename
        if is_ours and event != "c_call" and not code.co_flags & inspect.CO_GENERATOR:
            self.rest -= 1
            if self.rest < 0:
                sys.setprofile(None)
                raise KeyboardInterrupt


STREAM_CALLS = {
    "step": lambda stream, x: stream.step(x[0].tolist()),
    "run": lambda stream, x: stream.run(x.tolist()),
    "read": lambda stream, x: stream.state,
    "assign": lambda stream, x: setattr(stream, "state", stream.state),
    "reset": lambda stream, x: stream.reset(),
    "dump": lambda stream, x: pickle.dumps(stream),
}
POOL_CALLS = {
    "step": lambda pool, ids, x: pool.step(ids, x[:3]),
    "step lists": lambda pool, ids, x: pool.step(ids, x[:3].tolist()),
    "run": lambda pool, ids, x: pool.run(ids, [x, x[:2], x[:9]]),
    "read": lambda pool, ids, x: pool.state(ids[0]),
    "reset": lambda pool, ids, x: pool.reset(ids[1:]),
    "ids": lambda pool, ids, x: pool.ids(),
    "dump": lambda pool, ids, x: pickle.dumps(pool),
}


def interrupted(call):
    """Call it with an interrupt at its first place, its second one and so on to its last."""
    for number in itertools.count():
        try:
            with Interrupts(number) as interrupts:
                call()
        except KeyboardInterrupt:
            yield number
        else:
            assert interrupts.rest >= 0, "the interrupt was swallowed"
            assert number > 0
            return


@pytest.mark.parametrize("is_called", (False, True))
@pytest.mark.parametrize("name", STREAM_CALLS)
def test_an_interrupt_leaves_a_stream_usable(rng, name, is_called):
    """Wherever it comes; each call was made or was not begun."""
    layers = [*random_model(rng).layers, *([Hooked()] if is_called else [])]
    model = fastrnn.Sequential(*layers)
    x = rng.standard_normal((30, 5)).astype(np.float32)
    stream = model.stream()
    for _ in interrupted(lambda: STREAM_CALLS[name](stream, x)):
        state = stream.state
        assert_same(stream.run(x[:3]), model(x[:3], state)[0])


@pytest.mark.parametrize("is_called", (False, True))
@pytest.mark.parametrize("name", POOL_CALLS)
def test_an_interrupt_leaves_a_pool_usable(rng, name, is_called):
    layers = [*random_model(rng).layers, *([Hooked()] if is_called else [])]
    model = fastrnn.Sequential(*layers)
    x = rng.standard_normal((30, 5)).astype(np.float32)
    pool = model.pool()
    ids = [pool.open() for _ in range(3)]
    for _ in interrupted(lambda: POOL_CALLS[name](pool, ids, x)):
        state = pool.state(ids[0])
        assert_same(pool.run(ids[:1], [x[:3]])[0], model(x[:3], state)[0])
        assert len(pool) == 3


# ---------------------------------------------------------------- threads


def test_who_waits_longest_has_the_next_turn(rng):
    """A thread that calls again at once waits for those who came before."""
    hooked = Hooked()
    pool = fastrnn.Sequential(random_layer(rng), hooked).pool()
    ids = [pool.open() for _ in range(4)]
    turns, may_go_on = [], threading.Event()

    def hook():
        turns.append(threading.current_thread().name)
        may_go_on.wait()

    def step(id, times):
        for _ in range(times):
            pool.step([id], np.ones((1, 5)))

    hooked.hook = hook
    threads = []
    for index, name in enumerate("abcd"):
        threads.append(threading.Thread(target=step, args=(ids[index], 1 + (name == "a")), name=name))
        threads[-1].start()
        if name == "a":
            until(lambda: turns)
        else:
            until(lambda n=index: pool._streams.waiting == n)
    may_go_on.set()
    for thread in threads:
        thread.join()
    assert turns == ["a", "b", "c", "d", "a"]
    assert pool._streams.waiting == 0


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


def test_a_pool_answers_while_other_threads_use_it(rng):
    """What needs no turn, and what does: each answer was true at some moment of the call."""
    pool = random_model(rng, "GRU", is_deep=False).pool(1)
    kept = [pool.open() for _ in range(2)]
    x = np.ones((1, 5), np.float32)

    def work(index):
        for _ in range(50):
            if index % 2:
                own = [pool.open() for _ in range(3)]
                pool.step(own[:1], x)
                for stream in own:
                    pool.close(stream)
            else:
                assert 2 <= len(pool) <= 2 + 3 * 4
                assert pool.capacity >= len(kept)
                assert set(kept) <= set(pool.ids()) and kept[0] in pool
                assert pool._streams.waiting <= 8

    assert in_threads(8, work) == []
    assert sorted(pool.ids()) == sorted(kept)


def _brings_back(stream):
    """Whether threads that set the whole state have a torn stream one at a time."""
    inside, most, answers = [], [], []

    def work(index):
        for _ in range(200):
            try:
                with Exclusive(stream, "reset", sets_all=True):
                    inside.append(index)
                    most.append(len(inside))
                    inside.remove(index)
            except RuntimeError as error:
                answers.append(str(error))

    raised = in_threads(4, work)
    wanted = {"Stream.reset: expected one thread at a time, got a second one."}
    return raised == [] and {*most} == {1} and {*answers} <= wanted


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_one_thread_at_a_time_brings_back_a_torn_stream(rng):
    """The child of a fork may have several that try."""
    stream = random_model(rng, is_deep=False).stream()
    with Exclusive(stream, "run"):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                status = not _brings_back(stream)
            finally:
                os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0


def test_a_chunk_may_change_its_shape_while_a_call_waits(rng):
    """The call runs the steps that were checked."""
    model = random_model(rng, "GRU", 300, is_deep=False)
    pool = model.pool()
    first, second = pool.open(), pool.open()
    x = rng.standard_normal((4, 5)).astype(np.float32)
    wanted, got, is_over = model(x.copy())[0], [], threading.Event()

    def keep_busy():
        while not is_over.is_set():
            pool.run([first], [np.ones((500, 5), np.float32)])

    threads = [threading.Thread(target=keep_busy)]
    threads.append(threading.Thread(target=lambda: got.extend(pool.run([second], [x]))))
    threads[0].start()
    until(lambda: pool._streams.is_changing)
    threads[1].start()
    until(lambda: pool._streams.waiting == 1 or got)
    x.resize((20, 1), refcheck=False)
    is_over.set()
    for thread in threads:
        thread.join()
    assert_same(got[0], wanted)


STREAM_METHODS = {
    "step": lambda stream, x: stream.step(x[0]),
    "run": lambda stream, x: stream.run(x.tolist()),
    "state": lambda stream, x: stream.state,
    "reset": lambda stream, x: stream.reset(),
}


def test_a_second_thread_on_a_stream_is_refused(rng):
    """It gets an error, and the first one goes on."""
    hooked = Hooked()
    called = fastrnn.Sequential(random_layer(rng), hooked).stream()
    compiled = random_model(rng).stream()
    x = np.ones((3, 5), np.float32)
    refused = []

    def refuse(stream):
        before = len(refused)
        for method, call in STREAM_METHODS.items():
            with pytest.raises(RuntimeError) as raised:
                call(stream, x)
            wanted = f"Stream.{method}: expected one thread at a time, got a second one."
            assert str(raised.value) == wanted
            refused.append(method)
        return len(refused) - before

    hooked.hook = lambda: in_threads(1, lambda _: refuse(called))
    called.step(x[0])
    hooked.hook = None
    with Exclusive(compiled, "run"):
        assert in_threads(1, lambda _: refuse(compiled)) == []
    assert refused == [*STREAM_METHODS] * 2
    for stream in (called, compiled):
        for call in STREAM_METHODS.values():
            call(stream, x)


def test_steps_that_were_refused_change_nothing(rng):
    """The state is that of the runs that were made, however threads meet."""
    model = random_model(rng, hidden_size=300, is_deep=False)
    stream = model.stream()
    x = rng.standard_normal((300, 5)).astype(np.float32)
    made = []

    def work(index):
        for _ in range(20):
            stream.run(x)
            made.append(index)

    for error in in_threads(4, work):
        assert isinstance(error, RuntimeError)
        assert str(error) == "Stream.run: expected one thread at a time, got a second one."
    wanted = model.stream()
    for _ in made:
        wanted.run(x)
    for one, other in zip(arrays_of(stream.state), arrays_of(wanted.state), strict=True):
        np.testing.assert_array_equal(one, other)


# ---------------------------------------------------------------- forks and processes


FORK = """
import os, sys, threading, time
import numpy as np
import fastrnn
weights = {"weight_ih": (2400, 30), "weight_hh": (2400, 600), "bias_ih": (2400,), "bias_hh": (2400,)}
random = np.random.default_rng(0)
layer = fastrnn.LSTM.from_state_dict({n: random.uniform(-.05, .05, s) for n, s in weights.items()})
x = random.standard_normal((400, 30)).astype(np.float32)
stream, pool = layer.stream(), layer.pool()
ids = [pool.open() for _ in range(20)]
made, is_over = 0, False

def work():
    global made
    while not is_over:
        stream.run(x) if sys.argv[1] == "stream" else pool.run(ids, [x] * 20)
        made += 1

def is_at_work():
    if sys.argv[1] == "pool":
        return pool._streams.is_changing
    try:
        stream.state
    except RuntimeError:
        return True
    return False

thread = threading.Thread(target=work)
thread.start()
while True:
    # A fork counts where one and the same run was going on before it and after it.
    while not is_at_work():
        time.sleep(0)
    before = made
    receive, send = os.pipe()
    pid = os.fork()
    if pid == 0:
        if os.read(receive, 1) == b"+":
            break
        os._exit(0)
    counts = is_at_work() and made == before
    os.write(send, b"+" if counts else b"-")
    status = os.waitpid(pid, 0)[1]
    if counts:
        is_over = True
        thread.join()
        sys.exit(status != 0)
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
        [sys.executable, "-W", "ignore", "-c", code, kind], capture_output=True, text=True, timeout=250
    )
    assert result.returncode == 0, result.stdout + result.stderr


QUEUE = """
import os, signal, sys, threading, time
import numpy as np
import fastrnn

class Hooked(fastrnn.Tanh):
    hook = None

    def __call__(self, x):
        if self.hook is not None:
            self.hook()
        return x

weights = {"weight_ih": (12, 4), "weight_hh": (12, 4)}
random = np.random.default_rng(0)
weights = {name: random.uniform(-1, 1, shape) for name, shape in weights.items()}
hooked = Hooked()
pool = fastrnn.Sequential(fastrnn.GRU.from_state_dict(weights), hooked).pool()
ids, X = [pool.open() for _ in range(2)], np.zeros((2, 4), np.float32)
step = lambda: pool.step(ids, X)

def begin_to_wait():
    before = pool._streams.waiting
    thread = threading.Thread(target=step, daemon=True)
    thread.start()
    while pool._streams.waiting == before:
        time.sleep(0)

def child():
    signal.alarm(60)  # of a queue that does not move
    assert pool._streams.waiting == 0
    step()
    thread = threading.Thread(target=step)
    thread.start()
    step()
    thread.join()
    os._exit(0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize(
    "script",
    (
        """
# Another thread has the turn and changes nothing; one waits.
has_turn, main = threading.Event(), threading.get_ident()
def hook():
    if threading.get_ident() != main and not has_turn.is_set():
        has_turn.set()
        threading.Event().wait()
hooked.hook = hook
threading.Thread(target=step, daemon=True).start()
has_turn.wait()
begin_to_wait()
pid = os.fork()
""",
        """
# This thread has the turn, and has it still in the child; two wait.
def hook():
    global pid
    hooked.hook = None
    begin_to_wait()
    begin_to_wait()
    pid = os.fork()
    if pid == 0:
        try:
            pool.ids()
            os._exit(1)
        except RuntimeError as error:
            assert "one call at a time in a thread" in str(error), error
hooked.hook = hook
step()
""",
        """
# This thread has given the turn to one that waited, and which does not know it yet.
sys.setswitchinterval(1000)
def hook():
    hooked.hook = None
    begin_to_wait()
hooked.hook = hook
step()
pid = os.fork()
""",
        """
# The child of a child.
def hook():
    global pid
    hooked.hook = None
    begin_to_wait()
    pid = os.fork()
    if pid == 0 and (pid := os.fork()) != 0:
        os._exit(os.waitpid(pid, 0)[1] != 0)
hooked.hook = hook
step()
""",
    ),
)
def test_a_fork_while_threads_wait_for_their_turn_leaves_a_pool_that_answers(script):
    code = f"{QUEUE}{script}\nif pid == 0:\n    child()\nos._exit(os.waitpid(pid, 0)[1] != 0)\n"
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=250
    )
    assert result.returncode == 0, result.stdout + result.stderr
