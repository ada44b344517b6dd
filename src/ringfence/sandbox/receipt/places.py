"""Rows of what of files, devices and networks a sandbox sees."""

import errno
from collections.abc import Iterator

from ringfence.policy.profiles import tmpfs_inodes
from ringfence.sandbox.receipt.evidence import Findings, control, number, remembered
from ringfence.sandbox.receipt.view import MountLine
from ringfence.spec import Control
from ringfence.spec.quantity import parse_size

_DEVICES = frozenset({
    "console", "core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr",
    "stdin", "stdout", "tty", "urandom", "zero",
})  # fmt: skip
_GVISOR_DEVICES = frozenset({"fuse", "net"})
"""Those that gVisor's kernel has of its own; none leads to the host."""
_HIDDEN = (errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENXIO, errno.ENOTDIR)
_INITIAL = {"cgroup": 4026531835, "pid": 4026531836, "uts": 4026531838, "ipc": 4026531839}
"""The namespaces that a machine starts with have these numbers everywhere."""
_MOUNTED = frozenset({"nosuid", "nodev"})
_MOUNTED_TO_READ = _MOUNTED | {"noexec"}
_KINDS = ("pid", "mnt", "net", "ipc", "uts", "cgroup")


def place_rows(found: Findings) -> Iterator[Control]:
    """read_only_root, tmpfs, mounts, paths, devices, sysctls, namespaces, network, runtime."""
    yield _root(found)
    yield from _tmpfs(found)
    yield from _mounts(found)
    yield _masked(found)
    yield _read_only_paths(found)
    yield _devices(found)
    yield from _sysctls(found)
    yield from _namespaces(found)
    yield _network(found)
    yield from _runtime(found)


def sysctl_path(name: str) -> str:
    """Where a sysctl is read."""
    return "/proc/sys/" + name.replace(".", "/")


def _root(found: Findings) -> Control:
    mount = found.view.mounts.get("/")
    asked = found.spec.security.read_only_root is not False
    has = mount is not None and mount.read_only
    shown = "not shown" if mount is None else "read-only" if has else "writable"
    return control(
        "read_only_root",
        "read-only" if asked else "writable",
        shown,
        "a command's /proc/self/mountinfo: /",
        ok=has if asked else mount is not None,
    )


def _tmpfs(found: Findings) -> Iterator[Control]:
    limits, security = found.spec.limits, found.spec.security
    wanted = {"/tmp": limits.tmp, "/dev/shm": limits.shm, "/run": limits.run}  # noqa: S108 - names inside the sandbox
    for path, size in (*wanted.items(), *security.tmpfs.items()):
        if size is None:
            continue
        options = _MOUNTED
        if path in ("/run", "/dev/shm") or not security.tmp_exec:  # noqa: S108 - names inside the sandbox
            options = _MOUNTED_TO_READ
        seen = found.view.paths.get(path)
        room = None if seen is None else seen.bytes
        mount, unlimited = found.view.mounts.get(path), found.gvisor or found.own_user_namespace
        asked = (path, size, options)
        yield _tmpfs_row(asked, mount, room, found.gvisor, unlimited)


@remembered
def _tmpfs_row(
    asked: tuple[str, int, frozenset[str]],
    mount: MountLine | None,
    room: int | None,
    gvisor: bool,
    unlimited: bool,
) -> Control:
    """asked: path, bytes, options. room: bytes of its file system, None unknown. unlimited: whether
    it may hold any number of files."""
    path, size, options = asked
    most = tmpfs_inodes(size)
    requested = f"{size} bytes, {most} files, {', '.join(sorted(options))}"
    where = f"a command's /proc/self/mountinfo: {path}"
    if mount is None or mount.type != "tmpfs":
        shown = "no mount" if mount is None else mount.type
        return control(f"tmpfs {path}", requested, shown, where, ok=False)
    has = size_of(mount)
    if has is None:
        has = room or None
    held = mount.options & {"nosuid", "nodev", "noexec"}
    ok = has is not None and 0 < has < size + 4096 and (options <= held or gvisor)
    inodes = _inodes(mount)
    ok = ok and (unlimited if inodes is None else inodes <= most)
    files = "files as memory allows" if inodes is None else f"{inodes} files"
    shown = f"{has} bytes, {files}, {', '.join(sorted(held))}"
    return control(f"tmpfs {path}", requested, shown, where, ok=ok)


def _inodes(mount: MountLine) -> int | None:
    """How many files a tmpfs may hold, None when the mount does not say."""
    for option in mount.super_options:
        name, _, text = option.partition("=")
        if name == "nr_inodes":
            return number(text) or None
    return None


