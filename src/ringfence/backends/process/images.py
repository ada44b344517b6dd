"""Images of the process backend: a root file system as a directory, a tar, or an OCI layout.

Tars and layouts are unpacked once and kept by their digest; see `unpacked`.
"""

import asyncio
import ctypes
import errno
import hashlib
import os
import platform
import stat
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ringfence.backends import owned
from ringfence.backends.finish import finish
from ringfence.backends.owner import mark
from ringfence.backends.process import unpacked
from ringfence.backends.process.archives import Archive, verified
from ringfence.backends.process.machine import Machine
from ringfence.backends.process.unpacked import NEW
from ringfence.backends.process.unpacking import Unpacking
from ringfence.backends.sources import check_source
from ringfence.backends.state import make_private, state_directory
from ringfence.digest import Descriptor, Digest, digest_file
from ringfence.errors import ImageError, ImageNotFoundError, InvalidSpecError
from ringfence.images import layouts
from ringfence.policy.facts import ImageFacts

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_UNREADABLE = (errno.EACCES, errno.ENAMETOOLONG, errno.ENOTDIR, errno.ELOOP, errno.EIO)


@dataclass(frozen=True, slots=True)
class Image:
    """facts: for the policy; their digest is "" for a directory. rootfs: where it is unpacked."""

    facts: ImageFacts
    rootfs: Path


@dataclass(frozen=True, slots=True)
class Images:
    """The images of one backend. directory: where they are unpacked."""

    directory: Path
    machine: Machine

    async def look_up(self, reference: str) -> Image:
        """The image that a path names ("LAYOUT" or "LAYOUT:NAME" in an OCI layout, where the name
        may be the digest of a manifest).

        ImageNotFoundError when nothing is there, PolicyDeniedError for a directory of the host's
        own, ImageError when it is damaged or cannot be unpacked. Cancellation leaves nothing half
        made.
        """
        try:
            return await self._look_up(reference)
        except OSError as error:
            if error.errno not in _UNREADABLE:
                raise
            where = error.filename or reference
            raise ImageError(
                f"image: {where} cannot be read: {error.strerror}", op="create"
            ) from None

    async def _look_up(self, reference: str) -> Image:
        path, name = _path(reference)
        if _is_layout(path):
            return await self._layout(path, name)
        if path.is_dir():
            return Image(_facts(""), path)
        digest = await asyncio.to_thread(self._digest, path)
        return Image(_facts(digest), await self._unpacked(digest, [path]))

    async def _layout(self, layout: Path, name: str | None) -> Image:
        manifest = await asyncio.to_thread(layouts.find, layout, name, architecture=_architecture())
        config = await asyncio.to_thread(layouts.document_at, layout, manifest.config)
        digest = str(manifest.descriptor.digest)
        inner = config.get("config") or {}
        if not isinstance(inner, dict):
            raise ImageError(f"image: {layout} is damaged: its config is no object", op="create")
        if not _is_environment(inner.get("Env") or []):
            raise ImageError(
                f"image: {layout} is damaged: its Env is no list of texts", op="create"
            )
        rootfs = await self._unpacked(digest, manifest.layers, layout)
        return Image(_facts(digest, inner), rootfs)

    def _digest(self, path: Path) -> str:
        """Of an archive; remembered for as long as the file is the same."""
        status = path.stat()
        times = status.st_mtime_ns, status.st_ctime_ns
        same = f"{path}:{status.st_dev}:{status.st_ino}:{status.st_size}:{times}"
        note = self.directory / "known" / hashlib.sha256(os.fsencode(same)).hexdigest()
        with suppress(OSError, ValueError):  # there is none, or a crash has cut it short
            return Digest.parse(note.read_text())
        digest = digest_file(path)
        note.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = Path(f"{note}.{os.urandom(8).hex()}")
        new.write_text(digest)
        new.rename(note)
        return digest

    async def _unpacked(
        self, digest: str, parts: Sequence[Path | Descriptor], layout: Path = Path()
    ) -> Path:
        """Where an image of these parts is, unpacked when it is not there yet: then those that
        nobody wanted for long go, meanwhile."""
        rootfs = self.directory / digest.replace(":", "-")
        if await asyncio.to_thread(self._use, rootfs):
            return rootfs
        older = unpacked.kept_seconds()
        new = await asyncio.to_thread(self._new)
        try:
            unpacking = Unpacking(self.machine, new / "rootfs")
            for part in parts:
                archive = await _held(part, Digest(digest), layout, new)
                with archive.file:
                    await unpacking.add(archive, layer=not isinstance(part, Path))
                    archive.require_unchanged()
            await unpacking.name_localhost()
            # It goes on in its thread when this is cancelled, and half of it must not be removed.
            await finish(asyncio.to_thread(_move, new / "rootfs", rootfs))
        finally:
            await asyncio.to_thread(owned.remove, new)
        if older is not None:
            loop = asyncio.get_running_loop()
            loop.run_in_executor(None, unpacked.drop, self.directory.parent, older)
        return rootfs

    def _use(self, rootfs: Path) -> bool:
        self._close()
        return unpacked.use(rootfs)

    def _close(self) -> None:
        """Nobody else may enter: an image may hold programs that would run as root out there."""
        self.directory.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        make_private(self.directory)

    def _new(self) -> Path:
        self._close()
        owned.sweep(self.directory, NEW)
        new = Path(tempfile.mkdtemp(prefix=f"{NEW}{mark()}-", dir=self.directory))
        (new / "rootfs").mkdir(mode=0o755)
        return new


