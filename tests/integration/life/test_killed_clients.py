"""A client killed with SIGKILL, at any moment, leaves nothing once its lease has run out."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import ringfence
from ringfence.backends import registry
from ringfence.backends.process.home import Home
from ringfence.ledger import Ledger
from tests.conftest import on_process, require_docker, wait_for
from tests.images import BUSYBOX

CLIENTS = 20
CLIENT = """
import asyncio, json, sys
import ringfence

async def main():
    spec = json.loads(sys.argv[1])
    if len(sys.argv) > 3:
        spec["repository"] = sys.argv[3]
    while True:
        async with ringfence.open(labels={"client": sys.argv[2]}, **spec) as sandbox:
            print("begin", flush=True)
            await sandbox.exec(["sleep", "0.05"])
            await sandbox.files.write("/tmp/x", b"x" * 100000)
            async with sandbox.spawn(["sleep", "1000"]):
                pass

asyncio.run(main())
"""


@pytest.fixture(
    params=[
        pytest.param("docker", marks=pytest.mark.docker),
        pytest.param("process", marks=pytest.mark.process),
    ]
)
def backend(request: pytest.FixtureRequest, state_directory: Path) -> str:
    if request.param == "docker":
        require_docker(BUSYBOX)
    else:
        on_process()
    return str(request.param)


def spec_of(backend: str) -> dict[str, Any]:
    return {"image": BUSYBOX} if backend == "docker" else on_process()


def found(backend: str, labels: dict[str, str]) -> list[str]:
    async def ask() -> list[str]:
        one = registry.load(backend)
        try:
            return [sandbox.id for sandbox in await one.found(labels)]
        finally:
            await one.aclose()

    return asyncio.run(ask())


@pytest.mark.parametrize("what", ["bare", "repository"])
def test_clients_killed_at_random_points_leave_nothing(
    backend: str, state_directory: Path, tmp_path: Path, what: str
) -> None:
    """Nobody runs Ringfence again: lease and guard do it alone. With a repository there are mounts
    and files that must go, too."""
    (tmp_path / "project").mkdir()
    (tmp_path / "project/file").write_text("x")
    more = [str(tmp_path / "project")] if what == "repository" else []
    token = f"{os.getpid()}-{random.randrange(1 << 40)}"
    clients = []
    for _ in range(CLIENTS // 5):
        batch = [
            subprocess.Popen(
                [sys.executable, "-c", CLIENT, json.dumps(spec_of(backend)), token, *more],
                stdout=subprocess.PIPE,
            )
            for _ in range(5)
        ]
        for client in batch:
            assert client.stdout is not None
            assert client.stdout.readline() == b"begin\n"
        for client in batch:
            time.sleep(random.random() * 0.6)
            client.send_signal(signal.SIGKILL)
        clients += batch
    for client in clients:
        client.wait()
        client.stdout.close()  # type: ignore[union-attr]
    ledger = Ledger.default()
    assert ledger.all() != []
    assert wait_for(lambda: ledger.live() == []), ledger.live()
    assert wait_for(lambda: found(backend, {"client": token}) == [])
    sandboxes = state_directory / "sandboxes"
    assert wait_for(lambda: not sandboxes.exists() or not any(sandboxes.iterdir()), 10)
    assert str(state_directory) not in Path("/proc/self/mountinfo").read_text()
    workspaces = state_directory / "workspaces"
    left = [] if not workspaces.exists() else [*workspaces.glob("[0-9a-f]*")]
    assert left == []


def test_a_detached_sandbox_outlives_its_client_and_ends_by_its_lifetime(backend: str) -> None:
    spec = spec_of(backend)

    async def create() -> str:
        async with ringfence.open(detached=True, lifetime=25, **spec) as sandbox:
            held = await sandbox.spawn(["sleep", "1000"], hold=True, timeout=900)
            held.detach()
            return sandbox.id

    name = asyncio.run(create())

    async def again() -> list[bool]:
        async with ringfence.open(id=name) as sandbox:
            return [process.running for process in await sandbox.processes()]

    for _ in range(3):
        assert asyncio.run(again()) == [True]
    ledger = Ledger.default()
    assert wait_for(lambda: ledger.live() == [])
    assert ledger.get(name).reason
    with pytest.raises(ringfence.SandboxError):
        asyncio.run(again())


def test_one_removed_by_hand_is_lost_at_once_and_the_record_says_so(backend: str) -> None:
    async def main() -> None:
        spec = spec_of(backend)
        async with ringfence.open(**spec) as sandbox:  # type: ignore[arg-type]
            running = asyncio.ensure_future(sandbox.exec(["sleep", "600"], timeout=500))
            await asyncio.sleep(0.3)
            kill_outside(backend, sandbox)
            result = await asyncio.wait_for(running, 30)
            assert result.reason == "sandbox_lost"
            assert result.exit_code is None
            with pytest.raises(ringfence.SandboxLostError):
                await sandbox.exec(["true"])

    asyncio.run(main())
    assert wait_for(lambda: Ledger.default().live() == [], 30)


def kill_outside(backend: str, sandbox: ringfence.Sandbox) -> None:
    entry = Ledger.default().get(sandbox.id)
    if backend == "docker":
        subprocess.run(["docker", "rm", "-f", entry.record.native], check=True, capture_output=True)
    else:
        home = Home(Path(entry.record.endpoint, "process/sandboxes", sandbox.id))
        guest = home.guest()
        assert guest is not None
        os.kill(guest, signal.SIGKILL)
