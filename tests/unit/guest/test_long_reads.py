"""Long files go from the socket to where they stay, whatever the guest says of their size."""

import asyncio
import ctypes
import os
from pathlib import Path

import pytest

from ringfence.errors import FileError, FileTooLargeError, GuestError, SandboxLostError
from ringfence.guest.memory import in_large_pages, populate
from ringfence.guest.protocol import STAT, U32, U64, Answer, Ask
from ringfence.guest.reading import Whole
from ringfence.guest.session import Session

from .conftest import USER, Place
from .puppets import Puppet

FRAME = 256 * 1024
CONTENT = os.urandom(3 * FRAME + 100)
FAILED = U32.pack(5) + b"\0" + U32.pack(0)
END = U64.pack(len(CONTENT)) + bytes(STAT.size)


async def begin(session: Session, guest: Puppet, **how: int | None) -> tuple[int, asyncio.Task]:
    """A read that has begun, and its id."""
    reading = asyncio.create_task(session.files.read("/f", USER, **how))
    return (await guest.question(Ask.READ))[0], reading


def send(guest: Puppet, number: int, content: bytes = CONTENT) -> None:
    for at in range(0, len(content), FRAME):
        guest.send(Answer.DATA, number, U64.pack(at) + content[at : at + FRAME])


@pytest.mark.parametrize(
    "said", [0, 1, FRAME, len(CONTENT) - 1, len(CONTENT), len(CONTENT) + 1, 2**40, 2**64 - 1]
)
async def test_a_wrong_size_changes_nothing(puppet: tuple[Session, Puppet], said: int) -> None:
    session, guest = puppet
    number, reading = await begin(session, guest)
    guest.send(Answer.SIZE, number, U64.pack(said))
    send(guest, number)
    guest.send(Answer.DONE, number, END)
    assert await asyncio.wait_for(reading, 20) == CONTENT


async def test_frames_that_come_in_pieces_arrive_whole(puppet: tuple[Session, Puppet]) -> None:
    session, guest = puppet
    number, reading = await begin(session, guest)
    sent: list[bytes] = []
    guest.send_bytes, real = sent.append, guest.send_bytes  # type: ignore[method-assign]
    guest.send(Answer.SIZE, number, U64.pack(len(CONTENT)))
    send(guest, number)
    guest.send(Answer.DONE, number, END)
    stream = b"".join(sent)
    for at in range(0, len(stream), 50_021):
        real(stream[at : at + 50_021])
        await asyncio.sleep(0)
    assert await asyncio.wait_for(reading, 20) == CONTENT


