"""From a granted spec to the keeper's command line."""

import functools
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from ringfence.backends.base import Bind
from ringfence.backends.cgroups import Plan
from ringfence.backends.process.etc import User
from ringfence.backends.process.home import Home
from ringfence.backends.process.machine import Machine, nofile
from ringfence.backends.process.root import Entry
from ringfence.errors import InvalidSpecError
from ringfence.policy.profiles import MASKED_PATHS, READ_ONLY_PATHS, tmpfs_inodes
from ringfence.spec import SandboxSpec, Security
from ringfence.spec.names import CAPABILITIES

RUN = "/.ringfence"
GUEST = f"{RUN}/guest"
GUEST_CAPABILITIES = ("SETUID", "SETGID", "KILL")
"""What the guest needs to become each command's user and to end its processes."""

_ENTERING = ("SYS_ADMIN", "SETPCAP")
NAMESPACES = ("pid", "net", "ipc", "uts", "cgroup")
"""Those that every sandbox has of its own, besides mounts."""
_COUNTER, _LIFELINE = 4, 5
"""The descriptors that the keeper opens the counter as, and the pipe that ends with it."""
STREAM = 6
"""The descriptor on which keeper and guest get the other end of the first session's stream."""
TEMPLATE = STREAM + 1
"""The one on which a keeper gets the mounts that the sandbox begins with."""
_ALWAYS = ("/tmp", "/run", "/dev/shm")  # noqa: S108 - names inside the sandbox
_GUESTS = frozenset(("/proc", "/dev", *_ALWAYS))
_MOST_ARGUMENTS = 9000
"""Of a bubblewrap: MAX_ARGS of its source."""
_FEW = 1000
"""As many entries and binds as a keeper puts together: most are a descriptor, for a moment, of
those that it may have."""


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


def keeper(spec: SandboxSpec, place: Place, *, templated: bool = False) -> list[str]:
    """The whole command line that starts a sandbox. templated: whether it is handed a template."""
    machine, plan = place.machine, place.plan
    args = [machine.guest, "--keep", str(place.home.path)]
    for directory in plan.make:
        args += ["--make", directory]
    for option, writes in (("write", plan.write), ("inside", plan.inside), ("thaw", plan.thaw)):
        for path, value in writes:
            args += [f"--{option}", path, value]
    if spec.security.oom_score_adj is not None and not machine.privileged:
        args += ["--inside", "/proc/self/oom_score_adj", str(spec.security.oom_score_adj)]
    if plan.into is not None:
        args += ["--into", plan.into]
    if place.counter:
        args += ["--counter", place.counter]
    args += ["--pass", str(STREAM)]
    if not spec.detached:
        args.append("--attached")
    if place.last is not None:
        args += ["--last", place.last]
    if not templated:
        return [*args, "--", *bubblewrap(spec, place)]
    args += ["--template", str(TEMPLATE), "--", *_parts(place)]
    return [*args, "--", *_guest(spec, place)]


def template(machine: Machine, root: Sequence[Entry]) -> list[str]:
    """bubblewrap's part of a template: what of the host a root shows, and who holds it."""
    args = [machine.bwrap, "--new-session", "--cap-drop", "ALL"]
    for entry in root:
        if entry.kind == "bind":
            args += entry.args()
    return [*args, "--ro-bind", machine.guest, GUEST, "--remount-ro", "/", "--", GUEST, "--hold"]


