"""What this daemon cannot enforce, said before anything starts.

Daemons ignore AppArmor and SELinux requests in silence where the kernel has neither, and memory
limits where they run without cgroups: what the daemon does not say it has is refused here.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from ringfence.backends.docker.machine import Machine
from ringfence.backends.refusing import refuse_disks, refuse_what
from ringfence.backends.sized import ONLY_A_WORKSPACE, in_workspace
from ringfence.policy.profiles import is_gvisor
from ringfence.policy.users import is_root
from ringfence.spec import SandboxSpec

_CGROUP_LIMITS = ("memory", "cpus", "cpuset", "cpu_shares", "pids", "read_rate", "write_rate")

_NOT_IN_GVISOR = ("msgqueue", "rtprio")


def refuse(spec: SandboxSpec, machine: Machine) -> None:
    """UnsupportedError that names every control of `spec` which the daemon cannot enforce; those in
    `allow_degraded` are let pass. PolicyDeniedError for a disk among its devices."""
    if machine.same_kernel:
        refuse_disks(spec)
    refuse_what("this Docker Engine", spec, _problems(spec, machine))


def _problems(spec: SandboxSpec, machine: Machine) -> Iterator[tuple[str, str]]:
    yield from _confinement(spec, machine)
    yield from _limits(spec, machine)
    yield from _owners(spec, machine)


def _owners(spec: SandboxSpec, machine: Machine) -> Iterator[tuple[str, str]]:
    """Where the daemon maps users, all that is this machine's is nobody's inside, or root's where
    the daemon is rootless: a repository can be read where everyone may read it, and not be written
    but by that root."""
    if spec.repository is None or not machine.security & {"userns", "rootless"}:
        return
    why = "the daemon maps users (userns-remap), so that no command can be its owner"
    if "rootless" in machine.security:
        if os.geteuid() == 0:
            yield (
                "repository",
                "the daemon is an ordinary user's (rootless): be that user here, too",
            )
            return
        if is_root(spec.user or ""):
            return
        why = "the daemon is rootless, so that only user 0 inside (profile permissive) is its owner"
    if spec.repository.mode != "ro":
        yield "repository", f"{why}: use mode 'ro', upload files instead, or use another daemon"
    elif not _open_to_all(Path(spec.repository.path)):
        yield "repository", f"{why}, and others may not read it: chmod o+rx it"


def _open_to_all(path: Path) -> bool:
    try:
        return path.stat().st_mode & 0o5 == 0o5
    except OSError:
        return True  # a clone is made for the sandbox


def _confinement(spec: SandboxSpec, machine: Machine) -> Iterator[tuple[str, str]]:
    security = spec.security
    for name in ("apparmor", "selinux"):
        if getattr(security, name) is not None and name not in machine.security:
            yield name, f"the daemon's kernel does not enforce {name}"
    if security.user_namespace and not machine.security & {"userns", "rootless"}:
        yield "user_namespace", "start the daemon with userns-remap, or rootless"
    if "seccomp" not in machine.security:
        yield "seccomp", "the daemon has no seccomp"
    if security.runtime is not None and security.runtime not in machine.runtimes:
        known = ", ".join(sorted(machine.runtimes))
        yield "runtime", f"there is no runtime {security.runtime!r}; it has {known}"
    if is_gvisor(security.runtime) and spec.network.mode == "bridge":
        yield "network", "gVisor runs without a network here: use mode='proxy'"


def _limits(spec: SandboxSpec, machine: Machine) -> Iterator[tuple[str, str]]:
    if is_gvisor(spec.security.runtime or machine.default_runtime):
        for name in _NOT_IN_GVISOR:
            if getattr(spec.limits.ulimits, name) is not None:
                yield f"ulimits.{name}", "gVisor's kernel does not take it"
    for name in _CGROUP_LIMITS:
        if getattr(spec.limits, name) is not None and name not in machine.limits:
            yield name, machine.missing or "the daemon does not limit it (no such controller)"
    if spec.limits.swap and "swap" not in machine.limits:
        yield "swap", "the daemon's kernel does not account swap"
    if spec.limits.disk is not None and not machine.sized_root and not in_workspace(spec):
        yield "disk", f"its storage driver has no sizes: {ONLY_A_WORKSPACE}"
