"""Processes that try to outlive their command are gone when its end is reported: the host looks."""

import asyncio
import contextlib
import os
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import ringfence
from ringfence import Reason
from tests.conftest import require_root

from .conftest import DOCKER, PROCESS, keywords

ESCAPEES = """
trap '' TERM HUP INT
for n in 1 2 3 4 5; do setsid sleep 1000 & done
for n in 1 2 3 4 5; do (setsid sh -c 'trap "" TERM; sleep 1000 & sleep 1000' &) & done
for n in 1 2 3; do setsid sh -c 'kill -STOP $$; sleep 1000' & done
for n in 1 2; do setsid sh -c 'hop() { hop & }; hop' & done
wait
"""
"""In sessions of their own, orphaned, deaf to signals, stopped, forking as fast as they can."""
LEAST = 20
PATIENCE = 30.0


def marked(mark: str) -> list[int]:
    """Processes of this machine with `mark` in their environment, wherever they live."""
    found = []
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if name.isdigit() and mark.encode() in Path("/proc", name, "environ").read_bytes():
                found.append(int(name))
    return found


@pytest.fixture(
    params=[
        pytest.param(("docker", "socket"), marks=DOCKER.marks, id="docker-socket"),
        pytest.param(("docker", "stream"), marks=DOCKER.marks, id="docker-stream"),
        pytest.param(("process", ""), marks=PROCESS.marks, id="process"),
    ]
)
async def sandbox(
    request: pytest.FixtureRequest, state_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[ringfence.Sandbox]:
    kind, transport = request.param
    require_root()
    monkeypatch.setenv("RINGFENCE_DOCKER_TRANSPORT", transport)
    options: dict[str, Any] = keywords(kind)
    async with ringfence.open(**options) as opened:
        if transport:
            assert opened.info.transport == transport
        yield opened


async def armed(mark: str) -> None:
    """Wait until they have all been started."""
    end = time.monotonic() + PATIENCE
    while len(marked(mark)) < LEAST:
        assert time.monotonic() < end, "the escapees did not start"
        await asyncio.sleep(0.05)


async def test_a_kill_leaves_none_and_spares_another_command_of_the_user(
    sandbox: ringfence.Sandbox,
) -> None:
    mark, other = uuid.uuid4().hex, uuid.uuid4().hex
    async with (
        sandbox.spawn(["sleep", "1000"], env={"MARK": other}, timeout=600) as bystander,
        sandbox.spawn(shell=ESCAPEES, env={"MARK": mark}, timeout=600) as escaping,
    ):
        await armed(mark)
        before = marked(other)
        assert before
        escaping.kill()
        ending = await escaping.wait()
        assert marked(mark) == []
        assert ending.reason is not Reason.EXITED
        assert marked(other) == before
        assert bystander.running
    assert marked(other) == []
    assert (await sandbox.exec(["true"])).ok


async def test_a_timeout_leaves_none(sandbox: ringfence.Sandbox) -> None:
    mark, other = uuid.uuid4().hex, uuid.uuid4().hex
    async with sandbox.spawn(["sleep", "1000"], env={"MARK": other}, timeout=600):
        before = marked(other)
        result = await sandbox.exec(shell=ESCAPEES, env={"MARK": mark}, timeout=3, grace=0.1)
        assert marked(mark) == []
        assert result.reason is Reason.TIMEOUT
        assert marked(other) == before
