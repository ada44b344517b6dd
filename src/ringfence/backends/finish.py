"""Steps that must be carried to their end, because half of them cannot be undone."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager
from typing import Any, TypeVar

T = TypeVar("T")


async def finish(
    step: "Coroutine[Any, Any, T] | asyncio.Future[T]",
    *,
    hurry: Callable[[], object] | None = None,
) -> T:
    """The result of `step`, which is not cancelled, however often the caller is meanwhile, and
    begins also where an event loop ends before that.

    A cancellation that came is raised after its end, and goes before an error of the step. The
    step must end by itself within a known time. hurry: is called when a cancellation comes.
    """
    task = step if isinstance(step, asyncio.Future) else asyncio.create_task(begun(step))
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
            if hurry is not None:
                hurry()
    if cancelled is not None:
        if not task.cancelled():
            task.exception()
        raise cancelled
    return task.result()


def begun(step: Coroutine[Any, Any, T]) -> Coroutine[Any, Any, T]:
    """`step` for a task that nobody cancels but an event loop that ends: it begins also where that
    comes before its begin, when a task's coroutine would take no step at all."""
    return _Begun(step)


class _Begun(Coroutine[Any, Any, T]):
    def __init__(self, step: Coroutine[Any, Any, T]) -> None:
        self._step = step
        self._begun = False

    def send(self, value: Any) -> Any:
        self._begun = True
        return self._step.send(value)

    def throw(self, *error: Any) -> Any:
        if self._begun:
            return self._step.throw(*error)
        go_on()
        return self.send(None)

    def close(self) -> None:
        self._step.close()

    def __await__(self) -> Generator[Any, Any, T]:
        return self._step.__await__()


async def through(step: Callable[[], Awaitable[object]]) -> None:
    """Take a step in a task that nobody cancels but an event loop that ends, which does so once and
    with every task, those too that the step began; a step that can be taken again."""
    try:
        await step()
    except asyncio.CancelledError:
        go_on()
        await step()


def go_on() -> None:
    """Forget that this task was cancelled."""
    task = asyncio.current_task()
    while task is not None and task.uncancel():
        pass


@asynccontextmanager
async def holding(lock: AbstractContextManager[object]) -> AsyncIterator[None]:
    """Hold a lock that is waited for in another thread.

    A cancellation meanwhile is raised once the lock was had, and has been given back.
    """
    with ExitStack() as held:
        await finish(asyncio.to_thread(held.enter_context, lock))
        yield
