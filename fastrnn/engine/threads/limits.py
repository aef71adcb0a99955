"""How many cores a call may use: what the user, the environment and Linux's control groups allow."""

import math
import os
from pathlib import Path

from fastrnn.checks import check_threads
from fastrnn.engine.threads.team import cores, limit_cores
from fastrnn.errors import message

GROUP = Path("/sys/fs/cgroup")
OWN_GROUP = Path("/proc/self/cgroup")


def pick_threads(where: str, threads: object) -> int:
    """Return the most threads that a layer's calls may use.

    This is ``threads``, or the number of cores if that is None. The environment variable FASTRNN_NUM_THREADS
    is an upper limit for both.

    Raises
    ------
    TypeError
        ``threads`` is not an integer.
    ValueError
        ``threads`` is below 1, or FASTRNN_NUM_THREADS is not a whole number of at least 1.
    """
    wanted = check_threads(where, threads)
    most = cores() if wanted is None else wanted
    text = os.environ.get("FASTRNN_NUM_THREADS")
    if not text:
        return most
    if not text.strip().isdecimal() or int(text) < 1:
        raise ValueError(message("FASTRNN_NUM_THREADS", "a whole number of at least 1", repr(text)))
    return min(most, int(text))


def group_cores(root: Path = GROUP, own: Path = OWN_GROUP) -> int:
    """Return how many cores' worth of time Linux's control groups grant the process. 0: no limit.

    The process's own group and every group that contains it can have a limit. The smallest one counts, as
    a whole number of cores, rounded up. Source: https://docs.kernel.org/admin-guide/cgroup-v2.html (cpu.max),
    and cpu.cfs_quota_us of version 1.
    """
    try:
        lines = own.read_text().splitlines()
    except (OSError, ValueError):
        lines = []
    folders = {root, root / "cpu"}
    for line in lines:
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        top = root if not controllers else root / "cpu"
        if not controllers or "cpu" in controllers.split(","):
            group = top / path.lstrip("/")
            folders.update(folder for folder in (group, *group.parents) if folder.is_relative_to(top))
    limits = [limit for folder in folders if (limit := _group_limit(folder))]
    return min(limits, default=0)


def _group_limit(group: Path) -> int:
    """Return the cores that one control group grants, rounded up. 0: no limit."""
    try:
        quota, period = (group / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (group / "cpu.cfs_quota_us").read_text()
            period = (group / "cpu.cfs_period_us").read_text()
        except (OSError, ValueError):
            return 0
    try:
        return max(0, math.ceil(int(quota) / int(period)))
    except (ValueError, ZeroDivisionError):  # "max": no limit
        return 0


limit_cores(group_cores())
