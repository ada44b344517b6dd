"""What the kernel has run out of, and what can be done about it."""

import errno
import os

from ringfence.errors import SandboxError

_SPACE = "free space for the state directory, or set RINGFENCE_STATE_DIR"
_REMEDIES = {
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    errno.EMFILE: "have fewer sandboxes open, or raise this process's limit (ulimit -n)",
    errno.ENFILE: "the machine has no more open files: try again later",
    errno.EAGAIN: "this user or the machine has no more processes (ulimit -u): try again later",
    errno.ENOMEM: "the machine has no more memory: try again later",
}
NUMBERS = frozenset(_REMEDIES)
"""The errors of the kernel that say that something has."""
_NO_THREAD = "can't start new thread"
"""All that Python says of it, which has no error of its own for that."""


def told(error: BaseException) -> str | None:
    """What has run out, where, and the remedy; None where `error` is about something else, or one
    of ours, which says so itself."""
    if isinstance(error, RuntimeError) and str(error) == _NO_THREAD:
        return f"no thread can be started: {_REMEDIES[errno.EAGAIN]}"
    if isinstance(error, SandboxError) or not isinstance(error, OSError):
        return None
    remedy = _REMEDIES.get(error.errno or 0)
    if remedy is None:
        return None
    where = error.filename2 or error.filename
    return f"{error.strerror}{f' ({where})' if where else ''}: {remedy}"


def told_in(words: str) -> str | None:
    """The remedy for what has run out by the words of another program; None where they are about
    something else."""
    if "namespace" in words and os.strerror(errno.ENOSPC) in words:
        return "there are no more namespaces (sysctl user.max_*_namespaces): try again later"
    for number in (errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        if os.strerror(number) in words:
            return _REMEDIES[number]
    return None
