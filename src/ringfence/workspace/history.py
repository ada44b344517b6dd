"""The repository that a sandbox gets: git's history, made anew, without what is hidden.

The host's own `.git` never goes in: its configuration may hold credentials, its hooks are
programs, its object store holds what nobody can reach any more. We read its references and its
index as files, and its objects through git's alternates; none of its configuration is used.
"""

import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ringfence.errors import DeadlineExceededError, StateError
from ringfence.workspace.isolated import git

History = Literal["head", "full"]
_ID = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_REF = re.compile(r"refs/(?:heads|tags|remotes|notes)/[^\x00-\x20\x7f~^:?*\[\\]{1,400}")
_LIMIT = 1 << 26
_WALK_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class GitDirectory:
    """A repository on the host. own: HEAD and the index are there (of a linked worktree, say);
    common: objects and references."""

    own: Path
    common: Path

    @property
    def sha256(self) -> bool:
        """Whether its objects are named by SHA-256."""
        text = _text(self.common / "config")
        return re.search(r"(?im)^\s*objectformat\s*=\s*sha256\s*$", text) is not None

    def references(self) -> dict[str, str]:
        """Branches, tags, remote branches and notes, with the ids they name."""
        found = {}
        for line in _text(self.common / "packed-refs").splitlines():
            name, _, ref = line.partition(" ")
            if _ID.fullmatch(name) and _REF.fullmatch(ref) and ".." not in ref:
                found[ref] = name
        base = self.common / "refs"
        for place, directories, files in os.walk(base):
            directories.sort()
            for file in files:
                path = Path(place) / file
                ref = f"refs/{path.relative_to(base)}"
                name = "" if path.is_symlink() else _text(path).strip()
                if _ID.fullmatch(name) and _REF.fullmatch(ref) and ".." not in ref:
                    found[ref] = name
        return found

    def head(self) -> str | None:
        """What HEAD says: "ref: refs/heads/x" or an id; None when it is neither."""
        text = _text(self.own / "HEAD").strip()
        if text.startswith("ref: ") and _REF.fullmatch(text[5:]) and ".." not in text:
            return text
        return text if _ID.fullmatch(text) else None

    def state(self) -> tuple[object, ...]:
        """All that decides what a repository made of it holds: two looks that give the same saw
        the same history and the same index."""
        try:
            status = (self.own / "index").lstat()
        except OSError:
            seen = None
        else:
            seen = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        objects = str(self.common.resolve())
        references = sorted(self.references().items())
        return (objects, self.sha256, self.head(), references, seen, _text(self.common / "shallow"))


def find(root: Path) -> tuple[GitDirectory | None, str | None]:
    """The repository whose work tree is `root`; else None, with the reason when one is in sight.

    A `.git` file is followed only to a worktree that names this file in turn, so that a hostile
    tree cannot point at another repository of the user.
    """
    place = root / ".git"
    if place.is_symlink():
        return None, ".git is a symbolic link"
    if place.is_file():
        return _worktree(place)
    if not (place / "HEAD").is_file():
        return None, None
    if (place / "commondir").exists():
        return None, ".git names another repository"
    if (place / "reftable").is_dir():
        return None, "its references are in a reftable, which is not read here"
    return _whole(GitDirectory(place, place))


def _whole(found: GitDirectory) -> tuple[GitDirectory | None, str | None]:
    """It, when nothing in it that we read is a link, by which it could show another repository."""
    parts = [found.own / name for name in ("HEAD", "index")]
    parts += [
        found.common / name for name in ("config", "objects", "packed-refs", "refs", "shallow")
    ]
    for part in parts:
        if part.is_symlink():
            return None, f"{part.name} of its .git is a symbolic link"
    return found, None


def _worktree(place: Path) -> tuple[GitDirectory | None, str | None]:
    words = _text(place).strip()
    own = (place.parent / words.removeprefix("gitdir:").strip()).resolve()
    back = _text(own / "gitdir").strip()
    if not words.startswith("gitdir:") or not back or Path(back).resolve() != place.resolve():
        return None, ".git is a file that names a repository which does not name it back"
    common = (own / (_text(own / "commondir").strip() or ".")).resolve()
    if own.parent != common / "worktrees":
        return None, ".git is a file that names a worktree of no repository"
    return _whole(GitDirectory(own, common))


