"""Threads: the same bits in every plan, whoever calls, and nothing left behind."""

import ctypes
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastrnn
from fastrnn.engine.blas.openblas import openblas_of_scipy
from fastrnn.engine.threads import team
from fastrnn.engine.threads.limits import group_cores, pick_threads
from fastrnn.operators.recurrent import DIVISIONS
from fastrnn.spec import RecurrentSpec

KINDS = ("LSTM", "GRU", "RNN")


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


@pytest.mark.skipif(team.cores() < 2, reason="one core")
@pytest.mark.parametrize("batch_first", (False, True))
@pytest.mark.parametrize("plan", ("rows", "units", "pipeline"))
def test_work_is_divided_whichever_axis_comes_first(rng, plan, batch_first):
    layer = make("LSTM", 256, 256, 2, batch_first=batch_first)
    x = rng.standard_normal((60, 20, 256)).astype(np.float32)
    layer._divide(plan, 2)
    own, everyone = time.thread_time(), time.process_time()
    assert any(
        layer(x) and time.process_time() - everyone > 1.1 * (time.thread_time() - own) for _ in range(50)
    )


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


def test_a_projection_as_wide_as_h_is_not_divided_by_panels(rng):
    """torch refuses such a layer, but its weights make sense."""
    layer = make("LSTM", 5, 200, proj_size=200, threads=1)
    x = rng.standard_normal((20, 1, 5)).astype(np.float32)
    wanted = run(layer, x)
    layer._divide("units", 2)
    for got, want in zip(run(layer, x), wanted, strict=True):
        np.testing.assert_array_equal(got, want)
    assert layer._operator.plan(20, 1, False, 2, 150, 1)[0] == "alone"


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
    not sys.platform.startswith("linux") or os.uname().machine != "x86_64",
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
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=60, check=True)
    assert done.stdout == b"0\n"


# ---------------------------------------------------------------- planning


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
def test_the_cost_model_picks_what_pays(kind, size, layers, bidirectional, T, B, lengths, wanted):
    engine = make(kind, size, size, layers, bidirectional)._operator
    assert engine.plan(T, B, lengths, 2, 150, 1)[0] == wanted
    assert engine.plan(T, B, lengths, 1, 150, 1)[:2] == ("alone", 1)


@pytest.mark.parametrize(
    "size, phase, work, wanted",
    [(64, 150, 1, "units"), (64, 500, 1, "alone"), (256, 500, 1, "units"), (256, 50, 2, "alone")],
)
def test_the_cost_model_knows_what_company_costs(size, phase, work, wanted):
    """Cores that are far apart are for long steps, and two threads of one core for none."""
    assert make("LSTM", size, size)._operator.plan(100, 1, False, 2, phase, work)[0] == wanted


@pytest.mark.skipif(team.cores() < 2, reason="one core is never in company")
def test_what_company_costs_is_tried_out():
    """By a process that runs nothing else; other work may hold up a thread for a while."""
    script = """
import time, fastrnn, numpy as np
from fastrnn.engine.threads import team
assert team.tried(2) == (0, 0)
rnn = fastrnn.RNN.from_state_dict({"weight_ih_l0": np.ones((512, 512)), "weight_hh_l0": np.ones((512, 512))})
rnn._divide("units", 2)
x, end, told = np.ones((100, 1, 512), np.float32), time.monotonic() + 60, (0, 0)
while told == (0, 0) and time.monotonic() < end:
    rnn(x)
    told = team.tried(2)
assert team.tried(3) == (0, 0)
print(*told)
"""
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=90, check=True).stdout
    phase, work = map(float, told.split())
    assert 1 < phase < 1e6
    assert 1 <= work < 1e3


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
    threads, phase = data.draw(st.integers(1, most)), data.draw(st.floats(0, 2000))
    assert engine.plan(T, B, is_ragged, threads, phase, 1)[2] <= engine.room(T, B, is_ragged, most)


# ---------------------------------------------------------------- who may use how many


