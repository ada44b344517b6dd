"""File operations, on the mock's guest and on the real one."""

import asyncio
import errno
import gc
import os
import stat
import struct
import tempfile
from array import array
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ringfence.errors import (
    FileError,
    FileTooLargeError,
    GuestError,
    InvalidSpecError,
    PathDeniedError,
    PathExistsError,
    PathIsADirectoryError,
    PathNotADirectoryError,
    PathNotFoundError,
    SandboxLostError,
)
from ringfence.guest.protocol import (
    HOST_FRAME_CAP,
    OUTPUT_WINDOW,
    STAT,
    Answer,
    Ask,
    Cred,
    WriteFlag,
)
from ringfence.guest.reading import Reader
from ringfence.guest.session import Session

from .conftest import USER, Place, real_place

OTHER = Cred(1001, 1001)
REPLACE = WriteFlag.CREATE | WriteFlag.ATOMIC
LARGE = os.urandom(1024 * 1024) * 3 + b"tail"


async def names(place: Place, path: str, limit: int = 1000, who: Cred = USER) -> list[bytes]:
    found: list[bytes] = []
    cursor: bytes | None = b""
    while cursor is not None:
        page = await place.session.files.list_dir(path, who, cursor=cursor, limit=limit)
        assert len(page.entries) <= limit
        found += [entry.name for entry in page.entries]
        cursor = page.cursor
    return found


async def walk(place: Place, path: str, **options: int) -> dict[bytes, int]:
    found = {}
    async for entries in place.session.files.walk(path, USER, **options):
        for entry in entries:
            assert entry.name not in found
            found[entry.name] = entry.stat.mode
    return found


async def chunks(data: bytes, size: int = 100_000):
    for at in range(0, len(data), size):
        yield data[at : at + size]
        await asyncio.sleep(0)


@pytest.mark.parametrize("data", [b"", b"x", bytes(range(256)) * 3, LARGE])
async def test_what_is_written_is_read(place: Place, data: bytes) -> None:
    files = place.session.files
    path = f"{place.directory}/file"
    assert await files.write(path, USER, data) == len(data)
    assert await files.read(path, USER) == data
    found = await files.stat(path, USER)
    assert (stat.S_IFMT(found.mode), found.size, found.uid) == (stat.S_IFREG, len(data), 1000)


async def test_the_mode_is_exact_and_chmod_changes_it(place: Place) -> None:
    files = place.session.files
    path = f"{place.directory}/file"
    await files.write(path, USER, b"", mode=0o666)
    assert stat.S_IMODE((await files.stat(path, USER)).mode) == 0o666
    await files.chmod(path, USER, 0o640)
    assert stat.S_IMODE((await files.stat(path, USER)).mode) == 0o640
    with pytest.raises(PathDeniedError):
        await files.chmod(path, OTHER, 0o777)


async def test_a_part_of_a_file(place: Place) -> None:
    files = place.session.files
    path = f"{place.directory}/file"
    await files.write(path, USER, b"0123456789")
    assert await files.read(path, USER, offset=3, length=4) == b"3456"
    assert await files.read(path, USER, offset=8, length=4) == b"89"
    assert await files.read(path, USER, offset=20) == b""
    assert await files.read(path, USER, length=0) == b""


async def test_too_large_a_file_is_not_kept(place: Place) -> None:
    files = place.session.files
    path = f"{place.directory}/file"
    await files.write(path, USER, LARGE)
    assert await files.read(path, USER, max_bytes=len(LARGE)) == LARGE
    with pytest.raises(FileTooLargeError):
        await files.read(path, USER, max_bytes=len(LARGE) - 1)


async def test_reading_as_a_stream_holds_a_window_and_ends_early(place: Place) -> None:
    files = place.session.files
    path = f"{place.directory}/file"
    await files.write(path, USER, LARGE)
    reader = files.open_read(path, USER, offset=1)
    assert b"".join([chunk async for chunk in reader]) == LARGE[1:]
    assert reader.stat is not None
    assert reader.stat.size == len(LARGE)
    async with files.open_read(path, USER) as reader:
        first = await reader.read(10)
        assert first == LARGE[:10]
    assert await files.read(path, USER, length=10) == first


