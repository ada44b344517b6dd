"""What must be carried to its end is, whenever it is cancelled."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ringfence.backends.finish import finish, holding


@pytest.mark.parametrize("when", ["waiting", "held"])
async def test_a_cancelled_holder_holds_nothing(when: str) -> None:
    """A lock that is waited for in another thread is given back."""
    free, asked, begun = threading.Event(), threading.Event(), asyncio.Event()
    held: list[str] = []

    @contextmanager
    def lock() -> Iterator[None]:
        asked.set()
        free.wait(30)
        held.append("taken")
        try:
            yield
        finally:
            held.append("left")

    async def hold() -> None:
        async with holding(lock()):
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.ensure_future(hold())
    await asyncio.to_thread(asked.wait, 30)
    if when == "held":
        free.set()
        await begun.wait()
    task.cancel()
    await asyncio.sleep(0)
    free.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert held == ["taken", "left"]
    assert begun.is_set() == (when == "held")


@pytest.mark.parametrize("turns", [1, 2])
async def test_a_step_is_taken_though_every_task_is_cancelled_before_it_begins(turns: int) -> None:
    """As an event loop does that ends."""
    done: list[str] = []

    async def step() -> None:
        try:
            await asyncio.sleep(0)
        finally:
            done.append("step")

    before = asyncio.all_tasks()
    task = asyncio.create_task(finish(step()))
    for _ in range(turns):
        await asyncio.sleep(0)
    for other in asyncio.all_tasks() - before:
        other.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert done == ["step"]
