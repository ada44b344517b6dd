"""The repository that a sandbox gets: git's history, made anew, without what is hidden.

The host's own `.git` never goes in: its configuration may hold credentials, its hooks are
programs, its object store holds what nobody can reach any more. Its references and its index are
read as files, and its objects are lent to the new one until it has its own of what can be reached.
"""

import os
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Literal

from ringfence.errors import DeadlineExceededError, StateError
from ringfence.workspace.gitdir import Commits, GitDirectory
from ringfence.workspace.isolated import Running, git
from ringfence.workspace.mirror import give_back, mirror, refer, remove
from ringfence.workspace.patch import quoted
from ringfence.workspace.tracked import Tracking

History = Literal["head", "full"]
_WALK_SECONDS = 60.0
_SECONDS = 300.0
_COMMIT = "refs/ringfence/head"


class Builder:
    """Makes the repository of one sandbox in `place`, a directory that does not exist yet.

    First `begin`, which starts to look at what was committed; then `see`, and what needs to know
    what is hidden; `make` starts to make it, and `finish` puts it where it belongs.
    `close` ends what goes on, and removes what was not finished. It blocks, and its errors are
    those of `mirror` and `isolated.git`. commits: of the source; what is committed later does not
    go in, since nobody looked whether it may.
    """

    def __init__(self, source: GitDirectory, place: Path, commits: Commits) -> None:
        self.source, self.place, self.commits = source, place, commits
        self.target = place / ".git"
        self._env = {"GIT_DIR": str(self.target), "GIT_WORK_TREE": str(place)}
        self._tracking = Tracking(source, self.target, self._git)
        self._hidden: Callable[[Iterable[str]], list[str]] = list
        self._absent: Collection[str] = ()
        self.paths: Collection[str] | None = None
        """Of all files in a commit that can be reached, when that was found out."""
        self._kinds: list[bytes] = []
        self._listing: Running | None = None
        self._packing: Running | None = None

    def begin(self, paths: Collection[str] | None = None) -> None:
        """Make an empty repository that sees the source's objects and references, and list the
        paths of all commits meanwhile. paths: these, where they are known: then it is made when it
        is needed."""
        self.paths = paths
        if paths is not None:
            self._kinds = [b"commit"]
            return
        self._mirror()
        if set(self._kinds) == {b"commit"} and not self.source.partial:
            self._listing = self._start(
                "log", "--all", "HEAD", "--format=", "--name-only", "-z", "--no-renames", "-c",
                "--root", "--no-mailmap", "--", seconds=_WALK_SECONDS,
            )  # fmt: skip

    def _mirror(self) -> None:
        self.place.mkdir(mode=0o700)
        self._tracking.look()
        mirror(self.source, self.target, self.commits)
        ids = {name for _, name in self.commits.references}
        names = ("HEAD^{commit}", *(f"{name}^{{}}" for name in ids))
        asked = "".join(f"{name}\n" for name in names).encode()
        said = self._git("cat-file", "--batch-check=%(objecttype)", given=asked)
        self._kinds = said.splitlines()

    def see(
        self, hidden: Callable[[Iterable[str]], list[str]], absent: Collection[str] = ()
    ) -> None:
        """Take what is chosen. hidden: says which of the paths given are not visible. absent:
        further paths that do not go in, without being secret."""
        self._hidden, self._absent = hidden, absent

    def born(self) -> bool:
        """Whether HEAD names a commit that is there."""
        return self._kinds[:1] == [b"commit"]

    def unborn(self) -> bool:
        """Whether HEAD is a branch that has no commit yet, in place of one that is missing."""
        head = self.commits.head
        return (
            head is not None
            and head.startswith("ref: ")
            and head[5:] not in dict(self.commits.references)
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
        if self.paths is None:
            if self._listing is None:
                return [""]
            try:
                listed = self._listing.finish()
            except DeadlineExceededError:
                return [""]
            self.paths = {path for path in os.fsdecode(listed).split("\0") if path}
        return self._hidden(self.paths)

    def make(self, history: History) -> None:
        """Start to make the repository, once."""
        if self._packing is None:
            if not self.place.exists():
                self._mirror()
            (self._full if history == "full" else self._head)()
            self._pack()

    def _full(self) -> None:
        """Keep all history. Of hidden files the index has what HEAD has, nothing that was only
        staged; they count as checked out, so that they are no deletions."""
        tracked = self._tracking.read()
        hidden = set(self._hidden(tracked.paths))
        tracked.drop(hidden)
        if hidden:
            for path, mode, name in self._tracking.committed():
                if path in hidden:
                    tracked.add(path, mode, name)
        self._tracking.write(tracked, self._absent)

    def _head(self) -> None:
        """Keep one commit, the visible part of HEAD; none where HEAD has none. The index keeps what
        is visible of it."""
        born = self.born()
        tracked = self._tracking.read(born=born)
        tracked.drop(set(self._hidden(tracked.paths)))
        self._tracking.write(tracked, self._absent)
        head = self.commits.head
        ref = head[5:] if head is not None and head.startswith("ref: ") else "refs/heads/main"
        references = {ref: self._one_commit()} if born else {}
        (self.target / "shallow").unlink(missing_ok=True)
        refer(self.target, references, f"ref: {ref}")

    def _one_commit(self) -> str:
        """Make a commit of HEAD's tree without the hidden paths; its id.

        By fast-import, which leaves the objects that are there alone: other commands that write
        one set the times of the original's.
        """
        unseen = self._hidden([entry.path for entry in self._tracking.committed()])
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

    def _pack(self) -> None:
        """Bring in the objects that can be reached. No deltas are looked for: those that the source
        has are kept, and others are not worth the time. What is loose is compressed as it was."""
        self._packing = self._start(
            "pack-objects", "--quiet", "--all", "--indexed-objects", "--non-empty",
            "--delta-base-offset", "--window=0", "--compression=1",
            self.target / "objects/pack/pack",
        )  # fmt: skip

    def finish(self, target: Path) -> None:
        """Put what `make` began at `target`, a path called .git on the same disk."""
        packs = self.target / "objects/pack"
        if self._packing is None:
            raise StateError("no history was made", op="workspace")
        made = f"pack-{self._packing.finish().decode().strip()}."
        for path in packs.iterdir():
            if not path.name.startswith(made):
                path.unlink()
        give_back(self.target)
        self.target.rename(target)

    def close(self) -> None:
        """End what goes on, and remove what was not finished."""
        for running in (self._listing, self._packing):
            if running is not None:
                running.close()
        if self.place.exists():
            remove(self.place)

    def _git(self, *args: str, given: bytes = b"", seconds: float = _SECONDS) -> bytes:
        return git(args, directory=self.place, env=self._env, given=given, seconds=seconds)

    def _start(self, *args: str | os.PathLike[str], seconds: float = _SECONDS) -> Running:
        return Running(args, directory=self.place, env=self._env, seconds=seconds)


def settings(identity_env: dict[str, str]) -> dict[str, str]:
    """Git settings as the variables GIT_CONFIG_COUNT, GIT_CONFIG_KEY_n and GIT_CONFIG_VALUE_n."""
    env = {"GIT_CONFIG_COUNT": str(len(identity_env))}
    for number, (key, value) in enumerate(identity_env.items()):
        env[f"GIT_CONFIG_KEY_{number}"] = key
        env[f"GIT_CONFIG_VALUE_{number}"] = value
    return env


def walk_all(root: Path) -> Iterator[Path]:
    """All files and directories below a directory that we made, itself first."""
    yield root
    for place, directories, files in os.walk(root):
        for name in (*directories, *files):
            yield Path(place) / name
