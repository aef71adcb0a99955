"""How many cores a call may use: what the user, the environment and the system's control group allow."""

import glob
import importlib.util
import math
import os
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

from fastrnn._threads import cores, limit_cores
from fastrnn.errors import check_threads, message

GROUP = Path("/sys/fs/cgroup")


def pick_threads(where: str, threads: object) -> int:
    """Return the most threads that a layer's calls may use: what is asked for, or the cores there are.

    The environment variable FASTRNN_NUM_THREADS caps what is asked for.

    Raises
    ------
    TypeError, ValueError
        ``threads`` or FASTRNN_NUM_THREADS is no whole number of at least 1.
    """
    wanted = check_threads(where, threads)
    most = cores() if wanted is None else wanted
    text = os.environ.get("FASTRNN_NUM_THREADS")
    if not text:
        return most
    if not text.strip().isdigit() or int(text) < 1:
        raise ValueError(message("FASTRNN_NUM_THREADS", "a whole number of at least 1", repr(text)))
    return min(most, int(text))


def group_cores(group: Path = GROUP) -> int:
    """The cores' worth of time that a control group of Linux grants the process; 0: no limit.

    Source: https://docs.kernel.org/admin-guide/cgroup-v2.html (cpu.max), and cpu.cfs_quota_us of version 1.
    """
    try:
        quota, period = (group / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (group / "cpu" / "cpu.cfs_quota_us").read_text()
            period = (group / "cpu" / "cpu.cfs_period_us").read_text()
        except OSError:
            return 0
    try:
        return max(0, math.ceil(int(quota) / int(period)))
    except (ValueError, ZeroDivisionError):  # "max": no limit
        return 0


limit_cores(group_cores())


class BlasThreads:
    """SciPy's BLAS on one thread for as long as anybody is inside, since the drivers divide the work.

    Where its setter is not found, `is_known` is False and nothing happens.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before = 1
        self._library = _openblas_of_scipy()
        self.is_known = self._library is not None

    def __enter__(self) -> None:
        if self._library is None:
            return
        with self._lock:
            if self._inside == 0:
                self._before = self._library.scipy_openblas_get_num_threads()
                if self._before != 1:
                    self._library.scipy_openblas_set_num_threads(1)
            self._inside += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._library is None:
            return
        with self._lock:
            self._inside -= 1
            if self._inside == 0 and self._before != 1:
                self._library.scipy_openblas_set_num_threads(self._before)


def _openblas_of_scipy() -> Any:
    """The OpenBLAS that SciPy's wheels bring, which is loaded already with scipy.linalg; or None."""
    import ctypes

    spec = importlib.util.find_spec("scipy")
    package = os.path.dirname(spec.origin) if spec is not None and spec.origin else ""
    for folder in (f"{package}.libs", os.path.join(package, ".dylibs")):
        for path in glob.glob(os.path.join(glob.escape(folder), "*openblas*")):
            try:
                library = ctypes.CDLL(path)
                library.scipy_openblas_set_num_threads.argtypes = [ctypes.c_int]
                library.scipy_openblas_get_num_threads.restype = ctypes.c_int
            except (OSError, AttributeError):
                continue
            return library
    return None
