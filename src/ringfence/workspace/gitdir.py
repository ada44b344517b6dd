"""A repository of the host, read as files: references, index, some facts of its settings.

Whoever made the tree may have made its `.git` too. So git is never run in it, no link in it is
followed, no FIFO in it is waited for, and what it says of other places of the host (a `.git` file,
`commondir`, `core.worktree`, alternates) counts only where that place names this tree in turn.
"""

import errno
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ringfence.workspace.beneath import open_directory, open_regular, open_resolved

_ID = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_REF = re.compile(r"refs/(?:heads|tags|remotes|notes)/[^\x00-\x20\x7f~^:?*\[\\]{1,400}")
_SHARED = re.compile(r"sharedindex\.[0-9a-f]{40}(?:[0-9a-f]{24})?")
_LIMIT = 1 << 26
_INDEX_LIMIT = 1 << 29
_PARTS = ("config", "objects", "objects/pack", "packed-refs", "refs", "shallow")
_NOT_READ = (
    ("commondir", ".git names another repository"),
    ("reftable", "its references are in a reftable, which is not read here"),
    ("objects/info/alternates", "it borrows objects of another one (objects/info/alternates)"),
)


class Commits(NamedTuple):
    """All that decides which commits of a repository can be reached at one moment. head: what HEAD
    says, None when it is neither a branch nor an id. references: with the ids they name."""

    objects: str
    sha256: bool
    head: str | None
    references: tuple[tuple[str, str], ...]
    shallow: tuple[str, ...]


class State(NamedTuple):
    """What a repository is at one moment. tracked: tells one index from another."""

    commits: Commits
    tracked: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class GitDirectory:
    """A repository on the host, by absolute paths without links. own: HEAD and the index are there
    (of a linked worktree, say); common: objects and references."""

    own: Path
    common: Path

    @property
    def objects(self) -> Path:
        """Where its objects are."""
        return self.common / "objects"

    @property
    def sha256(self) -> bool:
        """Whether its objects are named by SHA-256."""
        return "sha256" in map(str.lower, _values(self.common, "objectformat"))

    @property
    def partial(self) -> bool:
        """Whether it is a partial clone, in which objects may be missing."""
        return any(True for _ in _values(self.common, "promisor", "partialclone"))

    def references(self) -> dict[str, str]:
        """Branches, tags, remote branches and notes, with the ids they name."""
        found = {}
        for line in text_of(self.common, "packed-refs").splitlines():
            name, _, ref = line.partition(" ")
            if _ID.fullmatch(name) and _is_ref(ref):
                found[ref] = name
        for ref, name in _loose(self.common):
            found[ref] = name
        return found

    def head(self) -> str | None:
        """What HEAD says: "ref: refs/heads/x" or an id; None when it is neither."""
        text = text_of(self.own, "HEAD").strip()
        if text.startswith("ref: ") and _is_ref(text[5:]):
            return text
        return text if _ID.fullmatch(text) else None

    def shallow(self) -> list[str]:
        """The ids of commits whose parents are not there."""
        return [line for line in text_of(self.common, "shallow").split() if _ID.fullmatch(line)]

    def index(self) -> bytes:
        """The bytes of the index; none where there is no index that can be read."""
        return bytes_of(self.own, "index", _INDEX_LIMIT)

    def shared_indexes(self) -> list[str]:
        """The names of the files that an index is split from."""
        base = open_resolved(self.own)
        try:
            return [name for name, _ in _listed(base, "") if _SHARED.fullmatch(name)]
        finally:
            os.close(base)

    def shared_index(self, name: str) -> bytes:
        """The bytes of one of them."""
        return bytes_of(self.own, name, _INDEX_LIMIT)

    def module(self, name: str) -> "tuple[GitDirectory | None, str | None]":
        """The repository that is kept in it for the submodule of that name; else None, with the
        reason when one is in sight."""
        if any(part in ("", ".", "..") for part in name.split("/")):
            return None, None
        place = self.common / "modules" / name
        if os.path.realpath(place) != str(place):
            return None, "its repository in .git/modules is behind a symbolic link"
        if not _is_there(place / "HEAD"):
            return None, None
        return _whole(GitDirectory(place, place))

    def state(self) -> State:
        """All that decides what a repository made of it holds: two looks that give the same saw
        the same history and the same index."""
        try:
            status = (self.own / "index").lstat()
        except OSError:
            seen = None
        else:
            seen = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        return State(self.commits(), seen)

    def commits(self) -> Commits:
        """What can be reached now."""
        references = tuple(sorted(self.references().items()))
        shallow = tuple(self.shallow())
        return Commits(str(self.objects), self.sha256, self.head(), references, shallow)


