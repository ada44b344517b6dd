"""What a command is given, and what it is not."""

import errno
import resource
import shutil
import signal
import socket
import struct
from pathlib import Path

import pytest

from ringfence.guest import build
from ringfence.guest.protocol import HEADER, OUTPUT_WINDOW, Answer, Ask, ExecFlag
from tests.conftest import missing

from .raw import Guest, until

PTY, JOIN, SEARCH, OPEN = 2, 4, 32, 1
STATUS = [
    "Uid",
    "Gid",
    "Groups",
    "CapInh",
    "CapPrm",
    "CapEff",
    "CapBnd",
    "CapAmb",
    "NoNewPrivs",
    "SigBlk",
    "SigIgn",
]


def status_inside(guest: Guest, **options) -> dict[str, str]:
    text = guest.raw.run("cat", "/proc/self/status", **options).stdout.decode()
    rows = dict(line.split(":", 1) for line in text.splitlines())
    return {name: " ".join(rows[name].split()) for name in STATUS}


@pytest.mark.parametrize("who", [(1000, 1001, (7, 8)), (0, 0, ())])
def test_a_command_has_its_user_and_no_privilege(guest: Guest, who: tuple) -> None:
    status = status_inside(guest, who=who)
    assert status["Uid"] == " ".join([str(who[0])] * 4)
    assert status["Gid"] == " ".join([str(who[1])] * 4)
    assert status["Groups"].split() == [str(group) for group in who[2]]
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "SigBlk", "SigIgn"):
        assert int(status[name], 16) == 0, name
    assert status["NoNewPrivs"] == "1"


@pytest.mark.parametrize("flags", [SEARCH, SEARCH | OPEN, SEARCH | JOIN, SEARCH | PTY])
def test_a_command_has_three_descriptors(guest: Guest, flags: int) -> None:
    script = "ls /proc/$$/fd; :"
    out = guest.raw.run("sh", "-c", script, flags=flags).stdout
    assert out.split() == [b"0", b"1", b"2"]


@pytest.mark.parametrize(("size", "wanted"), [(1000, 64 * 1024), (1_000_000, 256 * 1024)])
def test_a_command_that_fills_its_pipe_gets_a_wider_one(
    guest: Guest, size: int, wanted: int
) -> None:
    script = (
        f"import fcntl, os; os.write(1, bytes({size})); os.write(2, b'%d' % fcntl.fcntl(1, 1032))"
    )

    def found() -> bool:
        ending = guest.raw.run("python3", "-c", script)
        assert len(ending.stdout) == size
        return int(ending.stderr) == wanted

    # Not while others of the guest's user have more pipes than the kernel lets one user have.
    until(found, "no pipe of that size")


def test_pipes_belong_to_the_command(guest: Guest) -> None:
    script = "echo out >/dev/stdout; echo err >/proc/self/fd/2; cat /dev/stdin"
    ending = guest.raw.run("sh", "-c", script, stdin=b"in\n")
    assert (ending.stdout, ending.stderr) == (b"out\nin\n", b"err\n")


def test_a_terminal_belongs_to_the_command_and_has_its_size(guest: Guest) -> None:
    script = "stty size; tty >/dev/null && echo again >$(tty); read line; stty size; exit 4"
    operation_id = guest.raw.start("sh", "-c", script, flags=SEARCH | PTY | OPEN, size=(33, 99))
    guest.raw.started(operation_id)
    assert b"33 99\r\n" in guest.raw.output(operation_id, b"again\r\n")
    guest.raw.send(Ask.RESIZE, operation_id, struct.pack("<HH", 11, 22))
    guest.raw.send(Ask.STDIN, operation_id, b"go\n")
    ending = guest.raw.ending(operation_id)
    assert b"11 22\r\n" in ending.stdout
    assert ending.status == 4 << 8


