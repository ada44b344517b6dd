"""The repository that a sandbox gets: git's history, made anew, without what is hidden.

The host's own `.git` never goes in: its configuration may hold credentials, its hooks are
programs, its object store holds what nobody can reach any more. Its references and its index are
read as files, and its objects are lent to the new one until it has its own of what can be reached.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple

from ringfence.errors import DeadlineExceededError, StateError
from ringfence.workspace import index
from ringfence.workspace.gitdir import GitDirectory
from ringfence.workspace.isolated import git
from ringfence.workspace.mirror import give_back, mirror, refer
from ringfence.workspace.patch import quoted

History = Literal["head", "full"]
_WALK_SECONDS = 60.0
_MOST_TRACKED = 2_000_000
_COMMIT = "refs/ringfence/head"


class _Committed(NamedTuple):
    """One file of a commit. name: the object's id, in hex."""

    path: str
    mode: int
    name: str


class Builder:
    """Makes the repository of one sandbox in `target`, which does not exist yet.

    hidden: says which of the paths given are not visible. absent: further paths that do not go in,
    without being secret. It blocks, and its errors are those of `mirror`.
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
        self._id_bytes = 32 if source.sha256 else 20
        self._env = {"GIT_DIR": str(target), "GIT_WORK_TREE": str(target.parent)}

    def prepare(self) -> None:
        """Make an empty repository that sees the source's objects and references."""
        mirror(self.source, self.target)

    def born(self) -> bool:
        """Whether HEAD names a commit that is there."""
        try:
            self._git("cat-file", "-e", "HEAD^{commit}")
        except StateError:
            return False
        return True

    def unborn(self) -> bool:
        """Whether HEAD is a branch that has no commit yet, in place of one that is missing."""
        head = self.source.head()
        return (
            head is not None
            and head.startswith("ref: ")
            and (head[5:] not in self.source.references())
        )

    def complete(self) -> bool:
        """Whether all of HEAD's files are there."""
        missing = ["--objects", "--missing=print", "--no-object-names"]
        listed = self._git("rev-list", *missing, "HEAD^{tree}", seconds=_WALK_SECONDS)
        return b"?" not in listed

    def committed(self) -> list[str]:
        """Hidden paths that are in a commit which can be reached.

        [""] when that cannot be found out in time, or a reference names no commit: then it must be
        taken as so.
        """
        if not self._all_commits():
            return [""]
        try:
            listed = self._git(
                "log", "--all", "HEAD", "--format=", "--name-only", "-z", "--no-renames", "-c",
                "--root", "--no-mailmap", "--", seconds=_WALK_SECONDS,
            )  # fmt: skip
        except DeadlineExceededError:
            return [""]
        return self.hidden(set(_split(listed)))

    def _all_commits(self) -> bool:
        """Whether every reference names a commit, through a tag or not."""
        names = "".join(f"{name}^{{}}\n" for name in set(self.source.references().values()))
        said = self._git("cat-file", "--batch-check=%(objecttype)", given=names.encode())
        return set(said.split(b"\n")) <= {b"commit", b""}

    def full(self) -> None:
        """Keep all history. Of hidden files the index has what HEAD has, nothing that was only
        staged; they count as checked out, so that they are no deletions."""
        tracked = self._tracked()
        hidden = set(self.hidden([entry.path for entry in tracked]))
        kept = [entry for entry in tracked if entry.path not in hidden]
        if hidden:
            for path, mode, name in self._committed():
                if path in hidden:
                    kept.append(index.fresh(path, mode, bytes.fromhex(name)).skipped())
        self._write_index(kept)
        self._settle()

    def head(self) -> None:
        """Keep one commit, the visible part of HEAD; none where HEAD has none. The index keeps what
        is visible of it."""
        born = self.born()
        tracked = self._tracked(born=born)
        hidden = set(self.hidden([entry.path for entry in tracked]))
        self._write_index([entry for entry in tracked if entry.path not in hidden])
        head = self.source.head()
        ref = head[5:] if head is not None and head.startswith("ref: ") else "refs/heads/main"
        references = {ref: self._one_commit()} if born else {}
        (self.target / "shallow").unlink(missing_ok=True)
        refer(self.target, references, f"ref: {ref}")
        self._settle()

    def _one_commit(self) -> str:
        """Make a commit of HEAD's tree without the hidden paths; its id.

        By fast-import, which leaves the objects that are there alone: other commands that write
        one set the times of the original's.
        """
        unseen = self.hidden([entry.path for entry in self._committed()])
        tree = self._git("rev-parse", "HEAD^{tree}").strip()
        when = self._git("log", "-1", "--format=%ct", "HEAD").strip()
        message = b"The repository as the sandbox sees it\n"
        author = b"Ringfence <sandbox@ringfence.invalid> %s +0000" % when
        stream = [
            b"feature done\ncommit %s\ncommitter %s\n" % (_COMMIT.encode(), author),
            b'data %d\n%s\nM 040000 %s ""\n' % (len(message), message, tree),
            *(b"D %s\n" % quoted(path) for path in unseen),
            b"\ndone\n",
        ]
        self._git("-c", "fastimport.unpackLimit=0", "fast-import", "--quiet", "--done",
                  given=b"".join(stream))  # fmt: skip
        commit = self._git("rev-parse", _COMMIT).decode().strip()
        self._git("update-ref", "-d", _COMMIT)
        return commit

    def _committed(self, tree: str = "HEAD", prefix: str = "") -> list[_Committed]:
        """The files of a tree, with `prefix` before their paths."""
        found = []
        for line in self._git("ls-tree", "-r", "-z", tree).split(b"\0"):
            facts, _, path = line.partition(b"\t")
            if path:
                mode, _, name = facts.decode().split(" ")
                found.append(_Committed(prefix + os.fsdecode(path), int(mode, 8), name))
        return found

    def _tracked(self, *, born: bool = True) -> list[index.Tracked]:
        """The entries of the source's index; those of HEAD when there is none that can be read."""
        if data := self.source.index():
            try:
                read = index.read(data, self._id_bytes)
            except ValueError:
                read = None
            if read is not None:
                return self._unfolded(read)
            with suppress(ValueError, StateError):
                return self._joined_index(data)
        if not born:
            return []
        (self.target / "index").unlink(missing_ok=True)
        self._git("read-tree", "HEAD")
        return index.read((self.target / "index").read_bytes(), self._id_bytes)

    def _unfolded(self, tracked: list[index.Tracked]) -> list[index.Tracked]:
        """With the files of the directories that a sparse index names in place of them. Git would
        write the trees anew, which sets the times of the original's objects."""
        entries = []
        for entry in tracked:
            if not entry.is_directory:
                entries.append(entry)
                continue
            for path, mode, name in self._committed(entry.name.hex(), entry.path):
                entries.append(index.fresh(path, mode, bytes.fromhex(name)).skipped())
            if len(entries) > _MOST_TRACKED:
                raise StateError(f"the index names over {_MOST_TRACKED} files", op="workspace")
        return entries

    def _joined_index(self, data: bytes) -> list[index.Tracked]:
        """The entries of a split index, which git makes whole."""
        names = self.source.shared_indexes()
        for name in names:
            (self.target / name).write_bytes(self.source.shared_index(name))
        (self.target / "index").write_bytes(data)
        try:
            self._git("update-index", "--no-split-index", "--force-write-index")
        finally:
            for name in names:
                (self.target / name).unlink(missing_ok=True)
        return self._unfolded(index.read((self.target / "index").read_bytes(), self._id_bytes))

    def _write_index(self, entries: Iterable[index.Tracked]) -> None:
        """Let these be tracked; what is absent counts as checked out, and is no deletion."""
        listed = [e.skipped() if e.path in self.absent else e for e in entries]
        listed.sort(key=lambda entry: (os.fsencode(entry.path), entry.flags & index.STAGE))
        (self.target / "index").write_bytes(index.write(listed, self._id_bytes))

    def _settle(self) -> None:
        """Bring in the objects that can be reached, and write a configuration."""
        self._git("repack", "-a", "-d", "-q", "--no-write-bitmap-index")
        give_back(self.target)
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


def _split(data: bytes) -> list[str]:
    return [os.fsdecode(part) for part in data.split(b"\0") if part]


def walk_all(root: Path) -> Iterator[Path]:
    """All files and directories below a directory that we made, itself first."""
    yield root
    for place, directories, files in os.walk(root):
        for name in (*directories, *files):
            yield Path(place) / name
