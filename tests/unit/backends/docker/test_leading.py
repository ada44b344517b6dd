"""What an Engine says of the links of an image."""

import base64
import json
from pathlib import Path

import pytest
from aiohttp import web

from ringfence.backends.docker import leading
from ringfence.errors import BackendUnavailableError, PolicyDeniedError

from .fakes import engine_that

HEADER = "X-Docker-Container-Path-Stat"
LINK = {"mode": 1 << 27, "linkTarget": "/dev"}


def said(value: object) -> str:
    return base64.b64encode(json.dumps(value).encode()).decode()


async def check(directory: Path, headers: dict[str, str]) -> None:
    async with engine_that(lambda _: web.Response(headers=headers), directory) as engine:
        await leading.check(engine, "c1", ["/workspace"], ["/workspace"])


async def test_a_link_over_what_is_lent_is_refused(tmp_path: Path) -> None:
    await check(tmp_path, {HEADER: said({"mode": 0o755, "linkTarget": ""})})
    with pytest.raises(PolicyDeniedError, match="is a link to '/dev'"):
        await check(tmp_path, {HEADER: said(LINK)})


@pytest.mark.parametrize(
    "text",
    ["", "%%%", said(LINK)[:-3], said([]), said(7), said({}), said({"mode": 1 << 27}),
     said({"mode": "l"}), base64.b64encode(b"{").decode(), base64.b64encode(b"\xff").decode(),
     "%" + said({"mode": 0o755}), said({"mode": 0o755}) + "%"],
)  # fmt: skip
async def test_an_answer_that_says_something_else_is_the_engines_fault(
    tmp_path: Path, text: str
) -> None:
    """As of a proxy that drops headers; nothing is mounted by it."""
    with pytest.raises(BackendUnavailableError, match=f"{HEADER} is") as caught:
        await check(tmp_path, {HEADER: text} if text else {})
    assert (caught.value.op, caught.value.context) == ("create", {"path": "/workspace"})
