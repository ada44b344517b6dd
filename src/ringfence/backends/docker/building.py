"""Builds by the classic builder, with the logins of the registries that they start from."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import IO, Any

from ringfence.backends.docker.engine import Engine
from ringfence.backends.docker.messages import messages
from ringfence.errors import ImageError, ImageNotFoundError, SandboxError
from ringfence.images import credentials
from ringfence.images.credentials import Credentials
from ringfence.images.dockerfile import bases

Logins = Mapping[str, Credentials]
"""By the registry's domain; one without anything where Docker has none."""


async def logins(engine: Engine, dockerfile: Path, arguments: Mapping[str, str]) -> Logins:
    """The logins for the images that a Dockerfile starts from and that the daemon has not.

    Those of no other registry: a Dockerfile is a stranger's. InvalidSpecError and ImageError as
    for a pull.
    """
    text = await asyncio.to_thread(dockerfile.read_text, "utf-8", "replace")
    found: dict[str, Credentials] = {}
    for reference in bases(text, arguments):
        if reference.domain in found:
            continue
        try:
            await engine.get("image", "images", reference.familiar(), "json")
        except ImageNotFoundError:
            login = await asyncio.to_thread(credentials.find, reference.domain)
            found[reference.domain] = login or Credentials()
    return found


async def build(
    engine: Engine, query: Mapping[str, object], body: IO[bytes], known: Logins, seconds: float
) -> AsyncIterator[dict[str, Any]]:
    """What the builder says. ImageError for a step that fails; no login is in an error."""
    step = ""
    try:
        async for message in messages(
            engine, "build", ("build",), query, body, seconds=seconds, headers=_headers(known)
        ):
            printed = str(message.get("stream") or "")
            step = printed if printed.startswith("Step ") else step
            yield message
    except SandboxError as error:
        text = error.message
        for login in known.values():
            text = login.redact(text)
        if isinstance(error, ImageError) and ("FROM " in step or "--from=" in step):
            text += "".join(f" ({domain} was asked {login.shown(domain)})"
                            for domain, login in known.items())  # fmt: skip
        raise type(error)(text, op=error.op, context=error.context) from None


def _headers(known: Logins) -> Mapping[str, str]:
    sent = {
        credentials.server_of(domain): login.sent(domain)
        for domain, login in known.items()
        if login != Credentials()
    }
    return {} if not sent else {
        "X-Registry-Config": base64.urlsafe_b64encode(json.dumps(sent).encode()).decode()
    }  # fmt: skip
