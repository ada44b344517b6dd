"""The seccomp program of commands, installed by the real guest."""

import errno
import platform
import struct

import pytest

from ringfence.errors import FileError, UnsupportedError
from ringfence.guest.protocol import U32, Ask
from ringfence.guest.request import Exit, NotStarted

from .commands import command
from .conftest import USER, Place

ALLOW = struct.pack("<HBBI", 0x06, 0, 0, 0x7FFF0000)
REFUSE = struct.pack("<HBBI", 0x06, 0, 0, 0x00050000 | errno.EXDEV)
LOAD_NUMBER = struct.pack("<HBBI", 0x20, 0, 0, 0)
MKDIR = {"x86_64": 83, "aarch64": 34}
PRLIMIT = {"x86_64": 302, "aarch64": 261}
"""Which the guest itself calls for each command."""


def refusing(number: int) -> bytes:
    """A program that answers one system call with EXDEV."""
    skip_unless_equal = struct.pack("<HBBI", 0x15, 0, 1, number)
    return LOAD_NUMBER + skip_unless_equal + REFUSE + ALLOW


@pytest.fixture
async def real(place: Place) -> Place:
    if not place.real:
        pytest.skip("the mock has no kernel")
    return place


async def works(place: Place) -> bool:
    """Whether a command may make a directory."""
    path = f"{place.directory}/made"
    ending = await place.session.run(command("mkdir", path))
    assert isinstance(ending, Exit)
    if ending.exit_code == 0:
        await place.session.files.remove(path, USER)
    return ending.exit_code == 0


async def mode(place: Place) -> bytes:
    """The Seccomp line of a command's own status."""
    ending = await place.session.run(command("grep", "^Seccomp:", "/proc/self/status"))
    assert isinstance(ending, Exit)
    return ending.stdout.split()[1]


async def filters(place: Place) -> int:
    """How many filters bind a command."""
    ending = await place.session.run(command("grep", "^Seccomp_filters:", "/proc/self/status"))
    assert isinstance(ending, Exit)
    return int(ending.stdout.split()[1])


async def test_the_mock_says_that_it_has_none(place: Place) -> None:
    if not place.real:
        with pytest.raises(UnsupportedError):
            await place.session.filter(ALLOW)


async def test_a_filter_binds_commands_and_not_the_guest(real: Place) -> None:
    assert await works(real)
    unfiltered = await mode(real)
    await real.session.filter(refusing(MKDIR[platform.machine()]))
    assert not await works(real)
    assert await mode(real) == b"2"
    for _ in range(4):
        assert not await works(real)
    await real.session.files.mkdir(f"{real.directory}/by-the-guest", USER)
    await real.session.filter(ALLOW)
    assert await works(real)
    await real.session.filter(b"")
    assert await works(real)
    assert await mode(real) == unfiltered


@pytest.mark.parametrize("call", ["mkdir", "prlimit64"])
async def test_each_command_has_one_filter_whatever_it_refuses(real: Place, call: str) -> None:
    number = {"mkdir": MKDIR, "prlimit64": PRLIMIT}[call][platform.machine()]
    before = await filters(real)
    for _ in range(2):
        await real.session.filter(refusing(number))
        assert [await filters(real) for _ in range(5)] == [before + 1] * 5


async def test_a_filter_that_the_kernel_refuses_starts_nothing(real: Place) -> None:
    await real.session.filter(struct.pack("<HBBI", 0xFFFF, 0, 0, 0))
    refused = await real.session.run(command("true"))
    assert isinstance(refused, NotStarted)
    assert refused.errno == errno.EINVAL


@pytest.mark.parametrize("code", [ALLOW[:-1], ALLOW * 4097])
async def test_what_is_no_filter_is_refused(real: Place, code: bytes) -> None:
    with pytest.raises(Exception, match="filter"):
        await real.session.filter(code)
    assert await mode(real) in (b"0", b"2")


async def test_a_frame_that_does_not_parse_harms_nothing(real: Place) -> None:
    session = real.session
    session._first_id, session._next_id = 1, 2**31 - 1000
    for number, op in enumerate((Ask.FILTER, *range(Ask.STAT, Ask.RESET + 1)), 1):
        for payload in (b"", b"\xff" * 7, U32.pack(2**32 - 1) * 20):
            session.send(op, number, payload)
            session.send(Ask.CANCEL, number, b"")
    await session.ping()
    with pytest.raises(FileError):
        await session.files.read(f"{real.directory}/no", USER)
