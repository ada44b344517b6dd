"""Logins of registries, where Docker keeps them: its config.json and credential helpers.

They are looked up for one registry at the moment of a pull or a build, sent to the daemon with
that, and kept nowhere. No message holds one: `redact` is for what a registry may send back.
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ringfence.errors import ImageError, InvalidSpecError
from ringfence.images.reference import DEFAULT_DOMAIN
from ringfence.policy.home import home

HUB = "https://index.docker.io/v1/"
"""What Docker calls the registry docker.io in its configuration."""
HELPER_SECONDS = 30.0
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_TOKEN_USER = "<token>"  # noqa: S105 - what helpers call the user of a token
_NOT_FOUND = b"credentials not found"
_LARGEST = 1024 * 1024
_SHORTEST_REDACTED = 4


@dataclass(frozen=True, slots=True)
class Credentials:
    """A name and a password, or an identity token in place of them. Nothing shows the secrets."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)

    def sent(self, domain: str) -> dict[str, str]:
        """What the Engine takes for the login of a registry."""
        data = {"serveraddress": server_of(domain)}
        if self.identity_token:
            return {**data, "identitytoken": self.identity_token}
        return {**data, "username": self.username, "password": self.password}

    def header(self, domain: str) -> str:
        """The text of the Engine's header X-Registry-Auth for a registry."""
        return base64.urlsafe_b64encode(json.dumps(self.sent(domain)).encode()).decode()

    def shown(self, domain: str) -> str:
        """As whom a registry is asked, for an error; without one, how to get one."""
        if self == Credentials():
            return f"without a login: if it wants one, docker login {domain}"
        return f"as {self.username or 'the owner of a token'}"

    def redact(self, text: str) -> str:
        """The text without the secrets, in none of the forms in which they are sent."""
        pair = f"{self.username}:{self.password}".encode()
        secrets = [self.password, self.identity_token]
        if self.password:
            secrets += [base64.b64encode(pair).decode(), base64.urlsafe_b64encode(pair).decode()]
        for secret in secrets:
            if len(secret) >= _SHORTEST_REDACTED:
                text = text.replace(secret, "***")
        return text


def find(domain: str, directory: Path | None = None) -> Credentials | None:
    """The login for a registry, None when there is none.

    directory: that of Docker's config.json; $DOCKER_CONFIG, else ~/.docker. A helper that is named
    for the registry, else one for all of them, else what is written there. InvalidSpecError when
    the file cannot be used, ImageError when a helper fails. It blocks, up to HELPER_SECONDS.
    """
    config = _read(directory or _directory())
    helpers = _mapping(config.get("credHelpers"))
    helper = helpers.get(server_of(domain)) or helpers.get(domain) or config.get("credsStore")
    if helper:
        return _ask(str(helper), server_of(domain))
    entries = _mapping(config.get("auths"))
    entry = entries.get(server_of(domain))
    if entry is None:
        host = _host(server_of(domain))
        entry = next((known for name, known in entries.items() if _host(name) == host), None)
    return None if entry is None else _stored(_mapping(entry), domain)


def _directory() -> Path:
    named = os.environ.get("DOCKER_CONFIG")
    return Path(named) if named else home() / ".docker"


def server_of(domain: str) -> str:
    """What Docker calls a registry where it keeps logins."""
    return HUB if domain == DEFAULT_DOMAIN else domain


def _host(name: str) -> str:
    """The host and port of what a registry may be called in the file."""
    return re.sub("^https?://", "", name).partition("/")[0]


def _read(directory: Path) -> Mapping[str, Any]:
    path = directory / "config.json"
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        raise InvalidSpecError(f"{path} cannot be read, or is not JSON", op="pull") from None
    return _mapping(data)


def _mapping(data: Any) -> Mapping[str, Any]:
    return data if isinstance(data, dict) else {}


def _stored(entry: Mapping[str, Any], domain: str) -> Credentials | None:
    token = str(entry.get("identitytoken") or "")
    name, password = str(entry.get("username") or ""), str(entry.get("password") or "")
    if entry.get("auth"):
        try:
            pair = base64.b64decode(str(entry["auth"]), validate=True).decode()
        except ValueError:  # no base64, no ASCII, or what is in it no text
            pair = ""
        name, colon, password = pair.partition(":")
        if not colon:
            raise InvalidSpecError(
                f"what Docker's config.json has for {domain} is no login: docker login {domain}",
                op="pull",
            )
        password = password.strip("\0")
    made = Credentials(name, password, token)
    return made if token or name else None


def _ask(helper: str, server: str) -> Credentials | None:
    program = f"docker-credential-{helper}"
    if not _HELPER.fullmatch(helper):
        raise InvalidSpecError(f"{helper[:80]!r} is not the name of a credential helper", op="pull")
    try:
        done = subprocess.run(
            [program, "get"],
            input=server.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            check=False,
            timeout=HELPER_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = "it takes too long" if not isinstance(error, OSError) else error.strerror
        raise ImageError(f"{program}: {reason}", op="pull") from None
    if done.returncode != 0 and _NOT_FOUND in done.stdout:
        return None
    answer = _answer(done.stdout) if done.returncode == 0 else None
    if answer is None:
        raise ImageError(
            f"{program} does not give the login for {server} (it ended with {done.returncode})",
            op="pull",
        )
    if answer[0] == _TOKEN_USER:
        return Credentials(identity_token=answer[1])
    return Credentials(*answer)


def _answer(output: bytes) -> tuple[str, str] | None:
    try:
        data = json.loads(output[:_LARGEST])
        return str(data["Username"]), str(data["Secret"])
    except (ValueError, KeyError, TypeError):
        return None
