"""What is asked of the guest for one command, and what comes back."""

import math
import struct
from collections.abc import AsyncIterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from ringfence.errors import InvalidSpecError
from ringfence.guest.given import text
from ringfence.guest.payload import malformed
from ringfence.guest.protocol import (
    EXIT,
    NO_CAP,
    U32,
    UNKNOWN,
    Cred,
    ExecFlag,
    cred,
    string,
    strings,
)
from ringfence.spec import ExecUsage, Reason, Usage

_LIMITS = struct.Struct("<QIQQHHI")
_RLIMIT = struct.Struct("<IQQ")
_U32_MAX = 2**32 - 1

_REASONS = {
    1: Reason.TIMEOUT,
    2: Reason.KILLED,
    3: Reason.OUTPUT_LIMIT,
    4: Reason.COLLATERAL,
    5: Reason.KILLED,
    6: Reason.CPU_TIME,
}


@dataclass(frozen=True, slots=True)
class ExecRequest:
    """One command, completely resolved.

    args: never a shell's line. env: all of the environment, or what `pack_env` made of it.
    cwd: absolute path inside. uid, gid, groups: ids inside. timeout: seconds, None for none.
    grace: seconds between SIGTERM and the family kill. stdout_cap, stderr_cap: bytes kept, None
    for all. flags: of `protocol.ExecFlag`. rlimits: (resource number, soft, hard).
    stdin: all of it, or an async iterable of it (only for `run`); `spawn` writes when
    STDIN_OPEN is among the flags. cgroups: `tasks` files that are open for writing, of the cgroups
    that the command begins in; only for a guest with Feature.DESCRIPTORS.
    """

    args: Sequence[str | bytes]
    env: Mapping[str, str] | bytes = field(default_factory=dict, repr=False)
    cwd: str | bytes = "/"
    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    timeout: float | None = None
    grace: float = 0.0
    stdout_cap: int | None = None
    stderr_cap: int | None = None
    flags: int = ExecFlag.SEARCH_PATH
    rlimits: tuple[tuple[int, int, int], ...] = ()
    rows: int = 0
    columns: int = 0
    stdin: bytes | AsyncIterable[bytes] = b""
    cgroups: tuple[int, ...] = ()

    def pack(self, flags: int, stdin: bytes) -> bytes:
        """The payload of EXEC. InvalidSpecError names the field that cannot be sent."""
        if not self.args:
            raise InvalidSpecError("args: empty; give at least the program", op="exec")
        who = (self.uid, self.gid, self.groups)
        caps = (self.stdout_cap, self.stderr_cap)
        size = (self.rows, self.columns)
        size_of = U32.pack
        flags |= len(self.cgroups) << ExecFlag.CGROUPS_SHIFT
        parts = [
            _begin(flags, who, self.timeout, self.grace, caps, size, self.rlimits, self.cwd),
            size_of(len(self.args)),
        ]
        for arg in self.args:
            data = text(arg, "args")
            parts += (size_of(len(data)), data)
        parts += (
            self.env if isinstance(self.env, bytes) else pack_env(self.env),
            size_of(len(stdin)),
            stdin,
        )
        return b"".join(parts)


def pack_env(env: Mapping[str, str]) -> bytes:
    """An environment as EXEC carries it. InvalidSpecError for a NUL."""
    return strings([text(f"{name}={value}", "env") for name, value in env.items()])


@lru_cache(maxsize=256)
def _begin(  # noqa: PLR0917 - a request has so many parts
    flags: int,
    who: tuple[int, int, tuple[int, ...]],
    timeout: float | None,
    grace: float,
    caps: tuple[int | None, int | None],
    size: tuple[int, int],
    rlimits: tuple[tuple[int, int, int], ...],
    cwd: str | bytes,
) -> bytes:
    """What stands before args in EXEC: seldom another than before."""
    limits = _LIMITS.pack(
        _milliseconds(timeout, "timeout", 2**63) if timeout else 0,
        _milliseconds(grace, "grace", _U32_MAX),
        *(NO_CAP if cap is None else cap for cap in caps),
        *size,
        len(rlimits),
    )
    parts = [flags.to_bytes(4, "little"), cred(Cred(*who)), limits]
    parts += [_RLIMIT.pack(*limit) for limit in rlimits]
    parts.append(string(text(cwd, "cwd")))
    return b"".join(parts)


