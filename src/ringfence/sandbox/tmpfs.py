"""The tmpfs of a sandbox that have a size: which limit each is, and which of them are full."""

import posixpath
from collections.abc import Mapping

from ringfence.backends.base import Features
from ringfence.guest.control import Space
from ringfence.spec import SandboxSpec

_LIMITS = {"/tmp": "tmp", "/dev/shm": "shm", "/run": "run"}  # noqa: S108 - names inside the sandbox
_OTHER = "tmpfs"
_FULL = 0.02
"""What may be left of a full one: with so little a file of some size did not fit."""
_WRITE = 2 << 20
"""And as much as this: a program that writes 1 MiB at a time may fail with less than that left."""


def limits(spec: SandboxSpec, features: Features) -> Mapping[str, str]:
    """The limit that is met where each is full, by its path: `tmp`, `shm`, `run`, and `tmpfs` for
    those of `security.tmpfs`. None where the backend gives them no size."""
    if not features.limits.issuperset(_LIMITS.values()):
        return {}
    sized = {
        path: limit for path, limit in _LIMITS.items() if getattr(spec.limits, limit) is not None
    }
    return sized | dict.fromkeys(spec.security.tmpfs, _OTHER)


def limit_at(path: str, spec: SandboxSpec, limited: Mapping[str, str]) -> str | None:
    """The limit of the tmpfs that an absolute path is in by its name; None when it is in none."""
    mounted = {mount.destination for mount in spec.mounts}
    if spec.repository is not None:
        mounted.add(spec.repository.mount_point)
    place = "/" + posixpath.normpath(path).lstrip("/")
    while place not in limited:
        if place == "/" or place in mounted:
            return None
        place = posixpath.dirname(place)
    return limited[place]


def is_full(size: int, free: int) -> bool:
    """Whether a command that failed can have failed for want of bytes."""
    return free < max(size * _FULL, min(size / 16, _WRITE))


def is_used_up(space: Space) -> bool:
    """Whether one is full of bytes, or of files."""
    if not space.size:  # it is none, or the runtime does not tell
        return False
    return is_full(space.size, space.free) or (space.files > 0 and space.free_files == 0)
