"""Getting images onto the daemon, and off it: pull, import, build, list, remove, prune."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ringfence.backends.docker import building, pulling
from ringfence.backends.docker.endpoint import resolve
from ringfence.backends.docker.engine import Engine
from ringfence.backends.docker.export import discard, export
from ringfence.backends.docker.messages import LONGEST, messages
from ringfence.backends.finish import finish, holding
from ringfence.digest import Digest
from ringfence.digest.store import Store
from ringfence.errors import ImageError, ImageNotFoundError, SandboxError
from ringfence.images import Pin, Reference, credentials, layouts
from ringfence.images import context as contexts
from ringfence.images.credentials import Credentials
from ringfence.images.reference import check_name

SECONDS = 1800.0
"""How long a pull, an import or a build may take, unless somebody says otherwise."""


@dataclass(frozen=True, slots=True)
class Progress:
    """One step of a pull or a build. layer: the layer's short id, "" for the whole.

    current, total: bytes, None when they are not known. output: what a build step printed.
    """

    status: str
    layer: str = ""
    current: int | None = None
    total: int | None = None
    output: str = ""


@dataclass(frozen=True, slots=True)
class Stored:
    """An image on the daemon. id: its configuration's digest. digests: those of its manifests, as
    registries serve it, with their names. size: bytes. created: RFC 3339 or seconds, as given."""

    id: Digest
    tags: tuple[str, ...]
    digests: tuple[str, ...]
    size: int
    created: str
    labels: Mapping[str, str]

    def manifests(self, reference: Reference) -> tuple[str, ...]:
        """The digests under which the registry of `reference` serves this."""
        pairs = (entry.partition("@") for entry in self.digests)
        name = reference.name
        return tuple(
            digest for known, _, digest in pairs if Reference.parse_familiar(known).name == name
        )

    def pin(self, reference: Reference) -> Pin:
        """What a lock file keeps of it: the digest that `reference` stands for, else the id."""
        if reference.digest is not None:
            return Pin(reference.digest)
        found = self.manifests(reference)
        return Pin(Digest(found[0])) if len(found) == 1 else Pin(self.id, local=True)

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able data."""
        return {
            "id": str(self.id),
            "tags": list(self.tags),
            "digests": list(self.digests),
            "size": self.size,
            "created": self.created,
            "labels": dict(self.labels),
        }


Tell = Callable[[Progress], None]


