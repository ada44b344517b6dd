"""The version 2 reader tells what was done in cgroups of a real system, whose files were kept.

`scripts/capture_cgroup2` takes them anew.
"""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from ringfence.backends.cgroups import Cgroup, Tree
from ringfence.metrics import Place, reader_of
from ringfence.spec import Limits, Usage

CAPTURES = sorted((Path(__file__).parent / "captures_v2").glob("*.json"))
NOT_OF_A_CGROUP = {"source", "uptime", "disk_used", "network_received", "network_sent"}


class Capture:
    """One cgroup's files, as they were, in a directory."""

    def __init__(self, name: str, directory: Path) -> None:
        told: dict[str, Any] = json.loads((CAPTURES[0].parent / f"{name}.json").read_text())
        self.did = told["did"]
        self.directory = directory
        for file, text in told["files"].items():
            (directory / file).write_text(text)
        with reader_of({"unified": Place(2, told["cgroup"], str(directory))}) as reader:
            self.usage = reader.read()

    @property
    def cgroup(self) -> Cgroup:
        unified = {"unified": str(self.directory)}
        return Cgroup(Tree(2, unified, frozenset({"memory"})), unified)


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.stem)
def test_every_field_of_a_cgroup_is_found_in_the_files_of_a_real_one(
    path: Path, tmp_path: Path
) -> None:
    usage = Capture(path.stem, tmp_path).usage
    unknown = {one.name for one in fields(Usage) if getattr(usage, one.name) is None}
    unlimited = {"memory_limit"} if usage.memory_limit is None else set()
    assert unknown - NOT_OF_A_CGROUP == unlimited
    parts = (usage.cpu_user_seconds or 0) + (usage.cpu_system_seconds or 0)
    assert usage.cpu_seconds == pytest.approx(parts, abs=1e-5)


def test_processes_and_threads(tmp_path: Path) -> None:
    idle = Capture("idle", tmp_path)
    usage = idle.usage
    assert (usage.processes, usage.threads) == (idle.did["processes"], idle.did["threads"])
    assert usage.pids == idle.did["threads"]
    assert (usage.oom_kills, usage.forks_refused, usage.memory_limit) == (0, 0, None)
    assert (usage.memory_peak or 0) >= (usage.memory or 0) > 0


@pytest.mark.parametrize("name", ["hungry", "parent"])
def test_a_kill_for_memory_is_counted_in_its_cgroup_and_above(name: str, tmp_path: Path) -> None:
    hungry = Capture(name, tmp_path)
    assert hungry.usage.oom_kills == hungry.did["oom_kills"] == 1
    assert (hungry.usage.memory_peak or 0) >= hungry.did["memory_limit"]
    assert hungry.usage.memory_limit == (hungry.did["memory_limit"] if name == "hungry" else None)
    assert 0 < (hungry.usage.cpu_seconds or 0) <= hungry.did["cpu"]
    assert (hungry.usage.page_faults or 0) > 0


def test_forks_that_were_refused(tmp_path: Path) -> None:
    forking = Capture("forking", tmp_path)
    assert forking.usage.pids == forking.usage.processes == forking.did["pids"]
    assert forking.usage.forks_refused == forking.did["forks_refused"]


def test_processor_time_and_throttling(tmp_path: Path) -> None:
    busy = Capture("busy", tmp_path)
    usage, did = busy.usage, busy.did
    assert usage.cpu_seconds == pytest.approx(did["cpu"], abs=0.05)
    assert usage.cpu_user_seconds == pytest.approx(did["cpu_user"], abs=0.05)
    waited = did["elapsed"] - did["cpu"]
    assert usage.cpu_throttled_seconds == pytest.approx(waited, rel=0.1)
    assert busy.cgroup.evidence(Limits(cpus=1))["cpu.max"] == "20000 100000"


def test_bytes_read_and_written(tmp_path: Path) -> None:
    writing = Capture("writing", tmp_path)
    assert writing.usage.disk_written == writing.did["disk_written"]
    # Programs that had to be loaded are read, too.
    assert (writing.usage.disk_read or 0) >= writing.did["disk_read"]
    assert f"rbps={writing.did['rate']}" in writing.cgroup.evidence(Limits(write_rate=1))["io.max"]


def test_a_frozen_one(tmp_path: Path) -> None:
    for name, frozen in (("frozen", True), ("idle", False)):
        directory = tmp_path / name
        directory.mkdir()
        assert Capture(name, directory).cgroup.frozen() is frozen


def test_what_is_nowhere_limited_says_so(tmp_path: Path) -> None:
    asked = Limits(memory="1MiB", pids=1, cpus=1)
    evidence = Capture("idle", tmp_path).cgroup.evidence(asked)
    assert {evidence[name] for name in ("memory.max", "memory.swap.max", "pids.max")} == {"max"}
    assert evidence["cpu.max"] == "max 100000"
