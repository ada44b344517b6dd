"""Daemons as administrators set them up: what they give every container, and what outlives them."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ringfence
from ringfence import State

from ...daemon import Daemon, daemon_with, other_daemon
from ...images import BUSYBOX

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]

ULIMITS = ("nofile=64:64", "fsize=100000:100000", "cpu=1:1", "nproc=6:6")
BYTES = b"x" * 200_000


@pytest.fixture(scope="module")
def bounded() -> Iterator[Daemon]:
    options = [f"--default-ulimit={one}" for one in ULIMITS]
    with daemon_with(*options, "--cgroup-parent=/ringfence-test", "--no-new-privileges") as started:
        yield started


@pytest.fixture
def restoring() -> Iterator[Daemon]:
    with other_daemon("--live-restore") as started:
        yield started


async def test_ulimits_that_a_daemon_gives_every_container_do_not_hit_ours(
    bounded: Daemon, state_directory: Path
) -> None:
    """Those of the spec hold in their place; the guest itself writes files."""
    limits = {"timeout": 120, "ulimits": {"fsize": 10**6, "cpu": 60}}
    async with ringfence.open(image=BUSYBOX, endpoint=bounded.url, limits=limits) as sandbox:
        assert sandbox.receipt is not None
        assert list(sandbox.receipt.gaps) == []
        await sandbox.files.write("/tmp/x", BYTES)
        assert await sandbox.files.read("/tmp/x") == BYTES
        shown = await sandbox.exec(["sh", "-c", "ulimit -f; ulimit -t; ulimit -n"])
        assert shown.stdout.split() == [b"1953", b"60", b"1024"]


async def test_a_cgroup_parent_changes_where_the_cgroup_is_and_nothing_else(
    bounded: Daemon, state_directory: Path
) -> None:
    async with ringfence.open(image=BUSYBOX, endpoint=bounded.url, limits={"memory": "64m"}) as one:
        usage = await one.usage()
        assert (usage.source, usage.memory_limit) == ("cgroup", 64 * 2**20)
        await one.pause()
        assert await one.state() is State.PAUSED
        await one.resume()
        assert (await one.exec(["true"])).ok


async def test_what_a_restarted_daemon_keeps_goes_on_and_is_found_again(
    restoring: Daemon, state_directory: Path
) -> None:
    """With --live-restore, on an Engine that keeps containers which remove themselves."""
    where: dict[str, Any] = {"image": BUSYBOX, "endpoint": restoring.url}
    async with (
        ringfence.open(**where) as attached,
        ringfence.open(detached=True, lifetime=600, **where) as detached,
        detached.spawn(["cat"], hold=True) as process,
    ):
        running = asyncio.ensure_future(attached.exec(["sh", "-c", "sleep 2; echo done"]))
        await attached.exec(["true"])
        await asyncio.to_thread(restoring.end)
        assert (await running).stdout == b"done\n"
        await process.write("before\n")
        await asyncio.to_thread(restoring.start)
        assert await attached.state() is State.RUNNING
        assert (await attached.exec(["echo", "on"])).stdout == b"on\n"
    async with ringfence.open(id=detached.id) as again:
        held = await again.attach(process.id)
        assert await held.stdout.readline() == b"before\n"
        assert (await again.delete()).error is None
    assert restoring.docker("ps", "-aq") == ""
