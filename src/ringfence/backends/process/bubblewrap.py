"""bubblewrap's part of a sandbox, where the keeper does not do without."""

from collections.abc import Collection, Sequence

from ringfence.backends.process.place import (
    ENTERING,
    GUEST,
    GUEST_CAPABILITIES,
    OWN,
    RUN,
    Place,
    parents,
    taken,
    tmpfs,
)
from ringfence.errors import InvalidSpecError
from ringfence.spec import SandboxSpec, Security

NAMESPACES = ("pid", "net", "ipc", "uts", "cgroup")
"""Those that every sandbox has of its own, besides mounts."""
_MOST_ARGUMENTS = 9000
"""Of a bubblewrap: MAX_ARGS of its source."""


def bubblewrap(spec: SandboxSpec, place: Place, guest: Sequence[str]) -> list[str]:
    """Namespaces, mounts, and the guest as the first process. InvalidSpecError for more paths than
    bubblewrap takes."""
    args = [place.machine.bwrap, *_isolation(place)]
    for entry in place.root:
        args += entry.args()
    own = by_guest(spec, place)
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
    args += ["--chdir", "/", "--info-fd", "3", "--", *guest]
    _check_number(len(args) - 1, spec.security, place)
    return args


def by_guest(spec: SandboxSpec, place: Place) -> frozenset[str]:
    """What the guest mounts itself where bubblewrap begins, which costs a tenth of what it costs
    there; for an ordinary user nothing. It comes last: what something else is mounted below is
    bubblewrap's."""
    if not place.machine.devices or spec.security.devices:
        return frozenset()
    return OWN - taken(spec, place)


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
    wanted = {path: ["--perms", "0755", "--dir", path] for path in parents(spec, place)}
    wanted |= {bind.destination: [] for bind in place.binds}
    for bind in place.binds:
        how = "--ro-bind" if bind.read_only else "--bind"
        wanted[bind.destination] += [how, bind.source, bind.destination]
    for path, size in tmpfs(spec):
        if path not in own:
            args = ["--perms", "1777", "--size", str(size), "--tmpfs", path]
            wanted[path] = [*wanted.get(path, []), *args]
    return wanted


def _isolation(place: Place) -> list[str]:
    args = [f"--unshare-{name}" for name in NAMESPACES]
    args += ["--hostname", "sandbox", "--new-session", "--as-pid-1", "--cap-drop", "ALL"]
    kept = set(ENTERING)
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
