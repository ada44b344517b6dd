"""What this machine lets us do: bubblewrap, user namespaces, cgroups."""

import errno
import functools
import os
import re
import resource
import shutil
import stat
import subprocess
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ringfence.backends import exhausted
from ringfence.backends.cgroup_tree import known_tree
from ringfence.backends.cgroups import Tree
from ringfence.backends.process import trial
from ringfence.errors import BackendUnavailableError, ResourceExhaustedError
from ringfence.guest import build
from ringfence.policy.users import RESERVED_IDS
from ringfence.spec.limits import RESOURCES

LEAST_VERSION = (0, 8)
_VERSION = re.compile(r"(\d+)\.(\d+)")
_INSTALL = "apt-get install bubblewrap (Debian, Ubuntu) or dnf install bubblewrap (Fedora)"
_CAP_SYS_ADMIN = 21
_ANSWER_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Machine:
    """bwrap: its path. privileged: whether sandboxes are made as root, without a user namespace.
    guest: the guest's program. tree: where their cgroups go. devices: whether devices can be made,
    so that the guest can have a /dev of its own. begins: whether a keeper can begin a sandbox
    without bubblewrap."""

    bwrap: str
    version: tuple[int, int]
    privileged: bool
    guest: str
    tree: Tree
    devices: bool = False
    begins: bool = False


def look(guest: Path, directory: Path) -> Machine:
    """The machine as it is now. directory: of what must outlive this process.

    BackendUnavailableError says what is missing and the remedy; ResourceExhaustedError when nothing
    can be run to find out.
    """
    bwrap = shutil.which("bwrap", path=os.environ.get("PATH", os.defpath))
    if bwrap is None:
        raise _unavailable(f"bubblewrap is not installed: {_INSTALL}")
    status = Path(bwrap).stat()
    version = _version(bwrap, status.st_ino, status.st_mtime_ns)
    if version < LEAST_VERSION:
        wanted, found = (".".join(map(str, number)) for number in (LEAST_VERSION, version))
        raise _unavailable(f"{bwrap} is version {found}; {wanted} or newer is needed: {_INSTALL}")
    if not os.access(guest, os.X_OK):
        raise _unavailable(
            f"the guest program {guest} is missing (python -m ringfence.guest.build makes it), or"
            " nothing can be run there"
        )
    privileged = os.geteuid() == 0
    if privileged:
        _check_root()
    else:
        _check_user(bwrap)
    devices = privileged and _makes_devices(guest.parent)
    begins = (devices or not privileged) and trial.succeeds(guest, directory, privileged=privileged)
    return Machine(bwrap, version, privileged, str(guest), known_tree(), devices, begins)


def _makes_devices(directory: Path) -> bool:
    """Whether this root may: one of a user namespace, or held by a device cgroup, may not."""
    path = f"{directory}/.device-{os.getpid()}-{threading.get_ident()}"
    try:
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))
        os.unlink(path)  # noqa: PTH108 - once a look
    except OSError:
        return False
    return True


