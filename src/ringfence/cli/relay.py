"""One command in a sandbox joined to this terminal: its output here, our input and Ctrl-C there."""

import asyncio
import os
import signal
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ringfence.cli.writer import Writer
from ringfence.errors import NotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ringfence import ExecResult, Sandbox

CHUNK_BYTES = 256 * 1024
_GRACE_SECONDS = 2.0
_FORWARDED = (signal.SIGTERM, signal.SIGINT)
"""In this order: a SIGTERM that is not forwarded is taken as whatever SIGINT is."""


async def relay(
    sandbox: "Sandbox",
    args: "Sequence[str]",
    *,
    show: bool = True,
    env: "Mapping[str, str] | None" = None,
    cwd: str | None = None,
    user: str | None = None,
    timeout: str | None = None,
    cgroup: bool = False,
) -> "ExecResult":
    """Run `args` with both outputs copied to ours as they come, and stdin when it is piped.

    show: False keeps the output for the result only (--json). The first Ctrl-C or SIGTERM goes
    to the command's process group, and to no other command's; the second kills its family. After
    a SIGTERM, which nobody may be there to repeat, that happens by itself in two seconds.
    """
    held = await sandbox.processes() if sandbox.info.detached else ()
    others = frozenset(process.id for process in held)
    writers = (Writer(sys.stdout), Writer(sys.stderr)) if show else ()
    on_stdout, on_stderr = (writer.write for writer in writers) if show else (None, None)
    running = asyncio.create_task(
        sandbox.exec(
            args,
            stdin=piped_stdin(),
            env=env,
            cwd=cwd,
            user=user,
            timeout=timeout,
            cgroup=cgroup,
            on_stdout=on_stdout,
            on_stderr=on_stderr,
        )
    )
    try:
        return await _ended(_Joined(sandbox, running, others, writers))
    finally:
        for writer in writers:
            writer.close()


async def _ended(command: "_Joined") -> "ExecResult":
    """Its result; until then Ctrl-C is for it."""
    with _interrupts(command) as came:
        try:
            result: ExecResult = await command.running
        except asyncio.CancelledError:
            if came:
                raise typer.Exit(128 + came[-1]) from None
            raise
    return result


@dataclass(frozen=True)
class _Joined:
    """The command that runs for us, and the others beside it, which are nobody's here."""

    sandbox: "Sandbox"
    running: "asyncio.Task[Any]"
    others: frozenset[int]
    writers: "Sequence[Writer]"

    async def signal(self, number: int) -> None:
        """To its process group; after a SIGTERM it is killed in two seconds."""
        for process in await self.sandbox.processes():
            if process.running and process.id not in self.others:
                with suppress(NotFoundError):  # it ended meanwhile
                    await self.sandbox.signal(process.id, number, group=True)
        if number == signal.SIGTERM:
            await asyncio.sleep(_GRACE_SECONDS)
            await self.kill()

    async def kill(self) -> None:
        """With its result, where it is the only command there; its reader is waited for no more."""
        for writer in self.writers:
            writer.give_up()
        if self.others:
            self.running.cancel()
        else:
            await self.sandbox.kill_all()


@contextmanager
def _interrupts(command: _Joined) -> "Iterator[list[int]]":
    """Until the block ends, Ctrl-C goes to the command. Afterwards it is for us, as before: a
    sandbox is still to be deleted. What it gives holds the signals that came."""
    loop = asyncio.get_running_loop()
    sending: list[asyncio.Task[None]] = []
    came: list[int] = []

    def forward(number: int) -> None:
        came.append(number)
        act = command.kill() if sending else command.signal(number)
        sending.append(loop.create_task(act))

    before = {number: signal.getsignal(number) for number in _FORWARDED}
    for number in _FORWARDED:
        loop.add_signal_handler(number, forward, number)
    try:
        yield came
    finally:
        for number in reversed(_FORWARDED):
            loop.remove_signal_handler(number)
            signal.signal(number, before[number])
        for task in sending:
            task.cancel()


def piped_stdin() -> AsyncIterator[bytes] | None:
    """Our stdin, when it is a pipe, a socket, a file or a device such as /dev/urandom; None for a
    terminal or /dev/null."""
    try:
        found = os.fstat(0)
    except OSError:
        return None
    if stat.S_ISFIFO(found.st_mode) or stat.S_ISSOCK(found.st_mode):
        return _pipe()
    device = stat.S_ISBLK(found.st_mode) or stat.S_ISCHR(found.st_mode)
    if stat.S_ISREG(found.st_mode) or (device and not _nothing(found)):
        return _file()
    return None


def _nothing(device: os.stat_result) -> bool:
    return os.isatty(0) or device.st_rdev == Path(os.devnull).stat().st_rdev


async def _file() -> AsyncIterator[bytes]:
    while chunk := await asyncio.to_thread(os.read, 0, CHUNK_BYTES):
        yield chunk


async def _pipe() -> AsyncIterator[bytes]:
    """Never a thread that blocks in read(2): the command may end before its input does."""
    reader = asyncio.StreamReader(limit=CHUNK_BYTES)
    loop = asyncio.get_running_loop()
    with os.fdopen(os.dup(0), "rb", buffering=0) as pipe:
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), pipe
        )
        try:
            while chunk := await reader.read(CHUNK_BYTES):
                yield chunk
        finally:
            transport.close()
            os.set_blocking(0, True)
