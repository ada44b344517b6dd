"""The writable layer of a workspace: an overlay, a volume of the daemon's, or a copy."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ringfence.errors import UnsupportedError
from ringfence.workspace import manifest, mounts, shared
from ringfence.workspace.beneath import open_root
from ringfence.workspace.entries import Entry, entry_of
from ringfence.workspace.layers import Layers
from ringfence.workspace.ownership import Ownership, dress, root_entry
from ringfence.workspace.prepared import Binding, Prepared, Strategy
from ringfence.workspace.staging import stage
from ringfence.workspace.stopping import Check, always

DEFAULT_SIZE = 2 << 30


@dataclass(frozen=True, slots=True)
class For:
    """Whom a workspace is for. uid, gid: the commands' user. privileged: we are root on the machine
    where the sandbox runs. volumes: the daemon may mount an overlay itself. strategy: instead of
    the best one. check: whether the workspace is still wanted."""

    uid: int
    gid: int
    privileged: bool
    volumes: bool = False
    strategy: Strategy | None = None
    check: Check = field(default=always, compare=False)


@dataclass(frozen=True, slots=True)
class Owners:
    """Owner in the frozen tree, owner as commands see it, and how copies are written."""

    stored: tuple[int, int]
    seen: tuple[int, int]
    ownership: Ownership
    written: bool = False

    @property
    def maps(self) -> bool:
        """Whether a mount must show another owner than is stored."""
        return self.stored != self.seen and not self.written


def mount(
    prepared: Prepared, layers: tuple[Path, ...], whom: For, size: int | None, owners: Owners
) -> Prepared:
    """Give a workspace that stands on `layers` its writable layer, by the best way there is."""
    prepared.layers = layers
    prepared.owners = (*owners.stored, *owners.seen) if owners.maps else None
    wanted = whom.strategy
    if wanted == "overlay" or (wanted is None and whom.privileged):
        try:
            return _overlay(prepared, size, owners)
        except UnsupportedError:
            if wanted is not None:
                raise
            for place in mounts.mounted_below(prepared.directory):
                mounts.unmount(place)
                place.rmdir()
    if wanted == "volume" or (wanted is None and whom.volumes and not whom.privileged):
        return _volume(prepared, size, owners)
    return _plain(prepared, size, owners, whom)


def _overlay(prepared: Prepared, size: int | None, owners: Owners) -> Prepared:
    trees = [shared.Layer(path).tree for path in prepared.layers]
    if owners.maps:
        uids, gids = zip(owners.stored, owners.seen, strict=True)
        trees[-1] = mounts.mapped(prepared.directory, trees[-1].resolve(), uids, gids)
    prepared.size = size or DEFAULT_SIZE
    writable, _ = mounts.limited(prepared.directory, prepared.size)
    upper, work = writable / "upper", writable / "work"
    upper.mkdir(mode=0o700)
    work.mkdir(mode=0o700)
    _like(upper, trees[0])
    merged = mounts.overlay(prepared.directory, trees, upper, work)
    prepared.strategy, prepared.upper, prepared.merged = "overlay", upper, merged
    prepared.binds = (Binding(str(merged), prepared.mount_point, False),)
    return prepared


def _volume(prepared: Prepared, size: int | None, owners: Owners) -> Prepared:
    if size is not None:
        raise UnsupportedError(
            "a size needs root on the daemon's machine: the daemon mounts no limited layer for a"
            " client",
            op="workspace",
        )
    if owners.maps:
        raise UnsupportedError("only root can map owners", op="workspace")
    trees = [shared.Layer(path).tree for path in prepared.layers]
    upper, work = prepared.directory / "upper", prepared.directory / "work"
    upper.mkdir(mode=0o700)
    work.mkdir(mode=0o700)
    _like(upper, trees[0])
    options = mounts.overlay_options(trees, upper, work, user=True)
    volume = {"type": "overlay", "device": "overlay", "o": options}
    prepared.strategy, prepared.upper = "volume", upper
    prepared.binds = (Binding("", prepared.mount_point, False, volume),)
    return prepared


def _plain(prepared: Prepared, size: int | None, owners: Owners, whom: For) -> Prepared:
    place = prepared.directory
    with Layers([shared.Layer(prepared.layers[0]).tree]) as top:
        entries = list(everything(top))
        if size is not None:
            if not whom.privileged:
                raise UnsupportedError("a size needs root on this machine", op="workspace")
            used = sum(entry.size + 4096 for entry in entries)
            place, _ = mounts.limited(prepared.directory, size + used)
        tree = place / "tree"
        tree.mkdir(mode=0o700)
        target = open_root(tree)
        try:
            ownership = owners.ownership if owners.maps else Ownership()
            staged = stage(
                top.bottom, entries, target, ownership=ownership, links=False, check=whom.check
            ).entries
            dress(target, root_entry(top.bottom), ownership)
        finally:
            os.close(target)
    kept = [entry for entry in staged if entry.path.split("/")[0] != ".git"]
    manifest.write(prepared.directory / "tree.entries", kept)
    prepared.strategy, prepared.upper, prepared.size = "copy", tree, size
    prepared.binds = (Binding(str(tree), prepared.mount_point, False),)
    return prepared


def everything(layers: Layers) -> Iterator[Entry]:
    """The entries of all files, links and directories in a stack."""
    for path, status in layers.walk():
        entry = entry_of(path, status)
        if entry is not None:
            yield entry


def _like(directory: Path, model: Path) -> None:
    """Give our directory the owner, mode and time of `model`: it is the root of what is seen."""
    status = model.stat()
    if os.geteuid() == 0:
        os.chown(directory, status.st_uid, status.st_gid)
    directory.chmod(status.st_mode & 0o777)
    os.utime(directory, ns=(status.st_mtime_ns, status.st_mtime_ns))
