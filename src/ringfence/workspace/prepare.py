"""From a repository of a spec to a workspace: choose, stage, mount."""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from ringfence.errors import (
    InvalidSpecError,
    PolicyDeniedError,
    ResourceExhaustedError,
    UnsupportedError,
)
from ringfence.spec import Repository
from ringfence.workspace import history, linking, manifest, mounts, shared, sources
from ringfence.workspace.clone import is_url
from ringfence.workspace.entries import FILE, Entry
from ringfence.workspace.failures import shown
from ringfence.workspace.layers import Layers
from ringfence.workspace.linking import Linking
from ringfence.workspace.ownership import Ownership, dress, root_entry
from ringfence.workspace.plan import Plan, build_history, look
from ringfence.workspace.prepared import Binding, Prepared, Strategy, clean
from ringfence.workspace.relinking import keep_right
from ringfence.workspace.select import Rules, Selection
from ringfence.workspace.staging import open_root, stage
from ringfence.workspace.stopping import Check, always
from ringfence.workspace.writable import For, Owners, everything, mount

_MASKS = 256


def prepare(
    repository: Repository,
    *,
    directory: Path,
    uid: int,
    gid: int,
    privileged: bool,
    volumes: bool = False,
    strategy: Strategy | None = None,
    forbidden: tuple[Path, ...] = (),
    start: Path | None = None,
    check: Check = always,
) -> Prepared:
    """Make the workspace of one sandbox in `directory`, which must not exist yet.

    Arguments are those of `For`. forbidden: directories that no repository may be in (the daemon's
    data). start: the tree of a snapshot, to start from instead of the repository's files. An error
    leaves nothing: NotFoundError, InvalidSpecError, PolicyDeniedError, StateError (it changes
    meanwhile), ResourceExhaustedError (full), UnsupportedError (asked for, but not possible here);
    it names the path. It blocks: run it in a thread. check: what it raises ends the work between
    two directories or files, and leaves nothing either.
    """
    whom = For(uid, gid, privileged, volumes, strategy, check)
    try:
        directory.mkdir(mode=0o711, parents=True)
        with ExitStack() as until_made:
            found, early = _found(repository, directory, forbidden, start, until_made, check=check)
            work = _Work(repository, found, directory, whom, early)
            if start is not None and repository.mode != "copy":
                raise InvalidSpecError("a snapshot is opened in mode copy only", op="workspace")
            prepared = work.copied(start) if repository.mode == "copy" else work.bound()
            prepared.save()
    except OSError as error:
        clean(directory)
        raise ResourceExhaustedError(
            f"the workspace cannot be made in {directory}: {error.strerror or error}",
            op="workspace",
        ) from None
    except BaseException:
        clean(directory)
        raise
    return prepared


class _Early:
    """A layer whose files are linked while the repository is walked."""

    def __init__(self, source: sources.Source, directory: Path, until: ExitStack) -> None:
        self.layer = shared.create(directory)
        root, target = source.open(), open_root(self.layer.tree)
        until.callback(os.close, root)
        until.callback(os.close, target)
        self.linking = Linking(root, target)
        until.callback(self.linking.close)


def _found(
    repository: Repository,
    directory: Path,
    forbidden: tuple[Path, ...],
    start: Path | None,
    until: ExitStack,
    *,
    check: Check,
) -> tuple[Plan, _Early | None]:
    """What goes in, and what of it is on its way. Of a snapshot everything does, and the host's git
    does not look at it."""
    if start is not None:
        original = None
        if not is_url(repository.path) and Path(repository.path) != start:
            original = sources.check_root(repository.path, forbidden=forbidden)
        return Plan(sources.Source(start, original), Selection()), None
    source = sources.find(repository, directory, forbidden=forbidden)
    _check_apart(source.root, directory, source.cloned)
    if not _pays(repository, source, directory):
        return look(repository, source, directory, lambda *_: check()), None
    early = _Early(source, directory, until)

    def visit(path: str, entries: Sequence[Entry]) -> None:
        check()
        early.linking.add(path, entries)

    return look(repository, source, directory, visit), early


def _pays(repository: Repository, source: sources.Source, directory: Path) -> bool:
    """Whether to link files before all is chosen: when all that is seen goes in, as a link, and no
    earlier layer may do instead."""
    return (
        repository.mode == "copy"
        and repository.file_mode is None
        and repository.directory_mode is None
        and not Rules(repository).narrows
        and source.root.stat().st_dev == directory.stat().st_dev
        and not shared.keeps(directory, source.root)
        and linking.is_possible()
    )


