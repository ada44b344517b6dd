"""What Ctrl-C and SIGTERM are for the command that `run` and `exec` wait for."""

import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ringfence.cli import relay
from ringfence.cli.app import _terminable
from ringfence.errors import NotFoundError


class Sandbox:
    """Its one command is gone between the list and the signal."""

    killed = 0

    async def processes(self) -> tuple[Any, ...]:
        return (SimpleNamespace(id=1, running=True),)

    async def signal(self, process_id: int, number: int, *, group: bool) -> None:
        raise NotFoundError("signal: no process 1 in this sandbox", op="signal")

    async def kill_all(self) -> int:
        self.killed += 1
        return 0


@pytest.mark.parametrize(("number", "kills"), [(signal.SIGINT, 0), (signal.SIGTERM, 1)])
async def test_a_command_that_ends_as_it_is_signalled_is_no_failure(
    number: signal.Signals, kills: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is raised in the background, where it would be a traceback on the terminal."""
    monkeypatch.setattr(relay, "_GRACE_SECONDS", 0)
    sandbox: Any = Sandbox()
    running = asyncio.create_task(asyncio.sleep(0))
    await relay._Joined(sandbox, running, frozenset(), ()).signal(number)
    assert sandbox.killed == kills


class Recording:
    """A sandbox with our command, one that has ended, and one of somebody else."""

    def __init__(self) -> None:
        self.done: list[Any] = []

    async def processes(self) -> tuple[Any, ...]:
        ours, ended, others = ((1, True), (2, False), (3, True))
        return tuple(SimpleNamespace(id=i, running=runs) for i, runs in (ours, ended, others))

    async def signal(self, process_id: int, number: int, *, group: bool) -> None:
        self.done.append((process_id, number, group))

    async def kill_all(self) -> int:
        self.done.append("all")
        return 1

    def give_up(self) -> None:
        self.done.append("given up")


def joined(others: frozenset[int]) -> tuple[relay._Joined, Recording]:
    """Our command, which runs for long, and what is done to it."""
    sandbox: Any = Recording()
    running = asyncio.create_task(asyncio.sleep(3600))
    return relay._Joined(sandbox, running, others, (sandbox,)), sandbox


async def until(sandbox: Recording, length: int) -> None:
    while len(sandbox.done) < length:
        await asyncio.sleep(0)


async def test_the_first_ctrl_c_is_for_the_group_of_our_command_alone_and_the_second_kills() -> (
    None
):
    command, sandbox = joined(frozenset())
    others, other_sandbox = joined(frozenset({3}))
    await others.signal(signal.SIGINT)
    assert other_sandbox.done == [(1, signal.SIGINT, True)]
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with relay._interrupts(command) as came:
        os.kill(os.getpid(), signal.SIGINT)
        await until(sandbox, 2)
        assert sandbox.done == [(1, signal.SIGINT, True), (3, signal.SIGINT, True)]
        os.kill(os.getpid(), signal.SIGINT)
        await until(sandbox, 4)
    assert sandbox.done[2:] == ["given up", "all"]
    assert came == [signal.SIGINT, signal.SIGINT]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    others.running.cancel()
    command.running.cancel()


async def test_a_sigterm_that_comes_as_signals_are_joined_to_the_command_is_not_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who sends one waits for what it ends, and sends no other."""
    command, sandbox = joined(frozenset())
    loop = asyncio.get_running_loop()
    join, taken = loop.add_signal_handler, list[int]()

    def joining(number: int, *what_to_do: Any) -> None:
        join(number, *what_to_do)
        taken.append(number)
        if len(taken) == 1:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(loop, "add_signal_handler", joining)
    before = signal.getsignal(signal.SIGTERM)
    _terminable()
    try:
        async with asyncio.timeout(30):
            with relay._interrupts(command):
                await until(sandbox, 1)
    finally:
        signal.signal(signal.SIGTERM, before)
        command.running.cancel()
    assert sandbox.done[0] == (1, signal.SIGTERM, True)


async def test_a_sigterm_kills_nobody_after_the_command_has_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its two seconds end with it: what is deleted then is no longer its."""
    monkeypatch.setattr(relay, "_GRACE_SECONDS", 0.05)
    command, sandbox = joined(frozenset({3}))
    with relay._interrupts(command):
        os.kill(os.getpid(), signal.SIGTERM)
        await until(sandbox, 1)
    await asyncio.sleep(0.1)
    assert sandbox.done == [(1, signal.SIGTERM, True)]
    command.running.cancel()


async def test_beside_others_a_kill_ends_ours_and_waits_for_no_reader() -> None:
    command, sandbox = joined(frozenset({3}))
    await command.kill()
    with pytest.raises(asyncio.CancelledError):
        await command.running
    assert sandbox.done == ["given up"]


@pytest.fixture(params=["pipe", "socket", "file"])
def stdin(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[None]:
    """Standard input meanwhile, with a line in it."""
    before = os.dup(0)
    (tmp_path / "file").write_bytes(b"line\n")
    if request.param == "socket":
        ours, theirs = (end.detach() for end in socket.socketpair())
    elif request.param == "pipe":
        ours, theirs = os.pipe()
    else:
        ours, theirs = os.open(tmp_path / "file", os.O_RDONLY), os.dup(2)
    if request.param != "file":
        os.write(theirs, b"line\n")
    os.dup2(ours, 0)
    os.close(ours)
    yield
    os.close(theirs)
    os.dup2(before, 0)
    os.close(before)


async def test_what_is_piped_goes_in_and_is_left_as_it_was(stdin: None) -> None:
    """Our caller has the same open: one that does not wait was an error for it later."""
    source: Any = relay.piped_stdin()
    assert await anext(source) == b"line\n"
    await source.aclose()
    assert os.get_blocking(0)