async def test_writing_from_an_iterable(place: Place) -> None:
    files = place.session.files
    path = f"{place.directory}/file"
    assert await files.write(path, USER, chunks(LARGE)) == len(LARGE)
    assert await files.read(path, USER) == LARGE


@pytest.fixture
def in_memory(place: Place) -> Iterator[str]:
    """A directory of USER's in memory, for the real guest; the mock's are all in memory."""
    if not place.real:
        yield place.directory
        return
    with tempfile.TemporaryDirectory(prefix="ringfence-place-", dir="/dev/shm") as directory:
        os.chown(directory, *USER[:2])
        yield directory


@pytest.mark.parametrize("longer", [b"", b"old" * 500_000, b"old" * 3_000_000])
async def test_a_long_write_leaves_nothing_of_a_file_in_memory(
    place: Place, in_memory: str, longer: bytes
) -> None:
    files = place.session.files
    path = f"{in_memory}/file"
    await files.write(path, USER, longer)
    assert await files.write(path, USER, LARGE) == len(LARGE)
    assert await files.read(path, USER) == LARGE


async def test_a_long_write_that_is_broken_off_leaves_nothing_of_a_file_in_memory(
    place: Place, in_memory: str
) -> None:
    files = place.session.files
    path = f"{in_memory}/file"
    await files.write(path, USER, bytes(2 * len(LARGE)))

    async def broken():
        yield LARGE
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError):
        await files.write(path, USER, broken())
    assert LARGE.startswith(await files.read(path, USER))


async def test_a_long_write_to_memory_frees_what_is_there_at_its_end() -> None:
    async with real_place() as place:
        files = place.session.files
        path = "/dev/shm/" + os.path.basename(place.directory)  # noqa: PTH119 - a name of its own
        sizes = []

        async def watched():
            sizes.append((await files.stat(path, USER)).size)
            yield b"new"
            sizes.append((await files.stat(path, USER)).size)

        try:
            await files.write(path, USER, LARGE)
            await files.write(path, USER, watched())
            assert sizes == [len(LARGE), len(LARGE)]
            assert await files.read(path, USER) == b"new"
        finally:
            await files.remove(path, USER)


@pytest.mark.parametrize(
    ("flags", "offset", "expected"),
    [
        (0, 0, b"XY23"),
        (0, 3, b"012XY"),
        (0, 6, b"0123\0\0XY"),
        (WriteFlag.TRUNCATE, 0, b"XY"),
        (WriteFlag.APPEND, 0, b"0123XY"),
        (REPLACE, 0, b"XY"),
    ],
)
async def test_how_a_write_meets_what_is_there(
    place: Place, flags: int, offset: int, expected: bytes
) -> None:
    files = place.session.files
    path = f"{place.directory}/file"
    await files.write(path, USER, b"0123")
    await files.write(path, USER, b"XY", flags=flags, offset=offset)
    assert await files.read(path, USER) == expected
    assert await names(place, place.directory) == [b"file"]


async def test_flags_of_creation(place: Place) -> None:
    files = place.session.files
    path = f"{place.directory}/file"
    create = WriteFlag.CREATE
    for flags in (0, WriteFlag.ATOMIC, WriteFlag.APPEND):
        with pytest.raises(PathNotFoundError):
            await files.write(path, USER, b"", flags=flags)
    with pytest.raises(PathNotFoundError):
        await files.write(f"{place.directory}/a/b/file", USER, b"x")
    await files.write(f"{place.directory}/a/b/file", USER, b"x", flags=create | WriteFlag.PARENTS)
    await files.write(path, USER, b"1", flags=create | WriteFlag.EXCLUSIVE)
    for flags in (create | WriteFlag.EXCLUSIVE, REPLACE | WriteFlag.EXCLUSIVE):
        with pytest.raises(PathExistsError):
            await files.write(path, USER, b"2", flags=flags)
        with pytest.raises(PathIsADirectoryError):
            await files.write(place.directory, USER, b"", flags=flags & ~WriteFlag.EXCLUSIVE)
    assert await files.read(path, USER) == b"1"


async def test_an_atomic_write_that_fails_changes_nothing(place: Place) -> None:
    files = place.session.files
    path = f"{place.directory}/file"
    await files.write(path, USER, b"before")

    async def broken():
        yield LARGE
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError):
        await files.write(path, USER, broken(), flags=REPLACE)
    assert await files.write(path, USER, chunks(LARGE), flags=REPLACE) == len(LARGE)
    assert await names(place, place.directory) == [b"file"]
    assert await files.read(path, USER) == LARGE