class Builder:
    """Makes the repository of one sandbox in `target`, which does not exist yet.

    hidden: says which of the paths given are not visible. absent: further paths that do not go in,
    without being secret. It blocks, and its errors are those of
    `isolated.git`.
    """

    def __init__(
        self,
        source: GitDirectory,
        target: Path,
        hidden: Callable[[Iterable[str]], list[str]],
        absent: Iterable[str] = (),
    ) -> None:
        self.source, self.target, self.hidden = source, target, hidden
        self.absent = frozenset(absent)
        self._env = {"GIT_DIR": str(target), "GIT_WORK_TREE": str(target.parent)}

    def prepare(self) -> None:
        """Make an empty repository that sees the source's objects and references."""
        objects = str((self.source.common / "objects").resolve())
        if "\n" in objects or objects.startswith('"'):
            raise StateError("the repository's path cannot be named to git", op="workspace")
        self.target.mkdir(mode=0o755)
        kind = "sha256" if self.source.sha256 else "sha1"
        self._git("init", "--quiet", "--template=", f"--object-format={kind}",
                  "--initial-branch=main")  # fmt: skip
        (self.target / "objects/info").mkdir(exist_ok=True)
        (self.target / "objects/info/alternates").write_text(objects + "\n")
        shallow = self.source.common / "shallow"
        if shallow.is_file():
            (self.target / "shallow").write_bytes(shallow.read_bytes())
        self._references(self.source.references(), self.source.head())

    def _references(self, references: dict[str, str], head: str | None) -> None:
        lines = "".join(f"{name} {ref}\n" for ref, name in sorted(references.items()))
        (self.target / "packed-refs").write_text("# pack-refs with: sorted \n" + lines)
        (self.target / "HEAD").write_text((head or "ref: refs/heads/main") + "\n")

    def born(self) -> bool:
        """Whether HEAD names a commit that is there."""
        try:
            self._git("cat-file", "-e", "HEAD^{commit}")
        except StateError:
            return False
        return True

    def committed(self) -> list[str]:
        """Hidden paths that are in a commit which can be reached.

        [""] when that took too long to find out: then it must be taken as so.
        """
        try:
            listed = self._git(
                "rev-list", "--objects", "--all", "HEAD", "--", seconds=_WALK_SECONDS
            )
        except DeadlineExceededError:
            return [""]
        paths = {
            os.fsdecode(path) for line in listed.split(b"\n") if (path := line.partition(b" ")[2])
        }
        return self.hidden(paths)

    def full(self) -> None:
        """Keep all history; hidden files count as checked out, so that they are not deletions."""
        self._skip(self.hidden(self._index()))
        self._settle()

    def head(self) -> None:
        """Keep one commit: the visible part of HEAD. The index keeps what is visible of it."""
        tracked = self._index()
        hidden = self.hidden(tracked)
        if hidden:
            self._git("update-index", "-z", "--force-remove", "--stdin", given=_joined(hidden))
        scratch = {"GIT_INDEX_FILE": str(self.target / "head.index")}
        self._git("read-tree", "HEAD", env=scratch)
        committed = _split(self._git("ls-tree", "-r", "-z", "--name-only", "HEAD"))
        if unseen := self.hidden(committed):
            self._git("update-index", "-z", "--force-remove", "--stdin",
                      env=scratch, given=_joined(unseen))  # fmt: skip
        self._skip([])
        tree = self._git("write-tree", env=scratch).decode().strip()
        (self.target / "head.index").unlink(missing_ok=True)
        when = self._git("log", "-1", "--format=%ct", "HEAD").decode().strip() + " +0000"
        dates = {"GIT_AUTHOR_DATE": when, "GIT_COMMITTER_DATE": when}
        message = b"The repository as the sandbox sees it\n"
        commit = self._git("commit-tree", tree, env=dates, given=message).decode().strip()
        head = self.source.head()
        ref = head[5:] if head is not None and head.startswith("ref: ") else "refs/heads/main"
        (self.target / "shallow").unlink(missing_ok=True)
        self._references({ref: commit}, f"ref: {ref}")
        self._settle()

    def _index(self) -> list[str]:
        """Take over the source's index, else make one of HEAD; the paths in it."""
        index = self.target / "index"
        own = self.source.own / "index"
        if own.is_file() and not own.is_symlink() and own.stat().st_size < _LIMIT * 8:
            shutil.copyfile(own, index)
        try:
            if index.exists():
                return _split(self._git("ls-files", "-z", "--cached"))
        except StateError:
            index.unlink()
        self._git("read-tree", "HEAD")
        return _split(self._git("ls-files", "-z", "--cached"))

    def _skip(self, hidden: list[str]) -> None:
        """Let paths that are not there count as checked out: they are no deletions."""
        tracked = set(_split(self._git("ls-files", "-z", "--cached")))
        if paths := [path for path in (*hidden, *self.absent) if path in tracked]:
            self._git("update-index", "-z", "--skip-worktree", "--stdin", given=_joined(paths))

    def _settle(self) -> None:
        """Bring in the objects that can be reached, let go of the source, write a configuration."""
        self._git("repack", "-a", "-d", "-q", "--no-write-bitmap-index")
        (self.target / "objects/info/alternates").unlink()
        extension = "[extensions]\n\tobjectFormat = sha256\n" if self.source.sha256 else ""
        (self.target / "config").write_text(
            f"[core]\n\trepositoryformatversion = {1 if extension else 0}\n\tfilemode = true\n"
            f"\tbare = false\n\tlogallrefupdates = true\n{extension}"
        )

    def _git(
        self,
        *args: str,
        env: dict[str, str] | None = None,
        given: bytes = b"",
        seconds: float = 300.0,
    ) -> bytes:
        return git(
            args,
            directory=self.target.parent,
            env={**self._env, **(env or {})},
            given=given,
            seconds=seconds,
        )


def settings(identity_env: dict[str, str]) -> dict[str, str]:
    """Git settings as the variables GIT_CONFIG_COUNT, GIT_CONFIG_KEY_n and GIT_CONFIG_VALUE_n."""
    env = {"GIT_CONFIG_COUNT": str(len(identity_env))}
    for number, (key, value) in enumerate(identity_env.items()):
        env[f"GIT_CONFIG_KEY_{number}"] = key
        env[f"GIT_CONFIG_VALUE_{number}"] = value
    return env


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return os.fsdecode(file.read(_LIMIT))
    except OSError:
        return ""


def _joined(paths: Iterable[str]) -> bytes:
    return b"".join(os.fsencode(path) + b"\0" for path in paths)


def _split(data: bytes) -> list[str]:
    return [os.fsdecode(part) for part in data.split(b"\0") if part]


def walk_all(root: Path) -> Iterator[Path]:
    """All files and directories below a directory that we made, itself first."""
    yield root
    for place, directories, files in os.walk(root):
        for name in (*directories, *files):
            yield Path(place) / name
