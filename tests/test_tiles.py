"""The tiles of AMX: the system's permission, signals, and other code of the process that uses them too."""

import ctypes
import os
import shlex
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from helpers import random_layer

import fastrnn
from fastrnn.engine import backends

TESTS = Path(__file__).parent
TIMEOUT = 120  # seconds; far more than any of this takes

has_tiles = pytest.mark.skipif("amx" not in backends.SIMD_TABLES, reason="this processor has no AMX")

# A process with narrow layers. `before` and `after` are what it does before and after they are there.
SCRIPT = """
import ctypes, faulthandler, hashlib, threading
import numpy as np
libc = ctypes.CDLL(None, use_errno=True)

class Stack(ctypes.Structure):
    _fields_ = (("at", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))

room = ctypes.create_string_buffer(4096)

def take_a_small_stack(is_taken, is_over):
    "An alternate stack for signals that has no room for tiles, as some libraries give to their threads."
    assert libc.sigaltstack(ctypes.byref(Stack(ctypes.addressof(room), 0, len(room))), None) == 0
    is_taken.set()
    is_over.wait()

class Instruction(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_uint16), ("yes", ctypes.c_uint8), ("no", ctypes.c_uint8), ("k", ctypes.c_uint32)
    )

class Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("at", ctypes.POINTER(Instruction)))

def forbid():
    "The filter of a container: the system call for the permission gives EPERM."
    filter = (Instruction * 6)(
        (0x20, 0, 0, 0), (0x15, 0, 3, 158),      # arch_prctl,
        (0x20, 0, 0, 16), (0x15, 0, 1, 0x1023),  # ARCH_REQ_XCOMP_PERM
        (0x06, 0, 0, 0x50001), (0x06, 0, 0, 0x7FFF0000),
    )
    assert libc.prctl(38, 1, 0, 0, 0) == 0
    assert libc.prctl(22, 2, ctypes.byref(Program(6, filter)), 0, 0) == 0

is_taken, is_over = threading.Event(), threading.Event()
thread = threading.Thread(target=take_a_small_stack, args=(is_taken, is_over))
BEFORE
import fastrnn
random = np.random.default_rng(0)
bits = hashlib.sha256()
x = random.standard_normal((9, 20, 40)).astype(np.float32)
tensors = {
    "weight_ih_l0": random.uniform(-0.1, 0.1, (70, 40)), "weight_hh_l0": random.uniform(-0.1, 0.1, (70, 70))
}
wide = fastrnn.RNN.from_state_dict(tensors)(x)[0]
asked = [fastrnn.engine.backends.config().get("narrow weights")]
for precision in ("bfloat16", "int8", {"recurrent": "int8"}):
    layer = fastrnn.RNN.from_state_dict(tensors, precision=precision, nonlinearity="relu", threads=2)
    bits.update(layer(x)[0])
    for _ in range(3):
        assert np.array_equal(layer(x[:, 3])[0], layer(x)[0][:, 3])
AFTER
fastrnn.show_config()
print(asked[0])
print(bits.hexdigest())
is_over.set()
"""


def child(before="", after="", status=0):
    """What a process prints, line by line; and its errors."""
    script = SCRIPT.replace("BEFORE", before).replace("AFTER", after)
    environment = {name: value for name, value in os.environ.items() if name != "FASTRNN_ISA"}
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=TIMEOUT, env=environment
    )
    assert result.returncode == status, result.stderr
    return result.stdout.splitlines(), result.stderr


@pytest.fixture(scope="module")
def usual():
    return child()[0]


# ---------------------------------------------------------------- permission

REFUSALS = {"a small stack": "thread.start(); is_taken.wait()", "a filter": "forbid()"}


@has_tiles
@pytest.mark.parametrize("refusal", REFUSALS)
def test_without_permission_layers_run_on_the_next_level(usual, refusal):
    """With the same bits; and show_config says so."""
    lines, _ = child(REFUSALS[refusal])
    below = list(backends.SIMD_TABLES)[-2]
    assert f"narrow weights: {below}: the system refused amx to this process" in lines
    assert lines[-1] == usual[-1]


@has_tiles
def test_show_config_does_not_ask(usual):
    """Nor do layers of float32."""
    assert usual[-2].startswith("amx, if the system lets")
    [afterwards] = [line for line in usual if line.startswith("narrow weights")]
    assert afterwards.endswith(
        ("the system lets this process use it", "the system refused amx to this process")
    )


@pytest.mark.skipif(len(backends.SIMD_TABLES) < 2, reason="there is no other level")
@pytest.mark.parametrize("answer", (True, False))
def test_the_system_is_asked_once_and_for_narrow_weights_alone(rng, monkeypatch, answer):
    monkeypatch.delenv("FASTRNN_ISA", raising=False)
    *_, below, widest = backends.SIMD_TABLES
    asked = []
    monkeypatch.setattr(backends, "ASKING", {widest: 0})
    monkeypatch.setattr(backends, "_answers", {})
    monkeypatch.setattr(backends, "may_be_used", lambda isa: asked.append(isa) or answer)
    random_layer(rng, "LSTM", precision="float32")
    backends.config()
    assert asked == []
    for precision in ("int8", "bfloat16", {"input": "int8"}):
        random_layer(rng, "LSTM", precision=precision)
    assert asked == [widest]
    named = backends.config()["narrow weights"]
    assert named.startswith(f"{widest if answer else below}: the system")
    # A cap below it asks nobody.
    monkeypatch.setenv("FASTRNN_ISA", below)
    monkeypatch.setattr(backends, "_answers", {})
    random_layer(rng, "LSTM", precision="int8")
    assert asked == [widest] and "narrow weights" not in backends.config()


