"""What is asked of a registry, through the daemon and with the registry's login.

A registry may send back what it was sent: no error that comes from here has the login in it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ringfence.backends.docker.engine import Engine
from ringfence.backends.docker.messages import messages
from ringfence.digest import Digest, DigestError
from ringfence.errors import ImageError, SandboxError
from ringfence.images import Reference
from ringfence.images.credentials import Credentials

_REFUSED = (401, 403)
_SECONDS = 60.0


async def resolve(engine: Engine, reference: Reference, login: Credentials) -> Digest:
    """The digest of the manifest that a tag stands for in its registry at this moment.

    ImageNotFoundError when it has none such, ImageError when it cannot be asked or refuses.
    """
    name = reference.with_tag().familiar()
    with _guarded(reference, login):
        answer = await engine.request(
            "pull",
            "GET",
            ("distribution", name, "json"),
            {},
            seconds=_SECONDS,
            headers=_headers(reference, login),
        )
        try:
            return Digest.parse(answer["Descriptor"]["digest"])
        except (KeyError, TypeError, DigestError) as error:
            raise ImageError(f"{name}: the registry names no digest: {error}", op="pull") from None


async def pull(
    engine: Engine, reference: Reference, digest: Digest, login: Credentials, seconds: float
) -> AsyncIterator[dict[str, Any]]:
    """Let the daemon pull one content; what it says meanwhile. Raises as `resolve` does."""
    query = {"fromImage": reference.familiar_name, "tag": str(digest)}
    headers = _headers(reference, login)
    with _guarded(reference, login):
        async for message in messages(
            engine, "pull", ("images", "create"), query, seconds=seconds, headers=headers
        ):
            yield message


def _headers(reference: Reference, login: Credentials) -> Mapping[str, str]:
    return {} if login == Credentials() else {"X-Registry-Auth": login.header(reference.domain)}


@contextmanager
def _guarded(reference: Reference, login: Credentials) -> Iterator[None]:
    """Raise what was raised without the login in it, and say as whom the registry was asked:
    engines answer a registry's refusal as they answer its failures."""
    try:
        yield
    except SandboxError as error:
        message = login.redact(error.message)
        kind = ImageError if error.context.get("status") in _REFUSED else type(error)
        if kind is ImageError:
            message += f" ({reference.domain} was asked {login.shown(reference.domain)})"
        raise kind(message, op=error.op, context=error.context) from None
