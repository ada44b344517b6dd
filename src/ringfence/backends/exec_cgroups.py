"""Cgroups of single commands, each below its sandbox's own.

What uses a cgroup below a sandbox's counts in the sandbox's too, and is held by its limits: only
where the kernel says so is a controller used. No command can leave its cgroup, since no sandbox
can write to a cgroup tree. In version 2 the first one of a sandbox has the sandbox's processes
moved to a leaf; see `cgroup_leaf`.
"""

import asyncio
import contextlib
import errno
import os
import secrets
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from ringfence.backends import cgroup_leaf, exhausted
from ringfence.backends.finish import finish
from ringfence.backends.tally import Tally
from ringfence.errors import NotFoundError, ResourceExhaustedError, SandboxError, UnsupportedError
from ringfence.metrics import Place, parse, reader_of
from ringfence.metrics.places import read_value
from ringfence.spec import Usage

_PREFIX = "exec-"
_COUNTERS = ("memory", "cpuacct", "pids", "blkio")
_RATES = tuple(
    f"blkio.throttle.{way}_{what}_device" for way in ("read", "write") for what in ("bps", "iops")
)
_UNIFIED = "unified"
_EVENTS = ("memory", "pids", _UNIFIED)
_LINKS_OF_NONE = 2
"""Of a directory with none in it."""


def possible(version: int) -> bool:
    """Whether commands can have them where sandboxes have cgroups of this version, 0 for none. In
    version 2 not where it is mounted so that a sandbox's events leave out those below it."""
    return version == 1 or (version == 2 and not cgroup_leaf.events_are_local())


class ExecCgroup:
    """The cgroup of one command. Made by `ExecCgroups.make`; `end` reads and removes it.

    descriptors: files that move who writes "0" into it, open for writing, for the guest's EXEC.
    """

    def __init__(self, group: "ExecCgroups", name: str, places: Mapping[str, Place]) -> None:
        self._group = group
        self._name = name
        self._places = places
        self._usage: Usage | None = None
        self.descriptors: tuple[int, ...] = ()

    def open(self) -> None:
        """Make it. OSError, after which `end` removes what was made."""
        # In version 1 "cgroup.procs" would wait for all processors first.
        entry = "cgroup.procs" if _UNIFIED in self._places else "tasks"
        for directory in _directories(self._places):
            Path(directory).mkdir()
            self.descriptors += (os.open(f"{directory}/{entry}", os.O_WRONLY | os.O_CLOEXEC),)

    def close(self) -> None:
        """Close the descriptors: the command has begun. Idempotent."""
        held, self.descriptors = self.descriptors, ()
        for descriptor in held:
            os.close(descriptor)

    def end(self) -> Usage | None:
        """What was used in it, and remove it; the same again later. None when it is gone.

        While processes are left in it, it stays, until the next `make` or the sandbox's end.
        """
        self.close()
        if self._name in self._group.under_way:
            self._usage = _read(self._places)
            self._group.leave(self._name)
        return self._usage


