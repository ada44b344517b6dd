"""The cgroups of sandboxes whose processes this machine starts: where, with which limits.

A **tree** is where this user may make cgroups: one directory per controller in version 1, one for
all in version 2. A **plan** is what it takes to put one sandbox there, as files to write, so that
whoever starts it can do so; a **Cgroup** is a sandbox's, once it is made. Nothing here moves a
process: a sandbox is born in its cgroup.
"""

import contextlib
import errno
import os
import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ringfence.errors import InvalidSpecError, NotFoundError, ResourceExhaustedError, StateError
from ringfence.metrics.places import Place, places, places_of, unified_controllers
from ringfence.spec import Limits

NAME = "ringfence"
PIDS_HEADROOM = 32
"""Processes of the guest's own, on top of the user's limit."""

_PERIOD = 100_000
_V1 = ("memory", "pids", "cpu", "cpuacct", "freezer", "blkio", "cpuset")
_V2 = ("memory", "pids", "cpu", "cpuset", "io")
_LIMITS = {
    "memory": ("memory",),
    "pids": ("pids",),
    "cpu": ("cpus", "cpu_shares"),
    "cpuset": ("cpuset",),
    "blkio": ("read_rate", "write_rate"),
    "io": ("read_rate", "write_rate"),
}

Write = tuple[str, str]
"""A file and what is written into it."""


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
        if "memory" in self.controllers and self._counts_swap():
            found.add("swap")
        return frozenset(found)

    @property
    def freezes(self) -> bool:
        """Whether sandboxes can be frozen here."""
        return self.version == 2 or "freezer" in self.controllers

    def _counts_swap(self) -> bool:
        if self.version == 2:
            return True
        return Path(self.directories["memory"], "memory.memsw.limit_in_bytes").exists()

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

    def exists(self) -> bool:
        """Whether any of it is there."""
        return any(os.access(directory, os.F_OK) for directory in self.directories.values())

    def writes(self, limits: Limits, devices: Iterable[str] = ()) -> list[Write]:
        """The files that say `limits`, in an order that the kernel takes in a new cgroup."""
        if self.tree.version == 2:
            return _v2(self.directories["unified"], limits, devices)
        return _v1(self.directories, self.tree, limits, devices)

    def update(self, limits: Limits) -> None:
        """Change limits of a running sandbox; None leaves one as it is.

        ResourceExhaustedError when it uses more than that, NotFoundError when it is gone.
        """
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
                raise _refused(*failed[0])

    def evidence(self) -> dict[str, str]:
        """Limits as the kernel has them, by file name; what is not there is left out."""
        found = {}
        for directory in self.directories.values():
            for name in _EVIDENCE:
                with contextlib.suppress(OSError):
                    found[name] = Path(directory, name).read_text().strip()
        return found

    def freeze(self) -> None:
        """Begin to stop all of its processes; `frozen` tells when it is done. NotFoundError."""
        path, word, _ = self._freezer()
        _write(path, word)

    def thaw(self) -> None:
        """Let its processes go on. NotFoundError when it is gone."""
        path, _, word = self._freezer()
        _write(path, word)

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
        """The processes in it."""
        found: set[int] = set()
        for directory in self.directories.values():
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
        """Remove it; False while processes are in it. Idempotent."""
        gone = True
        for directory in self.directories.values():
            try:
                Path(directory).rmdir()
            except FileNotFoundError:
                continue
            except OSError:
                gone = False
        return gone


_EVIDENCE = (
    "memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.swappiness", "pids.max",
    "cpu.cfs_quota_us", "cpu.cfs_period_us", "cpu.shares", "cpuset.cpus",
    "blkio.throttle.read_bps_device", "blkio.throttle.write_bps_device",
    "memory.max", "memory.swap.max", "cpu.max", "cpu.weight", "io.max",
)  # fmt: skip


def _v1(at: Mapping[str, str], tree: Tree, limits: Limits, devices: Iterable[str]) -> list[Write]:
    found: list[Write] = []
    if limits.memory is not None:
        memory = at["memory"]
        found.append((f"{memory}/memory.limit_in_bytes", str(limits.memory)))
        found.append((f"{memory}/memory.swappiness", "60" if limits.swap else "0"))
        if "swap" in tree.limits:
            both = limits.memory + (limits.swap or 0)
            found.append((f"{memory}/memory.memsw.limit_in_bytes", str(both)))
    if limits.pids is not None:
        found.append((f"{at['pids']}/pids.max", str(limits.pids + PIDS_HEADROOM)))
    if limits.cpus is not None:
        found.append((f"{at['cpu']}/cpu.cfs_period_us", str(_PERIOD)))
        found.append((f"{at['cpu']}/cpu.cfs_quota_us", str(_quota(limits.cpus))))
    if limits.cpu_shares is not None:
        found.append((f"{at['cpu']}/cpu.shares", str(limits.cpu_shares)))
    if limits.cpuset is not None:
        parent = Path(at["cpuset"]).parent
        found.append((f"{at['cpuset']}/cpuset.mems", (parent / "cpuset.mems").read_text().strip()))
        found.append((f"{at['cpuset']}/cpuset.cpus", limits.cpuset))
    for name, rate in (("read", limits.read_rate), ("write", limits.write_rate)):
        if rate is not None:
            file = f"{at['blkio']}/blkio.throttle.{name}_bps_device"
            found += [(file, f"{device} {rate}") for device in devices]
    return found


