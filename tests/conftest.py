"""What every test may ask for."""

import os

# Small products from many tests: BLAS threads only get in each other's way. Before NumPy loads.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from pathlib import Path

import numpy as np
import pytest
from helpers import random_spec, random_tensors
from hypothesis import settings

GOLDEN = Path(__file__).parent / "golden"
MODELS = Path(os.environ.get("FASTRNN_MODELS", Path(__file__).resolve().parents[2] / "shared" / "models"))

settings.register_profile("fastrnn", deadline=None, print_blob=True)
settings.load_profile("fastrnn")


class Random(np.random.Generator):
    """A generator that tells its seed where a failing test prints it."""

    def __init__(self, seed):
        super().__init__(np.random.PCG64(seed))
        self.seed = seed

    def __repr__(self):
        return f"Random(seed={self.seed})"


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
