"""`--help` says what is typed, in the words of docs/cli.md, whichever verb is asked."""

import contextlib
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ringfence.cli import verbs
from ringfence.cli.app import run

REFERENCE = (Path(__file__).parents[3] / "docs" / "cli.md").read_text()


def every_verb() -> Iterator[str]:
    """As they are typed."""
    for name in sorted(verbs.NAMES - set(verbs.GROUPS)):
        yield name
    for name in sorted(verbs.GROUPS):
        for command in verbs.group(name).registered_commands:
            assert command.callback is not None
            yield f"{name} {command.name or command.callback.__name__}"


VERBS = list(every_verb())


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


@pytest.mark.parametrize("verb", VERBS)
def test_the_usage_is_that_of_the_reference(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With no options, which each has."""
    assert run([*verb.split(), "--help"]) == 0
    [usage] = [line for line in capsys.readouterr().out.splitlines() if "Usage:" in line]
    words = " ".join(usage.replace("Usage:", "").replace("[OPTIONS] ", "").split())
    words = words.removesuffix(" [OPTIONS]")
    assert f"| `{words}` |" in REFERENCE


def test_a_flag_has_no_type_as_nothing_is_typed_after_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for words in ([], *(verb.split() for verb in VERBS)):
        assert run([*words, "--help"]) == 0
        assert "bool" not in capsys.readouterr().out.lower()


def test_an_example_is_on_a_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["shell", "--help"]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert "$ ringfence shell 3f2a" in lines
    assert "$ ringfence shell 3f2a -- python3 -i app.py" in lines


@pytest.mark.parametrize(
    ("environment", "codes"),
    [({}, {"1", "2", "36"}), ({"NO_COLOR": "1"}, {"1", "2"}), ({"TERM": "dumb"}, set())],
    ids=["colours", "no colours", "dumb"],
)
def test_a_terminal_gets_the_colours_and_the_bold_that_it_is_said_to_want(
    environment: dict[str, str], codes: set[str]
) -> None:
    """NO_COLOR is of colours, as no-color.org and rich have it; a dumb terminal has nothing."""
    master, slave = pty.openpty()
    plain = {name: text for name, text in os.environ.items() if name not in ("NO_COLOR", "TERM")}
    help_shown = subprocess.Popen(
        [sys.executable, "-m", "ringfence", "ps", "--help"],
        stdout=slave,
        env={**plain, "TERM": "xterm", **environment},
    )
    os.close(slave)
    shown = read_all(master)
    assert help_shown.wait(60) == 0
    found = {code for group in re.findall(r"\x1b\[([0-9;]+)m", shown) for code in group.split(";")}
    assert found & {"1", "2", "36"} == codes
    assert "List sandboxes" in re.sub(r"\x1b\[[0-9;]+m", "", shown)


def read_all(master: int) -> str:
    """What a terminal was sent until its other end is closed."""
    seen = b""
    with contextlib.suppress(OSError):
        while data := os.read(master, 65536):
            seen += data
    os.close(master)
    return seen.decode()