def _v2(at: str, limits: Limits, devices: Iterable[str]) -> list[Write]:
    found: list[Write] = []
    if limits.memory is not None:
        found.append((f"{at}/memory.max", str(limits.memory)))
        found.append((f"{at}/memory.swap.max", str(limits.swap or 0)))
    if limits.pids is not None:
        found.append((f"{at}/pids.max", str(limits.pids + PIDS_HEADROOM)))
    if limits.cpus is not None:
        found.append((f"{at}/cpu.max", f"{_quota(limits.cpus)} {_PERIOD}"))
    if limits.cpu_shares is not None:
        # The same mapping of 2..262144 to 1..10000 as OCI runtimes have.
        weight = 1 + ((limits.cpu_shares - 2) * 9999) // 262142
        found.append((f"{at}/cpu.weight", str(weight)))
    if limits.cpuset is not None:
        found.append((f"{at}/cpuset.cpus", limits.cpuset))
    for name, rate in (("rbps", limits.read_rate), ("wbps", limits.write_rate)):
        if rate is not None:
            found += [(f"{at}/io.max", f"{device} {name}={rate}") for device in devices]
    return found


def _quota(cpus: float) -> int:
    return max(1000, round(cpus * _PERIOD))


def _write(path: str, text: str) -> None:
    try:
        Path(path).write_text(text)
    except OSError as error:
        raise _refused((path, text), error) from None


def _refused(write: Write, error: OSError) -> Exception:
    context = {"file": write[0], "value": write[1], "errno": error.errno}
    if error.errno in (errno.ENOENT, errno.ENODEV):
        return NotFoundError("limits: the sandbox has ended", op="limits", context=context)
    if error.errno == errno.EBUSY:
        return ResourceExhaustedError(
            f"limits: it uses more than {write[1]} already ({Path(write[0]).name})",
            op="limits",
            context=context,
        )
    return InvalidSpecError(
        f"limits: the kernel refuses {write[1]!r} for {Path(write[0]).name}: {error.strerror}",
        op="limits",
        context=context,
    )


def find_tree() -> Tree:
    """Where this process may make cgroups for sandboxes, made when missing.

    As root directly below the root of each hierarchy, so that they do not end with the service
    that made them; else in the topmost delegated cgroup above this process.
    """
    own = places_of()
    unified = own.get("unified")
    if unified is not None and "memory" in _offered_above(unified):
        return _find_v2(unified)
    return _find_v1(own)


def _offered_above(unified: Place) -> frozenset[str]:
    root = Path(unified.directory)
    for directory in (root, *root.parents):
        offered = unified_controllers(Place(2, "", str(directory)))
        if offered:
            return offered
        if not (directory / "cgroup.procs").exists():
            break
    return frozenset()


def _find_v1(own: Mapping[str, Place]) -> Tree:
    found: dict[str, str] = {}
    why = ""
    top = places(f"/{NAME}") if os.geteuid() == 0 else {}
    for controller in _V1:
        if controller not in own:
            why = why or f"no {controller} cgroup is mounted here"
            continue
        place = top.get(controller)
        directory = f"{own[controller].directory}/{NAME}" if place is None else place.directory
        try:
            _make_v1(controller, Path(directory))
        except OSError as error:
            why = f"{directory} cannot be made: {error.strerror}"
            continue
        found[controller] = directory
    if not found:
        return Tree(missing=f"{why}; run as root, or have these cgroups given to this user")
    return Tree(1, found, frozenset(found), why)


def _make_v1(controller: str, directory: Path) -> None:
    directory.mkdir(exist_ok=True)
    if controller == "cpuset":
        for name in ("cpuset.mems", "cpuset.cpus"):
            if not (directory / name).read_text().strip():
                (directory / name).write_text((directory.parent / name).read_text())
    if not os.access(directory, os.W_OK):
        raise PermissionError(errno.EACCES, "it belongs to somebody else")


def _find_v2(unified: Place) -> Tree:
    parent = _delegated(unified)
    if parent is None:
        return Tree(
            missing="no cgroup is delegated to this user: start it with"
            " `systemd-run --user --scope`, or run as root"
        )
    try:
        directory = parent / NAME
        _enable(parent)
        if not directory.is_dir():
            _make_v2(directory)
        _enable(directory)
    except OSError as error:
        return Tree(missing=f"cgroups cannot be made in {parent}: {error.strerror}")
    offered = unified_controllers(Place(2, "", str(directory))) & set(
        (directory / "cgroup.subtree_control").read_text().split()
    )
    return Tree(2, {"unified": str(directory)}, offered & set(_V2))


def _make_v2(directory: Path) -> None:
    directory.mkdir(exist_ok=True)


def _delegated(unified: Place) -> Path | None:
    """The topmost cgroup from this process's own upwards that this user may use and that may have
    children: the root's for root, else one without processes."""
    if os.geteuid() == 0:
        top = places(f"/{NAME}").get("unified")
        if top is not None:
            return Path(top.directory).parent
    found = None
    own = Path(unified.directory)
    for directory in (own, *own.parents):
        procs = directory / "cgroup.procs"
        if not procs.exists() or not os.access(procs, os.W_OK):
            break
        if not procs.read_text().split():
            found = directory
    return found


def _enable(directory: Path) -> None:
    control = directory / "cgroup.subtree_control"
    offered = set((directory / "cgroup.controllers").read_text().split())
    missing = (offered & set(_V2)) - set(control.read_text().split())
    if missing:
        control.write_text(" ".join(f"+{name}" for name in sorted(missing)))


def block_devices(paths: Iterable[str]) -> tuple[str, ...]:
    """ "major:minor" of the whole disks below these paths; what is on no disk is left out."""
    found = set()
    for path in paths:
        with contextlib.suppress(OSError):
            number = Path(path).stat().st_dev
            node = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}").resolve(
                strict=True
            )
            if (node / "partition").exists():
                node = node.parent
            found.add((node / "dev").read_text().strip())
    return tuple(sorted(found))
