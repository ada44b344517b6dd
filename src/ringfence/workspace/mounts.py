"""Mounts that root makes for a workspace: a limited layer, an overlay, a tree with other owners."""

import ctypes
import errno
import fcntl
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ringfence.errors import ResourceExhaustedError, StateError, UnsupportedError
from ringfence.spec.paths import lies_in
from ringfence.workspace.beneath import open_resolved, remove_tree

_LIBC = ctypes.CDLL(None, use_errno=True)
_RDONLY, _NOSUID, _NODEV = 1, 2, 4
_DETACH = 2
_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 428, 429, 442
_CLONE, _EMPTY_PATH = 1, 0x1000
_MOVE_FROM_EMPTY = 4
_ATTR_NOSUID, _ATTR_NODEV, _ATTR_IDMAP = 2, 4, 0x100000
_AT_FDCWD = -100
_SLACK = 2 << 20
_TOOL_SECONDS = 60
_IDS = 65536


class _MountAttr(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def mount(kind: str, source: str, target: Path, options: str, *, read_only: bool = False) -> None:
    """mount(2), always nosuid and nodev. OSError."""
    flags = _NOSUID | _NODEV | (_RDONLY if read_only else 0)
    _check(
        _LIBC.mount(source.encode(), os.fsencode(target), kind.encode(), flags, options.encode()),
        target,
    )


def unmount(target: Path) -> None:
    """Unmount at once; what is still in use goes when its last user does. No mount is fine."""
    try:
        _check(_LIBC.umount2(os.fsencode(target), _DETACH), target)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOENT):
            raise


def mounted_below(directory: Path) -> list[Path]:
    """Mount points at or below `directory`, the innermost first."""
    wanted = str(directory.resolve())
    found = []
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        raw = line.split(b" ")[4].decode("unicode_escape").encode("latin-1")
        place = os.fsdecode(raw)
        if lies_in(place, wanted):
            found.append(Path(place))
    return found[::-1]


def clear(directory: Path) -> None:
    """Unmount all below `directory` and remove it; others that do so meanwhile are waited for.
    StateError, and nothing removed, while a mount is left: removing would reach what is mounted."""
    try:
        alone = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(alone, fcntl.LOCK_EX)
        if directory.is_dir():
            _clear(directory)
    finally:
        os.close(alone)


