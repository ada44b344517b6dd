"""The named profiles: how much trust a task deserves, as values for every control."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ringfence.spec import Limits, Security, Ulimit, Ulimits

_KIB = 2**10
_MIB = 2**20
_GIB = 2**30

MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/pressure",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
"""What of /proc and /sys no sandbox can read."""

READ_ONLY_PATHS = (
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
)
"""What of /proc no sandbox can write."""

_INODE_BYTES = 1024
_LEAST_INODES = 1024


def tmpfs_inodes(size: int) -> int:
    """How many files a tmpfs of `size` bytes may hold: an empty one costs memory, too."""
    return max(_LEAST_INODES, size // _INODE_BYTES)


@dataclass(frozen=True, slots=True)
class Profile:
    """A profile fills what a request leaves open.

    limits: every field a profile speaks of is set. security: likewise. idle_timeout: seconds.
    relaxed: whether root, a writable root, capabilities and an open network may be asked for.
    devices: whether device files may be asked for.
    """

    name: str
    limits: Limits
    security: Security
    idle_timeout: float
    relaxed: bool = False
    devices: bool = True


def _ulimits(nofile: int, fsize: int, msgqueue: int = 0) -> Ulimits:
    return Ulimits(
        nofile=_both(nofile),
        core=_both(0),
        memlock=_both(64 * _KIB),
        msgqueue=_both(msgqueue),
        fsize=_both(fsize),
    )


def _both(value: int) -> Ulimit:
    return Ulimit(soft=value, hard=value)


def _security(name: str, *, tmp_exec: bool) -> Security:
    return Security(
        read_only_root=True,
        capabilities=(),
        seccomp=name,
        masked_paths=MASKED_PATHS,
        read_only_paths=READ_ONLY_PATHS,
        oom_score_adj=500,
        tmp_exec=tmp_exec,
    )


STRICT = Profile(
    name="strict",
    limits=Limits(
        memory=512 * _MIB,
        swap=0,
        cpus=1.0,
        pids=256,
        tmp=64 * _MIB,
        shm=64 * _MIB,
        run=8 * _MIB,
        timeout=30.0,
        output=_MIB,
        ulimits=_ulimits(1024, _GIB),
    ),
    security=_security("strict", tmp_exec=False),
    idle_timeout=15 * 60.0,
    devices=False,
)

STANDARD = Profile(
    name="standard",
    limits=Limits(
        memory=2 * _GIB,
        swap=0,
        cpus=2.0,
        pids=512,
        tmp=512 * _MIB,
        shm=64 * _MIB,
        run=16 * _MIB,
        timeout=300.0,
        output=10 * _MIB,
        ulimits=_ulimits(4096, 4 * _GIB),
    ),
    security=_security("standard", tmp_exec=True),
    idle_timeout=2 * 3600.0,
)

PERMISSIVE = Profile(
    name="permissive",
    limits=Limits(
        memory=4 * _GIB,
        swap=0,
        cpus=4.0,
        pids=2048,
        tmp=_GIB,
        shm=256 * _MIB,
        run=64 * _MIB,
        timeout=3600.0,
        output=64 * _MIB,
        ulimits=_ulimits(65536, 16 * _GIB, msgqueue=800 * _KIB),
    ),
    security=_security("permissive", tmp_exec=True),
    idle_timeout=24 * 3600.0,
    relaxed=True,
)

PROFILES: Mapping[str, Profile] = {
    profile.name: profile for profile in (STRICT, STANDARD, PERMISSIVE)
}
"""Every profile by its name, the narrowest first."""


def is_gvisor(runtime: str | None) -> bool:
    """Whether an OCI runtime's name says that it is gVisor."""
    return runtime is not None and runtime.split("-")[0] in ("runsc", "gvisor")


def for_runtime(profile: Profile, runtime: str | None) -> Profile:
    """The profile without what a runtime has no use for: gVisor has no POSIX message queues, and
    refuses to limit them."""
    if not is_gvisor(runtime):
        return profile
    ulimits = profile.limits.ulimits.model_copy(update={"msgqueue": None})
    limits = profile.limits.model_copy(update={"ulimits": ulimits})
    return replace(profile, limits=limits)
