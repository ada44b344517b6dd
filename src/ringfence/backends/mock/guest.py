"""The mock's guest: an independent second implementation of docs/guest-protocol.md.

This is what outlives a session: the tree, the execs, the lifetime.
"""

import asyncio
import itertools
import signal
import time
from typing import Protocol

from ringfence.backends.mock.builtin import BUILTINS
from ringfence.backends.mock.process import KILLED, Process, Program
from ringfence.backends.mock.script import Script
from ringfence.backends.mock.shell import Shell
from ringfence.backends.mock.tree import Tree
from ringfence.guest.protocol import Answer

_SHELLS = ("sh", "/bin/sh", "bash", "/bin/bash")


class Session(Protocol):
    """What a guest knows of the session with it."""

    def close(self) -> None:
        """End it from the guest's side."""
        ...


class MockGuest:
    """One sandbox's inside."""

    def __init__(self, tree: Tree, script: Script) -> None:
        self.tree = tree
        self.script = script
        self.processes: dict[int, Process] = {}
        self.dead = False
        self.detached = False
        self.epoch = 0
        self.begun = time.monotonic()
        self.pids = itertools.count(2)
        self._session: Session | None = None
        self._lifetime: asyncio.TimerHandle | None = None

    def find(self, args: tuple[str, ...]) -> Program | None:
        """What runs `args`: scripted commands first, then what every mock has."""
        scripted = self.script.command(args)
        if scripted is not None:
            return scripted
        name = args[0]
        if name in _SHELLS and args[1:2] == ("-c",) and len(args) > 2:
            return lambda process: Shell(process, self.find).run(args[2])
        short = name.removeprefix("/usr").removeprefix("/bin/")
        return BUILTINS.get(short)

    @property
    def held(self) -> bool:
        """Whether a client has a session with it."""
        return self._session is not None

    def enter(self, session: Session) -> None:
        """A session begins; the one before ends."""
        if self._session is not None:
            self._session.close()
            self.leave(self._session)
        self._session = session

    def renew_lifetime(self, seconds: float) -> None:
        """End by itself in `seconds`; 0 changes nothing."""
        if seconds:
            if self._lifetime is not None:
                self._lifetime.cancel()
            self._lifetime = asyncio.get_running_loop().call_later(seconds, self.die)

    def leave(self, session: Session) -> None:
        """A session ended: attached, all ends; detached, what is held goes on."""
        if self._session is not session:
            return
        self._session = None
        if not self.detached:
            self.die()
            return
        for exec_id, process in list(self.processes.items()):
            if process.held:
                process.detach()
            else:
                process.end(KILLED, signal.SIGKILL)
                del self.processes[exec_id]

    def die(self) -> None:
        """Everything ends."""
        self.dead = True
        if self._lifetime is not None:
            self._lifetime.cancel()
        for process in self.processes.values():
            process.detach()
            process.end(KILLED, signal.SIGKILL)
        self.processes.clear()
        if self._session is not None:
            self._session.close()

    def ended(self, exec_id: int, process: Process) -> None:
        """`process` ended and all of its output is on its way."""
        if process.listener is not None:
            process.listener(Answer.EXIT, process.exit or b"")
        if not process.held and self.processes.get(exec_id) is process:
            del self.processes[exec_id]

    def kill_all(self) -> int:
        """Kill every exec that runs."""
        running = [process for process in self.processes.values() if process.exit is None]
        for process in running:
            process.end(KILLED, signal.SIGKILL)
        return len(running)
