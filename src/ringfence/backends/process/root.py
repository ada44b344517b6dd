"""What a sandbox has as its root: the host's own system, or an unpacked image, both read-only.

Either is put together on a tmpfs, entry by entry, so that mount points can be made beside what is
there without writing to it.
"""

import os
import stat
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ringfence.errors import ImageError, PolicyDeniedError

SYSTEM = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
"""What of the host's root is shown besides /usr."""

_MADE = frozenset({"proc", "dev", "tmp", "run", "sys", ".ringfence", "lost+found"})
_FLAG = {"link": "--symlink", "shown": "--ro-bind", "bind": "--ro-bind"}


@dataclass(frozen=True, slots=True)
class Entry:
    """One name at the root. kind: "shown" (source is a path of the host's own system), "bind" (of
    anything else), "link" (source is what it points to) or "dir" (an empty directory)."""

    kind: str
    target: str
    source: str = ""

    def args(self) -> list[str]:
        """It as bubblewrap's arguments."""
        if self.kind == "dir":
            return ["--perms", "0755", "--dir", self.target]
        return [_FLAG[self.kind], self.source, self.target]

    def part(self) -> list[str]:
        """It as a part of what guest/agent/keep_root.c makes."""
        if self.kind == "link":
            return ["--link", self.source, self.target]
        if self.kind == "dir":
            return ["--dir", self.target]
        if self.kind == "shown":
            return ["--shown", self.source, self.target]
        return ["--bind", "ro", self.source, self.target]


def host(etc: Path, home: str, top: Path = Path("/")) -> list[Entry]:
    """The host's system directories with `etc` as /etc and an empty home directory."""
    entries = [Entry("shown", "/usr", str(top / "usr"))]
    for name in SYSTEM:
        path = top / name
        if path.is_symlink():
            entries.append(Entry("link", f"/{name}", os.readlink(path)))  # noqa: PTH115 - as it is
        elif path.is_dir():
            entries.append(Entry("shown", f"/{name}", str(path)))
    entries.append(Entry("shown", "/etc", str(etc)))
    for place in ("/var", "/home", "/root", "/mnt", "/opt", "/srv"):
        entries.append(Entry("dir", place))
    entries.append(Entry("link", "/var/tmp", "/tmp"))  # noqa: S108 - names inside the sandbox
    entries.append(Entry("link", "/var/run", "/run"))
    if home not in ("/", "/root"):
        entries.append(Entry("dir", home))
    return entries


def image(rootfs: Path) -> list[Entry]:
    """The entries of an unpacked image. ImageError when it is none."""
    entries = []
    try:
        names = sorted(os.listdir(rootfs))  # noqa: PTH208 - names, not paths
        for name in names:
            if name in _MADE:
                continue
            path = rootfs / name
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode):
                entries.append(Entry("link", f"/{name}", os.readlink(path)))  # noqa: PTH115 - as it is
            elif stat.S_ISDIR(mode) or stat.S_ISREG(mode):
                entries.append(Entry("bind", f"/{name}", str(path)))
    except OSError as error:
        raise ImageError(f"image: {rootfs} cannot be read: {error.strerror}", op="create") from None
    if not entries:
        raise ImageError(
            f"image: {rootfs} is empty: it should hold a root file system", op="create"
        )
    return entries


def check_places(root: Sequence[Entry], tmpfs: Collection[str], binds: Mapping[str, str]) -> None:
    """That no link leads away from where something is mounted: who does that from outside would
    follow it to the host. binds: sources by destination. PolicyDeniedError."""
    shown, mounted = {entry.target: entry for entry in root}, dict[str, Entry]()
    for path in sorted({*binds, *tmpfs}):
        _check_place((mounted, shown), path)
        mounted[path] = Entry("dir", path) if path in tmpfs else Entry("bind", path, binds[path])


def _check_place(seen: Sequence[Mapping[str, Entry]], path: str) -> None:
    names = path[1:].split("/")
    for length in range(1, len(names) + 1):
        target = _link(seen, names[:length])
        if target is not None:
            link = "/" + "/".join(names[:length])
            raise PolicyDeniedError(
                f"mount: {link!r} is a link to {target!r} in the sandbox: nothing is mounted"
                f" through it; choose another destination than {path!r}",
                op="create",
                context={"path": path},
            )


def _link(seen: Sequence[Mapping[str, Entry]], names: Sequence[str]) -> str | None:
    """What the link of these names points to, None when it is none; those above it are none. seen:
    entries by place, before those that they hide."""
    for entries in seen:
        for length in range(len(names), 0, -1):
            entry = entries.get("/" + "/".join(names[:length]))
            if entry is not None:
                return _points_to(entry, names[length:])
    return None


def _points_to(entry: Entry, below: Sequence[str]) -> str | None:
    """What a link below an entry, or it itself, points to; None when it is none."""
    if entry.kind == "link" and not below:
        return entry.source
    if entry.kind not in ("shown", "bind") or not below:
        return None
    try:
        return os.readlink("/".join((entry.source, *below)))  # noqa: PTH115 - as it is
    except OSError:
        return None
