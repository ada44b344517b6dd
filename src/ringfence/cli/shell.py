"""`ringfence shell`: a real terminal in a sandbox."""

import asyncio
import contextlib
import math
import os
import signal
import sys
import termios
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ringfence.cli import output
from ringfence.cli.common import Audit, Id
from ringfence.cli.writer import Writer
from ringfence.errors import InvalidSpecError, ProcessError

if TYPE_CHECKING:
    from ringfence.sandbox.process import Process

_DEADLY = (signal.SIGHUP, signal.SIGQUIT)
_SHELLS = ("/bin/bash", "/bin/sh")


def shell(
    sandbox: Id,
    command: Annotated[
        list[str] | None, typer.Argument(metavar="[-- COMMAND [ARG...]]", show_default=False)
    ] = None,
    user: Annotated[
        str | None, typer.Option("--user", "-u", metavar="USER", help="Name, uid or uid:gid.")
    ] = None,
    cwd: Annotated[
        str | None, typer.Option("--cwd", "-w", metavar="DIR", help="Working directory inside.")
    ] = None,
    audit: Audit = None,
) -> int:
    """Open a shell (or COMMAND) on a terminal of its own in a sandbox: resize, colours, Ctrl-C.

    What it prints reaches your terminal as it is. Its exit code is the shell's; 126 or
    127 when COMMAND cannot be executed or is not there. For example:

        ringfence shell 3f2a

        ringfence shell 3f2a -- python3 -i app.py
    """
    if not sys.stdin.isatty() or not sys.stdout.isatty():
        raise InvalidSpecError(
            "shell: stdin and stdout must be a terminal; for scripts use `ringfence exec`",
            op="usage",
        )
    return asyncio.run(_shell(sandbox, command, user, cwd, audit))


async def _shell(
    name: str, command: list[str] | None, user: str | None, cwd: str | None, audit: Path | None
) -> int:
    import ringfence

    async with ringfence.open(id=name, audit=audit) as sandbox:
        args = command or [await _first_shell(sandbox)]
        columns, rows = _size()
        spawning = sandbox.spawn(
            args,
            pty=ringfence.Terminal(rows, columns),
            timeout=math.inf,
            user=user,
            cwd=cwd,
            env={"TERM": os.environ.get("TERM", "xterm")},
        )
        try:
            process = await spawning
        except ProcessError as error:
            output.note(output.escape_text(str(error)))
            return int(error.context["exit_code"])
        async with process:
            with _orderly(), _raw_terminal():
                return await _join(process)


def _size() -> tuple[int, int]:
    """Columns and rows of our terminal now: COLUMNS and LINES of the environment, where somebody
    exported them, are of another or of before."""
    try:
        columns, rows = os.get_terminal_size(sys.stdout.fileno())
    except OSError:  # it is gone
        columns, rows = 0, 0
    return columns or 80, rows or 24


async def _first_shell(sandbox: object) -> str:
    for path in _SHELLS:
        if await sandbox.files.exists(path):  # type: ignore[attr-defined]
            return path
    raise InvalidSpecError("shell: this sandbox has no shell: name a COMMAND", op="usage")


async def _join(process: "Process") -> int:
    loop = asyncio.get_running_loop()
    keys: asyncio.Queue[bytes] = asyncio.Queue()
    writer = Writer(sys.stdout, raw=True)

    def typed() -> None:
        data = _typed()
        if not data:
            loop.remove_reader(0)
        keys.put_nowait(data)

    def resized() -> None:
        columns, rows = _size()
        process.resize(rows, columns)

    loop.add_reader(0, typed)
    loop.add_signal_handler(signal.SIGWINCH, resized)
    sending = asyncio.create_task(_send(process, keys))
    try:
        async for data in process.stdout:
            await writer.write(data)
        return (await process.wait()).shell_code
    finally:
        writer.close()
        loop.remove_reader(0)
        loop.remove_signal_handler(signal.SIGWINCH)
        sending.cancel()


def _typed() -> bytes:
    """What was typed; nothing of a terminal that is gone."""
    try:
        return os.read(0, 65536)
    except OSError:
        return b""


async def _send(process: "Process", keys: "asyncio.Queue[bytes]") -> None:
    while data := await keys.get():
        await process.write(data)
    process.close_stdin()


@contextlib.contextmanager
def _orderly() -> Iterator[None]:
    """Have a signal that would kill us end the block, whose terminal is to be as it was before, and
    then the verb with what a shell shows of it."""
    loop, block = asyncio.get_running_loop(), asyncio.current_task()
    assert block is not None  # noqa: S101 - asyncio.run made one
    numbers = [one for one in _DEADLY if signal.getsignal(one) is signal.SIG_DFL]
    came: list[int] = []

    def end(number: int) -> None:
        came.append(number)
        block.cancel()

    for number in numbers:
        loop.add_signal_handler(number, end, number)
    try:
        yield
    except asyncio.CancelledError:
        if came:
            raise typer.Exit(128 + came[0]) from None
        raise
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


@contextlib.contextmanager
def _raw_terminal() -> Iterator[None]:
    before = termios.tcgetattr(0)
    tty.setraw(0, termios.TCSADRAIN)
    try:
        yield
    finally:
        with contextlib.suppress(termios.error):  # it is gone
            termios.tcsetattr(0, termios.TCSANOW, before)  # and nobody may read what is written
