"""The guest's program, where sandboxes can have links to it: each has it without a mount then."""

import contextlib
import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from ringfence.guest import build

_NEW = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
_MOST_BYTES = 2**30


def kept(directory: Path) -> Path:
    """A copy in the directory of what outlives this process; the program itself where it cannot be
    read, or nothing can be run there."""
    source = build.target()
    try:
        status = source.stat()
        copy = directory / _stamped(status)
        if not copy.exists() or copy.stat().st_size != status.st_size:  # a power cut
            _copy(str(source), str(copy))
    except (FileNotFoundError, PermissionError):
        return source
    return copy if os.access(copy, os.X_OK) else source  # where nothing may be run


def beside(program: str, home: str) -> str:
    """A copy of `program` in the directory that `home` is in; it goes with the last sandbox there.

    OSError where no program runs there, or it cannot be read or written.
    """
    copy = name_beside(program, home)
    place = os.path.dirname(copy)  # noqa: PTH120
    if os.statvfs(place).f_flag & os.ST_NOEXEC:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), place)
    if not os.path.exists(copy):  # noqa: PTH110
        _copy(program, copy)
    return copy


def name_beside(program: str, home: str) -> str:
    """Where the copy of `beside` is, made or not. OSError."""
    return f"{os.path.dirname(home)}/.{_stamped(os.stat(program))}"  # noqa: PTH116, PTH120 - a start does it


def _stamped(status: os.stat_result) -> str:
    """The name of the copy of a program: a newer one has another."""
    return f"guest-{status.st_mtime_ns:x}-{status.st_size:x}"


def _copy(source: str, copy: str) -> None:
    """Make a copy that is there as a whole or not at all: by few calls, as the first sandbox of a
    place waits for it."""
    new = f"{copy}.{os.getpid()}-{threading.get_ident()}"
    try:
        with _opened(source, os.O_RDONLY) as given, _opened(new, _NEW) as made:
            os.fchmod(made, build.MODE)  # whatever the caller's umask is
            while os.sendfile(made, given, None, _MOST_BYTES):
                pass
        os.rename(new, copy)  # noqa: PTH104
    except BaseException:
        Path(new).unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _opened(path: str, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
