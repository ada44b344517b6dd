"""Frozen trees that several workspaces stand on: each lives while one of them uses it.

A layer is a directory `TOKEN` of the store: `tree` (the files), `entries` (their record) and
`users` (one empty file per workspace). The last one to let go removes it, unless it is kept for the
next workspace of the same repository: then it is named by a digest of all that was chosen, and
`origin` links to the repository. One is kept for each repository, `_KEPT` in all, for a day.
Without `origin` nobody takes it: the link comes last, and goes first when the layer is removed.
"""

import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ringfence.workspace import walks
from ringfence.workspace.mounts import clear

STORE = ".layers"
_KEPT = 4
_KEPT_SECONDS = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Layer:
    """One frozen tree."""

    path: Path

    @property
    def tree(self) -> Path:
        """Its files."""
        return self.path / "tree"

    @property
    def entries(self) -> Path:
        """The record of its files; missing for a layer that holds changes."""
        return self.path / "entries"


def store_of(directory: Path) -> Path:
    """The store beside the workspace `directory`."""
    return directory.parent / STORE


def create(directory: Path) -> Layer:
    """A new, empty layer, used by the workspace `directory`."""
    store = store_of(directory)
    store.mkdir(mode=0o700, exist_ok=True)
    with _locked(store):
        path = store / secrets.token_hex(8)
        (path / "users").mkdir(mode=0o700, parents=True)
        (path / "users" / directory.name).touch(exist_ok=False)
        (path / "tree").mkdir(mode=0o700)
    return Layer(path)


def use(layer: Layer, directory: Path) -> None:
    """Let the workspace `directory` use a layer too."""
    with _locked(store_of(directory)):
        (layer.path / "users" / directory.name).touch()


def keep(layer: Layer, stamp: str, origin: Path) -> Layer:
    """Keep a finished layer for `take`; where it is from now on.

    origin: the repository. When another one was kept under that stamp meanwhile, it stays as it is.
    """
    with _locked(layer.path.parent):
        target = layer.path.with_name(stamp)
        if target.exists():
            return layer
        (layer.path / "origin").symlink_to(origin)
        layer.path.rename(target)
    return Layer(target)


def take(directory: Path, stamp: str) -> Layer | None:
    """The layer that was kept under that stamp, used by the workspace `directory` from now on."""
    layer = Layer(store_of(directory) / stamp)
    if _origin(layer.path) is None:
        return None
    with _locked(store_of(directory)):
        if _origin(layer.path) is None:
            return None
        (layer.path / "users" / directory.name).touch(exist_ok=False)
        os.utime(layer.path)
    return layer


def renew(directory: Path, origin: Path) -> Layer | None:
    """A layer of that repository which was kept and nobody uses, for the workspace `directory` to
    make what it needs of it; it is not kept any more."""
    store = store_of(directory)
    if not store.is_dir():
        return None
    with _locked(store):
        for path in store.iterdir():
            if _origin(path) == origin and not _is_used(path):
                (path / "origin").unlink()
                (path / "users" / directory.name).touch(exist_ok=False)
                return Layer(path.rename(path.with_name(secrets.token_hex(8))))
    return None


def keeps(directory: Path, origin: Path) -> bool:
    """Whether a layer of that repository is kept in the store beside the workspace `directory`."""
    return bool(kept(directory, origin))


def kept(directory: Path, origin: Path) -> list[Layer]:
    """The layers of that repository which are kept there."""
    store = store_of(directory)
    if not store.is_dir():
        return []
    return [Layer(path) for path in store.iterdir() if _origin(path) == origin]


def release(directory: Path) -> None:
    """Let go of every layer that the workspace `directory` uses; remove those nobody uses, and
    walks that are not kept any more."""
    walks.expire(walks.store_of(directory))
    store = store_of(directory)
    if not store.is_dir():
        return
    with _locked(store):
        unused = []
        for path in store.iterdir():
            (path / "users" / directory.name).unlink(missing_ok=True)
            if not _is_used(path):
                unused.append(path)
        for path in _superfluous(unused):
            (path / "origin").unlink(missing_ok=True)
            clear(path)


def uses(directory: Path) -> bool:
    """Whether the workspace `directory` has not let go of every layer, as far as can be seen."""
    try:
        layers = list(store_of(directory).iterdir())
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return any((path / "users" / directory.name).exists() for path in layers)


def _superfluous(unused: list[Path]) -> Iterator[Path]:
    """Those that are not kept any more."""
    seen: set[Path] = set()
    oldest = time.time() - _KEPT_SECONDS
    for path in sorted(unused, key=lambda path: path.stat().st_mtime, reverse=True):
        origin = _origin(path)
        if (
            origin is None
            or origin in seen
            or len(seen) == _KEPT
            or path.stat().st_mtime < oldest
            or not _is_there(origin)
        ):
            yield path
        else:
            seen.add(origin)


def _origin(path: Path) -> Path | None:
    """The repository of a layer that is kept."""
    try:
        return (path / "origin").readlink()
    except FileNotFoundError:
        return None


def _is_used(path: Path) -> bool:
    try:
        return any((path / "users").iterdir())
    except FileNotFoundError:  # it was neither made nor removed to the end
        return False


def _is_there(origin: Path) -> bool:
    try:
        return origin.is_dir()
    except OSError:
        return False


@contextmanager
def _locked(store: Path) -> Iterator[None]:
    lock = os.open(store, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
