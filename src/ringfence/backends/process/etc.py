"""A minimal /etc for sandboxes on the host's own system: what programs need, and no secret.

Users, hosts and name service are made up; certificates, the linker's cache, alternatives and the
like are copied from the host. A selection is made once and shared, read-only, by all sandboxes
that want the same one; it is named by what went into it, so a changed host gives a new one.
"""

import contextlib
import hashlib
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ringfence.backends.hosts import LOCALHOST
from ringfence.backends.owner import boot_id

COPIED = (
    "alternatives", "bash.bashrc", "bindresvport.blacklist", "ca-certificates",
    "ca-certificates.conf", "crypto-policies", "debian_version", "default/locale", "ethertypes",
    "fonts", "gai.conf", "glvnd", "groff", "host.conf", "inputrc", "java-11-openjdk",
    "java-17-openjdk", "java-21-openjdk", "ld.so.cache", "ld.so.conf", "ld.so.conf.d",
    "locale.alias", "localtime", "login.defs", "lsb-release", "magic", "magic.mime",
    "manpath.config", "mime.types", "networks", "os-release", "perl", "pki/ca-trust",
    "pki/tls/certs", "profile", "profile.d", "protocols", "python3", "python3.11", "python3.12",
    "python3.13", "rpc", "services", "sgml", "shells", "skel", "ssl/certs", "ssl/openssl.cnf",
    "terminfo", "timezone", "vim", "xattr.conf", "xml",
)  # fmt: skip
"""What is taken of the host's /etc, where everyone may read it."""

_FIRSTS = tuple((name, name.partition("/")[0]) for name in COPIED)
_SECRETS = (".key", ".pem.key", "private", "shadow", "gshadow", "netrc", "credentials")
_UNUSED_SECONDS = 3600.0
_FILE_BYTES = 4 * 2**20
_ALL_BYTES = 64 * 2**20
_NSSWITCH = "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nservices: files\n"


@dataclass(frozen=True, slots=True)
class User:
    """The user of a sandbox's commands, as its /etc/passwd has it."""

    uid: int
    gid: int
    name: str = "user"

    @property
    def home(self) -> str:
        """Its home directory inside."""
        return "/root" if self.uid == 0 else f"/home/{self.name}"


def made_up(user: User) -> dict[str, str]:
    """The files that are not the host's, by name."""
    passwd = ["root:x:0:0:root:/root:/bin/sh"]
    group = ["root:x:0:"]
    if user.uid != 0:
        passwd.append(f"{user.name}:x:{user.uid}:{user.gid}::{user.home}:/bin/sh")
    if user.gid != 0:
        group.append(f"{user.name}:x:{user.gid}:")
    if 65534 not in (user.uid, user.gid):
        passwd.append("nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin")
        group.append("nogroup:x:65534:")
    return {
        "passwd": "\n".join(passwd) + "\n",
        "group": "\n".join(group) + "\n",
        "hosts": LOCALHOST,
        "hostname": "sandbox\n",
        "nsswitch.conf": _NSSWITCH,
        "resolv.conf": "",
        "machine-id": "",
    }


def selection(root: Path, user: User, source: Path = Path("/etc")) -> Path:
    """The directory for this user below `root`, made when there is none for this state of the host.

    Raises OSError when it cannot be written.
    """
    files = made_up(user)
    path = root / _name(files, source)
    try:
        os.utime(path)  # in use: see prune
    except FileNotFoundError:
        _make(path, files, source)
    return path


def _name(files: dict[str, str], source: Path) -> str:
    # What was made before this boot may be empty since: nobody waits for the disk here.
    told = [boot_id(), repr(sorted(files.items()))]
    top = str(source)
    there = set(_names(source))
    for name, first in _FIRSTS:
        if first not in there:
            continue
        try:
            status = os.lstat(f"{top}/{name}")
        except OSError:
            continue
        told.append(f"{name}:{status.st_mtime_ns}:{status.st_size}:{status.st_ino};")
    return hashlib.sha256("".join(told).encode()).hexdigest()[:24]


def _make(path: Path, files: dict[str, str], source: Path) -> None:
    path.parent.mkdir(mode=0o711, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=".new-", dir=path.parent))
    try:
        room = _ALL_BYTES
        for name in COPIED:
            room = _copy(source / name, new / name, room)
        for name, text in files.items():
            (new / name).write_text(text)
            (new / name).chmod(0o644)
        mounts = new / "mtab"
        mounts.symlink_to("/proc/self/mounts")
        new.chmod(0o755)
        new.rename(path)
    except OSError:
        shutil.rmtree(new, ignore_errors=True)
        if not path.is_dir():  # else another process made it meanwhile
            raise


def _readable_directory(path: Path) -> None:
    """Make it and those above it that are missing, for everyone to read."""
    if not path.is_dir():
        _readable_directory(path.parent)
        path.mkdir()
        path.chmod(0o755)


def _copy(source: Path, target: Path, room: int) -> int:
    """Copy what is public, links as they are; the bytes that may still be copied are returned."""
    try:
        status = os.lstat(source)
    except OSError:
        return room
    if _secret(source) or (not stat.S_ISLNK(status.st_mode) and not status.st_mode & stat.S_IROTH):
        return room
    _readable_directory(target.parent)
    if stat.S_ISLNK(status.st_mode):
        target.symlink_to(source.readlink())
    elif stat.S_ISDIR(status.st_mode):
        _readable_directory(target)
        for name in _names(source):
            room = _copy(source / name, target / name, room)
    elif stat.S_ISREG(status.st_mode) and status.st_size <= min(_FILE_BYTES, room):
        shutil.copyfile(source, target, follow_symlinks=False)
        target.chmod(0o755 if status.st_mode & stat.S_IXUSR else 0o644)
        room -= status.st_size
    return room


def _names(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)  # noqa: PTH208 - names, not paths
    except OSError:
        return []


def _secret(path: Path) -> bool:
    return path.name.lower().endswith(_SECRETS)


def prune(root: Path, used: Iterable[str]) -> None:
    """Remove the selections that no sandbox uses and that nobody wanted for an hour."""
    kept = set(used)
    before = time.time() - _UNUSED_SECONDS
    if not root.is_dir():
        return
    for path in root.iterdir():
        with contextlib.suppress(FileNotFoundError):
            if path.name not in kept and path.stat().st_mtime < before:
                shutil.rmtree(path, ignore_errors=True)
