"""From a granted spec to the keeper's command line."""

import functools
from collections.abc import Iterator

from ringfence.backends.process.bubblewrap import bubblewrap, by_guest
from ringfence.backends.process.machine import nofile
from ringfence.backends.process.place import (
    GUEST,
    GUEST_CAPABILITIES,
    OWN,
    RUN,
    Place,
    taken,
    tmpfs,
)
from ringfence.policy.profiles import MASKED_PATHS, READ_ONLY_PATHS, tmpfs_inodes
from ringfence.spec import SandboxSpec
from ringfence.spec.names import CAPABILITIES

_COUNTER, _LIFELINE = 4, 5
"""The descriptors that the keeper opens the counter as, and the pipe that ends with it."""
STREAM = 6
"""The descriptor on which keeper and guest get the other end of the first session's stream."""
_FEW = 1000
"""As many entries and binds as a keeper puts together: most are a descriptor, for a moment, of
those that it may have."""


def keeper(spec: SandboxSpec, place: Place, *, begins: bool = False) -> list[str]:
    """The whole command line that starts a sandbox. begins: whether the keeper makes namespaces and
    mounts itself; bubblewrap does otherwise."""
    args = [place.machine.guest, "--keep", str(place.home.path), *_cgroups(spec, place)]
    args += ["--pass", str(STREAM)]
    if not spec.detached:
        args.append("--attached")
    if place.last is not None:
        args += ["--last", place.last]
    if not begins:
        return [*args, "--", *bubblewrap(spec, place, _guest(spec, place, begins=False))]
    args.append("--begin")
    if not place.machine.privileged:
        args += ["--user", f"{place.user.uid}:{place.user.gid}"]
    return [*args, "--", *_parts(spec, place), "--", *_guest(spec, place, begins=True)]


def _cgroups(spec: SandboxSpec, place: Place) -> list[str]:
    """Those of the sandbox, and its part in what the kernel ends when memory is short."""
    plan, args = place.plan, list[str]()
    for directory in plan.make:
        args += ["--make", directory]
    for option, writes in (("write", plan.write), ("inside", plan.inside), ("thaw", plan.thaw)):
        for path, value in writes:
            args += [f"--{option}", path, value]
    if spec.security.oom_score_adj is not None and not place.machine.privileged:
        args += ["--inside", "/proc/self/oom_score_adj", str(spec.security.oom_score_adj)]
    if plan.into is not None:
        args += ["--into", plan.into]
    if place.counter:
        args += ["--counter", place.counter]
    return args


def begins(spec: SandboxSpec, place: Place) -> bool:
    """Whether the keeper can make the mounts itself: what lies below those that every sandbox has,
    and what is very much, is for bubblewrap to mount."""
    parts = len(place.root) + len(place.binds)
    if parts > min(_FEW, nofile() // 2) or spec.security.tmpfs or spec.security.devices:
        return False
    return place.machine.begins and OWN.isdisjoint(taken(spec, place))


def _parts(spec: SandboxSpec, place: Place) -> list[str]:
    """What guest/agent/keep_root.c makes a root of."""
    args: list[str] = []
    for entry in place.root:
        args += entry.part()
    for bind in sorted(place.binds, key=lambda one: one.destination):
        mode = "ro" if bind.read_only else "rw"
        args += ["--bind", mode, bind.source, bind.destination]
    args += ["--bind", "ro", str(place.home.run), RUN]
    if not place.linked:
        args += ["--bind", "ro", place.machine.guest, GUEST]
    if not place.machine.privileged:  # else they are the guest's
        args += _new_tmpfs(spec, OWN)
    return args


def _guest(spec: SandboxSpec, place: Place, *, begins: bool) -> list[str]:
    args = [GUEST, "--enter", *_entering(spec, place, begins=begins)]
    args += ["--", "--socket", RUN, "--connected", str(STREAM)]
    if not place.machine.privileged:
        # Commands have the guest's own uid: a pid namespace of their own keeps them off it.
        args.append("--pidns")
    return args


def _entering(spec: SandboxSpec, place: Place, *, begins: bool) -> list[str]:
    security = spec.security
    if place.machine.privileged:
        args = _mounts(spec, by_guest(spec, place))
    else:
        args = [] if begins else list(_no_exec(spec))
    args += ["--lifeline", str(_LIFELINE)]
    if place.counter:
        args += ["--counter", str(_COUNTER)]
    if security.oom_score_adj is not None and place.machine.privileged:
        # Not bubblewrap: with the largest of the small processes the kernel would kill all.
        args += ["--oom-score", str(security.oom_score_adj)]
    args += ["--seal", "/dev"]
    if security.read_only_root is not False:
        args += ["--seal", "/"]
    args += _covers(security.read_only_paths or (), security.masked_paths or ())
    # With SETPCAP the guest empties the bounding set before it becomes its own user.
    own = GUEST_CAPABILITIES if place.machine.privileged else ("SYS_ADMIN",)
    return [*args, "--capabilities", _mask(("SETPCAP", *own))]


@functools.lru_cache(maxsize=64)
def _covers(read_only: tuple[str, ...], masked: tuple[str, ...]) -> tuple[str, ...]:
    args: list[str] = []
    for path in dict.fromkeys((*READ_ONLY_PATHS, *read_only)):
        args += ["--read-only", path]
    for path in dict.fromkeys((*MASKED_PATHS, *masked)):
        args += ["--mask", path]
    return tuple(args)


@functools.cache
def _mask(capabilities: tuple[str, ...]) -> str:
    return f"{sum(1 << CAPABILITIES.index(name) for name in capabilities):x}"


def _mounts(spec: SandboxSpec, own: frozenset[str]) -> list[str]:
    """What the guest of root mounts (`own`), or makes of what bubblewrap mounted."""
    args = ["--proc", "/proc", "--dev", "/dev"] if own else ["--terminals", "/dev/pts"]
    args += _new_tmpfs(spec, own)
    for path, size in tmpfs(spec):
        if path not in own:
            args += ["--inodes", f"{tmpfs_inodes(size)}:{path}"]
    return [*args, *_no_exec(spec, own)]


def _new_tmpfs(spec: SandboxSpec, own: frozenset[str]) -> list[str]:
    """Those of `own`, which are to be mounted."""
    args: list[str] = []
    for path, size in tmpfs(spec):
        if path in own:
            options = f"size={size},nr_inodes={tmpfs_inodes(size)},mode=1777"
            execution = "" if _runs_programs(spec, path) else "noexec,"
            args += ["--tmpfs", f"{execution}{options}:{path}"]
    return args


def _no_exec(spec: SandboxSpec, own: frozenset[str] = frozenset()) -> Iterator[str]:
    """For what bubblewrap mounted, all but `own`."""
    for path, _ in tmpfs(spec):
        if path not in own and not _runs_programs(spec, path):
            yield from ("--noexec", path)


def _runs_programs(spec: SandboxSpec, path: str) -> bool:
    return bool(spec.security.tmp_exec) and path not in ("/run", "/dev/shm")  # noqa: S108 - names inside the sandbox
