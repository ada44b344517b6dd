"""A real guest spoken to in single frames, from outside its pid namespace."""

import contextlib
import os
import signal
import socket
import struct
import subprocess
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ringfence.guest.protocol import (
    EXIT,
    NO_CAP,
    Answer,
    Ask,
    Cred,
    ExecFlag,
    cred,
    string,
    strings,
)

NAMESPACE = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
WAIT_SECONDS = 30.0
HELD = ExecFlag.SEARCH_PATH | ExecFlag.HOLD
USER = Cred(1000, 1000)
PATH = b"PATH=/usr/bin:/bin"


def until(fact: Callable[[], object], what: str) -> None:
    """Wait until `fact()` is true."""
    end = time.monotonic() + WAIT_SECONDS
    while not fact():
        assert time.monotonic() < end, f"never came true: {what}"
        time.sleep(0.01)


@dataclass
class Ending:
    """An EXIT frame with the output that came before it."""

    status: int
    reason: int
    proof: int
    killed: int
    stdout_total: int
    stdout: bytes
    stderr: bytes
    pid: int
    fields: tuple[int, ...] = field(repr=False, default=())


def exec_payload(
    *args: str | bytes,
    flags: int = 32,
    who: Cred = USER,
    env: tuple[bytes, ...] = (),
    cwd: bytes = b"/",
    timeout: int = 0,
    grace: int = 0,
    caps: tuple[int, int] = (NO_CAP, NO_CAP),
    size: tuple[int, int] = (24, 80),
    limits: tuple[tuple[int, int, int], ...] = (),
    stdin: bytes = b"",
) -> bytes:
    """The payload of EXEC; times in milliseconds."""
    words = [arg if isinstance(arg, bytes) else arg.encode() for arg in args]
    numbers = struct.pack("<QIQQHHI", timeout, grace, *caps, *size, len(limits))
    packed = b"".join(struct.pack("<IQQ", *limit) for limit in limits)
    head = struct.pack("<I", flags) + cred(who) + numbers + packed
    return head + string(cwd) + strings(words) + strings([PATH, *env]) + string(stdin)


class Raw:
    """Frames over one stream."""

    def __init__(self, stream: socket.socket) -> None:
        self.stream = stream
        stream.settimeout(WAIT_SECONDS)
        self._data = b""
        self._next_id = 1
        self.hello_payload = b""

    def send_bytes(self, data: bytes) -> None:
        """Anything."""
        self.stream.sendall(data)

    def send(self, op: int, operation_id: int = 0, payload: bytes = b"") -> None:
        """One frame."""
        self.send_bytes(struct.pack("<IBI", len(payload) + 5, op, operation_id) + payload)

    def _take(self, size: int) -> bytes:
        while len(self._data) < size:
            more = self.stream.recv(1 << 16)
            if not more:
                raise EOFError
            self._data += more
        taken, self._data = self._data[:size], self._data[size:]
        return taken

    def frame(self) -> tuple[int, int, bytes]:
        """The next frame: op, id, payload."""
        length, op, operation_id = struct.unpack("<IBI", self._take(9))
        return op, operation_id, self._take(length - 5)

    def ask(self, op: int, payload: bytes = b"", operation_id: int | None = None) -> bytes:
        """One question; its DONE's or other answer's payload. OSError for a FAIL."""
        operation_id = self.new_id() if operation_id is None else operation_id
        self.send(op, operation_id, payload)
        answer, answered, data = self.frame()
        assert answered == operation_id
        if answer == Answer.FAIL:
            raise OSError(struct.unpack_from("<I", data)[0], f"stage {data[4]}")
        return data

    def hello(
        self,
        *,
        lease: int = 60_000,
        lifetime: int = 0,
        detached: bool = False,
        next_marker: bytes = bytes(16),
    ) -> int:
        """Open a session, dropping what comes before; its epoch."""
        marker = os.urandom(16)
        tail = struct.pack("<IQB", lease, lifetime, detached)
        self.send(Ask.HELLO, 0, struct.pack("<I", 1) + marker + next_marker + tail)
        greeting = struct.pack("<BI", Answer.HELLO, 0) + marker
        while greeting not in self._data:
            more = self.stream.recv(1 << 16)
            if not more:
                raise EOFError
            self._data += more
        self._data = self._data[self._data.index(greeting) - 4 :]
        self.hello_payload = self.frame()[2]
        return struct.unpack_from("<Q", self.hello_payload, 32)[0]

    def new_id(self) -> int:
        """A fresh id."""
        self._next_id += 1
        return self._next_id

    def start(self, *args: str | bytes, **options) -> int:
        """EXEC; its id. Nothing is awaited."""
        operation_id = self.new_id()
        self.send(Ask.EXEC, operation_id, exec_payload(*args, **options))
        return operation_id

    def started(self, operation_id: int) -> int:
        """Its STARTED, which must be the next frame; the pid inside."""
        op, answered, payload = self.frame()
        assert (op, answered) == (Answer.STARTED, operation_id), (op, answered, payload)
        return struct.unpack("<I", payload)[0]

    def output(self, operation_id: int, wanted: bytes) -> bytes:
        """OUT frames of this id until they hold `wanted`."""
        seen = b""
        while wanted not in seen:
            op, answered, payload = self.frame()
            if op == Answer.STDIN_ACK:
                continue
            assert (op, answered) == (Answer.OUT, operation_id), (op, answered, payload)
            seen += payload[8:]
        return seen

    def ending(self, operation_id: int, pid: int = 0) -> Ending:
        """All frames of this id up to its EXIT; frames of others are dropped. OSError for FAIL."""
        out, err = b"", b""
        while True:
            op, answered, payload = self.frame()
            if answered != operation_id:
                continue
            if op == Answer.STARTED:
                pid = struct.unpack("<I", payload)[0]
            elif op == Answer.OUT:
                out += payload[8:]
            elif op == Answer.ERR:
                err += payload[8:]
            elif op == Answer.FAIL:
                raise OSError(
                    struct.unpack_from("<I", payload)[0],
                    f"stage {payload[4]}",
                    payload[9:].decode(),
                )
            elif op == Answer.EXIT:
                fields = EXIT.unpack(payload)
                status, reason, proof, killed, _, _, total = fields[:7]
                return Ending(status, reason, proof, killed, total, out, err, pid, fields)

    def run(self, *args: str | bytes, **options) -> Ending:
        """EXEC to EXIT."""
        return self.ending(self.start(*args, **options))


