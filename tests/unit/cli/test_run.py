"""`ringfence run` on the mock: what it prints and how it ends."""

import base64
import json
from pathlib import Path

import pytest

from ringfence.cli.app import run
from ringfence.spec.results import named_bytes


def test_json_is_one_document_even_where_nothing_is_measured(
    capfd: pytest.CaptureFixture[str], state_directory: Path
) -> None:
    """The usage is null; the command's code is the exit code."""
    assert run(["run", "--backend", "mock", "--json", "--", "sh", "-c", "echo out; exit 3"]) == 3
    document = json.loads(capfd.readouterr().out)
    assert document["result"]["stdout"] == "out\n"
    assert document["result"]["exit_code"] == 3
    assert document["usage"] is None
    assert document["sandbox"]["backend"] == "mock"


@pytest.mark.parametrize(
    ("words", "code", "named"),
    [
        (["--backend", "mok", "--", "true"], 125, "mok"),
        (["--memory", "1parsec", "--", "true"], 125, "limits.memory"),
        (["--profile", "strikt", "--", "true"], 125, "strict"),
        (["--patch", "x", "--", "true"], 2, "--repo"),
        (["--imag", "x", "--", "true"], 2, "imag"),
        (["--repo", ".", "--patch", "-", "--", "true"], 2, "standard output is the command's"),
    ],
)
def test_what_is_wrong_is_named_before_anything_starts(
    words: list[str], code: int, named: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["run", *words]) == code
    assert named in capfd.readouterr().err


def test_bytes_in_a_document_are_never_lost() -> None:
    """Text as it is; what is not UTF-8 besides in base64."""
    assert named_bytes("patch", "ä\n".encode()) == {"patch": "ä\n"}
    shown = named_bytes("patch", b"\xe4\n")
    assert base64.b64decode(shown["patch_base64"]) == b"\xe4\n"
