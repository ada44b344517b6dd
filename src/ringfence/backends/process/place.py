"""All that a process sandbox is made of, and what is mounted in each."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from ringfence.backends.base import Bind
from ringfence.backends.cgroups import Plan
from ringfence.backends.process.etc import User
from ringfence.backends.process.home import Home
from ringfence.backends.process.machine import Machine
from ringfence.backends.process.root import Entry
from ringfence.spec import SandboxSpec

RUN = "/.ringfence"
GUEST = f"{RUN}/guest"
GUEST_CAPABILITIES = ("SETUID", "SETGID", "KILL")
"""What the guest needs to become each command's user and to end its processes."""
ENTERING = ("SYS_ADMIN", "SETPCAP")
"""What `ringfence-guest --enter` needs."""
ALWAYS = ("/tmp", "/run", "/dev/shm")  # noqa: S108 - names inside the sandbox
"""The tmpfs that every sandbox has."""
OWN = frozenset(("/proc", "/dev", *ALWAYS))
"""What every sandbox has of its own."""


@dataclass(frozen=True, slots=True)
class Place:
    """All that a sandbox is made of. counter: the file that counts its OOM kills, "" for none.
    linked: whether the guest's program is in the home. last: what the home is in, when the last
    sandbox takes it along."""

    home: Home
    machine: Machine
    root: Sequence[Entry]
    user: User
    plan: Plan
    binds: Sequence[Bind] = ()
    counter: str = ""
    linked: bool = True
    last: str | None = None


def targets(spec: SandboxSpec, place: Place) -> list[str]:
    """Where something was asked to be mounted."""
    return [*(bind.destination for bind in place.binds), *spec.security.tmpfs]


def parents(spec: SandboxSpec, place: Place) -> list[str]:
    """Directories above mount points, which bubblewrap would make for their owner alone."""
    return sorted({one for target in targets(spec, place) for one in above(target)})


def taken(spec: SandboxSpec, place: Place) -> frozenset[str]:
    """Where something was asked to be mounted, or above that."""
    wanted = targets(spec, place)
    return frozenset((*wanted, *(one for target in wanted for one in above(target))))


def above(path: str) -> set[str]:
    """The directories that lie above a path, but for the root."""
    return {str(one) for one in PurePosixPath(path).parents} - {"/"}


def tmpfs(spec: SandboxSpec) -> Iterable[tuple[str, int]]:
    """Where a tmpfs is to be, and its bytes."""
    limits = spec.limits
    sizes = (limits.tmp, limits.run, limits.shm)
    for path, size in (*zip(ALWAYS, sizes, strict=True), *spec.security.tmpfs.items()):
        if size is not None:
            yield path, size
