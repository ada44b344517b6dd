"""What is done about a start that failed."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ringfence.backends.cgroups import Tree
from ringfence.backends.process import ProcessBackend, command, trial
from ringfence.backends.process.machine import Machine
from ringfence.policy.facts import Facts
from ringfence.spec import SandboxSpec

FACTS = Facts(memory=2**30, cpus=2.0, nofile=1024)


@pytest.fixture
def trials(state_directory: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """A machine where a keeper may begin sandboxes; how often that was tried."""
    told = state_directory / "trials"
    told.touch()
    guest = state_directory / "guest"
    guest.write_text(f"#!/bin/sh\nprintf x >> {told}\n")
    guest.chmod(0o755)

    def look(_: Path, directory: Path) -> Machine:
        trial.succeeds(guest, directory, privileged=True)
        return Machine(shutil.which("sh") or "", (0, 8), True, str(guest), Tree(), begins=True)

    monkeypatch.setattr("ringfence.backends.process.machine.look", look)
    return lambda: told.stat().st_size


async def fail(words: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A start of which these are the last words; the error for it."""
    line = ["/bin/sh", "-c", 'echo "$0" >&2; exit 125', words]
    monkeypatch.setattr(command, "keeper", lambda *_, **__: line)
    instance = await ProcessBackend().create(SandboxSpec(), "box", FACTS)
    try:
        return str(await instance.not_started())
    finally:
        await instance.delete()


async def test_where_a_keeper_may_not_any_more_the_next_sandbox_has_it_tried_anew(
    trials: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, not only when the machine is looked at again."""
    words = "start namespaces: Operation not permitted"
    assert words in await fail(words, monkeypatch)
    assert trials() == 1
    await ProcessBackend().features()
    assert trials() == 2


async def test_a_start_that_fails_for_another_reason_changes_nothing(
    trials: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    await fail("bind /src: Not a directory", monkeypatch)
    await ProcessBackend().features()
    assert trials() == 1
