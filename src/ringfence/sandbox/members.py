"""All sandboxes of this user's ledger, seen from outside: listed, measured, deleted.

None of it takes a session, so that the process that holds a sandbox is not disturbed.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from ringfence.backends.base import Pausable
from ringfence.backends.finish import finish
from ringfence.errors import NotFoundError, SandboxError, StateError, UnsupportedError
from ringfence.ledger import Backends, Entry, Ledger, reaper
from ringfence.ledger.cleaning import clean
from ringfence.ledger.listing import info_of
from ringfence.ledger.reasons import CPU_TIME, DELETED
from ringfence.ledger.spent import is_spent
from ringfence.spec import SandboxInfo, State, Usage


async def book_of(ledger: Ledger | None) -> Ledger:
    """The one that is given, else this user's."""
    return await asyncio.to_thread(Ledger.default) if ledger is None else ledger


async def list_sandboxes(
    *, labels: Mapping[str, str] | None = None, ended: bool = False, ledger: Ledger | None = None
) -> list[SandboxInfo]:
    """Every sandbox on record that carries all of `labels`, the oldest first.

    The state is the runtime's word at this moment; one that is gone is written off. ended: those
    of the last week, too, with the reason. Of one whose backend is away, which is on record as
    running, the reason is "unknown: " and why. Cancellation changes nothing.
    """
    book = await book_of(ledger)
    infos = {}
    async with Backends() as backends:
        for entry in await asyncio.to_thread(book.live, labels):
            info = await look(backends, book, entry)
            if ended or info.state is not State.EXITED:
                infos[info.id] = info
    if ended:
        infos |= {info.id: info for info in await asyncio.to_thread(book.past, labels)}
    return sorted(infos.values(), key=lambda info: info.created)


async def look(backends: Backends, book: Ledger, entry: Entry) -> SandboxInfo:
    """What is known of one sandbox now, by its runtime where it is on record as live."""
    if not entry.live:
        return info_of(entry, State.EXITED, entry.reason)
    if not entry.record.native:
        return info_of(entry, State.CREATING, None)
    try:
        async with backends.instance(entry.record) as instance:
            state = await instance.state()
            if state is State.RUNNING and await is_spent(instance):  # whoever reaps next removes it
                return info_of(entry, State.EXITED, CPU_TIME)
    except NotFoundError:
        state = State.EXITED
    except SandboxError as error:
        return info_of(entry, State.RUNNING, f"unknown: {error.message}")
    if state is State.EXITED:
        return info_of(entry, state, await asyncio.to_thread(_fate, book, entry))
    return info_of(entry, state, None)


async def from_elsewhere(name: str, *, ledger: Ledger | None = None) -> SandboxInfo | None:
    """What is known of a sandbox that another version of Ringfence made, which has to open it; None
    for one of this version. NotFoundError. Cancellation changes nothing."""
    book = await book_of(ledger)
    entry = await asyncio.to_thread(book.get, name)
    if entry.problem is None:
        return None
    async with Backends() as backends:
        return await look(backends, book, entry)


def _fate(book: Ledger, entry: Entry) -> str:
    """Why it is gone: in the word of whoever ended it since `entry` was read, if anybody did."""
    book.gone(entry)
    return book.get(entry.record.id).fate


async def delete_sandbox(name: str, *, ledger: Ledger | None = None) -> SandboxInfo:
    """Kill the sandbox of an id (or the beginning of one) and remove all that belongs to it.

    Idempotent. NotFoundError for an id that is not on record. Cancellation does not interrupt it.
    """
    book = await book_of(ledger)
    entry = await asyncio.to_thread(book.get, name)
    if entry.live:
        await finish(_delete(book, entry))
    return info_of(entry, State.EXITED, entry.reason or DELETED)


async def _delete(book: Ledger, entry: Entry) -> None:
    async with Backends() as backends:
        record = await reaper.named(backends, entry.record)
        async with backends.if_there(record) as instance:
            await reaper.delete(backends, record, instance)
        await clean(entry, backends.of(record))
    await asyncio.to_thread(book.end, entry.record.id, DELETED)


async def pause_sandbox(name: str, *, ledger: Ledger | None = None) -> None:
    """Freeze a detached sandbox without a session. NotFoundError, StateError, UnsupportedError.

    Its lifetime runs on. Cancelled, it may be frozen or not: `list_sandboxes` tells, and
    `resume_sandbox` lets it go on.
    """
    async with Backends() as backends, _freezable(backends, name, ledger, "pause") as instance:
        await instance.pause()


async def resume_sandbox(name: str, *, ledger: Ledger | None = None) -> None:
    """Let a paused sandbox go on; nothing for one that is not. NotFoundError, StateError,
    UnsupportedError. Cancellation as for `pause_sandbox`."""
    async with Backends() as backends, _freezable(backends, name, ledger, "resume") as instance:
        await instance.resume()


@asynccontextmanager
async def _freezable(
    backends: Backends, name: str, ledger: Ledger | None, op: str
) -> AsyncIterator[Pausable]:
    entry = await asyncio.to_thread((await book_of(ledger)).get, name)
    if not entry.detached:
        raise StateError(
            f"{op}: sandbox {entry.record.id} is held by another process: only that one can",
            op=op,
            sandbox_id=entry.record.id,
        )
    async with backends.instance(entry.record) as instance:
        if not isinstance(instance, Pausable):
            raise UnsupportedError(
                f"{op}: the {entry.record.backend} backend cannot freeze a sandbox", op=op
            )
        yield instance


async def usages(
    names: Sequence[str] = (), *, ledger: Ledger | None = None
) -> AsyncIterator[tuple[str, Usage]]:
    """Id and usage of the named sandboxes, or of all that run.

    NotFoundError for a name that is not on record; one that ended or cannot be measured is left
    out. Cancellation changes nothing.
    """
    book = await book_of(ledger)
    if names:
        entries = [await asyncio.to_thread(book.get, name) for name in names]
    else:
        entries = await asyncio.to_thread(book.live)
    async with Backends() as backends:
        for entry in entries:
            usage = await usage_of(backends, entry)
            if usage is not None:
                yield entry.record.id, usage


async def usage_of(backends: Backends, entry: Entry) -> Usage | None:
    """What one sandbox used up to now; None where that cannot be told."""
    try:
        async with backends.instance(entry.record) as instance:
            return await instance.usage()
    except SandboxError:
        return None
