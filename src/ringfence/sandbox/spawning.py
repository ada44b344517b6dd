"""What `Sandbox.spawn` gives: a command about to be spawned."""

from ringfence.sandbox.beginning import Beginning
from ringfence.sandbox.commands import Command
from ringfence.sandbox.process import Process
from ringfence.sandbox.running import Running, Terminal


class Spawning(Beginning[Process]):
    """A command about to be spawned: `await` it, or `async with` it to have it killed after."""

    def __init__(
        self,
        running: Running,
        command: Command,
        *,
        pty: Terminal | None,
        hold: bool,
        stdin_open: bool,
    ) -> None:
        self._running = running
        self._command = command
        self._pty = pty
        self._hold = hold
        self._stdin_open = stdin_open

    async def _begin(self) -> Process:
        return await self._running.spawn(
            self._command, pty=self._pty, hold=self._hold, stdin_open=self._stdin_open
        )

    async def _end(self, begun: Process, error: BaseException | None) -> None:  # noqa: ARG002
        await begun.aclose()