def test_the_end_of_input_reaches_a_terminal(guest: Guest) -> None:
    operation_id = guest.raw.start("cat", flags=SEARCH | PTY | OPEN)
    guest.raw.send(Ask.STDIN, operation_id, b"line\n")
    guest.raw.send(Ask.STDIN, operation_id, b"")
    assert guest.raw.ending(operation_id).status == 0


def test_a_command_that_closed_its_terminal_is_not_hung_up(guest: Guest) -> None:
    """As `cat` does right before its end; what it writes to the terminal after that arrives too."""
    script = "echo first; exec <&- >&- 2>&-; sleep 0.2; echo last >/dev/tty; sleep 0.2; exit 7"
    ending = guest.raw.run("sh", "-c", script, flags=SEARCH | PTY)
    assert (ending.status, ending.stdout) == (7 << 8, b"first\r\nlast\r\n")


def test_a_command_that_opens_its_terminal_again_is_read_and_written_to(guest: Guest) -> None:
    """More than the terminal keeps for a reader; and what comes for the command after that."""
    script = "exec <&- >&- 2>&-; sleep 0.2; exec <>/dev/tty >&0; read line; "
    script += 'i=0; while [ $i -lt 4000 ]; do i=$((i+1)); echo "$line $i"; done; exit 7'
    operation_id = guest.raw.start("sh", "-c", script, flags=SEARCH | PTY | OPEN, timeout=20_000)
    pid = guest.raw.started(operation_id)
    opened = Path(f"/proc/{guest.host_pid(pid)}/fd/0")
    until(
        lambda: opened.is_symlink() and opened.readlink() == Path("/dev/tty"), "it opened it again"
    )
    guest.raw.send(Ask.STDIN, operation_id, b"go\n")
    ending = guest.raw.ending(operation_id)
    assert (ending.status, ending.stdout.split(b"\r\n")[-2]) == (7 << 8, b"go 4000")


def test_a_group_signal_reaches_the_group_and_a_plain_one_the_main_process(guest: Guest) -> None:
    script = "trap 'echo main; exit 0' USR1; sh -c 'trap \"echo child\" USR1; echo armed; "
    script += "while :; do sleep 0.05; done' & wait; wait"
    operation_id = guest.raw.start("sh", "-c", script)
    guest.raw.started(operation_id)
    guest.raw.output(operation_id, b"armed\n")
    guest.raw.send(Ask.SIGNAL, operation_id, struct.pack("<IB", signal.SIGUSR1, 1))
    ending = guest.raw.ending(operation_id)
    assert set(ending.stdout.split()) <= {b"main", b"child"}
    assert b"main" in ending.stdout
    assert ending.proof == 3


def test_limits_hold_in_the_command(guest: Guest) -> None:
    limits = ((resource.RLIMIT_NOFILE, 33, 44), (resource.RLIMIT_CORE, 0, 0))
    out = guest.raw.run("sh", "-c", "ulimit -Sn; ulimit -Hn; ulimit -c", limits=limits).stdout
    assert out.split() == [b"33", b"44", b"0"]
    with pytest.raises(OSError, match="stage 1") as caught:
        guest.raw.run("true", limits=((99, 1, 1),))
    assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize(
    ("args", "options", "expected"),
    [
        (("true",), {"who": (65501, 65501, ())}, (errno.EPERM, "stage 2")),
        (("true",), {"cwd": b"/no/such"}, (errno.ENOENT, "stage 3")),
        (("true",), {"cwd": b"/root/.no"}, (errno.EACCES, "stage 3")),
        (("no-such-program",), {}, (errno.ENOENT, "stage 4")),
        (("true",), {"flags": 0}, (errno.ENOENT, "stage 4")),
        (("/proc/version",), {}, (errno.EACCES, "stage 4")),
    ],
)
def test_what_cannot_start_says_why(
    guest: Guest, args: tuple, options: dict, expected: tuple
) -> None:
    with pytest.raises(OSError, match="stage") as caught:
        guest.raw.run(*args, **options)
    assert (caught.value.errno, caught.value.strerror) == expected
    assert guest.raw.run("echo", "on").stdout == b"on\n"


