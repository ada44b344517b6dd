"""Where Ringfence keeps what must outlive a process: one directory of this user alone."""

import os
from pathlib import Path

from ringfence.errors import InvalidSpecError, ResourceExhaustedError
from ringfence.policy.home import home

VARIABLE = "RINGFENCE_STATE_DIR"
_UNSAFE = 0o022
_PRIVATE = ("workspaces", "snapshots", "store")
"""What holds contents of repositories: nobody else may enter, whatever the modes inside."""


def state_directory() -> Path:
    """The state directory, made when missing: $RINGFENCE_STATE_DIR, /var/lib/ringfence for root,
    else $XDG_STATE_HOME/ringfence (~/.local/state/ringfence).

    Raises InvalidSpecError when it belongs to, or can be written by, somebody else, since a
    neighbour could then put words into our mouth, or its path is no text of Unicode, which the
    ledger cannot hold; ResourceExhaustedError when it cannot be made.
    """
    path = wanted()
    _check_name(path)
    try:
        path.mkdir(mode=0o711, parents=True, exist_ok=True)
        status = path.stat()
        if status.st_uid == os.geteuid():
            for name in _PRIVATE:
                make_private(path / name)
    except OSError as error:
        raise ResourceExhaustedError(
            f"the state directory {path} cannot be made: {error.strerror}; set {VARIABLE}",
            op="open",
        ) from None
    if status.st_uid != os.geteuid() or status.st_mode & _UNSAFE:
        raise InvalidSpecError(
            f"the state directory {path} must belong to uid {os.geteuid()} and be writable by it"
            f" alone: chmod go-w it, or set {VARIABLE} to another one",
            op="open",
        )
    return path


def _check_name(path: Path) -> None:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise InvalidSpecError(
            f"the path of the state directory, {str(path)!r}, is no UTF-8: set {VARIABLE} to"
            " another one",
            op="open",
        ) from None


def make_private(path: Path) -> None:
    """Make a directory that this user alone can enter, or that of one that is there. OSError."""
    path.mkdir(mode=0o700, exist_ok=True)
    if path.stat().st_mode & 0o077:
        path.chmod(0o700)


def wanted() -> Path:
    """Where the state directory is to be, looked at or not."""
    if chosen := os.environ.get(VARIABLE):
        return Path(chosen).absolute()
    if os.geteuid() == 0:
        return Path("/var/lib/ringfence")
    base = os.environ.get("XDG_STATE_HOME") or home() / ".local" / "state"
    return Path(base) / "ringfence"
