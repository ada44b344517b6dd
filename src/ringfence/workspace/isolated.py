"""The host's git, run so that nothing but our arguments tells it what to do.

No system, user or repository configuration of others, no hooks, no prompts, no lazy fetches; the
only repositories it sees are bare ones that we made, or it reads a remote one as a client.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from ringfence.errors import BackendUnavailableError, DeadlineExceededError, StateError
from ringfence.workspace.failures import shown

SECONDS = 120.0
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
    with git's words when it fails. It blocks.
    """
    if shutil.which("git") is None:
        raise BackendUnavailableError("git is not installed on this host", op="workspace")
    command = ["git", "-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false"]
    command += ["-c", "core.fsync=none"]  # they are ours, and made again after a crash
    command += ["-c", "protocol.ext.allow=never", *(os.fspath(arg) for arg in args)]
    try:
        done = _run(command, directory, environment(env), given, seconds)
    except subprocess.TimeoutExpired:
        raise DeadlineExceededError(
            f"git {args[0]} took over {seconds:.0f} s", op="workspace"
        ) from None
    if done.returncode != 0:
        words = shown(done.stderr[-_WORDS:].strip())
        raise StateError(
            f"git {os.fspath(args[0])} failed: {words}",
            op="workspace",
            context={"status": done.returncode},
        )
    return done.stdout


def _run(
    command: list[str],
    directory: Path,
    env: dict[str, str],
    given: bytes | BinaryIO,
    seconds: float,
) -> subprocess.CompletedProcess[bytes]:
    if isinstance(given, bytes):
        return subprocess.run(
            command,
            cwd=directory,
            env=env,
            input=given,
            capture_output=True,
            timeout=seconds,
            check=False,
        )
    return subprocess.run(
        command,
        cwd=directory,
        env=env,
        stdin=given,
        capture_output=True,
        timeout=seconds,
        check=False,
    )
