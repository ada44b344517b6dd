"""A profile as rows: each control, its value, and a sentence of why."""

from collections.abc import Mapping
from dataclasses import dataclass

from ringfence.errors import InvalidSpecError
from ringfence.policy.profiles import PROFILES, Profile
from ringfence.policy.seccomp.arguments import REASONS, rules
from ringfence.policy.seccomp.groups import GROUPS
from ringfence.spec import Ulimits
from ringfence.spec.names import nearest

WHY: Mapping[str, str] = {
    "memory": "A memory bomb ends the sandbox's own processes and nobody else's.",
    "swap": "Swapping would slow the machine down for everybody and make the limit soft.",
    "cpus": "A busy loop costs its own share only.",
    "pids": "A fork bomb stops at the limit, and the guest keeps room of its own to end it.",
    "tmp": "A tmpfs is memory; without a size it may take half of the machine's.",
    "shm": "Programs expect /dev/shm, and it is memory as well.",
    "run": "Programs expect a writable /run; little of it.",
    "timeout": "A command that hangs is ended, and everything that it started with it.",
    "output": "A flood of output is counted and dropped beyond this, not kept on the host.",
    "idle_timeout": "What nobody uses does not stay.",
    "user": "Root inside is one mistake away from root outside.",
    "network": "What cannot reach anything cannot take anything out.",
    "read_only_root": "What is executed is what the image holds; only tmpfs and mounts change.",
    "no_new_privileges": "Set-user-id files give nothing, so a hole in one gives nothing.",
    "capabilities": "None of root's powers, whatever the user id says.",
    "seccomp": "Syscalls that ordinary programs do not need are where kernels break.",
    "masked_paths": "Parts of /proc and /sys tell about the host and other sandboxes.",
    "read_only_paths": "Parts of /proc change the kernel when they are written.",
    "tmp_exec": "Where nothing can be executed, what was fetched cannot be.",
    "oom_score_adj": "When the machine itself runs out, sandboxes go first.",
    "devices": "No device beyond null, zero, full, random, tty and terminals of its own.",
    "namespaces": "Processes, mounts, network, IPC, host name and cgroups of its own.",
    "ulimits.nofile": "Open files take the kernel's memory.",
    "ulimits.core": "A core file is a copy of memory on disk.",
    "ulimits.memlock": "Locked memory cannot be taken back.",
    "ulimits.msgqueue": "POSIX queues take the kernel's memory.",
    "ulimits.fsize": "One file cannot fill a disk.",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One control of a profile. value: in words, with units."""

    control: str
    value: str
    why: str


@dataclass(frozen=True, slots=True)
class Difference:
    """A control whose value is not the same in two profiles."""

    control: str
    left: str
    right: str


def rows(name: str) -> tuple[Row, ...]:
    """Every control of a profile. InvalidSpecError for a name that is none."""
    profile = _profile(name)
    found = {**_limits(profile), **_security(profile)}
    return tuple(Row(control, value, WHY[control]) for control, value in found.items())


def difference(left: str, right: str) -> tuple[Difference, ...]:
    """The controls in which two profiles differ."""
    ours = {row.control: row.value for row in rows(left)}
    theirs = {row.control: row.value for row in rows(right)}
    return tuple(
        Difference(control, value, theirs[control])
        for control, value in ours.items()
        if theirs[control] != value
    )


def refused(name: str) -> tuple[Row, ...]:
    """What the profile's seccomp filter refuses, group by group, and the conditional calls."""
    profile = _profile(name).name
    groups = [
        Row(group.name, ", ".join(group.syscalls), group.reason)
        for group in GROUPS
        if profile in group.refused_by
    ]
    conditional = rules(profile)
    return (
        *groups,
        *(
            Row(f"{call} (some)", f"{len(conditional[call])} forms allowed", why)
            for call, why in REASONS.items()
            if call in conditional
        ),
    )


def _profile(name: str) -> Profile:
    if name not in PROFILES:
        raise InvalidSpecError(
            f"profile: {name!r} is no profile{nearest(name, PROFILES)}",
            op="policy",
            context={"fields": ["profile"]},
        )
    return PROFILES[name]


def _limits(profile: Profile) -> dict[str, str]:
    limits = profile.limits
    found = {
        "memory": _bytes(limits.memory),
        "swap": _bytes(limits.swap),
        "cpus": f"{limits.cpus:g}",
        "pids": str(limits.pids),
        "tmp": _bytes(limits.tmp),
        "shm": _bytes(limits.shm),
        "run": _bytes(limits.run),
        "timeout": f"{limits.timeout:g} s",
        "output": _bytes(limits.output),
        "idle_timeout": f"{profile.idle_timeout:g} s",
    }
    for name in Ulimits.model_fields:
        pair = getattr(limits.ulimits, name)
        if pair is not None:
            counted = name in ("nofile", "nproc", "rtprio", "cpu")
            found[f"ulimits.{name}"] = str(pair.hard) if counted else _bytes(pair.hard)
    return found


def _security(profile: Profile) -> dict[str, str]:
    security = profile.security
    asked = "; more when asked for" if profile.relaxed else ""
    return {
        "user": "not root" + ("; root when asked for" if profile.relaxed else ""),
        "network": "none; proxy" + (" or bridge" if profile.relaxed else "") + " when asked for",
        "read_only_root": "yes" + ("; writable when asked for" if profile.relaxed else ""),
        "no_new_privileges": "yes",
        "capabilities": "none" + asked,
        "seccomp": security.seccomp or "",
        "masked_paths": ", ".join(security.masked_paths or ()),
        "read_only_paths": ", ".join(security.read_only_paths or ()),
        "tmp_exec": "yes" if security.tmp_exec else "no",
        "oom_score_adj": str(security.oom_score_adj),
        "devices": "none" + ("; more when asked for" if profile.devices else ""),
        "namespaces": "its own",
    }


def _bytes(value: int | None) -> str:
    if not value:
        return "0"
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if value >= size and value % size == 0:
            return f"{value // size} {unit}"
    return f"{value} bytes"