def child(script, **environment):
    modules = "import fastrnn, os, subprocess, sys, threading, time\nimport numpy as np\n"
    modules += "from fastrnn.engine.threads import team\n"
    result = subprocess.run(
        [sys.executable, "-c", modules + script],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
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
def workers(): return len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 0
"""


def test_fastrnn_num_threads_caps_and_is_checked(monkeypatch):
    monkeypatch.setenv("FASTRNN_NUM_THREADS", "1")
    assert pick_threads("here", 8) == pick_threads("here", None) == 1
    monkeypatch.delenv("FASTRNN_NUM_THREADS")
    assert pick_threads("here", 8) == 8
    assert pick_threads("here", None) == team.cores()
    monkeypatch.setenv("FASTRNN_NUM_THREADS", "3")
    assert pick_threads("here", 2) == 2
    for wrong in ("0", "-1", "two", "1.5"):
        monkeypatch.setenv("FASTRNN_NUM_THREADS", wrong)
        with pytest.raises(ValueError, match="FASTRNN_NUM_THREADS: expected a whole number"):
            make("LSTM", 3, 4)


def test_a_control_group_limits_the_cores(tmp_path):
    assert group_cores(tmp_path) == 0
    for text, cores in (("max 100000", 0), ("150000 100000", 2), ("50000 100000", 1), ("junk", 0)):
        (tmp_path / "cpu.max").write_text(text)
        assert group_cores(tmp_path) == cores
    (tmp_path / "cpu.max").unlink()
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000")
    for text, cores in (("-1", 0), ("300000", 3)):
        (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(text)
        assert group_cores(tmp_path) == cores
    before = team.cores()
    team.limit_cores(1)
    assert team.cores() == 1
    team.limit_cores(0)
    assert team.cores() == before


def test_the_least_of_nested_control_groups_counts(tmp_path):
    root, own = tmp_path / "cgroup", tmp_path / "own"
    inner = root / "service" / "worker"
    inner.mkdir(parents=True)
    own.write_text("0::/service/worker\n")
    assert group_cores(root, own) == 0
    (root / "service" / "cpu.max").write_text("300000 100000")
    assert group_cores(root, own) == 3
    (inner / "cpu.max").write_text("200000 100000")
    assert group_cores(root, own) == 2
    for text in ("0::/../../elsewhere\n", "junk", "", "4:memory:/service\n"):
        own.write_text(text)
        assert group_cores(root, own) == 0
    version_1 = root / "cpu" / "service"
    version_1.mkdir(parents=True)
    (version_1 / "cpu.cfs_period_us").write_text("100000")
    (version_1 / "cpu.cfs_quota_us").write_text("150000")
    own.write_text("3:cpu,cpuacct:/service\n")
    assert group_cores(root, own) == 2


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


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux lets a thread be placed")
@pytest.mark.skipif(team.cores() < 2, reason="one core")
def test_a_worker_leaves_the_core_of_the_caller_and_is_fetched_from_a_busy_one():
    script = (
        LAYER
        + """
import ctypes
where = ctypes.CDLL(None).sched_getcpu
def place(task): return int(open(f"/proc/self/task/{task}/stat").read().rpartition(")")[2].split()[36])
cores = os.sched_getaffinity(0)
before = set(os.listdir("/proc/self/task"))
assert is_right(shared)
[worker] = [int(task) for task in set(os.listdir("/proc/self/task")) - before]
for attempt in range(1000):
    core = where()
    os.sched_setaffinity(worker, {core})
    right = [is_right(shared) for _ in range(3)]
    assert all(right)
    if len(os.sched_getaffinity(worker)) == 1 and core not in os.sched_getaffinity(worker):
        break
    time.sleep(0.005)  # the caller was moved instead
else:
    print("still there")
# There it stays, until that core turns out to be busy. In the middle of a slice the caller fetches it.
own = os.sched_getaffinity(worker)
hold = f"import os; os.sched_setaffinity(0, {own})"
busy = subprocess.Popen([sys.executable, "-c", hold + "\\nwhile True: pass"])
fetched = freed = 0
try:
    for attempt in range(20000):
        before, core = os.sched_getaffinity(worker), where()
        assert is_right(shared)
        after = os.sched_getaffinity(worker)
        fetched += before == own and after == cores and place(worker) == core == where() and core not in own
        freed += after == cores
        if fetched >= 3 and freed:
            break
        if after == cores:
            os.sched_setaffinity(worker, own)
    else:
        print(fetched, freed)
finally:
    busy.kill()
"""
    )
    assert child(script) == []


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
    result = subprocess.run([sys.executable, soak, "3"], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.endswith("wrong: none\n")


def test_an_idle_process_uses_no_time_of_the_processor():
    script = (
        LAYER
        + """
assert is_right(shared)
time.sleep(0.05)
began = time.process_time()
time.sleep(0.5)
print(time.process_time() - began < 0.1)
"""
    )
    assert child(script) == ["True"]


def test_the_interpreter_ends_while_threads_wait():
    script = (
        LAYER
        + """
threading.Thread(target=lambda: [is_right(shared) for _ in range(5)], daemon=True).start()
time.sleep(0.02)
print("end")
"""
    )
    assert child(script) == ["end"]


def test_an_interrupt_leaves_the_pool_usable():
    script = (
        LAYER
        + """
import signal
signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
hits = 0
for _ in range(20):
    signal.setitimer(signal.ITIMER_REAL, 0.003)
    try:
        while True:
            shared(x)
    except KeyboardInterrupt:
        hits += 1
    assert is_right(shared)
print(hits)
"""
    )
    if not hasattr(os, "fork"):
        pytest.skip("no alarm here")
    assert child(script) == ["20"]


@pytest.fixture
def blas_threads():
    """How many threads SciPy's BLAS has; two meanwhile, and behind the test as before."""
    addresses = openblas_of_scipy()
    if addresses is None:
        pytest.skip("SciPy has another BLAS")
    get = ctypes.CFUNCTYPE(ctypes.c_int)(addresses[0])
    set_to = ctypes.CFUNCTYPE(None, ctypes.c_int)(addresses[1])
    before = get()
    set_to(2)
    yield get
    set_to(before)


def test_blas_has_one_thread_while_a_layer_runs(rng, blas_threads):
    layer = make("GRU", 8, 64, backend="blas", threads=1)
    x = rng.standard_normal((300, 8)).astype(np.float32)
    is_over = threading.Event()
    callers = [threading.Thread(target=lambda: [layer(x) for _ in range(20)]) for _ in range(3)]
    seen = set()

    def watch():
        while not is_over.is_set():
            seen.add(blas_threads())

    assert blas_threads() == 2
    watcher = threading.Thread(target=watch)
    for thread in (watcher, *callers):
        thread.start()
    for thread in callers:
        thread.join()
    is_over.set()
    watcher.join()
    # While a layer runs the watcher hardly ever has the GIL but then; 2 is what it sees before and behind.
    assert seen <= {1, 2} and 1 in seen
    assert blas_threads() == 2


def test_linear_divides_rows(rng):
    weight = rng.standard_normal((300, 400)).astype(np.float32)
    x = rng.standard_normal((501, 400)).astype(np.float32)
    alone = fastrnn.Linear.from_state_dict({"weight": weight}, threads=1)(x)
    for threads in (2, 3):
        shared = fastrnn.Linear.from_state_dict({"weight": weight}, threads=threads)
        np.testing.assert_array_equal(shared(x), alone)
