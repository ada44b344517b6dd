"""The objects of a repository of the host, lent to a repository of ours.

Git would follow an alternate's own alternates, and links in place of packs, to any other repository
of the host. So what is lent is a directory of our own with nothing but packs and loose objects in
it: hard links to the regular files of that one object store, copies where links are not possible.
"""

import errno
import os
import re
import shutil
from pathlib import Path

from ringfence.errors import StateError
from ringfence.workspace.beneath import open_directory, open_regular, open_resolved
from ringfence.workspace.failures import failed

_FAN_OUT = re.compile(r"[0-9a-f]{2}")
_LOOSE = re.compile(r"[0-9a-f]{38}(?:[0-9a-f]{24})?")
_PACKED = re.compile(r"pack-[0-9a-f]{40}(?:[0-9a-f]{24})?\.(?:pack|idx)")
_NO_LINK = (errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS)


def lend(objects: Path, place: Path) -> None:
    """Make the directory `place` show the objects in `objects`, an absolute path without links.

    The one who calls removes it before anything else touches what is in it: the files are the
    original's own. StateError for a part that is a link; ResourceExhaustedError when the disk is
    full. It blocks.
    """
    place.mkdir(mode=0o700)
    part = "."
    try:
        source = open_resolved(objects)
        try:
            with os.scandir(source) as found:
                parts = [e.name for e in found if e.name == "pack" or _FAN_OUT.fullmatch(e.name)]
            for part in parts:
                _lend_part(source, part, place / part)
        finally:
            os.close(source)
    except OSError as error:
        raise failed(error, objects / part, "reading the repository's objects") from None


def _lend_part(objects: int, name: str, place: Path) -> None:
    source = open_directory(objects, name)
    try:
        place.mkdir(mode=0o700)
        target = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            wanted = _PACKED if name == "pack" else _LOOSE
            with os.scandir(source) as found:
                names = [entry.name for entry in found if wanted.fullmatch(entry.name)]
            _lend_files(names, source, target)
            _check(target, place)
        finally:
            os.close(target)
    finally:
        os.close(source)


def _lend_files(names: list[str], source: int, target: int) -> None:
    links = True
    for name in names:
        try:
            if links:
                os.link(name, name, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
                continue
        except FileNotFoundError:  # git packed it meanwhile
            continue
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
            links = False
        _copy(name, source, target)


def _copy(name: str, source: int, target: int) -> None:
    try:
        reader = open_regular(source, name)
    except FileNotFoundError:
        return
    with os.fdopen(reader, "rb") as one:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with os.fdopen(os.open(name, flags, 0o400, dir_fd=target), "wb") as two:
            shutil.copyfileobj(one, two, 1 << 20)


def _check(target: int, place: Path) -> None:
    """A link to a link is a link: whether all that is there now is files."""
    with os.scandir(target) as found:
        for entry in found:
            if not entry.is_file(follow_symlinks=False):
                raise StateError(
                    f"{place.name}/{entry.name} in the repository's objects is not a regular file",
                    op="workspace",
                )
