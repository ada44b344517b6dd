"""A workspace in mode copy: a frozen layer of the chosen files, and a writable one on it."""

import os
from contextlib import ExitStack
from pathlib import Path

from ringfence.workspace import commits, manifest, shared, sources
from ringfence.workspace.beneath import open_root
from ringfence.workspace.entries import FILE
from ringfence.workspace.layers import Layers
from ringfence.workspace.linking import Linking
from ringfence.workspace.making import Making
from ringfence.workspace.ownership import Ownership, dress, root_entry
from ringfence.workspace.plan import begin_history
from ringfence.workspace.prepared import Prepared
from ringfence.workspace.relinking import keep_right
from ringfence.workspace.staging import stage
from ringfence.workspace.writable import Owners, everything, mount

_BOOT = Path("/proc/sys/kernel/random/boot_id")
"""A layer counts until the next start of the machine: nothing waited for the disk to have it."""


class Early:
    """A layer whose files are linked while the repository is walked."""

    def __init__(self, source: sources.Source, directory: Path, until: ExitStack) -> None:
        self.layer = shared.create(directory)
        root, target = source.open(), open_root(self.layer.tree)
        until.callback(os.close, root)
        until.callback(os.close, target)
        self.linking = Linking(root, target)
        until.callback(self.linking.close)


def copied(making: Making, early: Early | None) -> Prepared:
    """Make it of a repository's files. early: what of them is on its way."""
    return _mounted(making, _Farm(making, early).made(), keeps_modes=not making.masks_modes)


def restored(making: Making) -> Prepared:
    """Make it of a snapshot's files, which have the owners that commands see."""
    layer = shared.create(making.directory)
    with Layers([making.found.source.root]) as kept:
        target = open_root(layer.tree)
        try:
            staged = stage(
                kept.bottom, list(everything(kept)), target, check=making.whom.check
            ).entries
            dress(target, root_entry(kept.bottom), Ownership())
        finally:
            os.close(target)
    outside = [entry for entry in staged if entry.path.split("/")[0] != ".git"]
    manifest.write(layer.entries, outside)
    return _mounted(making, layer, keeps_modes=False)


def _mounted(making: Making, layer: shared.Layer, *, keeps_modes: bool) -> Prepared:
    owners = Owners(making.stored, making.seen, making.ownership(), making.masks_modes)
    prepared = making.prepared("copy")
    prepared.keeps_modes = keeps_modes
    return mount(prepared, (layer.path,), making.whom, making.repository.size, owners)


class _Farm:
    """The selected files and the repository made for them as a frozen layer."""

    def __init__(self, making: Making, early: Early | None) -> None:
        self.making, self.early = making, early
        self.found = making.found

    def made(self) -> shared.Layer:
        """The one that was kept when nothing differs, else staged anew."""
        ownership = self.making.ownership() if self.making.masks_modes else Ownership()
        root = self.found.source.open()
        try:
            if not self._keeps(ownership):
                return self._staged(root, ownership)[0]
            before = self._around(root)
            stamp = manifest.stamp(self.found.selection.digest, before)
            if (kept := shared.take(self.making.directory, stamp)) is not None:
                return kept
            layer, linked = self._staged(root, ownership, self.found.selection.packed)
            if not linked or self._around(root) != before or self._moved():
                return layer
            if self.found.builder and self.found.state and self.found.builder.paths is not None:
                commits.write(layer.path, self.found.state.commits, self.found.builder.paths)
            return shared.keep(layer, stamp, self.found.source.root)
        finally:
            os.close(root)

    def _staged(
        self, root: int, ownership: Ownership, packed: bytes | None = None
    ) -> tuple[shared.Layer, bool]:
        """A new layer, and whether every file in it is a link. packed: the record of the entries
        that stands for files that are links."""
        entries, check = self.found.selection.entries, self.making.whom.check
        old = None
        if packed is not None and self.early is None:
            old = shared.renew(self.making.directory, self.found.source.root)
        layer = old or (self.early.layer if self.early else shared.create(self.making.directory))
        target = open_root(layer.tree)
        try:
            begin_history(self.found)
            begun = self.early.linking.finish(check) if self.early else {}
            if old is not None:
                begun = keep_right(target, entries)
            staged = stage(root, entries, target, ownership=ownership, begun=begun, check=check)
            self.making.build_history(layer.tree / ".git", ownership.owner or self.making.stored)
            dress(target, root_entry(root), ownership)
        finally:
            os.close(target)
        if packed is not None and staged.linked:
            others = [entry for entry in staged.entries if entry.kind != FILE]
            manifest.write(layer.entries, others, packed)
        else:
            manifest.write(layer.entries, staged.entries)
        return layer, staged.linked

    def _keeps(self, ownership: Ownership) -> bool:
        """Whether the layer may be kept: not that of a clone, which goes with its workspace, nor
        one with copies, which do not follow their originals."""
        if self.found.source.cloned or not ownership.keeps:
            return False
        return not self.found.selection.set_ids

    def _moved(self) -> bool:
        """Whether the repository was another when it was looked at."""
        return self.found.repository is not None and (
            self.found.repository.state() != self.found.state
        )

    def _around(self, root: int) -> list[object]:
        """What decides, besides the entries, how the layer comes out."""
        found, spec, status = self.found, self.making.repository, os.fstat(root)
        facts: list[object] = [str(found.source.root), self.making.stored, _BOOT.read_text()]
        facts += [self.making.whom.privileged]
        facts += [status.st_dev, status.st_ino, status.st_mode, status.st_mtime_ns]
        if found.repository is not None:
            facts += [found.history, found.state, sorted(found.hidden)]
            facts += [spec.include, spec.exclude, spec.secrets_excluded, spec.subpath]
        return facts
