"""What a person sees while a sandbox is opened."""

import asyncio
import io
import sys

import pytest
from rich.console import Console

from ringfence.cli import opening, output


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def a_screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    """A terminal as stderr; within a test, since pytest sets stderr anew when it begins one."""
    found = Screen()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", found)
    monkeypatch.setattr(opening, "_QUIET_SECONDS", 0)
    monkeypatch.setattr(opening, "_EVERY_SECONDS", 0.01)
    monkeypatch.setattr(
        output, "console", lambda: Console(file=found, force_terminal=True, width=200)
    )
    return found


async def test_a_long_opening_tells_a_terminal_what_and_how_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen = a_screen(monkeypatch)
    async with asyncio.timeout(30), opening.telling("opening a sandbox on /a[b]\x1b[2J"):
        while " 0 s" not in screen.getvalue():
            await asyncio.sleep(0.01)
    assert "opening a sandbox on /a[b]\\x1b[2J: 0 s" in screen.getvalue()
    assert screen.getvalue().endswith("\x1b[?25h\r\x1b[1A\x1b[2K")  # no line of it stays


async def test_a_terminal_sees_how_much_of_a_repository_was_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen = a_screen(monkeypatch)
    async with asyncio.timeout(30), opening.telling("opening") as seen:
        for number in (17, 70000):
            seen(number)
            while f" 0 s, {number} entries" not in screen.getvalue():
                await asyncio.sleep(0.01)
    assert screen.getvalue().endswith("\x1b[?25h\r\x1b[1A\x1b[2K")


async def test_an_error_of_the_opening_goes_through_and_ends_the_telling(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    a_screen(monkeypatch)
    with pytest.raises(ValueError, match="no"):
        async with opening.telling("opening"):
            raise ValueError("no")
    assert len(asyncio.all_tasks()) == 1


async def test_a_short_opening_and_a_pipe_are_told_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen = a_screen(monkeypatch)
    monkeypatch.setattr(opening, "_QUIET_SECONDS", 60)
    async with opening.telling("opening"):
        await asyncio.sleep(0.05)
    monkeypatch.setattr(opening, "_QUIET_SECONDS", 0)
    monkeypatch.setattr(sys, "stderr", pipe := io.StringIO())
    async with opening.telling("opening"):
        await asyncio.sleep(0.05)
    assert (screen.getvalue(), pipe.getvalue()) == ("", "")
