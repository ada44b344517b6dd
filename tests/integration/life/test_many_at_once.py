"""A thousand commands at once, and a gibibyte of output: all arrives, each to whom it belongs."""

import asyncio
import resource
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import ringfence
from tests.conftest import cgroups_are_ours, on_process, require_docker
from tests.images import DEBIAN

MANY = 1000
LIMITS = {"pids": 2 * MANY + 100, "memory": "2GiB", "timeout": 250}

pytestmark = pytest.mark.timeout(300)
BACKENDS = [
    pytest.param({"image": DEBIAN, "backend": "docker"}, marks=pytest.mark.docker, id="docker"),
    pytest.param({"backend": "process"}, marks=pytest.mark.process, id="process"),
]


@pytest.fixture(params=BACKENDS)
def place(request: pytest.FixtureRequest, state_directory: Path) -> dict[str, Any]:
    if request.param["backend"] == "docker":
        require_docker(DEBIAN)
        return {**request.param, "limits": LIMITS}
    return {**on_process(), "limits": LIMITS if cgroups_are_ours() else {"timeout": 250}}


def most_resident() -> int:
    """The most bytes that this process ever had in memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


async def test_a_thousand_execs_and_spawns_all_finish(place: dict[str, Any]) -> None:
    """The spawned ones run all at the same time: none ends before the last has begun."""
    begun = 0
    all_begun = asyncio.Event()

    async def one(sandbox: ringfence.Sandbox, number: int) -> bytes:
        nonlocal begun
        async with sandbox.spawn(["sh", "-c", "read word; echo $word"]) as process:
            begun += 1
            if begun == MANY:
                all_begun.set()
            await all_begun.wait()
            return (await process.communicate(b"%d\n" % number)).stdout

    async with ringfence.open(**place) as sandbox:
        results = await asyncio.gather(*(sandbox.exec(["true"]) for _ in range(MANY)))
        assert Counter((one.reason.value, one.exit_code) for one in results) == {
            ("exited", 0): MANY
        }
        outputs = await asyncio.gather(*(one(sandbox, number) for number in range(MANY)))
        assert outputs == [b"%d\n" % number for number in range(MANY)]


async def test_more_than_fit_wait_their_turn(place: dict[str, Any]) -> None:
    """Those above a session's number are started when others have ended, in their order."""
    async with ringfence.open(**place) as sandbox:
        results = await asyncio.gather(*(sandbox.exec(["true"]) for _ in range(MANY + 300)))
        assert {one.exit_code for one in results} == {0}


async def test_a_gibibyte_of_output_is_counted_and_not_held(place: dict[str, Any]) -> None:
    async with ringfence.open(**place) as sandbox:
        await sandbox.exec(["true"])
        before = most_resident()
        result = await sandbox.exec(["head", "-c", str(2**30), "/dev/zero"])
        assert (result.exit_code, result.stdout_total) == (0, 2**30)
        assert result.stdout_truncated
        assert len(result.stdout) == 2**20
        assert most_resident() - before < 64 * 2**20
