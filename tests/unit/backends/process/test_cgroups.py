"""Limits become the files of either version, and a sandbox is born in its cgroup."""

import os
from pathlib import Path

import pytest

from ringfence.backends import cgroup_tree
from ringfence.backends.cgroup_files import PIDS_HEADROOM, SOCKETS
from ringfence.backends.cgroups import Tree
from ringfence.errors import InvalidSpecError, NotFoundError, ResourceExhaustedError
from ringfence.metrics.places import Place
from ringfence.spec import Limits

ALL = Limits(
    memory="64MiB",
    swap="1MiB",
    cpus=0.5,
    cpu_shares=2,
    pids=10,
    read_rate=1000,
    write_rate=2000,
)


def v1(root: Path) -> Tree:
    names = ("memory", "pids", "cpu", "cpuacct", "freezer", "blkio", "cpuset")
    directories = {}
    for name in names:
        (root / name).mkdir(parents=True)
        directories[name] = str(root / name)
    (root / "memory/memory.memsw.limit_in_bytes").touch()
    (root / f"memory/{SOCKETS}").touch()
    (root / "cpuset/cpuset.mems").write_text("0-1\n")
    return Tree(1, directories, frozenset(names))


def v2(root: Path, offered: str = "memory pids cpu cpuset io") -> Tree:
    return Tree(2, {"unified": str(root)}, frozenset(offered.split()))


def test_version_1_has_a_file_per_limit_in_an_order_the_kernel_takes(tmp_path: Path) -> None:
    plan = v1(tmp_path).plan("box", ALL, ["254:0"])
    files = [(path.removeprefix(f"{tmp_path}/"), value) for path, value in plan.write]
    assert files == [
        ("memory/box/memory.limit_in_bytes", str(64 * 2**20)),
        ("memory/box/memory.swappiness", "60"),
        ("memory/box/memory.memsw.limit_in_bytes", str(65 * 2**20)),
        ("memory/box/memory.kmem.tcp.limit_in_bytes", str(16 * 2**20)),
        ("pids/box/pids.max", str(10 + PIDS_HEADROOM)),
        ("cpu/box/cpu.cfs_quota_us", "50000"),
        ("cpu/box/cpu.shares", "2"),
        ("blkio/box/blkio.throttle.read_bps_device", "254:0 1000"),
        ("blkio/box/blkio.throttle.write_bps_device", "254:0 2000"),
    ]
    assert plan.into is None
    assert {path for path, _ in plan.inside} == {f"{made}/tasks" for made in plan.make}
    assert plan.thaw == ((f"{tmp_path}/freezer/box/freezer.state", "THAWED"),)


def test_sockets_may_buffer_a_quarter_of_the_memory_where_the_kernel_counts_that(
    tmp_path: Path,
) -> None:
    asked = Limits(memory="1GiB")
    plan = v1(tmp_path / "counts").plan("box", asked)
    assert (f"{tmp_path}/counts/memory/box/{SOCKETS}", str(2**28)) in plan.write
    without = v1(tmp_path / "none")
    (tmp_path / "none/memory" / SOCKETS).unlink()
    assert not [path for path, _ in without.plan("box", asked).write if path.endswith(SOCKETS)]


def test_a_cpuset_takes_its_memory_nodes_along_and_is_made_only_when_asked(tmp_path: Path) -> None:
    tree = v1(tmp_path)
    assert f"{tmp_path}/cpuset/box" not in tree.plan("box", ALL).make
    plan = tree.plan("box", Limits(cpuset="0"))
    assert plan.write == (
        (f"{tmp_path}/cpuset/box/cpuset.mems", "0-1"),
        (f"{tmp_path}/cpuset/box/cpuset.cpus", "0"),
    )


