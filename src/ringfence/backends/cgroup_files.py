"""Limits as the files of a cgroup, of version 1 and of version 2, and what their refusals mean."""

import contextlib
import errno
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from ringfence.backends.layers import whole_disks
from ringfence.errors import InvalidSpecError, NotFoundError, ResourceExhaustedError
from ringfence.metrics.places import Place, places_apart
from ringfence.spec import Limits

PIDS_HEADROOM = 32
"""Processes of the guest's own, on top of the user's limit."""

SOCKETS = "memory.kmem.tcp.limit_in_bytes"
"""Version 1 counts what sockets buffer, UDP's too, apart from memory, and only where this is set
before they are made."""

_SOCKETS_SHARE = 4
_SOCKETS_LEAST = 16 * 2**20
"""Buffers may be a quarter of the memory beside it, and as much as this, which slows nothing."""

_PERIOD = 100_000
"""What the kernel gives a new cgroup as well."""

Write = tuple[str, str]
"""A file and what is written into it."""

_SAYS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "memory": {"memory.limit_in_bytes": ("memory",), "memory.memsw.limit_in_bytes": ("memory",)},
    "pids": {"pids.max": ("pids",)},
    "cpu": {"cpu.cfs_quota_us": ("cpus",), "cpu.cfs_period_us": ("cpus",),
            "cpu.shares": ("cpu_shares",)},
    "cpuset": {"cpuset.cpus": ("cpuset",)},
    "blkio": {"blkio.throttle.read_bps_device": ("read_rate",),
              "blkio.throttle.write_bps_device": ("write_rate",)},
    "unified": {"memory.max": ("memory",), "memory.swap.max": ("memory",), "pids.max": ("pids",),
                "cpu.max": ("cpus",), "cpu.weight": ("cpu_shares",), "cpuset.cpus": ("cpuset",),
                "io.max": ("read_rate", "write_rate")},
}  # fmt: skip
"""The limits that a file says, by controller; of "unified" those of version 2."""


def saying(controller: str, limits: Limits) -> list[str]:
    """The files that say those of a controller's limits which were asked for."""
    says = _SAYS.get(controller, {})
    return [
        file
        for file, names in says.items()
        if any(getattr(limits, name) is not None for name in names)
    ]


def v1(
    at: Mapping[str, str],
    limits: Limits,
    devices: Iterable[str],
    *,
    swap: bool,
    sockets: bool,
) -> list[Write]:
    """The files of version 1 cgroups `at`, by controller. swap, sockets: whether they are counted
    here."""
    found: list[Write] = []
    if limits.memory is not None:
        memory = at["memory"]
        found.append((f"{memory}/memory.limit_in_bytes", str(limits.memory)))
        found.append((f"{memory}/memory.swappiness", "60" if limits.swap else "0"))
        if swap:
            both = limits.memory + (limits.swap or 0)
            found.append((f"{memory}/memory.memsw.limit_in_bytes", str(both)))
        if sockets:
            found.append((f"{memory}/{SOCKETS}", _buffered(limits.memory)))
    if limits.pids is not None:
        found.append((f"{at['pids']}/pids.max", str(limits.pids + PIDS_HEADROOM)))
    if limits.cpus is not None:
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


def v2(at: str, limits: Limits, devices: Iterable[str]) -> list[Write]:
    """The files of the version 2 cgroup `at`."""
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


def _buffered(memory: int) -> str:
    return str(max(memory // _SOCKETS_SHARE, _SOCKETS_LEAST))


def hold_sockets(pid: int, memory: int) -> None:
    """Limit what sockets buffer in the cgroup of process `pid`, which another program made, where
    version 1 counts it and this user may: new sockets are held."""
    with contextlib.suppress(OSError):
        place = places_apart(pid).get("memory")
        if place is not None and place.version == 1:
            Path(place.directory, SOCKETS).write_text(_buffered(memory))


def _quota(cpus: float) -> int:
    return max(1000, round(cpus * _PERIOD))


def write(path: str, text: str) -> None:
    """Write one file; errors as `refused` has them."""
    try:
        Path(path).write_text(text)
    except OSError as error:
        raise refused((path, text), error) from None


def make_room(places: Mapping[str, Place], memory: int) -> None:
    """Have a cgroup use no more than `memory` before that is made its limit.

    Version 1 refuses a limit that more is used than; version 2 takes it and kills processes until
    it holds. ResourceExhaustedError when too little can be reclaimed, NotFoundError.
    """
    unified = places.get("unified")
    if unified is None or "memory" in places:
        return
    limit = (f"{unified.directory}/memory.max", str(memory))
    try:
        used = _used(unified)
        if used > memory:
            with contextlib.suppress(OSError):
                Path(unified.directory, "memory.reclaim").write_text(str(used - memory))
            used = _used(unified)
    except OSError as error:
        raise refused(limit, error) from None
    if used > memory:
        raise refused(limit, OSError(errno.EBUSY, os.strerror(errno.EBUSY)))


def _used(unified: Place) -> int:
    return int(Path(unified.directory, "memory.current").read_text())


def refused(write: Write, error: OSError) -> Exception:
    """What a refusal means: the sandbox is gone, uses more already, or the value is wrong."""
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


def block_devices(paths: Iterable[str]) -> tuple[str, ...]:
    """ "major:minor" of the whole disks below these paths; what is on no disk is left out."""
    found = set()
    for disk in whole_disks(paths):
        with contextlib.suppress(OSError):
            found.add((disk / "dev").read_text().strip())
    return tuple(sorted(found))
