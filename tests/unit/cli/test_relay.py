"""What Ctrl-C and SIGTERM are for the command that `run` and `exec` wait for."""

import asyncio
import signal
from types import SimpleNamespace
from typing import Any

import pytest

from ringfence.cli import relay
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