class Supply:
    """The images of one Docker Engine. An asynchronous context manager; one event loop.

    endpoint: as `DockerBackend` takes it, or the Engine itself, which is closed at the end.
    """

    def __init__(self, endpoint: str | Engine | None = None) -> None:
        self._engine = endpoint if isinstance(endpoint, Engine) else Engine(resolve(endpoint))

    async def __aenter__(self) -> Supply:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._engine.close()

    async def resolve(self, reference: Reference, *, login: Credentials | None = None) -> Digest:
        """The digest of the manifest that a tag stands for in its registry at this moment.

        login: for the registry; what Docker's own configuration has when left out.
        ImageNotFoundError when it has none such, ImageError when it cannot be asked.
        """
        if reference.digest is not None:
            return reference.digest
        return await pulling.resolve(self._engine, reference, await _login(reference, login))

    async def pull(
        self,
        reference: Reference,
        *,
        tell: Tell | None = None,
        seconds: float = SECONDS,
        login: Credentials | None = None,
    ) -> tuple[Stored, Reference]:
        """Pull exactly one content; the image and its pinned reference.

        A tag is resolved to a digest first and the content pulled by that, so that a registry that
        serves anything else is found out by the daemon. Then the tag is set. login: as for
        `resolve`; it is in no error. Raises ImageNotFoundError, ImageError, InvalidSpecError for a
        configuration that cannot be used, DeadlineExceededError. Cancellation ends the pull; layers
        that came whole are kept by the daemon.
        """
        login = await _login(reference, login)
        digest = await self.resolve(reference, login=login)
        async for message in pulling.pull(self._engine, reference, digest, login, seconds):
            _tell(tell, message)
        pinned = reference.with_tag().pin(digest)
        stored = await self.inspect(f"{reference.familiar_name}@{digest}")
        if str(digest) not in stored.manifests(reference):
            raise ImageError(f"{pinned}: the daemon has {stored.digests} instead", op="pull")
        if pinned.tag is not None:
            await self._tag(stored.id, reference.familiar_name, pinned.tag)
        return await self.inspect(stored.id), pinned

    async def import_(
        self,
        path: Path,
        reference: Reference | None = None,
        *,
        name: str | None = None,
        changes: Sequence[str] = (),
        seconds: float = SECONDS,
    ) -> Stored:
        """Make an image of a file: an OCI layout or its tar, Docker's archive, a tar of a root
        file system, a directory. What it holds decides.

        reference: what to call it, with a tag. name: which image of a layout. changes: Dockerfile
        instructions for a root file system, such as "CMD [...]". An OCI layout is verified, byte
        by byte, and the result's id must be the digest of its configuration. ImageError.
        """
        kind = await asyncio.to_thread(layouts.kind_of, path)
        tag = None if reference is None else reference.with_tag().familiar()
        with tempfile.TemporaryDirectory(prefix="ringfence-import-") as scratch:
            if kind == "oci-archive":
                await asyncio.to_thread(layouts.unpack, path, Path(scratch))
                path, kind = Path(scratch), "oci"
            with tempfile.TemporaryFile() as body:
                if kind == "oci":
                    return await self._from_layout(path, name, tag, body, seconds)
                if kind == "tree":
                    await asyncio.to_thread(contexts.pack_tree, path, body)
                    return await self._import_tar(body, tag, changes, seconds)
            with await asyncio.to_thread(path.open, "rb") as body:
                if kind == "rootfs":
                    return await self._import_tar(body, tag, changes, seconds)
                return await self._load(body, tag, seconds)

    async def export(
        self, name: str, store: Store, *, tag: str | None = None, seconds: float = SECONDS
    ) -> Digest:
        """Put an image of the daemon into a store, an OCI layout; the digest of its manifest there.

        tag: what the store calls it, else what `name` says. `import_` of that layout gives the
        same id again. Raises ImageNotFoundError, ImageError, ResourceExhaustedError. An error or a
        cancellation leaves nothing in the store, unless others put images into it meanwhile: then
        the error says so.
        """
        stored = await self.inspect(name)
        if tag is None:
            known = str(stored.id) == name or name in str(stored.id)
            tag = str(stored.id) if known else Reference.parse_familiar(name).with_tag().familiar()
        made: list[Digest] = []
        try:
            async with holding(store.composing()):
                image = await export(
                    self._engine, str(stored.id), store, seconds=seconds, made=made
                )
                await finish(asyncio.to_thread(store.tag, tag, image))
        except BaseException as error:
            if await discard(store, made) or not isinstance(error, SandboxError):
                raise
            text = f"{error.message}; what had been put stays until `ringfence store gc`"
            raise type(error)(text, op=error.op, context=error.context) from error
        return image.digest

    async def build(
        self,
        directory: Path,
        reference: Reference | None = None,
        *,
        dockerfile: str = "Dockerfile",
        arguments: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        target: str | None = None,
        network: bool = False,
        cache: bool = True,
        tell: Tell | None = None,
        seconds: float = SECONDS,
    ) -> Stored:
        """Build from a Dockerfile with the classic builder; the image.

        network: whether RUN steps have one; off unless asked for. Images that it starts from and
        that the daemon has not are pulled by the builder, with the logins that Docker's own
        configuration has for their registries. ImageError when a step fails; cancellation ends the
        build.
        """
        query = {
            "t": None if reference is None else reference.with_tag().familiar(),
            "dockerfile": dockerfile,
            "buildargs": dict(arguments or {}),
            "labels": dict(labels or {}),
            "target": target or None,
            "networkmode": "default" if network else "none",
            "nocache": not cache,
            "rm": True,
            "forcerm": True,
            "version": "1",
        }
        built = None
        with tempfile.TemporaryFile() as body:
            await asyncio.to_thread(contexts.pack, directory, body, dockerfile)
            body.seek(0)
            known = await building.logins(self._engine, directory / dockerfile, arguments or {})
            async for message in building.build(self._engine, query, body, known, seconds):
                built = (message.get("aux") or {}).get("ID", built)
                _tell(tell, message)
        if built is None:
            raise ImageError("the build ended without an image", op="build")
        return await self.inspect(built)

    async def images(self, labels: Mapping[str, str | None] | None = None) -> list[Stored]:
        """Every image on the daemon that has these labels (None: with any value)."""
        filters = {"label": _labels(labels)} if labels else {}
        return [_stored(entry) for entry in await self._engine.get("images", "images", "json",
                                                                   filters=filters)]  # fmt: skip

    async def inspect(self, name: str) -> Stored:
        """One image by reference or id. ImageNotFoundError, InvalidSpecError."""
        check_name(name, "image")
        return _stored(await self._engine.get("image", "images", name, "json"))

    async def remove(self, name: str, *, force: bool = False) -> None:
        """Remove a tag, and the image when that was its last. ImageNotFoundError; StateError when
        a container needs it; InvalidSpecError."""
        check_name(name, "image")
        await self._engine.request("image", "DELETE", ("images", name), {"force": force})

    async def prune(self, labels: Mapping[str, str | None], *, tagged: bool = False) -> list[str]:
        """Remove images with these labels that no container needs; what was removed.

        tagged: those with tags, too.
        """
        filters = {"label": _labels(labels), "dangling": ["false" if tagged else "true"]}
        answer = await self._engine.post("images", "images", "prune", filters=filters)
        removed = answer.get("ImagesDeleted") or ()
        return [text for entry in removed for text in entry.values()]

    async def _from_layout(
        self, path: Path, name: str | None, tag: str | None, body: IO[bytes], seconds: float
    ) -> Stored:
        version = await self._engine.get("version", "version")
        manifest = layouts.find(path, name, architecture=str(version.get("Arch") or "amd64"))
        return await self.load_layout(path, manifest, tag, body, seconds)

    async def load_layout(
        self,
        path: Path,
        manifest: layouts.Manifest,
        tag: str | None,
        body: IO[bytes],
        seconds: float,
    ) -> Stored:
        """Send one image of a layout to the daemon, by way of the empty file `body`. ImageError."""
        await asyncio.to_thread(layouts.archive, path, manifest, body, tag)
        await self._send(body, seconds)
        stored = await self._found(str(manifest.config.digest))
        if stored.id != manifest.config.digest:
            raise ImageError(
                f"{path}: expected the id {manifest.config.digest}, the daemon has {stored.id}",
                op="import",
            )
        return stored

    async def _import_tar(
        self, body: IO[bytes], tag: str | None, changes: Sequence[str], seconds: float
    ) -> Stored:
        repository, _, label = (tag or "").rpartition(":")
        query = {"fromSrc": "-", "repo": repository or None, "tag": label or None}
        body.seek(0)
        made = ""
        path = ("images", "create")
        # The Engine takes one query parameter for each change, or one with newlines between.
        query["changes"] = "\n".join(changes) or None
        async for message in messages(self._engine, "import", path, query, body, seconds=seconds):
            made = str(message.get("status") or made)
        return await self._found(made)

    async def _load(self, body: IO[bytes], tag: str | None, seconds: float) -> Stored:
        ids = await asyncio.to_thread(_ids_in, body)
        await self._send(body, seconds)
        if len(ids) != 1:
            raise ImageError(f"the archive holds {len(ids)} images instead of one", op="import")
        stored = await self._found(ids[0])
        if tag is not None:
            repository, _, label = tag.rpartition(":")
            await self._tag(stored.id, repository, label)
        return await self.inspect(stored.id)

    async def _send(self, body: IO[bytes], seconds: float) -> None:
        body.seek(0)
        async for _ in messages(
            self._engine, "import", ("images", "load"), {"quiet": True}, body, seconds=seconds
        ):
            pass

    async def _found(self, name: str) -> Stored:
        try:
            return await self.inspect(name)
        except ImageNotFoundError:
            raise ImageError(
                f"the daemon did not keep {name or 'the image'}", op="import"
            ) from None

    async def _tag(self, image: str, repository: str, tag: str) -> None:
        await self._engine.post("image", "images", image, "tag", repo=repository, tag=tag)