def test_version_2_has_one_directory_and_the_sandbox_is_born_in_it(tmp_path: Path) -> None:
    plan = v2(tmp_path).plan("box", ALL, ["254:0"])
    files = [(path.removeprefix(f"{tmp_path}/box/"), value) for path, value in plan.write]
    assert files == [
        ("memory.max", str(64 * 2**20)),
        ("memory.swap.max", str(2**20)),
        ("pids.max", str(10 + PIDS_HEADROOM)),
        ("cpu.max", "50000 100000"),
        ("cpu.weight", "1"),
        ("io.max", "254:0 rbps=1000"),
        ("io.max", "254:0 wbps=2000"),
    ]
    assert (plan.make, plan.into) == ((f"{tmp_path}/box",), f"{tmp_path}/box")
    assert plan.inside == ()


def test_only_limits_whose_controllers_are_there_are_promised(tmp_path: Path) -> None:
    assert v2(tmp_path, "pids").limits == {"pids"}
    assert v2(tmp_path, "memory cpu").limits == {"memory", "swap", "cpus", "cpu_shares"}
    tree, without = v1(tmp_path / "swap"), v1(tmp_path / "none")
    assert {"memory", "swap", "cpuset", "read_rate"} <= tree.limits
    (tmp_path / "none/memory/memory.memsw.limit_in_bytes").unlink()
    assert "swap" not in without.limits
    assert Tree().limits == frozenset()
    assert (Tree().freezes, tree.freezes, v2(tmp_path).freezes) == (False, True, True)


def test_an_update_writes_only_what_is_given_and_maps_the_kernels_refusals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cgroup = v2(tmp_path).cgroup("box")
    with pytest.raises(NotFoundError):
        cgroup.update(Limits(pids=1))
    (tmp_path / "box").mkdir()
    cgroup.update(Limits(pids=1))
    assert [path.name for path in (tmp_path / "box").iterdir()] == ["pids.max"]
    assert cgroup.evidence(Limits(pids=1)) == {"pids.max": str(1 + PIDS_HEADROOM)}
    assert cgroup.evidence(Limits(cpus=1)) == {}
    for number, error in ((16, ResourceExhaustedError), (22, InvalidSpecError)):

        def refuse(*_: object, number: int = number) -> int:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(Path, "write_text", refuse)
        with pytest.raises(error):
            cgroup.update(Limits(pids=1))


def fake_v2(root: Path, processes: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A delegated tree as systemd has it: a user's manager with a scope that we are in."""
    for name, pids in processes.items():
        directory = root / name
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "cgroup.procs").write_text(pids)
        (directory / "cgroup.controllers").write_text("memory pids cpu\n")
        (directory / "cgroup.subtree_control").write_text("memory pids\n")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    own = root / list(processes)[-1]
    place = {"unified": Place(2, "/own", str(own))}
    monkeypatch.setattr(cgroup_tree, "places_of", lambda: place)


def test_an_ordinary_user_gets_the_topmost_delegated_cgroup_without_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    processes = {"user": "", "user/app": "", "user/app/scope": "77\n"}
    fake_v2(tmp_path, processes, monkeypatch)
    monkeypatch.setattr(cgroup_tree, "_make_v2", _make_like_the_kernel)
    tree = cgroup_tree.find_tree()
    assert tree.directories == {"unified": str(tmp_path / "user/ringfence")}
    assert tree.controllers == {"memory", "pids", "cpu"}
    assert (tmp_path / "user/cgroup.subtree_control").read_text() == "+cpu"


def _make_like_the_kernel(directory: Path) -> None:
    directory.mkdir()
    (directory / "cgroup.controllers").write_text("memory pids cpu\n")
    (directory / "cgroup.subtree_control").write_text("memory pids cpu\n")


def test_without_delegation_the_remedy_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_v2(tmp_path, {"scope": "77\n"}, monkeypatch)
    tree = cgroup_tree.find_tree()
    assert (tree.version, tree.limits) == (0, frozenset())
    assert "systemd-run --user --scope" in tree.missing
