"""Checks of commands that have a terminal."""

from typing import Any

import pytest

import ringfence
from ringfence import Terminal
from ringfence.backends.base import Features
from ringfence.testing.base import Checks


class TerminalChecks(Checks):
    """Its size, what is typed into it, and what is none."""

    async def test_a_terminal(self, sandbox: ringfence.Sandbox, features: Features) -> None:
        """With pty the command has a terminal of the size asked for; else UnsupportedError."""
        line = "test -t 0 && test -t 1 && stty size"
        if not features.pty:
            with pytest.raises(ringfence.UnsupportedError):
                await sandbox.spawn(shell=line, pty=True)
            return
        async with sandbox.spawn(shell=line, pty=Terminal(rows=40, columns=100)) as process:
            assert (await process.wait()).stdout.strip() == b"40 100"

    @pytest.mark.parametrize("size", [(0, 80), (24, 65536), (-1, 80), (24, "80")], ids=str)
    async def test_a_terminal_of_no_size_is_refused(
        self, sandbox: ringfence.Sandbox, features: Features, size: tuple[int, int]
    ) -> None:
        """Before anything starts: InvalidSpecError, or UnsupportedError without terminals."""
        error = ringfence.InvalidSpecError if features.pty else ringfence.UnsupportedError
        with pytest.raises(error):
            await sandbox.spawn(["true"], pty=ringfence.Terminal(*size))

    @pytest.mark.parametrize("pty", ["yes", 5, (24, 80)], ids=str)
    async def test_what_is_no_terminal_is_refused(
        self, sandbox: ringfence.Sandbox, features: Features, pty: Any
    ) -> None:
        """Likewise, for what is neither True nor a Terminal."""
        error = ringfence.InvalidSpecError if features.pty else ringfence.UnsupportedError
        with pytest.raises(error) as caught:
            await sandbox.spawn(["true"], pty=pty)
        assert caught.value.context["fields"] == ["pty"]

    async def test_what_has_no_terminal_has_no_size(self, sandbox: ringfence.Sandbox) -> None:
        """resize of a command without a terminal is StateError, not silence."""
        async with sandbox.spawn(["sleep", "60"]) as process:
            with pytest.raises(ringfence.StateError):
                process.resize(24, 80)

    async def test_a_terminal_can_be_resized(
        self, sandbox: ringfence.Sandbox, features: Features
    ) -> None:
        """resize is seen inside; sizes out of range are refused."""
        if not features.pty:
            with pytest.raises(ringfence.UnsupportedError):
                await sandbox.spawn(["cat"], pty=True)
            return
        async with sandbox.spawn(shell="read x; stty size", pty=True) as process:
            with pytest.raises(ringfence.InvalidSpecError):
                process.resize(0, 80)
            process.resize(50, 132)
            await process.write("go\n")
            assert b"50 132" in (await process.wait()).stdout

    async def test_a_terminal_is_typed_into_by_who_attaches(
        self, sandbox: ringfence.Sandbox, features: Features
    ) -> None:
        """And resized; without terminals, UnsupportedError."""
        if not features.pty:
            with pytest.raises(ringfence.UnsupportedError):
                await sandbox.spawn(["cat"], pty=True, hold=True)
            return
        async with sandbox.spawn(shell="read x; echo $x; stty size", pty=True, hold=True) as one:
            number = one.id
        again = await sandbox.attach(number)
        again.resize(50, 132)
        await again.write("typed\n")
        assert (await again.wait()).stdout.split()[-3:] == [b"typed", b"50", b"132"]
        await sandbox.forget(number)
        async with sandbox.spawn(["sleep", "300"], hold=True) as piped:
            number = piped.id
        again = await sandbox.attach(number)
        with pytest.raises(ringfence.StateError):
            again.resize(50, 132)
        await sandbox.forget(number)
