"""Where the cgroups of a process are on this machine.

A **hierarchy** is one mounted cgroup file system: one per controller (or a few) in version 1, one
for all in version 2; a hybrid machine has both. A **place** is a process's directory in one.
"""

import functools
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ringfence.spec.paths import lies_in

_OCTAL = re.compile(r"\\([0-7]{3})")
_READ_BYTES = 64 * 1024
GUEST_LEAF = "ringfence-guest"
"""The cgroup of version 2 below a sandbox's that its processes are moved to before commands get
cgroups of their own beside it: one with processes gives those below it no controllers."""

_V1_OPTIONS = frozenset({"rw", "ro", "noprefix", "xattr", "clone_children", "cpuset_v2_mode"})


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """A mounted cgroup file system. root: the cgroup that is seen at its mount point."""

    version: int
    controllers: frozenset[str]
    mount_point: str
    root: str

    def directory(self, path: str) -> str | None:
        """Where the cgroup `path` is, None when it is outside of what is mounted."""
        if self.root != "/":
            if not lies_in(path, self.root):
                return None
            path = path[len(self.root) :] or "/"
        elif path.startswith("/.."):
            return None
        return self.mount_point if path == "/" else self.mount_point + path


@dataclass(frozen=True, slots=True)
class Place:
    """One cgroup of a process. path: as the kernel names it; directory: on this machine."""

    version: int
    path: str
    directory: str


@functools.lru_cache(maxsize=4)
def hierarchies(mountinfo: str) -> tuple[Hierarchy, ...]:
    """The cgroup file systems in the text of /proc/self/mountinfo."""
    found = []
    for line in mountinfo.splitlines():
        before, separator, after = line.partition(" - ")
        kind, *source = after.split()
        if not separator or kind not in ("cgroup", "cgroup2"):
            continue
        root, mount_point = (unescape(part) for part in before.split()[3:5])
        if kind == "cgroup2":
            found.append(Hierarchy(2, frozenset(), mount_point, root))
        else:
            names = frozenset(source[-1].split(",")) - _V1_OPTIONS
            found.append(Hierarchy(1, names, mount_point, root))
    return tuple(found)


def memberships(cgroup: str) -> Mapping[str, str]:
    """Paths by controller in the text of /proc/PID/cgroup; "" is the version 2 hierarchy.

    What is in a sandbox's `GUEST_LEAF` is in the sandbox's cgroup, which has its limits and counts.
    """
    found = {}
    for line in cgroup.splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            path = path.removesuffix(f"/{GUEST_LEAF}") or "/"
        for controller in controllers.split(","):
            found[controller] = path
    return found


def resolve(found: Mapping[str, str], mounted: tuple[Hierarchy, ...]) -> dict[str, Place]:
    """Places by controller; "unified" is the version 2 hierarchy."""
    here: dict[str, Place] = {}
    for hierarchy in mounted:
        wanted = hierarchy.controllers if hierarchy.version == 1 else ("",)
        for controller in wanted:
            path = found.get(controller)
            directory = None if path is None else hierarchy.directory(path)
            if path is not None and directory is not None:
                here[controller or "unified"] = Place(hierarchy.version, path, directory)
    return here


def places_of(pid: int | str = "self") -> dict[str, Place]:
    """The places of process `pid`, by controller; ProcessLookupError when there is none."""
    try:
        cgroup = read_text(f"/proc/{pid}/cgroup")
    except (FileNotFoundError, ProcessLookupError):
        raise ProcessLookupError(f"there is no process {pid}") from None
    return resolve(memberships(cgroup), mounted_hierarchies())


def places_apart(pid: int) -> dict[str, Place]:
    """Likewise, without a hierarchy's root and what this process is in itself: they are shared."""
    own = places_of()
    return {
        name: place
        for name, place in places_of(pid).items()
        if place.path != "/" and own.get(name) != place
    }


def places(path: str) -> dict[str, Place]:
    """Where the cgroup `path` would be in each hierarchy of this machine, made or not."""
    mounted = mounted_hierarchies()
    names = {name for hierarchy in mounted for name in hierarchy.controllers} | {""}
    return resolve(dict.fromkeys(names, path), mounted)


def mounted_hierarchies() -> tuple[Hierarchy, ...]:
    """The cgroup file systems that this process sees."""
    return hierarchies(read_text("/proc/self/mountinfo"))


def unified_controllers(place: Place) -> frozenset[str]:
    """The controllers that version 2 offers in a cgroup; none where it is hybrid decoration."""
    try:
        return frozenset(Path(place.directory, "cgroup.controllers").read_text().split())
    except OSError:
        return frozenset()


def open_cpu_counter(found: Mapping[str, Place]) -> int | None:
    """A descriptor of the file that counts the processor time of these places, as `Usage` has it;
    None where there is none or it is gone."""
    acct, unified = found.get("cpuacct"), found.get("unified")
    if acct is not None:
        path = f"{acct.directory}/cpuacct.usage"
    elif unified is not None and "cpu" in unified_controllers(unified):
        path = f"{unified.directory}/cpu.stat"
    else:
        return None
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None


def read_text(path: str) -> str:
    """A file of the kernel's, for a fifth of what `Path.read_text` takes. OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        found = os.read(descriptor, _READ_BYTES)
        parts = [found]
        while found:
            found = os.read(descriptor, _READ_BYTES)
            parts.append(found)
    finally:
        os.close(descriptor)
    return b"".join(parts).decode("utf-8", "surrogateescape")


def read_value(path: str) -> str:
    """What a cgroup file says, without the space around: one read gives all of it. OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, _READ_BYTES).decode("utf-8", "surrogateescape").strip()
    finally:
        os.close(descriptor)


def unescape(text: str) -> str:
    """A path as mountinfo has it, with its octal escapes undone."""
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)
