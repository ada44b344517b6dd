"""Files as the stdin of commands: a pipe holds nobody up, and nothing of it is lost."""

import asyncio
import os
import threading
from pathlib import Path
from typing import Any

import pytest

import ringfence
from ringfence.backends.mock import MockBackend
from ringfence.sandbox.stdin import as_input


def ends(stdin: Any) -> bool:
    """Whether `asyncio.run` ends once a command has that did not read this stdin."""

    async def main() -> None:
        async with ringfence.open(backend=MockBackend()) as sandbox:
            assert (await sandbox.exec(["true"], stdin=stdin)).ok
            async with sandbox.spawn(["true"], stdin=stdin) as process:
                await process.wait()

    thread = threading.Thread(target=asyncio.run, args=(main(),), daemon=True)
    thread.start()
    thread.join(20)
    return not thread.is_alive()


@pytest.mark.filterwarnings("error::ResourceWarning")
@pytest.mark.parametrize("kind", ["pipe", "raw pipe", "terminal", "path of a FIFO"])
def test_what_nobody_writes_to_does_not_keep_the_loop_from_ending(
    kind: str, tmp_path: Path
) -> None:
    """No thread is left waiting in read(2), or in open(2), for a command that has ended."""
    fifo = tmp_path / "fifo"
    if kind == "path of a FIFO":
        os.mkfifo(fifo)
        ended = ends(fifo)
        if not ended:
            os.close(os.open(fifo, os.O_WRONLY))
        assert ended
        return
    reading, writing = os.openpty()[::-1] if kind == "terminal" else os.pipe()
    with os.fdopen(reading, "rb", buffering=0 if kind == "raw pipe" else -1) as file:
        ended = ends(file)
        os.close(writing)  # lets a thread go that waits
        assert ended


async def test_what_a_pipe_has_comes_before_its_end() -> None:
    """A piece is handed on as it comes, not once there are enough of them or no more."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as file, os.fdopen(writing, "wb", buffering=0) as pipe:
        pieces = aiter(as_input(file))
        pipe.write(b"one")
        assert await anext(pieces) == b"one"
        pipe.write(b"two")
        assert await anext(pieces) == b"two"
        await pieces.aclose()


async def test_what_was_read_ahead_of_a_pipe_is_not_lost() -> None:
    """The file's own buffer comes first, then what the pipe has, to its end."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as file:
        os.write(writing, b"head\nbody ")
        assert file.readline() == b"head\n"
        os.write(writing, b"tail")
        os.close(writing)
        assert b"".join([piece async for piece in as_input(file)]) == b"body tail"


async def test_a_fifo_is_read_once_somebody_writes_to_it(tmp_path: Path) -> None:
    """It is open before its writer comes, and its end is the writer's."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    pieces = aiter(as_input(fifo))
    first = asyncio.ensure_future(anext(pieces))
    await asyncio.sleep(0.1)
    assert not first.done()
    with fifo.open("wb") as file:
        file.write(b"content")
    assert await first == b"content"
    with pytest.raises(StopAsyncIteration):
        await anext(pieces)


@pytest.mark.parametrize("path", ["/dev/null", "/proc/self/comm", "file"])
async def test_what_cannot_be_polled_is_read_as_a_file(path: str, tmp_path: Path) -> None:
    """A regular file and a device that never waits give what they have."""
    (tmp_path / "file").write_bytes(b"x" * 600_000)
    where = tmp_path / path
    with where.open("rb") as file:
        content = b"".join([piece async for piece in as_input(file)])
    assert content == where.read_bytes()
