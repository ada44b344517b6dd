"""The files of a workspace as one layer of an image, and back.

A layer is a tar whose bytes depend on nothing but names, kinds, modes, owners and content: sorted,
without times, so that the same state has the same digest. Times are kept beside it.
"""

import errno
import os
import stat
import tarfile
from collections.abc import Mapping
from typing import Protocol

from ringfence.workspace.beneath import above, chmod, parent_of, split
from ringfence.workspace.entries import FILE, LINK, kind_of
from ringfence.workspace.failures import failed, shown
from ringfence.workspace.layers import Found, Layers, too_long
from ringfence.workspace.prepared import Prepared

TOP = "."
"""The name of the workspace's own directory."""
_CHUNK = 1 << 20
_STREAM = 1 << 16


class Sink(Protocol):
    """Where a layer is written to."""

    def write(self, data: bytes, /) -> object:
        """Take bytes, all of them."""


class Source(Protocol):
    """Where a layer is read from."""

    def read(self, size: int, /) -> bytes | None:
        """At most `size` bytes; none at the end."""


class _Archive:
    """A tar, written in large pieces: tarfile's own streams copy each small file many times."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._waiting = bytearray()

    def head(self, info: tarfile.TarInfo) -> None:
        """The header of one entry."""
        self.content(info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape"))

    def content(self, data: bytes) -> None:
        """Some of an entry's bytes."""
        self._waiting += data
        if len(self._waiting) >= _CHUNK:
            self._flush()

    def pad(self, size: int) -> None:
        """What follows an entry's `size` bytes."""
        self.content(bytes(-size % tarfile.BLOCKSIZE))

    def end(self) -> None:
        """What follows the last entry."""
        self.content(bytes(2 * tarfile.BLOCKSIZE))
        self._flush()

    def _flush(self) -> None:
        self._sink.write(bytes(self._waiting))
        self._waiting.clear()


def _made_for_mounts(prepared: Prepared, now: Layers) -> set[str]:
    """What the repository does not have and is there for mounts alone: their places, and the
    directories above them that hold nothing else."""
    made: set[str] = set()
    if not prepared.mounted:
        return made
    over = {directory for place in prepared.mounted for directory in above(place)}
    with prepared.base() as base:
        for place in prepared.mounted:
            below = (path for path, _ in now.walk(place))
            made.update(path for path in (place, *below) if base.find(path) is None)
        for directory in sorted(over, reverse=True):  # each after what it holds
            alone = all(path in made for path, _ in now.walk(directory))
            if alone and base.find(directory) is None:
                made.add(directory)
    return made


class Packing:
    """The present state of a workspace, with the owners that commands see, without what is there
    for mounts alone.

    size: bytes of its files. times: of the last change of each path, in nanoseconds.
    """

    def __init__(self, prepared: Prepared, now: Layers) -> None:
        self._now, self._owners = now, prepared.owners
        self._bottom = len(prepared.layers)
        self._paths: list[tuple[bytes, str]] = []
        self.size = 0
        self.times: dict[str, int] = {}
        left_out = _made_for_mounts(prepared, now)
        for path, status in now.walk():
            if kind_of(status.st_mode) is None or path in left_out:
                continue
            if too_long(path):
                raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), path)
            self._paths.append((os.fsencode(path), path))
            if stat.S_ISREG(status.st_mode):
                self.size += status.st_size
        self._paths.sort()

    def write(self, sink: Sink) -> None:
        """Write the tar. SandboxError names the path that changed or cannot be read."""
        path = TOP
        archive = _Archive(sink)
        try:
            top = self._now.find("")
            if top is not None:
                self._add(archive, TOP, top)
            for _, path in self._paths:
                found = self._now.find(path)
                if found is None:
                    raise OSError(errno.ESTALE, "it went away")
                self._add(archive, path, found)
            archive.end()
        except OSError as error:
            raise failed(error, path, "keeping a snapshot") from None

    def _add(self, archive: "_Archive", path: str, found: Found) -> None:
        status = found.status
        kind = kind_of(status.st_mode)
        info = tarfile.TarInfo(path)
        info.uid, info.gid = self._owner(found)
        info.mode = status.st_mode & 0o777
        self.times[path] = status.st_mtime_ns
        if kind == FILE:
            self._add_file(archive, info, path, found)
            return
        if kind == LINK:
            info.type, info.mode = tarfile.SYMTYPE, 0o777
            info.linkname = self._now.target(path, found)
        else:
            info.type = tarfile.DIRTYPE
        archive.head(info)

    def _add_file(
        self, archive: "_Archive", info: tarfile.TarInfo, path: str, found: Found
    ) -> None:
        file = self._now.open(path, found)
        try:
            info.size = left = os.fstat(file).st_size
            archive.head(info)
            while left and (data := os.read(file, min(left, _CHUNK))):
                archive.content(data)
                left -= len(data)
            archive.pad(info.size)
            after = os.fstat(file)
        finally:
            os.close(file)
        if left or (after.st_size, after.st_mtime_ns) != (info.size, found.status.st_mtime_ns):
            raise OSError(errno.ESTALE, "it changed while it was read")

    def _owner(self, found: Found) -> tuple[int, int]:
        uid, gid = found.status.st_uid, found.status.st_gid
        if self._owners is None or found.layer != self._bottom:
            return uid, gid
        stored_uid, stored_gid, seen_uid, seen_gid = self._owners
        return seen_uid if uid == stored_uid else uid, seen_gid if gid == stored_gid else gid


