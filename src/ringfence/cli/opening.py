"""A sandbox opened for a command line, where a person sees that it goes on."""

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

from ringfence.cli import output
from ringfence.spec import SandboxSpec

if TYPE_CHECKING:
    from ringfence.sandbox.sandbox import Sandbox

_QUIET_SECONDS = 1.0
_EVERY_SECONDS = 1.0


@contextlib.asynccontextmanager
async def opened(spec: SandboxSpec, audit: Path | None) -> "AsyncIterator[Sandbox]":
    """`ringfence.open(spec)`, which a large repository makes last: after a second a terminal tells
    what is opened, and for how long."""
    import ringfence

    of = "" if spec.repository is None else f" on {spec.repository.path}"
    async with contextlib.AsyncExitStack() as stack:
        async with telling(f"opening a sandbox{of}"):
            sandbox = await stack.enter_async_context(ringfence.open(spec, audit=audit))
        yield sandbox


@contextlib.asynccontextmanager
async def telling(what: str) -> AsyncIterator[None]:
    """Show `what` and the seconds so far on stderr, if it is a terminal, until the block ends."""
    if not sys.stderr.isatty():
        yield
        return
    task = asyncio.create_task(_tell(output.escape_name(what)))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _tell(what: str) -> None:
    from rich.text import Text  # what is named in it is no markup

    begin = time.monotonic()
    await asyncio.sleep(_QUIET_SECONDS)
    with output.console().status(Text(what)) as status:
        while True:
            status.update(Text(f"{what}: {time.monotonic() - begin:.0f} s"))
            await asyncio.sleep(_EVERY_SECONDS)
