"""A workspace that is there: what is bound into the sandbox and what the host compares."""

import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ringfence.errors import NotFoundError, SandboxError, StateError
from ringfence.workspace import manifest, shared
from ringfence.workspace.application import alone, settle
from ringfence.workspace.beneath import above
from ringfence.workspace.changes import MAX_BYTES, Changes, compare
from ringfence.workspace.entries import Entry, entry_of
from ringfence.workspace.layers import TRUSTED, USER, Layers
from ringfence.workspace.mounts import clear
from ringfence.workspace.patch import Patch, write_patch
from ringfence.workspace.staging import check_unchanged

Strategy = Literal["overlay", "volume", "copy", "bind"]
Since = Literal["repository", "parent"]
_RECORD = "record.json"


@dataclass(frozen=True, slots=True)
class Binding:
    """One thing of the host that appears inside. source: absolute path; "" when `volume` is set.

    volume: options of a local volume that the daemon mounts itself (type, device, o), for a client
    who may not mount.
    """

    source: str
    destination: str
    read_only: bool
    volume: Mapping[str, str] | None = None


@dataclass(slots=True)
class Prepared:
    """One sandbox's workspace. Every method blocks.

    directory: ours, of this workspace alone. strategy: how writes are kept from the original
    (overlay mounted here, volume mounted by the daemon, copy), or "bind" when nothing is kept.
    mode: of the repository. binds: in the order in which they are mounted. env: git's settings for
    commands. original: where changes may be applied; None when there is no such place. layers: the
    frozen trees below, the lowest last. size: bytes that may be written, None when not limited.
    keeps_modes: whether the lowest has the modes of the original. mounted: paths in it where other
    things are mounted: what is made there for them is no change.
    owners: uid and gid as stored in the lowest tree, and as commands see them; None when the same.
    """

    directory: Path
    strategy: Strategy
    mode: str
    mount_point: str
    binds: tuple[Binding, ...]
    env: Mapping[str, str]
    original: Path | None
    layers: tuple[Path, ...] = ()
    upper: Path | None = None
    merged: Path | None = None
    size: int | None = None
    keeps_modes: bool = False
    owners: tuple[int, int, int, int] | None = None
    warnings: tuple[str, ...] = ()
    mounted: tuple[str, ...] = ()
    closed: bool = field(default=False, compare=False)

    def check_kept(self) -> None:
        """StateError when there are no two states to compare: it is closed, or nothing is kept."""
        if self.closed:
            raise StateError("the workspace is closed", op="workspace")
        if self.strategy == "bind":
            raise StateError(
                f"in mode {self.mode} the sandbox works on the repository itself: no other state"
                " of it is kept to compare with",
                op="workspace",
            )

    def base(self, since: Since = "repository") -> Layers:
        """The state to compare with: the repository as it was, or what this was forked from."""
        self.check_kept()
        paths = [shared.Layer(path).tree for path in self.layers]
        if since == "repository":
            paths = paths[-1:]
        elif self.strategy == "copy":
            paths = paths[:1]
        return Layers(paths, self.opaque)

    def now(self) -> Layers:
        """The present state."""
        self.check_kept()
        if self.upper is None:
            raise StateError("this workspace has no writable layer", op="workspace")
        if self.strategy == "copy":
            return Layers([self.upper])
        return Layers([self.upper, *(shared.Layer(path).tree for path in self.layers)], self.opaque)

    @property
    def opaque(self) -> str:
        """The attribute by which its overlay marks a directory that hides those below."""
        return USER if self.strategy == "volume" else TRUSTED

    def changes(self, *, since: Since = "repository", max_bytes: int = MAX_BYTES) -> Changes:
        """What is different, found from the files. Nothing should write to it meanwhile."""
        if self.mode == "ro":
            return Changes()
        with self.base(since) as base, self.now() as now:
            changes = compare(base, now, self.candidates(now, since), max_bytes=max_bytes)
        self._check_base(changes, since)
        return changes

    def patch(self, *, since: Since = "repository", max_bytes: int = MAX_BYTES) -> Patch:
        """The changes as git would say them."""
        if self.mode == "ro":
            return Patch(b"", "")
        changes = self.changes(since=since, max_bytes=max_bytes)
        with self.base(since) as base, self.now() as now:
            return write_patch(changes, base, now, scratch=self.directory)

    def candidates(self, now: Layers, since: Since) -> Iterator[str]:
        """Paths that may be different; some come twice."""
        places = frozenset(self.mounted)
        for path in self._candidates(now, since):
            if not places or places.isdisjoint((path, *above(path))):
                yield path

    def _candidates(self, now: Layers, since: Since) -> Iterator[str]:
        if self.strategy != "copy":
            upper = len(self.layers) if since == "repository" else 1
            yield from now.touched(upper)
            return
        if since == "repository" and len(self.layers) > 1:
            with self.base() as base:
                yield from (path for path, _ in base.walk())
            yield from (path for path, _ in now.walk())
            return
        recorded = manifest.read(self.directory / "tree.entries")
        for path, status in now.walk():
            before = recorded.pop(path, None)
            if before is None or before != entry_of(path, status):
                yield path
        yield from recorded

    def recorded(self, only: Collection[str] | None = None) -> dict[str, Entry]:
        """The repository's files as they were staged, or some of them."""
        return manifest.read(shared.Layer(self.layers[-1]).entries, only)

    def _check_base(self, changes: Changes, since: Since) -> None:
        """StateError when an original of a changed file was edited in place meanwhile."""
        touched = {change.old_path or change.path for change in changes if change.old is not None}
        if not touched or since == "parent":
            return
        with self.base() as base:
            for entry in self.recorded(touched).values():
                check_unchanged(base.bottom, entry)

    def close(self) -> None:
        """Unmount and remove all that belongs to it. Idempotent; the original stays."""
        self.closed = True
        clean(self.directory)

    def record(self) -> dict[str, Any]:
        """What another process needs: `attach` takes it, and so does `clean`."""
        return {"directory": str(self.directory)}

    def save(self) -> None:
        """Write the description that `attach` reads."""
        data = {
            "strategy": self.strategy,
            "mode": self.mode,
            "mount_point": self.mount_point,
            "binds": [
                [b.source, b.destination, b.read_only, None if b.volume is None else dict(b.volume)]
                for b in self.binds
            ],
            "env": dict(self.env),
            "original": _text(self.original),
            "layers": [str(path) for path in self.layers],
            "upper": _text(self.upper),
            "merged": _text(self.merged),
            "size": self.size,
            "keeps_modes": self.keeps_modes,
            "owners": self.owners,
            "warnings": list(self.warnings),
            "mounted": list(self.mounted),
        }
        (self.directory / _RECORD).write_text(json.dumps(data), encoding="utf-8")


