"""From a granted spec to the body of the Engine's create call. Reads nothing but a seccomp file."""

import functools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ringfence.backends.base import Bind
from ringfence.backends.cgroup_files import PIDS_HEADROOM
from ringfence.backends.docker.images import Image
from ringfence.backends.docker.machine import Machine
from ringfence.policy.profiles import is_gvisor, tmpfs_inodes
from ringfence.policy.seccomp import granted
from ringfence.spec import Limits, SandboxSpec, Security, Ulimits
from ringfence.spec.limits import UNLIMITED
from ringfence.spec.names import CAPABILITIES

GUEST_CAPABILITIES = ("SETUID", "SETGID", "KILL")
"""What the guest needs to become each command's user and to end its processes."""
GVISOR_PIDS_HEADROOM = 512
"""Threads of gVisor's kernel, which its cgroup counts too."""
GUEST_NOFILE = 8192
"""Open files that the guest may need; commands have the user's limit."""

MASKED = ("/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys",
          "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list",
          "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware")  # fmt: skip
READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

_HOSTS = "/etc/hosts"
_VOLUME_BYTES = 64 * 2**20
_GUEST_RAISED = {"nofile": GUEST_NOFILE}
_OF_COMMANDS_ONLY = frozenset({"cpu", "nproc", "fsize"})
"""Limits that would hit the guest itself: it sets them on each command, which can only lower what
a daemon gives every container (default-ulimits)."""


@dataclass(frozen=True, slots=True)
class Placement:
    """How the guest gets into the container and speaks. entrypoint: its command line. mounts: as
    the Engine has them. stream: whether its stdin and stdout are the stream."""

    entrypoint: Sequence[str]
    mounts: Sequence[Mapping[str, Any]]
    stream: bool


def create_body(
    spec: SandboxSpec,
    image: Image,
    placement: Placement,
    machine: Machine,
    *,
    binds: Sequence[Bind] = (),
    labels: Mapping[str, str],
    devices: Sequence[str] = (),
    hosts: Path | None = None,
) -> dict[str, Any]:
    """The body of POST /containers/create. devices: block devices that read_rate and write_rate
    hold for. hosts: a file that names localhost, None where the daemon does not see our files."""
    stream = placement.stream
    volumes = _image_volumes(spec, image.volumes, binds)
    if hosts is not None and spec.network.mode != "bridge" and not _hides_etc(spec, binds):
        binds = (*binds, Bind(str(hosts), _HOSTS, read_only=True))
    return {
        "Image": image.facts.digest,
        "User": "0:0",
        "Hostname": "sandbox",
        "WorkingDir": "/",
        "Entrypoint": [*placement.entrypoint, *_root_capabilities(spec), *_writable(spec)],
        "Cmd": [],
        "Healthcheck": {"Test": ["NONE"]},
        "StopSignal": "SIGTERM",
        "NetworkDisabled": spec.network.mode != "bridge" and hosts is not None,
        "OpenStdin": stream,
        "StdinOnce": stream and not spec.detached,
        "AttachStdin": stream,
        "AttachStdout": stream,
        "AttachStderr": False,
        "Tty": False,
        "Labels": dict(labels),
        "HostConfig": {
            "AutoRemove": True,
            "Init": False,
            "Privileged": False,
            "RestartPolicy": {"Name": "no"},
            "LogConfig": {"Type": "none"},
            "Mounts": [*placement.mounts, *map(mount_of, binds), *volumes],
            **_resources(spec, machine, devices),
            **_confinement(spec, machine, image.facts.architecture),
            **_network(spec),
        },
    }


def mount_of(bind: Bind) -> dict[str, Any]:
    """A bind as the Engine has it."""
    if bind.volume is not None:
        driver = {"Name": "local", "Options": dict(bind.volume)}
        return {
            "Type": "volume",
            "Target": bind.destination,
            "ReadOnly": bind.read_only,
            "VolumeOptions": {"NoCopy": True, "DriverConfig": driver},
        }
    # What is mounted below the source would stay writable on older Engines: it is left out.
    return {
        "Type": "bind",
        "Source": bind.source,
        "Target": bind.destination,
        "ReadOnly": bind.read_only,
        "BindOptions": {"Propagation": "rprivate", "NonRecursive": True},
    }


