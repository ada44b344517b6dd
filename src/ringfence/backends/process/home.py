"""The directory of one sandbox: what its keeper and whoever looks for it share.

    ID/run/       bound read-only into the sandbox: the guest's program, the socket that it dials
    ID/keeper     locked by the keeper while it lives
    ID/info       the guest's pid, written by whoever starts it
    ID/sandbox    labels and the like, for `found`

The keeper removes all of it when the sandbox has ended.
"""

import contextlib
import errno
import fcntl
import json
import os
import shutil
import struct
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ringfence.backends.owner import Owner
from ringfence.backends.process import binary, memory
from ringfence.errors import AlreadyExistsError
from ringfence.metrics.places import read_value

_FLOCK = struct.Struct("hhqqi4x")
_YOUNG_SECONDS = 60.0
_TRIES = 100
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_FILES = ("run/guest", "run/host.sock", "sandbox", "info", "keeper")


@dataclass(frozen=True, slots=True)
class Home:
    """One sandbox's directory, there or not."""

    path: Path

    @property
    def run(self) -> Path:
        """The directory that is bound into the sandbox."""
        return self.path / "run"

    @property
    def id(self) -> str:
        """The sandbox's id."""
        return self.path.name

    def make(self, facts: Mapping[str, Any], guest: str) -> bool:
        """Make it, with `facts` for `found`. AlreadyExistsError, OSError; neither leaves it there.

        False when it has no link to the program `guest`, only a place to bind it to.
        """
        self._make_directory(str(self.path))
        try:
            return self._fill(facts, guest)
        except BaseException:
            self.remove()
            raise

    def _fill(self, facts: Mapping[str, Any], guest: str) -> bool:
        path = str(self.path)
        os.mkdir(f"{path}/run")  # noqa: PTH102 - a start does it
        os.chmod(f"{path}/run", 0o711)  # noqa: PTH101, S103 - whatever the caller's umask is
        descriptor = os.open(f"{path}/sandbox", _NEW, 0o644)
        try:
            os.write(descriptor, json.dumps(facts).encode())
        finally:
            os.close(descriptor)
        return self._link(guest, f"{path}/run/guest")

    def _link(self, program: str, name: str) -> bool:
        home = str(self.path)
        with contextlib.suppress(OSError):  # of the first sandbox there it is not made yet
            os.link(binary.name_beside(program, home), name)
            return True
        try:
            os.link(program, name)
        except OSError as error:  # another owner's, another file system, or too many links
            if error.errno == errno.EXDEV:
                with contextlib.suppress(OSError):
                    os.link(binary.beside(program, home), name)
                    return True
            os.close(os.open(name, _NEW, 0o644))
            return False
        return True

    def _make_directory(self, path: str) -> None:
        for _ in range(_TRIES):
            try:
                os.mkdir(path, 0o711)  # noqa: PTH102
            except FileNotFoundError:  # the last sandbox ended meanwhile, and took it along
                memory.ready(self.path.parent)
            except FileExistsError:
                break
            else:
                if memory.ours(self.path.parent):
                    return
        raise AlreadyExistsError(
            f"there is a sandbox {self.id} already: choose another id",
            op="create",
            sandbox_id=self.id,
        )

    def facts(self) -> dict[str, Any] | None:
        """What `make` was given, None when that is gone or not whole."""
        try:
            found = json.loads((self.path / "sandbox").read_bytes())
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def guest(self) -> int | None:
        """The guest's pid as it was told at its start, None when it was not yet."""
        try:
            pid = json.loads(read_value(f"{self.path}/info"))["child-pid"]
        except (FileNotFoundError, ValueError, KeyError):
            return None
        return int(pid)

    def keeper(self) -> int | None:
        """The pid of the keeper that lives, by the lock it holds."""
        try:
            descriptor = os.open(self.path / "keeper", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            kind, _, _, _, pid = _FLOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
        finally:
            os.close(descriptor)
        return None if kind == fcntl.F_UNLCK else int(pid)

    def remove(self) -> None:
        """Remove what is left of it, even when no descriptor can be had. Idempotent."""
        with contextlib.suppress(OSError):
            for name in _FILES:
                (self.path / name).unlink(missing_ok=True)
            self.run.rmdir()
            self.path.rmdir()
        if self.path.exists():
            shutil.rmtree(self.path, ignore_errors=True)


def homes(root: Path) -> Iterator[Home]:
    """The directories of all sandboxes below `root`."""
    with contextlib.suppress(FileNotFoundError), os.scandir(root) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield Home(Path(entry.path))


def maker() -> list[Any]:
    """Who makes a sandbox, as its `facts` say it."""
    me = Owner.me()
    return [me.pid, me.start, me.boot]


def abandoned(root: Path) -> Iterator[Home]:
    """Directories that no keeper looks after any more. Without one, a young one may be in the
    making, unless its maker has ended."""
    now = time.time()
    for home in homes(root):
        with contextlib.suppress(OSError):
            old = now - home.path.stat().st_mtime > _YOUNG_SECONDS
            if (old or _orphaned(home)) and home.keeper() is None:
                yield home


def _orphaned(home: Home) -> bool:
    known = (home.facts() or {}).get("maker")
    return known is not None and not Owner(*known).alive()
