"""A relay in front of the Engine's socket that changes what sandboxes are created with."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

ENGINE = "/var/run/docker.sock"
Change = Callable[[dict[str, Any]], Any]


@asynccontextmanager
async def relay(
    directory: Path, change: Change, seen: list[str] | None = None
) -> AsyncIterator[str]:
    """The endpoint of a relay that applies `change` to the body of every sandbox's create call.

    seen: gets the first line of each request.
    """
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(_serve(reader, writer, change, [] if seen is None else seen))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    path = directory / "engine.sock"
    server = await asyncio.start_unix_server(accept, path)
    try:
        yield f"unix://{path}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _serve(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, change: Change, seen: list[str]
) -> None:
    there, here = await asyncio.open_unix_connection(ENGINE)
    answers = asyncio.ensure_future(_copy(there, writer))
    try:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while await _request(reader, here, change, seen):
                pass
            here.write_eof()
        await answers
    finally:
        answers.cancel()
        for end in (writer, here):
            end.close()


async def _request(
    reader: asyncio.StreamReader, here: asyncio.StreamWriter, change: Change, seen: list[str]
) -> bool:
    """Hand on one request; False when no other follows on this connection."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    lines = head.split("\r\n")
    seen.append(lines[0])
    fields = {line.partition(":")[0].lower(): line.partition(":")[2].strip() for line in lines[1:]}
    body = await reader.readexactly(int(fields.get("content-length", "0")))
    if "/containers/create" in lines[0]:
        asked = json.loads(body)
        if "ringfence.id" in asked.get("Labels", {}):
            change(asked)
            body = json.dumps(asked).encode()
            kept = [line for line in lines if not line.lower().startswith("content-length")]
            head = "\r\n".join([kept[0], f"Content-Length: {len(body)}", *kept[1:]])
    here.write(head.encode("latin-1") + body)
    if "upgrade" in fields:
        await _copy(reader, here)
        return False
    await here.drain()
    return True


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
        sink.write_eof()