def unpack(reader: Source, root: int, times: Mapping[str, int]) -> None:
    """Make the files of a layer in the empty directory `root`, a descriptor.

    Nothing but files, directories and symbolic links is made, none of them outside, no link is
    followed. ValueError for a layer that holds anything else, OSError. The caller must have
    `reader` verified to its end before it uses what was made.
    """
    directories: list[tuple[str, tarfile.TarInfo]] = []
    with tarfile.open(
        fileobj=reader,  # type: ignore[call-overload]
        mode="r|",
        bufsize=_STREAM,
        encoding="utf-8",
        errors="surrogateescape",
    ) as archive:
        for info in archive:
            path = info.name.rstrip("/")
            if info.isdir():
                directories.append((path, info))
            if path != TOP:
                _make(archive, info, path, root, times)
    for path, info in reversed(directories):
        when = times.get(path, 0)
        if path == TOP:
            os.fchmod(root, info.mode & 0o777)
            _own(".", info, root)
            os.utime(root, ns=(when, when))
            continue
        with parent_of(root, path) as (directory, name):
            chmod(directory, name, info.mode & 0o777)
            os.utime(name, ns=(when, when), dir_fd=directory, follow_symlinks=False)


def _make(
    archive: tarfile.TarFile, info: tarfile.TarInfo, path: str, root: int, times: Mapping[str, int]
) -> None:
    if not split(path):
        raise ValueError("an entry has no name")
    with parent_of(root, path) as (directory, name):
        if info.isdir():
            os.mkdir(name, 0o700, dir_fd=directory)
        elif info.issym():
            os.symlink(info.linkname, name, dir_fd=directory)
        elif info.isreg() and not info.issparse():
            _write(archive, info, directory, name)
        else:
            raise ValueError(f"{shown(path)} is neither a plain file, a directory nor a link")
        _own(name, info, directory)
        if info.isreg():
            chmod(directory, name, info.mode & 0o777)
        if not info.isdir():
            when = times.get(path, 0)
            os.utime(name, ns=(when, when), dir_fd=directory, follow_symlinks=False)


def _write(archive: tarfile.TarFile, info: tarfile.TarInfo, directory: int, name: str) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    source = archive.extractfile(info)
    with os.fdopen(os.open(name, flags, 0o600, dir_fd=directory), "wb", buffering=0) as file:
        while source is not None and (data := source.read(_CHUNK)):
            file.write(data)


def _own(name: str, info: tarfile.TarInfo, directory: int) -> None:
    if os.geteuid() == 0:
        os.chown(name, info.uid, info.gid, dir_fd=directory, follow_symlinks=False)
