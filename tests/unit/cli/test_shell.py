"""`ringfence shell` on a terminal of ours: what it starts there, how large, and what goes in."""

import asyncio
import os
import pty
import signal
import sys
import termios
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

import ringfence
from ringfence.cli import shell
from ringfence.cli.app import run
from ringfence.errors import ProcessError


class Sandbox:
    """It has the programs that it is given, and starts none."""

    def __init__(self, *programs: str) -> None:
        self.files = self
        self.programs = programs
        self.asked: dict[str, Any] = {}

    async def exists(self, path: str) -> bool:
        return path in self.programs

    async def spawn(self, args: list[str], **given: object) -> None:
        self.asked = {"args": args, **given}
        raise ProcessError("x\x1b: not found", op="spawn", context={"exit_code": 127})


def on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both streams are one of 50 rows and 120 columns; the environment says otherwise. Within a
    test, since pytest sets the streams anew when it begins one."""
    for stream in (sys.stdin, sys.stdout):
        monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(os, "get_terminal_size", lambda *_: os.terminal_size((120, 50)))
    monkeypatch.setenv("COLUMNS", "33")
    monkeypatch.setenv("LINES", "44")
    monkeypatch.setenv("TERM", "foot")


@pytest.mark.parametrize(
    ("words", "programs", "args"),
    [
        ("", ["/bin/sh", "/bin/bash"], ["/bin/bash"]),
        ("", ["/bin/sh"], ["/bin/sh"]),
        ("-- ls -l", [], ["ls", "-l"]),
    ],
)
def test_the_sandbox_s_best_shell_or_a_command_is_started_as_large_as_our_terminal(
    words: str, programs: list[str], args: list[str], monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    sandbox = Sandbox(*programs)

    @asynccontextmanager
    async def opened(**given: object) -> AsyncIterator[Sandbox]:
        assert given["id"] == "ab12"
        yield sandbox

    on_a_terminal(monkeypatch)
    monkeypatch.setattr(ringfence, "open", opened)
    assert run(["shell", "-u", "5", "-w", "/tmp", "ab12", *words.split()]) == 127
    assert (sandbox.asked["args"], sandbox.asked["env"]) == (args, {"TERM": "foot"})
    assert (sandbox.asked["user"], sandbox.asked["cwd"]) == ("5", "/tmp")
    assert sandbox.asked["pty"] == ringfence.Terminal(rows=50, columns=120)
    assert sandbox.asked["timeout"] == float("inf")
    assert capfd.readouterr().err == "ringfence: x\\x1b: not found\n"


def test_a_sandbox_without_a_shell_is_told_so(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    @asynccontextmanager
    async def opened(**_: object) -> AsyncIterator[Sandbox]:
        yield Sandbox()

    on_a_terminal(monkeypatch)
    monkeypatch.setattr(ringfence, "open", opened)
    assert run(["shell", "ab12"]) == 2
    assert "has no shell" in capfd.readouterr().err


@pytest.mark.parametrize("missing", ["stdin", "stdout"])
def test_a_script_is_told_to_use_exec(
    missing: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    on_a_terminal(monkeypatch)
    monkeypatch.setattr(getattr(sys, missing), "isatty", lambda: False, raising=False)
    assert run(["shell", "ab12"]) == 2
    assert "ringfence exec" in capfd.readouterr().err


class Process:
    """A program that prints what was typed and how large its terminal is, until it hears `q` or
    nothing more can come."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[bytes] = asyncio.Queue()
        self.stdout = self._said()

    async def write(self, data: bytes) -> None:
        self.heard.put_nowait(data)

    def close_stdin(self) -> None:
        self.heard.put_nowait(b"")

    def resize(self, rows: int, columns: int) -> None:
        self.heard.put_nowait(f"{rows}x{columns} ".encode())

    async def _said(self) -> AsyncIterator[bytes]:
        while (data := await self.heard.get()) not in (b"q", b""):
            yield data

    async def wait(self) -> Any:
        class Ended:
            shell_code = 7

        return Ended


@pytest.fixture
def keyboard() -> Iterator[int]:
    """What is written to this is typed: standard input is the other end of it meanwhile."""
    before = os.dup(0)
    master, slave = pty.openpty()
    quiet = termios.tcgetattr(slave)
    quiet[3] &= ~(termios.ICANON | termios.ECHO)
    termios.tcsetattr(slave, termios.TCSANOW, quiet)
    os.dup2(slave, 0)
    os.close(slave)
    yield master
    os.dup2(before, 0)
    os.close(before)


async def test_keys_and_a_new_size_reach_the_program_until_it_ends(
    keyboard: int, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "get_terminal_size", lambda *_: os.terminal_size((120, 50)))
    before = signal.getsignal(signal.SIGWINCH)
    process: Any = Process()
    joined = asyncio.create_task(shell._join(process))
    shown = ""
    os.write(keyboard, b"typed ")
    async with asyncio.timeout(30):
        while "typed" not in shown:
            await asyncio.sleep(0.01)
            shown += capfd.readouterr().out
        signal.raise_signal(signal.SIGWINCH)
        while "50x120" not in shown:
            await asyncio.sleep(0.01)
            shown += capfd.readouterr().out
        os.write(keyboard, b"q")
        assert await joined == 7
    os.close(keyboard)
    assert signal.getsignal(signal.SIGWINCH) == before
    assert not asyncio.get_running_loop().remove_reader(0)


async def test_a_terminal_that_is_gone_is_the_end_of_what_is_typed(keyboard: int) -> None:
    joined = asyncio.create_task(shell._join(Process()))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    os.close(keyboard)
    async with asyncio.timeout(30):
        assert await joined == 7


async def test_a_terminal_that_is_gone_is_not_asked_again_and_again(
    keyboard: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program may go on for long, and would have a processor kept busy."""
    process: Any = Process()
    process.close_stdin = lambda: None
    asked, typed = list[bytes](), shell._typed

    def asking() -> bytes:
        asked.append(typed())
        return asked[-1]

    monkeypatch.setattr(shell, "_typed", asking)
    joined = asyncio.create_task(shell._join(process))
    await asyncio.sleep(0)
    os.close(keyboard)
    async with asyncio.timeout(30):
        while not asked:
            await asyncio.sleep(0.01)
    for _ in range(20):
        await asyncio.sleep(0)
    assert asked == [b""]
    process.heard.put_nowait(b"q")
    assert await joined == 7


@pytest.mark.parametrize("size", [(0, 0), None])
def test_a_terminal_that_does_not_say_how_large_it_is_has_the_usual_size(
    size: tuple[int, int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(*_: object) -> os.terminal_size:
        if size is None:
            raise OSError
        return os.terminal_size(size)

    monkeypatch.setattr(os, "get_terminal_size", asked)
    assert shell._size() == (80, 24)
