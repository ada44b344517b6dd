"""Which files of a tree a sandbox may see.

The walk never follows a link, reads no file but .gitignore, and keeps `.git` out: git's own files
are the business of ringfence.workspace.git. What a directory's pattern leaves out is left out with
all below it, and so is every visible name of a file that is hidden under another name (hard links).
"""

import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import compress
from stat import S_ISDIR, S_ISLNK, S_ISREG

from ringfence.errors import InvalidSpecError, ResourceExhaustedError
from ringfence.spec import Repository
from ringfence.workspace.beneath import open_directory, read_link
from ringfence.workspace.entries import DIRECTORY, FILE, LINK, Entry, is_git_name, leaves
from ringfence.workspace.failures import failed, missing, shown
from ringfence.workspace.patterns import Patterns
from ringfence.workspace.rows import Facts, Rows, looked
from ringfence.workspace.rules import Rules
from ringfence.workspace.seen import Seen, digest_of, patterns_in
from ringfence.workspace.selection import Selection

MAX_ENTRIES = 1_000_000
ANOTHER_NAME = "a hard link to a hidden file"
"""Why a file is hidden that no pattern hides."""


Visit = Callable[[str, Sequence[Entry]], None]
_Ignores = tuple[tuple[int, Patterns], ...]


@dataclass(slots=True)
class _Place:
    path: str
    ignores: _Ignores
    included: bool


