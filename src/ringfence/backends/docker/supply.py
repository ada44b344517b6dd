"""Getting images onto the daemon, and off it: pull, import, build, list, remove, prune."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from ringfence.backends.docker import building, importing, pulling
from ringfence.backends.docker import stored as images
from ringfence.backends.docker.endpoint import resolve
from ringfence.backends.docker.engine import Engine
from ringfence.backends.docker.export import discard, export
from ringfence.backends.docker.messages import SECONDS
from ringfence.backends.docker.progress import Tell, report
from ringfence.backends.docker.stored import Stored, parse
from ringfence.backends.finish import finish, holding
from ringfence.digest import Digest
from ringfence.digest.store import Store
from ringfence.errors import ImageError, SandboxError
from ringfence.images import Reference, credentials
from ringfence.images import context as contexts
from ringfence.images.credentials import Credentials
from ringfence.images.reference import check_name


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
            report(tell, message)
        pinned = reference.with_tag().pin(digest)
        stored = await self.inspect(f"{reference.familiar_name}@{digest}")
        if str(digest) not in stored.manifests(reference):
            raise ImageError(f"{pinned}: the daemon has {stored.digests} instead", op="pull")
        if pinned.tag is not None:
            await images.tag(self._engine, stored.id, reference.familiar_name, pinned.tag)
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
        tag = None if reference is None else reference.with_tag().familiar()
        return await importing.import_(
            self._engine, path, tag, name=name, changes=changes, seconds=seconds
        )

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
                report(tell, message)
        if built is None:
            raise ImageError("the build ended without an image", op="build")
        return await self.inspect(built)

    async def images(self, labels: Mapping[str, str | None] | None = None) -> list[Stored]:
        """Every image on the daemon that has these labels (None: with any value)."""
        filters = {"label": _labels(labels)} if labels else {}
        return [parse(entry) for entry in await self._engine.get("images", "images", "json",
                                                                   filters=filters)]  # fmt: skip

    async def inspect(self, name: str) -> Stored:
        """One image by reference or id. ImageNotFoundError, InvalidSpecError."""
        return await images.inspect(self._engine, name)

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


async def _login(reference: Reference, given: Credentials | None) -> Credentials:
    """The login to use; one without anything when there is none."""
    found = given or await asyncio.to_thread(credentials.find, reference.domain)
    return found or Credentials()


def _labels(labels: Mapping[str, str | None]) -> list[str]:
    return [name if text is None else f"{name}={text}" for name, text in labels.items()]
