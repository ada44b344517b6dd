"""Sandboxes on the mock, with a durable record."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ringfence.backends.mock import MockBackend
from ringfence.ledger import Ledger, guard


class Durable:
    """A mock that does not remember its sandboxes itself, so that the ledger does."""

    def __init__(self, mock: MockBackend) -> None:
        self.mock = mock

    def __getattr__(self, name: str) -> Any:
        if name == "record":
            raise AttributeError(name)
        return getattr(self.mock, name)


@pytest.fixture
def mock() -> MockBackend:
    return MockBackend()


@pytest.fixture
def durable(mock: MockBackend) -> Durable:
    return Durable(mock)


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    monkeypatch.setattr(guard, "missing", lambda directory: None)
    return Ledger(tmp_path / "ledger.sqlite")


@pytest.fixture
async def no_thread(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[[], None]]:
    """From its call on no thread can be started, and none is there that waits for work."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    def begin() -> None:
        asyncio.get_running_loop().set_default_executor(executor)
        monkeypatch.setattr(threading.Thread, "start", refuse)

    with ThreadPoolExecutor() as executor:
        yield begin
        monkeypatch.undo()


@pytest.fixture(autouse=True)
async def _no_task_is_left() -> AsyncIterator[None]:
    """Every test ends with the tasks that it began with."""
    before = asyncio.all_tasks()
    yield
    for _ in range(100):
        now = asyncio.all_tasks() - before - {asyncio.current_task()}
        left = [task for task in now if not task.done()]
        if not left:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"tasks are left: {left}")


async def cancelled(
    work: Coroutine[Any, Any, Any], begun: threading.Event, go: threading.Event
) -> None:
    """Cancel `work` while a thread of its own is at work, from `begun` until it may `go` on: whoever
    waits for it hears of that no sooner."""
    task = asyncio.create_task(work)
    await asyncio.to_thread(begun.wait, 60)
    task.cancel()
    assert await asyncio.wait([task], timeout=0.2) == (set(), {task})
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
