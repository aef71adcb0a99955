"""Operators of programs give what torch's do, whatever step computes them."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("fastrnn.engine.simd.array_tables")


def test_operators_agree_with_torch():
    """In a process of its own, since pytest slows the import of torch's table of operators."""
    script = Path(__file__).with_name("lowered.py")
    result = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-5000:]
    agreed, *refused = result.stdout.split()
    assert int(agreed) > 4000
    assert set(refused) <= {
        "argwhere",
        "bincount",
        "nonzero",
        "nonzero_numpy",
        "repeat_interleave",
        "tensor_split",
    }