def _milliseconds(seconds: float, field: str, most: int) -> int:
    if not 0 <= seconds * 1000 <= most:
        raise InvalidSpecError(
            f"{field}: {seconds!r} seconds cannot be sent; give 0 to {most // 1000}",
            op="exec",
            context={"fields": [field]},
        )
    return math.ceil(seconds * 1000)


@dataclass(slots=True)
class Exit:
    """How a command ended.

    status: as of wait(2), None when the sandbox was lost. reason: EXITED and SIGNALED stand for
    an end by itself. code: the guest's number for the reason. proof, killed, rounds: of the family
    kill. oom_kills: in the whole sandbox, None when unknown. stdout, stderr: what was kept by
    `run`. *_total: bytes written. *_us: microseconds. max_rss: KiB. cgroup: of its own cgroup.
    """

    reason: Reason
    stdout: bytes = field(repr=False)
    stderr: bytes = field(repr=False)
    status: int | None = None
    code: int = 0
    proof: int = 0
    killed: int = 0
    rounds: int = 0
    oom_kills: int | None = None
    stdout_total: int = 0
    stderr_total: int = 0
    wall_us: int = 0
    user_us: int = 0
    system_us: int = 0
    max_rss: int = 0
    minor_faults: int = 0
    major_faults: int = 0
    blocks_in: int = 0
    blocks_out: int = 0
    voluntary_switches: int = 0
    involuntary_switches: int = 0
    cgroup: Usage | None = None

    @property
    def exit_code(self) -> int | None:
        """The code it exited with by itself, else None."""
        if self.status is None or self.status & 0x7F:
            return None
        return (self.status >> 8) & 0xFF

    @property
    def signal(self) -> int | None:
        """The signal that ended it, else None."""
        if self.status is None:
            return None
        return self.status & 0x7F or None

    @property
    def duration(self) -> float:
        """Seconds inside the sandbox."""
        return self.wall_us / 1e6

    @property
    def usage(self) -> ExecUsage:
        """Its resources in the spec's units (seconds, bytes)."""
        return ExecUsage(
            self.user_us / 1e6,
            self.system_us / 1e6,
            self.max_rss * 1024,
            self.minor_faults,
            self.major_faults,
            self.blocks_in,
            self.blocks_out,
            self.voluntary_switches,
            self.involuntary_switches,
            self.oom_kills,
            self.cgroup,
        )


def unpack_exit(payload: memoryview, stdout: bytes, stderr: bytes) -> Exit:
    """The Exit that an EXIT frame describes. GuestError when it makes no sense."""
    if len(payload) != EXIT.size:
        raise malformed("an EXIT of another size")
    status, code, proof, killed, rounds, oom_kills, *numbers = EXIT.unpack(payload)
    if code:
        reason = _REASONS.get(code)
        if reason is None:
            raise malformed(f"an exec ended for reason {code}")
    else:
        reason = Reason.SIGNALED if status & 0x7F else Reason.EXITED
    known = None if oom_kills == UNKNOWN else oom_kills
    return Exit(reason, stdout, stderr, status, code, proof, killed, rounds, known, *numbers)


@dataclass(frozen=True, slots=True)
class NotStarted:
    """A command that could not be started.

    errno: Linux's number. stage: 1 limits or fork, 2 user, 3 cwd, 4 args[0], 5 pty, 6 cgroup.
    detail: the guest's words, for people.
    """

    errno: int
    stage: int
    detail: str
