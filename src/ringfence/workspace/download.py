"""Selected files of a workspace, copied into a directory of the host."""

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex

from ringfence.errors import (
    AlreadyExistsError,
    NotFoundError,
    PolicyDeniedError,
    ResourceExhaustedError,
    UnsupportedError,
)
from ringfence.workspace.apply import copy_out
from ringfence.workspace.beneath import (
    lstat,
    open_directory,
    open_root,
    parent_of,
    remove_tree,
    split,
)
from ringfence.workspace.changes import MAX_BYTES
from ringfence.workspace.entries import FILE, LINK, is_git_name, kind_of, leaves
from ringfence.workspace.failures import failed, reading, shown
from ringfence.workspace.layers import PATH_BYTES, Found, Layers, too_long
from ringfence.workspace.prepared import Prepared


def download(
    prepared: Prepared, paths: Iterable[str], destination: Path, *, max_bytes: int = MAX_BYTES
) -> list[str]:
    """Copy files or whole directories of the workspace into `destination`; the paths of the files.

    paths: relative to the workspace. destination: a directory, made when missing; what is there is
    not replaced. Devices, links that leave the workspace and git's own directories, whose
    configuration and hooks a git on the host would obey, are left out. Errors: NotFoundError,
    PolicyDeniedError for what is in such a directory, AlreadyExistsError, ResourceExhaustedError
    beyond `max_bytes`, UnsupportedError for a directory whose path is too long to look into; then
    nothing stays. It blocks.
    """
    try:
        with _beside(destination) as (beside, root):
            copied = _copied(prepared, paths, beside, max_bytes)
            _move_in(beside, root)
    except (FileExistsError, NotADirectoryError):
        raise AlreadyExistsError(
            f"{shown(destination)} is no directory, or is in none",
            op="workspace.download",
            context={"path": shown(destination)},
        ) from None
    except OSError as error:
        raise failed(error, destination, "downloading", writing=True) from None
    return copied


@contextmanager
def _beside(destination: Path) -> Iterator[tuple[int, int]]:
    """A directory of ours in `destination`, which is made when it is missing, and that one."""
    destination.mkdir(parents=True, exist_ok=True)
    root = open_root(destination)
    name = f".ringfence-download-{token_hex(6)}"
    try:
        os.mkdir(name, 0o700, dir_fd=root)
        beside = open_directory(root, name)
        try:
            yield beside, root
        finally:
            os.close(beside)
            remove_tree(root, name)
    finally:
        os.close(root)


def _copied(prepared: Prepared, paths: Iterable[str], beside: int, max_bytes: int) -> list[str]:
    try:
        with prepared.now() as now:
            return _Download(now, beside, max_bytes).run(paths)
    except OSError as error:
        path = error.filename or prepared.mount_point
        raise failed(error, path, "downloading", writing=True) from None


class _Download:
    def __init__(self, now: Layers, target: int, left: int) -> None:
        self.now, self.target, self.left = now, target, left
        self.copied: list[str] = []
        self.links: list[tuple[str, str]] = []

    def run(self, paths: Iterable[str]) -> list[str]:
        for path in paths:
            try:
                place = "/".join(split(os.path.normpath(path)))
            except ValueError:
                raise NotFoundError(
                    f"{shown(path)} is not in the workspace", op="workspace.download"
                ) from None
            if _is_gits(place):
                raise PolicyDeniedError(
                    f"{shown(path)} is git's own: what a sandbox made of it is not brought to the"
                    " host; take the patch, or a bundle that git makes inside",
                    op="workspace.download",
                    context={"path": shown(path)},
                )
            found = self._find(place)
            if found is None:
                raise NotFoundError(
                    f"{shown(path)} is not in the workspace",
                    op="workspace.download",
                    context={"path": shown(path)},
                )
            self._one(place, found)
            if stat.S_ISDIR(found.status.st_mode):
                self._below(place)
        for path, target in self.links:
            with parent_of(self.target, path) as (directory, last):
                os.symlink(target, last, dir_fd=directory)
        return self.copied

    def _below(self, place: str) -> None:
        for path, status in self._walked(place):
            if _is_gits(path):
                continue
            if stat.S_ISDIR(status.st_mode) and too_long(path):
                raise UnsupportedError(
                    f"{shown(path)} is over {PATH_BYTES} bytes, and what is below it cannot be"
                    " brought out: name others, or give it a shorter path inside",
                    op="workspace.download",
                    context={"path": shown(path)},
                )
            found = self._find(path)
            if found is not None:
                self._one(path, found)

    def _walked(self, place: str) -> Iterator[tuple[str, os.stat_result]]:
        with reading(place):
            yield from self.now.walk(place)

    def _find(self, path: str) -> Found | None:
        with reading(path):
            return self.now.find(path)

    def _one(self, path: str, found: Found) -> None:
        kind = kind_of(found.status.st_mode)
        if kind is None:
            return
        if kind not in (FILE, LINK):
            self._directories(path)
            return
        self._directories(path.rpartition("/")[0])
        if kind == LINK:
            with reading(path):
                target = self.now.target(path, found)
            if not leaves(path, target):
                self.links.append((path, target))
                self.copied.append(path)
            return
        with parent_of(self.target, path) as (directory, last):
            with reading(path):
                opened = self.now.open(path, found)
            self.left -= copy_out(opened, directory, last, None, self.left)
            if self.left < 0:
                raise ResourceExhaustedError(
                    f"the download is too large (at {shown(path)}): raise max_bytes",
                    op="workspace.download",
                    context={"path": shown(path)},
                )
            os.chmod(last, 0o755 if found.status.st_mode & 0o100 else 0o644, dir_fd=directory)
        self.copied.append(path)

    def _directories(self, path: str) -> None:
        names = split(path)
        for length in range(1, len(names) + 1):
            with (
                suppress(FileExistsError),
                parent_of(self.target, "/".join(names[:length])) as (directory, last),
            ):
                os.mkdir(last, 0o755, dir_fd=directory)


def _is_gits(path: str) -> bool:
    """Whether it is, or is in, what git takes for its own directory on any system."""
    return any(map(is_git_name, split(path)))


def _move_in(beside: int, root: int) -> None:
    names = os.listdir(beside)
    for name in names:
        if lstat(root, name) is not None:
            raise AlreadyExistsError(
                f"{shown(name)} exists in the destination",
                op="workspace.download",
                context={"path": shown(name)},
            )
    for name in names:
        os.rename(name, name, src_dir_fd=beside, dst_dir_fd=root)
