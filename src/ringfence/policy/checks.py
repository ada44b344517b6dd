"""What a profile or a ceiling forbids, field by field."""

import posixpath

from ringfence.policy import seccomp
from ringfence.policy.ceiling import Ceiling
from ringfence.policy.profiles import Profile
from ringfence.policy.users import RESERVED_IDS, is_reserved, is_root
from ringfence.spec import SandboxSpec
from ringfence.spec.limits import cores
from ringfence.spec.names import PROFILES, nearest
from ringfence.spec.network import covers

Problem = tuple[str, str]


def denials(spec: SandboxSpec, profile: Profile, ceiling: Ceiling) -> list[Problem]:
    """Every field of `spec` that is denied, with the reason; of a request or of a grant."""
    found: list[Problem] = []
    for check in (_relaxations, _seccomp, _devices):
        found += check(spec, profile)
    for cap in (_capped_sandbox, _capped_security, _capped_network, _capped_mounts):
        found += cap(spec, ceiling)
    return list(dict.fromkeys(found))


def _relaxations(spec: SandboxSpec, profile: Profile) -> list[Problem]:
    """What only a relaxed profile gives, and what none gives."""
    found = []
    if spec.user is not None and is_reserved(spec.user):
        found.append(("user", f"{spec.user} is the guest's own uid or group: choose another"))
    taken = [group for group in spec.security.groups if group in RESERVED_IDS]
    if taken:
        found.append(("security.groups", f"{taken[0]} is the guest's own: choose another"))
    if profile.relaxed:
        return found
    only = f"only profile 'permissive' gives it, this is {profile.name!r}"
    if spec.user is not None and is_root(spec.user):
        found.append(("user", f"{spec.user!r} is root: {only}"))
    if spec.security.read_only_root is False:
        found.append(("security.read_only_root", f"False is a writable root: {only}"))
    if spec.security.capabilities:
        names = ", ".join(spec.security.capabilities)
        found.append(("security.capabilities", f"{names}: {only}"))
    if spec.network.mode == "bridge":
        found.append(("network.mode", f"'bridge' is an open network: {only}"))
    return found


def _seccomp(spec: SandboxSpec, profile: Profile) -> list[Problem]:
    found = []
    name = spec.security.seccomp
    if name in PROFILES and PROFILES.index(name) > PROFILES.index(profile.name):
        found.append(
            ("security.seccomp", f"{name!r} is wider than profile {profile.name!r} allows")
        )
    for syscall in spec.security.seccomp_allow:
        reason = seccomp.addition_problem(syscall, profile.name)
        if reason:
            found.append(("security.seccomp_allow", reason))
    return found


def _devices(spec: SandboxSpec, profile: Profile) -> list[Problem]:
    if profile.devices or not spec.security.devices:
        return []
    names = ", ".join(spec.security.devices)
    return [("security.devices", f"{names}: profile {profile.name!r} gives none")]


def _capped_sandbox(spec: SandboxSpec, ceiling: Ceiling) -> list[Problem]:
    found = []
    if spec.profile not in ceiling.profiles:
        allowed = ", ".join(ceiling.profiles)
        found.append(("profile", f"{spec.profile!r} is above the ceiling, which allows {allowed}"))
    if spec.image is not None and not ceiling.permits_image(spec.image):
        allowed = ", ".join(ceiling.images or ())
        found.append(("image", f"{spec.image!r} is not one of the ceiling's: {allowed}"))
    if spec.detached and not ceiling.detached:
        found.append(("detached", "True is above the ceiling"))
    repository = spec.repository
    if repository is not None and repository.mode not in ceiling.repository_modes:
        allowed = ", ".join(ceiling.repository_modes) or "no repository"
        found.append(
            ("repository.mode", f"{repository.mode!r} is above the ceiling, which allows {allowed}")
        )
    return found


def _capped_security(spec: SandboxSpec, ceiling: Ceiling) -> list[Problem]:
    most, asked, found = ceiling.security, spec.security, []
    refused = {
        "user": not most.root and spec.user is not None and is_root(spec.user),
        "security.read_only_root": not most.writable_root and asked.read_only_root is False,
        "security.tmp_exec": not most.tmp_exec and asked.tmp_exec is True,
        "security.seccomp": not most.seccomp_files and "/" in (asked.seccomp or ""),
    }
    found += [
        (field, "is above the ceiling") for field, is_refused in refused.items() if is_refused
    ]
    runtime = () if asked.runtime is None else (asked.runtime,)
    lists = {
        "capabilities": (asked.capabilities or (), most.capabilities),
        "seccomp_allow": (asked.seccomp_allow, most.seccomp_allow),
        "devices": (asked.devices, most.devices),
        "runtime": (runtime, most.runtimes),
        "allow_degraded": (asked.allow_degraded, most.allow_degraded),
    }
    for field, (values, allowed) in lists.items():
        found += [
            (f"security.{field}", f"{value!r} is above the ceiling{nearest(value, allowed)}")
            for value in values
            if allowed is not None and value not in allowed
        ]
    cpuset = ceiling.limits.cpuset
    if cpuset and spec.limits.cpuset and not cores(spec.limits.cpuset) <= cores(cpuset):
        found.append(("limits.cpuset", f"{spec.limits.cpuset!r} is above the ceiling, {cpuset!r}"))
    return found


def _capped_network(spec: SandboxSpec, ceiling: Ceiling) -> list[Problem]:
    most, asked, found = ceiling.network, spec.network, []
    if asked.mode not in most.modes:
        found.append(
            ("network.mode", f"{asked.mode!r} is above the ceiling: {', '.join(most.modes)}")
        )
    for rule in asked.allow if most.allow is not None else ():
        if not any(
            covers(cap.host, rule.host) and set(rule.ports) <= set(cap.ports)
            for cap in most.allow or ()
        ):
            ports = ",".join(str(port) for port in rule.ports)
            found.append(("network.allow", f"{rule.host}:{ports} is above the ceiling"))
    if asked.secrets and not most.secrets:
        found.append(("network.secrets", "the ceiling allows none"))
    if asked.ports and not most.ports:
        found.append(("network.ports", "the ceiling allows none"))
    return found


def _capped_mounts(spec: SandboxSpec, ceiling: Ceiling) -> list[Problem]:
    found = []
    for index, mount in enumerate(spec.mounts):
        field = f"mounts.{index}"
        if not ceiling.permits_mount(posixpath.realpath(mount.source)):
            allowed = ", ".join(ceiling.mounts or ()) or "none"
            found.append((field, f"{mount.source!r} is not below the ceiling's: {allowed}"))
        if not mount.read_only and not ceiling.writable_mounts:
            found.append((field, f"{mount.source!r} writable is above the ceiling"))
    return found
