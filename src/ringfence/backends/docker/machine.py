"""What a daemon can do, by its own description, and whether it is on this machine."""

import asyncio
import os
import re
import socket
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ringfence.backends.docker.devices import disks_of
from ringfence.backends.docker.engine import Engine
from ringfence.backends.docker.probing import DIRECTORIES, PROBE, probe_name
from ringfence.backends.door import peer_pid
from ringfence.backends.finish import finish
from ringfence.backends.state import state_directory
from ringfence.errors import SandboxError
from ringfence.spec.limits import PROC_NAMES

_SIZED_DRIVERS = frozenset({"btrfs", "zfs"})
_USUAL_NOFILE = 1048576
_LIMITS_BY_FLAG = {
    "MemoryLimit": "memory",
    "SwapLimit": "swap",
    "CpuCfsQuota": "cpus",
    "CPUSet": "cpuset",
    "CPUShares": "cpu_shares",
    "PidsLimit": "pids",
}
_CAP_SYS_RESOURCE = 1 << 24
_NO_CGROUPS = (
    "the daemon runs without cgroups: a rootless one needs those of version 2"
    " (systemd.unified_cgroup_hierarchy=1 for the kernel) and systemd; or use a daemon of root's"
)
_EVERY_USER = ["0", "0", str(2**32 - 1)]
_OTHER_LIMITS = frozenset({"tmp", "shm", "run", "timeout", "output", "ulimits"})


@dataclass(frozen=True, slots=True)
class Machine:
    """A daemon and the machine it runs on.

    memory: bytes; cpus: cores; nofile: the highest hard limit of open files.
    ulimits: likewise of others, by name, where the daemon is bound by its own. security: names such
    as "seccomp", "apparmor", "selinux", "userns", "rootless". limits: names of `Limits` that hold.
    root: where the daemon keeps its data. sized_root: whether a container's own layer can be given
    a size. same_kernel: whether it says to run this machine's kernel. daemon: its pid here, 0 when
    it is not seen. cgroups: whether its containers have cgroups of their own.
    """

    engine: str
    memory: int
    cpus: int
    nofile: int
    cgroup_version: int
    security: frozenset[str]
    runtimes: frozenset[str]
    default_runtime: str
    limits: frozenset[str]
    root: str
    sized_root: bool
    same_kernel: bool
    daemon: int = 0
    cgroups: bool = True
    ulimits: Mapping[str, int] = field(default_factory=dict)

    @property
    def missing(self) -> str:
        """Why it limits, measures and pauses nothing, and what can be done; "" where it does."""
        return "" if self.cgroups else _NO_CGROUPS

    @property
    def surely_local(self) -> bool:
        """Whether the daemon is proven to see the files that this process sees."""
        return self.same_kernel and self.daemon > 0 and _shares_mounts(self.daemon)


async def describe(engine: Engine) -> Machine:
    """Ask the daemon. BackendUnavailableError when it is absent or no Linux daemon."""
    info = await engine.described("info", "info", by="ServerVersion")
    daemon = await _daemon_pid(engine)
    security = frozenset(
        part.removeprefix("name=")
        for option in info.get("SecurityOptions") or ()
        for part in option.split(",")
        if part.startswith("name=")
    )
    driver = str(info.get("Driver", ""))
    same_kernel = info.get("KernelVersion") == os.uname().release
    here = same_kernel and daemon > 0
    root = str(info.get("DockerRootDir", ""))
    hard = _hard_limits(daemon)
    return Machine(
        engine=str(info.get("ServerVersion", "")),
        memory=int(info.get("MemTotal", 0)),
        cpus=int(info.get("NCPU", 1)),
        nofile=hard.pop("nofile", _USUAL_NOFILE),
        ulimits={} if _may_raise(daemon) else hard,
        cgroup_version=int(info.get("CgroupVersion") or 1),
        security=security,
        runtimes=frozenset(info.get("Runtimes") or {}),
        default_runtime=str(info.get("DefaultRuntime", "runc")),
        limits=_limits(info, sized=driver in _SIZED_DRIVERS, here=here, disks=disks_of([root])),
        root=root,
        sized_root=driver in _SIZED_DRIVERS,
        same_kernel=same_kernel,
        daemon=daemon,
        cgroups=info.get("CgroupDriver") != "none",
    )


