"""Where `limits.disk` holds without a daemon's help: in a workspace of that size; or is watched."""

from ringfence.backends.base import Features
from ringfence.policy.profiles import is_gvisor
from ringfence.spec import SandboxSpec

ONLY_A_WORKSPACE = (
    "give it a repository in mode copy, whose workspace has that size, with the root and the mounts"
    " read-only"
)


def in_workspace(spec: SandboxSpec) -> bool:
    """Whether all that can be written outside of tmpfs is a workspace of at most `limits.disk`."""
    repository, disk = spec.repository, spec.limits.disk
    return (
        disk is not None
        and repository is not None
        and repository.mode == "copy"
        and repository.size is not None
        and repository.size <= disk
        and spec.security.read_only_root is not False
        and all(mount.read_only for mount in spec.mounts)
    )


def is_watched(spec: SandboxSpec, features: Features) -> bool:
    """Whether a granted spec's `limits.disk` is held by its holder's watching alone: nothing better
    is there, that was allowed, and what can be written can be measured."""
    repository = spec.repository
    return (
        spec.limits.disk is not None
        and "disk" in features.watched - features.limits
        and "disk" in spec.security.allow_degraded
        and not spec.detached
        and spec.security.read_only_root is False
        and not is_gvisor(spec.security.runtime)
        and (repository is None or repository.mode in ("ro", "copy"))
        and all(mount.read_only for mount in spec.mounts)
    )


def with_size(spec: SandboxSpec) -> SandboxSpec:
    """The spec; its workspace, if it has one, no larger than `limits.disk`."""
    repository, disk = spec.repository, spec.limits.disk
    if disk is None or repository is None or repository.mode != "copy":
        return spec
    size = disk if repository.size is None else min(disk, repository.size)
    return spec.model_copy(update={"repository": repository.model_copy(update={"size": size})})