async def test_permissions_are_the_users(place: Place) -> None:
    files = place.session.files
    path = f"{place.directory}/private"
    await files.write(path, USER, b"secret", mode=0o600)
    for who in (OTHER, Cred(0, 0)):
        with pytest.raises(PathDeniedError):
            await files.read(path, who)
    await files.chmod(path, USER, 0o640)
    assert await files.read(path, Cred(1001, 1001, (7, 1000))) == b"secret"
    with pytest.raises(PathDeniedError):
        await files.write(f"{place.directory}/new", OTHER, b"")
    with pytest.raises(PathDeniedError):
        await files.remove(path, OTHER)
    with pytest.raises(PathDeniedError):
        await files.mkdir(f"{place.directory}/new", OTHER)


async def test_directories(place: Place) -> None:
    files = place.session.files
    path = f"{place.directory}/d"
    await files.mkdir(path, USER, mode=0o777)
    assert (await files.stat(path, USER)).mode == stat.S_IFDIR | 0o777
    with pytest.raises(PathExistsError):
        await files.mkdir(path, USER)
    with pytest.raises(PathNotFoundError):
        await files.mkdir(f"{path}/a/b", USER)
    await files.mkdir(f"{path}/a/b", USER, parents=True)
    await files.mkdir(f"{path}/a/b", USER, parents=True)
    await files.write(f"{path}/file", USER, b"")
    with pytest.raises(PathNotADirectoryError):
        await files.mkdir(f"{path}/file/a", USER, parents=True)
    with pytest.raises(PathExistsError):
        await files.mkdir(f"{path}/file", USER, parents=True)
    with pytest.raises(PathIsADirectoryError):
        await files.read(path, USER)
    with pytest.raises(PathNotADirectoryError):
        await files.list_dir(f"{path}/file", USER)
    assert sorted(await names(place, path)) == [b"a", b"file"]


async def test_removal(place: Place) -> None:
    files = place.session.files
    path = f"{place.directory}/d"
    await files.mkdir(f"{path}/a/b/c", USER, parents=True)
    for name in ("x", "a/x", "a/b/x", "a/b/c/x", "a/b/c/y"):
        await files.write(f"{path}/{name}", USER, b"")
    await files.symlink(place.directory, f"{path}/a/out", USER)
    with pytest.raises(PathExistsError):
        await files.remove(path, USER)
    assert await files.remove(f"{path}/x", USER) == 1
    assert await files.remove(path, USER, recursive=True) == 9
    assert await names(place, place.directory) == []
    with pytest.raises(PathNotFoundError):
        await files.remove(path, USER, recursive=True)


async def test_renaming(place: Place) -> None:
    files = place.session.files
    one, two = f"{place.directory}/one", f"{place.directory}/two"
    await files.write(one, USER, b"1")
    await files.write(two, USER, b"2")
    with pytest.raises(PathExistsError):
        await files.rename(one, two, USER, replace=False)
    await files.rename(one, two, USER)
    assert await files.read(two, USER) == b"1"
    await files.rename(two, one, USER, replace=False)
    assert await names(place, place.directory) == [b"one"]
    with pytest.raises(PathNotFoundError):
        await files.rename(two, one, USER)


async def test_symbolic_links(place: Place) -> None:
    files = place.session.files
    link = f"{place.directory}/link"
    await files.symlink("target", link, USER)
    assert await files.readlink(link, USER) == b"target"
    assert stat.S_ISLNK((await files.stat(link, USER, follow=False)).mode)
    with pytest.raises(PathNotFoundError):
        await files.stat(link, USER)
    await files.write(f"{place.directory}/target", USER, b"data")
    assert await files.read(link, USER) == b"data"
    await files.write(link, USER, b"other", flags=REPLACE)
    assert await files.read(f"{place.directory}/target", USER) == b"data"
    with pytest.raises(FileError):
        await files.readlink(f"{place.directory}/target", USER)
    await files.symlink("loop", f"{place.directory}/loop", USER)
    with pytest.raises(FileError):
        await files.read(f"{place.directory}/loop", USER)