class ExecCgroups:
    """Those of one sandbox. places: the sandbox's own. Its methods may block and may be called from
    any thread. under_way: names of those that have not ended."""

    def __init__(self, places: Mapping[str, Place]) -> None:
        self._places = {name: places[name] for name in _COUNTERS if name in places}
        if not self._places and _UNIFIED in places:
            self._places = {_UNIFIED: places[_UNIFIED]}
        self._lock = threading.Lock()
        self._offering = threading.Lock()
        self._known: dict[str, Mapping[str, Place]] = {}
        self._counting = [one for name, one in self._places.items() if name in _EVENTS]
        self._gone = Tally(self._counting[0].directory) if self._counting else None
        self._looked = False
        self.under_way: set[str] = set()

    async def begin(self) -> ExecCgroup:
        """`make` in a thread. Cancellation leaves none."""
        made: list[ExecCgroup] = []
        try:
            await finish(asyncio.to_thread(lambda: made.append(self.make())))
        except asyncio.CancelledError:
            for one in made:
                await finish(asyncio.to_thread(one.end))
            raise
        return made[0]

    def make(self) -> ExecCgroup:
        """A new one. UnsupportedError where none can be had, ResourceExhaustedError when the
        machine is full, NotFoundError when the sandbox is gone."""
        self._sweep()
        name = f"{_PREFIX}{secrets.token_hex(6)}"
        places = self._below(name)
        if not places:
            raise UnsupportedError(
                "cgroup: this sandbox has no cgroup below which a command could have its own",
                op="exec",
                context={"fields": ["cgroup"]},
            )
        with self._lock:
            self._known[name] = places
            self.under_way.add(name)
        made = ExecCgroup(self, name, places)
        try:
            self._offer()
            made.open()
        except OSError as error:
            made.end()
            raise _refused(error) from None
        return made

    def _offer(self) -> None:
        """One at a time, before the first is made."""
        unified = self._places.get(_UNIFIED)
        if unified is None:
            return
        with self._offering:
            cgroup_leaf.offer(unified.directory)

    def leave(self, name: str) -> None:
        """One has ended: remove it if nobody is in it."""
        with self._lock:
            self.under_way.discard(name)
        self._remove(name)

    def total(self, usage: Usage) -> Usage:
        """The sandbox's usage with what is counted only where it happened: refused forks and, in
        version 1, kills for want of memory. (From Linux 6.11 on, version 2 counts refused forks
        above, and none in a command's.) Those that other sessions and processes made count, too."""
        kills, refused = self._gone.read() if self._gone is not None else (0, 0)
        for name in set(self._listed(self._counting)):
            more = _events(self._below(name))
            kills, refused = kills + more[0], refused + more[1]
        if not kills and not refused:
            return usage
        return replace(
            usage,
            oom_kills=None if usage.oom_kills is None else usage.oom_kills + kills,
            forks_refused=None if usage.forks_refused is None else usage.forks_refused + refused,
        )

    def _below(self, name: str) -> dict[str, Place]:
        found = {}
        for controller, place in self._places.items():
            if _holds(controller, place.directory):
                path, directory = f"{place.path}/{name}", f"{place.directory}/{name}"
                found[controller] = replace(place, path=path, directory=directory)
        return found

    def _sweep(self) -> None:
        """Remove those that had processes left in them when they ended, in earlier sessions too."""
        if not self._looked:
            for name in set(self._listed(self._places.values())):
                with self._lock:
                    self._known.setdefault(name, self._below(name))
            self._looked = True
        for name in list(self._known):
            if name not in self.under_way:
                self._remove(name)

    def _listed(self, places: Iterable[Place]) -> Iterator[str]:
        for directory in {place.directory for place in places}:
            with contextlib.suppress(OSError):
                if os.stat(directory).st_nlink == _LINKS_OF_NONE:  # noqa: PTH116 - with each usage
                    continue
                yield from (one for one in os.listdir(directory) if one.startswith(_PREFIX))  # noqa: PTH208

    def _remove(self, name: str) -> None:
        with self._lock:
            places = self._known.get(name)
            if places is None:
                return
            kills, refused = _events(places)
            for directory in _directories(places):
                try:
                    Path(directory).rmdir()
                except FileNotFoundError:
                    continue
                except OSError:  # somebody is in it
                    return
            del self._known[name]
            if self._gone is not None:
                self._gone.add(kills, refused)


def _directories(places: Mapping[str, Place]) -> list[str]:
    """Each once: controllers may be mounted together."""
    return list(dict.fromkeys(place.directory for place in places.values()))


def _holds(controller: str, directory: str) -> bool:
    """Whether the limits of a cgroup hold for those below it.

    A rate of block io never does in version 1; memory's do unless an old kernel was told otherwise.
    FileNotFoundError is for `make` to meet: the sandbox is gone.
    """
    if controller == "memory":  # of version 1, as blkio; in version 2 all hold
        return _text(f"{directory}/memory.use_hierarchy") in ("1", None)
    if controller == "blkio":
        return not any(_text(f"{directory}/{name}") for name in _RATES)
    return True


def _text(path: str) -> str | None:
    try:
        return read_value(path)
    except OSError:
        return None


def _read(places: Mapping[str, Place]) -> Usage | None:
    try:
        with reader_of(places) as reader:
            found = reader.read()
    except (NotFoundError, OSError):
        return None
    unified = places.get(_UNIFIED)
    if unified is not None and os.access(f"{unified.directory}/pids.events.local", os.F_OK):
        # Linux 6.11 and newer count refused forks where the limit is.
        return replace(found, forks_refused=found.forks_refused or None)
    return found


def _events(places: Mapping[str, Place]) -> tuple[int, int]:
    """Kills and refused forks that do not show in the sandbox's own cgroup."""
    if _UNIFIED in places:
        text = _text(f"{places[_UNIFIED].directory}/pids.events") or ""
        return 0, parse.counter(text.encode(), b"max") or 0
    counted = {name: place for name, place in places.items() if name in ("memory", "pids")}
    found = _read(counted) or Usage()
    return found.oom_kills or 0, found.forks_refused or 0


def _refused(error: OSError) -> SandboxError:
    context = {"errno": error.errno, "fields": ["cgroup"]}
    if error.errno in (errno.ENOENT, errno.ENODEV):
        return NotFoundError("cgroup: the sandbox has ended", op="exec", context=context)
    if error.errno in exhausted.NUMBERS:
        return ResourceExhaustedError(
            f"cgroup: none can be made now: {error.strerror}", op="exec", context=context
        )
    return UnsupportedError(
        f"cgroup: none can be made for a command here: {error.strerror}",
        op="exec",
        context=context,
    )