def test_usage_and_durations_come_back(guest: Guest) -> None:
    ending = guest.raw.run("sh", "-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done")
    wall, user, system, rss, minor = ending.fields[8:13]
    assert wall > 0
    assert user + system > 0
    assert rss > 100
    assert minor > 10
    assert ending.proof == 1


def test_output_of_children_that_hold_the_pipes_does_not_delay_the_end(guest: Guest) -> None:
    ending = guest.raw.run("sh", "-c", "sleep 1000 & echo done", env=(guest.name,))
    assert (ending.stdout, ending.proof) == (b"done\n", 3)
    endless = guest.raw.run("sh", "-c", "yes & exit 0", caps=(100, 100))
    assert (b"y\n" * 50).startswith(endless.stdout)
    assert endless.status == 0


def test_a_kill_with_a_full_window_ends_within_its_rest(guest: Guest) -> None:
    operation_id = guest.raw.start("yes")
    pid = guest.raw.started(operation_id)
    seen = 0
    while seen < 1024 * 1024:
        seen += len(guest.raw.frame()[2]) - 8
    assert seen == 1024 * 1024
    state = Path(f"/proc/{guest.host_pid(pid)}/stat")
    until(
        lambda: state.read_text().rpartition(")")[2].split()[0] == "S", "its pipe is full as well"
    )
    guest.raw.send(Ask.KILL, operation_id)
    ending = guest.raw.ending(operation_id)
    assert ending.stdout == b""
    assert ending.stdout_total > 1024 * 1024


def test_input_for_what_takes_none_is_ignored(guest: Guest) -> None:
    """Nothing is answered, and neither pipe nor terminal notices."""
    for flags, seen in ((SEARCH, b"given\nlate\n"), (SEARCH | 2, b"given\r\nlate\r\n")):
        line = "stty -echo 2>/dev/null; echo up; read x; echo $x; sleep 0.2; echo late"
        operation_id = guest.raw.start("sh", "-c", line, flags=flags, stdin=b"given\n")
        guest.raw.started(operation_id)
        for data in (b"x" * 300_000, b"x\n", b""):
            guest.raw.send(Ask.STDIN, operation_id, data)
        ending = guest.raw.ending(operation_id)
        assert ending.status == 0
        assert ending.stdout.endswith(seen)


def test_too_much_input_is_a_broken_protocol(guest: Guest) -> None:
    operation_id = guest.raw.start("sleep", "1000", flags=SEARCH | OPEN, env=(guest.name,))
    guest.raw.started(operation_id)
    guest.raw.send(Ask.STDIN, operation_id, b"x" * (256 * 1024 + 1))
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the errno is checked below
        guest.raw.ending(operation_id)
    assert caught.value.errno == errno.EPROTO
    assert guest.raw.ending(operation_id).reason == 2
    assert guest.marked() == []


@pytest.mark.parametrize(
    ("op", "payload"),
    [
        (Ask.EXEC, b"short"),
        (Ask.EXEC, b"\0" * 8 + b"\xff" * 60),
        (Ask.USER, b"\4\0\0\0a\0bc"),
        (Ask.PING, b"x" * 65),
        (Ask.LEASE, b""),
        (Ask.HELLO, b""),
        (Ask.LIST, b"x"),
    ],
)
def test_a_payload_that_does_not_parse_is_answered(guest: Guest, op: int, payload: bytes) -> None:
    with pytest.raises(OSError, match="stage 0") as caught:
        guest.raw.ask(op, payload)
    assert caught.value.errno == errno.EPROTO
    assert guest.raw.ask(Ask.PING, b"x") == b"x"


