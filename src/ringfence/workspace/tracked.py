"""What the repository of a sandbox tracks: what the original's index, or HEAD, names."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ringfence.errors import StateError
from ringfence.workspace import index
from ringfence.workspace.gitdir import GitDirectory

_MOST_TRACKED = 2_000_000


class Committed(NamedTuple):
    """One file of a commit. name: the object's id, in hex."""

    path: str
    mode: int
    name: str


class Tracking:
    """The index of a repository of ours at `target`, made from that of `source`. `look` is first,
    before objects are lent: what is staged later names others. git: runs git in `target`."""

    def __init__(self, source: GitDirectory, target: Path, git: Callable[..., bytes]) -> None:
        self.source, self.target, self._git = source, target, git
        self._id_bytes = 32 if source.sha256 else 20
        self._data = b""

    def look(self) -> None:
        """Take the source's index as it is now."""
        self._data = self.source.index()

    def read(self, *, born: bool = True) -> index.Index:
        """The source's index; HEAD's files when there is none that can be read."""
        if self._data:
            try:
                read = index.read(self._data, self._id_bytes)
            except ValueError:
                read = None
            if read is not None:
                return self._unfolded(read)
            with suppress(ValueError, StateError):
                return self._joined(self._data)
        if not born:
            return index.Index(self._id_bytes)
        (self.target / "index").unlink(missing_ok=True)
        self._git("read-tree", "HEAD")
        try:
            return index.read((self.target / "index").read_bytes(), self._id_bytes)
        except ValueError as error:
            raise StateError(f"HEAD cannot be checked out: {error}", op="workspace") from None

    def write(self, tracked: index.Index, absent: Iterable[str]) -> None:
        """Let these be tracked; what is absent counts as checked out, and is no deletion."""
        tracked.skip(set(absent))
        (self.target / "index").write_bytes(index.write(tracked))

    def committed(self, tree: str = "HEAD", prefix: str = "") -> Iterator[Committed]:
        """The files of a tree, with `prefix` before their paths."""
        for line in self._git("ls-tree", "-r", "-z", tree).split(b"\0"):
            facts, _, path = line.partition(b"\t")
            if path:
                mode, _, name = facts.decode().split(" ")
                yield Committed(prefix + os.fsdecode(path), int(mode, 8), name)

    def _unfolded(self, tracked: index.Index) -> index.Index:
        """With the files of the directories that a sparse index names in place of them. Git would
        write the trees anew, which sets the times of the original's objects."""
        directories = tracked.directories()
        tracked.drop({path for path, _ in directories})
        for directory, tree in directories:
            for path, mode, name in self.committed(tree, directory):
                tracked.add(path, mode, name)
            if len(tracked.paths) > _MOST_TRACKED:
                raise StateError(f"the index names over {_MOST_TRACKED} files", op="workspace")
        return tracked

    def _joined(self, data: bytes) -> index.Index:
        """A split index, which git makes whole."""
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