def takes_template(spec: SandboxSpec, place: Place) -> bool:
    """Whether a template, binds and what the guest mounts itself last are all of it; what lies
    below that is for bubblewrap to mount, and what is very much."""
    parts = len(place.root) + len(place.binds)
    if parts > min(_FEW, nofile() // 2) or not place.machine.templates or spec.security.tmpfs:
        return False
    return _mounted_by_guest(spec, place) == _GUESTS


def nests(place: Place) -> bool:
    """Whether something is bound in something else that is: others may put a link on the way there
    meanwhile, and bubblewrap would follow it."""
    targets = {bind.destination for bind in place.binds}
    return any(not targets.isdisjoint(_above(target)) for target in targets)


def _parts(place: Place) -> list[str]:
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
    return args


def bubblewrap(spec: SandboxSpec, place: Place) -> list[str]:
    """bubblewrap's part: namespaces, mounts, and the guest as the first process. InvalidSpecError
    for more paths than it takes."""
    args = [place.machine.bwrap, *_isolation(place)]
    for entry in place.root:
        args += entry.args()
    own = _mounted_by_guest(spec, place)
    if not own:
        args += ["--proc", "/proc", "--dev", "/dev"]
    wanted = _wanted(spec, place, own)
    for path in sorted(wanted):
        args += wanted[path]
    for device in spec.security.devices:
        args += ["--dev-bind", device, device]
    args += ["--ro-bind", str(place.home.run), RUN]
    if not place.linked:
        args += ["--ro-bind", place.machine.guest, GUEST]
    args += ["--chdir", "/", "--info-fd", "3", "--", *_guest(spec, place)]
    _check_number(len(args) - 1, spec.security, place)
    return args


def _check_number(needed: int, security: Security, place: Place) -> None:
    if needed <= _MOST_ARGUMENTS:
        return
    paths: dict[str, Collection[object]] = {
        "mounts": place.binds,
        "security.tmpfs": security.tmpfs,
        "security.masked_paths": security.masked_paths or (),
        "security.read_only_paths": security.read_only_paths or (),
    }
    field = max(paths, key=lambda name: len(paths[name]))
    raise InvalidSpecError(
        f"{field}: bubblewrap takes {_MOST_ARGUMENTS} arguments, and with {len(paths[field])} paths"
        f" here, and the directories above them, it is given {needed}: name directories above them",
        op="create",
        context={"fields": [field]},
    )


def _wanted(spec: SandboxSpec, place: Place, own: frozenset[str]) -> dict[str, list[str]]:
    """What was asked for and what the guest does not mount, by place, with the directories above:
    each is made in what lies there by then."""
    wanted = {path: ["--perms", "0755", "--dir", path] for path in _parents(spec, place)}
    wanted |= {bind.destination: [] for bind in place.binds}
    for bind in place.binds:
        how = "--ro-bind" if bind.read_only else "--bind"
        wanted[bind.destination] += [how, bind.source, bind.destination]
    for path, size in _tmpfs(spec):
        if path not in own:
            args = ["--perms", "1777", "--size", str(size), "--tmpfs", path]
            wanted[path] = [*wanted.get(path, []), *args]
    return wanted


def _guest(spec: SandboxSpec, place: Place) -> list[str]:
    args = [GUEST, "--enter", *_entering(spec, place)]
    args += ["--", "--socket", RUN, "--connected", str(STREAM)]
    if not place.machine.privileged:
        # Commands have the guest's own uid: a pid namespace of their own keeps them off it.
        args.append("--pidns")
    return args


def _isolation(place: Place) -> list[str]:
    args = [f"--unshare-{name}" for name in NAMESPACES]
    args += ["--hostname", "sandbox", "--new-session", "--as-pid-1", "--cap-drop", "ALL"]
    kept = set(_ENTERING)
    if place.machine.privileged:
        kept.update(GUEST_CAPABILITIES)
    else:
        user = place.user
        args += [
            "--unshare-user",
            "--disable-userns",
            "--uid",
            str(user.uid),
            "--gid",
            str(user.gid),
        ]
    if place.machine.devices:
        kept.add("MKNOD")
    for name in sorted(kept):
        args += ["--cap-add", f"CAP_{name}"]
    return args


def _targets(spec: SandboxSpec, place: Place) -> list[str]:
    """Where something was asked to be mounted."""
    return [*(bind.destination for bind in place.binds), *spec.security.tmpfs]


def _parents(spec: SandboxSpec, place: Place) -> list[str]:
    """Directories above mount points, which bubblewrap would make for their owner alone."""
    return sorted({above for target in _targets(spec, place) for above in _above(target)})


def _above(path: str) -> set[str]:
    return {str(above) for above in PurePosixPath(path).parents} - {"/"}


def _mounted_by_guest(spec: SandboxSpec, place: Place) -> frozenset[str]:
    """What the guest mounts itself, which costs a tenth of what it costs in bubblewrap; for an
    ordinary user nothing. It comes last: what something else is mounted below is bubblewrap's."""
    if not place.machine.devices or spec.security.devices:
        return frozenset()
    taken = {path for target in _targets(spec, place) for path in (target, *_above(target))}
    return _GUESTS - taken


def _tmpfs(spec: SandboxSpec) -> Iterable[tuple[str, int]]:
    limits = spec.limits
    sizes = (limits.tmp, limits.run, limits.shm)
    for path, size in (*zip(_ALWAYS, sizes, strict=True), *spec.security.tmpfs.items()):
        if size is not None:
            yield path, size


def _entering(spec: SandboxSpec, place: Place) -> list[str]:
    security = spec.security
    args = _guests_mounts(spec, place)
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


def _guests_mounts(spec: SandboxSpec, place: Place) -> list[str]:
    """What the guest mounts, or makes of what bubblewrap mounted."""
    own = _mounted_by_guest(spec, place)
    args = ["--proc", "/proc", "--dev", "/dev"] if own else []
    if not own and place.machine.privileged:  # else it is another user namespace's
        args += ["--terminals", "/dev/pts"]
    for path, size in _tmpfs(spec):
        execution = spec.security.tmp_exec and path not in ("/run", "/dev/shm")  # noqa: S108 - names inside the sandbox
        if path in own:
            options = f"size={size},nr_inodes={tmpfs_inodes(size)},mode=1777"
            args += ["--tmpfs", f"{'' if execution else 'noexec,'}{options}:{path}"]
            continue
        if place.machine.privileged:  # else the tmpfs is another user namespace's
            args += ["--inodes", f"{tmpfs_inodes(size)}:{path}"]
        if not execution:
            args += ["--noexec", path]
    return args
