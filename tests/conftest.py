"""What every test may ask for."""

import os

# Small products from many tests: BLAS threads only get in each other's way. Before NumPy loads.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import importlib.util
import sys
from pathlib import Path

import helpers
import numpy as np
import pytest
from helpers import random_spec, random_tensors
from hypothesis import settings

import fastrnn
from fastrnn.cli import main

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = Path(__file__).parent / "golden"
MODELS = Path(os.environ.get("FASTRNN_MODELS", Path(__file__).resolve().parents[2] / "shared" / "models"))

# The benchmark is not installed. The root stays off the path: its `fastrnn` is a source tree.
_bench = importlib.util.spec_from_file_location(
    "bench", ROOT / "bench" / "__init__.py", submodule_search_locations=[str(ROOT / "bench")]
)
sys.modules["bench"] = importlib.util.module_from_spec(_bench)

settings.register_profile("fastrnn", deadline=None, print_blob=True)
settings.load_profile("fastrnn")


class Random(np.random.Generator):
    """A generator that tells its seed where a failing test prints it."""

    def __init__(self, seed):
        super().__init__(np.random.PCG64(seed))
        self.seed = seed

    def __repr__(self):
        return f"Random(seed={self.seed})"


@pytest.fixture(autouse=True, scope="session")
def elsewhere(tmp_path_factory):
    """Tests, and the processes that they start, run in a folder of their own."""
    before = os.getcwd()
    os.chdir(tmp_path_factory.mktemp("elsewhere"))
    yield
    os.chdir(before)


@pytest.fixture
def rng(request):
    """Random numbers from a seed of the test's own, or from FASTRNN_SEED."""
    seed = os.environ.get("FASTRNN_SEED", sum(map(ord, request.node.nodeid)))
    return Random(int(seed))


@pytest.fixture
def stack(rng):
    """The tensors of an LSTM of two layers."""
    return random_tensors(rng, random_spec("lstm", 3, 4, num_layers=2), np.float32)


@pytest.fixture
def golden():
    """The folder of recorded torch outputs and files."""
    return GOLDEN


@pytest.fixture
def models():
    """The folder of real trained models; its tests are skipped where it is missing."""
    if not MODELS.is_dir():
        pytest.skip(f"no folder of real models at {MODELS}")
    return MODELS


@pytest.fixture
def run(capsys):
    """Run a command of the command line; give its status, stdout and stderr."""

    def call(*arguments):
        status = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


@pytest.fixture
def model(rng, tmp_path):
    """A float32 model of 3 features in and 2 out, saved as model.safetensors."""
    weights = {"weight": rng.standard_normal((2, 6)), "bias": rng.standard_normal(2)}
    model = fastrnn.Sequential(
        helpers.random_layer(rng, "LSTM", 3, 6, precision="float32"), fastrnn.Linear.from_state_dict(weights)
    )
    model.save(tmp_path / "model.safetensors")
    return model
