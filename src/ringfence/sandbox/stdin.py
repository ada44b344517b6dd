"""Whatever a user gives as stdin, as bytes or an async iterable of them."""

import asyncio
import io
import os
import select
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO, Protocol, Self, runtime_checkable

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
    with _Opened() as opened:
        try:
            file = await asyncio.to_thread(opened.open, path)
        except OSError as error:
            raise InvalidSpecError(
                f"stdin: {path} cannot be read: {error.strerror}",
                op="exec",
                context={"fields": ["stdin"]},
            ) from None
        async for chunk in _chunks(file):
            yield chunk


class _Opened:
    """The file that a thread opens, which is closed also when nobody waits for the thread."""

    def __init__(self) -> None:
        self._files: list[BinaryIO] = []
        self._over = False

    def open(self, path: Path) -> BinaryIO:
        file = open(path, "rb", opener=_at_once)  # noqa: SIM115 - closed at the end
        self._files.append(file)
        if self._over:
            file.close()
        return file

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        for file in self._files:
            file.close()


def _at_once(path: str, flags: int) -> int:
    """Open also a FIFO that has no writer yet; the writer is waited for by `_reading`."""
    fd = os.open(path, flags | os.O_NONBLOCK)
    os.set_blocking(fd, True)
    return fd


async def _chunks(file: Readable) -> AsyncIterator[bytes]:
    with _reading(file) as read:
        while chunk := await read():
            if not isinstance(chunk, bytes):
                raise InvalidSpecError(
                    "stdin: the file gives text: open it in binary mode",
                    op="exec",
                    context={"fields": ["stdin"]},
                )
            yield chunk


@contextmanager
def _reading(file: Readable) -> Iterator[Callable[[], Awaitable[bytes]]]:
    """How the next bytes of `file` are got, b"" at the end.

    Of a pipe or a terminal once there are some, for a thread that waits in read(2) cannot be
    called back, and an event loop ends only after it.
    """
    with select.epoll() as poll:
        if not _watches(poll, file):
            yield partial(asyncio.to_thread, file.read, CHUNK_BYTES)
            return
        piece = file.read1 if isinstance(file, io.BufferedReader) else file.read

        async def read() -> bytes:
            await _readable(poll.fileno())
            return await asyncio.to_thread(piece, CHUNK_BYTES)

        yield read


def _watches(poll: select.epoll, file: Readable) -> bool:
    """Whether `poll` tells when the file has more. Not of one that only wraps a descriptor, and
    may hold more than that has, and not of one that never waits."""
    raw = file.raw if isinstance(file, io.BufferedReader) else file
    if not isinstance(raw, io.FileIO) or raw.closed:
        return False
    try:
        poll.register(raw.fileno(), select.EPOLLIN)
    except PermissionError:
        return False
    return True


async def _readable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    came = asyncio.Event()
    loop.add_reader(fd, came.set)
    try:
        await came.wait()
    finally:
        loop.remove_reader(fd)
