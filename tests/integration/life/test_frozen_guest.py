"""A guest that is stopped from outside: what waits for it ends, typed, and nothing is left."""

import asyncio
import contextlib
import os
import signal
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

import ringfence
from ringfence import Reason
from ringfence.backends import registry
from tests.conftest import require_bwrap, require_docker, require_root
from tests.images import BUSYBOX

PATIENCE = 60.0


@pytest.fixture(
    params=[
        pytest.param({"image": BUSYBOX, "backend": "docker"}, marks=pytest.mark.docker),
        pytest.param({"backend": "process"}, marks=pytest.mark.process),
    ],
    ids=lambda options: options["backend"],
)
def place(request: pytest.FixtureRequest, state_directory: Path) -> dict[str, Any]:
    require_root()
    if request.param["backend"] == "docker":
        require_docker(BUSYBOX)
    else:
        require_bwrap()
    return dict(request.param)


def processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def namespace_of(mark: str) -> str | None:
    """The pid namespace of a process with `mark` in its environment."""
    for pid in processes():
        with contextlib.suppress(OSError):
            if mark.encode() in Path(f"/proc/{pid}/environ").read_bytes():
                return str(Path(f"/proc/{pid}/ns/pid").readlink())
    return None


def first_of(namespace: str) -> int:
    """This machine's number of the first process of a pid namespace."""
    for pid in processes():
        with contextlib.suppress(OSError):
            if str(Path(f"/proc/{pid}/ns/pid").readlink()) == namespace:
                status = Path(f"/proc/{pid}/status").read_text()
                if (
                    "\nNSpid:" in status
                    and status.split("\nNSpid:")[1].split("\n")[0].split()[-1] == "1"
                ):
                    return pid
    raise AssertionError("the namespace has no first process")


async def test_what_waits_for_it_ends_and_nothing_is_left(place: dict[str, Any]) -> None:
    mark = uuid.uuid4().hex
    async with ringfence.open(labels={"frozen": mark}, **place) as sandbox:
        running = asyncio.create_task(
            sandbox.exec(["sleep", "1000"], env={"MARK": mark}, timeout=600)
        )
        end = time.monotonic() + PATIENCE
        while (namespace := namespace_of(mark)) is None:
            assert time.monotonic() < end, "the command did not start"
            await asyncio.sleep(0.05)
        os.kill(first_of(namespace), signal.SIGSTOP)
        result = await asyncio.wait_for(running, PATIENCE)
        assert result.reason is Reason.SANDBOX_LOST
        with pytest.raises(ringfence.SandboxLostError):
            await sandbox.files.read("/etc/passwd")
    assert namespace_of(mark) is None
    backend = registry.load(place["backend"])
    try:
        assert await backend.found({"frozen": mark}) == []
    finally:
        await backend.aclose()
