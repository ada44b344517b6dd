"""Steps that must be carried to their end, because half of them cannot be undone."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager
from typing import Any, TypeVar

T = TypeVar("T")


async def finish(
    step: "Coroutine[Any, Any, T] | asyncio.Future[T]",
    *,
    hurry: Callable[[], object] | None = None,
) -> T:
    """The result of `step`, which is not cancelled, however often the caller is meanwhile.

    A cancellation that came is raised after its end, and goes before an error of the step. The
    step must end by itself within a known time. hurry: is called when a cancellation comes.
    """
    task = asyncio.ensure_future(step)
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


@asynccontextmanager
async def holding(lock: AbstractContextManager[object]) -> AsyncIterator[None]:
    """Hold a lock that is waited for in another thread.

    A cancellation meanwhile is raised once the lock was had, and has been given back.
    """
    with ExitStack() as held:
        await finish(asyncio.to_thread(held.enter_context, lock))
        yield
