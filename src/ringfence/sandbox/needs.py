"""What a request asks of its backend, held against what the backend can do."""

from ringfence.backends.base import Features
from ringfence.errors import UnsupportedError
from ringfence.policy.profiles import is_gvisor
from ringfence.spec import Limits, SandboxSpec, Ulimits

_CGROUPS = frozenset({"memory", "swap", "cpus", "cpuset", "cpu_shares", "pids", "read_rate",
                      "write_rate"})  # fmt: skip
_FILES = frozenset({"mounts", "repository"})
_OURS = frozenset({"timeout", "output"})
"""Limits that the guest and its session enforce on every backend."""


def check(request: SandboxSpec, features: Features) -> None:
    """UnsupportedError that names everything asked for explicitly and not possible here, but for
    the limits of a cgroup that `allow_degraded` names: the receipt says that these are missing."""
    without = {f"limits.{name}" for name in _CGROUPS.intersection(request.security.allow_degraded)}
    found = dict.fromkeys([*_limits(request, features), *_others(request, features)])
    lacking = [name for name in found if name not in without]
    if lacking == ["limits.cpu_time"]:
        raise cpu_time_refused(request)
    if lacking:
        raise UnsupportedError(
            f"the {request.backend} backend cannot do what was asked for: {', '.join(lacking)}"
            f"{_why(lacking, features)};"
            f" leave it out, or choose another backend (see `ringfence doctor`){_without(lacking)}",
            op="open",
            context={"fields": lacking, "backend": request.backend},
        )


def like(granted: SandboxSpec, features: Features) -> SandboxSpec:
    """The request for another sandbox like a granted one: what that one does without, because its
    request said so, is not asked for."""
    without = [name.removeprefix("limits.") for name in _limits(granted, features)]
    user = granted.user if features.users else None
    less = granted.limits.model_copy(update={name: getattr(Limits(), name) for name in without})
    return granted.model_copy(update={"limits": less, "user": user})


def _why(lacking: list[str], features: Features) -> str:
    """Why there is no cgroup, where one would do, and nothing of this machine's."""
    whys = []
    if any(name.removeprefix("limits.") in _CGROUPS for name in lacking):
        whys.append(features.missing)
    if not _FILES.isdisjoint(lacking):
        whys.append("it does not see this machine's files: upload them instead")
    return "".join(f" ({why})" for why in whys if why)


def _without(lacking: list[str]) -> str:
    """How to do without what is done without by name."""
    limits = [name.removeprefix("limits.") for name in lacking]
    named = ",".join(name for name in limits if name in _CGROUPS)
    return f"; to do without: --allow-degraded {named} (security.allow_degraded)" if named else ""


def _limits(request: SandboxSpec, features: Features) -> list[str]:
    limits = request.limits
    ours = {"network_rate"} if request.network.mode == "proxy" else set()
    if features.usage:
        ours.add("cpu_time")
    if features.mounts and request.repository is not None and request.repository.mode == "copy":
        ours.add("disk")
    if not request.detached:
        ours |= features.watched & set(request.security.allow_degraded)
    asked = {
        name
        for name in Limits.model_fields
        if name not in _OURS and name != "ulimits" and getattr(limits, name) is not None
    }
    lacking = [f"limits.{name}" for name in sorted(asked - features.limits - ours)]
    if limits.ulimits != Ulimits() and "ulimits" not in features.limits:
        lacking.append("limits.ulimits")
    return lacking


def _others(request: SandboxSpec, features: Features) -> list[str]:
    runtime = request.security.runtime
    asked = {
        "user": request.user is not None and not features.users,
        "mounts": bool(request.mounts) and not features.mounts,
        "repository": request.repository is not None and not features.mounts,
        "lock": request.lock is not None and not features.locks,
        "detached": request.detached and not features.detached,
        "limits.cpu_time": request.limits.cpu_time is not None and not _counts(request, features),
        "network.mode": request.network.mode not in features.networks,
        "network.ports": bool(request.network.ports) and "proxy" not in features.networks,
        "network.secrets": request.detached and bool(request.network.secrets),
        "security.runtime": runtime is not None and runtime not in features.runtimes,
    }
    return [name for name, lacks in asked.items() if lacks]


def check_granted(granted: SandboxSpec, features: Features) -> None:
    """UnsupportedError for a processor time that a ceiling added and nobody could watch."""
    if granted.limits.cpu_time is not None and not _counts(granted, features):
        raise cpu_time_refused(granted)


def _counts(spec: SandboxSpec, features: Features) -> bool:
    """Whether somebody sees its processor time: its holder, or, of a detached one, its guest."""
    if not spec.detached:
        return features.usage
    return features.usage and features.cpu_counter and not is_gvisor(spec.security.runtime)


def cpu_time_refused(spec: SandboxSpec) -> UnsupportedError:
    """The error for a processor time that nobody could watch."""
    why = f"the {spec.backend} backend cannot measure it here"
    if spec.detached:
        why = (
            "the guest of a detached sandbox watches it, which needs cgroups of this machine and"
            " a guest on a socket: no gVisor, no Engine elsewhere, no stream transport"
        )
    return UnsupportedError(
        f"limits.cpu_time: {why}",
        op="open",
        context={"fields": ["limits.cpu_time"], "backend": spec.backend},
    )
