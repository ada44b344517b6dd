"""A guest that may not change users, inside bubblewrap as an ordinary user."""

import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ringfence.guest import build
from ringfence.guest.protocol import Ask
from tests.conftest import require_bwrap, require_root

from .raw import Guest, Raw, until

WHO = (1000, 1000, ())


class Wrapped(Guest):
    """A guest under bwrap, which uid 1000 runs."""

    def __init__(self, binary: Path) -> None:
        ours, theirs = socket.socketpair()
        binds = [
            word
            for path in ("/usr", "/bin", "/lib", "/lib64")
            for word in ("--ro-bind-try", path, path)
        ]
        args = [
            "bwrap",
            "--unshare-all",
            *binds,
            "--ro-bind",
            str(binary),
            "/guest",
            "--dev",
            "/dev",
        ]
        args += ["--proc", "/proc", "--tmpfs", "/tmp", "--cap-add", "CAP_SYS_ADMIN", "--as-pid-1"]
        self.process = subprocess.Popen(
            [*args, "/guest", "--stream", "--pidns"],
            stdin=theirs,
            stdout=theirs,
            user=1000,
            group=1000,
            extra_groups=[],
        )
        theirs.close()
        self.raw = Raw(ours)
        self.name = b"RINGFENCE_TEST_MARK=" + os.urandom(16).hex().encode()


@pytest.fixture
def guest() -> Iterator[Wrapped]:
    require_root()
    require_bwrap()
    directory = Path("/tmp") / f"rf-{os.urandom(6).hex()}"
    directory.mkdir(mode=0o755)
    binary = Path(shutil.copy(build.target(), directory / "guest"))
    binary.chmod(0o755)
    wrapped = Wrapped(binary)
    try:
        wrapped.raw.hello()
        yield wrapped
    finally:
        wrapped.close()
        shutil.rmtree(directory)


def test_commands_run_and_have_no_capability(guest: Wrapped) -> None:
    ending = guest.raw.run("grep", "-E", "Cap|NoNew", "/proc/self/status", who=WHO)
    rows = dict(line.split(b":\t") for line in ending.stdout.splitlines())
    assert rows.pop(b"NoNewPrivs") == b"1"
    assert {int(value, 16) for name, value in rows.items() if name != b"CapBnd"} == {0}
    assert ending.proof == 1
    assert guest.raw.run("cat", stdin=b"x" * 100_000, who=WHO).stdout == b"x" * 100_000
    assert b"24 80" in guest.raw.run("stty", "size", flags=32 | 2, who=WHO).stdout
    with pytest.raises(OSError, match="stage 4"):
        guest.raw.run("no-such-program", who=WHO)
    with pytest.raises(OSError, match="stage"):
        guest.raw.run("true", who=(0, 0, ()))


def test_a_command_reaches_neither_the_guest_nor_another_command(guest: Wrapped) -> None:
    other = guest.raw.start("sleep", "1000", who=WHO, env=(guest.name,))
    guest.raw.started(other)
    script = "kill -9 -1; kill -9 1; echo alive; ls -d /proc/[0-9]* | wc -l"
    ending = guest.raw.run("sh", "-c", script, who=WHO)
    assert ending.stdout.startswith(b"alive\n")
    assert len(guest.marked()) == 1
    guest.raw.send(Ask.SIGNAL, other, struct.pack("<IB", 15, 0))
    assert guest.raw.ending(other).status == 15


def test_a_kill_takes_the_whole_family(guest: Wrapped) -> None:
    script = "trap '' TERM; for n in 1 2 3 4 5; do (setsid sleep 1000 &) & done; "
    script += "setsid sh -c 'kill -STOP $$; sleep 1000' & echo armed; "
    killed = guest.raw.start("sh", "-c", script + "wait; sleep 1000", who=WHO, env=(guest.name,))
    guest.raw.started(killed)
    guest.raw.output(killed, b"armed\n")
    until(lambda: len(guest.marked()) >= 7, "the family")
    guest.raw.send(Ask.KILL, killed)
    ending = guest.raw.ending(killed)
    assert guest.marked() == []
    assert (ending.status, ending.reason, ending.proof) == (9, 2, 1)
    assert ending.killed >= 7
    left = guest.raw.start("sh", "-c", script + "exit 3", who=WHO, env=(guest.name,))
    ending = guest.raw.ending(left)
    assert (ending.status, ending.proof) == (3 << 8, 3)
    assert len(guest.marked()) >= 6
    guest.raw.send(Ask.KILL, left)
    until(lambda: not guest.marked(), "the family that was left")


def test_the_end_of_the_stream_ends_all(guest: Wrapped) -> None:
    running = guest.raw.start("sleep", "1000", who=WHO, env=(guest.name,))
    guest.raw.started(running)
    guest.raw.stream.close()
    guest.wait()
    until(lambda: not guest.marked(), "nobody is left")
