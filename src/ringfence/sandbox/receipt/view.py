"""What a command sees of its own confinement: the guest's `--show`, run as any command is."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeVar

from ringfence.errors import GuestError

GUEST = "/.ringfence/guest"
"""The guest's program inside every sandbox."""

_MOST_BYTES = 2**20
_SHORT_TEXT = 4096
_STATUS = (
    "Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs",
    "Seccomp", "Cpus_allowed_list",
)  # fmt: skip
"""Of a command's status what rows are made from."""
_TRIED = ("devices", "path", "probe")
T = TypeVar("T")


def _remembered(function: Callable[[str], T]) -> Callable[[str], T]:
    """Called once for a text that many sandboxes have in common; nothing long is kept of them."""
    once = functools.lru_cache(maxsize=256)(function)
    return lambda text: once(text) if len(text) <= _SHORT_TEXT else function(text)


@dataclass(frozen=True, slots=True)
class MountLine:
    """A line of mountinfo. options: of the mount; super_options: of its file system."""

    destination: str
    root: str
    type: str
    options: frozenset[str]
    super_options: frozenset[str]

    @property
    def read_only(self) -> bool:
        """Whether nothing can be written through it."""
        return "ro" in self.options or "ro" in self.super_options


@dataclass(frozen=True, slots=True)
class PathView:
    """A path as a command finds it. errno: of opening it, 0 when that went well. holds: whether
    there is anything in it. read_only: of its mount. bytes: of its file system, 0 unknown."""

    errno: int
    holds: bool
    read_only: bool
    bytes: int


@dataclass(frozen=True, slots=True)
class GuestView:
    """status: the fields of /proc/self/status that rows are made from. mounts: the last one of each
    destination. limits: (soft, hard) by the kernel's name, None for unlimited. namespaces: the
    kernel's identity by kind. probes: errno by syscall, 0 when it went well. files: contents by
    path, of what could be read. bytes: of all that was shown.
    """

    status: Mapping[str, str] = field(default_factory=dict)
    mounts: Mapping[str, MountLine] = field(default_factory=dict)
    limits: Mapping[str, tuple[int | None, int | None]] = field(default_factory=dict)
    namespaces: Mapping[str, str] = field(default_factory=dict)
    interfaces: frozenset[str] | None = None
    devices: frozenset[str] = frozenset()
    probes: Mapping[str, int] = field(default_factory=dict)
    paths: Mapping[str, PathView] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    bytes: int = 0


def show_args(paths: Sequence[str], files: Sequence[str]) -> list[str]:
    """The command that shows; paths to probe, files to copy out."""
    return [GUEST, "--show", *paths, *(f"={path}" for path in files)]


def parse_view(output: bytes) -> GuestView:
    """The view in `--show`'s output. GuestError when it is none, or longer than it may be."""
    if len(output) > _MOST_BYTES:
        raise _bad()
    try:
        letters = output.decode("latin-1")  # one for each byte, which is what the sizes count
        kinds, rest = _records(letters, until=_TRIED)
        probed = _probed(rest)
        files = {**kinds.get("file", {}), **probed.files}
        return GuestView(
            status=status_fields(files.get("/proc/self/status", ""), _STATUS),
            mounts=parse_mounts(files.get("/proc/self/mountinfo", "")),
            limits=_limits(files.get("/proc/self/limits", "")),
            namespaces={**kinds.get("namespace", {}), **probed.namespaces},
            interfaces=_interfaces(files.get("/proc/self/net/dev")),
            devices=probed.devices,
            probes=probed.probes,
            paths=probed.paths,
            files=files,
            bytes=len(output),
        )
    except (ValueError, IndexError):
        raise _bad() from None


def _bad() -> GuestError:
    return GuestError("receipt: the guest's view of itself makes no sense", op="receipt")


