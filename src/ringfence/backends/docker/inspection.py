"""What the Engine says of one container, and what the kernel says of its first process."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ringfence.backends.docker.engine import Engine
from ringfence.backends.docker.place import INSIDE
from ringfence.errors import NotFoundError
from ringfence.metrics import places_of
from ringfence.metrics.places import read_text
from ringfence.spec import State

STATES: Mapping[str, State] = {
    "created": State.CREATED,
    "running": State.RUNNING,
    "restarting": State.RUNNING,
    "paused": State.PAUSED,
}
"""The Engine's words; every other one means that it ended."""

_CGROUP_FILES = {
    "memory": ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.swappiness"),
    "pids": ("pids.max",),
    "cpu": ("cpu.cfs_quota_us", "cpu.cfs_period_us", "cpu.shares"),
    "cpuset": ("cpuset.cpus",),
    "blkio": ("blkio.throttle.read_bps_device", "blkio.throttle.write_bps_device"),
    "devices": ("devices.list",),
    "unified": ("memory.max", "memory.swap.max", "pids.max", "cpu.max", "cpu.weight",
                "cpuset.cpus", "io.max"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Inspection:
    """One answer of GET /containers/ID/json."""

    data: Mapping[str, Any]

    @property
    def container(self) -> str:
        """Its full id."""
        return str(self.data["Id"])

    @property
    def state(self) -> State:
        """The Engine's word for its state."""
        return STATES.get(str(self.data["State"].get("Status", "")), State.EXITED)

    @property
    def pid(self) -> int:
        """The first process in the daemon's pid namespace, 0 when it does not run."""
        return int(self.data["State"].get("Pid") or 0)

    @property
    def started(self) -> str:
        """When it was started, by the daemon's clock, as RFC 3339 has it."""
        return str(self.data["State"].get("StartedAt", ""))

    @property
    def labels(self) -> Mapping[str, str]:
        """Its labels."""
        return self.data["Config"].get("Labels") or {}

    @property
    def run_directory(self) -> Path | None:
        """The directory of ours that its guest finds the host's socket in, if it has one.

        It is removed with the sandbox: what an image has there, a volume, is not taken for it.
        """
        for mount in self.data.get("Mounts") or ():
            if mount.get("Type") == "bind" and mount.get("Destination") == f"{INSIDE}/run":
                source = Path(mount["Source"])
                ours = source.is_absolute() and source.name == self.labels.get("ringfence.id")
                return source if ours else None
        return None

    @property
    def pid_here(self) -> int:
        """Its pid, when that process is really seen on this machine; else 0.

        The pid of another machine's daemon may be taken here by somebody else: the process's
        cgroup must name the container.
        """
        try:
            cgroups = read_text(f"/proc/{self.pid}/cgroup")
        except OSError:
            return 0
        return self.pid if self.container in cgroups else 0


async def inspect(engine: Engine, container: str) -> Inspection | None:
    """What the Engine says of a container, by id or name; None when there is none."""
    try:
        return Inspection(
            await engine.described("inspect", "containers", container, "json", by="State")
        )
    except NotFoundError:
        return None


def guest_status(pid: int) -> str:
    """/proc/PID/status, "" when it is gone or not seen."""
    try:
        return read_text(f"/proc/{pid}/status") if pid else ""
    except OSError:
        return ""


def cgroup_files(pid: int) -> dict[str, str]:
    """The limit files of a process's cgroups by name; those that are not there are left out."""
    try:
        places = places_of(pid) if pid else {}
    except ProcessLookupError:
        return {}
    found: dict[str, str] = {}
    for controller, names in _CGROUP_FILES.items():
        place = places.get(controller)
        for name in names if place is not None else ():
            try:
                text = read_text(f"{place.directory}/{name}") if place else ""
            except OSError:
                continue
            found[name] = text.strip()
    return found


def interfaces(pid: int) -> frozenset[str] | None:
    """The network interfaces that a process has, None when that cannot be seen."""
    try:
        lines = read_text(f"/proc/{pid}/net/dev").splitlines()[2:]
    except OSError:
        return None
    return frozenset(line.split(":")[0].strip() for line in lines if ":" in line)