async def test_a_cancelled_read_leaves_the_stream_in_order(puppet: tuple[Session, Puppet]) -> None:
    session, guest = puppet
    number, reading = await begin(session, guest)
    frame = bytearray()
    guest.send_bytes, real = frame.extend, guest.send_bytes  # type: ignore[method-assign]
    guest.send(Answer.SIZE, number, U64.pack(len(CONTENT)))
    send(guest, number, CONTENT[:FRAME])
    guest.send_bytes = real  # type: ignore[method-assign]
    real(bytes(frame[: FRAME // 2]))
    for _ in range(20):
        await asyncio.sleep(0)
    reading.cancel()
    await guest.question(Ask.CANCEL)
    real(bytes(frame[FRAME // 2 :]))
    guest.answers[Ask.REMOVE] = [(Answer.DONE, U64.pack(1))]
    assert await asyncio.wait_for(session.files.remove("/f", USER), 20) == 1
    with pytest.raises(asyncio.CancelledError):
        await reading


async def test_a_stream_that_ends_within_a_frame_is_a_lost_sandbox(
    puppet: tuple[Session, Puppet],
) -> None:
    session, guest = puppet
    number, reading = await begin(session, guest)
    guest.send(Answer.SIZE, number, U64.pack(len(CONTENT)))
    guest.send_bytes(b"\x0d\x00\x04\x00" + bytes((Answer.DATA,)) + number.to_bytes(4, "little"))
    guest.send_bytes(U64.pack(0) + CONTENT[:1000])
    for _ in range(20):
        await asyncio.sleep(0)
    operation = session._operations[number]
    assert isinstance(operation, Whole)
    guest.hang_up()
    with pytest.raises(SandboxLostError):
        await asyncio.wait_for(reading, 20)
    operation._data.close()  # BufferError while anything still writes to it


async def test_the_limit_holds_whatever_was_said(puppet: tuple[Session, Puppet]) -> None:
    session, guest = puppet
    number, reading = await begin(session, guest, max_bytes=FRAME)
    guest.send(Answer.SIZE, number, U64.pack(FRAME))
    send(guest, number)
    with pytest.raises(FileTooLargeError):
        await asyncio.wait_for(reading, 20)


@pytest.mark.parametrize("wrong", ["twice", "late", "step"])
async def test_what_makes_no_sense_ends_the_session(
    puppet: tuple[Session, Puppet], wrong: str
) -> None:
    session, guest = puppet
    number, reading = await begin(session, guest)
    size = U64.pack(8 * FRAME)
    if wrong == "late":
        send(guest, number)
    guest.send(Answer.SIZE, number, size)
    if wrong == "twice":
        guest.send(Answer.SIZE, number, size)
    if wrong == "step":
        guest.send(Answer.DATA, number, U64.pack(1) + bytes(FRAME))
    with pytest.raises(SandboxLostError) as caught:
        await asyncio.wait_for(reading, 20)
    assert isinstance(caught.value.__cause__, GuestError)


async def test_many_long_files_at_once(place: Place) -> None:
    files = place.session.files
    contents = {f"{place.directory}/{n}": os.urandom((5 << 20) + n * 1001) for n in range(4)}
    for path, content in contents.items():
        assert await files.write(path, USER, content) == len(content)
    found = await asyncio.gather(*(files.read(path, USER) for path in contents))
    assert found == list(contents.values())
    parts = [files.read(path, USER, offset=1_000_001, length=3_000_000) for path in contents]
    assert await asyncio.gather(*parts) == [
        content[1_000_001:4_000_001] for content in contents.values()
    ]
    assert files._connection.long_reads == 0


@pytest.mark.parametrize(("start", "stop"), [(0, 1), (1, 4096), (1, 100_001), (0, 1 << 20)])
def test_taking_memory_changes_nothing_in_it(start: int, stop: int) -> None:
    content = os.urandom(1 << 20)
    data = bytearray(content)
    in_large_pages(memoryview(data)[start:stop])
    populate(memoryview(data)[start:stop])
    assert data == content
    data.clear()  # no view of it is left


def mapping_of(address: int) -> dict[str, str]:
    """What the kernel says of the mapping that `address` is in."""
    found: dict[str, str] = {}
    for line in Path("/proc/self/smaps").read_text().splitlines():
        name, _, rest = line.partition(":")
        if "-" in name.split(" ")[0]:
            low, _, high = line.split(" ")[0].partition("-")
            found, within = {}, int(low, 16) <= address < int(high, 16)
            continue
        found[name] = rest
        if name == "VmFlags" and within:
            return found
    raise AssertionError("it is in no mapping")


@pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="no large pages in this kernel"
)
async def test_room_for_a_very_long_file_is_of_large_pages_that_are_not_taken_ahead(
    puppet: tuple[Session, Puppet],
) -> None:
    session, guest = puppet
    number, reading = await begin(session, guest)
    guest.send(Answer.SIZE, number, U64.pack(64 << 20))
    guest.send(Answer.DATA, number, U64.pack(0) + CONTENT[:FRAME])
    operation = session._operations[number]
    assert isinstance(operation, Whole)
    while operation._end < FRAME:
        await asyncio.sleep(0)
    assert operation._view is not None
    address = ctypes.addressof(ctypes.c_char.from_buffer(operation._view))
    mapping = mapping_of(address + FRAME)
    assert "hg" in mapping["VmFlags"].split()
    assert int(mapping["Rss"].split()[0]) <= 8 << 10
    guest.send(Answer.FAIL, number, FAILED)
    with pytest.raises(FileError):
        await reading
