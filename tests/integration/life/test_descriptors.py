"""Who only looks at a sandbox, or leaves it, keeps nothing of it open."""

import asyncio
import gc
import os
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import ringfence
from ringfence.ledger import Ledger, reap
from tests.conftest import on_process, require_cgroups, require_docker
from tests.images import BUSYBOX

TIMES = 5


@pytest.fixture(
    params=[
        pytest.param("docker", marks=pytest.mark.docker),
        pytest.param("process", marks=pytest.mark.process),
    ]
)
def given(request: pytest.FixtureRequest, state_directory: object) -> dict[str, Any]:
    if request.param == "docker":
        require_docker(BUSYBOX)
        return {"image": BUSYBOX, "backend": "docker"}
    require_cgroups()
    return on_process()


async def _lists(_: str) -> None:
    await ringfence.list_sandboxes()


async def _reaps(_: str) -> None:
    await reap(Ledger.default())


async def _measures(name: str) -> None:
    async for _ in ringfence.usages([name]):
        pass


async def _freezes(name: str) -> None:
    await ringfence.pause_sandbox(name)
    await ringfence.resume_sandbox(name)


async def _opens(name: str) -> None:
    async with ringfence.open(id=name) as sandbox:
        await sandbox.usage()


async def _opens_in_vain(name: str) -> None:
    await ringfence.pause_sandbox(name)
    with pytest.raises(ringfence.StateError):
        await ringfence.open(id=name)
    await ringfence.resume_sandbox(name)


async def test_looking_and_leaving_keep_no_descriptor(given: dict[str, Any]) -> None:
    """A guard looks every half a minute, and a server may list for years."""
    looks: tuple[Callable[[str], Awaitable[None]], ...] = (
        _lists, _reaps, _measures, _freezes, _opens, _opens_in_vain,
    )  # fmt: skip
    async with ringfence.open(
        detached=True, lifetime=120, limits={"cpu_time": 100}, **given
    ) as sandbox:
        await sandbox.usage()
    try:
        for look in looks:
            await look(sandbox.id)
            before = await _open()
            for _ in range(TIMES):
                await look(sandbox.id)
            assert await _open() < before + TIMES, look.__name__
    finally:
        await sandbox.delete()
    with pytest.raises(ringfence.NotFoundError):
        await ringfence.open(id=sandbox.id)


async def _open() -> int:
    await asyncio.sleep(0.05)
    gc.collect()
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - counted, not walked
