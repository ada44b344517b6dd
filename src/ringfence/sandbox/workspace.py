"""The repository of a sandbox, as its user holds it: what changed, and what becomes of that.

All is found out on the host, from the files themselves; no command runs inside. While files are
compared the sandbox is frozen where its backend can do that.
"""

import asyncio
import os
import pathlib
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol, TypeVar

from ringfence.backends import exhausted
from ringfence.backends.finish import finish
from ringfence.errors import (
    InvalidSpecError,
    ResourceExhaustedError,
    StateError,
)
from ringfence.ledger import cleaning
from ringfence.sandbox.context import Context
from ringfence.sandbox.life import DETACHED
from ringfence.sandbox.sandbox import Sandbox
from ringfence.sandbox.snapshots import keep_workspace, snapshots
from ringfence.sandbox.steps import new_id
from ringfence.sandbox.stillness import Stillness
from ringfence.workspace import (
    Changes,
    For,
    Patch,
    Prepared,
    Snapshot,
    apply,
    clean,
    discard,
    download,
    fork,
)
from ringfence.workspace.changes import MAX_BYTES
from ringfence.workspace.prepared import Since

T = TypeVar("T")


class Again(Protocol):
    """Opens a sandbox like one that is there, on another workspace, and of another image."""

    def __call__(
        self, prepared: Prepared | None, image: str | None = None
    ) -> Coroutine[Any, Any, Sandbox]:
        """image: an id, None for the same one."""
        ...


class Workspace:
    """See the module. Paths are relative to the workspace, as text with surrogateescape.

    since: compare with the repository as it was at open, or, in a fork, with its parent.
    max_bytes: of changed content that are read, else ResourceExhaustedError. All raise StateError
    in mode rw, where no other state is kept, and for a file that changes while it is read.
    Cancellation is raised once the files under way are done with.
    """

    def __init__(self, prepared: Prepared) -> None:
        self.prepared = prepared
        self._context: Context | None = None
        self._again: Again | None = None

    def __repr__(self) -> str:
        return f"<Workspace {self.mount_point} {self.strategy}>"

    def join(self, context: Context, again: Again) -> None:
        """Belong to this sandbox from now on. again: opens one like it on another workspace."""
        self._context, self._again = context, again
        context.room = self._room

    def _room(self) -> os.statvfs_result | None:
        prepared = self.prepared
        if prepared.size is None or prepared.upper is None:
            return None
        try:
            return os.statvfs(prepared.upper)
        except OSError:
            return None

    @property
    def mount_point(self) -> str:
        """Where it appears inside."""
        return self.prepared.mount_point

    @property
    def strategy(self) -> str:
        """How writes are kept from the original: overlay, volume, copy, or bind (not at all)."""
        return self.prepared.strategy

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was worth knowing when it was made."""
        return self.prepared.warnings

    async def changes(self, *, since: Since = "repository", max_bytes: int = MAX_BYTES) -> Changes:
        """Added, modified, deleted, renamed files and changed modes, with sizes and digests.

        Hidden files are never deletions; git's own directory is left out.
        """
        return await self._still(lambda p: p.changes(since=since, max_bytes=max_bytes))

    async def patch(self, *, since: Since = "repository", max_bytes: int = MAX_BYTES) -> bytes:
        """The changes as a git patch, with binary files and renames; empty when nothing changed."""
        return (await self.diff(since=since, max_bytes=max_bytes)).data

    async def summary(self, *, since: Since = "repository", max_bytes: int = MAX_BYTES) -> str:
        """The changes as `git diff --stat` says them; empty when nothing changed."""
        return (await self.diff(since=since, max_bytes=max_bytes)).stat

    async def diff(self, *, since: Since = "repository", max_bytes: int = MAX_BYTES) -> Patch:
        """The patch and its summary, `data` and `stat`, of one moment and for the work of one."""
        return await self._still(lambda p: p.patch(since=since, max_bytes=max_bytes))

    async def download(
        self,
        paths: Sequence[str],
        destination: str | os.PathLike[str],
        *,
        max_bytes: int = MAX_BYTES,
    ) -> list[str]:
        """Copy files or directories into a directory of the host; the paths of the files.

        Nothing there is replaced, no link is followed, and nothing called .git is brought out.
        NotFoundError, PolicyDeniedError, AlreadyExistsError; UnsupportedError for what lies below a
        directory whose path is longer than can be carried, ResourceExhaustedError without room.
        """
        place = pathlib.Path(destination)
        return await self._still(lambda p: download(p, paths, place, max_bytes=max_bytes))

    async def apply(self, *, since: Since = "repository") -> Changes:
        """Write the changes into the original, whole or not at all; the changes.

        StateError names a file of the original that is not what the sandbox started from.
        """
        return await self._still(lambda p: apply(p, since=since))

    async def discard(self) -> Changes:
        """Put it back to its start, git's directory included; what is gone."""
        return await self._still(discard)

    async def snapshot(self) -> Snapshot:
        """Keep its present state under a digest, which `open(snapshot=...)` takes. An error or a
        cancellation leaves no snapshot."""
        place = await asyncio.to_thread(snapshots)
        async with self.frozen():
            return await keep_workspace(self.prepared, place)

    async def fork(self, number: int) -> list[Sandbox]:
        """So many sandboxes like this one, each on a workspace of its own that starts from the
        present state. They are the caller's to end.

        InvalidSpecError unless there is a repository in mode copy. An error or a cancellation
        leaves none of them.
        """
        again = self._again
        if again is None:
            raise StateError("this workspace belongs to no sandbox", op="fork")
        async with forked(self, number) as made:
            return await opened([again(one) for one in made])

    async def _still(self, work: Callable[[Prepared], T]) -> T:
        async with self.frozen():
            return await finish(_threaded(work, self.prepared))

    @asynccontextmanager
    async def frozen(self) -> AsyncIterator[None]:
        """While nothing inside runs, where the backend can freeze; else as it is."""
        async with frozen(self._context):
            yield

    async def aclose(self) -> None:
        """Remove what was made for it, unless its sandbox goes on without this holder."""
        if self._context is not None and self._context.life.reason == DETACHED:
            return
        await finish(self._closed())

    async def _closed(self) -> None:
        if self._context is not None:
            await cleaning.emptied(self.prepared.directory, self._context.backend)
        await asyncio.to_thread(self.prepared.close)


