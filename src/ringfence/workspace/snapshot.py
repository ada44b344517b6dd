"""A workspace kept for later, named by the digest of all that is in it.

A snapshot is an image in a content store: one layer with the files (git's directory included), a
configuration, and a manifest. The manifest's digest is the snapshot's; its name in the store,
`snapshot-HEX`, makes it a root, so that it stays until it is deleted.

To start from, it is unpacked once, into a *farm* beside the store, verified while it is made; a
farm is only a copy, and made anew when it is gone.
"""

import json
import os
import platform
import tarfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any

from ringfence.digest import Descriptor, Digest, DigestError
from ringfence.digest.store import BlobNotFound, QuotaExceeded, Store, StoreError, locks
from ringfence.digest.store.manifest import LAYER, put_image, read_document
from ringfence.errors import (
    InvalidSpecError,
    NotFoundError,
    ResourceExhaustedError,
    StateError,
)
from ringfence.workspace.beneath import DIRECTORY_FLAGS, open_root, remove_tree
from ringfence.workspace.failures import failed
from ringfence.workspace.prepared import Prepared
from ringfence.workspace.snapshot_layer import Packing, unpack

KIND = "ringfence.snapshot"
"""The annotation that says what is kept: "workspace", "root" (a root file system) or "both"."""
TIMES = "ringfence.ref.times"
SIZE = "ringfence.size"
TREE = "tree"
_LOCK = ".lock"
_ABANDONED_SECONDS = 24 * 3600.0
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """digest: its name. size: bytes of its files. kind: what is kept, as `KIND` says."""

    digest: str
    size: int
    kind: str = "workspace"


@dataclass(frozen=True, slots=True)
class Snapshots:
    """The snapshots of one store. farms: where they are unpacked."""

    store: Store
    farms: Path

    def tree(self, digest: str) -> Path:
        """The files of a workspace's snapshot, unpacked; nobody may write there.

        NotFoundError, StateError when what is stored is damaged, ResourceExhaustedError when the
        disk is full. It blocks.
        """
        document = document_of(digest, self)
        tree = self.farms / _encoded(digest) / TREE
        if not tree.is_dir():
            _unpack(document, digest, self)
        return tree


def name_of(digest: str) -> str:
    """What the store calls a snapshot."""
    return f"snapshot-{_encoded(digest)}"


def put(prepared: Prepared, store: Store, made: list[Digest]) -> tuple[Descriptor, int]:
    """Keep the present state, without a name in the store: the manifest, and the bytes of the
    files. The same state gives the same digest, and one copy. made: is told what was put, also of
    one that fails, for `Store.discard`.

    State is names, kinds, modes, owners and content; times are kept, too, those of the first time.
    Nothing should write to the workspace meanwhile: StateError names a file that changed.
    ResourceExhaustedError when there is no room, OSError when the disk is full. It blocks.
    """
    with store.composing():
        with prepared.now() as now:
            packing = Packing(prepared, now)
            layer = _layer(packing, store)
        made.append(layer.digest)
        return _described(packing, layer, store, made), packing.size


def _described(packing: Packing, layer: Descriptor, store: Store, made: list[Digest]) -> Descriptor:
    """The manifest of a layer, with its configuration and times."""
    config: dict[str, Any] = {
        "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": {"Labels": {KIND: "workspace"}},
        "rootfs": {"type": "layers", "diff_ids": [str(layer.digest)]},
    }
    annotations = {KIND: "workspace", SIZE: str(packing.size)}
    manifest = put_image(store, config, [layer], annotations, made)
    if TIMES not in store.info(manifest.digest).labels:
        times = store.put(json.dumps(packing.times, separators=(",", ":")).encode())
        made.append(times)
        store.label(manifest.digest, {TIMES: str(times)})
    return manifest


def _layer(packing: Packing, store: Store) -> Descriptor:
    room = os.statvfs(store.root)
    if packing.size > room.f_bavail * room.f_frsize:
        raise ResourceExhaustedError(
            f"the snapshot's {packing.size} bytes are more than {store.root} has room for",
            op="snapshot",
        )
    ingest = store.ingest(f"snapshot {token_hex(16)}")
    try:
        packing.write(ingest)
        size = ingest.offset
        return Descriptor(LAYER, ingest.commit(), size)
    except QuotaExceeded as error:
        raise ResourceExhaustedError(str(error), op="snapshot") from None
    finally:
        ingest.abort()


def find(digest: str, place: Snapshots) -> Snapshot:
    """The snapshot of that digest. NotFoundError; StateError when its manifest is damaged."""
    document = document_of(digest, place)
    about = document.get("annotations") or {}
    return Snapshot(digest, int(about.get(SIZE) or 0), str(about[KIND]))


