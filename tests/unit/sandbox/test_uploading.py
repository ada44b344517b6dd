"""Uploads that are cut short, and sources that cannot be read."""

import asyncio
import contextlib
import os
import subprocess
import threading
from pathlib import Path

import pytest

import ringfence
from ringfence.backends.mock import MockBackend
from ringfence.sandbox import uploading
from ringfence.sandbox.moved import each

from .conftest import cancelled


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


async def test_a_source_that_is_a_link_is_what_it_leads_to(tmp_path: Path) -> None:
    """A file as well as a directory; the links in it stay links."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_bytes(b"content")
    (tmp_path / "tree" / "link").symlink_to("file")
    (tmp_path / "to-file").symlink_to("tree/link")
    (tmp_path / "to-tree").symlink_to("tree")
    async with ringfence.open(backend=MockBackend()) as sandbox:
        await sandbox.files.upload(tmp_path / "to-file", "/tmp/f")
        assert not (await sandbox.files.stat("/tmp/f", follow_symlinks=False)).mode & 0o111
        assert await sandbox.files.read("/tmp/f") == b"content"
        await sandbox.files.upload(os.fsencode(tmp_path / "to-tree"), "/tmp/t")  # type: ignore[arg-type]
        assert await sandbox.files.readlink("/tmp/t/link") == "file"


@pytest.mark.parametrize("source", ["/no\0where", "/nowhere", ""])
async def test_what_is_no_source_is_named(source: str) -> None:
    async with ringfence.open(backend=MockBackend()) as sandbox:
        with pytest.raises(ringfence.InvalidSpecError, match="cannot be read"):
            await sandbox.files.upload(source, "/tmp/f")


def test_a_tree_of_any_depth_is_found(tmp_path: Path) -> None:
    """It ends at what the kernel takes, not at this program's stack; a directory before its own."""
    place = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=place)
        inner = os.open("d", os.O_RDONLY, dir_fd=place)
        os.close(place)
        place = inner
    os.close(place)
    try:
        members, _ = uploading._survey(str(tmp_path), "/t")
    finally:
        subprocess.run(["rm", "-r", tmp_path / "d"], check=True)  # which shutil cannot
    assert [member.inside for member in members] == ["/t" + "/d" * depth for depth in range(1501)]


async def test_an_upload_cancelled_while_it_reads_closes_the_file_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the number may be another file's by the time the thread reads from it."""
    source = tmp_path / "source"
    source.write_bytes(b"content")
    begun, go = threading.Event(), threading.Event()
    plain, number = os.read, []

    def slow(descriptor: int, size: int) -> bytes:
        if not held(source):
            return plain(descriptor, size)
        begun.set()
        go.wait(60)
        number.append(os.path.realpath(f"/proc/self/fd/{descriptor}"))
        return plain(descriptor, size)

    async with ringfence.open(backend=MockBackend()) as sandbox:
        monkeypatch.setattr(os, "read", slow)
        await cancelled(sandbox.files.upload(source, "/tmp/f"), begun, go)
    assert number == [str(source)]
    assert held(source) == 0


async def test_a_transfer_that_is_cancelled_twice_lets_what_it_began_clean_up() -> None:
    begun, go = asyncio.Event(), asyncio.Event()
    ended = []

    async def work(item: int) -> None:
        try:
            begun.set()
            await asyncio.sleep(60)
        finally:
            await go.wait()
            ended.append(item)

    task = asyncio.create_task(each(range(3), work))
    await begun.wait()
    for _ in range(2):
        task.cancel()
        for _ in range(5):
            await asyncio.sleep(0)
    assert (task.done(), ended) == (False, [])
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sorted(ended) == [0, 1, 2]
