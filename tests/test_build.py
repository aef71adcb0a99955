"""The build: if nothing can be compiled, it says so in one sentence."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastrnn.engine import backends

ROOT = Path(__file__).resolve().parents[1]


def build(folder, **environment):
    """Build the modules into a folder."""
    for name in ("setuptools", "Cython"):
        pytest.importorskip(name)
    if not (ROOT / "setup.py").is_file():
        pytest.skip("no setup.py beside the tests")
    command = [sys.executable, "setup.py", "build_ext", "--build-lib", folder, "--build-temp", folder]
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=120
    )


def test_the_simd_backend_was_built():
    """Without it, most tests of the kernels would have nothing to do and pass."""
    assert "baseline" in backends.SIMD_TABLES


@pytest.mark.skipif(sys.platform == "win32", reason="CC names no compiler there")
@pytest.mark.parametrize("compiler", ("/no/such/compiler", "false"))
def test_without_a_compiler_one_sentence_says_so(tmp_path, compiler):
    result = build(tmp_path, CC=compiler)
    assert result.returncode == 1 and list(tmp_path.iterdir()) == []
    last = result.stderr.splitlines()[-1]
    assert last.startswith("fastrnn is compiled as it is installed, and no C compiler works here (")
    assert compiler in last and "install it first (" in last
    assert "Traceback" not in result.stdout + result.stderr and "Cython" not in result.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="CC names no compiler there")
def test_without_the_headers_of_python_one_sentence_says_so(tmp_path):
    """A compiler that only has the C library."""
    compiler = tmp_path / "cc"
    compiler.write_text('#!/bin/sh\ncase "$*" in *Python.h*) exit 1;; esac\n')
    compiler.chmod(0o755)
    result = build(tmp_path / "built", CC=str(compiler))
    assert result.returncode == 1 and not (tmp_path / "built").exists()
    assert "Python's header Python.h is not there (" in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