def _hides_etc(spec: SandboxSpec, binds: Sequence[Bind]) -> bool:
    """Whether something of the spec's own is where the file of hosts would be, or over it."""
    taken = {bind.destination for bind in binds} | set(_tmpfs(spec))
    return not taken.isdisjoint(("/etc", _HOSTS))


def _image_volumes(
    spec: SandboxSpec, volumes: Sequence[str], binds: Sequence[Bind]
) -> list[dict[str, Any]]:
    """A sized tmpfs for each of the image's own volumes, which the daemon would make writable
    without a limit. With a writable root they stay the daemon's, and go with the container."""
    if spec.security.read_only_root is False:
        return []
    taken = {bind.destination for bind in binds} | set(_tmpfs(spec))
    size = spec.limits.tmp or _VOLUME_BYTES
    return [
        {
            "Type": "tmpfs",
            "Target": path,
            "TmpfsOptions": {"SizeBytes": size, "Mode": 0o1777},
        }
        for path in volumes
        if path not in taken
    ]


def _tmpfs(spec: SandboxSpec) -> dict[str, str]:
    limits, security = spec.limits, spec.security
    execution = "exec" if security.tmp_exec else "noexec"
    found = {path: (size, execution) for path, size in security.tmpfs.items()}
    if limits.tmp is not None:
        found["/tmp"] = (limits.tmp, execution)  # noqa: S108 - a name inside the sandbox
    if limits.run is not None:
        found["/run"] = (limits.run, "noexec")
    if limits.shm is not None:
        found["/dev/shm"] = (limits.shm, "noexec")  # noqa: S108 - likewise
    return {
        path: f"rw,nosuid,nodev,{how},size={size},mode=1777,nr_inodes={tmpfs_inodes(size)}"
        for path, (size, how) in found.items()
    }


def _writable(spec: SandboxSpec) -> list[str]:
    """Some runtimes give a tmpfs the mode of the image's directory: the guest opens it again."""
    return [word for path in sorted(_tmpfs(spec)) for word in ("--writable", path)]


def _root_capabilities(spec: SandboxSpec) -> list[str]:
    """What the guest leaves to commands of root."""
    names = spec.security.capabilities or ()
    mask = sum(1 << CAPABILITIES.index(name) for name in names)
    return ["--root-capabilities", f"{mask:x}"] if mask else []


def _resources(spec: SandboxSpec, machine: Machine, devices: Sequence[str]) -> dict[str, Any]:
    limits = spec.limits
    found: dict[str, Any] = {
        "Tmpfs": _tmpfs(spec),
        "Ulimits": _ulimits(limits.ulimits, machine, spec.security.runtime),
        **limits_body(limits, machine, spec.security.runtime),
    }
    if spec.security.oom_score_adj is not None:
        found["OomScoreAdj"] = spec.security.oom_score_adj
    if limits.disk is not None and machine.sized_root:
        found["StorageOpt"] = {"size": str(limits.disk)}
    for name, rate in (("Read", limits.read_rate), ("Write", limits.write_rate)):
        if rate is not None:
            found[f"BlkioDevice{name}Bps"] = [{"Path": path, "Rate": rate} for path in devices]
    return found


def limits_body(limits: Limits, machine: Machine, runtime: str | None = None) -> dict[str, Any]:
    """The part of the create and update calls that says what a cgroup is limited to."""
    found: dict[str, Any] = {}
    if limits.memory is not None and "memory" in machine.limits:
        found["Memory"] = limits.memory
        if "swap" in machine.limits:
            found["MemorySwap"] = limits.memory + (limits.swap or 0)
    if limits.cpus is not None and "cpus" in machine.limits:
        found["NanoCpus"] = math.ceil(limits.cpus * 1e9)
    if limits.cpuset is not None:
        found["CpusetCpus"] = limits.cpuset
    if limits.cpu_shares is not None:
        found["CpuShares"] = limits.cpu_shares
    if limits.pids is not None and "pids" in machine.limits:
        found["PidsLimit"] = limits.pids + pids_headroom(runtime)
    return found


