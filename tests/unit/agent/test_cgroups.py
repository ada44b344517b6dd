"""A command begins in the cgroups whose `tasks` files came with its EXEC, and holds none of them."""

import array
import contextlib
import errno
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from ringfence.guest.protocol import Answer, Ask, ExecFlag

from .raw import Guest, Raw, accept, exec_payload, listen, until

STAGE_CGROUP = 6


@pytest.fixture
def dialled(start_guest: Callable[..., Guest], directory: Path) -> Guest:
    """A guest with an attached session on a socket."""
    listener = listen(directory)
    guest = start_guest("--socket", str(directory))
    guest.raw = accept(listener)
    guest.raw.hello()
    return guest


def begin(
    raw: Raw,
    descriptors: list[int],
    *args: str,
    count: int | None = None,
    cut: int = 0,
    again: int | None = None,
    **options,
) -> int:
    """EXEC with descriptors; its id. cut: bytes of the frame that are sent ahead, alone. again: an
    id that is taken."""
    operation_id = raw.new_id() if again is None else again
    count = len(descriptors) if count is None else count
    flags = 32 | count << ExecFlag.CGROUPS_SHIFT
    payload = exec_payload(*args, flags=flags | options.pop("flags", 0), **options)
    frame = struct.pack("<IBI", len(payload) + 5, Ask.EXEC, operation_id) + payload
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
    sent = raw.stream.sendmsg([frame[: cut or None]], rights if descriptors else [])
    raw.stream.sendall(frame[sent:])
    return operation_id


def holders(namespace: str, path: Path) -> dict[int, int]:
    """The processes of a pid namespace, each with how many descriptors of a file it has."""
    found = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and str((entry / "ns/pid").readlink()) == namespace:
                links = [str(fd.readlink()) for fd in (entry / "fd").iterdir()]
                found[int(entry.name)] = links.count(str(path))
    return found


def files(directory: Path, count: int) -> list[Path]:
    made = [directory / f"tasks{number}" for number in range(count)]
    for path in made:
        path.touch()
    return made


@pytest.mark.parametrize("size", [1, 100_000], ids=["inline", "in a memory file"])
@pytest.mark.parametrize("flags", [0, ExecFlag.PTY], ids=["pipes", "terminal"])
def test_the_commands_process_writes_0_into_each_before_it_runs(
    dialled: Guest, tmp_path: Path, size: int, flags: int
) -> None:
    made = files(tmp_path, 4)
    opened = [os.open(path, os.O_WRONLY) for path in made]
    script = "ls -l /proc/self/fd; exit 7"
    operation_id = begin(dialled.raw, opened, "sh", "-c", script, "x" * size, flags=flags)
    ended = dialled.raw.ending(operation_id)
    assert ended.status == 7 << 8
    assert [path.read_text() for path in made] == ["0"] * 4
    assert b"tasks" not in ended.stdout
    for fd in opened:
        os.close(fd)


def test_nobody_inside_holds_them_while_the_command_runs(dialled: Guest, tmp_path: Path) -> None:
    (path,) = files(tmp_path, 1)
    with path.open("w") as opened:
        operation_id = begin(dialled.raw, [opened.fileno()], "sleep", "1000")
        dialled.raw.started(operation_id)
    namespace = dialled.guest_namespace()
    assert len(holders(namespace, path)) >= 3, "the guest, a supervisor and the command"
    until(lambda: not any(holders(namespace, path).values()), "the supervisor closed its own")


def test_sets_stay_with_their_frames_however_the_stream_is_cut(
    dialled: Guest, tmp_path: Path
) -> None:
    made = files(tmp_path, 12)
    ids = []
    for number, path in enumerate(made):
        with path.open("w") as opened:
            script = f"exit {number}"
            ids.append(
                begin(
                    dialled.raw, [opened.fileno()], "sh", "-c", script, "x" * 9999, cut=1 + number
                )
            )
    seen = {}
    while len(seen) < len(ids):
        op, answered, payload = dialled.raw.frame()
        if op == Answer.EXIT:
            seen[answered] = struct.unpack_from("<i", payload)[0] >> 8
    assert [seen[one] for one in ids] == list(range(12))
    assert [path.read_text() for path in made] == ["0"] * 12


def test_without_the_descriptors_nothing_is_started(dialled: Guest, tmp_path: Path) -> None:
    marked = tmp_path / "ran"
    for count, sent in ((1, 0), (2, 1), (1, 2)):
        (path,) = files(tmp_path, 1)
        with path.open("w") as opened:
            operation_id = begin(
                dialled.raw, [opened.fileno()] * sent, "touch", str(marked), count=count
            )
            with pytest.raises(OSError, match=f"stage {STAGE_CGROUP}") as caught:
                dialled.raw.ending(operation_id)
        assert caught.value.errno == errno.EBADF
    assert dialled.raw.run("true").status == 0
    assert not marked.exists()


def test_those_of_a_command_that_is_refused_unread_are_no_other_commands(
    dialled: Guest, tmp_path: Path
) -> None:
    refused, own = files(tmp_path, 2)
    running = begin(dialled.raw, [], "sleep", "1000")
    dialled.raw.started(running)
    with refused.open("w") as opened:
        begin(dialled.raw, [opened.fileno()], "true", again=running)
    op, answered, payload = dialled.raw.frame()
    assert (op, answered) == (Answer.FAIL, running)
    assert struct.unpack_from("<I", payload)[0] == errno.EEXIST
    with own.open("w") as opened:
        operation_id = begin(dialled.raw, [opened.fileno()], "true")
        assert dialled.raw.ending(operation_id).status == 0
    assert (refused.read_text(), own.read_text()) == ("", "0")
    assert not any(holders(dialled.guest_namespace(), refused).values())


def test_a_cgroup_that_does_not_take_the_command_is_a_failure(
    dialled: Guest, tmp_path: Path
) -> None:
    (path,) = files(tmp_path, 1)
    with path.open("r") as opened:
        operation_id = begin(dialled.raw, [opened.fileno()], "true")
        with pytest.raises(OSError, match=f"stage {STAGE_CGROUP}"):
            dialled.raw.ending(operation_id)
    assert dialled.raw.run("true").status == 0


def test_a_guest_on_a_stream_takes_none(guest: Guest) -> None:
    operation_id = begin(guest.raw, [], "true", count=1)
    with pytest.raises(OSError, match=f"stage {STAGE_CGROUP}"):
        guest.raw.ending(operation_id)


def test_what_came_with_a_frame_of_a_session_that_ended_is_nobodys(
    start_guest: Callable[..., Guest], directory: Path, tmp_path: Path
) -> None:
    """The next session's first command begins where that one says."""
    first, second = files(tmp_path, 2)
    listener = listen(directory)
    start_guest("--socket", str(directory))
    raw = accept(listener)
    raw.hello(detached=True, lifetime=600_000)
    with first.open("w") as stale, second.open("w") as wanted:
        frame = struct.pack("<IBI", 500, Ask.EXEC, 9)
        rights = array.array("i", [stale.fileno()])
        raw.stream.sendmsg([frame], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        raw.stream.close()
        raw = accept(listen(directory))
        raw.hello(detached=True)
        assert raw.ending(begin(raw, [wanted.fileno()], "true")).status == 0
    assert (first.read_text(), second.read_text()) == ("", "0")
