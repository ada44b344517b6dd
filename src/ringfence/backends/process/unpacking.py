"""Archives are unpacked by the host's own tar, in a sandbox that sees them and the new directory.

What an archive holds is hostile: a name or a link in it leads nowhere but into that sandbox.
"""

import asyncio
import os
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ringfence.backends.hosts import LOCALHOST
from ringfence.backends.process.archives import Archive
from ringfence.backends.process.bubblewrap import NAMESPACES
from ringfence.backends.process.machine import Machine
from ringfence.backends.process.root import SYSTEM
from ringfence.errors import ImageError

_CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID")
_LINKED = ("run", "var", "opt", "srv")
"""Where links of images lead, as from /var/run, and nothing of the host's own tools looks."""
_ROOT = "/rootfs"
_ARCHIVE = "/dev/stdin"
"""Opened by its name, a file there can be read from its beginning each time."""
_WHITEOUT = b".wh."
_OPAQUE = b".wh..wh..opq"
_SHOWN = 500
_READ_BYTES = 2**16
_MOST_PRINTED = 256 * 2**20
"""Bytes of the names of one layer: a million files take a third of it."""
_MOST_MEMORY = 2**30
"""Bytes of each program that reads an archive: tar takes 400 for a link, or all that a name has."""
_BOUNDED = 'ulimit -v "$1" 2> /dev/null; shift; exec "$@"'
_REMOVE = """\
for line; do
  path=${line#?}
  case $line in
    o*) if [ -d "$path" ]; then find "$path/" -mindepth 1 -delete; fi ;;
    w*) rm -rf -- "$path" ;;
    r*) if [ -d "$path" ] && [ ! -L "$path" ]; then rm -rf -- "$path"; fi ;;
  esac
done"""
_HOSTS = """\
cd /rootfs && [ "$(ls -A)" ] || exit 0
if [ ! -e etc ] && [ ! -L etc ]; then mkdir -m 755 etc; fi
if [ -d etc ] && [ ! -L etc ] && [ ! -s etc/hosts ] && [ ! -L etc/hosts ]; then
  rm -f etc/hosts && printf %s "$1" > etc/hosts && chmod 644 etc/hosts
fi"""
_ESCAPED = re.compile(rb"\\([0-7]{3}|.)")
_LETTERS = dict(zip(b"abfnrtv", b"\a\b\f\n\r\t\v", strict=True))


@dataclass(frozen=True, slots=True)
class Unpacking:
    """One directory that archives are unpacked into, each over the ones before."""

    machine: Machine
    target: Path

    async def add(self, archive: Archive, *, layer: bool = False) -> None:
        """Unpack a tar, compressed or not; a layer's whiteouts remove what is below them.

        What is no directory takes the place of one below it. ImageError with tar's words.
        Cancellation ends it.
        """
        options = ["--anchored"]
        for top in ("", "./", "/"):
            options += ["--exclude", f"{top}dev/*"]
        if layer:
            listing = ["tar", "--list", "--quoting-style=escape", "--file", _ARCHIVE]
            names = await self._run(listing, archive.path, archive.file.fileno())
            await self._remove(map(_unescaped, names.splitlines()), archive.path)
            options += ["--no-anchored", "--exclude", ".wh.*"]
        owner = (
            ["--same-owner", "--numeric-owner"] if self.machine.privileged else ["--no-same-owner"]
        )
        where = ["--file", _ARCHIVE, "--directory", _ROOT]
        command = ["tar", "--extract", "-p", *where, *owner, *options]
        await self._run(command, archive.path, archive.file.fileno())

    async def _remove(self, names: Iterable[bytes], path: Path) -> None:
        """Of what is there, what a layer with these names hides or replaces."""
        gone = []
        for name in names:
            directory, _, last = name.rpartition(b"/")
            place = os.fsencode(_ROOT) + b"/" + directory
            if last == _OPAQUE:
                gone.append(b"o" + place)
            elif last.startswith(_WHITEOUT):
                gone.append(b"w" + place + b"/" + last.removeprefix(_WHITEOUT))
            elif last:
                gone.append(b"r" + place + b"/" + last)
        if gone:
            command = ["xargs", "-0", "sh", "-c", _REMOVE, "sh"]
            await self._run(command, path, b"\0".join(gone) + b"\0")

    async def name_localhost(self) -> None:
        """Give it the file that a container's runtime makes, where it has none: /etc/hosts."""
        await self._run(["sh", "-c", _HOSTS, "sh", LOCALHOST], self.target)

    async def _run(self, command: Sequence[str], path: Path, stdin: bytes | int = b"") -> bytes:
        """What a command in the sandbox prints. stdin: what it reads, or the file that it does."""
        process = await asyncio.create_subprocess_exec(
            *self._confined(),
            *command,
            stdin=stdin if isinstance(stdin, int) else asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"PATH": os.defpath, "LC_ALL": "C"},
        )
        try:
            output, errors, _ = await asyncio.gather(
                _beginning(process.stdout, _MOST_PRINTED + 1),
                _beginning(process.stderr, _SHOWN),
                _fed(process.stdin, stdin),
            )
            await process.wait()
        except BaseException:
            if process.returncode is None:
                process.kill()
            await asyncio.shield(process.wait())
            raise
        if process.returncode != 0:
            said = errors.decode("utf-8", "replace").strip()
            raise ImageError(f"image: {path} cannot be unpacked: {said}", op="create")
        if len(output) > _MOST_PRINTED:
            raise ImageError(f"image: {path} holds too many names", op="create")
        return output

    def _confined(self) -> list[str]:
        args = [self.machine.bwrap, "--new-session", "--die-with-parent", "--cap-drop", "ALL"]
        args += [f"--unshare-{name}" for name in NAMESPACES]
        if self.machine.privileged:
            for name in _CAPABILITIES:
                args += ["--cap-add", f"CAP_{name}"]
        else:  # there it opens what is this user's own: directories that say read-only
            args += ["--unshare-user", "--cap-add", "CAP_DAC_OVERRIDE"]
        args += ["--ro-bind", "/usr", "/usr"]
        for name in SYSTEM:
            path = Path("/", name)
            if path.is_symlink():
                args += ["--symlink", str(path.readlink()), str(path)]
            elif path.is_dir():
                args += ["--ro-bind", str(path), str(path)]
        for name in _LINKED:
            args += ["--symlink", f"{_ROOT}/{name}", f"/{name}"]
        args += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]  # noqa: S108 - names inside the sandbox
        args += ["--bind", str(self.target), _ROOT, "--"]
        return [*args, "sh", "-c", _BOUNDED, "sh", str(_MOST_MEMORY // 1024)]


async def _beginning(stream: asyncio.StreamReader | None, most: int) -> bytes:
    """The first bytes of a stream that is read to its end: a hostile archive says much."""
    kept = bytearray()
    while stream is not None and (data := await stream.read(_READ_BYTES)):
        kept += data[: most - len(kept)]
    return bytes(kept)


async def _fed(stream: asyncio.StreamWriter | None, data: bytes | int) -> None:
    if stream is not None and isinstance(data, bytes):
        with suppress(ConnectionError):
            stream.write(data)
            await stream.drain()
        stream.close()


def _unescaped(name: bytes) -> bytes:
    """A name as tar lists it in its style "escape"."""

    def byte(found: re.Match[bytes]) -> bytes:
        text = found[1]
        return bytes([int(text, 8) if len(text) == 3 else _LETTERS.get(text[0], text[0])])

    return _ESCAPED.sub(byte, name)
