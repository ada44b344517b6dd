"""Containers that were never to start go when the client that made them was killed."""

import os
import time
from pathlib import Path
from typing import Any

from aiohttp import web

from ringfence.backends.docker import probing

from .fakes import engine_that

OLD = time.time() - 3600


def row(container: str, name: str, created: float = OLD, **labels: str) -> dict[str, Any]:
    named = {f"ringfence.{label}": text for label, text in labels.items()}
    return {"Id": container, "Names": [f"/{name}"], "Labels": named, "Created": int(created)}


def rows() -> list[dict[str, Any]]:
    return [
        row("probe", "ringfence-probe-abc", probe="probe-abc"),
        row("filling", "ringfence-guest-1-f00", volume="ringfence-guest-1"),
        row("young", "ringfence-probe-new", time.time(), probe="probe-new"),
        row("other", "somebody-s", probe="probe-abc", volume="ringfence-guest-1"),
        row("sandbox", "ringfence-abc", id="abc"),
        row("unlabelled", "None-1"),
        row("called so", "ringfence-None"),
        row("an image's volume", "web-1", volume="web"),
        row("an image's probe", "ringfence-registry", probe="registry"),
        row("an image's nothing", "ringfence-cache", probe="", volume=""),
        row("a longer name", "ringfence-probe-abcd", probe="probe-abc"),
        {"Id": "nameless", "Names": None, "Labels": None, "Created": 0},
    ]


async def test_old_ones_of_ours_are_removed_and_no_others(
    short: Path, state_directory: Path
) -> None:
    """An image's labels, which anybody sets, are not enough."""
    asked = []

    def answer(request: web.Request) -> web.StreamResponse:
        asked.append((request.method, request.path.rpartition("/")[2]))
        return web.json_response(rows() if request.method == "GET" else {})

    async with engine_that(answer, short) as engine:
        await probing.sweep(engine)
    assert asked == [("GET", "json"), ("DELETE", "probe"), ("DELETE", "filling")]


async def test_directories_of_old_probes_go_too(short: Path, state_directory: Path) -> None:
    for name in ("probe-old", "probe-new", "other"):
        (state_directory / name).mkdir()
    for name in ("probe-old", "other"):
        os.utime(state_directory / name, (OLD, OLD))
    async with engine_that(lambda request: web.json_response([]), short) as engine:
        await probing.sweep(engine)
    left = [
        name for name in ("probe-old", "probe-new", "other") if (state_directory / name).is_dir()
    ]
    assert left == ["probe-new", "other"]
