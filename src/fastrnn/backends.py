"""Which backend runs a layer, and what `show_config` tells of it."""

import platform

import numpy as np

from fastrnn._version import __version__
from fastrnn.errors import BACKENDS, check_choice


def pick_backend(where, backend, dtype):
    """Return the table of operations of a backend ("auto", "blas") for a dtype."""
    check_choice(where, "backend", backend, BACKENDS)
    # Imported late: it brings scipy.linalg, most of the time of a cold start.
    from fastrnn._blas import TABLES

    return TABLES[np.dtype(dtype).name]


def config():
    """What was picked on this machine, and why, as a dict of texts."""
    return {
        "fastrnn": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "machine": f"{platform.system()} {platform.machine()}",
        "backend": "blas, the one that is built",
        "blas": "scipy.linalg.cython_blas, loaded with the first layer; "
        "its threads are its own (OPENBLAS_NUM_THREADS)",
    }


def show_config():
    """Print what was picked on this machine, and why."""
    for name, value in config().items():
        print(f"{name}: {value}")
