"""A workspace in the modes ro and rw: the original, with something bound over what is hidden."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from ringfence.errors import InvalidSpecError, PolicyDeniedError, UnsupportedError
from ringfence.workspace import mounts
from ringfence.workspace.failures import shown
from ringfence.workspace.making import Making
from ringfence.workspace.prepared import Binding, Prepared

_MASKS = 256


def bound(making: Making) -> Prepared:
    """Make it. InvalidSpecError, PolicyDeniedError, UnsupportedError for what only a copy can."""
    if making.repository.size is not None or making.masks_modes:
        raise InvalidSpecError("size, file_mode and directory_mode need mode copy",
                               op="workspace")  # fmt: skip
    hidden = _hidden(making)
    if len(hidden) > _MASKS:
        raise InvalidSpecError(
            f"{len(hidden)} hidden paths are too many to cover in mode"
            f" {making.repository.mode} (at most {_MASKS}): use mode copy",
            op="workspace",
        )
    root = making.found.source.root
    read_only = making.repository.mode == "ro"
    if not read_only:
        _check_writable(root)
    if making.maps:
        _check_one_file_system(making, root)
        uids, gids = zip(making.stored, making.seen, strict=True)
        root = mounts.mapped(making.directory, root, uids, gids)
    binds = [Binding(str(root), making.repository.mount_point, read_only)]
    binds += _covers(making, hidden)
    return making.prepared("bind", binds)


def _check_writable(root: Path) -> None:
    if os.statvfs(root).f_flag & os.ST_RDONLY:
        raise InvalidSpecError(
            f"{shown(root)} is mounted read-only, and mode rw writes to it: use mode ro or copy",
            op="workspace",
            context={"path": shown(root)},
        )


def _check_one_file_system(making: Making, root: Path) -> None:
    """An id-mapped mount shows nothing of what is mounted in it."""
    path = making.found.selection.elsewhere(root.stat().st_dev)
    if path is not None:
        raise UnsupportedError(
            f"{shown(path)} is on a file system of its own, whose owners cannot be mapped in mode"
            f" {making.repository.mode}: use mode copy, or exclude it",
            op="workspace",
            context={"path": shown(path)},
        )


def _hidden(making: Making) -> list[str]:
    """What is covered: hidden paths, devices, FIFOs and sockets. Not a link: what is bound over one
    lands where it leads, which is inside and has its own verdict, or is not there."""
    root, selection = making.found.source.root, making.found.selection
    paths = (*selection.hidden, *selection.special)
    return sorted(path for path in paths if not (root / path).is_symlink())


def _covers(making: Making, hidden: Iterable[str]) -> Iterator[Binding]:
    """What is bound over the hidden paths and over everything called .git."""
    nothing, empty = making.directory / "nothing", making.directory / "empty"
    nothing.touch(mode=0o444)
    empty.mkdir(mode=0o555)
    for path in hidden:
        source = empty if path.endswith("/") else nothing
        yield _cover(making, source, path.removesuffix("/"))
    for path in sorted(making.found.selection.git):
        place = making.found.source.root / path
        if path == ".git" and place.is_dir() and not place.is_symlink():
            built = making.directory / "git" / ".git"
            built.parent.mkdir(mode=0o711)
            if making.build_history(built, making.seen):
                yield _cover(making, built, path)
                continue
        if place.is_symlink():
            raise PolicyDeniedError(
                f"{path} is a symbolic link, which cannot be covered: use mode copy",
                op="workspace",
            )
        yield _cover(making, empty if place.is_dir() else nothing, path)


def _cover(making: Making, source: Path, path: str) -> Binding:
    return Binding(str(source), f"{making.repository.mount_point}/{path}", True)
