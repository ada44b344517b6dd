"""Root file systems that are kept: whose image they are made of."""

from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from ringfence.backends.docker import rootfs

from .fakes import engine_that


@pytest.mark.parametrize("named", [{"RepoTags": ["evil:1"]}, {"RepoDigests": ["evil@sha256:1"]}])
async def test_an_image_cannot_say_that_it_is_a_fork(short: Path, named: dict[str, Any]) -> None:
    """By the labels of one: it named itself, or another image whose configuration it wanted."""
    labels = {"ringfence.step": "fork", "ringfence.base": "evil:1"}
    evil = {"Id": "sha256:e", "Config": {"Labels": labels}, "RepoTags": [], **named}
    committed: list[dict[str, Any]] = []
    removed: list[str] = []

    async def commit(request: web.Request) -> web.StreamResponse:
        committed.append(await request.json())
        return web.json_response({"Id": "sha256:f"})

    def answer(request: web.Request) -> Any:
        if request.method == "DELETE":
            removed.append(request.path)
            return web.Response(status=200)
        if request.path.endswith("/commit"):
            return commit(request)
        return web.json_response(evil if "evil" in request.path else [])

    async with engine_that(answer, short) as engine:
        assert await rootfs.branch(engine, "container", "evil:1") == "sha256:f"
        await rootfs.drop(engine, "evil:1")
    [made] = committed
    assert made["Labels"]["ringfence.base"] == "sha256:e"
    assert removed == []
