"""The fork guard: what is called in the child of a fork, and what the team does then."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

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