def _limits(
    info: Mapping[str, Any], *, sized: bool, here: bool, disks: tuple[str, ...]
) -> frozenset[str]:
    """here: whether the daemon runs on this machine. disks: those that its data is on."""
    found = set(_OTHER_LIMITS)
    if info.get("CgroupDriver") != "none":
        found |= {name for flag, name in _LIMITS_BY_FLAG.items() if info.get(flag)}
        if here:
            found.add("cpu_time")
        if here and disks:
            found |= {"read_rate", "write_rate"}
    if sized:
        found.add("disk")
    return frozenset(found)


async def _daemon_pid(engine: Engine) -> int:
    """The pid of who listens on the daemon's socket, as the kernel knows it; 0 elsewhere."""
    path = engine.endpoint.socket
    if path is None:
        return 0
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(connection, path)
        except OSError:
            return 0
        pid = peer_pid(connection)
    return pid if _name_of(pid) == "dockerd" else 0


def _name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def _hard_limits(daemon: int) -> dict[str, int]:
    """The daemon's own hard limits by the name of the ulimit, without those that are unlimited;
    empty where they cannot be read."""
    try:
        text = Path(f"/proc/{daemon}/limits").read_text()
    except OSError:
        return {}
    rows = {line[:25].strip(): line[25:].split() for line in text.splitlines()[1:]}
    return {
        name: int(rows[row][1])
        for name, row in PROC_NAMES.items()
        if row in rows and rows[row][1].isdigit()
    }


def _may_raise(daemon: int) -> bool:
    """Whether the daemon's containers can have higher limits than itself: with CAP_SYS_RESOURCE,
    that of a user namespace (rootless) not counted."""
    try:
        text = Path(f"/proc/{daemon}/status").read_text()
        users = Path(f"/proc/{daemon}/uid_map").read_text()
    except OSError:
        return True
    found = re.search(r"^CapEff:\s*([0-9a-f]+)$", text, re.MULTILINE)
    return found is None or (
        bool(int(found[1], 16) & _CAP_SYS_RESOURCE) and users.split() == _EVERY_USER
    )


def _shares_mounts(pid: int) -> bool:
    try:
        theirs = Path(f"/proc/{pid}/ns/mnt").stat()
    except OSError:
        return False
    return theirs.st_ino == Path("/proc/self/ns/mnt").stat().st_ino


async def sees_our_files(engine: Engine, image: str) -> bool:
    """Whether the daemon sees this machine's files, found by trying.

    A container that is never started binds a new directory whose name nobody can know; a daemon
    elsewhere refuses it. The container is removed again.
    """
    directory = Path(tempfile.mkdtemp(prefix=DIRECTORIES, dir=state_directory()))
    mount = {"Type": "bind", "Source": str(directory), "Target": "/.ringfence", "ReadOnly": True}
    body = {
        "Image": image,
        "Cmd": ["/"],
        "NetworkDisabled": True,
        "HostConfig": {"Mounts": [mount], "NetworkMode": "none"},
        "Labels": {PROBE: directory.name},
    }
    name = probe_name(directory.name)
    try:
        await finish(engine.post("probe", "containers", "create", body=body, name=name))
    except SandboxError as error:
        if "status" not in error.context:
            raise
        return False
    else:
        return True
    finally:
        await asyncio.to_thread(directory.rmdir)
        await finish(_forget(engine, name))


async def _forget(engine: Engine, name: str) -> None:
    try:
        await engine.request("probe", "DELETE", ("containers", name), {"force": True, "v": True})
    except SandboxError as error:
        if error.context.get("status") != 404:
            raise
