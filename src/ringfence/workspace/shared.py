"""Frozen trees that several workspaces stand on: each lives while one of them uses it.

A layer is a directory `TOKEN` of the store: `tree` (the files), `entries` (their record) and
`users` (one empty file per workspace). The last one to let go removes it.
"""

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ringfence.workspace.mounts import clear

STORE = ".layers"


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


def release(directory: Path) -> None:
    """Let go of every layer that the workspace `directory` uses; remove those nobody uses."""
    store = store_of(directory)
    if not store.is_dir():
        return
    with _locked(store):
        for path in store.iterdir():
            user = path / "users" / directory.name
            if not user.exists():
                continue
            user.unlink()
            if not any((path / "users").iterdir()):
                clear(path)


@contextmanager
def _locked(store: Path) -> Iterator[None]:
    lock = os.open(store, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
