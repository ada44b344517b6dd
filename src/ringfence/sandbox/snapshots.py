"""Sandboxes kept for later, whole: the workspace, and a root file system that may be written."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from ringfence.backends import registry
from ringfence.backends.base import Backend
from ringfence.backends.finish import finish, holding
from ringfence.backends.state import state_directory
from ringfence.digest import Descriptor, Digest, DigestError
from ringfence.digest.store import Store, StoreError
from ringfence.digest.store.manifest import MANIFEST, put_index, read_document
from ringfence.errors import (
    BackendUnavailableError,
    InvalidSpecError,
    NotFoundError,
    StateError,
    UnsupportedError,
)
from ringfence.sandbox.context import Context
from ringfence.spec import Repository, SandboxSpec
from ringfence.workspace import Prepared, Snapshot, Snapshots
from ringfence.workspace.failures import failed
from ringfence.workspace.snapshot import KIND, SIZE, delete, document_of, find, name_of, put


@runtime_checkable
class Committable(Protocol):
    """An instance whose root file system can be kept."""

    async def commit(
        self, store: Store, annotations: Mapping[str, str], made: list[Digest]
    ) -> Descriptor:
        """Put it into a store as an image; the manifest, without a name. made: is told what was not
        there before, also by a commit that fails."""
        ...


@runtime_checkable
class Loading(Protocol):
    """A backend that makes sandboxes of images in a store."""

    async def load(self, layout: Path, manifest: Descriptor) -> str:
        """Have the image of that manifest; what a spec calls it."""
        ...

    async def unload(self, image: str) -> None:
        """Remove an image that nothing needs. Idempotent."""
        ...


@dataclass(frozen=True, slots=True)
class Start:
    """What a snapshot holds. workspace: the digest of that part. root: the manifest of that part.
    image: the id of the root's image."""

    workspace: str | None = None
    root: Descriptor | None = None
    image: str = ""


def snapshots() -> Snapshots:
    """This user's snapshots: in the content store of the state directory. StateError when that
    cannot be used. It blocks."""
    state = state_directory()
    try:
        return Snapshots(Store(state / "store"), state / "snapshots")
    except StoreError as error:
        raise StateError(f"snapshot: {error}", op="snapshot") from None


async def keep_whole(context: Context, prepared: Prepared | None) -> Snapshot:
    """Keep a sandbox whose root file system may be written, with its workspace if it has one.

    It should be frozen. UnsupportedError on a backend that cannot. An error or a cancellation
    leaves no snapshot; ResourceExhaustedError when the disk is full.
    """
    instance = context.life.instance
    if not isinstance(instance, Committable):
        raise not_kept(context.spec, "snapshot")
    place = await asyncio.to_thread(snapshots)
    async with _keeping(place.store) as keeping:
        digest = await keeping.compose(instance, prepared)
        return await asyncio.to_thread(find, digest, place)


async def keep_workspace(prepared: Prepared, place: Snapshots) -> Snapshot:
    """Keep a workspace alone. Nothing should write to it meanwhile.

    An error or a cancellation leaves no snapshot; it is raised once what is under way is done.
    ResourceExhaustedError when the disk is full.
    """
    async with _keeping(place.store) as keeping:
        return await keeping.keep(prepared)