@functools.lru_cache(maxsize=8)
def _version(bwrap: str, inode: int, changed: int) -> tuple[int, int]:  # noqa: ARG001 - of this file only
    """What a bubblewrap says of itself, asked once for each state of its file."""
    try:
        done = subprocess.run(
            [bwrap, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_ANSWER_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        what = exhausted.told(error)
        if what is not None:
            raise ResourceExhaustedError(
                f"process: {bwrap} cannot be run: {what}", op="open"
            ) from None
        raise _unavailable(f"{bwrap} --version failed: {error}; {_INSTALL}") from None
    output = done.stdout.decode("utf-8", "replace")
    match = _VERSION.search(output)
    if done.returncode != 0 or match is None:
        raise _unavailable(f"{bwrap} --version failed: {output[:200]!r}; {_INSTALL}")
    return int(match[1]), int(match[2])


def _check_root() -> None:
    status = Path("/proc/self/status").read_text()
    effective = int(status.partition("CapEff:")[2].split()[0], 16)
    if not effective >> _CAP_SYS_ADMIN & 1:
        raise _unavailable(
            "this root has no CAP_SYS_ADMIN (a container?): run as an ordinary user where user"
            " namespaces are allowed, or give it that capability"
        )
    if not all(map(_has_users, ("uid_map", "gid_map"))):
        raise _unavailable(
            "this root is one of a user namespace with too few users for the guest and its"
            " commands: run as an ordinary user there, or map 65536 users and groups"
        )


def _has_users(name: str) -> bool:
    """Whether a user namespace has all the ids that one on the host would find."""
    ranges = [line.split() for line in Path("/proc/self", name).read_text().splitlines()]
    return sum(int(size) for _, _, size in ranges) > max(RESERVED_IDS)


def _check_user(bwrap: str) -> None:
    if Path(bwrap).stat().st_mode & stat.S_ISUID:
        raise _unavailable(f"{bwrap} is setuid root, which refuses sized tmpfs: chmod u-s {bwrap}")
    remedy = namespaces_refused()
    if remedy is not None:
        raise _unavailable(remedy)
    if _read(Path("/proc/1/status")) is None:
        raise _unavailable(
            "/proc hides the processes of others from this user, the guest's too: as root, mount -o"
            " remount,hidepid=0 /proc, or put the user into the group that its option gid names"
        )


def namespaces_refused(root: Path = Path("/proc/sys")) -> str | None:
    """Which setting of the kernel keeps ordinary users from making user namespaces, with the
    command that changes it; None when none does."""
    rules: Mapping[str, tuple[str, str]] = {
        "kernel/unprivileged_userns_clone": ("0", "1"),
        "user/max_user_namespaces": ("0", "10000"),
    }
    for name, (refusing, wanted) in rules.items():
        if _read(root / name) == refusing:
            setting = name.replace("/", ".")
            return (
                "ordinary users may not make user namespaces here: as root,"
                f" sysctl -w {setting}={wanted}"
            )
    return None


_NOT_PERMITTED = ("setting up uid map", "No permissions to creat", "RTM_NEWADDR")
"""Of what bubblewrap says when user namespaces are forbidden, or come without privileges."""
_KEEPERS_STEPS = (
    "start namespaces",
    "write /proc/self/",
    "enter a cgroup namespace",
    "mount /proc and /dev",
    "raise lo",
    "enter the user's namespace",
)
"""What a keeper that begins a sandbox itself says of then, each with one of these."""
_DENIALS = (os.strerror(errno.EPERM), os.strerror(errno.EACCES))


def said(output: bytes) -> str:
    """What bubblewrap and the guest wrote to standard error, as one line."""
    lines = output.decode("utf-8", "replace").splitlines()
    return "; ".join(line.strip() for line in lines if line.strip())


def forbids(errors: str) -> bool:
    """Whether by these words, bubblewrap's or a keeper's, the machine forbids user namespaces, or
    lets them have no privileges."""
    if any(words in errors for words in _NOT_PERMITTED):
        return True
    denied = any(words in errors for words in _DENIALS)
    return denied and any(step in errors for step in _KEEPERS_STEPS)


def explain(errors: str, root: Path = Path("/proc/sys")) -> str:
    """What the words of bubblewrap, keeper or guest mean, with what to do, where that is known."""
    if (remedy := exhausted.told_in(errors)) is not None:
        return f"{errors}; {remedy}"
    if not errors.startswith("bwrap: ") and not build.is_fresh(build.target()):
        return (
            f"{errors}; the guest program is older than its sources, as after a git pull:"
            " python -m ringfence.guest.build makes it anew"
        )
    if forbids(errors):
        remedy = namespaces_refused(root)
        if remedy is None and _read(root / "kernel/apparmor_restrict_unprivileged_userns") == "1":
            remedy = (
                "AppArmor keeps ordinary users from user namespaces here: as root,"
                " sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or give bwrap a"
                " profile (docs/backends.md has one)"
            )
        if remedy is not None:
            return f"{errors}; {remedy}"
    return errors


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None


def memory() -> int:
    """Bytes of memory of the machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def nofile() -> int:
    """The highest number of open files a process here can have."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return 2**20 if hard == resource.RLIM_INFINITY else hard


def ulimits() -> dict[str, int]:
    """The highest of other resource limits, by name; what is unlimited is left out."""
    hard = {name: resource.getrlimit(number)[1] for name, number in RESOURCES.items()}
    return {name: most for name, most in hard.items() if most != resource.RLIM_INFINITY}


def _unavailable(why: str) -> BackendUnavailableError:
    return BackendUnavailableError(f"process: {why}", op="open", context={"backend": "process"})
