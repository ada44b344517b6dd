"""`ringfence spec`: what a spec file may say, and whether one is right."""

import json
from pathlib import Path

import pytest

from ringfence.cli.app import run
from ringfence.spec import SandboxSpec


def test_the_schema_has_every_field_and_forbids_others(capsys: pytest.CaptureFixture[str]) -> None:
    """It is a JSON Schema: an object whose properties are the spec's fields, and no others."""
    assert run(["spec", "schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert schema["type"] == "object"
    assert schema["additionalProperties"] is False
    assert set(schema["properties"]) == set(SandboxSpec.model_fields)
    assert "Limits" in schema["$defs"]
    assert "memory" in schema["$defs"]["Limits"]["properties"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("task.toml", 'image = "busybox"\n[limits]\nmemory = "1GiB"\n'),
        ("task.json", '{"image": "busybox", "limits": {"memory": "1GiB"}}'),
    ],
)
def test_a_file_is_read_and_shown_with_its_defaults(
    name: str, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_text(text)
    assert run(["spec", "check", str(tmp_path / name)]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["image"] == "busybox"
    assert shown["limits"]["memory"] == 1 << 30
    assert set(shown) == set(SandboxSpec.model_fields)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("imag = 'busybox'\n", "imag"),
        ("[limits]\nmemory = '1 parsec'\n", "limits.memory"),
        ("image = \n", "task.toml"),
    ],
)
def test_what_is_wrong_is_named(
    text: str, named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "task.toml").write_text(text)
    assert run(["spec", "check", str(tmp_path / "task.toml")]) in (2, 125)
    assert named in capsys.readouterr().err