def environment(repository: Repository) -> dict[str, str]:
    """Git's settings for the commands inside, as variables."""
    identity = repository.git
    return history.settings(
        {
            "user.name": identity.user_name,
            "user.email": identity.user_email,
            "init.defaultBranch": identity.default_branch,
            "safe.directory": repository.mount_point,
            "core.trustctime": "false",
            "core.checkStat": "minimal",
            "gc.auto": "0",
            **identity.config,
        }
    )


def _check_apart(root: Path, directory: Path, cloned: bool) -> None:
    if not cloned and (root in directory.resolve().parents or directory in root.parents):
        raise PolicyDeniedError(
            f"{root} and the state directory {directory} lie in each other", op="workspace"
        )


class _Work:
    def __init__(
        self,
        repository: Repository,
        found: Plan,
        directory: Path,
        whom: For,
        early: _Early | None = None,
    ) -> None:
        self.repository, self.found, self.directory, self.whom = repository, found, directory, whom
        self.early = early
        status = found.source.root.stat()
        self.stored = status.st_uid, status.st_gid
        self.seen = self._wanted_owner()

    def _wanted_owner(self) -> tuple[int, int]:
        asked = self.repository.owner
        if asked is None:
            return (self.whom.uid, self.whom.gid) if self.whom.privileged else self.stored
        if not self.whom.privileged and int(asked.split(":")[0]) != os.geteuid():
            raise UnsupportedError("only root can map owners", op="workspace")
        uid, _, gid = asked.partition(":")
        return int(uid), int(gid or uid)

    @property
    def maps(self) -> bool:
        """Whether files must appear with another owner than they have."""
        return self.seen != self.stored and self.whom.privileged

    @property
    def masks_modes(self) -> bool:
        return self.repository.file_mode is not None or self.repository.directory_mode is not None

    def ownership(self) -> Ownership:
        """How a copy is written."""
        return Ownership(
            owner=self.seen if self.maps else None,
            was=self.stored[0] if self.maps else None,
            file_mode=self.repository.file_mode,
            directory_mode=self.repository.directory_mode,
        )

    def prepared(self, strategy: Strategy, binds: list[Binding]) -> Prepared:
        return Prepared(
            directory=self.directory,
            strategy=strategy,
            mode=self.repository.mode,
            mount_point=self.repository.mount_point,
            binds=tuple(binds),
            env=environment(self.repository),
            original=None if self.found.source.cloned else self.found.source.original,
            warnings=tuple(self.found.warnings),
        )

    # --- copy ---

    def copied(self, start: Path | None) -> Prepared:
        layer = self.farm() if start is None else self.restored(start)
        owners = Owners(self.stored, self.seen, self.ownership(), self.masks_modes)
        prepared = self.prepared("copy", [])
        return mount(prepared, (layer.path,), self.whom, self.repository.size, owners)

    def farm(self) -> shared.Layer:
        """The selected files and the repository made for them as a frozen layer: the one that was
        kept when nothing differs, else staged anew."""
        ownership = self.ownership() if self.masks_modes else Ownership()
        root = self.found.source.open()
        try:
            if not self._keeps(ownership):
                return self._staged(root, ownership)[0]
            before = self._around(root)
            packed = manifest.pack(self.found.selection.entries)
            stamp = manifest.stamp(packed, before)
            if (kept := shared.take(self.directory, stamp)) is not None:
                return kept
            layer, linked = self._staged(root, ownership, packed)
            if not linked or self._around(root) != before:
                return layer
            return shared.keep(layer, stamp, self.found.source.root)
        finally:
            os.close(root)

    def _staged(
        self, root: int, ownership: Ownership, packed: bytes | None = None
    ) -> tuple[shared.Layer, bool]:
        """A new layer, and whether every file in it is a link. packed: the record of the entries
        that stands for files that are links."""
        entries = self.found.selection.entries
        old = None
        if packed is not None and self.early is None:
            old = shared.renew(self.directory, self.found.source.root)
        layer = old or (self.early.layer if self.early else shared.create(self.directory))
        target = open_root(layer.tree)
        try:
            begun = self.early.linking.finish(self.whom.check) if self.early else {}
            if old is not None:
                begun = keep_right(target, entries)
            staged = stage(
                root, entries, target, ownership=ownership, begun=begun, check=self.whom.check
            )
            if build_history(self.repository, self.found, layer.tree / ".git"):
                own(layer.tree / ".git", ownership.owner or self.stored, self.whom.privileged)
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
        return not any(e.mode & 0o7000 and e.kind == FILE for e in self.found.selection.entries)

    def _around(self, root: int) -> list[object]:
        """What decides, besides the entries, how the layer comes out."""
        found, spec, status = self.found, self.repository, os.fstat(root)
        facts: list[object] = [str(found.source.root), self.stored, self.whom.privileged]
        facts += [status.st_dev, status.st_ino, status.st_mode, status.st_mtime_ns]
        if found.repository is not None:
            facts += [found.history, found.repository.state(), sorted(found.hidden)]
            facts += [spec.include, spec.exclude, spec.secrets_excluded, spec.subpath]
        return facts

    def restored(self, start: Path) -> shared.Layer:
        """A frozen layer of a snapshot's files, which have the owners that commands see."""
        layer = shared.create(self.directory)
        status = start.stat()
        self.stored = status.st_uid, status.st_gid
        with Layers([start]) as kept:
            target = open_root(layer.tree)
            try:
                staged = stage(
                    kept.bottom, list(everything(kept)), target, check=self.whom.check
                ).entries
                dress(target, root_entry(kept.bottom), Ownership())
            finally:
                os.close(target)
        outside = [entry for entry in staged if entry.path.split("/")[0] != ".git"]
        manifest.write(layer.entries, outside)
        return layer

    # --- ro, rw ---

    def bound(self) -> Prepared:
        if self.repository.size is not None or self.masks_modes:
            raise InvalidSpecError("size, file_mode and directory_mode need mode copy",
                                   op="workspace")  # fmt: skip
        if self.found.selection.hidden and len(self.found.selection.hidden) > _MASKS:
            raise InvalidSpecError(
                f"{len(self.found.selection.hidden)} hidden paths are too many to cover in mode"
                f" {self.repository.mode} (at most {_MASKS}): use mode copy",
                op="workspace",
            )
        root = self.found.source.root
        if self.maps:
            self._check_one_file_system(root)
            uids, gids = zip(self.stored, self.seen, strict=True)
            root = mounts.mapped(self.directory, root, uids, gids)
        read_only = self.repository.mode == "ro"
        binds = [Binding(str(root), self.repository.mount_point, read_only)]
        binds += self._covers()
        return self.prepared("bind", binds)

    def _check_one_file_system(self, root: Path) -> None:
        """An id-mapped mount shows nothing of what is mounted in it."""
        device = root.stat().st_dev
        for entry in self.found.selection.entries:
            if entry.device != device:
                raise UnsupportedError(
                    f"{shown(entry.path)} is on a file system of its own, whose owners cannot be"
                    f" mapped in mode {self.repository.mode}: use mode copy, or exclude it",
                    op="workspace",
                    context={"path": shown(entry.path)},
                )

    def _covers(self) -> Iterator[Binding]:
        """What is bound over the hidden paths and over everything called .git."""
        nothing, empty = self.directory / "nothing", self.directory / "empty"
        nothing.touch(mode=0o444)
        empty.mkdir(mode=0o555)
        for path in sorted(self.found.selection.hidden):
            source = empty if path.endswith("/") else nothing
            yield self._cover(source, path.removesuffix("/"))
        for path in sorted(self.found.selection.git):
            place = self.found.source.root / path
            if path == ".git" and place.is_dir() and not place.is_symlink():
                built = self.directory / "git" / ".git"
                built.parent.mkdir(mode=0o711)
                if build_history(self.repository, self.found, built):
                    own(built, self.seen, self.whom.privileged)
                    yield self._cover(built, path)
                    continue
            if place.is_symlink():
                raise PolicyDeniedError(
                    f"{path} is a symbolic link, which cannot be covered: use mode copy",
                    op="workspace",
                )
            yield self._cover(empty if place.is_dir() else nothing, path)

    def _cover(self, source: Path, path: str) -> Binding:
        return Binding(str(source), f"{self.repository.mount_point}/{path}", True)


def own(tree: Path, owner: tuple[int, int], privileged: bool) -> None:
    """Make everything in a tree that we made belong to `owner`."""
    if privileged:
        for path in history.walk_all(tree):
            os.chown(path, *owner, follow_symlinks=False)
