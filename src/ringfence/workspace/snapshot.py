"""A workspace kept for later, named by the digest of all that is in it; and many from one.

A snapshot is a directory `HEX` of the snapshots' place: `tree` (the files, git's directory
included) and `manifest.json`. Its digest is the SHA-256 of the manifest, which names every path
with its kind, its mode and the digest of its content.
"""

import errno
import json
import os
import stat
from dataclasses import dataclass, replace
from pathlib import Path
from secrets import token_hex
from typing import Any

from ringfence.errors import InvalidSpecError, NotFoundError, StateError
from ringfence.workspace import shared
from ringfence.workspace.apply import copy_out
from ringfence.workspace.beneath import (
    DIRECTORY_FLAGS,
    chmod,
    parent_of,
    remove_tree,
)
from ringfence.workspace.changes import digest_of, hashed
from ringfence.workspace.entries import FILE, LINK, entry_of, kind_of
from ringfence.workspace.failures import failed
from ringfence.workspace.layers import Found, Layers, too_long
from ringfence.workspace.prepare import For, Owners, mount
from ringfence.workspace.prepared import Prepared, clean
from ringfence.workspace.staging import Ownership, copy_layer, dress, open_root, root_entry

TREE, MANIFEST = "tree", "manifest.json"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """digest: its name. path: where it is. size: bytes of its files."""

    digest: str
    path: Path
    size: int


def snapshot(prepared: Prepared, place: Path) -> Snapshot:
    """Keep the present state below `place`. The same state gives the same digest, and one copy.

    Nothing should write to the workspace meanwhile: StateError names a file that changed.
    ResourceExhaustedError when the disk is full; then nothing stays. It blocks.
    """
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = place / f".new-{token_hex(8)}"
    (beside / TREE).mkdir(mode=0o700, parents=True)
    root = open_root(beside / TREE)
    try:
        with prepared.now() as now:
            entries = _Keeping(prepared, now, root).run()
        text = json.dumps(_description(entries), sort_keys=True, separators=(",", ":")).encode()
        (beside / MANIFEST).write_bytes(text)
        digest = digest_of(text)
        target = place / digest.partition(":")[2]
        if not target.exists():
            beside.rename(target)
    except OSError as error:
        raise failed(error, place, "keeping a snapshot") from None
    finally:
        os.close(root)
        _remove(beside)
    return Snapshot(digest, target, sum(entry.get("size", 0) for entry in entries.values()))


def find(digest: str, place: Path) -> Snapshot:
    """The snapshot of that digest. NotFoundError; StateError when its manifest is not its own."""
    algorithm, _, name = digest.partition(":")
    if algorithm != "sha256" or len(name) != 64 or not set(name) <= set("0123456789abcdef"):
        raise InvalidSpecError(f"{digest!r} is not the digest of a snapshot", op="snapshot")
    path = place / name
    try:
        text = (path / MANIFEST).read_bytes()
    except FileNotFoundError:
        raise NotFoundError(f"there is no snapshot {digest}", op="snapshot") from None
    if digest_of(text) != digest:
        raise StateError(f"the manifest of snapshot {digest} was changed", op="snapshot")
    entries = json.loads(text)["entries"]
    return Snapshot(digest, path, sum(entry.get("size", 0) for entry in entries.values()))


def verify(found: Snapshot) -> None:
    """Read all of a snapshot: StateError names the first path that is not as its digest says."""
    entries = json.loads((found.path / MANIFEST).read_bytes())["entries"]
    with Layers([found.path / TREE]) as layers:
        seen = dict(layers.walk())
        for path in sorted(entries.keys() | seen.keys()):
            if path not in seen or path not in entries:
                raise StateError(f"{path} does not belong to {found.digest}", op="snapshot")
            there = layers.find(path)
            if there is None or _entry(layers, path, there) != entries[path]:
                raise StateError(f"{path} is not as {found.digest} says", op="snapshot")


def delete(digest: str, place: Path) -> None:
    """Remove a snapshot. Sandboxes that were opened on it go on."""
    _remove(find(digest, place).path)


def _remove(path: Path) -> None:
    parent = os.open(path.parent, DIRECTORY_FLAGS)
    try:
        remove_tree(parent, path.name)
    finally:
        os.close(parent)


