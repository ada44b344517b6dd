"""The cgroups of sandboxes whose processes this machine starts: where, with which limits.

A **tree** is where this user may make cgroups: one directory per controller in version 1, one for
all in version 2. A **plan** is what it takes to put one sandbox there, as files to write, so that
whoever starts it can do so; a **Cgroup** is a sandbox's, once it is made. Nothing here moves a
process: a sandbox is born in its cgroup.
"""

import contextlib
import functools
import os
import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ringfence.backends import cgroup_files
from ringfence.backends.cgroup_files import Write
from ringfence.errors import NotFoundError, StateError
from ringfence.metrics.places import Place, read_value
from ringfence.spec import Limits

_LIMITS = {
    "memory": ("memory",),
    "pids": ("pids",),
    "cpu": ("cpus", "cpu_shares"),
    "cpuset": ("cpuset",),
    "blkio": ("read_rate", "write_rate"),
    "io": ("read_rate", "write_rate"),
}


@functools.lru_cache(maxsize=16)
def _is_there(path: str) -> bool:
    """Of a file that a running kernel has or has not. Where cgroups are being made, each look waits
    for them."""
    return os.access(path, os.F_OK)


@dataclass(frozen=True, slots=True)
class Plan:
    """What puts one sandbox into its cgroups.

    make: directories, parents first. write: limits. inside: what its first process writes about
    itself before it runs anything. into: the version 2 cgroup it is born in. thaw: what lets a
    frozen one die.
    """

    make: tuple[str, ...] = ()
    write: tuple[Write, ...] = ()
    inside: tuple[Write, ...] = ()
    into: str | None = None
    thaw: tuple[Write, ...] = ()


@dataclass(frozen=True, slots=True)
class Tree:
    """Where cgroups of sandboxes can be made. version: 1 or 2, 0 for nowhere. directories: by
    controller ("unified" for version 2). controllers: that limit or count there. missing: why
    there are none, with what to do about it.
    """

    version: int = 0
    directories: Mapping[str, str] = field(default_factory=dict)
    controllers: frozenset[str] = frozenset()
    missing: str = ""

    @property
    def limits(self) -> frozenset[str]:
        """The names of `Limits` fields that hold here."""
        found = {name for one in self.controllers for name in _LIMITS.get(one, ())}
        if "memory" in self.controllers and self.counts_swap():
            found.add("swap")
        return frozenset(found)

    @property
    def freezes(self) -> bool:
        """Whether sandboxes can be frozen here."""
        return self.version == 2 or "freezer" in self.controllers

    def counts_swap(self) -> bool:
        """Whether swap is counted, where memory is."""
        if self.version == 2:
            return True
        return _is_there(f"{self.directories['memory']}/memory.memsw.limit_in_bytes")

    def counts_sockets(self) -> bool:
        """Whether what sockets buffer has a limit of its own here, where memory has one."""
        return _is_there(f"{self.directories['memory']}/{cgroup_files.SOCKETS}")

    def cgroup(self, name: str, limits: Limits | None = None) -> "Cgroup":
        """The cgroup called `name`, made or not; without a cpuset where `limits` has none."""
        wanted = set(self.directories)
        if limits is not None and limits.cpuset is None:
            wanted.discard("cpuset")
        directories = {one: f"{self.directories[one]}/{name}" for one in sorted(wanted)}
        return Cgroup(self, directories)

    def plan(self, name: str, limits: Limits, devices: Iterable[str] = ()) -> Plan:
        """How a sandbox called `name` gets these limits, whose fields are all in `self.limits`.

        devices: "major:minor" of the disks that read_rate and write_rate hold for.
        """
        cgroup = self.cgroup(name, limits)
        writes = tuple(cgroup.writes(limits, devices))
        made = tuple(cgroup.directories.values())
        if self.version == 2:
            unified = cgroup.directories["unified"]
            return Plan(made, writes, into=unified, thaw=((f"{unified}/cgroup.freeze", "0"),))
        thaw: tuple[Write, ...] = ()
        if "freezer" in cgroup.directories:
            thaw = ((f"{cgroup.directories['freezer']}/freezer.state", "THAWED"),)
        # "tasks" moves one thread at once; "cgroup.procs" would wait for all processors first.
        inside = tuple((f"{directory}/tasks", "0") for directory in made)
        return Plan(made, writes, inside, thaw=thaw)


