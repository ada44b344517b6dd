"""A guest that was given its cgroup's counter of processor time ends all commands when it is used up."""

import array
import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ringfence.guest.protocol import Answer, Ask, Cred

from .raw import Guest, Raw, accept, listen, until

REASON_CPU_TIME = 6
SECOND = 1_000_000


@pytest.fixture(params=["usage_usec {}\nuser_usec 1\n", "{}000\n"], ids=["version 2", "version 1"])
def counter(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """What writes microseconds into a counter, and gives its path."""

    def write(microseconds: int) -> Path:
        new = tmp_path / "new"
        path = tmp_path / "counter"
        if path.exists():
            with path.open("r+") as file:
                file.write(request.param.format(microseconds))
        else:
            new.write_text(request.param.format(microseconds))
            new.rename(path)
        return path

    return write


def give(raw: Raw, path: Path, limit: int, cores: int = 1, *, count: int = 1) -> bytes:
    """CPU_TIME with the counter; its answer. OSError for a FAIL."""
    operation_id = raw.new_id()
    payload = struct.pack("<QI", limit, cores)
    frame = struct.pack("<IBI", len(payload) + 5, Ask.CPU_TIME, operation_id) + payload
    with path.open() as opened:
        rights = [
            (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [opened.fileno()] * count))
        ]
        raw.stream.sendmsg([frame], rights if count else [])
    op, answered, data = raw.frame()
    assert answered == operation_id
    if op == Answer.FAIL:
        raise OSError(struct.unpack_from("<I", data)[0], "CPU_TIME")
    return data


def test_what_runs_is_killed_and_nothing_starts_any_more(
    dialled: Guest, counter: Callable[[int], Path]
) -> None:
    raw = dialled.raw
    assert give(raw, counter(10), SECOND) == b""
    running = raw.start("sh", "-c", "setsid sleep 1000 & sleep 1000", env=(dialled.name,))
    raw.started(running)
    until(lambda: len(dialled.marked()) == 3, "all of it runs")
    counter(SECOND)
    ended = raw.ending(running)
    assert (ended.status, ended.reason) == (9, REASON_CPU_TIME)
    assert dialled.marked() == []
    with pytest.raises(OSError, match="stage 0") as caught:
        raw.run("true")
    assert caught.value.errno == errno.ETIME
    assert raw.ask(Ask.PING, b"there") == b"there"


def test_it_holds_while_nobody_is_there_and_for_who_comes_again(
    dialled: Guest, counter: Callable[[int], Path], directory: Path
) -> None:
    raw = dialled.raw
    give(raw, counter(10), SECOND)
    held = raw.start("sleep", "1000", flags=32 | 8, env=(dialled.name,))
    raw.started(held)
    raw.stream.close()
    until(dialled.marked, "what is held goes on")
    counter(2 * SECOND)
    until(lambda: not dialled.marked(), "it was killed")
    listener = listen(directory)
    dialled.raw.stream.close()
    dialled.raw = raw = accept(listener)
    assert raw.hello(detached=True) == 2
    raw.send(Ask.ATTACH, held, bytes(16))
    assert raw.ending(held).reason == REASON_CPU_TIME


def test_the_last_one_given_counts(dialled: Guest, counter: Callable[[int], Path]) -> None:
    raw = dialled.raw
    give(raw, counter(SECOND), SECOND + SECOND // 10)  # looked at each 0.1 s
    give(raw, counter(SECOND), 600 * SECOND)
    counter(3 * SECOND)
    assert raw.run("sleep", "1").status == 0
    give(raw, counter(3 * SECOND), SECOND)
    with pytest.raises(OSError, match="stage 0"):
        raw.run("true")


def test_a_counter_that_cannot_be_read_any_more_ends_it(
    dialled: Guest, counter: Callable[[int], Path]
) -> None:
    path = counter(10)
    give(dialled.raw, path, SECOND)
    os.truncate(path, 0)
    assert dialled.wait() == 0


def test_what_is_no_counter_is_refused(
    dialled: Guest, counter: Callable[[int], Path], tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.write_text("some text\n")
    path = counter(10)
    for given, cores, count, number in (
        (other, 1, 1, errno.EINVAL),
        (path, 0, 1, errno.EINVAL),
        (path, 1, 0, errno.EBADF),
        (path, 1, 2, errno.EBADF),
    ):
        with pytest.raises(OSError, match="CPU_TIME") as caught:
            give(dialled.raw, given, SECOND, cores, count=count)
        assert caught.value.errno == number
    assert dialled.raw.run("true").status == 0


def test_a_guest_on_a_stream_takes_none(guest: Guest, counter: Callable[[int], Path]) -> None:
    with pytest.raises(OSError, match="CPU_TIME") as caught:
        give(guest.raw, counter(10), SECOND)
    assert caught.value.errno == errno.EBADF


@pytest.mark.parametrize("uid", [0, 1000])
def test_no_command_reaches_it(dialled: Guest, counter: Callable[[int], Path], uid: int) -> None:
    """Neither its own descriptors nor those of the guest and its other processes, root or not."""
    path = counter(10)
    path.chmod(0o666)
    give(dialled.raw, path, SECOND)
    script = (
        "ls -l /proc/self/fd; for one in /proc/[0-9]*; do"
        ' [ "$one" = /proc/$$ ] && continue; for fd in $one/fd/*; do'
        " readlink $fd 2>&-; (: < $fd) 2>&- && echo read $fd; (: >> $fd) 2>&- && echo wrote $fd;"
        " done; done; exit 3"
    )
    ended = dialled.raw.run("sh", "-c", script, who=Cred(uid, uid))
    assert ended.status == 3 << 8
    assert b"counter" not in ended.stdout
    assert b"/proc/1/" not in ended.stdout
