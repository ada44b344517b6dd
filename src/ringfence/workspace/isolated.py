"""The host's git, run so that nothing but our arguments tells it what to do.

No system, user or repository configuration of others, no hooks, no prompts, no lazy fetches; the
only repositories it sees are bare ones that we made, or it reads a remote one as a client.
"""

import errno
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from ringfence.errors import (
    BackendUnavailableError,
    DeadlineExceededError,
    ResourceExhaustedError,
    StateError,
)
from ringfence.workspace.failures import shown

SECONDS = 120.0
_FULL = (os.strerror(errno.ENOSPC).encode(), b"Out of diskspace")
_MAKE_ROOM = ": make room in the state directory and try again"
_WORDS = 2000


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables of an isolated git, which has no home."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": "/nonexistent",
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_SYSTEM": os.devnull,
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "true",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TEST_FSYNC": "0",  # as core.fsync, for a git that does not know that yet
        "GIT_AUTHOR_NAME": "Ringfence",
        "GIT_AUTHOR_EMAIL": "sandbox@ringfence.invalid",
        "GIT_COMMITTER_NAME": "Ringfence",
        "GIT_COMMITTER_EMAIL": "sandbox@ringfence.invalid",
        **(extra or {}),
    }


def git(
    args: Sequence[str | os.PathLike[str]],
    *,
    directory: Path,
    env: Mapping[str, str] | None = None,
    given: bytes | BinaryIO = b"",
    seconds: float = SECONDS,
) -> bytes:
    """Run git in `directory` and give back what it printed.

    env: variables on top of `environment`. given: its input, as bytes or as an open file. Errors:
    BackendUnavailableError when there is no git, DeadlineExceededError after `seconds`, StateError
    with git's words when it fails, ResourceExhaustedError when it had no room. It blocks.
    """
    try:
        done = _run(_command(args), directory, environment(env), given, seconds)
    except subprocess.TimeoutExpired:
        raise _late(args, seconds) from None
    _check(args, done.returncode, done.stderr)
    return done.stdout


class Running:
    """A git without input that goes on meanwhile, until `finish` or `close`; else as `git`.

    What it prints is kept in a file of `directory` that has no name.
    """

    def __init__(
        self,
        args: Sequence[str | os.PathLike[str]],
        *,
        directory: Path,
        env: Mapping[str, str] | None = None,
        seconds: float = SECONDS,
    ) -> None:
        self.args, self.seconds = args, seconds
        self._ends = time.monotonic() + seconds
        self._output = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115 - closed by `close`
        self._errors = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115 - closed by `close`
        try:
            self._process = subprocess.Popen(
                _command(args),
                cwd=directory,
                env=environment(env),
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=self._errors,
            )
        except BaseException:
            self._forget()
            raise

    def finish(self) -> bytes:
        """Wait for its end; what it printed."""
        try:
            status = self._process.wait(max(self._ends - time.monotonic(), 0.001))
            self._output.seek(0)
            self._errors.seek(0)
            _check(self.args, status, self._errors.read())
            return self._output.read()
        except subprocess.TimeoutExpired:
            raise _late(self.args, self.seconds) from None
        finally:
            self.close()

    def close(self) -> None:
        """End it, whatever it has done."""
        _end(self._process)
        self._forget()

    def _forget(self) -> None:
        self._output.close()
        self._errors.close()


def _command(args: Sequence[str | os.PathLike[str]]) -> list[str]:
    """What is written is of ours, and made again after a crash: git need not wait for the disk."""
    if shutil.which("git") is None:
        raise BackendUnavailableError("git is not installed on this host", op="workspace")
    command = ["git", "-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false"]
    command += ["-c", "core.fsync=none", "-c", "protocol.ext.allow=never"]
    return [*command, *(os.fspath(arg) for arg in args)]


def _late(args: Sequence[str | os.PathLike[str]], seconds: float) -> DeadlineExceededError:
    words = f"git {os.fspath(args[0])} took over {seconds:.0f} s"
    return DeadlineExceededError(words, op="workspace")


def _check(args: Sequence[str | os.PathLike[str]], status: int, errors: bytes) -> None:
    if status != 0:
        lines = [line.strip() for line in errors[-_WORDS:].splitlines()]
        words = "; ".join(shown(line) for line in lines if line)
        full = any(sign in line for line in lines for sign in _FULL if line[:7] != b"remote:")
        kind = ResourceExhaustedError if full else StateError
        raise kind(
            f"git {os.fspath(args[0])} failed: {words}{_MAKE_ROOM if full else ''}",
            op="workspace",
            context={"status": status},
        )


def _run(
    command: list[str],
    directory: Path,
    env: dict[str, str],
    given: bytes | BinaryIO,
    seconds: float,
) -> subprocess.CompletedProcess[bytes]:
    with subprocess.Popen(
        command,
        cwd=directory,
        env=env,
        stdin=subprocess.PIPE if isinstance(given, bytes) else given,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            said = process.communicate(given if isinstance(given, bytes) else None, seconds)
        except BaseException:
            _end(process)
            raise
    return subprocess.CompletedProcess(command, process.returncode, *said)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Kill a git and its helpers, which else go on talking to a server for as long as that likes.
    They have no process group of their own: Ctrl-C of a terminal is for them, too."""
    family = [] if process.returncode is not None else [process.pid]
    for pid in family:
        with suppress(OSError):
            for task in Path(f"/proc/{pid}/task").iterdir():
                family += map(int, (task / "children").read_text().split())
    for pid in reversed(family):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()
