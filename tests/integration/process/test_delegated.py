"""The process backend of an ordinary user in a delegated cgroup of version 2; `scripts/check_cgroup2`
boots a machine for it."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.conftest import require_bwrap
from tests.integration.process.delegated import ROOT

UID = 61235
MIB = 2**20


@pytest.mark.soak
def test_a_user_with_a_delegated_cgroup_has_limits_that_hold_and_leaves_nothing() -> None:
    """Memory, pids and cpus in the kernel's files; kills, refusals, pause, update, a command
    in a cgroup of its own; then no cgroup."""
    if os.geteuid() != 0 or not (ROOT / "cgroup.subtree_control").exists():
        pytest.skip("needs root and cgroup version 2 alone: scripts/check_cgroup2 has both")
    require_bwrap()
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="ringfence-delegated-") as directory:
        done = subprocess.run(
            [sys.executable, "-m", "tests.integration.process.delegated", str(UID), directory],
            cwd=Path(__file__).parents[3],
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    print(told)
    assert {"memory", "swap", "pids", "cpus", "cpu_shares", "cpuset"} <= set(told["limits"])
    assert told["pause"]
    assert told["cgroup"]["memory.max"] == str(64 * MIB)
    assert told["cgroup"]["memory.swap.max"] == "0"
    assert told["cgroup"]["pids.max"] == str(20 + 32)
    assert told["cgroup"]["cpu.max"] == "50000 100000"
    assert told["hog"] >= 1
    oom_kills, forks_refused, memory = told["usage"]
    assert oom_kills >= 1
    assert forks_refused >= 1
    assert memory == 64 * MIB
    kills, in_all, peak = told["measured"]
    assert kills == in_all >= 1
    assert 32 * MIB < peak <= 68 * MIB
    assert (told["paused"], told["resumed"]) == ("paused", "running")
    assert told["updated"] == str(96 * MIB)
    assert told["refused"]
    assert told["alive"] == "alive\n"
    assert told["left"] == []
