"""One client at a time has the session of a sandbox on a stream."""

import asyncio
import os
from contextlib import suppress
from pathlib import Path

import pytest

from ringfence.backends.docker.holding import hold
from ringfence.errors import DeadlineExceededError


def held(directory: Path) -> list[Path]:
    """What this process has open below a directory."""
    found = []
    for number in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            found.append(number.readlink())
    return [target for target in found if directory in target.parents]


async def test_another_client_of_the_same_sandbox_is_kept_out(state_directory: Path) -> None:
    """And of no other one; it comes in once the first has let go."""
    first = await hold("one", 1)
    other = await hold("two", 1)
    with pytest.raises(DeadlineExceededError):
        await hold("one", 0)
    os.close(first)
    os.close(await hold("one", 0))
    os.close(other)


@pytest.mark.parametrize("turns", range(4))
async def test_a_cancelled_wait_leaves_nothing_open(state_directory: Path, turns: int) -> None:
    """At its start as in its middle."""
    first = await hold("one", 1)
    waiting = asyncio.create_task(hold("one", 60))
    for _ in range(turns):
        await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await asyncio.to_thread(os.close, first)
    assert held(state_directory) == []
