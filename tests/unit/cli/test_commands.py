"""Whose an option is where a command stands on the line: ours until its name, then the command's."""

import sys

import pytest

from ringfence.cli import exec as executing
from ringfence.cli import shell
from ringfence.cli.app import run


@pytest.mark.parametrize(
    ("words", "timeout", "command"),
    [
        ("ab12 -- ls --timeout 1m -l", None, "ls --timeout 1m -l"),
        ("ab12 ls --timeout 1m -l", None, "ls --timeout 1m -l"),
        ("ab12 --timeout 1m ls -l", "1m", "ls -l"),
        ("--timeout 1m ab12 ls -- -l", "1m", "ls -- -l"),
        ("--timeout 1m -- ab12 ls -l", "1m", "ls -l"),
        ("ab12 -t1m -- -l", "1m", "-l"),
    ],
)
def test_what_follows_the_name_of_a_command_is_its_own(
    words: str, timeout: str | None, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []

    async def execute(*given: object) -> int:
        seen.extend(given)
        return 7

    monkeypatch.setattr(executing, "_exec", execute)
    assert run(["exec", *words.split()]) == 7
    assert (seen[0], seen[1], seen[5]) == ("ab12", command.split(), timeout)


@pytest.mark.parametrize(
    ("words", "command"),
    [("ab12 -u 0", None), ("-u 0 ab12 ls -u 1", "ls -u 1"), ("ab12 -u 0 -- ls -u 1", "ls -u 1")],
)
def test_a_shell_s_command_has_its_own_options_too(
    words: str, command: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []

    async def open_shell(*given: object) -> int:
        seen.extend(given)
        return 7

    monkeypatch.setattr(shell, "_shell", open_shell)
    for stream in (sys.stdin, sys.stdout):
        monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
    assert run(["shell", *words.split()]) == 7
    assert seen[:3] == ["ab12", command and command.split(), "0"]
