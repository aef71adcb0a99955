"""How many cores a call may use: what the user, the environment and control groups say."""

import numpy as np
import pytest

import fastrnn
from fastrnn.engine.threads import team
from fastrnn.engine.threads.limits import group_cores, pick_threads


def test_fastrnn_num_threads_caps_and_is_checked(monkeypatch):
    monkeypatch.setenv("FASTRNN_NUM_THREADS", "1")
    assert pick_threads("here", 8) == pick_threads("here", None) == 1
    monkeypatch.delenv("FASTRNN_NUM_THREADS")
    assert pick_threads("here", 8) == 8
    assert pick_threads("here", None) == team.cores()
    monkeypatch.setenv("FASTRNN_NUM_THREADS", "3")
    assert pick_threads("here", 2) == 2
    for wrong in ("0", "-1", "two", "1.5"):
        monkeypatch.setenv("FASTRNN_NUM_THREADS", wrong)
        with pytest.raises(ValueError, match="FASTRNN_NUM_THREADS: expected a whole number"):
            fastrnn.Linear.from_state_dict({"weight": np.ones((2, 3))})


def test_a_control_group_limits_the_cores(tmp_path):
    assert group_cores(tmp_path) == 0
    for text, cores in (("max 100000", 0), ("150000 100000", 2), ("50000 100000", 1), ("junk", 0)):
        (tmp_path / "cpu.max").write_text(text)
        assert group_cores(tmp_path) == cores
    (tmp_path / "cpu.max").unlink()
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000")
    for text, cores in (("-1", 0), ("300000", 3)):
        (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(text)
        assert group_cores(tmp_path) == cores
    before = team.cores()
    team.limit_cores(1)
    try:
        assert team.cores() == 1
    finally:
        team.limit_cores(group_cores())
    assert team.cores() == before


def test_the_least_of_nested_control_groups_counts(tmp_path):
    root, own = tmp_path / "cgroup", tmp_path / "own"
    inner = root / "service" / "worker"
    inner.mkdir(parents=True)
    own.write_text("0::/service/worker\n")
    assert group_cores(root, own) == 0
    (root / "service" / "cpu.max").write_text("300000 100000")
    assert group_cores(root, own) == 3
    (inner / "cpu.max").write_text("200000 100000")
    assert group_cores(root, own) == 2
    for text in ("0::/../../elsewhere\n", "junk", "", "4:memory:/service\n"):
        own.write_text(text)
        assert group_cores(root, own) == 0
    version_1 = root / "cpu" / "service"
    version_1.mkdir(parents=True)
    (version_1 / "cpu.cfs_period_us").write_text("100000")
    (version_1 / "cpu.cfs_quota_us").write_text("150000")
    own.write_text("3:cpu,cpuacct:/service\n")
    assert group_cores(root, own) == 2
