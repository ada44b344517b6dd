"""A registry that asks for a login gets the one that Docker has for it, and nothing shows it."""

import base64
import ctypes
import json
import logging
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ringfence.backends.docker.supply import Supply
from ringfence.cli.app import run
from ringfence.errors import ImageError, SandboxError
from ringfence.images import Reference
from ringfence.images.credentials import Credentials

from ...conftest import missing
from .conftest import push, serving

pytestmark = pytest.mark.docker

USER = "somebody"
PASSWORD = "pass:word " + secrets.token_hex(12)
AUTH = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


def bcrypt(password: str) -> str:
    try:
        crypt = ctypes.CDLL("libcrypt.so.1").crypt
    except OSError:
        missing("there is no libcrypt, which makes the registry's password file")
    crypt.restype = ctypes.c_char_p
    made = crypt(password.encode(), b"$2b$04$" + b"abcdefghijklmnopqrstuu")
    assert made.startswith(b"$2b$"), made
    return str(made.decode())


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry that lets only USER in."""
    directory = tmp_path_factory.mktemp("private")
    (directory / "htpasswd").write_text(f"{USER}:{bcrypt(PASSWORD)}\n")
    more = f"auth: {{htpasswd: {{realm: test, path: {directory / 'htpasswd'}}}}}"
    with serving(directory, more) as address:
        yield address


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Docker's directory for this test."""
    directory = tmp_path / "docker"
    directory.mkdir()
    monkeypatch.setenv("DOCKER_CONFIG", str(directory))
    return directory


def write(config: Path, **content: Any) -> None:
    (config / "config.json").write_text(json.dumps(content))


def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """A credential helper called "test"."""
    program = tmp_path / "docker-credential-test"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")


@pytest.fixture
async def stored(supply: Supply, private: str, name: str, rootfs: Path, config: Path) -> Reference:
    """An image in the private registry, and no longer on the daemon."""
    await supply.import_(rootfs, Reference.parse_familiar(f"{name}:1"))
    tag = f"{private}/{name}:1"
    write(config, auths={private: {"auth": AUTH}})
    push(f"{name}:1", tag, config)
    await supply.remove(f"{name}:1")
    (config / "config.json").unlink()
    return Reference.parse_familiar(tag)


async def pulls(supply: Supply, tag: Reference, login: Credentials | None = None) -> bool:
    """Whether it can be pulled; it is removed again."""
    image, _ = await supply.pull(tag, login=login)
    await supply.remove(str(image.id), force=True)
    return True


async def test_the_login_is_found_where_docker_keeps_it(
    supply: Supply, stored: Reference, private: str, config: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level(logging.DEBUG)
    with pytest.raises(ImageError, match="docker login"):
        await supply.pull(stored)
    write(config, auths={f"http://{private}/v1/": {"auth": AUTH}})
    assert await pulls(supply, stored)
    write(config, auths={"other.example": {"auth": AUTH}})
    with pytest.raises(ImageError, match="docker login"):
        await supply.pull(stored)
    assert await pulls(supply, stored, Credentials(USER, PASSWORD))

    answer = json.dumps({"ServerURL": private, "Username": USER, "Secret": PASSWORD})
    helper(
        tmp_path,
        monkeypatch,
        f"read server; test $1 = get && test $server = {private} || exit 3\necho '{answer}'",
    )
    for content in ({"credHelpers": {private: "test"}}, {"credsStore": "test"}):
        write(config, **content)
        assert await pulls(supply, stored)
    assert PASSWORD not in caplog.text
    assert AUTH not in caplog.text


async def test_a_build_starts_from_a_private_image_with_the_login_that_docker_has(
    supply: Supply, stored: Reference, private: str, name: str, config: Path, tmp_path: Path
) -> None:
    (tmp_path / "Dockerfile").write_text(
        f"ARG FROM={private.partition(':')[0]}\nFROM $FROM:{private.partition(':')[2]}/{name}:1\n"
        f"COPY --from={stored} /who /again\n"
    )
    with pytest.raises(ImageError, match=rf"{private} was asked without a login.*docker login"):
        await supply.build(tmp_path)
    wrong = f"wrong {secrets.token_hex(12)}"
    write(config, auths={private: {"username": USER, "password": wrong}})
    with pytest.raises(ImageError, match=f"{private} was asked as {USER}") as caught:
        await supply.build(tmp_path)
    assert wrong not in json.dumps(caught.value.to_dict()) + repr(caught.value)
    write(config, auths={private: {"auth": AUTH}})
    built = await supply.build(tmp_path)
    write(config, credsStore="there-is-none")
    again = await supply.build(tmp_path)
    assert again.id == built.id
    await supply.remove(str(built.id), force=True)
    await supply.remove(str(stored))


async def test_a_login_that_is_refused_is_in_no_error(
    supply: Supply, stored: Reference, private: str, config: Path
) -> None:
    wrong = f"wrong {secrets.token_hex(12)}"
    write(config, auths={private: {"username": USER, "password": wrong}})
    with pytest.raises(SandboxError) as caught:
        await supply.pull(stored)
    assert isinstance(caught.value, ImageError)
    assert wrong not in json.dumps(caught.value.to_dict()) + repr(caught.value)
    assert USER in caught.value.message
    assert not caught.value.retryable


def test_the_verb_takes_a_password_from_standard_input(
    private: str, name: str, rootfs: Path, config: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    import io

    tag = f"{private}/{name}:1"
    assert run(["image", "import", str(rootfs), "--tag", f"{name}:1"]) == 0
    write(config, auths={private: {"auth": AUTH}})
    push(f"{name}:1", tag, config)
    (config / "config.json").unlink()
    assert run(["image", "pull", tag]) == 125
    assert run(["image", "pull", tag, "--username", USER]) == 125
    assert "--password-stdin" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin", io.StringIO(PASSWORD + "\n"))
    assert run(["image", "pull", tag, "--username", USER, "--password-stdin"]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith(f"{tag}@sha256:")
    assert PASSWORD not in captured.out + captured.err
