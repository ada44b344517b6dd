"""The process backend against bare bubblewrap and the kernel's own floor."""

import asyncio
import os
import time
from pathlib import Path

import ringfence
from ringfence.backends.cgroup_tree import find_tree
from ringfence.backends.process.home import Home
from ringfence.backends.state import state_directory
from tests.bench.measure import Line, at_least, at_most, below, interleaved

BWRAP = ["bwrap", "--unshare-all", "--ro-bind", "/usr", "/usr", "--symlink", "usr/lib", "/lib",
         "--symlink", "usr/lib64", "/lib64", "--symlink", "usr/bin", "/bin", "--proc", "/proc",
         "--dev", "/dev", "--tmpfs", "/tmp", "--", "/bin/true"]  # fmt: skip
AT_ONCE = 100
AT_ONCE_ROUNDS = 3

_living: list[ringfence.Sandbox] = []
_weights: list[float] = []


async def measure(rounds: int) -> list[Line]:
    rounds = rounds or 20
    opened: list[ringfence.Sandbox] = []
    deletes: list[float] = []

    async def ours() -> None:
        sandbox = await ringfence.open(backend="process")
        await sandbox.exec(["true"])
        opened.append(sandbox)

    async def tidy() -> None:
        begin = time.perf_counter()
        await opened.pop().delete()
        deletes.append(time.perf_counter() - begin)

    starts = await interleaved({"ours": ours, "bwrap": _bwrap, "tidy": tidy}, rounds)
    async with ringfence.open(backend="process") as sandbox:
        execs = await interleaved(
            {"ours": lambda: sandbox.exec(["true"]), "bwrap": _bwrap, "spawn": _spawn}, rounds * 3
        )
        row = await interleaved(
            {"ours": lambda: sandbox.exec(["true"]), "spawn": _spawn}, rounds * 3
        )
    at_once = await interleaved({"ours": _many, "bare": _many_bare, "tidy": _tidy}, AT_ONCE_ROUNDS)
    return [
        at_most("open to first true", starts["ours"], starts["bwrap"], "bare bwrap", 2),
        below("open to first true", starts["ours"] * 1e3, 15, "ms"),
        at_least("exec of true", execs["ours"], execs["bwrap"], "bare bwrap", 6),
        at_most("exec of true", execs["ours"], execs["spawn"], "posix_spawn and wait", 1.3),
        at_most("exec of true, in a row", row["ours"], row["spawn"], "posix_spawn and wait", 1.3),
        _floor(execs["spawn"], execs["bwrap"]),
        below("delete", sorted(deletes)[len(deletes) // 2] * 1e3, 5, "ms"),
        at_most(
            f"{AT_ONCE} at once", at_once["ours"], at_once["bare"], f"{AT_ONCE} bare bwraps", 1.5
        ),
        below("memory of one of them", _weights[-1] / 2**20, 1, "MiB"),
    ]


def _floor(spawn: float, bwrap: float) -> Line:
    """What an exec that costs nothing besides the kernel's own work would reach."""
    return Line("posix_spawn and wait", spawn * 1e3, "ms", bwrap / spawn, "bare bwrap")


async def _bwrap() -> None:
    process = await asyncio.create_subprocess_exec(*BWRAP)
    assert await process.wait() == 0


async def _spawn() -> None:
    pid = os.posix_spawnp("true", ["true"], os.environ)
    os.waitpid(pid, 0)


async def _many() -> None:
    _living.extend(await asyncio.gather(*(_one() for _ in range(AT_ONCE))))


async def _tidy() -> None:
    _weights.append(sum(_resident(sandbox.id) for sandbox in _living) / len(_living))
    await asyncio.gather(*(sandbox.delete() for sandbox in _living))
    _living.clear()


def _resident(sandbox_id: str) -> int:
    """Bytes of memory of a sandbox's processes, what is shared counted in parts (PSS)."""
    home = Home(state_directory() / "process/sandboxes" / sandbox_id)
    total = 0
    for pid in (home.keeper(), *_processes(sandbox_id)):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


def _processes(sandbox_id: str) -> set[str]:
    found: set[str] = set()
    for directory in find_tree().cgroup(sandbox_id).directories.values():
        procs = Path(directory, "cgroup.procs")
        found.update(procs.read_text().split() if procs.exists() else ())
    return found


async def _one() -> ringfence.Sandbox:
    sandbox = await ringfence.open(backend="process")
    await sandbox.exec(["true"])
    return sandbox


async def _many_bare() -> None:
    await asyncio.gather(*(_bwrap() for _ in range(AT_ONCE)))
