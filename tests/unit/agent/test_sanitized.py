"""The guest with the address and undefined-behaviour sanitizers in a real session."""

import os
import signal
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from ringfence.guest import build
from ringfence.guest.protocol import TOLD, U32, Ask, Cred, Told, cred, string
from ringfence.workspace.listing import list_again
from tests.conftest import require_bwrap, require_root
from tests.fuzz import sanitized

from .raw import USER, Guest
from .wrapped import WHO, Wrapped


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require_root()
    return sanitized.guest(tmp_path_factory.mktemp("sanitized"))


@pytest.fixture
def guest(program: Path) -> Iterator[Guest]:
    started = Guest(program, env=sanitized.ENVIRONMENT)
    started.raw.hello()
    yield started
    started.close()


def test_execs_of_every_kind(guest: Guest) -> None:
    raw = guest.raw
    assert raw.run("echo", "hi").stdout == b"hi\n"
    assert raw.run("cat", stdin=b"x" * 200_000).stdout == b"x" * 200_000
    assert raw.run("cat", stdin=b"x" * 200_000, caps=(10, 10)).stdout == b"x" * 10
    assert b"24 80" in raw.run("stty", "size", flags=32 | 2).stdout
    assert len(raw.run("echo", *["y" * 1000] * 300).stdout) == 300 * 1001
    with pytest.raises(OSError, match="stage 4"):
        raw.run("no-such-program")
    held = raw.start("echo", "kept", flags=32 | 8)
    assert raw.ending(held).stdout == b"kept\n"
    raw.send(Ask.ATTACH, held, struct.pack("<QQ", 1, 0))
    assert raw.ending(held).stdout == b"ept\n"
    assert raw.ask(Ask.FORGET, b"", held) == b""
    fed = raw.start("sh", "-c", "sleep 0.1; cat", flags=32 | 8 | 1, stdin=b"first ")
    raw.started(fed)
    raw.send(Ask.STDIN, fed, b"x" * 100_000)
    raw.send(Ask.ATTACH, fed, bytes(16) + b"\1")
    assert TOLD.unpack(raw.frame()[2])[1:3] == (Told.STDIN_OPEN, 100_000)
    raw.send(Ask.STDIN, fed)
    assert raw.ending(fed).stdout == b"first " + b"x" * 100_000
    assert raw.ask(Ask.FORGET, b"", fed) == b""


def test_supervisors_with_a_pid_namespace(program: Path) -> None:
    require_bwrap()
    wrapped = Wrapped(program, sanitized.ENVIRONMENT)
    wrapped.raw.hello()
    try:
        for _ in range(3):
            assert wrapped.run("cat", stdin=b"x" * 100_000).stdout == b"x" * 100_000
            assert b"24 80" in wrapped.run("stty", "size", flags=32 | 2).stdout
            assert wrapped.run("prlimit", "--pid", "1", "--nofile=0").status == 0
            assert wrapped.run("sh", "-c", "sleep 1000 >&- 2>&- & exit 3").proof == 3
            killed = wrapped.raw.start("sh", "-c", "sleep 1000 & wait", who=WHO)
            wrapped.raw.started(killed)
            wrapped.raw.send(Ask.KILL, killed)
            assert wrapped.raw.ending(killed).reason == 2
        wrapped.raw.send(Ask.SHUTDOWN)
        assert wrapped.wait() == 0
    finally:
        wrapped.close()


def test_kills_and_losses(guest: Guest) -> None:
    raw = guest.raw
    script = "for n in 1 2 3; do setsid sleep 1000 & done; echo armed; wait"
    killed = raw.start("sh", "-c", script, env=(guest.name,))
    raw.started(killed)
    raw.output(killed, b"armed\n")
    raw.send(Ask.KILL, killed)
    assert raw.ending(killed).proof == 1
    lost = raw.start("sleep", "1000", env=(guest.name,))
    status = Path(f"/proc/{guest.host_pid(raw.started(lost))}/stat").read_bytes()
    os.kill(int(status.rpartition(b")")[2].split()[1]), signal.SIGKILL)
    assert raw.ending(lost).reason == 5
    assert raw.run("sleep", "1000", timeout=100).reason == 1
    assert U32.unpack(raw.ask(Ask.KILL_ALL)) == (0,)
    assert guest.marked() == []


def test_files_and_users(guest: Guest, tmp_path: Path) -> None:
    raw = guest.raw
    root = string(str(tmp_path).encode())
    with pytest.raises(PermissionError):
        raw.ask(Ask.STAT, cred(Cred(65501, 1)) + b"\1" + root)
    raw.ask(Ask.STAT, cred(USER) + b"\1" + string(b"/"))
    raw.ask(Ask.LIST_DIR, cred(USER) + string(b"/etc") + string(b"") + struct.pack("<IB", 50, 1))
    assert raw.ask(Ask.USER, string(b"root"))[:8] == bytes(8)
    raw.send(Ask.SHUTDOWN)
    assert guest.wait() == 0


def test_listing_for_the_host(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(600):
        (tmp_path / f"{number:0255}").touch()
    root = os.open(tmp_path, os.O_RDONLY)
    try:
        expected = list_again(root, [b""] * 3, 10_000)
        monkeypatch.setattr(build, "target", lambda: program)
        assert list_again(root, [b""] * 3, 10_000) == expected
        assert expected is not None
        assert expected.rows
        for path in ("no", "..", "x" * 5000, f"{0:0255}"):
            assert list_again(root, [b"", path.encode()], 10_000) is None
    finally:
        os.close(root)