def attach(record: Mapping[str, Any]) -> Prepared:
    """The workspace that another process prepared. NotFoundError when it is gone."""
    directory = Path(record["directory"])
    try:
        data = json.loads((directory / _RECORD).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NotFoundError(f"the workspace {directory} is gone", op="workspace") from None
    return Prepared(
        directory=directory,
        strategy=data["strategy"],
        mode=data["mode"],
        mount_point=data["mount_point"],
        binds=tuple(Binding(*fields) for fields in data["binds"]),
        env=data["env"],
        original=_path(data["original"]),
        layers=tuple(map(Path, data["layers"])),
        upper=_path(data["upper"]),
        merged=_path(data["merged"]),
        size=data["size"],
        keeps_modes=data.get("keeps_modes", False),
        owners=None if data["owners"] is None else tuple(data["owners"]),
        warnings=tuple(data["warnings"]),
        mounted=tuple(data.get("mounted", ())),
    )


def clean(directory: Path | Mapping[str, Any]) -> None:
    """Remove what a workspace left, whoever made it: mounts, layers, files. Idempotent.

    What a client that was killed had half applied of it is undone, one that still applies is waited
    for. directory: the workspace's, or its `record()`. StateError when a mount cannot be undone;
    then nothing below it is removed.
    """
    place = directory if isinstance(directory, Path) else Path(directory["directory"])
    if place.is_dir():
        # what was in its way stays beside the files; another may have removed it meanwhile
        with suppress(SandboxError, FileNotFoundError), alone(place, waits=True):
            settle(place)
        clear(place)
    shared.release(place)


def is_left(directory: Path) -> bool:
    """Whether `clean` has something to do for the workspace `directory`, as far as can be seen."""
    return directory.exists() or shared.uses(directory)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)
