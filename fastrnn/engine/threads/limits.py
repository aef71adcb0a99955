"""How many cores a call may use: what the user, the environment and the system's control group allow."""

import math
import os
from pathlib import Path

from fastrnn.checks import check_threads
from fastrnn.engine.threads.team import cores, limit_cores
from fastrnn.errors import message

GROUP = Path("/sys/fs/cgroup")
OWN_GROUP = Path("/proc/self/cgroup")


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
    if not text.strip().isdecimal() or int(text) < 1:
        raise ValueError(message("FASTRNN_NUM_THREADS", "a whole number of at least 1", repr(text)))
    return min(most, int(text))


def group_cores(root: Path = GROUP, own: Path = OWN_GROUP) -> int:
    """The cores' worth of time that control groups of Linux grant the process; 0: no limit.

    The least limit of the process's own group and of the groups around it counts. Source:
    https://docs.kernel.org/admin-guide/cgroup-v2.html (cpu.max), and cpu.cfs_quota_us of version 1.
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
    """The cores that one control group grants; 0: no limit."""
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
