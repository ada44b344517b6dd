"""Who does not want a workspace any more does not wait until it is made, and nothing of it stays."""

import asyncio
import errno
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ringfence.errors import PolicyDeniedError
from ringfence.policy.facts import Facts
from ringfence.sandbox import binds, progress
from ringfence.spec import Repository, SandboxSpec
from ringfence.workspace import Prepared, clean, linking, prepare
from ringfence.workspace.stopping import Check, Count, Stopped
from tests.unit.workspace.conftest import digest_of_tree


@pytest.mark.parametrize("early", [False, True])
def test_the_making_of_a_workspace_ends_wherever_it_is_stopped(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, early: bool
) -> None:
    if early:
        monkeypatch.setattr(linking, "FEW", 1)
        monkeypatch.setattr(linking, "WRITE_BYTES", 0)
        monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    before = digest_of_tree(repository)
    store = tmp_path / "state/.layers"
    stopped, left = 0, [0]

    def check() -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Stopped

    while True:
        left[0] = stopped
        try:
            prepared = prepare(
                Repository(path=str(repository)),
                directory=tmp_path / "state/workspace",
                uid=1000,
                gid=1000,
                privileged=False,
                strategy="copy",
                check=check,
            )
        except Stopped:
            stopped += 1
            assert not (tmp_path / "state/workspace").exists()
            assert not [path for path in store.iterdir() if not (path / "origin").is_symlink()]
            continue
        prepared.close()
        break
    assert stopped > 4, "in the walk, in the frozen tree and in the copy"
    assert digest_of_tree(repository) == before


async def test_a_cancelled_opening_stops_what_is_being_made(
    repository: Path, state_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, ended = threading.Event(), threading.Event()

    def slow(*_: object, check: Check, **__: object) -> None:
        begun.set()
        ends = time.monotonic() + 60
        try:
            while time.monotonic() < ends:
                check()
                time.sleep(0.001)
        except Stopped:
            ended.set()
            raise

    monkeypatch.setattr("ringfence.workspace.prepare", slow)
    spec = SandboxSpec(repository=Repository(path=str(repository)), user="1000")
    facts = Facts(memory=1 << 30, cpus=1, nofile=1024)
    opening = asyncio.ensure_future(binds.prepare(spec, "0123456789ab", facts))
    await asyncio.to_thread(begun.wait, 60)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert ended.is_set()


def test_two_clients_remove_what_one_workspace_left(tmp_path: Path) -> None:
    """The holder and a delete_sandbox at the same moment: it is gone, and neither fails."""
    left = tmp_path / "left"
    for number in range(50):
        (left / "mounts" / f"m{number}").mkdir(parents=True)
        (left / f"d{number}" / "inner" / "deep").mkdir(parents=True)
    with ThreadPoolExecutor(4) as clients:
        for removed in [clients.submit(clean, left) for _ in range(4)]:
            removed.result()
    assert not left.exists()


async def test_who_opens_hears_how_many_entries_were_found(
    tmp_path: Path, state_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the event loop, whatever thread walks; what is told only grows, and all are told last."""
    monkeypatch.setattr(progress, "_EVERY_SECONDS", 0)
    top = tmp_path / "repository"
    for number in range(20):
        (top / f"{number}").mkdir(parents=True)
        (top / f"{number}/file").touch()
    heard: list[int] = []
    threads: set[int] = set()

    def hear(entries: int) -> None:
        heard.append(entries)
        threads.add(threading.get_ident())

    spec = SandboxSpec(repository=Repository(path=str(top)))
    made = await binds.prepare(
        spec, "a" * 12, Facts(memory=2**30, cpus=1, nofile=1024), progress=hear
    )
    await made.aclose()
    assert heard == sorted(set(heard))
    assert heard[-1] == 40
    assert threads == {threading.get_ident()}
    assert len(asyncio.all_tasks()) == 1


@pytest.mark.parametrize("every", [0, 60])
async def test_a_progress_that_raises_ends_the_opening_and_nothing_stays(
    repository: Path, state_directory: Path, monkeypatch: pytest.MonkeyPatch, *, every: float
) -> None:
    """While the workspace is made, or with the last count, when it is there already."""
    monkeypatch.setattr(progress, "_EVERY_SECONDS", every)
    made = prepare

    def slow(*given: Any, count: Count, **named: Any) -> Prepared:
        count(1)
        time.sleep(0 if every else 0.2)
        return made(*given, count=count, **named)

    def fail(entries: int) -> None:
        raise ZeroDivisionError(entries)

    monkeypatch.setattr("ringfence.workspace.prepare", slow)
    spec = SandboxSpec(repository=Repository(path=str(repository)), user="1000")
    facts = Facts(memory=2**30, cpus=1, nofile=1024)
    with pytest.raises(ZeroDivisionError):
        await binds.prepare(spec, "b" * 12, facts, progress=fail)
    assert not binds.directory_of("b" * 12).exists()
    assert len(asyncio.all_tasks()) == 1


async def test_an_original_that_was_replaced_meanwhile_leaves_no_workspace(
    repository: Path, state_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def replaced(source: str, flags: int) -> int:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), source, flags)

    monkeypatch.setattr("ringfence.workspace.beneath.open_resolved", replaced)
    spec = SandboxSpec(repository=Repository(path=str(repository), mode="ro"), user="1000")
    facts = Facts(memory=2**30, cpus=1, nofile=1024, local=False)
    with pytest.raises(PolicyDeniedError, match="replaced"):
        await binds.prepare(spec, "c" * 12, facts)
    assert not binds.directory_of("c" * 12).exists()
