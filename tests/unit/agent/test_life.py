"""How a guest gets its sessions, keeps what is held, and ends."""

import contextlib
import os
import signal
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from ringfence.guest.protocol import HEADER, TOLD, Answer, Ask, Feature, Told, string

from .raw import HELD, WAIT_SECONDS, Guest, Raw, accept, exec_payload, listen, until

FIRST, SECOND = b"A" * 16, b"B" * 16


def test_a_guest_dials_again_and_keeps_what_is_held(
    start_guest: Callable[..., Guest], directory: Path
) -> None:
    listener = listen(directory)
    guest = start_guest("--socket", str(directory))
    first = accept(listener)
    assert first.hello(detached=True, lifetime=600_000) == 1
    held = first.start("sh", "-c", "echo early; read line; echo late", flags=HELD | 1)
    first.started(held)
    first.output(held, b"early\n")
    other = first.start("sleep", "1000", env=(guest.name,))
    first.started(other)
    first.stream.close()
    until(lambda: not guest.marked(), "what is not held is killed")

    second = accept(listen(directory))
    assert second.hello(detached=True) == 2
    row = struct.unpack_from("<IIIBQQ", second.ask(Ask.LIST))
    assert row[:2] == (1, held)
    assert row[3:5] == (0, 6)
    second.send(Ask.ATTACH, held, struct.pack("<QQ", 3, 0))
    second.started(held)
    assert second.output(held, b"\n") == b"ly\n"
    second.send(Ask.STDIN, held, b"go\n")
    second.output(held, b"late\n")
    second.send(Ask.SHUTDOWN)
    assert guest.wait() == 0


def again(raw: Raw, directory: Path) -> Raw:
    """The next session of a detached guest."""
    raw.stream.close()
    raw = accept(listen(directory))
    raw.hello(detached=True)
    return raw


def attach(raw: Raw, held: int) -> tuple[int, ...]:
    """ATTACH behind all output, to be told of its input: pid, told, received, consumed."""
    raw.send(Ask.ATTACH, held, struct.pack("<QQB", 2**62, 2**62, 1))
    op, answered, payload = raw.frame()
    assert (op, answered) == (Answer.STARTED, held)
    return TOLD.unpack(payload)


def test_input_goes_on_in_the_next_session_where_the_guest_has_it(
    dialled: Guest, directory: Path
) -> None:
    """Whole frames are the command's, once; what came in part is not counted and never comes."""
    raw = dialled.raw
    held = raw.start("sh", "-c", "echo up; kill -STOP $$; cat", flags=HELD | 1, stdin=b"given")
    raw.started(held)
    raw.output(held, b"up\n")
    data = bytes(range(251)) * 1000
    sent = 0
    for size in (100_000, 70_000, 60_000):
        raw.send(Ask.STDIN, held, data[sent : sent + size])
        rest = HEADER.pack(50_000 + 5, Ask.STDIN, held) + b"lost" * 10_000
        raw.send_bytes(rest)
        raw = again(raw, directory)
        sent += size
        assert attach(raw, held)[1:3] == (Told.STDIN_OPEN, sent)
    raw.send(Ask.STDIN, held, data[sent:])
    raw.send(Ask.STDIN, held)
    raw = again(raw, directory)
    assert attach(raw, held)[1:3] == (0, len(data))
    raw.send(Ask.SIGNAL, held, struct.pack("<IB", signal.SIGCONT, 0))
    raw.ending(held)
    raw.send(Ask.ATTACH, held, bytes(16))
    ending = raw.ending(held)
    assert ending.stdout == b"up\ngiven" + data
    raw.send(Ask.SHUTDOWN)
    assert dialled.wait() == 0


def test_input_that_is_consumed_while_nobody_is_there_is_counted(
    dialled: Guest, directory: Path
) -> None:
    raw = dialled.raw
    held = raw.start("sh", "-c", "kill -STOP $$; exec cat", flags=HELD | 1)
    raw.started(held)
    data = bytes(200_000)
    raw.send(Ask.STDIN, held, data)
    raw = again(raw, directory)
    told = attach(raw, held)
    assert told[1:3] == (Told.STDIN_OPEN, len(data))
    assert told[3] < len(data), "the command stands still"
    raw.send(Ask.SIGNAL, held, struct.pack("<IB", signal.SIGCONT, 0))
    raw.stream.close()

    def consumed() -> bool:
        raw = accept(listen(directory))
        raw.hello(detached=True)
        told = attach(raw, held)
        raw.stream.close()
        return told[2:] == (len(data), len(data))

    until(consumed, "all is consumed")


