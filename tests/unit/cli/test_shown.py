"""`--help` says what is typed, in the words of docs/cli.md, whichever verb is asked."""

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
