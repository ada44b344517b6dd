"""Images of the process backend: a root file system as a directory, or as a tar that is unpacked.

A tar is unpacked once, by the host's tar inside a sandbox of its own that sees nothing but the
archive and the new directory, and kept by its digest.
"""

import asyncio
import errno
import hashlib
import os
import platform
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ringfence.backends.process.machine import Machine
from ringfence.backends.sources import check_source
from ringfence.errors import ImageError, ImageNotFoundError, InvalidSpecError
from ringfence.policy.facts import ImageFacts

_CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID")
_SYSTEM = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_NAMESPACES = ("pid", "net", "ipc", "uts", "cgroup")
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_SHOWN = 500


@dataclass(frozen=True, slots=True)
class Image:
    """facts: for the policy; their digest is "" for a directory. rootfs: where it is unpacked."""

    facts: ImageFacts
    rootfs: Path


@dataclass(frozen=True, slots=True)
class Images:
    """The images of one backend. directory: where tars are unpacked."""

    directory: Path
    machine: Machine

    async def look_up(self, reference: str) -> Image:
        """The image that a path names, unpacked when it is a tar.

        ImageNotFoundError when nothing is there, PolicyDeniedError for a directory of the host's
        own, ImageError when a tar cannot be unpacked. Cancellation leaves nothing half made.
        """
        path = _path(reference)
        if path.is_dir():
            return Image(_facts(""), path)
        digest = await asyncio.to_thread(self._digest, path)
        rootfs = self.directory / digest.replace(":", "-")
        if not rootfs.is_dir():
            await self._unpack(path, rootfs)
        return Image(_facts(digest), rootfs)

    def _digest(self, path: Path) -> str:
        """Of the archive; remembered for as long as the file is the same."""
        status = path.stat()
        same = f"{path}:{status.st_ino}:{status.st_size}:{status.st_mtime_ns}"
        note = self.directory / "known" / hashlib.sha256(os.fsencode(same)).hexdigest()
        if note.exists():
            return note.read_text()
        with path.open("rb") as file:
            digest = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        note.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        new = Path(f"{note}.{os.getpid()}")
        new.write_text(digest)
        new.rename(note)
        return digest

    async def _unpack(self, archive: Path, rootfs: Path) -> None:
        new = Path(tempfile.mkdtemp(prefix=".new-", dir=self.directory))
        try:
            inside = new / "rootfs"
            inside.mkdir(mode=0o755)
            await _run(self._tar(archive, inside), archive)
            inside.rename(rootfs)
        except OSError as error:
            if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
                return  # another process has unpacked the same
            raise ImageError(
                f"image: {archive} cannot be unpacked: {error.strerror}", op="create"
            ) from None
        finally:
            shutil.rmtree(new, ignore_errors=True)

    def _tar(self, archive: Path, target: Path) -> list[str]:
        args = [self.machine.bwrap, "--new-session", "--cap-drop", "ALL"]
        args += [f"--unshare-{name}" for name in _NAMESPACES]
        if self.machine.privileged:
            owner = ["--same-owner", "--numeric-owner"]
            for name in _CAPABILITIES:
                args += ["--cap-add", f"CAP_{name}"]
        else:
            owner = ["--no-same-owner"]
            args.append("--unshare-user")
        args += ["--ro-bind", "/usr", "/usr"]
        for name in _SYSTEM:
            path = Path("/", name)
            if path.is_symlink():
                args += ["--symlink", str(path.readlink()), str(path)]
            elif path.is_dir():
                args += ["--ro-bind", str(path), str(path)]
        args += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]  # noqa: S108 - names inside the sandbox
        args += ["--ro-bind", str(archive), "/image", "--bind", str(target), "/rootfs"]
        command = ["tar", "--extract", "--file", "/image", "--directory", "/rootfs", "-p"]
        return [*args, "--", *command, *owner, "--exclude", "./dev/*", "--exclude", "dev/*"]


def _path(reference: str) -> Path:
    if "/" not in reference and not Path(reference).exists():
        raise ImageNotFoundError(
            f"image: {reference!r} is no file: the process backend takes a directory or a tar of a"
            " root file system; images by name are the docker backend's",
            op="open",
            context={"image": reference},
        )
    try:
        path = check_source(reference)
    except InvalidSpecError as error:
        raise ImageNotFoundError(
            f"image: {error.message.partition(': ')[2]}", op="open", context={"image": reference}
        ) from None
    if (path / "oci-layout").exists():
        raise ImageError(
            f"image: {path} is an OCI layout: unpack it first, for example with `umoci unpack`,"
            " and name its rootfs directory",
            op="open",
        )
    return path


def _facts(digest: str) -> ImageFacts:
    machine = platform.machine()
    return ImageFacts(digest=digest, architecture=_ARCHITECTURES.get(machine, machine))


async def _run(args: list[str], archive: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *args,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": os.defpath},
    )
    try:
        _, errors = await process.communicate()
    except BaseException:
        if process.returncode is None:
            process.kill()
        await asyncio.shield(process.wait())
        raise
    if process.returncode != 0:
        said = errors.decode("utf-8", "replace").strip()[:_SHOWN]
        raise ImageError(f"image: {archive} cannot be unpacked: {said}", op="create")
