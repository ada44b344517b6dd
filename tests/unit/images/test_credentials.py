"""Logins as Docker's configuration and its helpers have them."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from ringfence.errors import ImageError, InvalidSpecError
from ringfence.images.credentials import HUB, Credentials, find


def auth(text: str) -> dict[str, str]:
    return {"auth": base64.b64encode(text.encode()).decode()}


def write(directory: Path, content: Any) -> Path:
    (directory / "config.json").write_text(json.dumps(content))
    return directory


@pytest.mark.parametrize(
    ("content", "domain", "found"),
    [
        ({}, "a.example", None),
        ({"auths": {}}, "a.example", None),
        ({"auths": {"a.example": auth("u:p")}}, "a.example", Credentials("u", "p")),
        ({"auths": {"a.example": auth("u:p:q")}}, "a.example", Credentials("u", "p:q")),
        ({"auths": {"a.example": auth("u:p\0\0")}}, "a.example", Credentials("u", "p")),
        ({"auths": {"a.example": auth("u:")}}, "a.example", Credentials("u", "")),
        ({"auths": {"a.example": {}}}, "a.example", None),
        ({"auths": {"https://a.example/v1/": auth("u:p")}}, "a.example", Credentials("u", "p")),
        ({"auths": {"a.example:5000": auth("u:p")}}, "a.example", None),
        ({"auths": {"a.example": auth("u:p")}}, "a.example:5000", None),
        ({"auths": {"a.example": auth("u:p")}}, "b.a.example", None),
        ({"auths": {HUB: auth("u:p")}}, "docker.io", Credentials("u", "p")),
        ({"auths": {"docker.io": auth("u:p")}}, "docker.io", None),
        (
            {"auths": {"a.example": {"username": "u", "password": "p"}}},
            "a.example",
            Credentials("u", "p"),
        ),
        (
            {"auths": {"a.example": {**auth("u:p"), "identitytoken": "t"}}},
            "a.example",
            Credentials("u", "p", "t"),
        ),
        ({"auths": ["a.example"]}, "a.example", None),
        ([], "a.example", None),
    ],
)
def test_what_is_written_is_found(
    tmp_path: Path, content: Any, domain: str, found: Credentials | None
) -> None:
    assert find(domain, write(tmp_path, content)) == found


def test_no_file_is_no_login_and_a_broken_one_an_error_without_content(tmp_path: Path) -> None:
    assert find("a.example", tmp_path) is None
    (tmp_path / "config.json").write_text('{"auths": "secret')
    with pytest.raises(InvalidSpecError) as caught:
        find("a.example", tmp_path)
    assert "secret" not in str(caught.value)
    for broken in ("!", "ü", *(base64.b64encode(odd).decode() for odd in (b"no colon", b"\xff:"))):
        write(tmp_path, {"auths": {"a.example": {"auth": broken}}})
        with pytest.raises(InvalidSpecError, match="no login"):
            find("a.example", tmp_path)
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").mkdir()
    with pytest.raises(InvalidSpecError, match="cannot be read"):
        find("a.example", tmp_path)


def test_the_file_is_where_docker_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".docker").mkdir()
    write(tmp_path / ".docker", {"auths": {"a.example": auth("u:home")}})
    write(tmp_path, {"auths": {"a.example": auth("u:named")}})
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("DOCKER_CONFIG", raising=False)
    assert find("a.example") == Credentials("u", "home")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    assert find("a.example") == Credentials("u", "named")


def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = tmp_path / "docker-credential-mine"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")


def test_helpers_are_asked_for_the_registry_by_its_docker_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper(
        tmp_path,
        monkeypatch,
        'read server; test "$1" = get || exit 3\n'
        'printf \'{"ServerURL": "x", "Username": "u", "Secret": "of %s"}\' "$server"',
    )
    write(tmp_path, {"credsStore": "mine", "auths": {"a.example": auth("no:no")}})
    assert find("a.example", tmp_path) == Credentials("u", "of a.example")
    assert find("docker.io", tmp_path) == Credentials("u", f"of {HUB}")
    write(tmp_path, {"credHelpers": {"a.example": "mine"}, "auths": {"b.example": auth("u:p")}})
    assert find("a.example", tmp_path) == Credentials("u", "of a.example")
    assert find("b.example", tmp_path) == Credentials("u", "p")


def test_what_helpers_answer_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"credsStore": "mine"})
    helper(tmp_path, monkeypatch, 'echo \'{"Username": "<token>", "Secret": "t"}\'')
    assert find("a.example", tmp_path) == Credentials(identity_token="t")
    helper(tmp_path, monkeypatch, "echo credentials not found in native keychain; exit 1")
    assert find("a.example", tmp_path) is None
    for script in (
        "echo hunter2; exit 1",
        "echo hunter2",
        'echo \'{"Secret": "hunter2"}\'',
        "echo '[\"hunter2\"]'",
    ):
        helper(tmp_path, monkeypatch, script)
        with pytest.raises(ImageError) as caught:
            find("a.example", tmp_path)
        assert "hunter2" not in str(caught.value)
    write(tmp_path, {"credsStore": "absent-helper"})
    with pytest.raises(ImageError, match="docker-credential-absent-helper"):
        find("a.example", tmp_path)
    write(tmp_path, {"credsStore": "../../bin/sh"})
    with pytest.raises(InvalidSpecError, match="not the name"):
        find("a.example", tmp_path)


def test_a_login_shows_no_secret_and_is_taken_out_of_what_comes_back() -> None:
    login = Credentials("u", "hunter2", "token9")
    assert "hunter2" not in repr(login)
    assert "token9" not in repr(login)
    plain = Credentials("u", "hunter2")
    sent = base64.b64encode(b"u:hunter2").decode()
    assert plain.redact(f"a hunter2 b {sent} c") == "a *** b *** c"
    assert Credentials().redact("nothing") == "nothing"
    header = json.loads(base64.urlsafe_b64decode(plain.header("a.example")))
    assert header == {"username": "u", "password": "hunter2", "serveraddress": "a.example"}
    header = json.loads(base64.urlsafe_b64decode(login.header("docker.io")))
    assert header == {"identitytoken": "token9", "serveraddress": HUB}