class Guest:
    """A guest process in a pid namespace of its own, and the processes with its mark."""

    def __init__(
        self,
        binary: Path,
        *options: str,
        env: dict[str, str] | None = None,
        before: Callable[[], None] | None = None,
    ) -> None:
        """before: run in the child first; what it opens to be inherited, the guest has."""
        ours, theirs = socket.socketpair()
        self.process = subprocess.Popen(
            [*NAMESPACE, str(binary), *options],
            stdin=theirs,
            stdout=theirs,
            env=env,
            preexec_fn=before,  # noqa: PLW1509 - the tests have one thread
            close_fds=before is None,
        )
        theirs.close()
        self.raw = Raw(ours)
        self.name = f"RINGFENCE_TEST_MARK={uuid.uuid4().hex}".encode()

    def marked(self, mark: bytes | None = None) -> list[int]:
        """Host pids of processes that have the mark in their environment."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                environment = (entry / "environ").read_bytes()
            except OSError:
                continue
            if (mark or self.name) in environment.split(b"\0"):
                found.append(int(entry.name))
        return found

    def host_pid(self, pid: int) -> int:
        """The host's number of the process that is `pid` inside."""
        namespace = self.guest_namespace()
        for entry in Path("/proc").iterdir():
            try:
                if str((entry / "ns/pid").readlink()) != namespace:
                    continue
                status = (entry / "status").read_text()
            except OSError:
                continue
            line = next(line for line in status.splitlines() if line.startswith("NSpid:"))
            if line.split()[-1] == str(pid):
                return int(entry.name)
        raise LookupError(pid)

    def guest_namespace(self) -> str:
        """The pid namespace of the guest, which is the only child of unshare."""
        parent = self.process.pid
        children = Path(f"/proc/{parent}/task/{parent}/children")
        until(lambda: children.read_text().split(), "unshare forked")
        return str(Path(f"/proc/{children.read_text().split()[0]}/ns/pid").readlink())

    def wait(self) -> int:
        """Its exit status."""
        return self.process.wait(WAIT_SECONDS)

    def close(self) -> None:
        """End it, whatever it does. A detached guest would outlive both stream and parent."""
        self.raw.stream.close()
        if self.process.poll() is None:
            parent = self.process.pid
            for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(child), signal.SIGKILL)
            self.process.kill()
        self.process.wait()


def listen(directory: Path) -> socket.socket:
    """The socket that a guest dials."""
    listener = socket.socket(socket.AF_UNIX)
    path = directory / "host.sock"
    path.unlink(missing_ok=True)
    listener.bind(str(path))
    path.chmod(0o666)
    listener.listen(1)
    listener.settimeout(WAIT_SECONDS)
    return listener


def accept(listener: socket.socket) -> Raw:
    """The stream of the guest that dials, which nobody does afterwards."""
    stream, _ = listener.accept()
    listener.close()
    return Raw(stream)
