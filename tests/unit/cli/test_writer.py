"""What writes a sandbox's output to our streams never keeps this process from going on."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from ringfence.cli.writer import Writer

MUCH = bytes(range(256)) * 4096
"""A MiB, more than any pipe takes."""


def ends(reading: int, writing: int) -> Iterator[tuple[int, TextIO]]:
    """Where it is read, and our stream."""
    with open(writing, "w") as stream, open(reading, "rb", closefd=True):
        yield reading, stream


@pytest.fixture
def pipe() -> Iterator[tuple[int, TextIO]]:
    """See `ends`."""
    yield from ends(*os.pipe())


@pytest.fixture
def terminal() -> Iterator[tuple[int, TextIO]]:
    """See `ends`."""
    yield from ends(*os.openpty())


async def stuck(
    stream: TextIO, data: bytes = MUCH, *, blocking: bool = True
) -> tuple[Writer, "asyncio.Task[None]"]:
    """A writer whose stream is full."""
    os.set_blocking(stream.fileno(), blocking)
    writer = Writer(stream)
    task = asyncio.create_task(writer.write(data))
    while writer._waiter is None:
        await asyncio.sleep(0)
    return writer, task


async def test_a_terminal_that_takes_no_more_keeps_nobody(terminal: tuple[int, TextIO]) -> None:
    """It says that it can be written when it takes less than a pipe would. Others who write to it
    wait as before."""
    lines = (b"x" * 79 + b"\n") * 8192
    shown = lines.replace(b"\n", b"\r\n")
    writer, task = await stuck(terminal[1], lines)
    assert os.get_blocking(terminal[1].fileno())
    found = b""
    while len(found) < len(shown):
        found += await asyncio.to_thread(os.read, terminal[0], 65536)
    await task
    writer.close()
    assert found == shown


@pytest.mark.parametrize("blocking", [True, False])
async def test_a_reader_who_goes_on_later_gets_all_of_it(
    blocking: bool, pipe: tuple[int, TextIO]
) -> None:
    """Also where somebody else made our stream non-blocking."""
    _, task = await stuck(pipe[1], blocking=blocking)
    found = b""
    while len(found) < len(MUCH):
        found += await asyncio.to_thread(os.read, pipe[0], 65536)
    await task
    assert found == MUCH


async def test_a_reader_who_never_goes_on_is_given_up(pipe: tuple[int, TextIO]) -> None:
    """When the command is killed; what comes later goes nowhere, too."""
    writer, task = await stuck(pipe[1])
    writer.give_up()
    await task
    await writer.write(MUCH)


async def test_a_reader_who_goes_away_while_we_wait_is_a_broken_pipe(
    pipe: tuple[int, TextIO],
) -> None:
    _, task = await stuck(pipe[1])
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, pipe[0])  # the fixture closes it
    os.close(null)
    with pytest.raises(BrokenPipeError):
        await task


async def test_a_cancelled_write_leaves_nothing_behind(pipe: tuple[int, TextIO]) -> None:
    writer, task = await stuck(pipe[1])
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert writer._waiter is None
    assert not asyncio.get_running_loop().remove_writer(pipe[1].fileno())


async def test_a_file_takes_all_of_a_piece_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It never makes anybody wait, so that its pieces need not be a pipe's."""
    sizes = []
    write = os.write

    def noting(file: int, data: memoryview) -> int:
        sizes.append(len(data))
        return write(file, data)

    monkeypatch.setattr(os, "write", noting)
    with (tmp_path / "output").open("w") as stream:
        await Writer(stream).write(MUCH)
    assert (tmp_path / "output").read_bytes() == MUCH
    assert sizes == [len(MUCH)]


@pytest.mark.parametrize(("raw", "shown"), [(True, b"\x1b[31m"), (False, b"\\x1b[31m")])
async def test_only_what_is_raw_controls_a_terminal(
    raw: bool, shown: bytes, terminal: tuple[int, TextIO]
) -> None:
    """As a shell's does. Nothing stays open afterwards."""
    before = os.listdir("/proc/self/fd")  # noqa: PTH208 - of this process
    writer = Writer(terminal[1], raw=raw)
    await writer.write(b"\x1b[31m")
    writer.close()
    assert os.read(terminal[0], 100) == shown
    assert os.listdir("/proc/self/fd") == before  # noqa: PTH208 - of this process
