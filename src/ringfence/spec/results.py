"""What comes back: results, usage, state. Plain slotted values, no validation."""

import base64
import enum
import signal as signals
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ringfence.errors import ProcessError
from ringfence.spec.receipt import Receipt


class Reason(enum.StrEnum):
    """Why a command ended.

    NOT_STARTED: args[0] is missing (exit code 127) or cannot be executed (126), as in a shell;
    `ExecResult.error` says which. TIMEOUT: signaled for it before its end was seen; one that exits
    in the grace keeps its exit code. COLLATERAL: killed together with another command of its user.
    """

    EXITED = "exited"
    SIGNALED = "signaled"
    TIMEOUT = "timeout"
    KILLED = "killed"
    OOM_KILLED = "oom_killed"
    CPU_TIME = "cpu_time"
    OUTPUT_LIMIT = "output_limit"
    COLLATERAL = "collateral"
    NOT_STARTED = "not_started"
    SANDBOX_LOST = "sandbox_lost"


class State(enum.StrEnum):
    """The life of a sandbox, in OCI's words; `exited` also when it is gone but on record."""

    CREATING = "creating"
    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    EXITED = "exited"


@dataclass(frozen=True, slots=True)
class Usage:
    """Resources of a sandbox since it was created. None: not to be had here.

    cpu_*, uptime: seconds. memory*, disk_*, network_*: bytes; memory includes memory_cache, the
    file cache. page_faults includes major_page_faults. pids: what the limit counts; pids_peak: the
    most there were at once; processes and threads: what lives now. forks_refused: at the limit of
    pids. disk_used: of the workspace, where it has a size. source: "cgroup", "engine" or "guest".
    """

    cpu_user_seconds: float | None = None
    cpu_system_seconds: float | None = None
    cpu_seconds: float | None = None
    cpu_throttled_seconds: float | None = None
    memory: int | None = None
    memory_peak: int | None = None
    memory_limit: int | None = None
    pids: int | None = None
    oom_kills: int | None = None
    source: str = "cgroup"
    memory_cache: int | None = None
    page_faults: int | None = None
    major_page_faults: int | None = None
    disk_read: int | None = None
    disk_written: int | None = None
    network_received: int | None = None
    network_sent: int | None = None
    processes: int | None = None
    threads: int | None = None
    uptime: float | None = None
    forks_refused: int | None = None
    disk_used: int | None = None
    pids_peak: int | None = None


@dataclass(frozen=True, slots=True)
class ExecUsage:
    """Resources of one command's main process and the children it waited for (getrusage(2)).

    Seconds, bytes and counts. `oom_kills` counts kills in the whole sandbox during the command,
    None where no counter can be read. cgroup: of the whole family, killed or waited for or left
    running, up to the end of the main process; None unless the command had a cgroup of its own.
    With one, `oom_kills` counts those in the family.
    """

    user_seconds: float = 0.0
    system_seconds: float = 0.0
    max_rss: int = 0
    minor_faults: int = 0
    major_faults: int = 0
    blocks_in: int = 0
    blocks_out: int = 0
    voluntary_switches: int = 0
    involuntary_switches: int = 0
    oom_kills: int | None = None
    cgroup: Usage | None = None


@dataclass(frozen=True, slots=True)
class ExecResult:
    """How a command ended; a failing command is a result, not an exception.

    exit_code: None when it did not exit by itself. signal: number, None when not signaled.
    stdout, stderr: what was kept. *_total: bytes written; above len() when truncated.
    duration: seconds inside the sandbox. survivors: whether children it left may still run. error:
    why it was not started, in words, else None.
    """

    args: tuple[str, ...]
    exit_code: int | None
    signal: int | None
    reason: Reason
    stdout: bytes = field(repr=False)
    stderr: bytes = field(repr=False)
    stdout_total: int
    stderr_total: int
    duration: float
    usage: ExecUsage
    survivors: bool = False
    error: str | None = None

    @property
    def ok(self) -> bool:
        """Whether it exited by itself with code 0."""
        return self.reason is Reason.EXITED and self.exit_code == 0

    @property
    def stdout_truncated(self) -> bool:
        """Whether stdout was longer than what was kept."""
        return self.stdout_total > len(self.stdout)

    @property
    def stderr_truncated(self) -> bool:
        """Whether stderr was longer than what was kept."""
        return self.stderr_total > len(self.stderr)

    @property
    def shell_code(self) -> int:
        """The code a shell would show: 124 timeout, 137 out of memory, 128+n signal n, 125 lost."""
        if self.reason is Reason.TIMEOUT:
            return 124
        if self.reason is Reason.OOM_KILLED:
            return 137
        if self.exit_code is not None:
            return self.exit_code
        return 125 if self.signal is None else 128 + self.signal

    def check(self) -> "ExecResult":
        """This result, or ProcessError when the command did not exit with 0."""
        if self.ok:
            return self
        tail = self.stderr[-2000:].decode("utf-8", "replace").strip()
        how = self.error or f"{self.reason} ({self.describe()})"
        raise ProcessError(
            f"{self.args[0]!r} failed: {how}" + (f"\n{tail}" if tail else ""),
            op="exec",
            context={
                "args": list(self.args),
                "exit_code": self.exit_code,
                "signal": self.signal,
                "reason": str(self.reason),
            },
        )

    def describe(self) -> str:
        """Exit code or signal in words."""
        if self.signal is not None:
            return f"signal {self.signal}{_signal_name(self.signal)}"
        return "no exit code" if self.exit_code is None else f"exit code {self.exit_code}"

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON-able data; output that is not UTF-8 comes as base64 besides."""
        data = asdict(self)
        data["reason"] = str(self.reason)
        data["args"] = list(self.args)
        for name in ("stdout", "stderr"):
            data.update(named_bytes(name, getattr(self, name)))
            data[f"{name}_truncated"] = getattr(self, f"{name}_truncated")
        return data


def named_bytes(name: str, data: bytes) -> dict[str, Any]:
    """Bytes as JSON-able data; what is not UTF-8 comes as base64 besides."""
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {
            name: data.decode("utf-8", "replace"),
            f"{name}_base64": base64.b64encode(data).decode(),
        }


def _signal_name(number: int) -> str:
    try:
        return f", {signals.Signals(number).name}"
    except ValueError:  # a real-time one
        return ""


@dataclass(frozen=True, slots=True)
class SandboxInfo:
    """What and where a sandbox is. created: seconds since the epoch; ends: likewise or None.

    reason: why it ended; of one on record as running whose runtime cannot be asked, "unknown: " and
    why. warning: what of its record cannot be read, since another version of Ringfence wrote it.
    """

    id: str
    backend: str
    state: State
    image: str | None
    image_digest: str | None
    created: float
    ends: float | None
    detached: bool
    labels: Mapping[str, str]
    transport: str | None = None
    reason: str | None = None
    warning: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The info as JSON-able data."""
        return {**asdict(self), "state": str(self.state), "labels": dict(self.labels)}


@dataclass(frozen=True, slots=True)
class RunResult:
    """What `run` gives back: the command's result and all that is known of its sandbox."""

    result: ExecResult
    usage: Usage
    receipt: Receipt
    events: Sequence[Any] = ()
    patch: bytes | None = None

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON-able data; the patch is null where there is none."""
        return {
            "result": self.result.to_dict(),
            "usage": asdict(self.usage),
            "receipt": self.receipt.to_dict(),
            "events": [event.to_dict() for event in self.events],
            **({"patch": None} if self.patch is None else named_bytes("patch", self.patch)),
        }
