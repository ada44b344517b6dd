"""What stands in the directories of a tree now: asked of the guest program, which does it several
times as fast as Python."""

import os
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import NamedTuple

from ringfence.guest import build
from ringfence.workspace.stopping import Check, always

_LOOK_SECONDS = 0.2
_PROCESSES = 2


class Listing(NamedTuple):
    """names, rows: as `ringfence-guest --list` writes them; see `rows`."""

    names: bytes
    rows: bytes


def list_again(
    root: int, directories: Sequence[bytes], most: int, check: Check = always
) -> Listing | None:
    """All that is in some directories below the descriptor `root`, not below these, in their order.

    None when it cannot be told, or is more than `most` names in a half of them. It blocks; what
    `check` raises ends it.
    """
    try:
        return _listed(root, directories, most, check)
    except OSError:
        return None


def _listed(root: int, directories: Sequence[bytes], most: int, check: Check) -> Listing | None:
    count = min(_PROCESSES, len(os.sched_getaffinity(0)), len(directories))
    each = -(-len(directories) // max(count, 1))
    with ExitStack() as until:
        parts = [
            until.enter_context(_Part(root, directories[start : start + each], most))
            for start in range(0, len(directories), max(each, 1))
        ]
        if not all(part.done(check) for part in parts):
            return None
        names, rows = zip(*(part.found() for part in parts), strict=True)
    return Listing(b"".join(names), b"".join(rows))


class _Part:
    """One process that lists some of the directories. OSError when it cannot be started."""

    def __init__(self, root: int, directories: Sequence[bytes], most: int) -> None:
        with ExitStack() as until_made:
            self._names, self._rows, asked = (
                self._file(until_made, name) for name in ("names", "rows", "directories")
            )
            with os.fdopen(os.dup(asked), "wb") as file:
                file.write(b"\0".join([*directories, b""]))
            os.lseek(asked, 0, os.SEEK_SET)
            arguments = map(str, (root, self._names, most))
            self._process = subprocess.Popen(
                [str(build.target()), "--list", *arguments],
                stdin=asked,
                stdout=self._rows,
                stderr=subprocess.PIPE,
                pass_fds=(root, self._names),
                env={},
            )
            self._files = until_made.pop_all()

    @staticmethod
    def _file(until: ExitStack, name: str) -> int:
        descriptor = os.memfd_create(name)
        until.callback(os.close, descriptor)
        return descriptor

    def __enter__(self) -> "_Part":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._files.close()

    def done(self, check: Check) -> bool:
        """Wait for its end; whether it told all."""
        while self._process.returncode is None:
            check()
            with suppress(subprocess.TimeoutExpired):
                self._process.communicate(timeout=_LOOK_SECONDS)
        return self._process.returncode == 0

    def found(self) -> tuple[bytes, bytes]:
        """What it told."""
        return _read(self._names), _read(self._rows)


def _read(descriptor: int) -> bytes:
    with os.fdopen(os.dup(descriptor), "rb") as file:
        file.seek(0)
        return file.read()
