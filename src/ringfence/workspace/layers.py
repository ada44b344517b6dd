"""Directories stacked on each other, read as the kernel's overlay would show them.

The host reads the layers themselves, never a mount that a sandbox can reach, and follows no link.
The upper ones hold what a hostile program wrote.
"""

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from ringfence.workspace.beneath import (
    DIRECTORY_FLAGS,
    open_directory,
    open_file,
    read_link,
    split,
)
from ringfence.workspace.failures import failed

PATH_BYTES = 4000
"""Longer paths are not carried: no program could open them by name."""
TRUSTED, USER = "trusted.overlay.opaque", "user.overlay.opaque"


class Found(NamedTuple):
    """What is at a path: the layer's number (0 is the top) and what lstat says."""

    layer: int
    status: os.stat_result


class Layers:
    """A stack of directories, the top first; the last one holds no whiteouts.

    opaque: the extended attribute by which a directory hides those below it; None when the stack
    was never an overlay. Use it as a context manager: it holds one descriptor per layer. StateError
    for a directory that is gone.
    """

    def __init__(self, paths: Sequence[Path], opaque: str | None = TRUSTED) -> None:
        self._opaque = opaque if len(paths) > 1 else None
        self._roots: list[int] = []
        for path in paths:
            try:
                self._roots.append(os.open(path, DIRECTORY_FLAGS))
            except OSError as error:
                self.close()
                raise failed(error, path, "opening the workspace's layers") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the descriptors."""
        while self._roots:
            os.close(self._roots.pop())

    @property
    def bottom(self) -> int:
        """The descriptor of the lowest layer."""
        return self._roots[-1]

    def find(self, path: str) -> Found | None:
        """What is at `path`; None for nothing, or a whiteout."""
        names = split(path)
        for number, root in enumerate(self._roots):
            status, hides = self._in_layer(root, names, number == len(self._roots) - 1)
            if status is not None:
                return Found(number, status)
            if hides:
                return None
        return None

    def _in_layer(
        self, root: int, names: list[str], last: bool
    ) -> tuple[os.stat_result | None, bool]:
        """What one layer has at the path, and whether it hides what is below."""
        current = os.dup(root)
        hides = False
        try:
            for position, name in enumerate(names):
                try:
                    status = os.stat(name, dir_fd=current, follow_symlinks=False)
                except FileNotFoundError:
                    return None, hides
                if position == len(names) - 1:
                    return (None, True) if self._whiteout(status, last) else (status, hides)
                if not stat.S_ISDIR(status.st_mode):
                    return None, True
                below = os.open(name, DIRECTORY_FLAGS, dir_fd=current)
                os.close(current)
                current = below
                hides = hides or self._is_opaque(current)
            return os.fstat(current), hides
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENOENT):
                return None, True
            raise
        finally:
            os.close(current)

    def open(self, path: str, found: Found) -> int:
        """A descriptor to read the regular file that `find` found."""
        return open_file(self._roots[found.layer], path)

    def target(self, path: str, found: Found) -> str:
        """What the symbolic link that `find` found holds."""
        return read_link(self._roots[found.layer], path)

    def walk(self, path: str = "") -> Iterator[tuple[str, os.stat_result]]:
        """All below `path`, directories before what they hold, in no further order.

        It does not look into directories whose path is over PATH_BYTES.
        """
        waiting = [path]
        while waiting:
            place = waiting.pop()
            for name, status in self._merged(place).items():
                below = f"{place}/{name}" if place else name
                yield below, status
                if stat.S_ISDIR(status.st_mode) and not too_long(below):
                    waiting.append(below)

    def _merged(self, path: str) -> dict[str, os.stat_result]:
        seen: dict[str, os.stat_result | None] = {}
        names = split(path)
        for number, root in enumerate(self._roots):
            last = number == len(self._roots) - 1
            status, hides = self._in_layer(root, names, last)
            if status is not None and stat.S_ISDIR(status.st_mode):
                directory = open_directory(root, path)
                try:
                    for name, below in _listed(directory):
                        hidden = self._whiteout(below, last)
                        seen.setdefault(name, None if hidden else below)
                    hides = hides or self._is_opaque(directory)
                finally:
                    os.close(directory)
            elif status is not None:
                break
            if hides:
                break
        return {name: status for name, status in seen.items() if status is not None}

    def touched(self, upper: int) -> Iterator[str]:
        """Paths where the first `upper` layers say something, and all that they hide below them.

        Some come twice; some are as they are in the layers below.
        """
        if not self._roots[upper:]:
            return
        below = Layers.__new__(Layers)
        below._opaque = self._opaque
        below._roots = self._roots[upper:]  # not closed here
        for root in self._roots[:upper]:
            yield from self._touched_by(root, below)

    def _touched_by(self, root: int, below: "Layers") -> Iterator[str]:
        waiting = [""]
        while waiting:
            place = waiting.pop()
            directory = open_directory(root, place)
            try:
                listed = _listed(directory)
                opaque = self._is_opaque(directory)
            finally:
                os.close(directory)
            if opaque:
                yield from (path for path, _ in below.walk(place))
            for name, status in listed:
                path = f"{place}/{name}" if place else name
                yield path
                if stat.S_ISDIR(status.st_mode):
                    if not too_long(path):
                        waiting.append(path)
                else:
                    yield from (inner for inner, _ in below.walk(path))

    def _whiteout(self, status: os.stat_result, last: bool) -> bool:
        return (
            self._opaque is not None
            and not last
            and stat.S_ISCHR(status.st_mode)
            and status.st_rdev == 0
        )

    def _is_opaque(self, directory: int) -> bool:
        if self._opaque is None:
            return False
        try:
            return os.getxattr(directory, self._opaque) == b"y"
        except OSError:
            return False


def too_long(path: str) -> bool:
    """Whether a path is over PATH_BYTES."""
    return len(path) * 4 > PATH_BYTES and len(os.fsencode(path)) > PATH_BYTES


def _listed(directory: int) -> list[tuple[str, os.stat_result]]:
    found = []
    with os.scandir(directory) as entries:
        for entry in entries:
            try:
                found.append((entry.name, entry.stat(follow_symlinks=False)))
            except FileNotFoundError:
                continue
    return found
