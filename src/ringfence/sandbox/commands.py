"""From what a user asks to be executed to the guest's request."""

import functools
import math
import resource
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, Literal

from ringfence.errors import InvalidSpecError, UnsupportedError
from ringfence.guest.control import User
from ringfence.guest.protocol import ExecFlag
from ringfence.guest.request import ExecRequest
from ringfence.policy import check_ceiling, outside
from ringfence.sandbox.stdin import Stdin, as_input
from ringfence.spec import Limits, Ulimits
from ringfence.spec.limits import MOST_OUTPUT, RESOURCES, UNLIMITED
from ringfence.spec.model import check_inside_path
from ringfence.spec.quantity import parse_duration, parse_size

GRACE_SECONDS = 2.0
"""Between a timeout's SIGTERM and the kill of the whole family."""
_INFINITY = 2**64 - 1

Args = Sequence[str | bytes | PurePath]
Sink = Callable[[bytes], object]
"""Called with each piece of output as it comes, such as a file's `write`; may be async, and then
the command waits for it."""
OnOutputLimit = Literal["truncate", "kill"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command as its caller wrote it; see `Sandbox.exec` for the fields."""

    args: Args | None = None
    shell: str | None = None
    env: Mapping[str, str | None] | None = None
    cwd: str | PurePath | None = None
    user: str | int | None = None
    stdin: Stdin | None = None
    timeout: float | str | None = None
    grace: float = GRACE_SECONDS
    output: int | str | None = None
    on_output_limit: OnOutputLimit = "truncate"
    merge_stderr: bool = False
    ulimits: Ulimits | Mapping[str, Any] | None = None
    cgroup: bool = False


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request and what is needed to tell how it ended. kept: bytes of a stream in the result."""

    request: ExecRequest
    args: tuple[str, ...]
    user: str
    kept: int
    cpu_limit: float | None


@dataclass(frozen=True, slots=True)
class Rlimits:
    """Resource limits as the guest takes them. cpu: seconds of the processor, None for any."""

    table: tuple[tuple[int, int, int], ...]
    cpu: float | None


@dataclass(frozen=True, slots=True)
class Setting:
    """What the sandbox itself says of every command. env: as `pack_env` makes it. rlimits: those of
    `limits.ulimits`. most: the ceiling's limits. ulimited: whether the backend has ulimits."""

    env: bytes
    cwd: str
    user: User
    limits: Limits
    rlimits: Rlimits
    groups: tuple[int, ...] = field(default=())
    most: Limits = field(default=Limits())
    ulimited: bool = True


def prepare(
    command: Command, setting: Setting, *, flags: int = 0, rows: int = 0, columns: int = 0
) -> Prepared:
    """The guest's request for `command`. InvalidSpecError names the field that is wrong,
    PolicyDeniedError what is above the ceiling, UnsupportedError what the backend has not."""
    args = _args(command)
    kept = _kept(setting.limits) if command.output is None else _output(command.output)
    check_ceiling("output", kept, setting.most.output, op="exec")
    limits = setting.rlimits
    if command.ulimits is not None:
        limits = rlimits(setting.limits.ulimits, _ulimits(command.ulimits, setting))
    user = setting.user
    groups = user.groups
    if setting.groups:
        groups = tuple(dict.fromkeys((*groups, *setting.groups)))
    request = ExecRequest(
        args=args,
        env=setting.env,
        cwd=setting.cwd if command.cwd is None else directory(command.cwd),
        uid=user.uid,
        gid=user.gid,
        groups=groups,
        timeout=_timeout(command.timeout, setting),
        grace=check_grace(command.grace),
        stdout_cap=kept,
        stderr_cap=kept,
        flags=flags | _flags(command),
        rlimits=limits.table,
        rows=rows,
        columns=columns,
        stdin=b"" if command.stdin is None else as_input(command.stdin),
    )
    shown = tuple([arg if isinstance(arg, str) else _shown(arg) for arg in args])
    return Prepared(request, shown, user.name or str(user.uid), kept, limits.cpu)


def _args(command: Command) -> Sequence[str | bytes]:
    if (command.args is None) == (command.shell is None):
        raise _wrong("args", "give either a list of arguments or shell='...'")
    if command.shell is not None:
        if not isinstance(command.shell, str | bytes):
            raise _wrong("shell", f"{command.shell!r:.80} is no line of text")
        return ("/bin/sh", "-c", command.shell)
    args = command.args
    if isinstance(args, str | bytes) or not isinstance(args, Sequence):
        raise _wrong("args", f"{args!r:.80} is no list: write ['ls', '-l'], or shell='ls -l'")
    if not args:
        raise _wrong("args", "empty: give at least the program")
    for arg in args:
        if not isinstance(arg, str | bytes | PurePath):
            raise _wrong("args", f"{arg!r:.80} is neither text nor bytes nor a path object")
    if not args[0]:
        raise _wrong("args", "the program's name is empty: give its name or its path")
    return tuple([str(arg) if isinstance(arg, PurePath) else arg for arg in args])


def changed(env: Mapping[str, str | None] | None) -> Mapping[str, str | None] | None:
    """What a command changes in its variables. InvalidSpecError for what is no mapping."""
    if env is not None and not isinstance(env, Mapping):
        raise _wrong("env", f"{type(env).__name__} is no mapping: write {{'NAME': 'value'}}")
    return env


def directory(asked: str | PurePath, op: str = "exec") -> str:
    """The text of a working directory. InvalidSpecError of `op` that names cwd."""
    text = str(asked) if isinstance(asked, PurePath) else asked
    if not isinstance(text, str):
        raise _wrong("cwd", f"{asked!r:.80} is neither text nor a path object", op)
    try:
        return check_inside_path(text, "cwd", any_bytes=True)
    except ValueError as error:
        raise _wrong("cwd", str(error), op) from None


def _timeout(asked: float | str | None, setting: Setting) -> float | None:
    if asked is None:
        return setting.limits.timeout
    most = setting.most.timeout
    if asked == math.inf:
        check_ceiling("timeout", math.inf, most, op="exec")
        return None
    try:
        seconds = parse_duration(asked)
    except ValueError as error:
        raise _wrong("timeout", str(error)) from None
    check_ceiling("timeout", seconds, most, op="exec")
    return seconds


def _ulimits(given: Ulimits | Mapping[str, Any], setting: Setting) -> Ulimits:
    """Hard limits only fall: what the sandbox was granted cannot be had back for one command."""
    asked, granted = Limits.parse({"ulimits": given}).ulimits, setting.limits.ulimits
    if asked != Ulimits() and not setting.ulimited:
        raise UnsupportedError(
            "ulimits: this backend has none: leave them out, or choose another backend",
            op="exec",
            context={"fields": ["ulimits"]},
        )
    for name in RESOURCES:
        limit, most = getattr(asked, name), getattr(granted, name)
        if limit is not None and most is not None and limit.hard > most.hard:
            raise _wrong(f"ulimits.{name}", outside(limit.hard, most.hard, "this sandbox"))
    return asked


def check_grace(asked: float) -> float:
    """`asked`, when it is 0 to 3600 seconds. InvalidSpecError."""
    known = isinstance(asked, int | float) and not isinstance(asked, bool)
    if not known or not 0 <= asked <= 3600:
        raise _wrong("grace", f"{asked!r} is not 0 to 3600 seconds")
    return asked


def check_sinks(sinks: tuple[Sink | None, Sink | None]) -> None:
    """InvalidSpecError for what cannot be called with output."""
    for name, sink in zip(("on_stdout", "on_stderr"), sinks, strict=True):
        if sink is not None and not callable(sink):
            raise _wrong(name, f"{type(sink).__name__} cannot be called: give a function of bytes")


def _kept(limits: Limits) -> int:
    return min(limits.output or MOST_OUTPUT, MOST_OUTPUT)


def _output(asked: int | str) -> int:
    try:
        size = 0 if asked == 0 else parse_size(asked)
    except ValueError as error:
        raise _wrong("output", str(error)) from None
    if size > MOST_OUTPUT:
        raise _wrong(
            "output", f"a result holds at most {MOST_OUTPUT} bytes: use spawn, or on_stdout"
        )
    return size


def _flags(command: Command) -> int:
    flags = ExecFlag.SEARCH_PATH
    if command.on_output_limit not in ("truncate", "kill"):
        raise _wrong("on_output_limit", "write 'truncate' or 'kill'")
    if command.on_output_limit == "kill":
        flags |= ExecFlag.KILL_ON_CAP
    if command.merge_stderr:
        flags |= ExecFlag.STDERR_TO_STDOUT
    return flags


@functools.lru_cache(maxsize=64)
def rlimits(*layers: Ulimits) -> Rlimits:
    """The limits of all layers, where a later one goes before an earlier one."""
    found: dict[int, tuple[int, int]] = {}
    for ulimits in layers:
        for name, number in RESOURCES.items():
            limit = getattr(ulimits, name)
            if limit is not None:
                found[number] = (_kernels(limit.soft), _kernels(limit.hard))
    cpu = found.get(resource.RLIMIT_CPU)
    table = tuple((number, *pair) for number, pair in sorted(found.items()))
    return Rlimits(table, None if cpu is None else float(cpu[0]))


def _kernels(limit: int) -> int:
    """RLIM_INFINITY for what is unlimited: kernels calculate with any other number."""
    return _INFINITY if limit == UNLIMITED else limit


def _shown(arg: bytes) -> str:
    return arg.decode("utf-8", "surrogateescape")


def _wrong(name: str, message: str, op: str = "exec") -> InvalidSpecError:
    return InvalidSpecError(f"{name}: {message}", op=op, context={"fields": [name]})
