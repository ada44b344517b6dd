"""Whatever a user does with a session and cancels, it goes on and nothing of it stays."""

import os
import time

import pytest

from ringfence.guest.session import Session
from tests.unit.guest.conftest import Place, mock_connect, real_place

from . import sessions

STEPS = 400
SOAK_STEPS = int(os.environ.get("SOAK_STEPS", "200000")) // 10


async def on_the_mock(seed: int, steps: int) -> None:
    session = await Session.start(await mock_connect())
    await sessions.act(Place(session, "/workspace", real=False), seed, steps)
    await session.close()


async def on_the_real_guest(seed: int, steps: int) -> None:
    async with real_place() as place:
        await sessions.act(place, seed, steps)


async def test_nothing_is_left_of_what_was_cancelled_on_the_mock() -> None:
    await on_the_mock(1, STEPS)


async def test_nothing_is_left_of_what_was_cancelled_on_the_real_guest() -> None:
    await on_the_real_guest(1, STEPS)


@pytest.mark.soak
@pytest.mark.timeout(7200)
async def test_nothing_is_left_of_much_that_was_cancelled() -> None:
    """SOAK_STEPS: ten times how many operations; a thousand of each seed."""
    first = time.time_ns() // 1_000_000
    for seed in range(first, first + max(1, SOAK_STEPS // 1000)):
        print(f"seed {seed}", flush=True)
        await (on_the_mock if seed % 2 else on_the_real_guest)(seed, 1000)
