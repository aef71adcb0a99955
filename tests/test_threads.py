"""Threads: the same bits in every plan, whoever calls, and nothing left behind.

No test asks how long something took: each waits for the event that it is about. One that does not come is
ended by a timeout.
"""

import ctypes
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastrnn
from fastrnn.engine import backends
from fastrnn.engine.blas.openblas import openblas_of_scipy
from fastrnn.engine.threads import team
from fastrnn.operators.recurrent import DIVISIONS
from fastrnn.spec import RecurrentSpec

KINDS = ("LSTM", "GRU", "RNN")
TIMEOUT = 120  # seconds; far more than any of this takes
ON_LINUX = sys.platform.startswith("linux")

has_team = pytest.mark.skipif(os.name == "nt", reason="everything runs on the caller's thread here")


def make(kind, input_size, H, layers=1, bidirectional=False, seed=0, **options):
    spec = RecurrentSpec(kind, input_size, H, layers, bidirectional, proj_size=options.pop("proj_size", 0))
    random = np.random.default_rng(seed)
    tensors = {
        name: random.uniform(-(H**-0.5), H**-0.5, shape).astype(np.float32)
        for name, shape in spec.tensor_shapes().items()
    }
    return getattr(fastrnn, kind).from_state_dict(tensors, **options)


def run(layer, x, lengths=None):
    output, state = layer(x, lengths=lengths)
    return [output, *(state if isinstance(state, tuple) else (state,))]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_every_plan_gives_the_bits_of_one_thread(data):
    kind = data.draw(st.sampled_from(KINDS))
    plan = data.draw(st.sampled_from(DIVISIONS))
    threads = data.draw(st.integers(1, 5))
    input_size = data.draw(st.sampled_from([5, 512]))
    H = data.draw(st.sampled_from([1, 16, 17, 40, 70, 130, 256]))
    proj_size = data.draw(st.sampled_from([0, 3])) if kind == "LSTM" and H > 3 else 0
    layers, bidirectional = data.draw(st.integers(1, 3)), data.draw(st.booleans())
    batch_first = data.draw(st.booleans())
    T = data.draw(st.sampled_from([1, 2, 3, 17, 65, 130, 257]))
    B = data.draw(st.sampled_from([1, 2, 5, 9, 20, 33]))
    layer = make(
        kind,
        input_size,
        H,
        layers,
        bidirectional,
        proj_size=proj_size,
        batch_first=batch_first,
        threads=1,
        backend=data.draw(st.sampled_from(["simd", "blas"])),
    )
    x = np.random.default_rng(1).standard_normal((B, T, input_size) if batch_first else (T, B, input_size))
    x = (x / input_size**0.5).astype(np.float32)
    lengths = None
    if data.draw(st.booleans()):
        lengths = data.draw(st.lists(st.integers(1, T), min_size=B, max_size=B))
    wanted = run(layer, x, lengths)
    layer._divide(plan, threads)
    for _ in range(2):
        for got, want in zip(run(layer, x, lengths), wanted, strict=True):
            if layer.backend == "simd":
                np.testing.assert_array_equal(got, want)
            else:
                np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)


@has_team
@pytest.mark.parametrize("batch_first", (False, True))
@pytest.mark.parametrize("plan", ("rows", "units", "pipeline"))
def test_work_is_divided_whichever_axis_comes_first(rng, plan, batch_first):
    layer = make("LSTM", 256, 256, 2, batch_first=batch_first)
    x = rng.standard_normal((60, 20, 256)).astype(np.float32)
    before = team.jobs()
    layer._divide("alone", 1)
    layer(x)
    assert team.jobs() == before
    layer._divide(plan, 2)
    layer(x)
    assert team.jobs() > before


@pytest.mark.parametrize("plan", DIVISIONS)
@pytest.mark.parametrize("offset", (0, 1, 12))
def test_outputs_may_lie_anywhere(rng, plan, offset):
    """Within a cache line that two threads share, too: all of it is written, and nothing beside it."""
    B, bidirectional = 9 if plan == "rows" else 1, plan == "direction"
    layer = make("GRU", 7, 48, 2, bidirectional, threads=1)
    x = rng.standard_normal((70, B, 7)).astype(np.float32)
    wanted = run(layer, x)
    memory = np.full(wanted[0].size + 64, np.nan, np.float32)
    begin = 16 - memory.ctypes.data // memory.itemsize % 16 + offset
    end = begin + wanted[0].size
    out = memory[begin:end].reshape(wanted[0].shape)
    layer._divide(plan, 2)
    _, h_n = layer(x, out=out)
    np.testing.assert_array_equal(out, wanted[0])
    np.testing.assert_array_equal(h_n, wanted[1])
    assert np.isnan(memory[:begin]).all() and np.isnan(memory[end:]).all()