def test_an_unknown_op_is_answered(guest: Guest) -> None:
    with pytest.raises(OSError, match="stage 0") as caught:
        guest.raw.ask(0x3E, b"abc")
    assert caught.value.errno == errno.ENOSYS


def test_an_id_in_use_is_refused(guest: Guest) -> None:
    operation_id = guest.raw.start("sleep", "1000", env=(guest.name,))
    guest.raw.started(operation_id)
    from .raw import exec_payload

    with pytest.raises(OSError, match="stage") as caught:
        guest.raw.ask(Ask.EXEC, exec_payload("true"), operation_id)
    assert caught.value.errno == errno.EEXIST


def test_the_guest_opens_more_files_than_it_was_given_and_its_commands_do_not(
    guest: Guest,  # for its conditions
) -> None:
    if shutil.which("prlimit") is None:
        missing("prlimit is not installed: apt-get install util-linux")
    few = Guest(Path("prlimit"), "--nofile=40:4096", str(build.target()), "--stream")
    try:
        few.raw.hello()
        many = [few.raw.start("sh", "-c", "read x; ulimit -n", flags=33) for _ in range(60)]
        for operation_id in many:
            few.raw.send(Ask.STDIN, operation_id, b"x\n")
        endings = {}
        output = dict.fromkeys(many, b"")
        while len(endings) < len(many):
            op, operation_id, payload = few.raw.frame()
            assert op != Answer.FAIL, payload
            if op == Answer.OUT:
                output[operation_id] += payload[8:]
            if op == Answer.EXIT:
                endings[operation_id] = payload
        assert set(output.values()) == {b"40\n"}
    finally:
        few.close()


def _first_read(guest: Guest, flags: int) -> bytes:
    """What the host reads first of a command that goes on for a few milliseconds."""
    command = guest.raw.start("sh", "-c", "sleep 0.005", flags=flags)
    first = guest.raw.stream.recv(1 << 16, socket.MSG_PEEK)
    guest.raw.ending(command)
    return first


def test_a_start_that_nobody_waits_for_comes_along_with_an_end_that_follows_soon(
    guest: Guest,
) -> None:
    """Each write wakes the host. On a busy machine a command may take longer: one of many will do."""
    alone = HEADER.size + 4
    assert any(len(_first_read(guest, ExecFlag.SEARCH_PATH)) > alone for _ in range(40))
    told = [_first_read(guest, ExecFlag.SEARCH_PATH | ExecFlag.TELL_START) for _ in range(10)]
    assert any(len(first) == alone for first in told)


def test_a_start_that_nobody_waits_for_is_told_all_the_same(guest: Guest) -> None:
    guest.raw.started(guest.raw.start("sleep", "1000"))


def test_output_that_goes_on_does_not_wait_for_what_follows(guest: Guest) -> None:
    """Though nobody waited for the start. On a busy machine it may: one of many will do."""

    def first_read() -> bytes:
        command = guest.raw.start("sh", "-c", "echo one; sleep 0.005; echo two")
        first = guest.raw.stream.recv(1 << 16, socket.MSG_PEEK)
        guest.raw.ending(command)
        return first

    assert any(
        b"one" in first and b"two" not in first for first in (first_read() for _ in range(40))
    )


@pytest.mark.parametrize(("where", "stream"), [("", 1), (" >&2", 2)])
def test_an_acknowledgement_of_what_was_not_sent_changes_nothing(
    guest: Guest, where: str, stream: int
) -> None:
    raw = guest.raw
    command = raw.start("sh", "-c", "read line; exec cat /dev/zero" + where, flags=33)
    raw.started(command)
    raw.send(Ask.ACK, command, struct.pack("<BQ", stream, 2**63))
    raw.send(Ask.STDIN, command, b"go\n")
    seen = 0
    while seen < OUTPUT_WINDOW:
        op, _, payload = raw.frame()
        seen += len(payload) - 8 if op != Answer.STDIN_ACK else 0
    assert seen == OUTPUT_WINDOW
