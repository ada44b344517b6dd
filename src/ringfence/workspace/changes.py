"""What is different in a workspace, found out by the host from the files themselves."""

import errno
import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from ringfence.errors import ResourceExhaustedError
from ringfence.workspace.beneath import chunks
from ringfence.workspace.entries import FILE, LINK, is_git_name, kind_of
from ringfence.workspace.failures import failed, shown
from ringfence.workspace.layers import PATH_BYTES, Found, Layers, too_long

Kind = Literal["added", "modified", "deleted", "renamed", "mode"]
MAX_BYTES = 1 << 30
"""Of changed files, read to compare them, unless somebody says more."""


@dataclass(frozen=True, slots=True)
class Side:
    """One file or link, before or after. mode: permission bits. size: bytes."""

    kind: str
    mode: int
    size: int
    digest: str

    @property
    def git_mode(self) -> str:
        """The mode as git keeps it."""
        if self.kind == LINK:
            return "120000"
        return "100755" if self.mode & 0o100 else "100644"


@dataclass(frozen=True, slots=True)
class Change:
    """One changed path, relative to the workspace. old: before; None when added. new: after; None
    when deleted. old_path: where a renamed file was."""

    path: str
    kind: Kind
    old: Side | None
    new: Side | None
    old_path: str | None = None

    @property
    def size(self) -> int:
        """Bytes after the change, 0 when deleted."""
        return self.new.size if self.new else 0

    @property
    def digest(self) -> str | None:
        """Digest of the content after the change."""
        return self.new.digest if self.new else None


@dataclass(frozen=True, slots=True)
class Changes:
    """All changed paths in order. refused: what is there and is carried nowhere, by path, with the
    reason (a device, a name that git takes for its own)."""

    items: tuple[Change, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Change]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    def of(self, kind: Kind) -> tuple[str, ...]:
        """The paths of one kind."""
        return tuple(change.path for change in self.items if change.kind == kind)


def compare(base: Layers, now: Layers, paths: Iterable[str], *, max_bytes: int) -> Changes:
    """Compare two views at `paths`; those that git owns are left out.

    Reads at most `max_bytes` of changed content, else ResourceExhaustedError. StateError when the
    files change meanwhile. It blocks.
    """
    work = _Comparison(base, now, max_bytes)
    path = "its layers"
    try:
        for path in sorted(set(paths)):
            work.look(path)
    except OSError as error:
        raise failed(error, path, "comparing the workspace") from None
    return Changes(tuple(_renamed(work.items)), work.refused)


class _Comparison:
    def __init__(self, base: Layers, now: Layers, max_bytes: int) -> None:
        self.base, self.now = base, now
        self.left = max_bytes
        self.max_bytes = max_bytes
        self.items: list[Change] = []
        self.refused: dict[str, str] = {}

    def look(self, path: str) -> None:
        if any(is_git_name(name) for name in path.split("/")):
            self._git_name(path)
            return
        before, after = self.base.find(path), self.now.find(path)
        if after is not None and kind_of(after.status.st_mode) is None:
            self.refused[path] = "neither a file, a directory nor a link"
            after = None
        differs = self._differs(before, after)
        old = self._side(self.base, path, before) if differs else None
        new = self._side(self.now, path, after) if differs else None
        if too_long(path) and (old != new or _is_directory(after)):  # which is not looked into
            self.refused[path] = f"its path is over {PATH_BYTES} bytes"
        elif old != new:
            self.items.append(Change(path, kind_between(old, new), old, new))

    def _git_name(self, path: str) -> None:
        names = path.split("/")
        first = next(place for place, name in enumerate(names) if is_git_name(name))
        if first == 0 and names[0] == ".git":
            return
        top = "/".join(names[: first + 1])
        if self.now.find(top) is not None and self.base.find(top) is None:
            self.refused[top] = "git takes the name for its own"

    def _differs(self, before: Found | None, after: Found | None) -> bool:
        if before is None or after is None:
            return before is not after
        old, new = before.status, after.status
        if (old.st_dev, old.st_ino, old.st_ctime_ns) == (new.st_dev, new.st_ino, new.st_ctime_ns):
            return False
        return not (stat.S_ISDIR(old.st_mode) and stat.S_ISDIR(new.st_mode))

    def _side(self, layers: Layers, path: str, found: Found | None) -> Side | None:
        if found is None:
            return None
        status = found.status
        kind = kind_of(status.st_mode)
        if kind == LINK:
            target = os.fsencode(layers.target(path, found))
            return Side(LINK, 0o777, len(target), digest_of(target))
        if kind != FILE:
            return None
        self.left -= status.st_size
        if self.left < 0:
            raise ResourceExhaustedError(
                f"the changes are over {self.max_bytes} bytes (at {shown(path)});"
                " download what is needed, or raise max_bytes",
                op="workspace",
                context={"path": shown(path), "max_bytes": self.max_bytes},
            )
        size, digest = hashed(layers.open(path, found), status.st_size)
        return Side(FILE, status.st_mode & 0o777, size, digest)


def _is_directory(found: Found | None) -> bool:
    return found is not None and stat.S_ISDIR(found.status.st_mode)


def hashed(descriptor: int, expected: int) -> tuple[int, str]:
    """Size and digest of an open file, which it closes; OSError beyond `expected` bytes."""
    hasher = hashlib.sha256()
    size = 0
    try:
        for piece in chunks(descriptor):
            size += len(piece)
            if size > expected:
                raise OSError(errno.ESTALE, "it grew while it was read")
            hasher.update(piece)
    finally:
        os.close(descriptor)
    return size, f"sha256:{hasher.hexdigest()}"


def digest_of(data: bytes) -> str:
    """The sha256 digest of `data`, as OCI writes it."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def kind_between(old: Side | None, new: Side | None) -> Kind:
    """What a path that was `old` and is `new` went through."""
    if old is None:
        return "added"
    if new is None:
        return "deleted"
    return "mode" if (old.kind, old.digest) == (new.kind, new.digest) else "modified"


def _renamed(items: list[Change]) -> list[Change]:
    """Join a deleted and an added file of the same content into one renamed file."""
    gone: dict[tuple[str, str], list[Change]] = {}
    for change in items:
        if change.kind == "deleted" and change.old is not None and change.old.size:
            gone.setdefault((change.old.kind, change.old.digest), []).append(change)
    joined: set[str] = set()
    result = []
    for change in items:
        if change.kind == "added" and change.new is not None:
            sources = gone.get((change.new.kind, change.new.digest))
            if sources:
                source = sources.pop(0)
                joined.add(source.path)
                change = Change(change.path, "renamed", source.old, change.new, source.path)  # noqa: PLW2901 - the joined one stands for it
        result.append(change)
    return [change for change in result if change.path not in joined or change.kind != "deleted"]