def pids_headroom(runtime: str | None) -> int:
    """How far the cgroup's limit of processes is above the user's."""
    return GVISOR_PIDS_HEADROOM if is_gvisor(runtime) else PIDS_HEADROOM


def _ulimits(ulimits: Ulimits, machine: Machine, runtime: str | None) -> list[dict[str, Any]]:
    found = []
    for name in type(ulimits).model_fields:
        limit = getattr(ulimits, name)
        if name in _OF_COMMANDS_ONLY:
            found.extend(_most(name, machine, runtime))
            continue
        if limit is None:
            continue
        least = min(_GUEST_RAISED.get(name, 0), machine.nofile)
        soft, hard = max(limit.soft, least), max(limit.hard, least)
        found.append({"Name": name, "Soft": _engines(soft), "Hard": _engines(hard)})
    return found


def _most(name: str, machine: Machine, runtime: str | None) -> list[dict[str, Any]]:
    """A ulimit as high as the daemon can give it, nothing where that is not known: what bounds the
    daemon bounds nothing in gVisor's kernel."""
    if not machine.daemon:
        return []
    bounds = {} if is_gvisor(runtime) else machine.ulimits
    most = bounds.get(name, _engines(UNLIMITED))
    return [{"Name": name, "Soft": most, "Hard": most}]


def _engines(limit: int) -> int:
    return -1 if limit == UNLIMITED else limit


def _seccomp(security: Security, profile: str, architecture: str) -> str:
    if security.seccomp is not None and "/" in security.seccomp:  # a file, which may change
        return _packed(granted(security, profile, architecture))
    return _builtin(security.seccomp, security.seccomp_allow, profile, architecture)


@functools.lru_cache(maxsize=16)
def _builtin(chosen: str | None, allowed: tuple[str, ...], profile: str, architecture: str) -> str:
    security = Security(seccomp=chosen, seccomp_allow=allowed)
    return _packed(granted(security, profile, architecture))


def _packed(profile: Mapping[str, Any]) -> str:
    return json.dumps(profile, separators=(",", ":"))


def _confinement(spec: SandboxSpec, machine: Machine, architecture: str) -> dict[str, Any]:
    security = spec.security
    options = ["no-new-privileges"]
    if "seccomp" in machine.security:
        options.append(f"seccomp={_seccomp(security, spec.profile, architecture)}")
    if security.apparmor is not None:
        options.append(f"apparmor={security.apparmor}")
    if security.selinux is not None:
        options.append(f"label=type:{security.selinux}")
    found: dict[str, Any] = {
        "CapDrop": ["ALL"],
        "CapAdd": sorted({*GUEST_CAPABILITIES, *(security.capabilities or ())}),
        "SecurityOpt": options,
        "ReadonlyRootfs": security.read_only_root is not False,
        # A namespace of its own without the Engine's /dev/shm, which has no limit of files.
        "IpcMode": "private" if spec.limits.shm is None else "none",
        "CgroupnsMode": "private",
        "MaskedPaths": sorted({*MASKED, *(security.masked_paths or ())}),
        "ReadonlyPaths": sorted({*READ_ONLY, *(security.read_only_paths or ())}),
        "Devices": [
            {"PathOnHost": path, "PathInContainer": path, "CgroupPermissions": "rw"}
            for path in security.devices
        ],
    }
    if machine.cgroup_version == 1 and "memory" in machine.limits:
        found["MemorySwappiness"] = 0
    if security.sysctls:
        found["Sysctls"] = dict(security.sysctls)
    if security.runtime is not None:
        found["Runtime"] = security.runtime
    return found


def _network(spec: SandboxSpec) -> dict[str, Any]:
    network = spec.network
    if network.mode != "bridge":
        # NetworkDisabled, too, starts twice as fast, but without /etc/hosts; where it were ignored
        # there is still no network.
        return {"NetworkMode": "none"}
    return {
        "NetworkMode": "bridge",
        "Dns": list(network.dns),
        "DnsSearch": list(network.dns_search),
        "DnsOptions": list(network.dns_options),
        "ExtraHosts": [f"{name}:{address}" for name, address in network.extra_hosts.items()],
    }
