"""What a daemon says of itself is believed where it admits a lack, and proven where it claims."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from ringfence.backends.docker import machine as machines
from ringfence.backends.docker.backend import DockerBackend
from ringfence.backends.docker.machine import Machine, describe
from ringfence.backends.finish import finish

from .fakes import engine_that

INFO: dict[str, Any] = {
    "ServerVersion": "26.1.5", "MemTotal": 2**33, "NCPU": 4, "CgroupVersion": "2",
    "CgroupDriver": "systemd", "KernelVersion": "1.2.3-elsewhere", "DefaultRuntime": "runc",
    "Driver": "overlay2", "DockerRootDir": "/var/lib/docker",
    "SecurityOptions": ["name=seccomp,profile=builtin", "name=apparmor", "name=cgroupns"],
    "Runtimes": {"runc": {}, "runsc": {}},
    "MemoryLimit": True, "SwapLimit": True, "CpuCfsQuota": True, "CPUSet": True,
    "CPUShares": True, "PidsLimit": True,
}  # fmt: skip


async def described(directory: Path, **changes: Any) -> Machine:
    def answer(request: web.Request) -> web.StreamResponse:
        return web.json_response({**INFO, **changes})

    async with engine_that(answer, directory) as engine:
        return await describe(engine)


async def test_it_is_described_in_our_words(short: Path) -> None:
    machine = await described(short)
    assert (machine.memory, machine.cpus, machine.cgroup_version) == (2**33, 4, 2)
    assert machine.security == {"seccomp", "apparmor", "cgroupns"}
    assert machine.runtimes == {"runc", "runsc"}
    assert {"memory", "swap", "cpus", "cpuset", "cpu_shares", "pids"} <= machine.limits


async def test_a_daemon_that_is_no_dockerd_of_this_machine_is_not_local(short: Path) -> None:
    machine = await described(short)
    assert not machine.same_kernel
    assert machine.daemon == 0
    assert not machine.surely_local
    assert "read_rate" not in machine.limits


async def test_without_a_cgroup_driver_no_cgroup_limit_holds(short: Path) -> None:
    machine = await described(short, CgroupDriver="none")
    assert not machine.limits & {"memory", "swap", "cpus", "cpuset", "cpu_shares", "pids"}
    assert {"tmp", "shm", "ulimits"} <= machine.limits


async def test_without_a_cgroup_driver_nothing_is_measured_or_frozen_either(short: Path) -> None:
    """A rootless Engine on version 1 tells the whole machine's use as each container's."""

    def answer(request: web.Request) -> web.StreamResponse:
        return web.json_response({**INFO, "CgroupDriver": driver})

    for driver in ("none", "systemd"):
        directory = short / driver
        directory.mkdir()
        async with engine_that(answer, directory) as engine:
            backend = DockerBackend(engine.endpoint.url)
            features = await backend.features()
            await backend.aclose()
        held = driver != "none"
        assert (features.usage, features.pause, features.missing == "") == (held, held, held)
    assert "version 2" in (await described(short, CgroupDriver="none")).missing


@pytest.mark.parametrize(("flag", "name"), [("MemoryLimit", "memory"), ("PidsLimit", "pids")])
async def test_a_controller_that_is_missing_is_a_limit_less(
    short: Path, flag: str, name: str
) -> None:
    assert name not in (await described(short, **{flag: False})).limits


async def test_only_a_driver_with_sizes_limits_the_disk(short: Path) -> None:
    assert "disk" not in (await described(short)).limits


async def test_btrfs_has_sizes(short: Path) -> None:
    assert "disk" in (await described(short, Driver="btrfs")).limits


async def test_a_step_that_must_not_break_ends_before_the_cancellation_is_raised() -> None:

    done = []

    async def step() -> None:
        await asyncio.sleep(0.05)
        done.append(True)

    task = asyncio.create_task(finish(step()))
    await asyncio.sleep(0)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == [True]


async def test_a_rootless_daemon_gives_no_higher_limits_than_its_own(
    short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has every capability, in its own user namespace: the kernel asks for those of the first."""
    files = {
        "/proc/7/limits": f"Limit\n{'Max processes':25} 100 200 processes\n",
        "/proc/7/status": "CapEff:\t000001ffffffffff\n",
    }

    async def seen(engine: object) -> int:
        return 7

    monkeypatch.setattr(machines, "_daemon_pid", seen)
    monkeypatch.setattr(Path, "read_text", lambda path, *args: files[str(path)])
    files["/proc/7/uid_map"] = "         0          0 4294967295\n"
    assert (await described(short)).ulimits == {}
    files["/proc/7/uid_map"] = (
        "         0       1001          1\n         1     165536      65536\n"
    )
    assert (await described(short)).ulimits == {"nproc": 200}
