"""Which process holds a sandbox: a pid alone is not enough, since pids are used again."""

import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_START = 19  # starttime, field 22 of proc(5) /proc/PID/stat, counted after the command's name


@dataclass(frozen=True, slots=True)
class Owner:
    """A process of this machine. start: clock ticks after boot. boot: the kernel's boot id."""

    pid: int
    start: int
    boot: str

    @classmethod
    def me(cls) -> Self:
        """The process that asks."""
        pid = os.getpid()
        return cls(pid, _own_start(pid), boot_id())

    def alive(self) -> bool:
        """Whether that very process runs; a zombie does not."""
        return self.boot == boot_id() and _start_of(self.pid) == self.start


def mark() -> str:
    """This process in letters, digits and dashes, for what it leaves in names and labels."""
    me = Owner.me()
    return f"{me.pid}-{me.start}-{_namespace()}-{me.boot}"


def is_gone(made: str, *, here: bool) -> bool | None:
    """Whether the process of a `mark` has ended; None where that cannot be told: it is no mark, or
    that of another boot or pid namespace. here: it was made on this machine, where another boot is
    an earlier one."""
    pid, start, namespace, boot = (*made.split("-", 3), "", "", "", "")[:4]
    if not (pid.isdecimal() and start.isdecimal() and boot):
        return None
    if boot != boot_id():
        return True if here else None
    if namespace != _namespace():
        return None
    return not Owner(int(pid), int(start), boot).alive()


@functools.cache
def _namespace() -> str:
    """Which numbers the pids of this process are of."""
    return str(Path("/proc/self/ns/pid").stat().st_ino)


def _start_of(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    fields = stat[stat.rindex(b")") + 2 :].split()
    return None if fields[0] in (b"Z", b"X") else int(fields[_START])


@functools.lru_cache(maxsize=1)
def _own_start(pid: int) -> int:
    """When this process, `pid`, began: looked up once, and once more in each of its forks."""
    return _start_of(pid) or 0


os.register_at_fork(after_in_child=_own_start.cache_clear)


@functools.cache
def boot_id() -> str:
    """Which boot of this machine this is, in the kernel's word."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