def test_a_terminal_is_typed_into_and_resized_in_the_next_session(
    dialled: Guest, directory: Path
) -> None:
    """After an end of file was typed its input is open as before."""
    raw = dialled.raw
    script = "stty -echo; echo up; read x; read y; echo $y; stty size"
    held = raw.start("sh", "-c", script, flags=HELD | 1 | 2)
    raw.started(held)
    raw.output(held, b"up\r\n")
    raw.send(Ask.STDIN, held)
    raw = again(raw, directory)
    assert attach(raw, held)[1:] == (Told.STDIN_OPEN | Told.TERMINAL, 0, 0)
    raw.send(Ask.RESIZE, held, struct.pack("<HH", 50, 132))
    raw.send(Ask.STDIN, held, b"typed\n")
    raw.output(held, b"50 132\r\n")


def test_who_asks_for_no_more_than_the_pid_gets_that(guest: Guest) -> None:
    """Hosts that are older than the question; and bytes behind it are none."""
    held = guest.raw.start("sleep", "1000", flags=HELD | 1)
    pid = guest.raw.started(held)
    features = struct.unpack_from("<Q", guest.raw.hello_payload, 20)[0]
    assert features & Feature.ATTACH_STDIN
    for payload in (bytes(16), bytes(17)):
        guest.raw.send(Ask.ATTACH, held, payload)
        assert guest.raw.started(held) == pid
    guest.raw.send(Ask.ATTACH, held, bytes(16) + b"\1\1")
    with pytest.raises(OSError, match="stage 0"):
        guest.raw.ending(held)
    assert attach(guest.raw, held)[0] == pid


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def at(port: int) -> bytes:
    """The payload of LISTEN and CONNECT."""
    return string(b"127.0.0.1") + struct.pack("<H", port)


def test_a_port_is_no_commands_between_two_sessions(dialled: Guest, directory: Path) -> None:
    """Else one binds it there, and answers those who take it for the host's."""
    first = dialled.raw
    port = free_port()
    assert first.ask(Ask.LISTEN, at(port), 77) == struct.pack("<H", port)
    inside = socket.create_connection(("127.0.0.1", port), WAIT_SECONDS)
    assert first.frame()[0] == Answer.ACCEPT
    (other,) = struct.unpack("<H", first.ask(Ask.LISTEN, at(0)))
    first.stream.close()
    with contextlib.suppress(ConnectionResetError):
        assert inside.recv(1) == b""
    inside.close()
    for _ in range(200):
        with socket.create_connection(("127.0.0.1", port), WAIT_SECONDS) as dialled:
            assert dialled.recv(1) == b""
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match="in use"):
            squatter.bind(("127.0.0.1", port))
    with pytest.raises(ConnectionRefusedError):  # nobody has a claim to one that was any
        socket.create_connection(("127.0.0.1", other), WAIT_SECONDS)

    second = accept(listen(directory))
    second.hello(detached=True)
    with pytest.raises(FileNotFoundError):
        second.ask(Ask.CLOSE_LISTENER, struct.pack("<I", 77))
    assert second.ask(Ask.LISTEN, at(port), 5) == struct.pack("<H", port)
    with socket.create_connection(("127.0.0.1", port), WAIT_SECONDS):
        op, _, payload = second.frame()
        assert (op, payload[:4]) == (Answer.ACCEPT, struct.pack("<I", 5))
        with pytest.raises(OSError, match=r"\[Errno 98\]"):
            second.ask(Ask.LISTEN, at(port))
    assert second.frame()[0] == Answer.RECEIVED
    assert second.ask(Ask.CLOSE_LISTENER, struct.pack("<I", 5)) == b""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), WAIT_SECONDS)


def test_kept_ports_are_not_more_than_a_session_may_have(
    start_guest: Callable[..., Guest],
) -> None:
    guest = start_guest("--marker", FIRST.hex())
    raw = guest.raw
    raw.send_bytes(FIRST)
    raw.hello(detached=True, lifetime=600_000, next_marker=SECOND)
    with contextlib.ExitStack() as taken:
        ports = [taken.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(129)]
        numbers = [one.getsockname()[1] for one in ports]
    for number in numbers[:128]:
        raw.ask(Ask.LISTEN, at(number))
    raw.send_bytes(SECOND)
    raw.hello(detached=True)
    with pytest.raises(BlockingIOError):
        raw.ask(Ask.LISTEN, at(numbers[128]))
    raw.ask(Ask.LISTEN, at(numbers[0]), 9)
    raw.ask(Ask.CLOSE_LISTENER, struct.pack("<I", 9))
    raw.ask(Ask.LISTEN, at(numbers[128]))


