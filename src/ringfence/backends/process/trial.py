"""Whether a keeper can begin a sandbox without bubblewrap.

Distributions allow bubblewrap user namespaces that they deny to other programs (AppArmor), a
container may show a /proc with covers, and kernels before 5.12 cannot change a mount that is
nowhere yet (one can be taken since 5.2). So it is tried: a sandbox is begun in which the guest only
says how it is used.
"""

import contextlib
import functools
import os
import select
import shutil
import signal
import tempfile
from pathlib import Path

_PROGRAM = "/guest"
_USAGE = b"usage: ringfence-guest "
_MILLISECONDS = 10_000


def succeeds(guest: Path, directory: Path, *, privileged: bool) -> bool:
    """Whether that of the program `guest` can. Tried once for each state of its file, in a
    directory below this one, which is ours."""
    status = guest.stat()
    user = () if privileged else ("--user", "0:0")
    return _tried(str(guest), str(directory), user, status.st_ino, status.st_mtime_ns)


def forget() -> None:
    """Have it tried anew by the next who asks."""
    _tried.cache_clear()


@functools.lru_cache(maxsize=8)
def _tried(
    guest: str,
    directory: str,
    user: tuple[str, ...],
    inode: int,  # noqa: ARG001 - of this file only
    changed: int,  # noqa: ARG001 - the same
) -> bool:
    with contextlib.suppress(OSError):
        home = tempfile.mkdtemp(prefix=".trial-", dir=directory)
        try:
            line = [guest, "--keep", home, "--begin", *user]
            line += ["--", "--shown", guest, _PROGRAM, "--", _PROGRAM, "--help"]
            return _said(line).startswith(_USAGE)
        finally:
            shutil.rmtree(home, ignore_errors=True)
    return False


def _said(line: list[str]) -> bytes:
    """What it wrote to standard error until it ended. Its status is not to be had of a client that
    ignores SIGCHLD. OSError."""
    errors = os.memfd_create("errors", os.MFD_CLOEXEC)
    try:
        pid = os.posix_spawn(
            line[0],
            line,
            {},
            file_actions=(
                (os.POSIX_SPAWN_DUP2, errors, 2),
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            ),
            setsid=True,
            setsigmask=(),
            setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),
        )
        _wait(pid)
        return os.pread(errors, len(_USAGE), 0)
    finally:
        os.close(errors)


def _wait(pid: int) -> None:
    """Until our child has ended, which is killed where that takes too long."""
    with contextlib.suppress(ProcessLookupError, ChildProcessError):  # the kernel reaped it
        pidfd = os.pidfd_open(pid)
        try:
            ended = select.poll()
            ended.register(pidfd, select.POLLIN)
            if not ended.poll(_MILLISECONDS):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.waitpid(pid, 0)
        finally:
            os.close(pidfd)