@dataclass(frozen=True, slots=True)
class _Probed:
    """What the command found out by trying, and what it showed after that: the guest shows it
    last, and it is alike in sandboxes alike."""

    files: Mapping[str, str]
    namespaces: Mapping[str, str]
    devices: frozenset[str]
    probes: Mapping[str, int]
    paths: Mapping[str, PathView]


@_remembered
def _probed(letters: str) -> _Probed:
    kinds, _ = _records(letters)
    return _Probed(
        MappingProxyType(kinds.get("file", {})),
        MappingProxyType(kinds.get("namespace", {})),
        frozenset(kinds.get("devices", {}).get("", "").split()),
        MappingProxyType({name: int(text) for name, text in kinds.get("probe", {}).items()}),
        MappingProxyType({name: _path(text) for name, text in kinds.get("path", {}).items()}),
    )


def _records(letters: str, until: Sequence[str] = ()) -> tuple[dict[str, dict[str, str]], str]:
    """Texts by kind and name; and the rest, from the first record of one of the kinds `until`."""
    kinds: dict[str, dict[str, str]] = {}
    text = str if letters.isascii() else _text
    at, stop = 0, len(letters)
    while at < stop:
        end = letters.find("\n", at)
        name, _, size = letters[at:end].rpartition(" ")
        if end < 0 or not size.isdecimal():
            raise _bad()
        kind, _, rest = name.partition(":")
        if kind in until:
            break
        begin, at = end + 1, end + 1 + int(size)
        if letters[at : at + 1] != "\n":
            raise _bad()
        texts = kinds.get(kind)
        if texts is None:
            texts = kinds[kind] = {}
        texts[text(rest)] = text(letters[begin:at])
        at += 1
    return kinds, letters[at:]


def _text(letters: str) -> str:
    return letters.encode("latin-1").decode("utf-8", "surrogateescape")


def status_fields(text: str, names: Sequence[str]) -> dict[str, str]:
    """Those fields of a status file of proc(5): what every process has of its own need not be
    read."""
    found = {}
    text = f"\n{text}"
    for name in names:
        _, there, rest = text.partition(f"\n{name}:")
        if there:
            found[name] = rest.partition("\n")[0].strip()
    return found


def parse_mounts(text: str) -> dict[str, MountLine]:
    """The mounts that are seen, by destination: a later one covers an earlier one."""
    found = {}
    for line in text.splitlines():
        fields = line.split(" ", 3)  # three numbers, which every mount has of its own
        mount = _mount(fields[3]) if len(fields) == 4 else None
        if mount is not None:
            found[mount.destination] = mount
    return found


@_remembered
def _mount(text: str) -> MountLine | None:
    before, dash, after = text.partition(" - ")
    left, right = before.split(" "), after.split(" ")
    if not dash or len(left) < 3 or len(right) < 3:
        return None
    root, destination, options = left[:3]
    return MountLine(
        _unescaped(destination), _unescaped(root), right[0], _options(options), _options(right[2])
    )


def _options(text: str) -> frozenset[str]:
    return frozenset(text.split(","))


def _unescaped(text: str) -> str:
    """Without mountinfo's octal escapes of space, tab, newline and backslash."""
    if "\\" not in text:
        return text
    for code, letter in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, letter)
    return text


@_remembered
def _limits(text: str) -> Mapping[str, tuple[int | None, int | None]]:
    found = {}
    for line in text.splitlines()[1:]:
        name, values = line[:26].strip(), line[26:].split()
        soft, hard = (None if value == "unlimited" else int(value) for value in values[:2])
        found[name] = (soft, hard)
    return MappingProxyType(found)


def _interfaces(text: str | None) -> frozenset[str] | None:
    if text is None:
        return None
    return frozenset(line.partition(":")[0].strip() for line in text.splitlines() if ":" in line)


@_remembered
def _path(text: str) -> PathView:
    error, holds, read_only, size = (int(part) for part in text.split())
    return PathView(error, bool(holds), bool(read_only), size)
