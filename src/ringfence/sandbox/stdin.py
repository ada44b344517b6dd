"""Whatever a user gives as stdin, as bytes or an async iterable of them."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from pathlib import Path
from typing import BinaryIO, Protocol, runtime_checkable

from ringfence.errors import InvalidSpecError

CHUNK_BYTES = 256 * 1024


@runtime_checkable
class Readable(Protocol):
    """An open binary file, or what reads like one."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes, b"" at the end."""
        ...


Stdin = bytes | bytearray | memoryview | str | Path | BinaryIO | Readable | AsyncIterable[bytes]
"""Bytes; a text (UTF-8); the path of a file on the host; an open binary file; a stream."""


def as_input(stdin: Stdin | None) -> bytes | AsyncIterable[bytes]:
    """`stdin` as the guest session takes it. InvalidSpecError for what is none."""
    if stdin is None:
        return b""
    if isinstance(stdin, str):
        return stdin.encode("utf-8", "surrogateescape")
    if isinstance(stdin, bytes | bytearray | memoryview):
        return bytes(stdin)
    if isinstance(stdin, Path):
        return _file(stdin)
    if isinstance(stdin, AsyncIterable):
        return stdin
    if isinstance(stdin, Readable):
        return _chunks(stdin)
    raise InvalidSpecError(
        f"stdin: {type(stdin).__name__} is none of bytes, str, Path, a binary file or an async"
        " iterable of bytes",
        op="exec",
        context={"fields": ["stdin"]},
    )


async def _file(path: Path) -> AsyncIterator[bytes]:
    try:
        file = await asyncio.to_thread(path.open, "rb")
    except OSError as error:
        raise InvalidSpecError(
            f"stdin: {path} cannot be read: {error.strerror}",
            op="exec",
            context={"fields": ["stdin"]},
        ) from None
    with file:
        async for chunk in _chunks(file):
            yield chunk


async def _chunks(file: Readable) -> AsyncIterator[bytes]:
    while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
        if not isinstance(chunk, bytes):
            raise InvalidSpecError(
                "stdin: the file gives text: open it in binary mode",
                op="exec",
                context={"fields": ["stdin"]},
            )
        yield chunk