async def test_copies(place: Place) -> None:
    files = place.session.files
    source, target = f"{place.directory}/source", f"{place.directory}/target"
    await files.mkdir(f"{source}/a/b", USER, parents=True, mode=0o750)
    await files.write(f"{source}/a/file", USER, b"12345", mode=0o755)
    await files.write(f"{source}/a/b/large", USER, LARGE)
    await files.symlink("a/file", f"{source}/link", USER)
    with pytest.raises(PathIsADirectoryError):
        await files.copy(source, target, USER)
    assert await files.copy(source, target, USER, recursive=True) == 5 + len(LARGE)
    assert await walk(place, target) == await walk(place, source)
    assert await files.read(f"{target}/a/b/large", USER) == LARGE
    assert await files.readlink(f"{target}/link", USER) == b"a/file"
    assert await files.copy(f"{target}/link", f"{place.directory}/file", USER) == 5
    assert await files.read(f"{place.directory}/file", USER) == b"12345"
    with pytest.raises(PathNotFoundError):
        await files.copy(f"{source}/no", target, USER)


async def test_a_large_directory_in_pages(place: Place) -> None:
    files = place.session.files
    made = {f"file-{number:04}".encode() for number in range(1200)}
    writes = (files.write(f"{place.directory}/{name.decode()}", USER, name) for name in made)
    await asyncio.gather(*writes)
    assert sorted(await names(place, place.directory, limit=500)) == sorted(made)
    page = await files.list_dir(place.directory, USER, limit=1)
    assert page.entries[0].stat.size == len(page.entries[0].name)
    page = await files.list_dir(place.directory, USER, limit=1, with_stat=False)
    assert page.entries[0].stat == (0,) * 8


async def test_pages_hold_while_entries_go(place: Place) -> None:
    files = place.session.files
    made = {f"file-{number:03}".encode() for number in range(300)}
    writes = (files.write(f"{place.directory}/{name.decode()}", USER, b"") for name in made)
    await asyncio.gather(*writes)
    seen = set()
    cursor: bytes | None = b""
    while cursor is not None:
        page = await files.list_dir(place.directory, USER, cursor=cursor, limit=50)
        for entry in page.entries:
            seen.add(entry.name)
            await files.remove(f"{place.directory}/{entry.name.decode()}", USER)
        cursor = page.cursor
    assert seen == made
    assert await names(place, place.directory) == []


async def test_a_walk(place: Place) -> None:
    files = place.session.files
    await files.mkdir(f"{place.directory}/a/b/c", USER, parents=True)
    await files.write(f"{place.directory}/a/b/file", USER, b"")
    await files.symlink("/", f"{place.directory}/a/link", USER)
    await files.mkdir(f"{place.directory}/a/shut", USER, mode=0)
    found = await walk(place, place.directory)
    assert set(found) == {b"a", b"a/b", b"a/b/c", b"a/b/file", b"a/link", b"a/shut"}
    assert stat.S_ISLNK(found[b"a/link"])
    assert set(await walk(place, place.directory, depth=2)) == set(found) - {b"a/b/c", b"a/b/file"}
    assert len(await walk(place, place.directory, max_entries=3)) == 3
    with pytest.raises(PathNotFoundError):
        await walk(place, f"{place.directory}/no")
    with pytest.raises(PathNotADirectoryError):
        await walk(place, f"{place.directory}/a/b/file")


async def test_a_walk_larger_than_its_window_can_be_left(place: Place) -> None:
    files = place.session.files
    long = "n" * 200
    for above in range(40):
        await files.mkdir(f"{place.directory}/{above}", USER)
        writes = (
            files.write(f"{place.directory}/{above}/{long}{i}", USER, b"") for i in range(100)
        )
        await asyncio.gather(*writes)
    total = 40 * (100 * 259 + 60)
    assert total > OUTPUT_WINDOW // 2
    assert len(await walk(place, place.directory)) == 4040
    left = files.walk(place.directory, USER)
    assert await anext(left)
    await left.aclose()
    assert len(await walk(place, place.directory)) == 4040


async def test_only_absolute_paths_without_nul(place: Place) -> None:
    for path in ("relative", "", "a\0b", "/a\0b"):
        with pytest.raises(InvalidSpecError):
            await place.session.files.read(path, USER)


