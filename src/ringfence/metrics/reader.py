"""Usage of one sandbox from kept descriptors: an open once, then a pread per file."""

import contextlib
import errno
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from ringfence.errors import NotFoundError
from ringfence.metrics import parse
from ringfence.metrics.below import Below
from ringfence.metrics.places import Place, places_apart, unified_controllers
from ringfence.spec import Usage

_READ_BYTES = 64 * 1024
_GONE = (errno.ENODEV, errno.ENOENT, errno.ESRCH)


@dataclass(frozen=True, slots=True)
class _Source:
    """An open file and how to read it."""

    descriptor: int
    parse: parse.Parse


class Reader:
    """Reads the usage of one sandbox, any number of times; `reader_for` makes it.

    It holds some fifteen descriptors until `close`. What the machine has no file for stays None.
    below: of version 2 the cgroups of the guest and of commands, which do not count in all of its
    files; None for version 1.
    """

    def __init__(
        self,
        sources: list[_Source],
        procs: str | None,
        born: float | None,
        below: Below | None = None,
    ) -> None:
        self._sources = sources
        self._procs = procs
        self._born = born
        self._below = below

    @property
    def blind(self) -> bool:
        """Whether it has no file to read: it was closed, or there was none."""
        return not self._sources

    def read(self) -> Usage:
        """The usage now, in about 0.05 ms. NotFoundError when its cgroups are gone or closed."""
        if self.blind:
            raise NotFoundError("usage: its reader is closed", op="usage")
        values: dict[str, Any] = {}
        for source in self._sources:
            try:
                data = os.pread(source.descriptor, _READ_BYTES, 0)
            except OSError as error:
                if error.errno in _GONE:
                    raise NotFoundError("usage: the sandbox has ended", op="usage") from None
                raise
            values.update(source.parse(data))
        if self._below is not None:
            self._add(self._below, values)
        if self._born is not None:
            values["uptime"] = max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - self._born)
        return Usage(**values)

    def _add(self, below: Below, values: dict[str, Any]) -> None:
        try:
            more = below.read()
        except OSError as error:
            if error.errno in _GONE:
                raise NotFoundError("usage: the sandbox has ended", op="usage") from None
            raise
        for field, number in more.items():
            if values.get(field) is not None:
                values[field] += number

    def open_files(self) -> int | None:
        """How many descriptors its processes hold open, None without the right to look."""
        if self._procs is None:
            return None
        total = 0
        try:
            for pid in self._pids(self._procs):
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                    total += len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 - counted, not walked
        except PermissionError:
            return None
        except OSError as error:
            if error.errno in _GONE:
                raise NotFoundError("usage: the sandbox has ended", op="usage") from None
            raise
        return total

    def _pids(self, procs: str) -> list[str]:
        found = Path(procs).read_text().split()
        for directory in self._below.directories() if self._below else ():
            with contextlib.suppress(OSError):
                found += Path(directory, "cgroup.procs").read_text().split()
        return found

    def close(self) -> None:
        """Close the descriptors. Idempotent."""
        while self._sources:
            os.close(self._sources.pop().descriptor)
        if self._below is not None:
            self._below.close()
            self._below = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def reader_for(pid: int) -> Reader:
    """A reader for the sandbox whose first process is `pid` on this machine.

    A cgroup that it shares with this process, or a hierarchy's root, says nothing of a sandbox and
    is left out. Raises NotFoundError when there is no such process, and when nothing is its own.
    """
    try:
        reader = reader_of(places_apart(pid), pid)
    except ProcessLookupError as error:
        raise NotFoundError(f"usage: {error}", op="usage") from None
    if reader.blind:
        reader.close()
        raise NotFoundError(
            f"usage: process {pid} has no cgroup and no network of its own to read", op="usage"
        )
    return reader


def reader_of(places: Mapping[str, Place], pid: int | None = None) -> Reader:
    """A reader for cgroups that are known; `pid`, when given, tells of network and uptime."""
    sources: list[_Source] = []
    procs = None
    try:
        for directory, file, how in _files(places):
            descriptor = _open(f"{directory}/{file}")
            if descriptor is not None:
                sources.append(_Source(descriptor, how))
                procs = f"{directory}/{file}" if file == "cgroup.procs" else procs
        network = _open(f"/proc/{pid}/net/dev") if pid and _own_network(pid) else None
        if network is not None:
            sources.append(_Source(network, parse.net_dev))
        below = _below(places["unified"]) if "unified" in places else None
        return Reader(sources, procs, None if pid is None else _born(pid), below)
    except BaseException:
        for source in sources:
            os.close(source.descriptor)
        raise


def _files(places: Mapping[str, Place]) -> list[tuple[str, str, parse.Parse]]:
    found = [
        (places[name].directory, file, how)
        for name, files in parse.V1.items()
        if name in places
        for file, how in files
    ]
    unified = places.get("unified")
    if unified is not None:
        offered = unified_controllers(unified)
        found += [
            (unified.directory, file, how)
            for name, files in parse.V2.items()
            if offered and name in ("", *offered)
            for file, how in files
        ]
    return found


def _below(unified: Place) -> Below | None:
    try:
        return Below(unified.directory) if unified_controllers(unified) else None
    except (FileNotFoundError, PermissionError):
        return None


def _open(path: str) -> int | None:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, PermissionError, ProcessLookupError):
        return None


def _own_network(pid: int) -> bool:
    """Whether it has a network namespace that is not ours, whose counters are everybody's."""
    try:
        theirs = Path(f"/proc/{pid}/ns/net").stat()
    except OSError:
        return False
    return theirs.st_ino != Path("/proc/self/ns/net").stat().st_ino


def _born(pid: int) -> float | None:
    """Seconds of CLOCK_BOOTTIME when `pid` started."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[19]) / os.sysconf("SC_CLK_TCK")
