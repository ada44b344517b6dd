"""The verbs about this machine: what they look at stays as it is."""

import sys
from pathlib import Path

import pytest
from rich.console import Console

from ringfence.cli import digest, output
from ringfence.cli.app import run


@pytest.mark.parametrize("verb", [["ls"], ["verify"], ["gc"], ["rm", "x"]])
@pytest.mark.parametrize("there", [True, False])
def test_a_directory_that_is_no_store_is_not_made_one(
    verb: list[str], there: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a mistyped --root would be."""
    root = tmp_path / "root"
    if there:
        root.mkdir()
    assert run(["store", *verb, "--root", str(root)]) == 125
    assert "is no OCI layout" in capsys.readouterr().err
    assert [*tmp_path.rglob("*")] == [root] * there


def test_a_ceiling_is_shown_by_the_names_of_its_fields(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the errors about them have it."""
    file = tmp_path / "ceiling.toml"
    file.write_text('[limits]\nmemory = "1GiB"\npids = 9\n')
    assert run(["policy", "ceiling", str(file)]) == 0
    assert capsys.readouterr().out == "limits.memory  1073741824\nlimits.pids    9\n"
    file.write_text("")
    assert run(["policy", "ceiling", str(file)]) == 0
    assert "caps nothing" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["x[/y]", "[red]x", "[b"])
def test_the_bar_of_a_large_file_shows_its_name_as_it_is(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is named in it is no markup."""
    monkeypatch.setattr(output, "console", lambda: Console(file=sys.stdout, force_terminal=True))
    with digest._bar(name, 1) as advance:
        advance(1)
    assert name in capsys.readouterr().out