async def test_a_view_of_wider_items_is_written_by_its_bytes(place: Place) -> None:
    """Its length is its number of items: a frame that said so was shorter than what followed."""
    path = f"{place.directory}/wide"
    wide = memoryview(array("I", range(1 << 20)))

    async def pieces() -> AsyncIterator[memoryview]:
        yield wide[:1000]
        yield wide[1000:]

    for data in (wide[:4], wide, pieces()):
        await place.session.files.write(path, USER, data)
    assert await place.session.files.read(path, USER) == wide.tobytes()
    for other in (wide[::2], "text"):
        with pytest.raises(InvalidSpecError):
            await place.session.files.write(path, USER, other)


async def test_too_long_a_name(place: Place) -> None:
    for path in ("/" + "n" * 256, "/n" * 2100):
        with pytest.raises(FileError):
            await place.session.files.stat(place.directory + path, USER)


async def test_what_no_frame_takes_is_refused_before_anything_is_sent(place: Place) -> None:
    """And nothing waits for an answer then, which would fail a minute later with nobody to see."""
    session = place.session
    path = place.directory + "/n" * (HOST_FRAME_CAP // 2)
    files = session.files
    before = session.operations()
    for call in (
        files.stat(path, USER),
        files.read(path, USER),
        files.write(path, USER, b""),
        files.write(path, USER, b"x" * 2**21),
        files.mkdir(path, USER),
        files.rename(place.directory, path, USER),
        files.copy(path, place.directory, USER),
        files.watch(path, USER),
    ):
        with pytest.raises(FileError, match="over 4095") as caught:
            await call
        assert len(str(caught.value)) < 1000
        assert caught.value.context["errno"] == errno.ENAMETOOLONG
    for begin in (files.walk, files.open_read):
        with pytest.raises(FileError, match="over 4095"):
            begin(path, USER)
    for call in (files.symlink(path, f"{place.directory}/link", USER), session.user(path)):
        with pytest.raises(InvalidSpecError, match="one frame"):
            await call
    assert session.operations() == before
    assert (await files.stat(place.directory, USER)).mode


@settings(
    max_examples=40,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(name=st.binary(min_size=1, max_size=255).filter(lambda n: not set(n) & {0, 47}))
async def test_any_bytes_are_a_name(place: Place, name: bytes) -> None:
    files = place.session.files
    path = place.directory.encode() + b"/" + name
    if name in (b".", b".."):
        assert stat.S_ISDIR((await files.stat(path, USER)).mode)
        return
    await files.write(path, USER, name)
    assert await names(place, place.directory) == [name]
    assert await files.read(path, USER) == name
    assert await files.remove(path, USER) == 1


@pytest.fixture
async def real(place: Place) -> Place:
    if not place.real:
        pytest.skip("the mock has only regular files, directories and links")
    return place


async def test_paths_longer_than_the_kernel_takes_are_told_as_such(real: Place) -> None:
    """Of a tree with names that are all short enough, which no path reaches the end of."""
    await real.session.files.mkdir(f"{real.directory}/top", USER)
    above = os.open(f"{real.directory}/top", os.O_RDONLY)
    for _ in range(25):
        os.mkdir("n" * 200, dir_fd=above)
        below = os.open("n" * 200, os.O_RDONLY, dir_fd=above)
        os.chown(below, *USER[:2])
        os.close(above)
        above = below
    os.close(above)
    with pytest.raises(FileError, match="path at or below it over 4095"):
        await walk(real, f"{real.directory}/top")
    assert await real.session.files.remove(f"{real.directory}/top", USER, recursive=True) == 26


async def test_only_regular_files_are_read_and_written(real: Place) -> None:
    files = real.session.files
    fifo = Path(real.directory) / "fifo"
    os.mkfifo(fifo)
    os.chown(fifo, *USER[:2])
    for path in (str(fifo), "/dev/zero"):
        with pytest.raises(FileError) as caught:
            await files.read(path, USER)
        assert caught.value.context["errno"] == 22
    with pytest.raises(FileError) as caught:
        await files.write(str(fifo), USER, b"x")
    assert caught.value.context["errno"] == 22


async def test_the_guest_gives_nothing_of_itself_away(real: Place) -> None:
    files = real.session.files
    await files.symlink("/proc/self/mem", f"{real.directory}/link", USER)
    for path in ("/proc/self/mem", "/proc/1/environ", "/proc/self/auxv", f"{real.directory}/link"):
        for who in (USER, Cred(0, 0)):
            with pytest.raises(PathDeniedError):
                await files.read(path, who)
            with pytest.raises(PathDeniedError):
                await files.write(path, who, b"x", flags=0)
    assert b"Seccomp" in await files.read("/proc/1/status", USER)


async def test_the_reserved_user_is_nobodys(real: Place) -> None:
    with pytest.raises(PathDeniedError):
        await real.session.files.stat("/", Cred(real.session.hello.reserved_uid, 0))
    with pytest.raises(PathDeniedError):
        await walk_as(real, Cred(real.session.hello.reserved_uid, 0))


async def walk_as(place: Place, who: Cred) -> None:
    async for _ in place.session.files.walk(place.directory, who):
        pass


async def test_a_deep_tree_is_removed(real: Place) -> None:
    files = real.session.files
    for part in range(30):
        await files.mkdir("/".join([real.directory, *["d" * 120] * (part + 1)]), USER)
    assert len(await walk(real, real.directory)) == 30
    top = f"{real.directory}/{'d' * 120}"
    assert await files.remove(top, USER, recursive=True) == 30


async def test_a_tree_is_not_copied_into_itself(real: Place) -> None:
    files = real.session.files
    await files.mkdir(f"{real.directory}/a", USER)
    await files.write(f"{real.directory}/a/file", USER, b"1")
    with pytest.raises(FileError):
        await files.copy(f"{real.directory}/a", f"{real.directory}/a/b", USER, recursive=True)


async def test_an_abandoned_write_leaves_no_file_beside(real: Place) -> None:
    files = real.session.files
    started = asyncio.Event()

    async def endless():
        while True:
            yield LARGE
            started.set()

    writing = asyncio.create_task(
        files.write(f"{real.directory}/file", USER, endless(), flags=REPLACE)
    )
    await started.wait()
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert await names(real, real.directory) == []


# What a hostile guest may say.


async def read_to_the_end(reader: Reader) -> None:
    while await reader.read():
        pass


DONE_READ = struct.pack("<Q", 0) + STAT.pack(*(0,) * 8)


@pytest.mark.parametrize(
    "frames",
    [
        [(Answer.DATA, struct.pack("<Q", 5) + b"x")],
        [(Answer.DATA, b"short")],
        [(Answer.DATA, bytes(8) + bytes(600 * 1024)), (Answer.DATA, bytes(8) + bytes(600 * 1024))],
        [(Answer.DATA, bytes(8) + b"x"), (Answer.DONE, DONE_READ)],
        [(Answer.DONE, DONE_READ + b"more")],
        [(Answer.ENTRIES, struct.pack("<I", 0))],
    ],
)
async def test_a_read_that_makes_no_sense_ends_the_session(puppet: tuple, frames: list) -> None:
    session, guest = puppet
    guest.answers[Ask.READ] = frames
    async with session.files.open_read("/file", USER) as reader:
        with pytest.raises(SandboxLostError):
            await read_to_the_end(reader)
    assert isinstance(await session.lost, GuestError)


@pytest.mark.parametrize(
    "payload", [b"", struct.pack("<I", 2**31), struct.pack("<I", 1) + b"x" * 9]
)
async def test_a_walk_that_makes_no_sense_ends_the_session(
    puppet: tuple[Session, object], payload: bytes
) -> None:
    session, guest = puppet
    guest.answers[Ask.WALK] = [(Answer.ENTRIES, payload)]  # type: ignore[attr-defined]
    with pytest.raises(Exception, match="protocol"):
        async for _ in session.files.walk("/", USER):
            pass
    assert isinstance(await session.lost, GuestError)


async def test_a_write_whose_source_fails_as_well_tells_of_that_alone(puppet: tuple) -> None:
    session, guest = puppet
    unhandled: list[dict] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, told: unhandled.append(told))
    guest.answers[Ask.WRITE] = [(Answer.FAIL, struct.pack("<IBI", errno.ENOSPC, 0, 0))]

    async def source() -> AsyncIterator[bytes]:
        yield b"x"
        await session.ping()
        raise ValueError("the source")

    with pytest.raises(ValueError, match="the source"):
        await session.files.write("/f", USER, source())
    gc.collect()
    await asyncio.sleep(0)
    assert unhandled == []
