"""A host that does what comes to its mind: random operations, good and bad, on a real guest.

Every step sends something: commands with random options, kills, stops, files, forwarded connections,
descriptors, half frames, nothing for a while, a new session. The same seed makes the same choices.
After it the guest must be as it was before.
"""

import array
import contextlib
import random
import select
import socket
import struct
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ringfence.guest.protocol import HEADER, NO_CAP, Answer, Ask, Cred, ExecFlag, cred, string
from tests.unit.agent.raw import WAIT_SECONDS, Guest, Raw, exec_payload, until

from . import sanitized

ENVIRONMENT = {
    **sanitized.ENVIRONMENT,
    "ASAN_OPTIONS": "detect_leaks=0:quarantine_size_mb=1:thread_local_quarantine_size_kb=64",
}
SCRIPTS: Final = (
    "true",
    "exit 3",
    "echo out; echo err >&2",
    "yes | head -c 400000",
    "cat",
    "sleep 1000",
    "exec >&- 2>&-; sleep 1000",
    "setsid sleep 1000 & echo left",
    "trap '' TERM; sleep 1000 & wait",
    "for n in 1 2 3; do (setsid sh -c 'sleep 1000 & sleep 1000' &) & done; wait",
    "kill -STOP $$; echo on",
    "kill -9 $PPID; kill -STOP $PPID; exec true",
    "exec cat /dev/zero",
)
STOPS_OTHERS: Final = "kill -STOP -1"
USERS: Final = (1000, 1000, 1001, 0, 65501)
NAMES: Final = (b"a", b"b", b"a/c", b"a/c/d", b"link", b"")
FOREIGN: Final = (
    b"/proc/self/status",
    b"/proc/1/mem",
    b"/dev/zero",
    b"/etc",
    b"/nowhere/x",
    b"x",
    b"",
)
"""Paths that are read, not written."""
NO_PATHS: Final = (b"relative", b"", b"/" + b"x" * 5000, b"/nowhere/at/all")
COMMANDS_MOST = 24
STEADY, STEADY_SECONDS = 5, 0.05
GROWTH_MOST = 8 * 1024
"""KiB; what the sanitizers keep of freed memory goes up and down."""
QUIET: Final = (Ask.STDIN, Ask.ACK, Ask.SIGNAL, Ask.RESIZE, Ask.CANCEL, Ask.FILE_DATA, Ask.FILE_END)


