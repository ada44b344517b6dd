"""Hard links that are made while the tree is still being walked.

A link costs the kernel as much time as the walk needs for a file. Another process makes them, so
that both go on at once; small trees are not worth one, and are staged when the walk is over.
"""

import marshal
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ringfence.workspace import linker
from ringfence.workspace.beneath import remove_tree
from ringfence.workspace.entries import DIRECTORY, FILE, Entry
from ringfence.workspace.stopping import Check, always

FEW = 2000
"""Entries of a tree that is not worth a process."""
WRITE_BYTES = 1 << 14
"""What is worth waking it for."""
_SECONDS = 300.0
_LINKS_A_SECOND = 500
_LOOK_SECONDS = 0.2
_PIPE_BYTES = 1 << 20
_VERSION = 2

Begun = dict[str, list[str]]
"""Directories that are there, by path, and the names of the files that were linked in each: they
are the ones that were chosen, each still the same file."""


def is_linked(entry: Entry) -> bool:
    """Whether `Linking` links it."""
    return entry.kind == FILE and entry.mode & 0o7000 == 0


def is_possible() -> bool:
    """Whether another process can go on meanwhile."""
    return len(os.sched_getaffinity(0)) > 1 and _program() is not None


def _program() -> list[str] | None:
    script = Path(linker.__file__)
    if not sys.executable or not script.is_file():
        return None
    return [sys.executable, "-I", "-S", str(script)]


class Linking:
    """Links files of the tree `root` into the empty directory `target` (both descriptors, which
    stay the caller's), until `close`."""

    def __init__(self, root: int, target: int) -> None:
        self.root, self.target = root, target
        self._begun: Begun = {}
        self._waiting: list[bytes] = []
        self._bytes = 0
        self._count = 0
        self._process: subprocess.Popen[bytes] | None = None

    def close(self) -> None:
        """End the process, whatever it has done."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def add(self, path: str, entries: Sequence[Entry]) -> None:
        """Link the files of one directory; directories come before what they hold."""
        start = len(path) + 1 if path else 0
        directories = [entry.path[start:] for entry in entries if entry.kind == DIRECTORY]
        linked = [entry for entry in entries if is_linked(entry)]
        files = [entry.path[start:] for entry in linked]
        inodes = [entry.inode for entry in linked]
        self._begun[path] = files
        self._count += len(entries)
        piece = marshal.dumps((path, directories, files, inodes), _VERSION)
        self._waiting.append(piece)
        self._bytes += len(piece)
        if self._count > FEW and self._bytes > WRITE_BYTES:
            self._write()

    def _write(self) -> None:
        if self._process is None:
            self._process = self._started()
        rest = memoryview(b"".join(self._waiting))
        self._waiting.clear()
        self._bytes = 0
        try:
            while rest and self._process.stdin is not None:
                rest = rest[self._process.stdin.write(rest) :]  # a signal may cut it short
        except BrokenPipeError:  # it has ended, and `finish` tells
            pass

    def _started(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*(_program() or ()), str(self.root), str(self.target)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=(self.root, self.target),
            pipesize=_PIPE_BYTES,
            bufsize=0,
            env={},
        )

    def finish(self, check: Check = always) -> Begun:
        """What was made, without what cannot be linked; nothing, and an empty directory, when
        something else failed. It blocks."""
        if self._process is None:
            return {}
        self._write()
        told = b""
        ends = time.monotonic() + _SECONDS + self._count / _LINKS_A_SECOND
        while self._process.returncode is None and time.monotonic() < ends:
            check()
            with suppress(subprocess.TimeoutExpired):
                told, _ = self._process.communicate(timeout=_LOOK_SECONDS)
        done = self._process.returncode == 0
        self.close()
        if done:
            return self._without(told)
        with os.scandir(self.target) as found:
            names = [entry.name for entry in found]
        for name in names:
            remove_tree(self.target, name)
        return {}

    def _without(self, told: bytes) -> Begun:
        """What was asked for but for what the process told that it cannot link."""
        refused: Begun = marshal.loads(told) if told else {}  # noqa: S302 - our own program's bytes
        for path, names in refused.items():
            left = set(names)
            self._begun[path] = [name for name in self._begun[path] if name not in left]
        return self._begun
