"""An ordinary user in the group of the daemon's socket: no ending leaves a workspace, though the
kernel keeps devices of root's in it where files were deleted."""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ringfence.backends.docker import DockerBackend
from ringfence.backends.docker.endpoint import resolve
from ringfence.workspace.mounts import overlay_options
from tests.conftest import give, missing, require_docker, require_root
from tests.images import DEBIAN

pytestmark = pytest.mark.docker
UID = 61234
NOTHING: dict[str, Any] = {"workspaces": [], "used": [], "records": []}


@pytest.fixture(scope="module")
def told() -> Iterator[dict[str, Any]]:
    require_root()
    require_docker(DEBIAN)
    socket = resolve(None).socket
    if socket is None or Path(socket).stat().st_gid == 0:
        missing("the daemon's socket has no group of its own")
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="ringfence-docker-user-") as directory:
        place = Path(directory)
        place.chmod(0o755)
        project = place / "project"
        (project / "d").mkdir(parents=True)
        for name in ("a", "b", "d/x"):
            (project / name).write_text("x\n")
        give(project, UID)
        args = ["tests.integration.workspace.docker_user", str(UID), str(place)]
        done = subprocess.run(
            [sys.executable, "-m", *args],
            cwd=Path(__file__).parents[3],
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        files = sorted(path.name for path in project.iterdir())
        yield {"place": str(place), "files": files, **json.loads(done.stdout)}


def test_the_kernel_leaves_what_the_user_cannot_remove_alone(told: dict[str, Any]) -> None:
    """A client that asks no daemon for it cannot end; the next sweep does that."""
    before, after = told["of_before"]["before"], told["of_before"]["after"]
    assert before["strategy"] == "volume"
    assert "not empty" in before["error"]
    assert before["workspaces"] == before["used"] == before["records"] != []
    assert after == {"errors": [None], **NOTHING, "asked": 1}


def test_a_deleted_sandbox_leaves_nothing(told: dict[str, Any]) -> None:
    said = {"error": None, "strategy": "volume", "said": "b\nd\n"}
    assert told["deleted"] == {**said, **NOTHING, "asked": 1}
    assert told["files"] == ["a", "b", "d"]


def test_the_daemon_is_asked_only_where_something_was_deleted(told: dict[str, Any]) -> None:
    said = {"error": None, "strategy": "volume", "said": "a\nb\nd\n"}
    assert told["plain"] == {**said, **NOTHING, "asked": 0}


def test_one_that_is_deleted_by_its_id_leaves_nothing(told: dict[str, Any]) -> None:
    assert told["by_name"] == {"before": True, **NOTHING, "asked": 1}


def test_forks_leave_nothing(told: dict[str, Any]) -> None:
    assert told["forked"] == {**NOTHING, "asked": 3}


def test_the_sweep_after_a_killed_client_leaves_nothing(told: dict[str, Any]) -> None:
    assert told["ending"] == -9
    assert len(told["killed"]["workspaces"]) == 1
    assert told["reaped"] == {"errors": [None], **NOTHING, "asked": 1}


def test_nothing_of_it_stays_on_the_daemon(told: dict[str, Any]) -> None:
    labelled = ["docker", "ps", "-aq", "--filter", "label=ringfence.mount"]
    assert subprocess.run(labelled, capture_output=True, check=True).stdout == b""
    names = ["docker", "volume", "ls", "-q"]
    volumes = subprocess.run(names, capture_output=True, text=True, check=True).stdout.split()
    look = ["docker", "volume", "inspect", *volumes]
    seen = subprocess.run(look, capture_output=True, text=True, check=False).stdout
    assert told["place"] not in seen


async def mount_once(sandbox_id: str, volume: dict[str, str]) -> None:
    backend = DockerBackend()
    try:
        await backend.mount_once(sandbox_id, volume)
    finally:
        await backend.aclose()


def test_a_client_killed_at_the_mount_is_in_nobody_s_way(tmp_path: Path) -> None:
    """Its container has the name that the next one's gets."""
    require_docker(DEBIAN)
    lower, upper, work = (tmp_path / name for name in ("lower", "upper", "work"))
    for place in (lower, upper, work / "work"):
        place.mkdir(parents=True)
    (work / "work" / "#1").touch()
    one = f"test{os.urandom(6).hex()}"
    name = f"ringfence-{one}-mount"
    left = ["docker", "create", "--name", name, DEBIAN, "true"]
    subprocess.run(left, capture_output=True, check=True)
    options = overlay_options([lower], upper, work, user=True)
    asyncio.run(mount_once(one, {"type": "overlay", "device": "overlay", "o": options}))
    assert list((work / "work").iterdir()) == []
    there = ["docker", "ps", "-aq", "--filter", f"name={name}"]
    assert subprocess.run(there, capture_output=True, check=True).stdout == b""
