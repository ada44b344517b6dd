"""Names that are known, and the nearest of them to one that is not."""

import difflib
from collections.abc import Iterable
from typing import Literal

CAPABILITIES = (
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID",
    "SETPCAP", "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW",
    "IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT",
    "SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD",
    "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG",
    "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF", "CHECKPOINT_RESTORE",
)  # fmt: skip
"""Every capability of Linux by its number, without CAP_."""

GRANTABLE = frozenset({"CHOWN", "DAC_OVERRIDE", "FOWNER", "SETUID", "SETGID"})
"""What a package manager needs; no other capability can be given to a sandbox."""

CONTROLS = (
    "apparmor", "capabilities", "cpu_shares", "cpus", "cpuset", "devices", "disk", "groups",
    "guest", "masked_paths", "memory", "mount", "namespace", "network", "no_new_privileges",
    "oom_score_adj", "pids", "read_only_paths", "read_only_root", "read_rate", "repository",
    "runtime", "seccomp", "selinux", "swap", "sysctl", "sysctls", "tmpfs", "ulimits.core",
    "ulimits.cpu", "ulimits.fsize", "ulimits.memlock", "ulimits.msgqueue", "ulimits.nofile",
    "ulimits.nproc", "ulimits.rtprio", "ulimits.stack", "user", "user_namespace", "write_rate",
)  # fmt: skip
"""What `allow_degraded` may name: the rows of a receipt, and what backends refuse beforehand."""
_SEVERAL = frozenset({"mount", "namespace", "sysctl", "tmpfs"})
"""Of these a receipt has a row for each: "tmpfs /tmp"."""

ProfileName = Literal["strict", "standard", "permissive"]
PROFILES: tuple[ProfileName, ...] = ("strict", "standard", "permissive")


def nearest(name: str, known: Iterable[str]) -> str:
    """ "; did you mean 'x'?" for the known name nearest to `name`, else "; known are ..."."""
    names = sorted(known)
    found = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if found:
        return f"; did you mean {found[0]!r}?"
    return "; known are " + ", ".join(names[:24]) + (" ..." if len(names) > 24 else "")


def check_control(name: str) -> str:
    """The name of a control, if there is one of that name; else ValueError."""
    kind, space, which = name.partition(" ")
    if name not in CONTROLS and not (space and which.strip() and kind in _SEVERAL):
        raise ValueError(
            f"{name!r} is no control{nearest(name, CONTROLS)} (docs/policy.md lists them all)"
        )
    return name
