"""What of a directory goes into a build: everything but what .dockerignore names."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from ringfence.errors import InvalidSpecError
from ringfence.images.ignore import IGNORE, Rules

_LARGEST_IGNORE = 1024 * 1024


def pack(directory: Path, into: IO[bytes], dockerfile: str = "Dockerfile") -> None:
    """Write the context as a tar: sorted, owned by root, links kept as links.

    dockerfile: path below the directory. InvalidSpecError when there is none, OSError for what
    cannot be read.
    """
    below = Path(dockerfile)
    if below.is_absolute() or ".." in below.parts or not (directory / below).is_file():
        raise InvalidSpecError(f"there is no {dockerfile} in {directory}", op="build")
    rules = _rules(directory, (os.path.normpath(dockerfile), IGNORE))
    with tarfile.open(fileobj=into, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in _walk(directory, rules):
            name = path.relative_to(directory).as_posix()
            if not rules.ignored(name):
                add(archive, path, name)


def pack_tree(directory: Path, into: IO[bytes]) -> None:
    """Write a whole directory as a tar, owners and modes as they are: a root file system.

    OSError for what cannot be read.
    """
    with tarfile.open(fileobj=into, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in _walk(directory):
            add(archive, path, path.relative_to(directory).as_posix(), keep_owner=True)


def add(archive: tarfile.TarFile, path: Path, name: str, *, keep_owner: bool = False) -> None:
    """Add one entry; sockets are left out, as tar has none."""
    info = archive.gettarinfo(str(path), name)
    if info is None:  # type: ignore[redundant-expr,unused-ignore]
        return
    info.uname = info.gname = ""
    if not keep_owner:
        info.uid = info.gid = 0
    if info.isreg():
        with path.open("rb") as stream:
            archive.addfile(info, stream)
    else:
        archive.addfile(info)


def _rules(directory: Path, always: tuple[str, ...]) -> Rules:
    path = directory / IGNORE
    if not path.is_file():
        return Rules()
    if path.stat().st_size > _LARGEST_IGNORE:
        raise InvalidSpecError(f"{path} is larger than {_LARGEST_IGNORE} bytes", op="build")
    return Rules(path.read_bytes().decode("utf-8", "surrogateescape"), always)


def _walk(directory: Path, rules: Rules | None = None) -> Iterator[Path]:
    """Everything below, sorted; nothing below a directory that is left out for good."""
    for base, names, files in os.walk(directory, onerror=_raised):
        for name in sorted(names + files):
            yield Path(base, name)
        if rules is not None:
            above = Path(base).relative_to(directory)
            names[:] = [name for name in names if not _ends(rules, (above / name).as_posix())]
        names.sort()


def _raised(error: OSError) -> None:
    raise error


def _ends(rules: Rules, name: str) -> bool:
    return rules.ignored(name) and rules.ends_at(name)
