"""The event loop that sandboxes live on."""

import asyncio

from ringfence.errors import StateError


def running(op: str) -> asyncio.AbstractEventLoop:
    """The loop that runs here. StateError where none does: under trio, for one."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise StateError(
            f"{op}: no asyncio event loop runs here: use ringfence.sync, from trio in a thread",
            op=op,
        ) from None


def runs(loop: asyncio.AbstractEventLoop | None) -> bool:
    """Whether it is the loop that runs here; in a forked child none does."""
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False