def size_of(mount: MountLine) -> int | None:
    """The size of a tmpfs in bytes, None when the mount does not say."""
    for option in mount.super_options:
        if option.startswith("size="):
            try:
                return parse_size(option.removeprefix("size="))
            except ValueError:
                return None
    return None


def _mounts(found: Findings) -> Iterator[Control]:
    spec = found.spec
    wanted = {mount.destination: mount.read_only for mount in spec.mounts}
    if spec.repository is not None:
        wanted[spec.repository.mount_point] = spec.repository.mode == "ro"
    for path, read_only in wanted.items():
        mount = found.view.mounts.get(path)
        shown = "no mount" if mount is None else "read-only" if mount.read_only else "writable"
        yield control(
            f"mount {path}",
            "read-only" if read_only else "writable",
            shown,
            f"a command's /proc/self/mountinfo: {path}",
            ok=mount is not None and (mount.read_only or not read_only),
        )


def _masked(found: Findings) -> Control:
    asked = found.spec.security.masked_paths or ()
    open_ = []
    for path in asked:
        seen = found.view.paths.get(path)
        if seen is None or (seen.errno not in _HIDDEN and seen.holds):
            open_.append(path)
    shown = f"{len(asked) - len(open_)} hidden"
    if open_:
        shown += f"; can be read: {', '.join(open_)}"
    return control(
        "masked_paths", f"{len(asked)} hidden", shown, "a command reading them", ok=not open_
    )


def _read_only_paths(found: Findings) -> Control:
    asked = found.spec.security.read_only_paths or ()
    open_ = []
    for path in asked:
        seen = found.view.paths.get(path)
        gone = seen is not None and seen.errno in (errno.ENOENT, errno.ENOTDIR)
        if seen is None or not (gone or seen.read_only or found.gvisor):
            open_.append(path)
    shown = f"{len(asked) - len(open_)} read-only"
    if open_:
        shown += f"; writable: {', '.join(open_)}"
    return control(
        "read_only_paths",
        f"{len(asked)} read-only",
        shown,
        "a command's statvfs of them",
        ok=not open_,
    )


def _devices(found: Findings) -> Control:
    asked = found.spec.security.devices
    names = {device.removeprefix("/dev/").split("/")[0] for device in asked}
    more = found.view.devices - _DEVICES - names
    if found.gvisor:
        more -= _GVISOR_DEVICES
    missing = [
        device
        for device in asked
        if (path := found.view.paths.get(device)) is None
        or path.errno in (errno.ENOENT, errno.EPERM)
    ]
    privileged = bool(found.host_config.get("Privileged"))
    seen = bool(found.view.devices)
    return control(
        "devices",
        asked,
        sorted((found.view.devices & names) | more) if seen else "not shown",
        "a command's /dev",
        ok=seen and not more and not missing and not privileged,
    )


def _sysctls(found: Findings) -> Iterator[Control]:
    for name, asked in found.spec.security.sysctls.items():
        text = found.view.files.get(sysctl_path(name))
        ok = text is not None and text.split() == asked.split()
        yield control(f"sysctl {name}", asked, text and text.strip(), sysctl_path(name), ok=ok)


def _namespaces(found: Findings) -> Iterator[Control]:
    for kind in _KINDS:
        identity = found.view.namespaces.get(kind)
        if identity is None and found.gvisor:
            continue
        initial = f"{kind}:[{_INITIAL.get(kind)}]"
        ok = identity is not None and identity not in (initial, found.here.get(kind))
        if found.gvisor:
            ok = True
        shown = "its own" if ok else "the host's" if identity else "not shown"
        where = f"a command's /proc/self/ns/{kind}" + (f": {identity}" if identity else "")
        yield control(f"namespace {kind}", "its own", shown, where, ok=ok)
    if found.spec.security.user_namespace:
        mapping = found.view.files.get("/proc/self/uid_map", "").split()
        ok = bool(mapping) and mapping[:3] != ["0", "0", "4294967295"]
        yield control(
            "user_namespace", True, " ".join(mapping), "a command's /proc/self/uid_map", ok=ok
        )


def _network(found: Findings) -> Control:
    mode = found.spec.network.mode
    has = found.view.interfaces
    where = "a command's /proc/self/net/dev"
    if mode == "bridge":
        ok = has is not None and bool(has - {"lo"})
    else:
        ok = has is not None and has <= {"lo"}
    requested = "loopback only" if mode != "bridge" else "an open bridge"
    return control("network", requested, "not shown" if has is None else has, where, ok=ok)


def _runtime(found: Findings) -> Iterator[Control]:
    asked = found.spec.security.runtime
    if found.host_config or asked is not None:
        ok = asked is None or found.runtime == asked
        yield control(
            "runtime", asked or "the engine's own", found.runtime, "the engine: Runtime", ok=ok
        )
