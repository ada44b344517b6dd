"""The process backend against bare bubblewrap and the kernel's own floor."""

import asyncio
import os
import time

import ringfence
from tests.bench.measure import Line, at_least, at_most, below, interleaved

BWRAP = ["bwrap", "--unshare-all", "--ro-bind", "/usr", "/usr", "--symlink", "usr/lib", "/lib",
         "--symlink", "usr/lib64", "/lib64", "--symlink", "usr/bin", "/bin", "--proc", "/proc",
         "--dev", "/dev", "--tmpfs", "/tmp", "--", "/bin/true"]  # fmt: skip
AT_ONCE = 100


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
    many, bare = await _many(), await _many_bare()
    return [
        at_most("open to first true", starts["ours"], starts["bwrap"], "bare bwrap", 2),
        below("open to first true", starts["ours"] * 1e3, 15, "ms"),
        at_least("exec of true", execs["ours"], execs["bwrap"], "bare bwrap", 6),
        at_most("exec of true", execs["ours"], execs["spawn"], "posix_spawn and wait", 1.3),
        below("delete", sorted(deletes)[len(deletes) // 2] * 1e3, 5, "ms"),
        at_most(f"{AT_ONCE} at once", many, bare, f"{AT_ONCE} bare bwraps", 1.5),
    ]


async def _bwrap() -> None:
    process = await asyncio.create_subprocess_exec(*BWRAP)
    assert await process.wait() == 0


async def _spawn() -> None:
    pid = os.posix_spawnp("true", ["true"], os.environ)
    os.waitpid(pid, 0)


async def _many() -> float:
    begin = time.perf_counter()
    sandboxes = await asyncio.gather(*(_one() for _ in range(AT_ONCE)))
    seconds = time.perf_counter() - begin
    await asyncio.gather(*(sandbox.delete() for sandbox in sandboxes))
    return seconds


async def _one() -> ringfence.Sandbox:
    sandbox = await ringfence.open(backend="process")
    await sandbox.exec(["true"])
    return sandbox


async def _many_bare() -> float:
    begin = time.perf_counter()
    await asyncio.gather(*(_bwrap() for _ in range(AT_ONCE)))
    return time.perf_counter() - begin