async def _login(reference: Reference, given: Credentials | None) -> Credentials:
    """The login to use; one without anything when there is none."""
    found = given or await asyncio.to_thread(credentials.find, reference.domain)
    return found or Credentials()


def _tell(tell: Tell | None, message: Mapping[str, Any]) -> None:
    if tell is None:
        return
    detail = message.get("progressDetail") or {}
    tell(
        Progress(
            status=str(message.get("status") or ""),
            layer=str(message.get("id") or ""),
            current=detail.get("current"),
            total=detail.get("total"),
            output=str(message.get("stream") or ""),
        )
    )


def _stored(data: Mapping[str, Any]) -> Stored:
    labels = data.get("Labels") or (data.get("Config") or {}).get("Labels") or {}
    return Stored(
        id=Digest(data["Id"]),
        tags=tuple(tag for tag in data.get("RepoTags") or () if tag != "<none>:<none>"),
        digests=tuple(
            text for text in data.get("RepoDigests") or () if not text.startswith("<none>")
        ),
        size=int(data.get("Size") or 0),
        created=str(data.get("Created") or ""),
        labels={str(name): str(text) for name, text in labels.items()},
    )


def _labels(labels: Mapping[str, str | None]) -> list[str]:
    return [name if text is None else f"{name}={text}" for name, text in labels.items()]


def _ids_in(body: IO[bytes]) -> list[str]:
    """The ids of the images in Docker's archive: the digests of their configurations."""
    import tarfile

    body.seek(0)
    try:
        with tarfile.open(fileobj=body, mode="r:*") as archive:
            listing = archive.extractfile("manifest.json")
            entries = json.loads(listing.read(LONGEST)) if listing else []
            found = []
            for entry in entries:
                config = archive.extractfile(entry["Config"])
                if config is not None:
                    found.append(str(Digest.from_reader(config)))
    except (tarfile.TarError, ValueError, KeyError, TypeError) as error:
        raise ImageError(f"the archive cannot be read: {error}", op="import") from None
    return found