def _sync(path: Path) -> None:
    """Write all of the file system that `path` is on to its disk: syncfs(2). OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(descriptor) != 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error), str(path))
    finally:
        os.close(descriptor)


def _move(source: Path, target: Path) -> None:
    """Its digest names the target, so that nobody looks into it again: first it is on the disk."""
    try:
        source.chmod(0o755)  # the archive may have said that not even we may move it
        os.utime(source)  # it may have said of its root when that was last changed, too
        _sync(source)
        source.rename(target)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise ImageError(
                f"image: {target} cannot be made: {error.strerror}", op="create"
            ) from None
        # Another process has unpacked the same.


async def _held(part: Path | Descriptor, digest: Digest, layout: Path, scratch: Path) -> Archive:
    """As `_verified`, in a thread. One that is not waited for any more closes its file."""
    verifying = asyncio.ensure_future(asyncio.to_thread(_verified, part, digest, layout, scratch))
    try:
        return await asyncio.shield(verifying)
    except asyncio.CancelledError:
        verifying.add_done_callback(_closed)
        raise


def _closed(verifying: "asyncio.Future[Archive]") -> None:
    if not verifying.cancelled() and verifying.exception() is None:
        verifying.result().file.close()


def _verified(part: Path | Descriptor, digest: Digest, layout: Path, scratch: Path) -> Archive:
    """A part of an image, verified: an archive with this digest, or a layer. ImageError."""
    if isinstance(part, Path):
        return verified(part, digest, None, scratch)
    blob = layout / "blobs" / part.digest.algorithm / part.digest.encoded
    return verified(blob, part.digest, part.size, scratch)


def _is_layout(path: Path) -> bool:
    """OSError where that cannot be told: `Path.is_file` says no then, since Python 3.14 always."""
    try:
        return stat.S_ISREG((path / "oci-layout").stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _path(reference: str) -> tuple[Path, str | None]:
    """The path, and the image's name in a layout."""
    for colon in (at for at, letter in enumerate(reference) if letter == ":" and at):
        place, name = reference[:colon], reference[colon + 1 :]
        if (Path(place) / "oci-layout").is_file() and not Path(reference).exists():
            return _source(place), name
    if "/" not in reference and not Path(reference).exists():
        raise ImageNotFoundError(
            f"image: {reference!r} is no file: the process backend takes a directory, a tar or an"
            " OCI layout of a root file system; images by name are the docker backend's",
            op="open",
            context={"image": reference},
        )
    try:
        return _source(reference), None
    except InvalidSpecError as error:
        raise ImageNotFoundError(
            f"image: {error.message.partition(': ')[2]}", op="open", context={"image": reference}
        ) from None


def _source(reference: str) -> Path:
    """The resolved path, which may be bound; or our own store, of which only an image goes in."""
    store = state_directory() / "store"
    if (store / "oci-layout").is_file() and Path(reference).resolve() == store.resolve():
        return store
    return check_source(reference)


def _architecture() -> str:
    machine = platform.machine()
    return _ARCHITECTURES.get(machine, machine)


def _is_environment(entries: object) -> bool:
    return isinstance(entries, list) and all(isinstance(entry, str) for entry in entries)


def _facts(digest: str, config: dict[str, Any] | None = None) -> ImageFacts:
    config = config or {}
    pairs = (entry.partition("=") for entry in config.get("Env") or ())
    return ImageFacts(
        digest=digest,
        user=str(config.get("User") or ""),
        env={name: value for name, _, value in pairs},
        cwd=str(config.get("WorkingDir") or ""),
        architecture=_architecture(),
    )