@dataclass(frozen=True, slots=True)
class Cgroup:
    """The cgroups of one sandbox. directories: by controller, "unified" for version 2."""

    tree: Tree
    directories: Mapping[str, str]

    @property
    def places(self) -> dict[str, Place]:
        """For `metrics.reader_of`."""
        return {
            name: Place(self.tree.version, directory, directory)
            for name, directory in self.directories.items()
        }

    @property
    def counter(self) -> str:
        """The file that counts its OOM kills, "" when there is none."""
        if "memory" not in self.tree.controllers:
            return ""
        if self.tree.version == 2:
            return f"{self.directories['unified']}/memory.events"
        memory = self.directories.get("memory")
        return "" if memory is None else f"{memory}/memory.oom_control"

    def exists(self) -> bool:
        """Whether any of it is there."""
        return any(os.access(directory, os.F_OK) for directory in self.directories.values())

    def writes(self, limits: Limits, devices: Iterable[str] = ()) -> list[Write]:
        """The files that say `limits`, in an order that the kernel takes in a new cgroup."""
        if self.tree.version == 2:
            return cgroup_files.v2(self.directories["unified"], limits, devices)
        swap = limits.memory is not None and self.tree.counts_swap()
        sockets = limits.memory is not None and self.tree.counts_sockets()
        return cgroup_files.v1(self.directories, limits, devices, swap=swap, sockets=sockets)

    @property
    def changeable(self) -> frozenset[str]:
        """The names of limits that `update` can change."""
        missing = set() if self.tree.version == 2 else set(_LIMITS) - set(self.directories)
        fixed = {"read_rate", "write_rate", *(name for one in missing for name in _LIMITS[one])}
        return self.tree.limits - fixed

    def update(self, limits: Limits) -> None:
        """Change limits of a running sandbox; None leaves one as it is.

        ResourceExhaustedError when it uses more than that, NotFoundError when it is gone.
        """
        if limits.memory is not None:
            cgroup_files.make_room(self.places, limits.memory)
        writes = self.writes(limits)
        for attempt in range(2):
            failed: list[tuple[Write, OSError]] = []
            for write in writes:
                try:
                    Path(write[0]).write_text(write[1])
                except OSError as error:
                    failed.append((write, error))
            # memory above the old memory+swap fails until that was raised: a second round.
            if not failed:
                return
            if attempt:
                raise cgroup_files.refused(*failed[0])

    def evidence(self, limits: Limits) -> dict[str, str]:
        """The limits asked for as the kernel has them, by file name; what is not there is left
        out."""
        found = {}
        for controller, directory in self.directories.items():
            for name in cgroup_files.saying(controller, limits):
                with contextlib.suppress(OSError):
                    found[name] = read_value(f"{directory}/{name}")
        return found

    def freeze(self) -> None:
        """Begin to stop all of its processes; `frozen` tells when it is done. NotFoundError."""
        path, word, _ = self._freezer()
        cgroup_files.write(path, word)

    def thaw(self) -> None:
        """Let its processes go on. NotFoundError when it is gone."""
        path, _, word = self._freezer()
        cgroup_files.write(path, word)

    def frozen(self) -> bool:
        """Whether it is frozen, in the kernel's word; False when it is gone."""
        try:
            if self.tree.version == 2:
                events = Path(self.directories["unified"], "cgroup.events").read_text()
                return "frozen 1" in events
            return Path(self._freezer()[0]).read_text().strip() == "FROZEN"
        except (OSError, StateError):
            return False

    def _freezer(self) -> tuple[str, str, str]:
        if self.tree.version == 2:
            return f"{self.directories['unified']}/cgroup.freeze", "1", "0"
        if "freezer" not in self.directories:
            raise StateError("pause: there is no freezer cgroup here", op="pause")
        return f"{self.directories['freezer']}/freezer.state", "FROZEN", "THAWED"

    def processes(self) -> set[int]:
        """The processes in it, and in the cgroups of commands below it."""
        found: set[int] = set()
        for top in self.directories.values():
            for directory in (top, *_below(top)):
                with contextlib.suppress(OSError):
                    found.update(map(int, Path(directory, "cgroup.procs").read_text().split()))
        return found

    def kill(self) -> None:
        """Kill every process in it, frozen or not."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(NotFoundError, StateError):
            self.thaw()

    def remove(self) -> bool:
        """Remove it and those below it; False while processes are in it. Idempotent."""
        gone = True
        for top in self.directories.values():
            for directory in (*_below(top), top):
                try:
                    Path(directory).rmdir()
                except FileNotFoundError:
                    continue
                except OSError:
                    gone = False
        return gone


def _below(directory: str) -> list[str]:
    try:
        with os.scandir(directory) as entries:
            return [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []
