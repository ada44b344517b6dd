"""Which files of a tree a sandbox may see.

The walk never follows a link, reads no file but .gitignore, and keeps `.git` out: git's own files
are the business of ringfence.workspace.git. What a directory's pattern leaves out is left out with
all below it, and so is every visible name of a file that is hidden under another name (hard links).
"""

import errno
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from stat import S_ISDIR, S_ISLNK, S_ISREG

from ringfence.errors import InvalidSpecError, ResourceExhaustedError
from ringfence.spec import Repository
from ringfence.workspace.beneath import open_directory, open_regular
from ringfence.workspace.entries import DIRECTORY, FILE, LINK, Entry, is_git_name, leaves
from ringfence.workspace.failures import failed, missing, shown
from ringfence.workspace.patterns import Patterns
from ringfence.workspace.secrets import SECRETS

MAX_ENTRIES = 1_000_000
_GITIGNORE_BYTES = 1 << 20


@dataclass(slots=True)
class Selection:
    """What is visible and what is not.

    entries: visible, each directory before what it holds. hidden: path to the reason, a directory
    ends with "/". special: devices, FIFOs, sockets and links out of the tree, by path, with the
    reason. git: paths called .git below the root, wherever they are.
    """

    entries: list[Entry] = field(default_factory=list)
    hidden: dict[str, str] = field(default_factory=dict)
    special: dict[str, str] = field(default_factory=dict)
    git: list[str] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes of the visible files."""
        return sum(entry.size for entry in self.entries if entry.kind == FILE)

    @property
    def files(self) -> int:
        """How many files and links are visible."""
        return sum(1 for entry in self.entries if entry.kind != DIRECTORY)


class Rules:
    """The patterns of one repository: include, exclude with the secrets, .gitignore by choice.

    InvalidSpecError for one of the spec that matches no path: what it was to hide would be seen.
    """

    def __init__(self, repository: Repository) -> None:
        for pattern in (*repository.include, *repository.exclude):
            if not pattern.startswith("#") and not Patterns([pattern]):
                raise InvalidSpecError(
                    f"no path matches the pattern {pattern!r}: write it as in .gitignore",
                    op="workspace",
                )
        secrets = SECRETS if repository.secrets_excluded else ()
        include: tuple[str, ...] = repository.include
        self.subpath = repository.subpath
        self.gitignore = repository.gitignore
        self._secrets = Patterns(secrets)
        self._exclude = Patterns((*secrets, *repository.exclude))
        self._include = Patterns(include)

    def reason(self, path: str, name: str, is_directory: bool) -> str | None:
        """Why `path` is hidden; None when no pattern of the spec hides it."""
        if self._exclude.verdict(path, name, is_directory):
            secret = self._secrets.verdict(path, name, is_directory)
            return "usually holds secrets" if secret else "excluded"
        return None

    def included(self, path: str, name: str, is_directory: bool, above: bool) -> bool:
        """Whether `include` and `subpath` name it, or named (`above`) a directory over it."""
        if above:
            return True
        if self.subpath is not None and not f"{path}/".startswith(f"{self.subpath}/"):
            return False
        return not self._include or bool(self._include.verdict(path, name, is_directory))

    @property
    def narrows(self) -> bool:
        """Whether only what is included is visible."""
        return bool(self._include) or self.subpath is not None


Visit = Callable[[str, Sequence[Entry]], None]
_Ignores = tuple[tuple[int, Patterns], ...]


@dataclass(slots=True)
class _Place:
    path: str
    ignores: _Ignores
    included: bool
    hidden: bool = False


class _Walk:
    def __init__(self, root: int, rules: Rules, visit: Visit | None) -> None:
        self.root = root
        self.rules = rules
        self.visit = visit
        self.result = Selection()
        self.seen = 0
        self.hidden_inodes: set[tuple[int, int]] = set()
        self.linked = False
        self.later: list[_Place] = []

    def run(self) -> Selection:
        ignores: _Ignores = ()
        if self.rules.gitignore:
            ignores = self._ignores(self.root, ".git/info/exclude", 0, ())
        waiting = [_Place("", ignores, not self.rules.narrows)]
        while waiting:
            waiting.extend(self._directory(waiting.pop()))
        if self.linked:
            self._drop_links_to_hidden()
        if self.rules.narrows:
            self._drop_empty()
        return self.result

    def _directory(self, place: _Place) -> list[_Place]:
        try:
            directory = open_directory(self.root, place.path)
        except OSError as error:
            raise failed(error, place.path or ".", "reading the repository") from None
        listed: list[os.DirEntry[str]] = []
        try:
            with os.scandir(directory) as found:
                listed = list(found)
            if self.rules.gitignore and any(entry.name == ".gitignore" for entry in listed):
                prefix = len(place.path) + 1 if place.path else 0
                place.ignores = self._ignores(directory, ".gitignore", prefix, place.ignores)
            before = len(self.result.entries)
            below = self._entries(place, listed)
            if self.visit is not None:
                self.visit(place.path, self.result.entries[before:])
            return below
        except OSError as error:
            name = error.filename if any(e.name == error.filename for e in listed) else ""
            path = f"{place.path}/{name}".strip("/") or "."
            raise failed(error, path, "reading the repository") from None
        finally:
            os.close(directory)

    def _entries(self, place: _Place, listed: Sequence["os.DirEntry[str]"]) -> list[_Place]:
        prefix = f"{place.path}/" if place.path else ""
        self.seen += len(listed)
        if self.seen > MAX_ENTRIES:
            raise ResourceExhaustedError(
                f"the repository has over {MAX_ENTRIES} entries (at {shown(prefix or '.')});"
                " exclude directories of it, or use a subpath",
                op="workspace",
                context={"path": shown(prefix or "."), "limit": MAX_ENTRIES},
            )
        below: list[_Place] = []
        for found in listed:
            name = found.name
            path = prefix + name
            if is_git_name(name):
                self.result.git.append(path)
                continue
            status = found.stat(follow_symlinks=False)
            self._one(place, path, name, status, below)
        return below

    def _one(
        self, place: _Place, path: str, name: str, status: os.stat_result, below: list[_Place]
    ) -> None:
        mode = status.st_mode
        is_directory = S_ISDIR(mode)
        reason = self._hides(place, path, name, is_directory)
        if reason is not None:
            self.result.hidden[path + "/" if is_directory else path] = reason
            self._hide(path, status, is_directory)
            return
        included = self.rules.included(path, name, is_directory, place.included)
        if not included and not is_directory:
            self.result.hidden[path] = "not included"
            self._hide(path, status, is_directory)
            return
        kind = FILE if S_ISREG(mode) else DIRECTORY if is_directory else LINK
        if kind == LINK and not self._carries(path, mode):
            return
        if status.st_nlink > 1 and kind == FILE:
            self.linked = True
        fields = (path, kind, mode & 0o7777, status.st_uid, status.st_gid, status.st_size,
                  status.st_mtime_ns, status.st_ctime_ns, status.st_dev, status.st_ino,
                  status.st_nlink)  # fmt: skip
        self.result.entries.append(tuple.__new__(Entry, fields))  # half the time of Entry()
        if is_directory:
            below.append(_Place(path, place.ignores, included))

    def _hides(self, place: _Place, path: str, name: str, is_directory: bool) -> str | None:
        reason = self.rules.reason(path, name, is_directory)
        if reason is not None:
            return reason
        for prefix, patterns in place.ignores:
            verdict = patterns.verdict(path[prefix:], name, is_directory)
            if verdict is not None:
                return "in .gitignore" if verdict else None
        return None

    def _carries(self, path: str, mode: int) -> bool:
        """Whether a link stays in the tree; what is neither file nor directory is never carried."""
        if not S_ISLNK(mode):
            self.result.special[path] = "neither a file, a directory nor a link"
            return False
        names = path.rpartition("/")
        directory = open_directory(self.root, names[0])
        try:
            target = os.readlink(names[2], dir_fd=directory)
        finally:
            os.close(directory)
        if leaves(path, target):
            self.result.special[path] = f"a link out of the repository, to {shown(target)}"
            return False
        return True

    def _hide(self, path: str, status: os.stat_result, is_directory: bool) -> None:
        if is_directory:
            self.later.append(_Place(path, (), False, hidden=True))
        elif status.st_nlink > 1:
            self.hidden_inodes.add((status.st_dev, status.st_ino))

    def _drop_links_to_hidden(self) -> None:
        """Hide what has the inode of a hidden file, one in a hidden directory included."""
        while self.later:
            self._gather(self.later.pop().path)
        kept = []
        for entry in self.result.entries:
            if entry.kind == FILE and (entry.device, entry.inode) in self.hidden_inodes:
                self.result.hidden[entry.path] = "a hard link to a hidden file"
            else:
                kept.append(entry)
        self.result.entries = kept

    def _gather(self, path: str) -> None:
        try:
            directory = open_directory(self.root, path)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.ENOENT):
                return
            raise failed(error, path, "reading the repository") from None
        try:
            with os.scandir(directory) as found:
                for entry in found:
                    if entry.is_dir(follow_symlinks=False):
                        self.later.append(_Place(f"{path}/{entry.name}", (), False))
                    elif (status := entry.stat(follow_symlinks=False)).st_nlink > 1:
                        self.hidden_inodes.add((status.st_dev, status.st_ino))
        finally:
            os.close(directory)

    def _drop_empty(self) -> None:
        """Leave out directories that hold nothing that is included."""
        needed: set[str] = set()
        for entry in self.result.entries:
            inside = entry.kind != DIRECTORY or self.rules.included(
                entry.path, entry.path.rpartition("/")[2], True, False
            )
            path = entry.path
            while inside and path and path not in needed:
                needed.add(path)
                path = path.rpartition("/")[0]
        self.result.entries = [entry for entry in self.result.entries if entry.path in needed]

    def _ignores(self, directory: int, name: str, prefix: int, above: _Ignores) -> _Ignores:
        try:
            inside = open_directory(directory, name.rpartition("/")[0])
        except OSError:
            return above
        try:
            descriptor = open_regular(inside, name.rpartition("/")[2])
        except OSError:
            return above
        finally:
            os.close(inside)
        with os.fdopen(descriptor, "rb") as file:
            text = os.fsdecode(file.read(_GITIGNORE_BYTES))
        return ((prefix, Patterns(text.split("\n"))), *above)


def _check_subpath(root: int, subpath: str) -> None:
    try:
        os.close(open_directory(root, subpath))
    except FileNotFoundError:
        raise missing(subpath) from None
    except OSError as error:
        raise InvalidSpecError(
            f"the subpath {shown(subpath)} cannot be used: {error.strerror}; name a directory of"
            " the repository itself, behind no link",
            op="workspace",
            context={"path": shown(subpath)},
        ) from None


def select(root: int, repository: Repository, visit: Visit | None = None) -> Selection:
    """Walk the tree at the directory descriptor `root` and choose what is visible.

    visit: is told what was chosen in each directory, one after the other, as soon as that is known.
    Of these only files that are hidden under another name, and, where `Rules.narrows`, empty
    directories, are left out in the end.
    Errors: NotFoundError and InvalidSpecError for a subpath that is missing or no directory,
    InvalidSpecError for what cannot be read, StateError for a tree that changes meanwhile,
    ResourceExhaustedError beyond a million entries; each names the path. It blocks.
    """
    if repository.subpath is not None:
        _check_subpath(root, repository.subpath)
    return _Walk(root, Rules(repository), visit).run()


def is_hidden(paths: Iterable[str], repository: Repository) -> list[str]:
    """Those of `paths` (files of a commit, say) that the patterns of the spec hide."""
    rules = Rules(repository)
    decided: dict[str, tuple[bool, bool]] = {"": (False, not rules.narrows)}
    hidden = []
    for path in paths:
        names = path.split("/")
        for length in range(1, len(names) + 1):
            part = "/".join(names[:length])
            if part in decided and length < len(names):
                continue
            above = decided["/".join(names[: length - 1])]
            is_directory = length < len(names)
            name = names[length - 1]
            out = above[0] or rules.reason(part, name, is_directory) is not None
            within = rules.included(part, name, is_directory, above[1])
            if is_directory:
                decided[part] = (out, within)
            elif out or not within:
                hidden.append(path)
    return hidden