class _Keeping:
    """A snapshot in the making, and what of it is in the store by now."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._parts: list[Descriptor] = []
        self._made: list[Digest] = []
        self._name: str | None = None

    async def compose(self, instance: Committable, prepared: Prepared | None) -> str:
        """Put everything and give it its name; the digest."""
        async with holding(self._store.composing()):
            size = 0
            if prepared is not None:
                size = await finish(asyncio.to_thread(self._put, prepared))
            root = await instance.commit(self._store, {KIND: "root"}, self._made)
            return await finish(asyncio.to_thread(self._finish, root, size))

    async def keep(self, prepared: Prepared) -> Snapshot:
        """Put a workspace and give it its name."""
        async with holding(self._store.composing()):
            size = await finish(asyncio.to_thread(self._put, prepared))
            return Snapshot(await finish(asyncio.to_thread(self._call, self._parts[0])), size)

    def _put(self, prepared: Prepared) -> int:
        made, size = put(prepared, self._store, self._made)
        self._parts.append(made)
        return size

    def _finish(self, root: Descriptor, size: int) -> str:
        listed = [{**part.to_dict(), "annotations": {KIND: "workspace"}} for part in self._parts]
        self._parts.append(root)
        whole = _joined(self._store, root, listed, size)
        self._parts.append(whole)
        return self._call(whole)

    def _call(self, whole: Descriptor) -> str:
        """Give it its name; the digest."""
        name = name_of(whole.digest)
        self._name = None if name in self._store.tags() else name
        self._store.tag(name, whole)
        return str(whole.digest)

    def take_back(self) -> None:
        """Leave nothing that was not there before. It blocks."""
        if self._name is not None and self._name in self._store.tags():
            self._store.untag(self._name)
        for each in (*(part.digest for part in reversed(self._parts)), *reversed(self._made)):
            self._store.discard(each)


@asynccontextmanager
async def _keeping(store: Store) -> AsyncIterator[_Keeping]:
    """A snapshot that is put into the store here, whole or not at all."""
    keeping = _Keeping(store)
    try:
        yield keeping
    except BaseException as error:
        await finish(asyncio.to_thread(keeping.take_back))
        if isinstance(error, OSError):
            raise failed(error, error.filename or store.root, "keeping a snapshot") from None
        raise


def _joined(store: Store, root: Descriptor, parts: list[dict[str, Any]], size: int) -> Descriptor:
    """The root's manifest itself, or an index over it and the workspace's."""
    if not parts:
        return root
    config = read_document(store, read_document(store, root.digest)["config"]["digest"])
    platform = {"architecture": config["architecture"], "os": config["os"]}
    first = {**root.to_dict(), "platform": platform, "annotations": {KIND: "root"}}
    return put_index(store, [first, *parts], {KIND: "both", SIZE: str(size)})


def start_of(digest: str, place: Snapshots) -> Start:
    """What a snapshot holds. NotFoundError; StateError when it is damaged. It blocks."""
    document = document_of(digest, place)
    kind = document["annotations"][KIND]
    if kind == "workspace":
        return Start(workspace=digest)
    try:
        if kind == "root":
            size = place.store.info(digest).size
            return _rooted(place.store, Descriptor(MANIFEST, Digest(digest), size))
        parts = {
            part.annotations.get(KIND): part
            for part in map(Descriptor.from_dict, document["manifests"])
        }
        start = _rooted(place.store, parts["root"])
        return Start(str(parts["workspace"].digest), start.root, start.image)
    except (DigestError, StoreError, KeyError, TypeError) as error:
        raise StateError(f"snapshot {digest} is damaged: {error}", op="snapshot") from None


def _rooted(store: Store, root: Descriptor) -> Start:
    config = Descriptor.from_dict(read_document(store, root.digest)["config"])
    return Start(root=root, image=str(config.digest))


def tree_of(digest: str) -> Path | None:
    """The files of a snapshot's workspace, None when it holds none. As `start_of`. It blocks."""
    place = snapshots()
    start = start_of(digest, place)
    return None if start.workspace is None else place.tree(start.workspace)


def started(request: SandboxSpec) -> tuple[SandboxSpec, Descriptor | None]:
    """The request with what its snapshot stands for: the image of a root file system, and a
    repository when it has none; and the manifest of that image. It blocks."""
    if request.snapshot is None:
        return request, None
    place = snapshots()
    start = start_of(request.snapshot, place)
    if start.root is not None:
        if request.image not in (None, start.image):
            raise InvalidSpecError(
                "a snapshot with a root file system is its own image: leave `image` out",
                op="open",
                context={"fields": ["image", "snapshot"]},
            )
        request = request.model_copy(update={"image": start.image})
    if request.repository is None and start.workspace is not None:
        repository = Repository(path=str(place.tree(start.workspace)))
        request = request.model_copy(update={"repository": repository})
    return request, start.root


async def load(backend: Backend, root: Descriptor) -> None:
    """Have the image of a snapshot's root file system on the backend. UnsupportedError on one that
    takes none, ImageError."""
    if not isinstance(backend, Loading):
        raise UnsupportedError(
            f"the {backend.name} backend cannot start from the root file system of a snapshot:"
            " use docker",
            op="open",
            context={"fields": ["snapshot"], "backend": backend.name},
        )
    place = await asyncio.to_thread(snapshots)
    await backend.load(place.store.root, root)


def _image_of(digest: str, place: Snapshots) -> str:
    """The image of its root file system; "" where it holds none, or what says so is damaged."""
    try:
        return start_of(digest, place).image
    except (NotFoundError, StateError):
        return ""


async def delete_snapshot(digest: str, *, backend: str = "docker") -> int:
    """Remove a snapshot and what only it needed, in the store and on the backend; the bytes freed
    in the store. Of a damaged one only what is known. NotFoundError. Sandboxes that were opened on
    it go on."""
    place = await asyncio.to_thread(snapshots)
    image = await asyncio.to_thread(_image_of, digest, place)
    freed = await asyncio.to_thread(delete, digest, place)
    if image:
        there = registry.load(backend, None)
        try:
            if isinstance(there, Loading):
                with suppress(BackendUnavailableError):
                    await there.unload(image)
        finally:
            await there.aclose()
    return freed


def not_kept(spec: SandboxSpec, op: str) -> UnsupportedError:
    """The error for a root file system that may be written, where `op` does not keep it: a part
    must not pass for the whole."""
    return UnsupportedError(
        f"{op} keeps the workspace alone on the {spec.backend} backend, and this sandbox may write"
        f" its root file system as well: use sandbox.workspace.{op}() where that is enough",
        op=op,
        context={"fields": ["security.read_only_root"]},
    )
