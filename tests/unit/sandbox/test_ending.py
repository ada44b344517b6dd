"""What a guest's numbers mean to a user."""

import errno

import pytest

import ringfence
from ringfence import Reason
from ringfence.guest.request import Exit, NotStarted
from ringfence.sandbox.ending import not_started, result

KILLED = 9


@pytest.mark.parametrize(
    ("ending", "reason"),
    [
        (Exit(Reason.EXITED, b"", b"", status=0), Reason.EXITED),
        (Exit(Reason.SIGNALED, b"", b"", status=KILLED), Reason.SIGNALED),
        (Exit(Reason.SIGNALED, b"", b"", status=KILLED, oom_kills=1), Reason.OOM_KILLED),
        (Exit(Reason.EXITED, b"", b"", status=137 << 8, oom_kills=1), Reason.OOM_KILLED),
        (Exit(Reason.EXITED, b"", b"", status=137 << 8, oom_kills=0), Reason.EXITED),
        (Exit(Reason.EXITED, b"", b"", status=0, oom_kills=1), Reason.EXITED),
        (Exit(Reason.SIGNALED, b"", b"", status=24), Reason.CPU_TIME),
        (Exit(Reason.SIGNALED, b"", b"", status=KILLED, user_us=3_000_000), Reason.CPU_TIME),
        (Exit(Reason.SIGNALED, b"", b"", status=KILLED, user_us=1_650_000), Reason.CPU_TIME),
        (Exit(Reason.SIGNALED, b"", b"", status=KILLED, user_us=400_000), Reason.SIGNALED),
        (Exit(Reason.TIMEOUT, b"", b"", status=KILLED, oom_kills=1), Reason.TIMEOUT),
        (Exit(Reason.SANDBOX_LOST, b"", b""), Reason.SANDBOX_LOST),
    ],
)
def test_a_counted_cause_goes_before_how_it_looks(ending: Exit, reason: Reason) -> None:
    """OOM and processor time are told from counters, never guessed from 137."""
    assert result(("x",), ending, cpu_limit=2.0).reason is reason


@pytest.mark.parametrize(
    ("number", "code"), [(errno.ENOENT, 127), (errno.EACCES, 126), (errno.ENOEXEC, 126)]
)
def test_a_program_that_cannot_run_is_a_result(number: int, code: int) -> None:
    """127 when it is missing, 126 when it cannot be executed."""
    found = not_started(("prog",), "/", "user", NotStarted(number, 4, ""))
    assert (found.exit_code, found.reason) == (code, Reason.NOT_STARTED)
    with pytest.raises(ringfence.ProcessError, match="prog"):
        found.check()


@pytest.mark.parametrize(
    ("program", "number", "said"),
    [
        ("prog", errno.ENOENT, "prog: not found"),
        ("./prog", errno.ENOENT, "interpreter"),
        ("prog", errno.EACCES, "tmp_exec"),
        ("prog", errno.ENOEXEC, "#!/bin/sh"),
    ],
)
def test_a_program_that_cannot_run_is_told_why(program: str, number: int, said: str) -> None:
    found = not_started((program,), "/", "user", NotStarted(number, 4, ""))
    assert found.error is not None
    assert said in found.error


def test_a_signal_is_told_by_its_name() -> None:
    with pytest.raises(ringfence.ProcessError, match="signal 11, SIGSEGV"):
        result(("x",), Exit(Reason.SIGNALED, b"", b"", status=11)).check()


@pytest.mark.parametrize(
    ("why", "expected"),
    [
        (NotStarted(errno.ENOENT, 3, ""), ringfence.PathNotFoundError),
        (NotStarted(errno.ENOTDIR, 3, ""), ringfence.PathNotADirectoryError),
        (NotStarted(errno.EACCES, 3, ""), ringfence.PathDeniedError),
        (NotStarted(errno.E2BIG, 4, ""), ringfence.InvalidSpecError),
        (NotStarted(errno.EAGAIN, 1, ""), ringfence.ResourceExhaustedError),
        (NotStarted(errno.ENOMEM, 4, ""), ringfence.ResourceExhaustedError),
        (NotStarted(errno.ENOSYS, 5, ""), ringfence.UnsupportedError),
        (NotStarted(errno.ETIME, 0, ""), ringfence.SandboxLostError),
        (NotStarted(errno.EPERM, 2, ""), ringfence.NotFoundError),
        (NotStarted(errno.EPERM, 1, ""), ringfence.UnsupportedError),
        (NotStarted(errno.EIO, 1, ""), ringfence.GuestError),
    ],
)
def test_everything_else_is_raised(why: NotStarted, expected: type[Exception]) -> None:
    """Each stage and errno has its class."""
    with pytest.raises(expected):
        not_started(("x",), "/cwd", "user", why)


def test_terminals_that_are_used_up_are_named() -> None:
    """Neither more processes nor more memory would help."""
    with pytest.raises(
        ringfence.ResourceExhaustedError, match=r"terminal.*kernel\.pty\.max"
    ) as caught:
        not_started(("x",), "/cwd", "user", NotStarted(errno.ENOSPC, 5, ""))
    assert "limits." not in str(caught.value)


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENOTDIR, errno.EACCES])
def test_a_working_directory_that_cannot_be_used_is_named_as_such(number: int) -> None:
    """The message has the field's name and what to do; the path stands where a FileError has it."""
    with pytest.raises(ringfence.FileError, match=r"cwd '/nope'.*: make the directory") as caught:
        not_started(("x",), "/nope", "user", NotStarted(number, 3, ""))
    assert caught.value.path == "/nope"
    assert caught.value.context == {
        "path": "/nope", "errno": number, "stage": 3, "args": ["x"], "fields": ["cwd"],
    }  # fmt: skip
