"""Answers of the Engine that come as one JSON object a line: pulls, builds, imports."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from typing import IO, Any

from ringfence.backends.docker.engine import Engine
from ringfence.errors import ImageError

SECONDS = 1800.0
"""How long a pull, an import or a build may take, unless somebody says otherwise."""

LONGEST = 4 * 1024 * 1024
"""Bytes of the longest line that is taken."""


async def messages(
    engine: Engine,
    op: str,
    path: tuple[str, ...],
    query: Mapping[str, object],
    body: IO[bytes] | None = None,
    *,
    seconds: float,
    headers: Mapping[str, str] | None = None,
) -> AsyncIterator[dict[str, Any]]:
    """The JSON objects of an answer to a POST. ImageError for one that says what failed."""
    chunks = engine.stream(op, "POST", path, query, body, seconds=seconds, headers=headers)
    async with contextlib.aclosing(chunks):
        async for message in _objects(op, chunks):
            if "error" in message:
                words = " ".join(str(message["error"]).split())[:1000]
                raise ImageError(f"{op}: the Docker Engine says: {words}", op=op)
            yield message


async def _objects(op: str, chunks: AsyncIterator[bytes]) -> AsyncIterator[dict[str, Any]]:
    """JSON objects, one a line, out of chunks."""
    rest = b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > LONGEST:
            raise ImageError(f"{op}: the Engine's answer has no end of line", op=op)
        for line in filter(None, map(bytes.strip, lines)):
            yield _object(op, line)
    if rest.strip():
        yield _object(op, rest)


def _object(op: str, line: bytes) -> dict[str, Any]:
    try:
        data = json.loads(line)
    except ValueError:
        data = None
    if not isinstance(data, dict):
        raise ImageError(f"{op}: the Engine's answer is not JSON: {line[:100]!r}", op=op)
    return data
