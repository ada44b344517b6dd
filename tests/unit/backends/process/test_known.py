"""Backends of one event loop share what was learned of the machine, and how many start at once."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ringfence.backends.cgroups import Tree
from ringfence.backends.process import ProcessBackend
from ringfence.backends.process import known as knowing
from ringfence.backends.process.creation import Creation
from ringfence.backends.process.known import known
from ringfence.backends.process.machine import Machine
from ringfence.policy.facts import Facts
from ringfence.spec import SandboxSpec

SPEC = SandboxSpec()
FACTS = Facts(memory=2**30, cpus=2.0, nofile=1024)


@pytest.fixture
def looks(state_directory: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """A machine that can do everything, and each look at it."""
    found: list[Path] = []

    def look(guest: Path, directory: Path) -> Machine:
        found.append(guest)
        return Machine("/usr/bin/bwrap", (0, 8), True, str(guest), Tree())

    monkeypatch.setattr("ringfence.backends.process.machine.look", look)
    return found


@pytest.mark.usefixtures("looks")
async def test_sandboxes_with_a_backend_each_start_no_more_at_once_than_those_of_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    running = most = 0

    async def run(_: Creation, over: Callable[[], None]) -> Any:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        raise asyncio.CancelledError

    monkeypatch.setattr(Creation, "run", run)
    starts = [ProcessBackend().create(SPEC, f"box{n}", FACTS) for n in range(100)]
    await asyncio.gather(*starts, return_exceptions=True)
    assert 1 < most <= knowing._AT_ONCE


@pytest.mark.usefixtures("looks")
async def test_a_start_has_its_turn_until_it_is_over_not_until_it_is_created(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun: list[Callable[[], None]] = []

    async def run(_: Creation, over: Callable[[], None]) -> Any:
        begun.append(over)
        return SimpleNamespace()

    monkeypatch.setattr(Creation, "run", run)
    starts = [
        asyncio.ensure_future(ProcessBackend().create(SPEC, f"box{n}", FACTS)) for n in range(100)
    ]
    for over in range(3):
        while len(begun) < knowing._AT_ONCE + over:
            await asyncio.sleep(0)
        for _ in range(10):
            await asyncio.sleep(0)
        assert len(begun) == sum(start.done() for start in starts) == knowing._AT_ONCE + over
        begun[over]()
    for start in starts:
        start.cancel()
    await asyncio.wait(starts)


async def test_the_machine_is_looked_at_once_a_second_whoever_asks(
    looks: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("ringfence.backends.process.known.time.monotonic", lambda: now)
    for _ in range(3):
        await ProcessBackend().features()
    assert len(looks) == 1
    now += 1.1
    await ProcessBackend().features()
    assert len(looks) == 2


async def test_another_place_or_path_is_another_look(
    looks: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ProcessBackend().features()
    other = ProcessBackend(str(tmp_path / "other"))
    await other.features()
    await other.aclose()
    monkeypatch.setenv("PATH", "/elsewhere")
    await ProcessBackend().features()
    assert len(looks) == 3


def test_what_a_loop_knew_is_forgotten_with_it() -> None:
    async def ask() -> object:
        return known()

    first, second = asyncio.run(ask()), asyncio.run(ask())
    assert first is not second
    assert first not in knowing._known.values()
