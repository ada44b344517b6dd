"""A sandbox opened for a command line, where a person sees that it goes on."""

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ringfence.cli import output

if TYPE_CHECKING:
    from ringfence.sandbox.sandbox import Sandbox
    from ringfence.spec import SandboxSpec

_QUIET_SECONDS = 1.0
_EVERY_SECONDS = 1.0


@contextlib.asynccontextmanager
async def opened(spec: "SandboxSpec", audit: Path | None) -> "AsyncIterator[Sandbox]":
    """`ringfence.open(spec)`, which a large repository makes last: after a second a terminal tells
    what is opened, for how long, and how much of the repository was found."""
    import ringfence

    of = "" if spec.repository is None else f" on {spec.repository.path}"
    async with contextlib.AsyncExitStack() as stack:
        async with telling(f"opening a sandbox{of}") as seen:
            opening = ringfence.open(spec, audit=audit, progress=seen)
            sandbox = await stack.enter_async_context(opening)
        yield sandbox


@contextlib.asynccontextmanager
async def telling(what: str) -> AsyncIterator[Callable[[int], None]]:
    """Show `what` and the seconds so far on stderr, if it is a terminal, until the block ends.

    What it gives is called with a number of entries, which is shown then, too.
    """
    entries: list[int] = []
    if not sys.stderr.isatty():
        yield entries.append
        return
    task = asyncio.create_task(_tell(output.escape_name(what), entries))
    try:
        yield entries.append
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _tell(what: str, entries: list[int]) -> None:
    from rich.text import Text  # what is named in it is no markup

    begin = time.monotonic()
    await asyncio.sleep(_QUIET_SECONDS)
    with output.console().status(Text(what)) as status:
        while True:
            found = f", {entries[-1]} entries" if entries else ""
            status.update(Text(f"{what}: {time.monotonic() - begin:.0f} s{found}"))
            await asyncio.sleep(_EVERY_SECONDS)
