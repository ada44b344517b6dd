"""From what the guest says of a command's end to the result that a user gets: one table."""

import errno
import os
import signal
from typing import Any

from ringfence.errors import (
    GuestError,
    InvalidSpecError,
    NotFoundError,
    ResourceExhaustedError,
    SandboxError,
    SandboxLostError,
    UnsupportedError,
)
from ringfence.guest.failures import file_error
from ringfence.guest.protocol import Failure
from ringfence.guest.request import Exit, NotStarted
from ringfence.spec import ExecResult, ExecUsage, Reason

_LEFT_RUNNING = 3
_NOT_FOUND = 127
_NOT_EXECUTABLE = 126
_HINTS = {
    errno.EACCES: "no x bit, or it lies where nothing may be executed: security.tmp_exec",
    errno.ENOEXEC: "a script begins with a line such as #!/bin/sh",
}
_SEEN_OF_CPU = 0.5
"""The kernel keeps a limit of processor time by ticks, and kills for it when the usage that it
reports is still below: by a sixth on a busy machine."""
_START, _USER, _CWD, _PROGRAM, _TERMINAL, _CGROUP = 1, 2, 3, 4, 5, 6


def result(args: tuple[str, ...], ending: Exit, cpu_limit: float | None = None) -> ExecResult:
    """The result of a command that started. cpu_limit: seconds it was allowed, None for any."""
    number = ending.signal
    plain = ending.reason is Reason.EXITED and not ending.oom_kills
    return ExecResult(
        args=args,
        exit_code=ending.exit_code,
        signal=number,
        reason=Reason.EXITED if plain else _reason(ending, cpu_limit),
        stdout=ending.stdout,
        stderr=ending.stderr,
        stdout_total=ending.stdout_total,
        stderr_total=ending.stderr_total,
        duration=ending.duration,
        usage=ending.usage,
        survivors=ending.proof == _LEFT_RUNNING,
    )


def _reason(ending: Exit, cpu_limit: float | None) -> Reason:
    """A cause that the kernel counted goes before how the command looked from outside."""
    if ending.reason not in (Reason.EXITED, Reason.SIGNALED):
        return ending.reason
    killed = ending.signal == signal.SIGKILL
    if ending.oom_kills and (killed or ending.exit_code == 128 + signal.SIGKILL):
        return Reason.OOM_KILLED
    if ending.signal == signal.SIGXCPU:
        return Reason.CPU_TIME
    used = (ending.user_us + ending.system_us) / 1e6
    if killed and cpu_limit is not None and used >= cpu_limit * _SEEN_OF_CPU:
        return Reason.CPU_TIME
    return ending.reason


def not_started(args: tuple[str, ...], cwd: str, user: str, why: NotStarted) -> ExecResult:
    """The result of a program that is missing (127) or not executable (126); all else is raised:
    FileError for the cwd, NotFoundError for the user, ResourceExhaustedError, UnsupportedError,
    InvalidSpecError, SandboxLostError, GuestError."""
    if why.errno == errno.ETIME:
        raise SandboxLostError("exec: the sandbox is gone: its cpu_time has passed", op="exec")
    if why.stage != _PROGRAM or why.errno in (errno.E2BIG, errno.ENOMEM):
        raise _refusal(args, cwd, user, why)
    missing = why.errno in (errno.ENOENT, errno.ENOTDIR)
    return ExecResult(
        args=args,
        exit_code=_NOT_FOUND if missing else _NOT_EXECUTABLE,
        signal=None,
        reason=Reason.NOT_STARTED,
        stdout=b"",
        stderr=b"",
        stdout_total=0,
        stderr_total=0,
        duration=0.0,
        usage=ExecUsage(),
        error=f"{args[0]}: {_why_not(args[0], why.errno)}",
    )


def _why_not(program: str, number: int) -> str:
    if number == errno.ENOENT and "/" in program:
        return "not found, or the interpreter that it names is not"
    if number in (errno.ENOENT, errno.ENOTDIR):
        return "not found"
    hint = _HINTS.get(number)
    return f"cannot be executed: {os.strerror(number)}" + (f" ({hint})" if hint else "")


def _not_possible(why: NotStarted) -> str | None:
    """What of a command the kernel inside has not, None when it is not about that."""
    if why.stage == _CGROUP:
        return "a cgroup of its own is "
    if why.stage == _START and why.errno == errno.EPERM:  # as gVisor has it for two of them
        return "one of its ulimits is "
    return "" if why.errno == errno.ENOSYS else None


def _no_directory(cwd: str, why: NotStarted, context: dict[str, Any]) -> SandboxError:
    found = file_error("exec", os.fsencode(cwd), Failure(why.errno, why.stage, why.detail))
    return type(found)(
        f"exec: cwd {cwd!r} cannot be used ({os.strerror(why.errno)}): make the directory first, or"
        " name one that the command's user may enter",
        op="exec",
        context={**context, **found.context, "fields": ["cwd"]},
    )


def _nothing_left(why: NotStarted, context: dict[str, Any]) -> SandboxError:
    said = os.strerror(why.errno)
    text = (
        f"no process could be started ({said}): end others or raise limits.pids and limits.memory"
    )
    if why.stage == _TERMINAL and why.errno == errno.ENOSPC:
        text = (
            "no terminal is left: end commands that have one, of this sandbox or of others, or"
            " raise the machine's kernel.pty.max"
        )
    return ResourceExhaustedError(f"exec: {text}", op="exec", context=context)


def _refusal(args: tuple[str, ...], cwd: str, user: str, why: NotStarted) -> SandboxError:
    number, said = why.errno, os.strerror(why.errno)
    context: dict[str, Any] = {"errno": number, "stage": why.stage, "args": list(args[:1])}
    if why.stage == _CWD:
        return _no_directory(cwd, why, context)
    if number == errno.E2BIG:
        return InvalidSpecError(
            "exec: args and env are over what the kernel takes: pass large data through stdin or a"
            " file",
            op="exec",
            context={**context, "fields": ["args"]},
        )
    if (what := _not_possible(why)) is not None:
        return UnsupportedError(f"exec: {what}not possible in this sandbox: {said}", op="exec")
    if number in (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC):
        return _nothing_left(why, context)
    if why.stage == _USER:
        return NotFoundError(
            f"exec: {user!r} cannot be used here ({said}): choose another user",
            op="exec",
            context={**context, "user": user},
        )
    where = {_START: "its limits", _TERMINAL: "its terminal"}.get(why.stage, "its start")
    return GuestError(f"exec: {args[0]!r} failed at {where}: {said}", op="exec", context=context)
