"""Limits bite, are reported, and can be changed; usage is the kernel's."""

import asyncio
from pathlib import Path

import pytest

from ringfence.backends.process import ProcessBackend
from ringfence.errors import ResourceExhaustedError, SandboxLostError
from ringfence.guest.request import ExecRequest
from ringfence.metrics.places import read_text
from ringfence.spec import Limits
from tests.integration.process.conftest import Opened

HOG = "python3 -c 'x = bytearray({size}); print(len(x))'"


async def test_memory_is_limited_and_its_kills_are_counted(opens: Opened) -> None:
    async with opens(limits={"memory": "64MiB", "tmp": "16MiB", "shm": "1MiB"}) as sandbox:
        small = await sandbox.sh(HOG.format(size=2**24))
        large = await sandbox.sh(HOG.format(size=2**28))
        usage = await sandbox.instance.usage()
        evidence = await sandbox.instance.evidence()
    assert small.code == 0
    assert large.code in (-9, 137)
    assert large.end.oom_kills == 1
    assert usage is not None
    assert usage.oom_kills == 1
    assert usage.memory_limit == 64 * 2**20
    assert str(64 * 2**20) in (
        evidence.cgroup.get("memory.limit_in_bytes"),
        evidence.cgroup.get("memory.max"),
    )


async def test_a_full_tmpfs_counts_as_memory(opens: Opened) -> None:
    async with opens(limits={"memory": "128MiB", "tmp": "32MiB"}) as sandbox:
        before = await sandbox.instance.usage()
        await sandbox.sh("head -c 32M /dev/zero > /tmp/f")
        after = await sandbox.instance.usage()
    assert before is not None
    assert after is not None
    assert (after.memory or 0) - (before.memory or 0) > 24 * 2**20


async def test_processes_are_limited_and_the_guest_survives_a_fork_bomb(opens: Opened) -> None:
    # A shell that cannot fork ends, and leaves the bomb to the command after it: this one forks once.
    bomb = "bomb() { bomb | bomb & }; bomb & exec sleep 5"
    async with opens(limits={"pids": 32}) as sandbox:
        result = await sandbox.sh(bomb, timeout=3.0)
        evidence = await sandbox.instance.evidence()
        again = await sandbox.run("true")
        usage = await sandbox.instance.usage()
    assert evidence.cgroup["pids.max"] == "64"
    assert result.end is not None
    assert again.code == 0
    assert usage is not None
    assert (usage.pids or 0) <= 64


async def test_cores_are_limited(opens: Opened) -> None:
    """However busy the machine is: it spins until the kernel has held it back once."""
    spin = "python3 -c 'import time; t=time.time()+0.5\nwhile time.time()<t: pass'"
    async with opens(limits={"cpus": 0.1, "cpuset": "0"}) as sandbox:
        cores = await sandbox.sh("nproc")
        for _ in range(40):
            await sandbox.sh(spin)
            usage = await sandbox.instance.usage()
            assert usage is not None
            if usage.cpu_throttled_seconds:
                break
    assert cores.stdout == b"1\n"
    assert (usage.cpu_throttled_seconds or 0) > 0
    assert (usage.cpu_seconds or 99) < (usage.uptime or 0) / 2


async def test_limits_of_a_running_sandbox_change_and_a_limit_below_use_is_refused(
    opens: Opened,
) -> None:
    async with opens(limits={"memory": "64MiB", "tmp": "48MiB"}) as sandbox:
        assert (await sandbox.sh(HOG.format(size=2**27))).code != 0
        await sandbox.instance.update(Limits(memory="256MiB", pids=40, cpus=0.5))
        assert (await sandbox.sh(HOG.format(size=2**27))).code == 0
        evidence = await sandbox.instance.evidence()
        assert evidence.cgroup["pids.max"] == "72"
        await sandbox.sh("head -c 40M /dev/zero > /tmp/f")
        with pytest.raises(ResourceExhaustedError):
            await sandbox.instance.update(Limits(memory="4MiB"))
        assert (await sandbox.run("true")).code == 0
    with pytest.raises(SandboxLostError):
        await sandbox.instance.update(Limits(memory="64MiB"))


async def test_usage_tells_of_time_files_and_processes(opens: Opened, tmp_path: Path) -> None:
    async with opens() as sandbox:
        first = await sandbox.instance.usage()
        await sandbox.sh("python3 -c 'sum(range(3000000))'")
        second = await sandbox.instance.usage()
        score = read_text(f"/proc/{sandbox.instance.pid}/oom_score_adj")
    assert first is not None
    assert second is not None
    assert (second.cpu_seconds or 0) > (first.cpu_seconds or 0)
    assert (second.page_faults or 0) > (first.page_faults or 0)
    assert (second.memory_peak or 0) >= (second.memory or 0) > 0
    assert (second.uptime or 0) > (first.uptime or 0)
    assert (second.processes or 0) >= 1
    assert (second.network_received, second.network_sent) == (0, 0)
    assert score == "500\n"


async def test_a_paused_sandbox_stands_still_goes_on_and_can_be_deleted(
    opens: Opened, backend: ProcessBackend
) -> None:
    async with opens() as sandbox:
        exec_ = await sandbox.session.spawn(_counter())
        await exec_.read()
        await sandbox.instance.pause()
        await sandbox.instance.pause()
        assert await sandbox.instance.state() == "paused"
        assert [found.state for found in await backend.found({})] == ["paused"]
        before = await sandbox.instance.usage()
        await asyncio.sleep(0.3)
        after = await sandbox.instance.usage()
        assert before is not None
        assert after is not None
        assert before.cpu_seconds == after.cpu_seconds
        await sandbox.instance.resume()
        assert await sandbox.instance.state() == "running"
        assert await exec_.read() != b""
        await sandbox.instance.pause()
        await sandbox.instance.delete()
        assert await sandbox.instance.state() == "exited"


def _counter() -> ExecRequest:
    script = "while :; do echo x; sleep 0.01; done"
    return ExecRequest(args=("/bin/sh", "-c", script), env={"PATH": "/usr/bin:/bin"}, uid=1000)
