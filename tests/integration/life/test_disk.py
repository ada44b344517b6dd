"""`limits.disk` where no storage driver has sizes: the workspace is as large, and no larger."""

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest

import ringfence
from tests.conftest import require_bwrap, require_docker, require_gvisor, require_root
from tests.images import BUSYBOX, DEBIAN

SIZE = 32 * 2**20
OVERHEAD = SIZE // 16 + 2 * 2**20


@pytest.fixture(
    params=[
        pytest.param("docker", marks=pytest.mark.docker),
        pytest.param("process", marks=pytest.mark.process),
        pytest.param("gvisor", marks=[pytest.mark.docker, pytest.mark.gvisor]),
    ]
)
def where(request: pytest.FixtureRequest, state_directory: Path) -> dict[str, Any]:
    """Keywords of `open` that choose a backend."""
    require_root()
    if request.param == "process":
        require_bwrap()
        return {"backend": "process"}
    if request.param == "gvisor":
        require_gvisor()
        return {"image": DEBIAN, "security": {"runtime": "runsc"}}
    require_docker(DEBIAN)
    return {"image": DEBIAN}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    path = tmp_path / "repository"
    path.mkdir()
    (path / "file").write_text("kept\n")
    return path


async def test_a_full_disk_is_met_told_and_got_over(
    where: dict[str, Any], repository: Path
) -> None:
    """Files can be read and removed, then work goes on."""
    limits = {"disk": SIZE, "memory": "256m"}
    async with ringfence.open(repository=repository, limits=limits, **where) as sandbox:
        row = sandbox.receipt["disk"]
        assert row.ok
        assert "statfs" in row.evidence
        filled = await sandbox.exec(shell="cat /dev/zero > big; wc -c < big; rm missing")
        assert SIZE // 2 < int(filled.stdout) <= SIZE + OVERHEAD
        assert b"No space left" in filled.stderr
        assert SIZE // 2 < ((await sandbox.usage()).disk_used or 0) <= SIZE + OVERHEAD
        [hit] = [event.to_dict() for event in sandbox.history if event.name == "LimitHit"]
        assert hit["limit"] == "disk"
        assert SIZE // 2 < hit["counters"]["size"] <= SIZE + OVERHEAD
        with pytest.raises(ringfence.FileError, match="no space"):
            await sandbox.files.write("/workspace/more", b"x" * 2**20)
        assert await sandbox.files.read("/workspace/file") == b"kept\n"
        await sandbox.files.remove("/workspace/big")
        await sandbox.files.write("/workspace/more", b"x" * 2**20)
        assert (await sandbox.exec(shell="wc -c < more")).stdout == b"1048576\n"
        sandbox_id = sandbox.id
    # A sandbox that starts at this moment holds a copy of all mounts until it has its own.
    for _ in range(300):
        if mounts_and_loops(sandbox_id) == []:
            break
        await asyncio.sleep(0.1)
    assert mounts_and_loops(sandbox_id) == []


def mounts_and_loops(sandbox_id: str) -> list[str]:
    """What of a sandbox's file systems is left on this machine."""
    lines = Path("/proc/mounts").read_text().splitlines()
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            lines.append(path.read_text())
    return [line for line in lines if sandbox_id in line]


@pytest.mark.process
async def test_what_would_get_round_it_is_refused(
    repository: Path, tmp_path: Path, state_directory: Path
) -> None:
    """No workspace, one that is the host's own, and a mount that can be written."""
    require_bwrap()
    require_root()
    (tmp_path / "data").mkdir()
    (tmp_path / "data").chmod(0o777)
    mount = ringfence.Mount(source=str(tmp_path / "data"), destination="/data", read_only=False)
    own = ringfence.Repository(path=str(repository), mode="rw")
    for more in ({}, {"repository": own}, {"repository": repository, "mounts": [mount]}):
        with pytest.raises(ringfence.UnsupportedError, match="disk"):
            await ringfence.open(backend="process", limits={"disk": SIZE}, **more)


@pytest.mark.docker
async def test_where_nothing_holds_it_writers_are_killed_if_that_was_allowed(
    state_directory: Path,
) -> None:
    """The receipt says that it is only watched; what removes files is left alone."""
    require_docker(BUSYBOX)
    wanted: dict[str, Any] = {"image": BUSYBOX, "profile": "permissive", "limits": {"disk": "8m"}}
    with pytest.raises(ringfence.UnsupportedError, match="disk"):
        await ringfence.open(security={"read_only_root": False}, **wanted)
    security = {"read_only_root": False, "allow_degraded": ["disk"]}
    async with ringfence.open(security=security, cwd="/home/user", **wanted) as sandbox:
        row = sandbox.receipt["disk"]
        assert (row.ok, row.enforced.partition(":")[0]) == (False, "watched")
        write = "while :; do head -c 1000000 /dev/zero >> big; sleep 0.05; done"
        assert (await sandbox.exec(shell=write, timeout=100)).reason is ringfence.Reason.KILLED
        [hit] = [event.to_dict() for event in sandbox.history if event.name == "LimitHit"]
        assert (hit["limit"], hit["counters"]["size"]) == ("disk", 8 * 2**20)
        assert hit["counters"]["used"] > 8 * 2**20
        assert (await sandbox.exec(shell="rm big && echo more > small")).ok