@pytest.mark.parametrize("plan", DIVISIONS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch_first", (False, True))
def test_crowded_rows_are_those_of_each_row_alone(rng, kind, plan, batch_first):
    """Rows of h and c that share cache sets are kept apart meanwhile, over several blocks of time."""
    B, T, H = 9, 40, 512
    layer = make(kind, 24, H, 2, plan == "direction", batch_first=batch_first, threads=1)
    x = rng.standard_normal((B, T, 24) if batch_first else (T, B, 24)).astype(np.float32)
    shape = (2 * (1 + layer.bidirectional), B, H)
    h_0, c_0 = (rng.uniform(-1, 1, shape).astype(np.float32) for _ in "hc")
    lengths = rng.integers(1, T + 1, B)

    def call(x, rows, lengths=None):
        state = (h_0[:, rows], c_0[:, rows]) if kind == "LSTM" else h_0[:, rows]
        output, state = layer(x, state, lengths=lengths)
        return [output, *(state if kind == "LSTM" else (state,))]

    axis = 0 if batch_first else 1
    for of in (None, lengths):
        alone = [call(x.take([b], axis), [b], None if of is None else of[[b]]) for b in range(B)]
        layer._divide(plan, 2)
        together = call(x, slice(None), of)
        layer._divide("alone", 1)
        for i, (got, want) in enumerate(zip(together, zip(*alone, strict=True), strict=True)):
            np.testing.assert_array_equal(got, np.concatenate(want, axis if i == 0 else 1))


@pytest.mark.parametrize("plan", ("units", "pipeline"))
def test_streams_step_in_every_plan(rng, plan):
    layer = make("LSTM", 7, 90, 2)
    x = rng.standard_normal((20, 7)).astype(np.float32)
    wanted = layer(x)[0]
    layer._divide(plan, 3)
    stream = layer.stream()
    np.testing.assert_array_equal([stream.step(row) for row in x], wanted)


def test_a_projection_as_wide_as_h_is_not_divided_by_units(rng):
    """torch refuses such a layer, but its weights make sense."""
    layer = make("LSTM", 5, 200, proj_size=200, threads=1)
    x = rng.standard_normal((20, 1, 5)).astype(np.float32)
    wanted = run(layer, x)
    layer._divide("units", 2)
    for got, want in zip(run(layer, x), wanted, strict=True):
        np.testing.assert_array_equal(got, want)
    assert layer._operator.plan(20, 1, False, 2, 150, 1)["division"] == "alone"


def test_rows_with_lengths_are_divided_by_their_sum(rng):
    """One long row and many short ones: each slice has its own rows, and every bit is right."""
    layer = make("GRU", 5, 40, threads=1)
    x = rng.standard_normal((200, 24, 5)).astype(np.float32)
    lengths = [200, *rng.integers(1, 10, 23)]
    wanted = run(layer, x, lengths)
    layer._divide("rows", 3)
    for got, want in zip(run(layer, x, lengths), wanted, strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.skipif(
    not ON_LINUX or os.uname().machine != "x86_64",
    reason="the number is of Linux, x86-64",
)
def test_no_bit_depends_on_how_the_caller_rounds():
    """Nor on how whoever started the workers did."""
    script = """
import ctypes, numpy as np, fastrnn
random = np.random.default_rng(0)
weights = {f"weight_{name}_l0": random.uniform(-0.1, 0.1, (512, 128)) for name in ("ih", "hh")}
alone = fastrnn.LSTM.from_state_dict(weights, threads=1)
both = fastrnn.LSTM.from_state_dict(weights)
both._divide("units", 2)
x = random.standard_normal((20, 1, 128)).astype(np.float32)
wanted = alone(x)[0]
libm, UPWARD = ctypes.CDLL("libm.so.6"), 0x800
assert libm.fesetround(UPWARD) == 0
got = [both(x)[0] for _ in range(20)] + [alone(x)[0]]
assert np.float64(1) + np.float64(2.0**-60) > 1
assert libm.fesetround(0) == 0
got += [both(x)[0] for _ in range(20)]
print(sum(not np.array_equal(output, wanted) for output in got))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=TIMEOUT, check=True)
    assert done.stdout == b"0\n"


# ---------------------------------------------------------------- the team


@has_team
@settings(max_examples=50, deadline=None)
@given(st.integers(0, 6), st.integers(1, 9), st.sampled_from([1, 2, 3, 4, 5, 200]))
def test_every_slice_runs_once_and_after_the_phase_before(phases, slices, threads):
    begun, done, early = [], [], []

    def work(phase, slice):
        begun.append((phase, slice))
        if sum(earlier < phase for earlier, _ in done) < phase * slices:
            early.append((phase, slice))
        done.append((phase, slice))

    team.share_function(work, phases, slices, threads)
    assert sorted(begun) == [(phase, slice) for phase in range(phases) for slice in range(slices)]
    assert early == []


@has_team
@pytest.mark.parametrize("threads", (2, 3, 6))
def test_slices_of_a_phase_run_at_the_same_time(threads):
    """Each waits for all the others, which a thread that runs two of them could not do."""
    meeting, members = threading.Barrier(threads, timeout=TIMEOUT), []

    def work(phase, slice):
        meeting.wait()
        members.append(threading.get_native_id())

    team.share_function(work, 3, threads, threads, longest=1e12)  # nobody is taken for held up
    assert len(members) == 3 * threads
    assert len(set(members)) == threads
    assert threading.get_native_id() in members


@has_team
def test_a_second_caller_runs_alone():
    seconds, before = [], team.jobs()

    def second(phase, slice):
        seconds.append(threading.current_thread())

    def first(phase, slice):
        if slice == 0:
            caller = threading.Thread(target=team.share_function, args=(second, 3, 2, 2))
            caller.start()
            caller.join(TIMEOUT)
            assert seconds == [caller] * 6
            assert team.jobs() == before + 1

    team.share_function(first, 1, 2, 2, longest=1e12)


# ---------------------------------------------------------------- planning


@pytest.fixture
def wide_kernels(monkeypatch):
    """Kernels that make about 70 products in a nanosecond: the plans below are theirs."""
    monkeypatch.delenv("FASTRNN_ISA", raising=False)
    if not {"avx2", "avx512"}.intersection(backends.SIMD_TABLES):
        pytest.skip("narrower kernels have other plans")


@pytest.mark.parametrize(
    "kind, size, layers, bidirectional, T, B, lengths, wanted",
    [
        ("LSTM", 16, 1, False, 100, 1, False, "alone"),
        ("LSTM", 64, 1, False, 1, 1, False, "alone"),
        ("LSTM", 128, 1, False, 1, 1, False, "alone"),
        ("LSTM", 1024, 1, False, 1, 1, False, "units"),
        ("LSTM", 256, 1, False, 100, 1, False, "units"),
        ("LSTM", 512, 1, False, 100, 1, False, "units"),
        ("LSTM", 256, 1, False, 100, 32, True, "rows"),
        ("LSTM", 64, 3, False, 1000, 1, False, "pipeline"),
        ("LSTM", 64, 1, True, 1000, 1, False, "direction"),
        ("LSTM", 256, 1, True, 100, 1, True, "direction"),
    ],
)
def test_the_cost_model_picks_what_pays(
    wide_kernels, kind, size, layers, bidirectional, T, B, lengths, wanted
):
    engine = make(kind, size, size, layers, bidirectional)._operator
    assert engine.plan(T, B, lengths, 2, 150, 1)["division"] == wanted
    alone = engine.plan(T, B, lengths, 1, 150, 1)
    assert (alone["division"], alone["slices"]) == ("alone", 1)


@pytest.mark.parametrize(
    "size, phase_ns, slowdown, wanted",
    [(64, 150, 1, "units"), (64, 500, 1, "alone"), (256, 500, 1, "units"), (256, 50, 2, "alone")],
)
def test_the_cost_model_knows_what_sharing_costs(wide_kernels, size, phase_ns, slowdown, wanted):
    """Cores that are far apart are for long steps, and two threads of one core for none."""
    assert make("LSTM", size, size)._operator.plan(100, 1, False, 2, phase_ns, slowdown)["division"] == wanted


@has_team
@pytest.mark.skipif(team.cores() < 2, reason="one core has no sharing cost")
def test_the_sharing_cost_is_measured():
    """Sooner or later, by a process that does nothing else: other work can hold up a thread for a while."""
    script = """
rnn = fastrnn.RNN.from_state_dict({"weight_ih_l0": np.ones((512, 512)), "weight_hh_l0": np.ones((512, 512))})
rnn._divide("units", 2)
x = np.ones((100, 1, 512), np.float32)
print(*team.sharing_cost(2))
cost = (0, 0)
while cost == (0, 0):
    rnn(x)
    cost = team.sharing_cost(2)
print(*cost, *team.sharing_cost(3))
"""
    *before, phase_ns, slowdown, other_phase_ns, other_slowdown = map(float, child(script))
    assert before == [other_phase_ns, other_slowdown] == [0, 0]
    assert phase_ns > 0
    assert slowdown >= 1


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_shape_that_was_seen_allocates_nothing_whatever_sharing_costs(data):
    """The memory of a plan is within what is kept for all of them."""
    engine = make(
        data.draw(st.sampled_from(KINDS)), 64, data.draw(st.sampled_from([16, 64, 200, 512])),
        data.draw(st.integers(1, 3)), data.draw(st.booleans()),
    )._operator  # fmt: skip
    T, B = data.draw(st.sampled_from([1, 3, 100, 1000])), data.draw(st.sampled_from([1, 4, 33]))
    is_ragged, most = data.draw(st.booleans()), data.draw(st.integers(1, 5))
    threads, phase_ns = data.draw(st.integers(1, most)), data.draw(st.floats(0, 2000))
    assert engine.plan(T, B, is_ragged, threads, phase_ns, 1)["bytes"] <= engine.room(T, B, is_ragged, most)


# ---------------------------------------------------------------- who may use how many


def child(script, **environment):
    modules = "import fastrnn, os, sys, threading\nimport numpy as np\n"
    modules += "from fastrnn.engine.threads import team\n"
    result = subprocess.run(
        [sys.executable, "-c", modules + script],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


LAYER = """
def layer(threads=None):
    random = np.random.default_rng(0)
    shapes = {"weight_ih": (800, 30), "weight_hh": (800, 200), "bias_ih": (800,), "bias_hh": (800,)}
    return fastrnn.LSTM.from_state_dict(
        {name: random.uniform(-.1, .1, shape).astype(np.float32) for name, shape in shapes.items()},
        threads=threads)
x = np.random.default_rng(1).standard_normal((300, 1, 30)).astype(np.float32)
wanted = layer(1)(x)[0]
shared = layer()
shared._divide("units", 2)
def is_right(layer): return np.array_equal(layer(x)[0], wanted)
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity here")
def test_the_affinity_of_the_caller_counts():
    script = (
        LAYER
        + """
assert is_right(shared)
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
print(team.cores(), is_right(shared))
"""
    )
    assert child(script) == ["1", "True"]


MEETING = f"""
import ctypes
where = ctypes.CDLL(None).sched_getcpu
cores = os.sched_getaffinity(0)
def meet(at_the_meeting=lambda: None, longest=1e10):
    "Two slices that run at the same time: what the worker does there, and its native id."
    meeting, ids = threading.Barrier(2, timeout={TIMEOUT}), []
    def work(phase, slice):
        meeting.wait()
        if slice == 1:
            ids.append(threading.get_native_id())
            at_the_meeting()
    team.share_function(work, 1, 2, 2, longest)
    return ids[0]
"""
can_place = pytest.mark.skipif(
    not ON_LINUX or team.cores() < 2, reason="one core, or no way to put a thread on one"
)


@can_place
def test_a_worker_leaves_the_core_of_the_caller():
    """Unless the kernel moves the caller first; so it is put there until it leaves."""
    script = (
        MEETING
        + """
worker = meet()
affinity = cores
while len(affinity) != 1 or core in affinity:
    core = where()
    os.sched_setaffinity(worker, {core})
    for _ in range(3):
        meet()
    affinity = os.sched_getaffinity(worker)
print("left")
"""
    )
    assert child(script) == ["left"]


@can_place
def test_a_worker_that_is_held_up_is_fetched():
    """In the middle of a slice: it goes on once the caller has let it go anywhere.

    soak_threads.py does so with a core that another process keeps busy.
    """
    script = (
        MEETING
        + """
def wait_for_the_caller():
    os.sched_setaffinity(0, {max(cores)})
    while os.sched_getaffinity(0) != cores:
        pass
meet(wait_for_the_caller, longest=0)
print("fetched")
"""
    )
    assert child(script) == ["fetched"]


# ---------------------------------------------------------------- forks, threads, ends


def test_the_first_call_of_a_process_is_right():
    """Workers that are there before the others run nothing of a job that has not begun."""
    script = """
spec = {"weight_ih": (16, 5), "weight_hh": (16, 16)}
random = np.random.default_rng(0)
rnn = fastrnn.RNN.from_state_dict(
    {name: random.uniform(-.3, .3, shape) for name, shape in spec.items()}, nonlinearity="tanh")
x = random.standard_normal((2, 40, 5)).astype(np.float32)
rnn._divide("alone", 1)
wanted = rnn(x)[0]
rnn._divide("rows", 8)
print(np.array_equal(rnn(x)[0], wanted))
"""
    assert [child(script) for _ in range(3)] == [["True"]] * 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_has_threads_of_its_own():
    script = (
        LAYER
        + """
assert is_right(shared)
for _ in range(20):
    pid = os.fork()
    if pid == 0:
        os._exit(0 if is_right(shared) and is_right(shared) else 1)
    assert is_right(shared)
    assert os.waitpid(pid, 0)[1] == 0
print("done")
"""
    )
    assert child(script) == ["done"]


def test_many_callers_and_forks_without_a_wrong_bit():
    soak = Path(__file__).with_name("soak_threads.py")
    command = [sys.executable, soak, "--forks", "40"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=2 * TIMEOUT)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.endswith("wrong: none\n")


@pytest.mark.skipif(not ON_LINUX, reason="only Linux tells whether a thread sleeps")
def test_workers_of_an_idle_process_sleep():
    script = (
        LAYER
        + """
assert is_right(shared)
others = [task for task in os.listdir("/proc/self/task") if int(task) != os.getpid()]
def is_asleep(task): return open(f"/proc/self/task/{task}/stat").read().rpartition(")")[2].split()[0] == "S"
while not all(map(is_asleep, others)):
    pass
print(len(others))
"""
    )
    assert child(script, OPENBLAS_NUM_THREADS="1") == ["1"]


def test_the_interpreter_ends_while_threads_wait():
    script = (
        LAYER
        + """
called = threading.Event()
def call():
    while True:
        shared(x)
        called.set()
threading.Thread(target=call, daemon=True).start()
called.wait()
print("end")
"""
    )
    assert child(script) == ["end"]


@pytest.mark.skipif(os.name == "nt", reason="no such signal here")
def test_an_interrupt_leaves_the_team_usable():
    script = (
        LAYER
        + """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests may ignore it
def interrupt(begun):
    begun.wait()
    os.kill(os.getpid(), signal.SIGINT)
hits = 0
for _ in range(20):
    begun = threading.Event()
    threading.Thread(target=interrupt, args=(begun,)).start()
    try:
        while True:
            begun.set()
            shared(x)
    except KeyboardInterrupt:
        hits += 1
    assert is_right(shared)
print(hits)
"""
    )
    assert child(script) == ["20"]


@pytest.fixture
def blas():
    """The functions that get and set the threads of SciPy's BLAS, which has two of them during the test."""
    addresses = openblas_of_scipy()
    if addresses is None:
        pytest.skip("SciPy has another BLAS")
    get = ctypes.CFUNCTYPE(ctypes.c_int)(addresses[0])
    set_to = ctypes.CFUNCTYPE(None, ctypes.c_int)(addresses[1])
    before = get()
    set_to(2)
    yield get, set_to
    set_to(before)


def test_blas_has_one_thread_while_layers_run(rng, blas):
    """From the first call that begins to the last one that ends: so the numbers that are set alternate."""
    from fastrnn.engine.blas.kernels import hold_threads

    get, set_to = blas
    numbers = []

    @ctypes.CFUNCTYPE(None, ctypes.c_int)
    def set_and_note(number):
        set_to(number)
        numbers.append(get())

    layer = make("GRU", 8, 64, backend="blas", threads=1)
    x = rng.standard_normal((300, 8)).astype(np.float32)
    callers = [threading.Thread(target=lambda: [layer(x) for _ in range(20)]) for _ in range(3)]
    hold_threads(openblas_of_scipy()[0], ctypes.cast(set_and_note, ctypes.c_void_p).value)
    try:
        layer(x)
        assert numbers == [1, 2]
        for thread in callers:
            thread.start()
        for thread in callers:
            thread.join()
    finally:
        hold_threads(*openblas_of_scipy())
    assert numbers == [1, 2] * (len(numbers) // 2)
    assert get() == 2


def test_linear_divides_rows(rng):
    weight = rng.standard_normal((300, 400)).astype(np.float32)
    x = rng.standard_normal((501, 400)).astype(np.float32)
    alone = fastrnn.Linear.from_state_dict({"weight": weight}, threads=1)(x)
    for threads in (2, 3):
        shared = fastrnn.Linear.from_state_dict({"weight": weight}, threads=threads)
        np.testing.assert_array_equal(shared(x), alone)
