"""Which backend runs a layer, and what `show_config` tells of it."""

import platform
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import DTypeLike

from fastrnn._version import __version__
from fastrnn.errors import BACKENDS, check_choice

if TYPE_CHECKING:
    from typing_extensions import CapsuleType


def pick_backend(where: str, backend: str, dtype: DTypeLike) -> "CapsuleType":
    """Return the table of operations of a backend ("auto", "blas") for a dtype."""
    check_choice(where, "backend", backend, BACKENDS)
    # Imported late: it brings scipy.linalg, most of the time of a cold start.
    from fastrnn._blas import TABLES

    return TABLES[np.dtype(dtype).name]


def config() -> dict[str, str]:
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


def show_config() -> None:
    """Print what was picked on this machine, and why: a line of "name: text" for each thing.

    Returns nothing; works before any layer is made.
    """
    for name, value in config().items():
        print(f"{name}: {value}")