def _clear(directory: Path) -> None:
    for place in mounted_below(directory):
        unmount(place)
    if left := mounted_below(directory):
        raise StateError(f"{left[0]} cannot be unmounted", op="workspace")
    mounts = directory / "mounts"
    if mounts.is_dir():
        for place in sorted(mounts.iterdir()):
            place.rmdir()
        mounts.rmdir()
    parent = os.open(directory.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        remove_tree(parent, directory.name)
    finally:
        os.close(parent)


def place(directory: Path, name: str) -> Path:
    """An empty directory to mount on, below `directory`."""
    found = directory / "mounts" / name
    found.mkdir(mode=0o700, parents=True)
    return found


def limited(directory: Path, size: int) -> tuple[Path, str]:
    """A writable file system of `size` bytes, mounted below `directory`; and what it is.

    An ext4 file system in a sparse file, else (no loop devices, no mkfs.ext4) a tmpfs, whose bytes
    count as memory. UnsupportedError when neither can be mounted.
    """
    target = place(directory, "writable")
    if shutil.which("mkfs.ext4") is not None and _ext4(directory / "writable.img", size, target):
        return target, "ext4"
    try:
        mount("tmpfs", "tmpfs", target, f"size={size},mode=0700")
    except OSError as error:
        raise UnsupportedError(
            f"no file system of {size} bytes can be mounted: {error.strerror}", op="workspace"
        ) from None
    return target, "tmpfs"


def _ext4(image: Path, size: int, target: Path) -> bool:
    with image.open("xb") as file:
        os.fchmod(file.fileno(), 0o600)
        file.truncate(size + size // 16 + _SLACK)
    made = _tool(
        "mkfs.ext4", "-q", "-F", "-m", "0", "-i", "4096",
        "-O", "^has_journal,^resize_inode", "-E", "nodiscard,lazy_itable_init=1",
        str(image),
    )  # fmt: skip
    if made and _tool("mount", "-t", "ext4", "-o", "loop,nosuid,nodev", str(image), str(target)):
        return True
    image.unlink()
    return False


def _tool(*args: str) -> bool:
    done = subprocess.run(
        args, capture_output=True, timeout=_TOOL_SECONDS, check=False, stdin=subprocess.DEVNULL
    )
    return done.returncode == 0


def overlay_options(lowers: Sequence[Path], upper: Path, work: Path, *, user: bool = False) -> str:
    """The options of an overlay mount. user: its marks are user.* attributes, not trusted.*."""
    for path in (*lowers, upper, work):
        if any(mark in str(path) for mark in ",:\\\"'\n "):
            raise UnsupportedError(
                f"{path} cannot be named in an overlay's options; choose another state directory",
                op="workspace",
            )
    below = ":".join(map(str, lowers))
    marks = ",userxattr" if user else ",redirect_dir=off,metacopy=off"
    return f"lowerdir={below},upperdir={upper},workdir={work},index=off{marks}"


def overlay(directory: Path, lowers: Sequence[Path], upper: Path, work: Path) -> Path:
    """Mount an overlay below `directory`. UnsupportedError when the kernel refuses."""
    target = place(directory, "merged")
    try:
        mount("overlay", "overlay", target, overlay_options(lowers, upper, work))
    except OSError as error:
        raise _refused("an overlay", error) from None
    return target


def mapped(directory: Path, source: Path, uids: tuple[int, int], gids: tuple[int, int]) -> Path:
    """Mount `source` below `directory` with one uid and one gid shown as others, both ways.

    uids, gids: (as stored, as seen). What is seen as the second is stored as the first. The ids
    change places, so that nobody becomes the owner by accident. UnsupportedError when the kernel or
    the file system cannot do it.
    """
    target = place(directory, "mapped")
    try:
        namespace = _user_namespace(uids, gids)
        try:
            _clone_mapped(source, target, namespace)
        finally:
            os.close(namespace)
    except OSError as error:
        raise _refused("a mount with other owners", error) from None
    return target


def _clone_mapped(source: Path, target: Path, namespace: int) -> None:
    flags = _CLONE | os.O_CLOEXEC
    there = open_resolved(source)
    try:
        tree = _check(_LIBC.syscall(_OPEN_TREE, there, b"", flags | _EMPTY_PATH), source)
    finally:
        os.close(there)
    try:
        wanted = _ATTR_IDMAP | _ATTR_NOSUID | _ATTR_NODEV
        attr = _MountAttr(wanted, 0, 0, namespace)
        size = ctypes.sizeof(attr)
        _check(
            _LIBC.syscall(_MOUNT_SETATTR, tree, b"", _EMPTY_PATH, ctypes.byref(attr), size), source
        )
        to = os.fsencode(target)
        _check(_LIBC.syscall(_MOVE_MOUNT, tree, b"", _AT_FDCWD, to, _MOVE_FROM_EMPTY), target)
    finally:
        os.close(tree)


def _user_namespace(uids: tuple[int, int], gids: tuple[int, int]) -> int:
    """A descriptor of a user namespace with these ids mapped; it lives as long as its user."""
    holder = subprocess.Popen(
        ["unshare", "--user", "sh", "-c", "echo; exec cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        if holder.stdout is None or not holder.stdout.readline():
            raise OSError(errno.EPERM, "no user namespace can be made")
        proc = Path(f"/proc/{holder.pid}")
        (proc / "uid_map").write_text(_swap(*uids))
        (proc / "gid_map").write_text(_swap(*gids))
        return os.open(proc / "ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        holder.kill()
        holder.communicate()


def _swap(stored: int, seen: int) -> str:
    """A map of all ids to themselves, but for two that change places."""
    if stored == seen:
        return f"0 0 {_IDS}\n"
    low, high = sorted((stored, seen))
    lines = [(0, 0, low), (low, high, 1), (low + 1, low + 1, high - low - 1), (high, low, 1)]
    lines.append((high + 1, high + 1, _IDS - high - 1))
    return "".join(f"{a} {b} {count}\n" for a, b, count in lines if count > 0)


def _check(result: int, path: Path) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(path))
    return result


def _refused(what: str, error: OSError) -> UnsupportedError | ResourceExhaustedError:
    message = f"{what} cannot be mounted: {error.strerror}"
    if error.errno in (errno.ENOSPC, errno.ENOMEM):
        return ResourceExhaustedError(message, op="workspace")
    return UnsupportedError(message, op="workspace")