def test_a_held_output_keeps_its_last_mebibyte(start_guest: Callable[..., Guest]) -> None:
    guest = start_guest()
    raw = guest.raw
    raw.hello()
    script = "yes 0123456 | head -c 3145728; echo; printf end"
    held = raw.start("sh", "-c", script, flags=HELD)
    seen = 0
    while True:
        op, _, payload = raw.frame()
        if op == Answer.EXIT:
            break
        if op == Answer.OUT:
            seen += len(payload) - 8
            raw.send(Ask.ACK, held, struct.pack("<BQ", 1, seen))
    assert seen == 3 * 1024 * 1024 + 4
    raw.send(Ask.ATTACH, held, struct.pack("<QQ", 5, 0))
    raw.started(held)
    _, _, payload = raw.frame()
    assert struct.unpack_from("<Q", payload)[0] == seen - 1024 * 1024
    rest = len(payload) - 8
    again = raw.ending(held, 1)
    assert rest + len(again.stdout) == 1024 * 1024
    assert again.stdout.endswith(b"\nend")
    assert raw.ask(Ask.FORGET, b"", held) == b""
    with pytest.raises(ProcessLookupError):
        raw.ask(Ask.FORGET, b"", held)


def test_forgetting_a_command_that_fails_to_start_is_answered(guest: Guest) -> None:
    raw, held = guest.raw, 5
    payload = exec_payload("no-such-program", flags=HELD)
    exec_ = HEADER.pack(len(payload) + 5, Ask.EXEC, held) + payload
    raw.send_bytes(exec_ + HEADER.pack(5, Ask.FORGET, held))
    assert raw.frame() == (Answer.DONE, held, b"")
    assert raw.ask(Ask.LIST) == bytes(4)


def test_a_list_of_more_commands_than_have_room_for_their_args_is_one_frame(guest: Guest) -> None:
    raw, number = guest.raw, 2100
    for _ in range(number):
        raw.run("true", "x" * 4000, flags=HELD)
    rows = raw.ask(Ask.LIST)
    assert struct.unpack_from("<I", rows) == (number,)
    assert rows.count(b"x" * 4000) > 200


def test_a_marker_begins_a_new_session_at_any_position(start_guest: Callable[..., Guest]) -> None:
    guest = start_guest("--stream", "--marker", FIRST.hex())
    raw = guest.raw
    raw.send_bytes(b"noise" * 1000 + FIRST)
    assert raw.hello(detached=True, lifetime=600_000, next_marker=SECOND) == 1
    held = raw.start("sh", "-c", "echo early; exec sleep 1000", flags=HELD)
    raw.started(held)
    raw.output(held, b"early\n")
    raw.send_bytes(struct.pack("<IBI", 100_000, Ask.EXEC, 9) + b"half a frame")
    raw.send_bytes(SECOND[:7])
    raw.send_bytes(SECOND[7:])
    assert raw.hello(detached=True, next_marker=FIRST) == 2
    raw.send(Ask.ATTACH, held, struct.pack("<QQ", 0, 0))
    raw.started(held)
    assert raw.output(held, b"\n") == b"early\n"
    raw.send(Ask.FORGET, held)
    assert raw.frame()[:2] == (Answer.DONE, held)
    assert struct.unpack("<I", raw.ask(Ask.LIST)) == (0,)


def test_two_hosts_may_have_written_before_the_guest_reads(
    start_guest: Callable[..., Guest],
) -> None:
    """The first of them is gone: its session ends where the marker that it named stands."""
    guest = start_guest("--marker", FIRST.hex())
    lost = struct.pack("<I", 1) + b"L" * 16 + SECOND + struct.pack("<IQB", 60_000, 600_000, 1)
    frame = struct.pack("<IBI", len(lost) + 5, Ask.HELLO, 0) + lost
    ping = struct.pack("<IBI", 6, Ask.PING, 0) + b"x"
    guest.raw.send_bytes(FIRST + frame + ping + ping[:7] + SECOND)
    assert guest.raw.hello(detached=True) == 2
    assert guest.raw.ask(Ask.PING, b"y") == b"y"


def test_a_host_that_listens_and_takes_nobody_does_not_hold_up_the_guest(
    start_guest: Callable[..., Guest], directory: Path
) -> None:
    """A command that dials the door fills the host's queue: the guest's end must come all the same."""
    listener = listen(directory)
    others = []
    with contextlib.suppress(BlockingIOError):
        while True:
            others.append(socket.socket(socket.AF_UNIX))
            others[-1].setblocking(False)
            others[-1].connect(str(directory / "host.sock"))
    guest = start_guest("--socket", str(directory), "--lease", "300")
    assert guest.wait() == 0
    for one in (*others, listener):
        one.close()


