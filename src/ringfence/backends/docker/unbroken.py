"""Steps that must run to their end because half of them cannot be undone."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def unbroken(step: Coroutine[Any, Any, T]) -> T:
    """Run `step` to its end, however often the caller is cancelled meanwhile.

    Then its result is returned or its error raised; a cancellation that came meanwhile is raised
    instead of the result. The step must end by itself within a known time.
    """
    task = asyncio.ensure_future(step)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not task.cancelled():
            task.exception()
        raise cancelled
    return task.result()
