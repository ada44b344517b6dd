"""Which directories and files of the host may be bound into a sandbox.

A source is resolved first, so that no symbolic link leads elsewhere, and what is bound is the
resolved path. Refused are the places where binding gives the host away: the root, the kernel's and
the system's directories, the daemon's and our own state, whole home directories, credentials in
them, and everything that is neither a directory nor a regular file (sockets above all).

An operator widens this with $RINGFENCE_MOUNT_ROOTS, directories separated by ":": what is below one
of them is allowed, kernel directories and sockets excepted.
"""

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from ringfence.backends.state import state_directory
from ringfence.errors import InvalidSpecError, PolicyDeniedError
from ringfence.policy.home import home

VARIABLE = "RINGFENCE_MOUNT_ROOTS"

_KERNEL = ("/proc", "/sys", "/dev")
_SYSTEM = ("/etc", "/run", "/boot", "/var/run", "/var/lib/docker", "/var/lib/containerd",
           "/var/lib/containers", "/var/spool/cron")  # fmt: skip


def check_source(source: str | os.PathLike[str], *, daemon_root: str | None = None) -> Path:
    """The resolved path of a bind's source, when it may be bound.

    daemon_root: where the container daemon keeps its data. Raises InvalidSpecError when nothing is
    there, PolicyDeniedError when it may not be bound.
    """
    given = os.fspath(source)
    try:
        path = Path(given).expanduser().resolve(strict=True)
        mode = path.stat().st_mode
    except (OSError, RuntimeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise InvalidSpecError(
            f"mount: {given!r} cannot be bound: {why}", op="open", context={"fields": ["mounts"]}
        ) from None
    reason = _kind_refused(mode) or _kernel_refused(path) or _refused(path, daemon_root)
    if reason is not None:
        raise PolicyDeniedError(
            f"mount: {given!r} may not be bound into a sandbox: {reason}",
            op="open",
            context={"path": str(path), "reason": reason},
        )
    return path


def _kind_refused(mode: int) -> str | None:
    if stat.S_ISDIR(mode) or stat.S_ISREG(mode):
        return None
    kind = "a socket" if stat.S_ISSOCK(mode) else "a FIFO" if stat.S_ISFIFO(mode) else "a device"
    return f"it is {kind}; only directories and regular files are bound"


def _kernel_refused(path: Path) -> str | None:
    if path == Path("/"):
        return "it is the root of the host"
    return _touches(path, map(Path, _KERNEL), "the kernel's directory")


def _refused(path: Path, daemon_root: str | None) -> str | None:
    if _widened(path):
        return None
    system = [Path(place) for place in _SYSTEM]
    if daemon_root:
        system.append(Path(daemon_root))
    own = home()
    if path == own or path == Path("/root") or path.parent == Path("/home"):
        return "it is a whole home directory: bind the project's directory only"
    from ringfence.workspace.secrets import CREDENTIALS

    secret = [base / name for base in {own, Path("/root")} for name in CREDENTIALS]
    return (
        _touches(path, [state_directory()], "Ringfence's own state in")
        or _touches(path, system, "the system's directory")
        or _touches(path, secret, "credentials in", above=False)
        or _above(path, [own])
    )


def _widened(path: Path) -> bool:
    roots = [Path(root).resolve() for root in os.environ.get(VARIABLE, "").split(":") if root]
    return any(path.is_relative_to(root) for root in roots)


def _touches(path: Path, places: Iterable[Path], what: str, *, above: bool = True) -> str | None:
    """Why `path` is refused when it is one of `places`, in one, or (above) holds one."""
    for place in places:
        real = place.resolve()
        if path.is_relative_to(real):
            return f"it gives {what} {place} away"
        if above and real.is_relative_to(path):
            return f"it holds {what} {place}"
    return None


def _above(path: Path, places: Iterable[Path]) -> str | None:
    for place in places:
        if place.resolve().is_relative_to(path):
            return f"it holds the home directory {place}: bind the project's directory only"
    return None


def owner_of(path: str) -> tuple[int, int] | None:
    """The uid and gid of what is at `path`; None when it cannot be told."""
    try:
        status = Path(path).stat()
    except OSError:
        return None
    return status.st_uid, status.st_gid
