"""Making a tree on the host from what a sandbox sends, trusting nothing of it.

Everything is made below one fresh directory, each step by descriptor and without following links:
directories and regular files as they come, symbolic links last and only those that stay beneath
whatever else is there, nothing else. Names, depth, members, bytes and the ratio of content to
allocated space are bounded while it streams. UnsafeArchiveError says which bound was crossed.
"""

import os
import posixpath
from contextlib import closing
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from ringfence.errors import UnsafeArchiveError

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_MODE = 0o755
_RATIO_FROM = 16 * 1024 * 1024
_LONGEST_NAME = 255
_LONGEST_PATH = 4096


@dataclass(frozen=True, slots=True)
class Caps:
    """Bounds of what comes out. bytes: of content, holes of sparse files included. members:
    entries. depth: directories on a path. ratio: content over allocated bytes, from 16 MiB on."""

    bytes: int = 1024**3
    members: int = 100_000
    depth: int = 64
    ratio: float = 200.0


DOWNLOAD_CAPS = Caps()


class Extractor:
    """One tree in the making; use it in a `with`. root: the fresh, empty directory."""

    def __init__(self, root: str, caps: Caps) -> None:
        self._caps = caps
        self._root = os.open(root, _DIRECTORY)
        self._links: list[tuple[bytes, bytes]] = []
        self._allocated = 0
        self.members = 0
        self.bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._root)

    def directory(self, path: bytes) -> None:
        """Make a directory whose parent was made before."""
        name, parent = self._enter(path)
        with closing(parent):
            try:
                os.mkdir(name, 0o700, dir_fd=parent.number)
            except OSError as error:
                raise unsafe(path, f"it cannot be made ({error.strerror})") from None

    def directory_mode(self, path: bytes, mode: int) -> None:
        """Give a directory its permission bits, once everything is in it."""
        name, parent = self._open_parent(path)
        with closing(parent), closing(_Fd(_open(name, _DIRECTORY, parent, path))) as found:
            os.fchmod(found.number, mode & _MODE | 0o700)

    def expect(self, path: bytes) -> None:
        """Count a member that will come later as a `file`, or is left out."""
        self._enter_name(path)

    def file(self, path: bytes, mode: int, allocated: int) -> int:
        """A new regular file, open for writing; the caller closes it. allocated: bytes inside."""
        self._check_name(path)
        name, parent = self._open_parent(path)
        with closing(parent):
            number = _open(name, _NEW_FILE, parent, path)
        os.fchmod(number, mode & _MODE | 0o600)
        self._allocated += max(allocated, 0)
        return number

    def count(self, path: bytes, size: int) -> None:
        """`size` bytes more of content came."""
        self.bytes += size
        if self.bytes > self._caps.bytes:
            raise unsafe(path, f"there are over {self._caps.bytes} bytes in all")
        if self.bytes > _RATIO_FROM and self.bytes > self._caps.ratio * (self._allocated or 1):
            raise unsafe(path, f"its content is over {self._caps.ratio:g} times what it occupies")

    def link(self, path: bytes, target: bytes) -> bool:
        """Note a symbolic link for `make_links`; False when it would not stay beneath."""
        self._enter_name(path)
        if not stays_beneath(path, target):
            return False
        self._links.append((path, target))
        return True

    def make_links(self) -> None:
        """Make the links that were noted; nothing else can be made afterwards."""
        for path, target in self._links:
            name, parent = self._open_parent(path)
            with closing(parent):
                try:
                    os.symlink(target, name, dir_fd=parent.number)
                except OSError as error:
                    raise unsafe(path, f"it cannot be made ({error.strerror})") from None

    def _enter(self, path: bytes) -> tuple[bytes, "_Fd"]:
        self._enter_name(path)
        return self._open_parent(path)

    def _enter_name(self, path: bytes) -> None:
        self._check_name(path)
        self.members += 1
        if self.members > self._caps.members:
            raise unsafe(path, f"there are over {self._caps.members} members")

    def _check_name(self, path: bytes) -> None:
        parts = path.split(b"/")
        if any(part in (b"", b".", b"..") or b"\0" in part for part in parts):
            raise unsafe(path, "that is no name below a directory")
        if len(path) > _LONGEST_PATH or any(len(part) > _LONGEST_NAME for part in parts):
            raise unsafe(path, "the name is too long")
        if len(parts) > self._caps.depth:
            raise unsafe(path, f"it is over {self._caps.depth} directories deep")

    def _open_parent(self, path: bytes) -> tuple[bytes, "_Fd"]:
        *above, name = path.split(b"/")
        here = _Fd(os.dup(self._root))
        for part in above:
            with closing(here):
                here = _Fd(_open(part, _DIRECTORY, here, path))
        return name, here


class _Fd:
    """A descriptor that `closing` closes."""

    def __init__(self, number: int) -> None:
        self.number = number

    def close(self) -> None:
        os.close(self.number)


def _open(name: bytes, flags: int, parent: _Fd, path: bytes) -> int:
    try:
        return os.open(name, flags, 0o600, dir_fd=parent.number)
    except OSError as error:
        raise unsafe(path, f"it cannot be made ({error.strerror})") from None


def stays_beneath(path: bytes, target: bytes) -> bool:
    """Whether a link at `path` that holds `target` cannot lead out, whatever other such links do.

    Only leading ".." are fine, at most as many as there are directories above the link: one after
    a name could go up from wherever a link of that name leads.
    """
    if not target or target.startswith(b"/") or b"\0" in target:
        return False
    parts = [part for part in target.split(b"/") if part not in (b"", b".")]
    ups = 0
    while ups < len(parts) and parts[ups] == b"..":
        ups += 1
    return ups <= path.count(b"/") and b".." not in parts[ups:]


def unsafe(path: bytes, why: str) -> UnsafeArchiveError:
    """The error for a member that must not be unpacked."""
    shown = path.decode("utf-8", "surrogateescape")
    return UnsafeArchiveError(
        f"download: {shown!r:.200}: {why}: nothing was written; name a smaller part or raise caps",
        op="files.download",
        context={"path": shown[:_LONGEST_PATH]},
    )


def relative(path: bytes) -> bytes:
    """`path` as the walk gives it, without a leading "./"."""
    return path[2:] if path.startswith(b"./") else path


def beside(destination: str) -> tuple[str, str]:
    """The directory that holds `destination`, and its absolute path."""
    whole = os.path.abspath(destination)  # noqa: PTH100 - no link of it may be resolved
    return posixpath.dirname(whole), whole
