"""Processes that try to outlive their command are gone when its end is reported: the host looks."""

import asyncio
import contextlib
import os
import platform
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


RELATED = """
import ctypes, os, signal, sys, threading, time
libc = ctypes.CDLL(None)
def deaf():
    os.setsid()
    for number in (1, 2, 15):
        signal.signal(number, signal.SIG_IGN)
def sister():  # of the command: what began that is its parent, too (CLONE_PARENT)
    if libc.syscall(56, 0x8000 | 17, 0, 0, 0, 0) == 0:
        if sys.argv[1] == "code":
            os._exit(77)
        deaf()
        time.sleep(1000)
def leaderless():  # its first thread ends: a zombie, by its state, whose other threads run
    if os.fork() == 0:
        deaf()
        threading.Thread(target=time.sleep, args=(1000,)).start()
        libc.syscall(60, 0)
def suspended():  # waits in the kernel for its child, which has stopped (vfork)
    if os.fork() == 0:
        deaf()
        if libc.syscall(58) == 0:
            libc.syscall(62, libc.syscall(39), 19)
            libc.syscall(60, 0)
sister()
sister()
if sys.argv[1] == "code":
    time.sleep(0.3)
    sys.exit(5)
leaderless()
suspended()
open("/tmp/began", "w").close()
time.sleep(1000)
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="its numbers of calls are x86_64's")
async def test_neither_a_sister_nor_a_zombie_that_runs_nor_a_suspended_parent_is_left(
    sandbox: ringfence.Sandbox,
) -> None:
    """And how a sister ended is not taken for how the command did."""
    mark = uuid.uuid4().hex
    args = ["python3", "-c", RELATED]
    assert (await sandbox.exec([*args, "code"], timeout=60)).exit_code == 5
    async with sandbox.spawn([*args, "stay"], env={"MARK": mark}, timeout=600) as escaping:
        end = time.monotonic() + PATIENCE
        while not await sandbox.files.exists("/tmp/began"):
            assert time.monotonic() < end
            await asyncio.sleep(0.05)
        ours = Path("/proc", str(marked(mark)[0]), "ns/pid").readlink()
        members = sum(link == ours for link in namespaces())
        escaping.kill()
        ending = await escaping.wait()
        assert marked(mark) == []
        assert ending.reason is not Reason.EXITED
        assert members >= 7
        left = sum(link == ours for link in namespaces())
    assert left <= members - 7


def namespaces() -> list[Path]:
    """The namespace of processes of each process of this machine, of those without memory too."""
    found = []
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if name.isdigit():
                found.append(Path("/proc", name, "ns/pid").readlink())
    return found
