"""A guest that may not change users, inside bubblewrap as an ordinary user."""

import struct

import pytest

from ringfence.guest.protocol import Ask

from .raw import until
from .wrapped import WHO, Wrapped


def test_commands_run_and_have_no_capability(wrapped: Wrapped) -> None:
    ending = wrapped.raw.run("grep", "-E", "Cap|NoNew", "/proc/self/status", who=WHO)
    rows = dict(line.split(b":\t") for line in ending.stdout.splitlines())
    assert rows.pop(b"NoNewPrivs") == b"1"
    assert {int(value, 16) for name, value in rows.items() if name != b"CapBnd"} == {0}
    assert ending.proof == 1
    assert wrapped.raw.run("cat", stdin=b"x" * 100_000, who=WHO).stdout == b"x" * 100_000
    assert b"24 80" in wrapped.raw.run("stty", "size", flags=32 | 2, who=WHO).stdout
    with pytest.raises(OSError, match="stage 4"):
        wrapped.raw.run("no-such-program", who=WHO)
    with pytest.raises(OSError, match="stage"):
        wrapped.raw.run("true", who=(0, 0, ()))


def test_a_command_reaches_neither_the_guest_nor_another_command(wrapped: Wrapped) -> None:
    other = wrapped.raw.start("sleep", "1000", who=WHO, env=(wrapped.name,))
    wrapped.raw.started(other)
    script = "kill -9 -1; kill -9 1; echo alive; ls -d /proc/[0-9]* | wc -l"
    ending = wrapped.raw.run("sh", "-c", script, who=WHO)
    assert ending.stdout.startswith(b"alive\n")
    assert len(wrapped.marked()) == 1
    wrapped.raw.send(Ask.SIGNAL, other, struct.pack("<IB", 15, 0))
    assert wrapped.raw.ending(other).status == 15


def test_a_kill_takes_the_whole_family(wrapped: Wrapped) -> None:
    script = "trap '' TERM; for n in 1 2 3 4 5; do (setsid sleep 1000 &) & done; "
    script += "setsid sh -c 'kill -STOP $$; sleep 1000' & echo armed; "
    killed = wrapped.raw.start(
        "sh", "-c", script + "wait; sleep 1000", who=WHO, env=(wrapped.name,)
    )
    wrapped.raw.started(killed)
    wrapped.raw.output(killed, b"armed\n")
    until(lambda: len(wrapped.marked()) >= 7, "the family")
    wrapped.raw.send(Ask.KILL, killed)
    ending = wrapped.raw.ending(killed)
    assert wrapped.marked() == []
    assert (ending.status, ending.reason, ending.proof) == (9, 2, 1)
    assert ending.killed >= 7
    left = wrapped.raw.start("sh", "-c", script + "exit 3", who=WHO, env=(wrapped.name,))
    ending = wrapped.raw.ending(left)
    assert (ending.status, ending.proof) == (3 << 8, 3)
    assert len(wrapped.marked()) >= 6
    wrapped.raw.send(Ask.KILL, left)
    until(lambda: not wrapped.marked(), "the family that was left")


def test_the_end_of_the_stream_ends_all(wrapped: Wrapped) -> None:
    running = wrapped.raw.start("sleep", "1000", who=WHO, env=(wrapped.name,))
    wrapped.raw.started(running)
    wrapped.raw.stream.close()
    wrapped.wait()
    until(lambda: not wrapped.marked(), "nobody is left")
