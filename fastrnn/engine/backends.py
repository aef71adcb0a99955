"""Which backend runs a layer, and `show_config`, which prints it."""

from __future__ import annotations

import functools
import os
import platform
from _thread import RLock  # that of threading, whose import takes 0.5 ms
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastrnn._version import __version__
from fastrnn.checks import BACKENDS, MATRICES, WIDE, check_choice
from fastrnn.engine.blas.openblas import openblas_of_scipy
from fastrnn.engine.threads.limits import pick_threads
from fastrnn.engine.threads.team import cores
from fastrnn.errors import message, quote

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import DTypeLike

try:
    from fastrnn.engine.simd.tables import ASKING, ISAS, may_be_used
    from fastrnn.engine.simd.tables import PRODUCTS as SIMD_PRODUCTS
    from fastrnn.engine.simd.tables import TABLES as SIMD_TABLES
except ImportError:  # the compiler could not build the simd kernels
    ASKING, ISAS, SIMD_PRODUCTS, SIMD_TABLES = {}, (), {}, {}
try:
    from fastrnn.engine.simd.array_tables import ARRAY_TABLES
except ImportError:
    ARRAY_TABLES = {}


class Backend(NamedTuple):
    """What runs a layer: the products of each of its MATRICES, and the most threads that a call may use."""

    products: tuple[Any, ...]
    threads: int = 1


def pick_backend(
    where: str,
    backend: str,
    dtype: DTypeLike,
    threads: object = None,
    storages: Mapping[str, str] = MappingProxyType({}),
) -> Backend:
    """Return the backend that runs layers of a dtype.

    `storages` names the storage of each of MATRICES whose weights are not kept in that dtype itself.

    "auto" takes "simd" where it is built, and "blas" elsewhere. The instruction set is the widest that the
    processor has. The environment variable FASTRNN_ISA can limit it to a narrower one.

    Raises
    ------
    TypeError
        ``threads`` is not an integer.
    ValueError
        The backend is unknown or not built here, ``threads`` is below 1, or an environment variable
        (FASTRNN_ISA, FASTRNN_NUM_THREADS) has a wrong value. Or the backend lacks one of the storages.
    """
    check_choice(where, "backend", backend, BACKENDS)
    most = pick_threads(where, threads)
    if backend == "simd" and not ISAS:
        hint = 'The compiler could not build its kernels; "blas" is complete.'
        raise ValueError(message(where, "a backend that is built", "simd", hint))
    if backend == "blas" or not ISAS:
        products, is_held = _blas()
        # A BLAS that cannot be held to one thread uses the other cores itself.
        most = most if is_held else 1
    else:
        products = SIMD_PRODUCTS[_isa_of_products(not WIDE.keys() >= set(storages.values()))]
    arithmetic = np.dtype(dtype).name
    return Backend(
        tuple(_products(where, products, arithmetic, storages.get(name, arithmetic)) for name in MATRICES),
        most,
    )


def _products(where: str, products: dict[tuple[str, str], Any], arithmetic: str, storage: str) -> Any:
    if (arithmetic, storage) not in products:
        known = [known for key, known in products if key == arithmetic]
        raise ValueError(message(where, f"weights stored as one of {quote(known)}", repr(storage)))
    return products[arithmetic, storage]


def row_table(dtype: DTypeLike) -> Any:
    """Return the table with the row functions for a dtype. Only simd has them: None where it is not built."""
    return SIMD_TABLES[pick_isa()][np.dtype(dtype).name] if ISAS else None


def array_tables() -> dict[str, Any]:
    """Return the tables of the kernels of arrays, by arithmetic."""
    allowed = ISAS[: ISAS.index(pick_isa()) + 1]
    tables: dict[str, Any] = ARRAY_TABLES[[isa for isa in allowed if isa in ARRAY_TABLES][-1]]
    return tables


def array_table(dtype: DTypeLike) -> Any:
    """Return the table of the kernels of arrays for an arithmetic. None where simd is not built."""
    return array_tables()[np.dtype(dtype).name] if ARRAY_TABLES else None


