"""For `make soak`: many idle sandboxes held for long, and a thousand clients killed."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import ringfence
from ringfence.ledger import Ledger
from tests.conftest import require_bwrap, require_docker, require_root
from tests.images import BUSYBOX

from .test_killed_clients import CLIENT, found, wait_for

pytestmark = [pytest.mark.soak, pytest.mark.timeout(7200)]

IDLE = int(os.environ.get("SOAK_IDLE", "500"))
HELD_SECONDS = float(os.environ.get("SOAK_SECONDS", "600"))
CONTAINERS = int(os.environ.get("SOAK_CONTAINERS", "200"))
KILLS = int(os.environ.get("SOAK_KILLS", "1000"))
AT_ONCE = 5
AFTER_OPENING = 0.8
"""The part of the clients that are killed once they have a sandbox; the others while they begin."""
GROWTH_BYTES = 16 * 2**20


def resident() -> int:
    """This process's memory in bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.process
async def test_idle_sandboxes_cost_their_client_nothing(state_directory: Path) -> None:
    """Its memory is flat while it holds them, and each still answers at the end."""
    require_bwrap()
    require_root()
    opening = (
        ringfence.open(backend="process", idle_timeout="1d", limits={"memory": "64m", "tmp": "8m"})
        for _ in range(IDLE)
    )
    opened: list[ringfence.Sandbox] = []
    try:
        for one in opening:
            opened.append(await one)
        await asyncio.sleep(HELD_SECONDS / 10)
        before = resident()
        end = time.monotonic() + HELD_SECONDS * 0.9
        while time.monotonic() < end:
            await asyncio.sleep(min(10.0, HELD_SECONDS / 10))
            assert resident() - before < GROWTH_BYTES
        assert all(await asyncio.gather(*(sandbox.answers() for sandbox in opened)))
    finally:
        await asyncio.gather(*(sandbox.delete(grace=0) for sandbox in opened))
    assert Ledger.default().live() == []


@pytest.mark.docker
async def test_two_hundred_containers_live_at_once(state_directory: Path) -> None:
    """All from one process, asked for together; each works, and nothing is left."""
    require_docker(BUSYBOX)
    opened = await asyncio.gather(
        *(ringfence.open(image=BUSYBOX, limits={"memory": "64m", "tmp": "8m"})
          for _ in range(CONTAINERS))
    )  # fmt: skip
    try:
        results = await asyncio.gather(*(sandbox.exec(["true"]) for sandbox in opened))
        assert all(result.ok for result in results)
    finally:
        reports = await asyncio.gather(*(sandbox.delete(grace=0) for sandbox in opened))
    assert {report.error for report in reports} == {None}
    assert Ledger.default().live() == []


@pytest.mark.process
def test_a_thousand_killed_clients_leave_nothing(state_directory: Path) -> None:
    """At points as chance has it: while they open, execute, write and delete."""
    require_bwrap()
    require_root()
    token = f"{os.getpid()}-{random.randrange(1 << 40)}"
    for _ in range(KILLS // AT_ONCE):
        clients = [
            subprocess.Popen(
                [sys.executable, "-c", CLIENT, "process", "", token], stdout=subprocess.PIPE
            )
            for _ in range(AT_ONCE)
        ]
        for client in clients:
            assert client.stdout is not None
            if random.random() < AFTER_OPENING:
                client.stdout.readline()
            time.sleep(random.random() * 0.4)
            client.send_signal(signal.SIGKILL)
        for client in clients:
            client.wait()
            client.stdout.close()  # type: ignore[union-attr]
    ledger = Ledger.default()
    assert wait_for(lambda: ledger.live() == []), ledger.live()
    assert wait_for(lambda: found("process", {"client": token}) == [])
    assert str(state_directory) not in Path("/proc/self/mountinfo").read_text()