def test_a_broken_frame_ends_a_detached_session_not_the_guest(
    start_guest: Callable[..., Guest],
) -> None:
    guest = start_guest("--marker", FIRST.hex())
    guest.raw.send_bytes(FIRST)
    guest.raw.hello(detached=True, lifetime=600_000, next_marker=SECOND)
    guest.raw.send_bytes(b"\xff" * 64)
    guest.raw.send_bytes(SECOND)
    assert guest.raw.hello(detached=True) == 2


def test_a_broken_frame_ends_an_attached_guest(guest: Guest) -> None:
    guest.raw.send_bytes(b"\xff" * 64)
    assert guest.wait() == 0


def test_a_silent_host_loses_an_attached_guest(start_guest: Callable[..., Guest]) -> None:
    guest = start_guest()
    guest.raw.hello()
    operation_id = guest.raw.start("sleep", "1000", env=(guest.name,))
    guest.raw.started(operation_id)
    guest.raw.ask(Ask.LEASE, struct.pack("<IQ", 300, 0))
    assert guest.wait() == 0
    assert guest.marked() == []


def test_a_lifetime_ends_a_detached_guest(start_guest: Callable[..., Guest]) -> None:
    guest = start_guest()
    guest.raw.hello(detached=True, lifetime=300)
    assert guest.wait() == 0


def test_a_detached_guest_needs_a_lifetime(start_guest: Callable[..., Guest]) -> None:
    guest = start_guest()
    guest.raw.send(Ask.HELLO, 0, struct.pack("<I", 1) + bytes(32) + struct.pack("<IQB", 1000, 0, 1))
    with pytest.raises(EOFError):
        guest.raw.frame()


def test_a_guest_that_nobody_greets_ends(start_guest: Callable[..., Guest]) -> None:
    assert start_guest("--lease", "200").wait() == 0


def test_the_lease_can_be_renewed_and_changed(start_guest: Callable[..., Guest]) -> None:
    guest = start_guest()
    guest.raw.hello(lease=60_000)
    assert guest.raw.ask(Ask.LEASE, struct.pack("<IQ", 200, 0)) == b""
    assert guest.wait() == 0


def test_sigterm_ends_it_from_outside_only(guest: Guest) -> None:
    assert guest.raw.run("sh", "-c", "kill -TERM 1; kill -KILL 1; echo $?").stdout == b"1\n"
    assert guest.raw.ask(Ask.PING, b"x") == b"x"
    os.kill(guest.host_pid(1), signal.SIGTERM)
    assert guest.wait() == 0


def test_a_sigterm_that_root_inside_has_the_kernel_send_does_not_end_it(guest: Guest) -> None:
    """For root a descriptor sends any signal to any process, and such a signal has no sender."""
    script = """
import fcntl, os, signal
reads, writes = os.pipe()
fcntl.fcntl(reads, fcntl.F_SETOWN, 1)
fcntl.fcntl(reads, fcntl.F_SETSIG, signal.SIGTERM)
fcntl.fcntl(reads, fcntl.F_SETFL, os.O_ASYNC)
os.write(writes, b"x")
print("sent")
"""
    assert guest.raw.run("python3", "-c", script, who=(0, 0, ())).stdout == b"sent\n"
    assert guest.raw.ask(Ask.PING, b"x") == b"x"


@pytest.mark.parametrize(
    "options",
    [("--no-such",), ("--marker", "12"), ("--socket", "relative"), ("--reserved-uid", "0"), ("x",)],
)
def test_a_wrong_command_line_is_refused(start_guest: Callable[..., Guest], options: tuple) -> None:
    assert start_guest(*options).wait() == 64


def test_the_guest_is_not_dumpable_and_keeps_three_capabilities(guest: Guest) -> None:
    text = Path(f"/proc/{guest.host_pid(1)}/status").read_text()
    rows = dict(line.split(":", 1) for line in text.splitlines())
    assert rows["Uid"].split() == ["65501"] * 4
    assert int(rows["CapPrm"], 16) == int(rows["CapEff"], 16) == 0b11100000
    assert Path(f"/proc/{guest.host_pid(1)}/mem").stat().st_uid == 0
    script = "cat /proc/1/environ || echo denied"
    assert guest.raw.run("sh", "-c", script, who=(0, 0, ())).stdout == b"denied\n"
