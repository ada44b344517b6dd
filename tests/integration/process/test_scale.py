"""Many sandboxes of processes live beside each other, each for little memory."""

import asyncio
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

import ringfence
from ringfence.backends.process.home import Home
from tests.conftest import require_bwrap, require_root
from tests.integration.process.conftest import cgroups

FEW = 20
MANY = int(os.environ.get("SOAK_PROCESS", "1000"))
AT_A_TIME = 50
RESIDENT_BYTES = 2**20


@pytest.fixture
def descriptors() -> Iterator[None]:
    """As many as this process may have: each sandbox takes three."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def resident(home: Home) -> int:
    """Bytes of memory of a sandbox's processes, its keeper among them; what several share counts
    in parts (PSS)."""
    pids = {home.keeper()}
    for directory in cgroups(home.id):
        pids.update(map(int, (directory / "cgroup.procs").read_text().split()))
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


async def live_beside_each_other(number: int, sandboxes: Path) -> None:
    """Open that many, have each run a command of its own, weigh them and delete them."""
    opened: list[ringfence.Sandbox] = []

    async def one() -> None:
        opened.append(await ringfence.open(backend="process", idle_timeout="1d"))

    try:
        while len(opened) < number:
            await asyncio.gather(*(one() for _ in range(min(AT_A_TIME, number - len(opened)))))
        for begin in range(0, number, AT_A_TIME):
            some = opened[begin : begin + AT_A_TIME]
            results = await asyncio.gather(*(box.exec(["echo", box.id]) for box in some))
            assert [result.stdout for result in results] == [f"{box.id}\n".encode() for box in some]
        assert all(await asyncio.gather(*(box.answers() for box in opened)))
        homes = [Home(sandboxes / box.id) for box in opened]
        weights = await asyncio.to_thread(lambda: [resident(home) for home in homes])
        assert sum(weights) / number < RESIDENT_BYTES
    finally:
        for begin in range(0, len(opened), AT_A_TIME):
            some = opened[begin : begin + AT_A_TIME]
            reports = await asyncio.gather(*(box.delete(grace=0) for box in some))
            assert [report.error for report in reports] == [None] * len(some)
    assert [left for box in opened for left in cgroups(box.id)] == []
    assert not any((sandboxes / box.id).exists() for box in opened)


async def test_twenty_at_once_weigh_less_than_a_mebibyte_each(state_directory: Path) -> None:
    require_bwrap()
    require_root()
    await live_beside_each_other(FEW, state_directory / "process/sandboxes")


@pytest.mark.soak
@pytest.mark.timeout(1800)
async def test_a_thousand_live_beside_each_other(state_directory: Path, descriptors: None) -> None:
    require_bwrap()
    require_root()
    await live_beside_each_other(MANY, state_directory / "process/sandboxes")
