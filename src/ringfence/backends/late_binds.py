"""What of the host is bound in a sandbox that runs already: by the guest's program, on the host.

What it does is written in guest/agent/bind.c.
"""

import asyncio
import contextlib
import errno
import functools
import os
import subprocess
from collections.abc import Awaitable, Callable, Sequence

from ringfence.backends import exhausted
from ringfence.backends.base import Bind
from ringfence.backends.finish import finish
from ringfence.errors import (
    DeadlineExceededError,
    InvalidSpecError,
    NotFoundError,
    PolicyDeniedError,
    ResourceExhaustedError,
    SandboxError,
    SandboxLostError,
    UnsupportedError,
)
from ringfence.guest import build

LEAST_KERNEL = (5, 12)
"""The first whose mounts can be made before they are anywhere, and be changed there."""
_SECONDS = 30.0
_NO_PLACE = (errno.ENOENT, errno.EROFS, errno.ENOTDIR, errno.EINVAL)
_OP = "pool.acquire"


@functools.cache
def possible() -> bool:
    """Whether this process may, and the kernel can."""
    release = os.uname().release.split(".")
    version = tuple(int(part) if part.isdecimal() else 0 for part in release[:2])
    return os.geteuid() == 0 and version >= LEAST_KERNEL and build.target().exists()


async def bind(
    pid: int, binds: Sequence[Bind], lives: Callable[[], Awaitable[object]], *, below: bool
) -> None:
    """Mount these in the sandbox whose first process is `pid`; see `Enterable.bind`.

    below: with what is mounted below a source.
    """
    with contextlib.ExitStack() as held:
        try:
            process = os.pidfd_open(pid)
            held.callback(os.close, process)
            root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY)
            held.callback(os.close, root)
        except (ProcessLookupError, FileNotFoundError):
            raise SandboxLostError("bind: the sandbox has ended", op=_OP) from None
        # The guest answers after its pid was taken hold of: until then it was no other process's.
        await lives()
        words = await finish(asyncio.to_thread(_run, (process, root), binds, below))
    if words:
        raise _error(words, binds)


def _run(sandbox: tuple[int, int], binds: Sequence[Bind], below: bool) -> str:
    """What the program says of its failure, "" for none. sandbox: a process, its root."""
    args = [str(build.target()), "--bind", *map(str, sandbox), "tree" if below else "top"]
    for one in binds:
        args += ["ro" if one.read_only else "rw", one.source, one.destination]
    try:
        done = subprocess.run(
            args,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=sandbox,
            env={},
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise DeadlineExceededError(
            f"bind: the repository could not be mounted within {_SECONDS:g} s", op=_OP
        ) from None
    if done.returncode == 0:
        return ""
    return done.stdout.decode("ascii", "replace").strip() or f"{errno.EIO} ended 0"


def _error(words: str, binds: Sequence[Bind]) -> SandboxError:
    """The error for a program's last words: an errno, the stage, and which bind."""
    number, stage, index = words.split()
    code, one = int(number), binds[int(index)]
    why = os.strerror(code)
    if code in exhausted.NUMBERS:
        return ResourceExhaustedError(f"bind: the machine is full: {why}", op=_OP)
    if stage == "enter" and code == errno.ESRCH:
        return SandboxLostError("bind: the sandbox has ended", op=_OP)
    if stage == "source" and code == errno.ENOENT:
        return NotFoundError(
            f"mount: {one.source!r} went away while it was mounted", op=_OP,
            context={"path": one.source},
        )  # fmt: skip
    if stage == "target" and code == errno.ELOOP:
        return PolicyDeniedError(
            f"mount: a symbolic link leads to {one.destination!r} in the sandbox: nothing is"
            " mounted through one",
            op=_OP,
            context={"path": one.destination},
        )
    if stage == "target" and code in _NO_PLACE:
        what = f"is not in the sandbox and cannot be made there ({why})"
        if code == errno.EINVAL:
            what = "is a file where a directory is mounted, or the other way round"
        return InvalidSpecError(
            f"repository: {one.destination!r} {what}: choose another mount_point",
            op=_OP,
            context={"fields": ["repository.mount_point"]},
        )
    return UnsupportedError(
        f"bind: {one.source!r} cannot be mounted in a running sandbox ({stage}: {why}): put the"
        " repository into the pool's spec",
        op=_OP,
        context={"errno": code},
    )
