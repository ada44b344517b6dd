"""Uploads that are cut short, and sources that cannot be read."""

import asyncio
import contextlib
import os
import threading
from pathlib import Path

import pytest

import ringfence
from ringfence.backends.mock import MockBackend


def held(path: Path) -> int:
    """How many descriptors of this process are open on a file."""
    found = 0
    for number in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found += number.readlink() == path
    return found


async def test_an_upload_cancelled_while_it_opens_a_file_leaves_it_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"content")
    begun, go, opened = threading.Event(), threading.Event(), threading.Event()
    plain = os.open

    def slow(path: str, flags: int, *rest: int, **more: int) -> int:
        if path != str(source):
            return plain(path, flags, *rest, **more)
        begun.set()
        go.wait(60)
        number = plain(path, flags)
        opened.set()
        return number

    async with ringfence.open(backend=MockBackend()) as sandbox:
        monkeypatch.setattr(os, "open", slow)
        task = asyncio.create_task(sandbox.files.upload(source, "/tmp/f"))
        await asyncio.to_thread(begun.wait, 60)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go.set()
        await asyncio.to_thread(opened.wait, 60)
        for _ in range(500):
            if not held(source):
                break
            await asyncio.sleep(0.02)
    assert held(source) == 0


async def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """One that goes away while the others are sent: InvalidSpecError with its path."""
    names = [f"{number:02}" for number in range(20)]
    for name in names:
        (tmp_path / name).write_bytes(b"x")

    def gone(done: int, total: int | None) -> None:
        (tmp_path / names[-1]).unlink(missing_ok=True)

    async with ringfence.open(backend=MockBackend()) as sandbox:
        with pytest.raises(ringfence.InvalidSpecError) as caught:
            await sandbox.files.upload(tmp_path, "/tmp/tree", progress=gone)
    assert str(tmp_path / names[-1]) in str(caught.value)
