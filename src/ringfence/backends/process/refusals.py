"""What this machine cannot enforce for a sandbox of processes, said before anything starts."""

from collections.abc import Iterator

from ringfence.backends.cgroup_files import block_devices
from ringfence.backends.process.machine import Machine
from ringfence.backends.refusing import refuse_disks, refuse_what
from ringfence.backends.sized import ONLY_A_WORKSPACE, in_workspace
from ringfence.spec import SandboxSpec

ALWAYS = frozenset({"tmp", "shm", "run", "timeout", "output", "ulimits"})
"""Limits that need no cgroup."""

_CGROUP_LIMITS = ("memory", "swap", "cpus", "cpuset", "cpu_shares", "pids", "read_rate",
                  "write_rate")  # fmt: skip


def refuse(spec: SandboxSpec, machine: Machine) -> None:
    """UnsupportedError that names every control of `spec` which cannot be enforced here; those in
    `allow_degraded` are let pass. PolicyDeniedError for a disk among its devices."""
    refuse_disks(spec)
    problems = (*_confinement(spec, machine), *_limits(spec, machine))
    refuse_what("the process backend here", spec, problems)


def _confinement(spec: SandboxSpec, machine: Machine) -> Iterator[tuple[str, str]]:
    security = spec.security
    for name in ("apparmor", "selinux", "runtime", "sysctls"):
        if getattr(security, name):
            yield name, "only the docker backend has it"
    if security.user_namespace and machine.privileged:
        yield "user_namespace", "root makes sandboxes without one: run as an ordinary user"
    if security.capabilities:
        yield "capabilities", "commands have none here"
    if security.groups and not machine.privileged:
        yield "groups", "an ordinary user cannot give any"
    if spec.network.mode == "bridge":
        yield "network", "there is no bridge: use mode='proxy'"
    if spec.image is not None and security.read_only_root is False:
        yield "read_only_root", "an unpacked image is shared and stays as it is"


def _limits(spec: SandboxSpec, machine: Machine) -> Iterator[tuple[str, str]]:
    limits = spec.limits
    held = machine.tree.limits
    why = machine.tree.missing or "this kernel has no cgroup controller for it"
    for name in _CGROUP_LIMITS:
        value = getattr(limits, name)
        if value is None or name in held or (name == "swap" and value == 0):
            continue
        yield name, why
    rated = [name for name in ("read_rate", "write_rate") if getattr(limits, name) is not None]
    if rated and machine.tree.version and not block_devices(["/usr"]):
        yield from ((name, "what is here is on no disk that could be limited") for name in rated)
    if limits.disk is not None and not in_workspace(spec):
        yield "disk", ONLY_A_WORKSPACE
