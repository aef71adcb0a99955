"""``python -m bench models``: whole models beside other engines. No test looks at a time."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from bench import programs  # noqa: E402
from bench.__main__ import main  # noqa: E402
from bench.models import WHOLE_MODELS, WholeModel  # noqa: E402
from fastrnn.benchmark.engines import Job  # noqa: E402


class Small(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.head = torch.nn.LSTM(3, 8), torch.nn.Linear(8, 2)

    def forward(self, x, state):
        y, state = self.lstm(x, state)
        return self.head(y).argmax(-1), state


SMALL = WholeModel(
    "small", Small, lambda: (torch.randn(4, 1, 3), (torch.zeros(1, 1, 8), torch.ones(1, 1, 8))), 1.1
)


class Wrong(programs.Torch):
    name = "wrong"

    def build(self, work):
        job = super().build(work)
        return Job(job.call, lambda: job.output() + 1)


def test_engines_compute_the_same():
    """In a process of their own: engines that were loaded change what signals do to the one they are in."""
    here = Path(__file__).parent
    script = f"""
import json, sys
sys.path += [{str(here)!r}, {str(here.parent)!r}]  # the installed package comes first
from test_bench_models import SMALL, programs
result = programs.run([SMALL], rounds=1)
programs.print_result(json.loads(json.dumps(result)))
(entry,) = result["models"]
for engine in programs.PEERS:
    if engine.is_installed():
        assert entry["engines"][engine.name]["difference"] < 1e-5
assert entry["ratio"] > 0 and abs(result["geometric_mean"] - entry["ratio"]) < 1e-9
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=here)
    assert result.returncode == 0, result.stderr
    assert "small" in result.stdout


def test_a_wrong_peer_gets_no_time(monkeypatch, capsys):
    monkeypatch.setattr(programs, "PEERS", (Wrong(),))
    result = programs.run([SMALL], rounds=1)
    assert "microseconds" not in result["models"][0]["engines"]["wrong"]
    assert result["models"][0]["ratio"] is None and result["geometric_mean"] is None
    programs.print_result(result)
    assert "away from ours (small)" in capsys.readouterr().out


def test_a_model_is_the_same_in_every_process():
    first, second = (SMALL.make() for _ in range(2))
    assert torch.equal(first[0].head.weight, second[0].head.weight)
    assert torch.equal(first[1][0], second[1][0])


def test_models_have_names_and_targets():
    names = [model.name for model in WHOLE_MODELS]
    assert len(set(names)) == len(names) == 10 and all(model.target >= 1 for model in WHOLE_MODELS)


@pytest.mark.parametrize(
    "model", [m for m in WHOLE_MODELS if "DeepSpeech" not in m.name], ids=lambda m: m.name
)
def test_models_run_in_torch(model):
    module, args = model.make()
    with torch.inference_mode():
        results = torch.utils._pytree.tree_leaves(module(*args))
    assert all(np.isfinite(result.numpy()).all() for result in results)


def test_unknown_models_are_refused(capsys):
    assert main(["models", "--only", "nothing like it"]) == 2
    assert "bench/models.py has them all" in capsys.readouterr().err