_loading = RLock()
if hasattr(os, "register_at_fork"):
    # A fork waits while another thread imports the backend. The child, where that thread is gone, could never
    # take its locks, neither this one nor those of Python's imports.
    os.register_at_fork(
        before=_loading.acquire, after_in_parent=_loading.release, after_in_child=_loading.release
    )


def _blas() -> tuple[dict[tuple[str, str], Any], bool]:
    """Return the products of the blas backend, and whether it can hold BLAS to one thread."""
    with _loading:
        return _load_blas()


@functools.cache
def _load_blas() -> tuple[dict[tuple[str, str], Any], bool]:
    # Imported late: it imports scipy.linalg, which takes most of the time of a cold start.
    from fastrnn.engine.blas.kernels import PRODUCTS, hold_threads

    functions = openblas_of_scipy()
    if functions is not None:
        hold_threads(*functions)
    return PRODUCTS, functions is not None


def pick_isa() -> str:
    """Return the widest instruction set of this processor, at most the one that FASTRNN_ISA names."""
    cap = os.environ.get("FASTRNN_ISA") or ISAS[-1]
    if cap not in ISAS:
        raise ValueError(message("FASTRNN_ISA", f"one of {quote(ISAS)}", repr(cap)))
    allowed = ISAS[: ISAS.index(cap) + 1]
    return [isa for isa in allowed if isa in SIMD_TABLES][-1]


# What the system answered when it was asked whether this process may use an instruction set.
_answers: dict[str, bool] = {}


def _isa_of_products(has_narrow: bool) -> str:
    """Return the instruction set of the products: the widest that may be used.

    Only products of narrow weights use what the system has to be asked for. It is asked once.
    """
    isa = pick_isa()
    if has_narrow and isa in ASKING and isa not in _answers:
        _answers[isa] = may_be_used(isa)
    return isa if not has_narrow or _answers.get(isa, True) else _next_below(isa)


def _next_below(isa: str) -> str:
    return [other for other in ISAS[: ISAS.index(isa)] if other in SIMD_TABLES][-1]


def config() -> dict[str, str]:
    """Return what was picked on this machine, and why: names and texts."""
    picked = {"backend": "blas: the compiler could not build the kernels of simd"}
    if ISAS:
        missing = [isa for isa in ISAS if isa not in SIMD_TABLES]
        cap = os.environ.get("FASTRNN_ISA")
        picked = {
            "backend": f"simd, with {pick_isa()}: "
            + (
                f"FASTRNN_ISA={cap}" if cap in SIMD_TABLES else "the widest instruction set of this processor"
            ),
            "instruction sets": f"{quote(SIMD_TABLES)}"
            + (f"; this processor lacks {quote(missing)}" if missing else ""),
            **_narrow_weights(),
        }
    return {
        "fastrnn": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "machine": f"{platform.system()} {platform.machine()}",
        **picked,
        "threads": f"at most {_threads()}",
        "blas": "scipy.linalg.cython_blas, loaded with the first layer that asks for it; "
        "on one thread while a layer runs, which divides its work itself",
    }


def _narrow_weights() -> dict[str, str]:
    """Return what runs narrow weights, where the system has a say in it. It is not asked here."""
    isa = pick_isa()
    if isa not in ASKING:
        return {}
    if isa not in _answers:
        reason = "if the system lets this process use it, which the first layer with such weights asks"
        return {"narrow weights": f"{isa}, {reason}"}
    if _answers[isa]:
        return {"narrow weights": f"{isa}: the system lets this process use it"}
    return {"narrow weights": f"{_next_below(isa)}: the system refused {isa} to this process"}


def _threads() -> str:
    cap, most = os.environ.get("FASTRNN_NUM_THREADS"), pick_threads("FASTRNN_NUM_THREADS", None)
    reason = f"FASTRNN_NUM_THREADS={cap}" if most < cores() else "the cores that this process may use"
    return f"{most}: {reason}"


def show_config() -> None:
    """Print what fastrnn picked on this machine, and why.

    This is the backend, the instruction set, the number of threads, and the versions of fastrnn, Python and
    NumPy.

    Raises
    ------
    ValueError
        FASTRNN_ISA or FASTRNN_NUM_THREADS has a wrong value.
    """
    for name, value in config().items():
        print(f"{name}: {value}")
