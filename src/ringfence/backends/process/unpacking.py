"""Archives are unpacked by the host's own tar, in a sandbox that sees them and the new directory.

What an archive holds is hostile: a name or a link in it leads nowhere but into that sandbox.
"""

import asyncio
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ringfence.backends.process.machine import Machine
from ringfence.errors import ImageError

_CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID")
_NAMESPACES = ("pid", "net", "ipc", "uts", "cgroup")
_SYSTEM = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_ROOT = "/rootfs"
_ARCHIVE = "/archive"
_WHITEOUT = b".wh."
_OPAQUE = b".wh..wh..opq"
_SHOWN = 500
_REMOVE = """\
for path; do
  case $path in
    */) if [ -d "$path" ]; then find "$path" -mindepth 1 -delete; fi ;;
    *) rm -rf -- "$path" ;;
  esac
done"""


@dataclass(frozen=True, slots=True)
class Unpacking:
    """One directory that archives are unpacked into, each over the ones before."""

    machine: Machine
    target: Path

    async def add(self, archive: Path, *, layer: bool = False) -> None:
        """Unpack a tar, compressed or not; a layer's whiteouts remove what is below them.

        ImageError with tar's words. Cancellation ends it.
        """
        options = ["--exclude", "./dev/*", "--exclude", "dev/*"]
        if layer:
            names = await self._run(["tar", "--list", "--file", _ARCHIVE], archive)
            await self._remove(names.splitlines(), archive)
            options += ["--exclude", ".wh.*"]
        owner = (
            ["--same-owner", "--numeric-owner"] if self.machine.privileged else ["--no-same-owner"]
        )
        where = ["--file", _ARCHIVE, "--directory", _ROOT]
        await self._run(["tar", "--extract", "-p", *where, *owner, *options], archive)

    async def _remove(self, names: Iterable[bytes], archive: Path) -> None:
        gone = []
        for name in names:
            directory, _, last = name.rpartition(b"/")
            place = os.fsencode(_ROOT) + b"/" + directory
            if last == _OPAQUE:
                gone.append(place + b"/")
            elif last.startswith(_WHITEOUT):
                gone.append(place + b"/" + last.removeprefix(_WHITEOUT))
        if gone:
            command = ["xargs", "-0", "sh", "-c", _REMOVE, "sh"]
            await self._run(command, archive, b"\0".join(gone) + b"\0")

    async def _run(self, command: Sequence[str], archive: Path, stdin: bytes = b"") -> bytes:
        process = await asyncio.create_subprocess_exec(
            *self._confined(archive),
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"PATH": os.defpath, "LC_ALL": "C"},
        )
        try:
            output, errors = await process.communicate(stdin)
        except BaseException:
            if process.returncode is None:
                process.kill()
            await asyncio.shield(process.wait())
            raise
        if process.returncode != 0:
            said = errors.decode("utf-8", "replace").strip()[:_SHOWN]
            raise ImageError(f"image: {archive} cannot be unpacked: {said}", op="create")
        return output

    def _confined(self, archive: Path) -> list[str]:
        args = [self.machine.bwrap, "--new-session", "--die-with-parent", "--cap-drop", "ALL"]
        args += [f"--unshare-{name}" for name in _NAMESPACES]
        if self.machine.privileged:
            for name in _CAPABILITIES:
                args += ["--cap-add", f"CAP_{name}"]
        else:
            args.append("--unshare-user")
        args += ["--ro-bind", "/usr", "/usr"]
        for name in _SYSTEM:
            path = Path("/", name)
            if path.is_symlink():
                args += ["--symlink", str(path.readlink()), str(path)]
            elif path.is_dir():
                args += ["--ro-bind", str(path), str(path)]
        args += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]  # noqa: S108 - names inside the sandbox
        args += ["--ro-bind", str(archive), _ARCHIVE, "--bind", str(self.target), _ROOT]
        return [*args, "--"]