def document_of(digest: str, place: Snapshots) -> dict[str, Any]:
    """A snapshot's manifest or index, verified. NotFoundError, StateError."""
    store = place.store
    _encoded(digest)
    try:
        document = read_document(store, digest)
    except BlobNotFound:
        raise NotFoundError(f"there is no snapshot {digest}", op="snapshot") from None
    except (DigestError, StoreError) as error:
        raise StateError(f"the manifest of snapshot {digest}: {error}", op="snapshot") from None
    if KIND not in (document.get("annotations") or {}):
        raise NotFoundError(f"{digest} is no snapshot", op="snapshot")
    return document


def verify(digest: str, place: Snapshots) -> None:
    """Read all that is stored of a snapshot: StateError names the blob that is damaged."""
    for descriptor in _parts(document_of(digest, place)):
        try:
            with place.store.open(descriptor.digest) as reader:
                reader.verify()
        except BlobNotFound:
            raise StateError(f"{digest} lacks {descriptor.digest}", op="snapshot") from None
        except DigestError as error:
            raise StateError(f"{digest} is damaged: {error}", op="snapshot") from None


def delete(digest: str, place: Snapshots) -> int:
    """Remove a snapshot, damaged or not, and what only it needed; the bytes freed in the store.
    NotFoundError. Sandboxes that were opened on it go on."""
    try:
        freed = place.store.release(name_of(digest)).size
    except BlobNotFound:
        raise NotFoundError(f"there is no snapshot {digest}", op="snapshot") from None
    sweep(place)
    return freed


def sweep(place: Snapshots) -> None:
    """Remove the farms of snapshots that the store does not hold any more, and what somebody who
    was killed left half made or half removed. Others may do the same meanwhile."""
    if not place.farms.is_dir():
        return
    before = time.time() - _ABANDONED_SECONDS
    gone = []
    with locks.exclusive(place.farms / _LOCK):
        for path in place.farms.iterdir():
            if path.name == _LOCK:
                continue
            if path.name.startswith("."):
                with suppress(FileNotFoundError):
                    if path.stat().st_mtime < before:
                        gone.append(path)
            elif f"sha256:{path.name}" not in place.store:
                gone.append(path.rename(place.farms / f".gone-{token_hex(8)}"))
    for path in gone:
        _remove(path)


def _encoded(digest: str) -> str:
    try:
        checked = Digest.parse(digest)
    except DigestError:
        raise InvalidSpecError(
            f"{digest!r} is not the digest of a snapshot", op="snapshot"
        ) from None
    return checked.encoded


def _parts(document: Mapping[str, Any]) -> list[Descriptor]:
    """The layers of a manifest, checked, and its configuration."""
    try:
        found = [Descriptor.from_dict(entry) for entry in document.get("layers") or ()]
        found += [Descriptor.from_dict(document["config"])] if document.get("config") else []
        found += [Descriptor.from_dict(entry) for entry in document.get("manifests") or ()]
    except (DigestError, TypeError) as error:
        raise StateError(f"the manifest of a snapshot: {error}", op="snapshot") from None
    return found


def _unpack(document: Mapping[str, Any], digest: str, place: Snapshots) -> None:
    """Make the farm of a workspace's snapshot."""
    layers = [part for part in _parts(document) if part.media_type == LAYER]
    if (document.get("annotations") or {}).get(KIND) != "workspace" or len(layers) != 1:
        raise StateError(f"{digest} is no snapshot of a workspace", op="snapshot")
    place.farms.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = place.farms / f".new-{token_hex(8)}"
    (beside / TREE).mkdir(mode=0o700, parents=True)
    root = open_root(beside / TREE)
    try:
        with place.store.open(layers[0].digest) as reader:
            unpack(reader, root, _times(digest, place.store))
            reader.verify()
        _settle(beside, place.farms / _encoded(digest))
    except (DigestError, StoreError, tarfile.TarError, ValueError) as error:
        raise StateError(f"snapshot {digest} is damaged: {error}", op="snapshot") from None
    except OSError as error:
        raise failed(error, beside, "unpacking a snapshot") from None
    finally:
        os.close(root)
        _remove(beside)


def _settle(made: Path, target: Path) -> None:
    """Put it in place, unless somebody else did meanwhile."""
    with locks.exclusive(target.parent / _LOCK):
        if not target.is_dir():
            made.rename(target)


def _times(digest: str, store: Store) -> dict[str, int]:
    label = store.info(digest).labels.get(TIMES)
    if label is None or label not in store:
        return {}
    return {str(path): int(when) for path, when in json.loads(store.read(label)).items()}


def _remove(path: Path) -> None:
    try:
        parent = os.open(path.parent, DIRECTORY_FLAGS)
    except FileNotFoundError:
        return
    try:
        remove_tree(parent, path.name)
    finally:
        os.close(parent)
