"""Access to a tree that somebody hostile may be changing: no symbolic link is ever followed."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex

DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


def split(path: str) -> list[str]:
    """The names of a relative path; ValueError for one that is not plain."""
    if path in ("", "."):
        return []
    names = path.split("/")
    if any(name in ("", ".", "..") or "\0" in name for name in names):
        raise ValueError(f"{path!r} is not a relative, normalised path")
    return names


def above(path: str) -> list[str]:
    """The directories over a relative path, each before what it holds; ValueError as `split`."""
    names = split(path)
    return ["/".join(names[:length]) for length in range(1, len(names))]


def open_directory(root: int, path: str) -> int:
    """A descriptor of the directory `path` below `root`, which the caller closes."""
    current = os.open(".", DIRECTORY_FLAGS, dir_fd=root)
    for name in split(path):
        try:
            below = os.open(name, DIRECTORY_FLAGS, dir_fd=current)
        finally:
            os.close(current)
        current = below
    return current


def open_resolved(path: str | os.PathLike[str], flags: int = DIRECTORY_FLAGS) -> int:
    """A descriptor of what an absolute, resolved path names, which the caller closes.

    OSError when a symbolic link was put anywhere on the way since it was resolved.
    """
    *above, last = Path(path).parts[1:] or (".",)
    current = os.open("/", DIRECTORY_FLAGS | os.O_PATH)
    for name in above:
        try:
            below = os.open(name, DIRECTORY_FLAGS | os.O_PATH, dir_fd=current)
        finally:
            os.close(current)
        current = below
    try:
        return os.open(last, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=current)
    finally:
        os.close(current)


def open_root(path: str | os.PathLike[str]) -> int:
    """A descriptor of a directory that is trusted by its name."""
    return os.open(path, DIRECTORY_FLAGS & ~os.O_NOFOLLOW)


@contextmanager
def parent_of(root: int, path: str) -> Iterator[tuple[int, str]]:
    """The directory that holds `path`, and the last name; closed at the end."""
    names = split(path)
    directory = open_directory(root, "/".join(names[:-1]))
    try:
        yield directory, names[-1]
    finally:
        os.close(directory)


def lstat(root: int, path: str) -> os.stat_result | None:
    """What is at `path` below `root`; None when nothing is, or a link stands in the way."""
    try:
        with parent_of(root, path) as (directory, name):
            return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            return None
        raise


def open_file(root: int, path: str) -> int:
    """A descriptor to read the regular file `path` below `root`; OSError when it is none."""
    with parent_of(root, path) as (directory, name):
        return open_regular(directory, name)


def open_regular(directory: int, name: str) -> int:
    """A descriptor to read the regular file `name`; a FIFO or device does not block or start."""
    descriptor = os.open(name, _FILE_FLAGS, dir_fd=directory)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", name)
    return descriptor


def read_link(root: int, path: str) -> str:
    """What the symbolic link `path` below `root` holds."""
    with parent_of(root, path) as (directory, name):
        return os.readlink(name, dir_fd=directory)


def chunks(descriptor: int, size: int = 1 << 20) -> Iterator[bytes]:
    """The bytes of an open file from its present position, in pieces."""
    while piece := os.read(descriptor, size):
        yield piece


def remove_tree(directory: int, name: str) -> None:
    """Remove `name` in `directory` and all below it, however deep; nothing there is fine.

    Directories are lifted to the top before they are emptied, so that depth costs no descriptors.
    """
    if not _is_directory(directory, name):
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=directory)
        return
    top = _entered(directory, name)
    if top is None:
        return
    try:
        while waiting := _emptied_of_files(top):
            for below in waiting:
                inner = _entered(top, below)
                if inner is None:
                    continue
                try:
                    for deeper in _emptied_of_files(inner):
                        _lift(inner, deeper, top)
                finally:
                    os.close(inner)
                os.rmdir(below, dir_fd=top)
    finally:
        os.close(top)
    os.rmdir(name, dir_fd=directory)


def _lift(directory: int, name: str, top: int) -> None:
    """Move the directory `name` to `top`."""
    entered = _entered(directory, name)
    if entered is not None:
        os.close(entered)
        os.rename(name, token_hex(16), src_dir_fd=directory, dst_dir_fd=top)


def _entered(directory: int, name: str) -> int | None:
    """A descriptor of the directory `name`; None when it was somebody else's and empty, and is
    removed: the kernel leaves one of root's in each overlay's work directory."""
    try:
        return _opened(directory, name)
    except PermissionError:
        os.rmdir(name, dir_fd=directory)
        return None


def chmod(directory: int, name: str, mode: int) -> None:
    """Set the permission bits of a file or directory; a link in its place is not followed."""
    handle = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        if stat.S_ISLNK(os.fstat(handle).st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), name)
        Path(f"/proc/self/fd/{handle}").chmod(mode)
    finally:
        os.close(handle)


def _emptied_of_files(directory: int) -> list[str]:
    """Unlink all in `directory` but its directories; the names of these."""
    with os.scandir(directory) as found:
        entries = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in found]
    for name, is_directory in entries:
        if not is_directory:
            os.unlink(name, dir_fd=directory)
    return [name for name, is_directory in entries if is_directory]


def _is_directory(directory: int, name: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _opened(directory: int, name: str) -> int:
    """A descriptor of the directory `name`, which its owner may read and change from now on."""
    handle = os.open(name, DIRECTORY_FLAGS | os.O_PATH, dir_fd=directory)
    try:
        if os.geteuid() != 0:
            Path(f"/proc/self/fd/{handle}").chmod(0o700)
        return os.open(".", DIRECTORY_FLAGS, dir_fd=handle)
    finally:
        os.close(handle)