@has_tiles
@pytest.mark.parametrize("order", ("before", "after"))
def test_faulthandler_works_beside_tiles(usual, order):
    """It gives the thread an alternate stack, and writes where Python was when the process crashed."""
    lines, _ = child(**{order: "faulthandler.enable()"})
    assert lines == usual
    crash = "faulthandler._sigsegv()"
    before, after = (
        ("faulthandler.enable()", crash) if order == "before" else ("", f"faulthandler.enable(); {crash}")
    )
    _, errors = child(before, after, -signal.SIGSEGV)
    assert "Segmentation fault" in errors and "most recent call first" in errors


@has_tiles
def test_a_small_stack_is_refused_afterwards(usual):
    """To the library that wants it, by Linux: nothing of ours ends."""
    after = """
if "lets" in fastrnn.engine.backends.config()["narrow weights"]:
    small = Stack(ctypes.addressof(room), 0, len(room))
    assert libc.sigaltstack(ctypes.byref(small), None) == -1 and ctypes.get_errno() == 12
    assert np.array_equal(layer(x[:, 3])[0], layer(x)[0][:, 3])
"""
    assert child(after=after)[0] == usual


# ---------------------------------------------------------------- other code


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """tiles.c as a library, where the system lets this process use tiles."""
    if "amx" not in backends.SIMD_TABLES:
        pytest.skip("this processor has no AMX")
    library = tmp_path_factory.mktemp("tiles") / "tiles.so"
    compiler = [*shlex.split(os.environ.get("CC", "cc")), "-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror"]
    try:
        subprocess.run([*compiler, "-shared", "-fPIC", TESTS / "tiles.c", "-o", library], check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no compiler that knows tiles")
    library = ctypes.CDLL(library)
    if library.permit() != 0:
        pytest.skip("the system does not let this process use tiles")
    return library


@pytest.fixture(params=("bfloat16", "int8"))
def case(rng, request, monkeypatch):
    """A layer of two threads, an input, and the right output: that of a level without tiles."""
    layers = []
    tensors = dict(random_layer(rng, "RNN", 40, 70, precision="float32").tensors)
    for isa in ("avx512", "amx"):
        monkeypatch.setenv("FASTRNN_ISA", isa)
        options = {"precision": request.param, "nonlinearity": "relu", "threads": 2}
        layers.append(fastrnn.RNN.from_state_dict(tensors, **options))
    x = rng.standard_normal((9, 20, 40)).astype(np.float32)
    return layers[1], x, layers[0](x)[0]


def in_a_thread(function):
    """Call a function in a new thread, and raise what it raises."""
    errors = []

    def call():
        try:
            function()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    for error in errors:
        raise error


def test_other_code_keeps_its_configuration(other, case):
    """Ours is right whatever it had configured, and it finds that again: in this thread and in new ones."""
    layer, x, wanted = case

    def use():
        try:
            for rows in (0, 1, 7, 16, 0, 3):
                other.configure(rows)
                for batch in (20, 1, 17):
                    assert np.array_equal(layer(x[:, :batch])[0], wanted[:, :batch])
                    assert other.is_configured(rows)
        finally:
            other.configure(0)

    use()
    for _ in range(3):
        in_a_thread(use)


def test_handlers_of_signals_may_use_tiles(other, case):
    """The system keeps ours meanwhile."""
    layer, x, wanted = case
    handled = other.times_handled()
    before = signal.getsignal(signal.SIGALRM)
    other.interrupt(100)
    try:
        while other.times_handled() < handled + 300:
            assert np.array_equal(layer(x)[0], wanted)
    finally:
        other.interrupt(0)
        signal.signal(signal.SIGALRM, before)


def test_handlers_in_python_may_call_layers(case):
    layer, x, wanted = case
    found = []
    before = signal.signal(
        signal.SIGALRM, lambda *_: found.append(np.array_equal(layer(x[:, :3])[0], wanted[:, :3]))
    )
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        while len(found) < 50:
            assert np.array_equal(layer(x)[0], wanted)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert all(found)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_children_of_a_fork_have_tiles(other, case):
    """Also where a fork leaves them without the configuration that other code of the thread had."""
    layer, x, wanted = case
    for rows in (0, 5):
        other.configure(rows)
        pid = os.fork()
        if pid == 0:
            is_right = np.array_equal(layer(x)[0], wanted) and np.array_equal(layer(x[:, 0])[0], wanted[:, 0])
            os._exit(0 if is_right else 1)
        other.configure(0)
        assert os.waitpid(pid, 0)[1] == 0
