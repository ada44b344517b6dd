"""A daemon that is killed while sandboxes run, and started again."""

import asyncio
import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import ringfence
from ringfence import State
from ringfence.errors import SandboxError
from ringfence.ledger import Ledger

from ...daemon import SECONDS, Daemon, name_of, private_daemon, processes_of
from ...images import BUSYBOX

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]

SANDBOXES = 20


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    with private_daemon() as started:
        yield started


async def until(fact: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + SECONDS
    while not await asyncio.to_thread(fact):
        assert time.monotonic() < end, what
        await asyncio.sleep(0.1)


async def test_each_sandbox_is_alive_or_lost_as_the_daemon_says_and_then_gone(
    daemon: Daemon, state_directory: Path
) -> None:
    """Afterwards no container, process, mount, socket or record is left."""
    opened = await asyncio.gather(
        *(ringfence.open(image=BUSYBOX, endpoint=daemon.url) for _ in range(SANDBOXES))
    )
    for sandbox in opened:
        assert (await sandbox.exec(["true"])).ok
    await asyncio.to_thread(daemon.kill)
    await asyncio.to_thread(daemon.start)
    for sandbox in opened:
        await agrees(daemon, sandbox)
    reports = await asyncio.gather(*(sandbox.delete(grace=0) for sandbox in opened))
    assert [report.error for report in reports] == [None] * SANDBOXES
    for sandbox in opened:
        assert await sandbox.state() is State.EXITED
    # A daemon that was killed may list what it cannot inspect: each is asked for.
    await until(lambda: not containers(daemon), "containers are left")
    await until(lambda: not shims(daemon), "processes are left")
    assert Ledger.default().live() == []
    assert str(state_directory) not in Path("/proc/self/mountinfo").read_text()  # noqa: ASYNC240 - in memory
    left = {path.name for path in state_directory.rglob("*")} & {one.id for one in opened}  # noqa: ASYNC240 - a few files
    assert left == set()


async def agrees(daemon: Daemon, sandbox: ringfence.Sandbox) -> None:
    """What the sandbox says of itself is what the daemon does; a command is told the same."""
    deadline = time.monotonic() + SECONDS
    while True:
        said = await sandbox.state()
        runs = await asyncio.to_thread(running, daemon, sandbox.id)
        if (said is State.RUNNING) is runs:
            break
        assert time.monotonic() < deadline, f"{said} is said, the daemon says {runs}"
        await asyncio.sleep(0.1)
    if runs:
        with contextlib.suppress(SandboxError):
            await sandbox.exec(["true"], timeout=20)
        return
    result = None
    with contextlib.suppress(ringfence.SandboxLostError, ringfence.StateError):
        result = await sandbox.exec(["true"], timeout=20)
    assert result is None or result.reason is ringfence.Reason.SANDBOX_LOST


def running(daemon: Daemon, sandbox_id: str) -> bool:
    name = f"ringfence-{sandbox_id}"
    try:
        return daemon.docker("inspect", "-f", "{{.State.Running}}", name) == "true"
    except subprocess.CalledProcessError:
        return False


def containers(daemon: Daemon) -> list[str]:
    found = []
    for container in daemon.docker("ps", "-aq").split():
        with contextlib.suppress(subprocess.CalledProcessError):
            found.append(daemon.docker("inspect", "-f", "{{.Name}}", container))
    return found


def shims(daemon: Daemon) -> list[int]:
    """What runs for containers of that daemon."""
    return [pid for pid in processes_of(daemon.directory) if "shim" in name_of(pid)]