def _description(entries: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {"mediaType": "application/vnd.ringfence.snapshot.v1+json", "entries": entries}


def _entry(layers: Layers, path: str, found: Found) -> dict[str, Any]:
    """What the manifest says of one path."""
    status = found.status
    kind = kind_of(status.st_mode)
    if kind == LINK:
        return {"kind": LINK, "digest": digest_of(os.fsencode(layers.target(path, found)))}
    said: dict[str, Any] = {"kind": kind, "mode": status.st_mode & 0o777}
    if kind == FILE:
        said["size"], said["digest"] = hashed(layers.open(path, found), status.st_size)
    return said


class _Keeping:
    """Copies the present state into a directory, with the owners that commands see."""

    def __init__(self, prepared: Prepared, now: Layers, root: int) -> None:
        self.now, self.root = now, root
        self.owners = prepared.owners
        self.bottom = len(prepared.layers)

    def run(self) -> dict[str, dict[str, Any]]:
        entries: dict[str, dict[str, Any]] = {}
        directories: list[tuple[str, os.stat_result]] = []
        path = "."
        try:
            for path, status in self.now.walk():
                found = self.now.find(path)
                if found is None or kind_of(status.st_mode) is None:
                    continue
                if too_long(path):
                    raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
                self._put(path, found)
                if stat.S_ISDIR(status.st_mode):
                    directories.append((path, found.status))
                entries[path] = _entry(self.now, path, found)
            for path, status in reversed(directories):
                with parent_of(self.root, path) as (directory, name):
                    chmod(directory, name, status.st_mode & 0o777)
        except OSError as error:
            raise failed(error, path, "keeping a snapshot") from None
        top = self.now.find("")
        if top is not None:
            like = entry_of("", top.status)
            if like is not None:
                dress(self.root, like, Ownership())
        return entries

    def _put(self, path: str, found: Found) -> None:
        kind = kind_of(found.status.st_mode)
        with parent_of(self.root, path) as (directory, name):
            if stat.S_ISDIR(found.status.st_mode):
                os.mkdir(name, 0o700, dir_fd=directory)
            elif kind == LINK:
                os.symlink(self.now.target(path, found), name, dir_fd=directory)
            else:
                copy_out(self.now.open(path, found), directory, name, None)
                chmod(directory, name, found.status.st_mode & 0o777)
            if os.geteuid() == 0:
                os.chown(name, *self._owner(found), dir_fd=directory, follow_symlinks=False)
            if kind != LINK:
                when = found.status.st_mtime_ns
                os.utime(name, ns=(when, when), dir_fd=directory, follow_symlinks=False)

    def _owner(self, found: Found) -> tuple[int, int]:
        uid, gid = found.status.st_uid, found.status.st_gid
        if self.owners is None or found.layer != self.bottom:
            return uid, gid
        stored_uid, stored_gid, seen_uid, seen_gid = self.owners
        return seen_uid if uid == stored_uid else uid, seen_gid if gid == stored_gid else gid


def fork(prepared: Prepared, directories: list[Path], whom: For) -> list[Prepared]:
    """One workspace per directory (which do not exist yet), each starting from the present state.

    What was written so far is copied once and frozen; all stand on it and on the trees below. The
    parent goes on. Nothing should write to it meanwhile. An error leaves none of them. It blocks.
    """
    made: list[Prepared] = []
    first = directories[0]
    try:
        first.mkdir(mode=0o711, parents=True)
        frozen = shared.create(first)
        _freeze(prepared, frozen)
        for directory in directories:
            directory.mkdir(mode=0o711, parents=True, exist_ok=directory == first)
            made.append(_child(prepared, frozen, directory, whom))
    except BaseException:
        for directory in directories:
            clean(directory)
        raise
    return made


def _child(parent: Prepared, frozen: shared.Layer, directory: Path, whom: For) -> Prepared:
    for path in (frozen.path, *parent.layers):
        shared.use(shared.Layer(path), directory)
    child = Prepared(
        directory=directory,
        strategy=parent.strategy,
        mode=parent.mode,
        mount_point=parent.mount_point,
        binds=(),
        env=parent.env,
        original=parent.original,
        warnings=parent.warnings,
    )
    owners = parent.owners or (0, 0, 0, 0)
    stored, seen = (owners[0], owners[1]), (owners[2], owners[3])
    whom = replace(whom, strategy=parent.strategy)
    layers = (frozen.path, *parent.layers)
    child = mount(child, layers, whom, parent.size, Owners(stored, seen, Ownership()))
    child.save()
    return child


def _freeze(prepared: Prepared, frozen: shared.Layer) -> None:
    """Copy the writable layer, with its whiteouts, or in mode copy the whole tree."""
    if prepared.upper is None:
        raise StateError("this workspace has no state of its own to fork", op="fork")
    source, target = open_root(prepared.upper), open_root(frozen.tree)
    try:
        copy_layer(source, target, prepared.opaque)
        dress(target, root_entry(source), Ownership())
    except OSError as error:
        raise failed(error, prepared.upper, "forking the workspace") from None
    finally:
        os.close(source)
        os.close(target)
