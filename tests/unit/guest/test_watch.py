"""Watching files, on the mock's guest and on the real one."""

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ringfence.errors import FileError, PathDeniedError, PathNotFoundError, SandboxLostError
from ringfence.guest.protocol import U32, Answer, Ask, Cred, Feature, WriteFlag
from ringfence.guest.walks import OVERFLOW, Event, Watch

from .conftest import USER, Place

CREATED, DELETED, MODIFIED, MOVED_FROM, MOVED_TO = 0x100, 0x200, 0x2, 0x40, 0x80
SECONDS = 30


async def until(watch: Watch, wanted: Callable[[Event], bool]) -> list[Event]:
    """All events up to the first that is wanted."""
    seen = []
    async with asyncio.timeout(SECONDS):
        async for event in watch:
            seen.append(event)
            if wanted(event):
                return seen
    raise AssertionError(f"the watch ended: {seen}")


def is_(mask: int, path: bytes) -> Callable[[Event], bool]:
    return lambda event: bool(event.mask & mask) and event.path == path


@pytest.fixture
async def watchable(place: Place) -> Place:
    assert place.session.hello.features & Feature.WATCH
    return place


async def test_changes_in_a_directory(watchable: Place) -> None:
    files = watchable.session.files
    path = f"{watchable.directory}/file"
    watch = await files.watch(watchable.directory, USER)
    await files.write(path, USER, b"data")
    await until(watch, is_(CREATED, b"file"))
    await until(watch, is_(MODIFIED, b"file"))
    await files.rename(path, path + "2", USER)
    await until(watch, is_(MOVED_FROM, b"file"))
    await until(watch, is_(MOVED_TO, b"file2"))
    await files.remove(path + "2", USER)
    await until(watch, is_(DELETED, b"file2"))
    await watch.aclose()


async def test_without_recursion_what_is_below_stays_unseen(watchable: Place) -> None:
    files = watchable.session.files
    await files.mkdir(f"{watchable.directory}/d", USER)
    watch = await files.watch(watchable.directory, USER)
    await files.write(f"{watchable.directory}/d/below", USER, b"")
    await files.write(f"{watchable.directory}/after", USER, b"")
    seen = await until(watch, is_(CREATED, b"after"))
    assert not [event for event in seen if b"below" in event.path]
    await watch.aclose()


async def test_a_tree(watchable: Place) -> None:
    files = watchable.session.files
    await files.mkdir(f"{watchable.directory}/a/b", USER, parents=True)
    watch = await files.watch(watchable.directory, USER, recursive=True)
    await files.write(f"{watchable.directory}/a/b/file", USER, b"")
    await until(watch, is_(CREATED, b"a/b/file"))
    new = f"{watchable.directory}/x/y/z/file"
    await files.write(new, USER, b"", flags=WriteFlag.CREATE | WriteFlag.PARENTS)
    await until(watch, is_(CREATED, b"x/y/z/file"))
    await watch.aclose()


async def test_a_file(watchable: Place) -> None:
    files = watchable.session.files
    path = f"{watchable.directory}/file"
    await files.write(path, USER, b"")
    watch = await files.watch(path, USER)
    await files.write(path, USER, b"more", flags=WriteFlag.APPEND)
    await until(watch, is_(MODIFIED, b""))
    await watch.aclose()


async def test_nothing_to_watch(watchable: Place) -> None:
    with pytest.raises(PathNotFoundError):
        await watchable.session.files.watch(f"{watchable.directory}/no", USER)


async def test_a_directory_that_moves_is_followed(place: Place) -> None:
    if not place.real:
        pytest.skip("the mock knows no directory by its identity")
    files = place.session.files
    await files.mkdir(f"{place.directory}/old/below", USER, parents=True)
    watch = await files.watch(place.directory, USER, recursive=True)
    await files.rename(f"{place.directory}/old", f"{place.directory}/new", USER)
    await until(watch, is_(MOVED_TO, b"new"))
    await files.write(f"{place.directory}/new/below/file", USER, b"")
    await until(watch, is_(CREATED, b"new/below/file"))
    await watch.aclose()


async def test_a_private_directory_is_not_watched_by_others(place: Place) -> None:
    if not place.real:
        pytest.skip("the mock does not check who watches")
    private = Path(place.directory) / "private"
    private.mkdir(mode=0o700)
    os.chown(private, *USER[:2])
    with pytest.raises(PathDeniedError):
        await place.session.files.watch(str(private), Cred(1001, 1001))


HOLDS_ALL = """
import ctypes, os
os.setuid(61999)
libc = ctypes.CDLL(None)
while libc.inotify_init() >= 0:
    pass
print("all", flush=True)
input()
"""


async def test_a_user_whose_watchers_are_used_up_is_told_of_that_limit(place: Place) -> None:
    if not place.real:
        pytest.skip("the mock watches without the kernel")
    pipe = asyncio.subprocess.PIPE
    holder = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOLDS_ALL, stdin=pipe, stdout=pipe
    )
    assert holder.stdout is not None
    assert await holder.stdout.readline() == b"all\n"
    with pytest.raises(FileError, match=r"fs\.inotify\.max_user_instances"):
        await place.session.files.watch("/", Cred(61999, 61999))
    await holder.communicate(b"\n")


async def test_more_events_than_are_kept_are_an_overflow(puppet: tuple) -> None:
    session, guest = puppet
    guest.answers[Ask.WATCH] = [(Answer.EVENT, U32.pack(0) * 3)]
    watch = await session.files.watch("/", USER)
    for _ in range(5000):
        guest.send(Answer.EVENT, watch.id, U32.pack(CREATED) + U32.pack(0) * 2)
    await session.ping()
    events = [await anext(watch) for _ in range(4096)]
    assert events[-1].mask == OVERFLOW
    await watch.aclose()


async def test_a_watch_ends_with_its_session(puppet: tuple) -> None:
    session, guest = puppet
    guest.answers[Ask.WATCH] = [(Answer.EVENT, U32.pack(0) * 3)]
    watch = await session.files.watch("/", USER)
    guest.hang_up()
    with pytest.raises(SandboxLostError):
        await anext(watch)
