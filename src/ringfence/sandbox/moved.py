"""What a transfer between the host and a sandbox moved, a few files at a time."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from ringfence.backends.finish import finish
from ringfence.events import FilesMoved
from ringfence.sandbox import later
from ringfence.sandbox.context import Context

_AT_ONCE = 8
_SKIPPED_KEPT = 1000

T = TypeVar("T")


@dataclass(slots=True)
class Moved:
    """What a transfer moved. members: directories, files and links. skipped: paths that were left
    out, the first 1000 of them, and why; skipped_total: how many. digest: of the blob that a
    download into a store made."""

    members: int = 0
    bytes: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)
    skipped_total: int = 0
    digest: "later.Digest | None" = None

    def skip(self, path: str, why: str) -> None:
        """`path` was left out."""
        self.skipped_total += 1
        if len(self.skipped) < _SKIPPED_KEPT:
            self.skipped.append((path, why))


def tell(context: Context, direction: str, path: str, moved: Moved) -> None:
    """Let those who listen know of it. direction: "upload" or "download". path: inside."""
    context.bus.publish(
        FilesMoved(
            sandbox_id=context.id,
            direction=direction,
            path=path,
            members=moved.members,
            bytes=moved.bytes,
        )
    )


async def each(items: Iterable[T], work: Callable[[T], Awaitable[None]]) -> None:
    """`work` on every item, a few at a time; the first error ends it, as does cancellation: when
    it is raised, none goes on."""
    queue = iter(items)

    async def worker() -> None:
        for item in queue:
            await work(item)

    tasks = [asyncio.create_task(worker()) for _ in range(_AT_ONCE)]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await finish(asyncio.gather(*tasks, return_exceptions=True))
