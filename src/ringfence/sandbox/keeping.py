"""Files of a sandbox as blobs of a content store on the host."""

import asyncio
import os
import secrets
from collections.abc import AsyncIterable

from ringfence.backends.finish import finish
from ringfence.digest.store import Ingest, Store
from ringfence.events import FilesMoved
from ringfence.guest.failures import too_large
from ringfence.guest.protocol import Cred
from ringfence.sandbox.context import Context
from ringfence.sandbox.moved import Moved
from ringfence.sandbox.progress import Progress, counted


async def keep(
    context: Context,
    source: str,
    store: Store,
    who: Cred,
    *,
    most: int,
    progress: Progress | None,
) -> Moved:
    """See `Files.download`. The blob is committed whole or not at all."""
    files = context.session.files
    status = await files.stat(source, who)
    ingest = await _begun(store, f"{context.id}-{secrets.token_hex(8)}")
    try:
        async with files.open_read(source, who) as reader:
            content = reader if progress is None else counted(reader, progress, status.size)
            size = await _pour(content, ingest, source, most)
        labels = {"ringfence.sandbox": context.id, "ringfence.path": source}
        digest = await finish(asyncio.to_thread(ingest.commit, labels))
    finally:
        if not ingest.closed:
            await finish(asyncio.to_thread(ingest.abort))
    moved = Moved(members=1, bytes=size, digest=digest)
    context.bus.publish(
        FilesMoved(sandbox_id=context.id, direction="download", path=source, members=1, bytes=size)
    )
    return moved


async def _begun(store: Store, ref: str) -> Ingest:
    """A blob in the making; a cancellation meanwhile leaves none."""
    beginning = asyncio.ensure_future(asyncio.to_thread(store.ingest, ref))
    try:
        return await finish(beginning)
    except asyncio.CancelledError:
        if not beginning.cancelled() and beginning.exception() is None:
            await finish(asyncio.to_thread(beginning.result().abort))
        raise


async def _pour(content: AsyncIterable[bytes], ingest: Ingest, source: str, most: int) -> int:
    size = 0
    async for chunk in content:
        size += len(chunk)
        if size > most:
            raise too_large("files.download", os.fsencode(source), most)
        # To its end: an abort meanwhile would close the file under who writes.
        await finish(asyncio.to_thread(ingest.write, chunk))
    return size