@asynccontextmanager
async def forked(workspace: Workspace, number: int) -> AsyncIterator[list[Prepared]]:
    """So many workspaces that start from the present state of one, for a block that opens them; an
    error in it removes them. InvalidSpecError as for `Workspace.fork`."""
    prepared = workspace.prepared
    if number < 1 or prepared.mode != "copy":
        raise InvalidSpecError(
            "fork takes a number above 0, of a sandbox with a repository in mode copy",
            op="fork",
        )
    parent = prepared.directory.parent
    places = [parent / new_id() for _ in range(number)]
    whom = For(0, 0, os.geteuid() == 0, strategy=prepared.strategy)
    try:
        async with workspace.frozen():
            made = await finish(_threaded(lambda p: fork(p, places, whom), prepared))
        yield made
    except BaseException:
        for place in places:
            await finish(asyncio.to_thread(clean, place))
        raise


@asynccontextmanager
async def frozen(context: Context | None) -> AsyncIterator[None]:
    """While nothing in a sandbox runs, where its backend can freeze; else as it is."""
    if context is None:
        yield
        return
    if context.stillness is None:
        context.stillness = Stillness(context)
    async with context.stillness.wanted():
        yield


async def _threaded(work: Callable[[Prepared], T], prepared: Prepared) -> T:
    try:
        return await asyncio.to_thread(work, prepared)
    except (OSError, RuntimeError) as error:
        what = exhausted.told(error)
        if what is None:
            raise
        raise ResourceExhaustedError(
            f"workspace {prepared.directory}: {what}", op="workspace"
        ) from error


async def opened(openings: list[Coroutine[Any, Any, Sandbox]]) -> list[Sandbox]:
    """All of them, or none when one fails."""
    tasks = [asyncio.ensure_future(opening) for opening in openings]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        await finish(_ended(tasks))
        raise


async def _ended(tasks: list[asyncio.Task[Sandbox]]) -> None:
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if not isinstance(result, BaseException):
            await result.delete(grace=0.0)