class Storm:
    """One guest and what is done to it. `directory`: for its door and its files, reached by all."""

    def __init__(self, program: Path, directory: Path, seed: int) -> None:
        self.random = random.Random(seed)
        self.files = directory / "files"
        self.files.mkdir()
        self.files.chmod(0o777)
        (directory / "tasks").write_text("0")
        self._path = directory / "host.sock"
        self._door = self._listen()
        handed = ("--connected", "1") if seed % 2 else ()
        self.guest = Guest(program, "--socket", str(directory), *handed, env=ENVIRONMENT)
        self._ids: list[int] = []
        self._next_id = 1
        self._ports = [9]
        self._totals: dict[tuple[int, int], int] = {}
        self._silent = 0
        self._session(self.guest.raw.stream if handed else None)
        self.pid = self.guest.host_pid(1)

    def _listen(self) -> socket.socket:
        door = socket.socket(socket.AF_UNIX)
        door.bind(str(self._path))
        self._path.chmod(0o666)
        door.listen(1)
        door.settimeout(WAIT_SECONDS)
        return door

    def accept(self) -> socket.socket:
        """The guest's next stream, when it has lost the one before."""
        return self._door.accept()[0]

    def _session(self, handed: socket.socket | None = None) -> None:
        self.raw = Raw(handed or self.accept())
        self.raw.hello(detached=True, lifetime=3_600_000)
        self._data = b""

    # ---- what arrives ----

    def _frames(self, seconds: float = 0) -> Iterator[tuple[int, int, bytes]]:
        while select.select([self.raw.stream], [], [], seconds)[0]:
            more = self.raw.stream.recv(1 << 20)
            if not more:
                raise EOFError
            self._data += more
            while len(self._data) >= HEADER.size:
                length, op, operation_id = HEADER.unpack_from(self._data)
                if len(self._data) < 4 + length:
                    break
                payload, self._data = self._data[9 : 4 + length], self._data[4 + length :]
                yield op, operation_id, payload

    def _take(self, op: int, operation_id: int, payload: bytes) -> None:
        if op in (Answer.OUT, Answer.ERR):
            stream = 1 if op == Answer.OUT else 2
            offset = struct.unpack_from("<Q", payload)[0]
            self._totals[operation_id, stream] = offset + len(payload) - 8
        elif op in (Answer.EXIT, Answer.FAIL) and self.random.random() < 0.9:
            with contextlib.suppress(ValueError):
                self._ids.remove(operation_id)
        elif op == Answer.DONE and len(payload) == 2:
            self._ports.append(struct.unpack("<H", payload)[0])

    def _wait_for(self, wanted: int) -> bytes | None:
        """The DONE's or other answer's payload of this id; None for FAIL."""
        while True:
            for op, operation_id, payload in self._frames(WAIT_SECONDS):
                self._take(op, operation_id, payload)
                if operation_id == wanted:
                    return None if op == Answer.FAIL else payload
            raise AssertionError("an answer never came")

    # ---- what is sent ----

    def _send(self, op: int, operation_id: int, payload: bytes, descriptors: int = 0) -> None:
        frame = HEADER.pack(len(payload) + 5, op, operation_id) + payload
        if not descriptors:
            self.raw.send_bytes(frame)
            return
        with (self.files.parent / "tasks").open("a+") as file:
            rights = array.array("i", [file.fileno()] * descriptors)
            sent = self.raw.stream.sendmsg(
                [frame], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)]
            )
        self.raw.send_bytes(frame[sent:])

    def _new_id(self) -> int:
        self._next_id += 1
        self._ids.append(self._next_id)
        return self._next_id

    def _some_id(self) -> int:
        if not self._ids or self.random.random() < 0.05:
            return self.random.choice((0, 1, 2**31, 2**32 - 1))
        return self.random.choice(self._ids)

    def _exec(self) -> None:
        pick = self.random.choice
        user, script = pick(USERS), pick(SCRIPTS)
        if user == 1001 and self.random.random() < 0.1:
            script = STOPS_OTHERS
        args = ("no-such-program",) if self.random.random() < 0.05 else ("sh", "-c", script)
        cgroups = pick((0, 0, 0, 0, 1, 2, 7))
        payload = exec_payload(
            *args,
            flags=(self.random.randrange(64) | 32)
            + (cgroups << 6)
            + pick((0, ExecFlag.TELL_START)),
            who=Cred(user, pick((0, 1000)), pick(((), (1, 2, 3)))),
            env=(self.guest.name, pick((b"", b"A=" + b"y" * 50_000))),
            cwd=pick((b"/", b"/", b"/", b"/nowhere")),
            timeout=pick((0, 0, 1, 50, 300)),
            grace=pick((0, 10)),
            caps=(pick((NO_CAP, NO_CAP, 0, 1000)), pick((NO_CAP, 10))),
            limits=pick(((), (), ((7, 64, 64),), ((99, 1, 1),), ((0, 1, 1),))),
            stdin=pick((b"", b"text", b"z" * 100_000)),
        )
        descriptors = cgroups if self.random.random() < 0.9 else pick((0, 1, 9))
        self._send(Ask.EXEC, self._new_id(), payload, descriptors)

    def _later(self) -> None:
        operation_id, op = (
            self._some_id(),
            self.random.choice((*QUIET, Ask.ATTACH, Ask.FORGET, Ask.KILL)),
        )
        number = self.random.choice((0, 1, 2, 9, 15, 17, 18, 19, 64, 65))
        payloads = {
            Ask.STDIN: bytes(self.random.choice((0, 10, 100_000, 300_000))),
            Ask.SIGNAL: struct.pack("<IB", number, self.random.randrange(3)),
            Ask.RESIZE: struct.pack("<HH", 5, 6),
            Ask.FILE_DATA: bytes(self.random.choice((1, 70_000))),
            Ask.FILE_END: bytes([self.random.randrange(2)]),
            Ask.ATTACH: struct.pack("<QQ", self.random.randrange(1000), 0)
            + self.random.choice((b"", b"\0", b"\1", b"\1\1")),
        }
        if op == Ask.ACK:
            stream = self.random.choice((1, 2, 3))
            total = self._totals.get((operation_id, stream), number)
            payloads[op] = struct.pack("<BQ", stream, total)
        self._send(op, operation_id, payloads.get(op, b""))

    def _own_path(self) -> bytes:
        if self.random.random() < 0.1:
            return string(self.random.choice(NO_PATHS))
        return string(bytes(self.files) + b"/" + self.random.choice(NAMES))

    def _file(self) -> None:
        r, own = self.random, self._own_path()
        any_path = string(r.choice(FOREIGN)) if r.random() < 0.3 else self._own_path()
        mode, bit = struct.pack("<I", r.choice((0o600, 0o755, 0o7777))), bytes([r.randrange(2)])
        flags = struct.pack("<I", r.choice((1, 3, 5, 17, 35, 67, 99, 255)))
        data = bytes(r.choice((0, 10, 200_000)))
        op, payload = r.choice((
            (Ask.STAT, bit + any_path),
            (Ask.LIST_DIR, any_path + string(r.choice((b"", bytes(16)))) + struct.pack("<IB", r.randrange(3), 1)),
            (Ask.READ, any_path + struct.pack("<QQ", 0, r.choice((10, 300_000)))),
            (Ask.WRITE, own + flags + mode + struct.pack("<Q", r.choice((0, 5))) + data),
            (Ask.MKDIR, mode + bit + own),
            (Ask.REMOVE, bit + own),
            (Ask.RENAME, bit + own + self._own_path()),
            (Ask.CHMOD, mode + own),
            (Ask.COPY, bit + own + self._own_path()),
            (Ask.SYMLINK, string(r.choice((b"a", b"nowhere", b"/proc/self"))) + own),
            (Ask.READLINK, any_path),
            (Ask.WATCH, bit + own),
            (Ask.WALK, own + struct.pack("<IQ", r.randrange(4), r.randrange(100))),
        ))  # fmt: skip
        payload = cred(Cred(r.choice((1000, 1000, 1001, 65501)), 1000)) + payload
        self._send(op, self._new_id(), payload)

    def _forward(self) -> None:
        pick = self.random.choice
        address = string(pick((b"127.0.0.1", b"127.0.0.1", b"::1", b"10.0.0.1", b"x")))
        op, payload = pick((
            (Ask.LISTEN, address + struct.pack("<H", 0)),
            (Ask.CONNECT, address + struct.pack("<H", pick(self._ports))),
            (Ask.CLOSE_LISTENER, struct.pack("<I", self._some_id())),
            (Ask.SEND, bytes(pick((0, 10, 300_000)))),
            (Ask.RESET, b""),
        ))  # fmt: skip
        old = op in (Ask.SEND, Ask.RESET)
        self._send(op, self._some_id() if old else self._new_id(), payload)

    def _question(self) -> None:
        pick = self.random.choice
        allow = struct.pack("<HBBI", 6, 0, 0, 0x7FFF0000)
        op, payload = pick((
            (Ask.PING, bytes(pick((0, 64, 65)))),
            (Ask.LEASE, struct.pack("<IQ", 60_000, 0)),
            (Ask.USER, string(pick((b"root", b"nobody:9", b"", b"no one", b"7:x")))),
            (Ask.LIST, b""),
            (Ask.FILTER, pick((b"", allow, allow + b"x"))),
            (Ask.CPU_TIME, struct.pack("<QI", 2**60, pick((0, 1)))),
            (Ask.SPACE, struct.pack("<I", pick((1, 1, 2, 300))) + string(b"/tmp")),
        ))  # fmt: skip
        descriptors = pick((0, 0, 1, 2)) if op in (Ask.CPU_TIME, Ask.PING) else 0
        self._send(op, self._new_id(), payload, descriptors)

    def _nonsense(self) -> None:
        op = self.random.choice((*range(0x10, 0x35), 0x44, 0x7F, 0xFF))
        if op != Ask.ACK:
            self._send(op, self._some_id(), self.random.randbytes(self.random.choice((1, 2, 3))))

    def _new_host(self) -> None:
        if self.random.random() < 0.3:
            self.raw.send_bytes(
                self.random.choice((b"\xff" * 16, HEADER.pack(900, Ask.EXEC, 3) + b"half"))
            )
        self.raw.stream.close()
        self._session()

    def _fewer(self) -> None:
        for operation_id in self._ids:
            self._send(self.random.choice((Ask.KILL, Ask.FORGET)), operation_id, b"")
        self._ids.clear()

    def step(self) -> None:
        """One thing, and what has arrived meanwhile; not always."""
        acts = (self._exec, self._later, self._file, self._forward, self._question, self._nonsense)
        try:
            self.random.choices(acts, (5, 8, 5, 3, 2, 1))[0]()
            if self.random.random() < 0.01:
                self._send(Ask.KILL_ALL, self._new_id(), b"")
            if len(self._ids) > COMMANDS_MOST:
                self._fewer()
            if self._silent == 0 and self.random.random() < 0.02:
                self._silent = 20
            self._silent = max(0, self._silent - 1)
            for frame in () if self._silent else self._frames():
                self._take(*frame)
            if self.random.random() < 0.01:
                self._new_host()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            assert self.guest.process.poll() is None, "the guest is gone"
            self._session()

    # ---- the end ----

    def settle(self) -> None:
        """A new session in which all is released: nothing may be left of what was done."""
        self.raw.stream.close()
        self._session()
        self._ids.clear()
        until(lambda: self._wait_for(self._ask(Ask.KILL_ALL)), "an earlier KILL_ALL is answered")
        for held in self._rows(self._wait_for(self._ask(Ask.LIST)) or b""):
            self._send(Ask.FORGET, held, b"")
            assert self._wait_for(held) == b""
        assert self._wait_for(self._ask(Ask.LIST)) == bytes(4)
        counted = self._ask(Ask.CPU_TIME, struct.pack("<QI", 2**60, 1), 1)
        assert self._wait_for(counted) == b"", "it has one counter, which stays open"
        until(lambda: not self.guest.marked(), "no command is left")
        until(lambda: self.processes() <= 6, "no worker is left, and few supervisors")
        until(self._no_directory_is_open, "the directories between two pages are forgotten")

    def _ask(self, op: int, payload: bytes = b"", descriptors: int = 0) -> int:
        operation_id = self._new_id()
        self._send(op, operation_id, payload, descriptors)
        return operation_id

    def _no_directory_is_open(self) -> bool:
        return not any(entry.is_dir() for entry in Path(f"/proc/{self.pid}/fd").iterdir())

    @staticmethod
    def _rows(payload: bytes) -> list[int]:
        at, found = 4, []
        for _ in range(struct.unpack_from("<I", payload)[0]):
            found.append(struct.unpack_from("<I", payload, at)[0])
            at += 25
            words = struct.unpack_from("<I", payload, at)[0]
            at += 4
            for _ in range(words):
                at += 4 + struct.unpack_from("<I", payload, at)[0]
        return found

    def processes(self) -> int:
        """The guest's children, dead ones too."""
        return len(Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split())

    def descriptors(self) -> int:
        """The guest's own, without both ends of each supervisor's socket: some wait for a job."""
        before = self.processes()
        return sum(1 for _ in Path(f"/proc/{self.pid}/fd").iterdir()) - 2 * before

    def steady_descriptors(self) -> int:
        """The same, once it stays so: of a process that ends the descriptor may go a little later."""
        seen = [self.descriptors()]
        while seen[-STEADY:] != seen[-1:] * STEADY:
            time.sleep(STEADY_SECONDS)
            seen.append(self.descriptors())
        return seen[-1]

    def memory(self) -> int:
        """KiB that are resident."""
        text = Path(f"/proc/{self.pid}/status").read_text()
        return int(text.split("VmRSS:")[1].split()[0])

    def close(self) -> None:
        """End it."""
        self._door.close()
        self.guest.close()


@contextlib.contextmanager
def begun(program: Path, seed: int) -> Iterator[Storm]:
    """A storm in a directory of its own; both end with it."""
    with tempfile.TemporaryDirectory(prefix="rf-", dir="/tmp") as name:
        directory = Path(name)
        directory.chmod(0o711)
        storm = Storm(program, directory, seed)
        try:
            yield storm
        finally:
            storm.close()


def run(program: Path, seed: int, steps: int) -> str:
    """A storm of so many steps and what is to be true after it; a line that says how it went."""
    with begun(program, seed) as storm:
        for _ in range(steps // 4):
            storm.step()
        storm.settle()
        descriptors, memory = storm.steady_descriptors(), storm.memory()
        for _ in range(steps - steps // 4):
            storm.step()
        storm.settle()
        until(lambda: storm.descriptors() <= descriptors, "no more descriptors than before")
        grown = storm.memory() - memory
        assert grown < GROWTH_MOST, f"seed {seed}: {grown} KiB more than {memory}"
        storm.raw.send(Ask.SHUTDOWN)
        assert storm.guest.wait() == 0
    return f"seed {seed}: {steps} steps, {descriptors} descriptors, {grown} KiB more of {memory}"