def find(root: Path) -> tuple[GitDirectory | None, str | None]:
    """The repository whose work tree is `root`; else None, with the reason when one is in sight.

    A `.git` file is followed only to a worktree or a submodule's repository that names this tree in
    turn, so that a hostile tree cannot point at another repository of the user.
    """
    root = Path(os.path.realpath(root))
    place = root / ".git"
    try:
        mode = place.lstat().st_mode
    except OSError:
        return None, None
    if stat.S_ISLNK(mode):
        return None, ".git is a symbolic link"
    if stat.S_ISREG(mode):
        return _elsewhere(place)
    if not stat.S_ISDIR(mode) or not _is_there(place / "HEAD"):
        return None, None
    return _whole(GitDirectory(place, place))


def find_bare(place: Path) -> tuple[GitDirectory | None, str | None]:
    """The repository that the directory `place` itself is; else None, with the reason."""
    place = Path(os.path.realpath(place))
    if not is_bare(place):
        return None, "it is no git repository"
    return _whole(GitDirectory(place, place))


def is_bare(place: Path) -> bool:
    """Whether the directory `place` itself looks like a repository to git."""
    return all(_is_there(place / name) for name in ("HEAD", "objects", "refs"))


def _whole(found: GitDirectory) -> tuple[GitDirectory | None, str | None]:
    """It, when all that it consists of is in it, and can be read here."""
    own = [found.own / name for name in ("HEAD", "index")]
    common = [found.common / name for name in _PARTS]
    for part in (*own, *common):
        if part.is_symlink():
            return None, f"{part.name} of its .git is a symbolic link"
    for name, reason in _NOT_READ:
        if _is_there(found.common / name):
            return None, reason
    return found, None


def _elsewhere(place: Path) -> tuple[GitDirectory | None, str | None]:
    """What the file `place`, called .git, names."""
    words = text_of(place.parent, ".git").strip()
    named = words.removeprefix("gitdir:").strip()
    if not words.startswith("gitdir:") or not named:
        return None, ".git is a file that names no repository"
    own = Path(os.path.realpath(place.parent / named))
    if back := text_of(own, "gitdir").strip():
        return _worktree(place, own, back)
    if (tree := _work_tree(own)) is not None and os.path.realpath(own / tree) == str(place.parent):
        return _whole(GitDirectory(own, own))
    return None, ".git is a file that names a repository which does not name it back"


def _worktree(place: Path, own: Path, back: str) -> tuple[GitDirectory | None, str | None]:
    if os.path.realpath(own / back) != str(place):
        return None, ".git is a file that names a repository which does not name it back"
    common = Path(os.path.realpath(own / (text_of(own, "commondir").strip() or ".")))
    if own.parent != common / "worktrees":
        return None, ".git is a file that names a worktree of no repository"
    return _whole(GitDirectory(own, common))


def _work_tree(own: Path) -> str | None:
    """What the configuration of a submodule's repository says of its work tree."""
    value = next(_values(own, "worktree"), "")
    plain = value[1:-1] if re.fullmatch(r'".*"', value) else value
    return re.sub(r"\\(.)", r"\1", plain) or None


def _loose(common: Path) -> Iterator[tuple[str, str]]:
    """References that have a file of their own."""
    try:
        base = open_resolved(common)
    except OSError:
        return
    try:
        waiting = ["refs"]
        while waiting:
            place = waiting.pop()
            for name, is_directory in _listed(base, place):
                ref = f"{place}/{name}"
                if is_directory and len(ref) < 400:
                    waiting.append(ref)
                elif _is_ref(ref) and _ID.fullmatch(text := text_of(common, ref).strip()):
                    yield ref, text
    finally:
        os.close(base)


def _listed(base: int, place: str) -> list[tuple[str, bool]]:
    """The names in a directory that are no links, and which of them are directories."""
    try:
        directory = open_directory(base, place)
    except OSError:
        return []
    try:
        with os.scandir(directory) as found:
            return sorted(
                (entry.name, entry.is_dir(follow_symlinks=False))
                for entry in found
                if not entry.is_symlink()
            )
    finally:
        os.close(directory)


def _is_ref(ref: str) -> bool:
    return _REF.fullmatch(ref) is not None and ".." not in ref


def _values(directory: Path, *names: str) -> Iterator[str]:
    """What the configuration there says of settings, as it is written."""
    for line in text_of(directory, "config").split("\n"):
        name, is_set, value = line.partition("=")
        if is_set and name.strip().lower() in names:
            yield value.strip()


def _is_there(path: Path) -> bool:
    return os.path.lexists(path)


def text_of(directory: Path, name: str) -> str:
    """The text of a file, "" when it cannot be read; see `bytes_of`."""
    return os.fsdecode(bytes_of(directory, name))


def bytes_of(directory: Path, name: str, limit: int = _LIMIT) -> bytes:
    """The bytes of the regular file `name` (a relative path) below a directory, of which no part is
    a link; none when it cannot be read so, or is over `limit` bytes."""
    try:
        base = open_resolved(directory)
        try:
            inside = open_directory(base, name.rpartition("/")[0])
        finally:
            os.close(base)
        try:
            descriptor = open_regular(inside, name.rpartition("/")[2])
        finally:
            os.close(inside)
        with os.fdopen(descriptor, "rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO):
            raise
        return b""
    return data if len(data) <= limit else b""