class Walk:
    """One walk over the tree at the descriptor `root`. seen: what decided, once it has run."""

    def __init__(self, root: int, rules: Rules, visit: Visit | None = None) -> None:
        self.root = root
        self.rules = rules
        self.visit = visit
        self.seen = Seen()
        self.entries: list[Entry] = []
        self.hidden: dict[str, str] = {}
        self.special: dict[str, str] = {}
        self.git: list[str] = []
        self.hidden_inodes: set[tuple[int, int]] = set()
        self.linked = False
        self.later: list[str] = []

    def run(self) -> Selection:
        """Walk. Errors: those of `select`."""
        ignores: _Ignores = ()
        if self.rules.gitignore:
            ignores = self._ignores("", ".git/info/exclude", ())
        waiting = [_Place("", ignores, not self.rules.narrows)]
        while waiting:
            waiting.extend(self._directory(waiting.pop()))
        if self.linked:
            self._drop_links_to_hidden()
        if self.rules.narrows:
            self._drop_empty()
        paths = os.fsencode("\0".join(entry.path for entry in self.entries))
        rows = Rows(self.seen.rows, self.seen.visible, paths)
        return Selection(rows, self.hidden, self.special, self.git, entries=self.entries)

    def _directory(self, place: _Place) -> list[_Place]:
        try:
            directory = open_directory(self.root, place.path)
        except OSError as error:
            raise failed(error, place.path or ".", "reading the repository") from None
        listed: list[os.DirEntry[str]] = []
        try:
            with os.scandir(directory) as found:
                listed = list(found)
            names, facts, rows = looked(listed)
            self.seen.listed(place.path, names, rows)
            if self.rules.gitignore and ".gitignore" in names:
                place.ignores = self._ignores(place.path, ".gitignore", place.ignores)
            before = len(self.entries)
            below = self._entries(place, names, facts)
            if self.visit is not None:
                self.visit(place.path, self.entries[before:])
            return below
        except OSError as error:
            told = error.errno != errno.EACCES and any(e.name == error.filename for e in listed)
            name = error.filename if told else ""  # nothing in a directory without x is looked at
            path = f"{place.path}/{name}".strip("/") or "."
            raise failed(error, path, "reading the repository") from None
        finally:
            os.close(directory)

    def _entries(self, place: _Place, names: Sequence[str], facts: Sequence[Facts]) -> list[_Place]:
        prefix = f"{place.path}/" if place.path else ""
        visible = self.seen.visible
        if len(visible) + len(names) > MAX_ENTRIES:
            raise ResourceExhaustedError(
                f"the repository has over {MAX_ENTRIES} entries (at {shown(prefix or '.')});"
                " exclude directories of it, or use a subpath",
                op="workspace",
                context={"path": shown(prefix or "."), "limit": MAX_ENTRIES},
            )
        below: list[_Place] = []
        for name, found in zip(names, facts, strict=True):
            path = prefix + name
            if is_git_name(name):
                self.git.append(path)
                visible.append(0)
            else:
                visible.append(self._one(place, path, name, found, below))
        return below

    def _one(self, place: _Place, path: str, name: str, facts: Facts, below: list[_Place]) -> bool:
        """Choose; whether it is visible."""
        mode = facts[0]
        is_directory = S_ISDIR(mode)
        reason = self._hides(place, path, name, is_directory)
        if reason is not None:
            self.hidden[path + "/" if is_directory else path] = reason
            self._hide(path, facts, is_directory)
            return False
        included = self.rules.included(path, name, is_directory, place.included)
        if not included and not is_directory:
            self.hidden[path] = "not included"
            self._hide(path, facts, is_directory)
            return False
        kind = FILE if S_ISREG(mode) else DIRECTORY if is_directory else LINK
        if kind == LINK and not self._carries(path, mode, facts[5]):
            return False
        if facts[-1] > 1 and kind == FILE:
            self.linked = True
        fields = (path, kind, mode & 0o7777) + facts[1:]  # noqa: RUF005 - half the time of *facts
        self.entries.append(tuple.__new__(Entry, fields))  # half the time of Entry()
        if is_directory:
            below.append(_Place(path, place.ignores, included))
        return True

    def _hides(self, place: _Place, path: str, name: str, is_directory: bool) -> str | None:
        reason = self.rules.reason(path, name, is_directory)
        if reason is not None:
            return reason
        for prefix, patterns in place.ignores:
            verdict = patterns.verdict(path[prefix:], name, is_directory)
            if verdict is not None:
                return "in .gitignore" if verdict else None
        return None

    def _carries(self, path: str, mode: int, ctime: int) -> bool:
        """Whether a link stays in the tree; what is neither file nor directory is never carried."""
        if not S_ISLNK(mode):
            self.special[path] = "neither a file, a directory nor a link"
            return False
        target = read_link(self.root, path)
        self.seen.link(ctime)
        if leaves(path, target):
            self.special[path] = f"a link out of the repository, to {shown(target)}"
            return False
        return True

    def _hide(self, path: str, facts: Facts, is_directory: bool) -> None:
        if is_directory:
            self.later.append(path)
        elif facts[-1] > 1:
            self.hidden_inodes.add((facts[6], facts[7]))

    def _drop_links_to_hidden(self) -> None:
        """Hide what has the inode of a hidden file, one in a hidden directory included."""
        while self.later:
            self._gather(self.later.pop())
        inodes = self.hidden_inodes
        kept = [e.kind != FILE or (e.device, e.inode) not in inodes for e in self.entries]
        for entry, is_kept in zip(self.entries, kept, strict=True):
            if not is_kept:
                self.hidden[entry.path] = ANOTHER_NAME
        self._keep(kept)

    def _keep(self, kept: Sequence[bool]) -> None:
        """Let only some of the entries be: in their order, whether they are."""
        self.seen.choose(kept)
        self.entries = list(compress(self.entries, kept))

    def _gather(self, path: str) -> None:
        try:
            directory = open_directory(self.root, path)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.ENOENT):
                self.seen.told = False
                return
            raise failed(error, path, "reading the repository") from None
        try:
            with os.scandir(directory) as found:
                listed = list(found)
            names, facts, rows = looked(listed)
            if len(self.seen.visible) + len(names) > MAX_ENTRIES:
                self.seen.told = False
            else:
                self.seen.listed(path, names, rows)
                self.seen.visible += bytes(len(names))
            for name, one in zip(names, facts, strict=True):
                self._hide(f"{path}/{name}", one, S_ISDIR(one[0]))
        except PermissionError:  # its names may be read, and nothing of what they are
            self.seen.told = False
        except FileNotFoundError as error:
            raise failed(error, path, "reading the repository") from None
        finally:
            os.close(directory)

    def _drop_empty(self) -> None:
        """Leave out directories that hold nothing that is included."""
        needed: set[str] = set()
        for entry in self.entries:
            inside = entry.kind != DIRECTORY or self.rules.included(
                entry.path, entry.path.rpartition("/")[2], True, False
            )
            path = entry.path
            while inside and path and path not in needed:
                needed.add(path)
                path = path.rpartition("/")[0]
        self._keep([entry.path in needed for entry in self.entries])

    def _ignores(self, directory: str, name: str, above: _Ignores) -> _Ignores:
        prefix = f"{directory}/" if directory else ""
        text = patterns_in(self.root, prefix + name)
        self.seen.ignored[prefix + name] = digest_of(text)
        return above if text is None else ((len(prefix), Patterns(text.split("\n"))), *above)


def check_subpath(root: int, repository: Repository) -> None:
    """NotFoundError and InvalidSpecError for a subpath that is missing or no directory."""
    subpath = repository.subpath
    if subpath is None:
        return
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
    check_subpath(root, repository)
    return Walk(root, Rules(repository), visit).run()
