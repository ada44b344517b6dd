"""Putting a workspace back to its start, through the view that the sandbox has."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from ringfence.errors import StateError
from ringfence.workspace import applied, manifest
from ringfence.workspace.application import alone, settle
from ringfence.workspace.apply import copy_out
from ringfence.workspace.beneath import (
    chmod,
    lstat,
    open_root,
    parent_of,
    remove_tree,
)
from ringfence.workspace.changes import Changes
from ringfence.workspace.entries import FILE, entry_of, kind_of
from ringfence.workspace.failures import failed
from ringfence.workspace.layers import Found, Layers
from ringfence.workspace.prepared import Prepared


def discard(prepared: Prepared) -> Changes:
    """Undo everything that was done since the workspace was opened, in git's directory too; the
    changes that are gone.

    No command should run meanwhile. StateError where only the daemon can write to it, when an
    original was edited in place, and while somebody applies it. It blocks.
    """
    prepared.check_kept()
    with alone(prepared.directory):
        settle(prepared.directory)
        return _discarded(prepared)


def _discarded(prepared: Prepared) -> Changes:
    changes = prepared.changes(since="parent")
    place = prepared.merged or (prepared.upper if prepared.strategy == "copy" else None)
    if place is None:
        raise StateError(
            "this workspace cannot be reset from here: open a new sandbox", op="workspace.discard"
        )
    with prepared.base("parent") as base, prepared.now() as now:
        paths = sorted(set(_touched(prepared, base, now)))
        target = open_root(place)
        try:
            _Reset(prepared, base, target).run(paths)
        finally:
            os.close(target)
    applied.forget(prepared.directory)
    if prepared.strategy == "copy":
        _record(prepared, place, paths)
    return changes


def _touched(prepared: Prepared, base: Layers, now: Layers) -> Iterator[str]:
    yield from prepared.candidates(now, "parent")
    if prepared.strategy == "copy":
        for layers in (base, now):
            if layers.find(".git") is not None:
                yield ".git"
                yield from (path for path, _ in layers.walk(".git"))


class _Reset:
    def __init__(self, prepared: Prepared, base: Layers, target: int) -> None:
        self.base, self.target = base, target
        self.owners, self.mounted = prepared.owners, prepared.mounted
        self.bottom = len(prepared.layers) - 1

    def run(self, paths: list[str]) -> None:
        path = "."
        try:
            for path in reversed(paths):
                self._remove(path)
            for path in paths:
                found = self.base.find(path)
                if found is not None:
                    self._restore(path, found)
        except OSError as error:
            raise failed(error, path, "resetting the workspace") from None

    def _remove(self, path: str) -> None:
        status, found = lstat(self.target, path), self.base.find(path)
        if status is None:
            return
        if stat.S_ISDIR(status.st_mode):
            stays = found is not None and stat.S_ISDIR(found.status.st_mode)
            if stays or any(place.startswith(f"{path}/") for place in self.mounted):
                return
        with parent_of(self.target, path) as (directory, name):
            remove_tree(directory, name)

    def _restore(self, path: str, found: Found) -> None:
        kind = kind_of(found.status.st_mode)
        mode = found.status.st_mode & 0o777
        with parent_of(self.target, path) as (directory, name):
            if kind is None:
                return
            if stat.S_ISDIR(found.status.st_mode):
                if lstat(directory, name) is None:
                    os.mkdir(name, 0o700, dir_fd=directory)
            elif kind == FILE:
                copy_out(self.base.open(path, found), directory, name, None)
            else:
                os.symlink(self.base.target(path, found), name, dir_fd=directory)
            if os.geteuid() == 0:
                os.chown(name, *self._owner(found), dir_fd=directory, follow_symlinks=False)
            if not stat.S_ISLNK(found.status.st_mode):
                chmod(directory, name, mode)
                when = found.status.st_mtime_ns
                os.utime(name, ns=(when, when), dir_fd=directory, follow_symlinks=False)

    def _owner(self, found: Found) -> tuple[int, int]:
        uid, gid = found.status.st_uid, found.status.st_gid
        if self.owners is None or found.layer != self.bottom:
            return uid, gid
        stored_uid, stored_gid, seen_uid, seen_gid = self.owners
        return (
            seen_uid if uid == stored_uid else uid,
            seen_gid if gid == stored_gid else gid,
        )


def _record(prepared: Prepared, place: Path, paths: list[str]) -> None:
    """Keep the record of a copied tree true."""
    record = prepared.directory / "tree.entries"
    entries = manifest.read(record)
    root = open_root(place)
    try:
        for path in paths:
            status = None if path.split("/")[0] == ".git" else lstat(root, path)
            entry = None if status is None else entry_of(path, status)
            if entry is None:
                entries.pop(path, None)
            else:
                entries[path] = entry
    finally:
        os.close(root)
    manifest.write(record, entries.values())
