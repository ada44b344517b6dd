"""An Engine that answers as a test says."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from aiohttp import web

from ringfence.backends.docker.endpoint import resolve
from ringfence.backends.docker.engine import Engine
from ringfence.backends.docker.images import Image
from ringfence.backends.docker.machine import Machine
from ringfence.policy.facts import ImageFacts

VERSION = {"Version": "20.10.24", "ApiVersion": "1.41", "MinAPIVersion": "1.12"}

MACHINE = Machine(
    engine="20.10.24",
    memory=2**34,
    cpus=4,
    nofile=2**20,
    cgroup_version=1,
    security=frozenset({"seccomp"}),
    runtimes=frozenset({"runc", "runsc"}),
    default_runtime="runc",
    limits=frozenset({"memory", "swap", "cpus", "cpuset", "cpu_shares", "pids", "tmp", "shm",
                      "run", "read_rate", "write_rate"}),
    root="/var/lib/docker",
    sized_root=False,
    same_kernel=True,
)  # fmt: skip

IMAGE = Image(ImageFacts("sha256:abc"), ())


def machine(**changes: object) -> Machine:
    """MACHINE with other values."""
    return replace(MACHINE, **changes)  # type: ignore[arg-type]


Answer = Callable[[web.Request], web.StreamResponse | Awaitable[web.StreamResponse]]


@asynccontextmanager
async def engine_that(
    answer: Answer, directory: Path, version: object = VERSION, *, ping: int = 200
) -> AsyncIterator[Engine]:
    """An Engine on a socket of its own; `answer` gets all but /version and /_ping. A version with
    "Libpod" in it is a Podman's. ping: the status of pings, which tell nothing unless it is 200."""
    newest = version.get("ApiVersion") if isinstance(version, dict) else None

    async def serve(request: web.Request) -> web.StreamResponse:
        if request.path == "/_ping" and ping != 200:
            return web.Response(status=ping)
        if request.path == "/_ping":
            headers = {"Api-Version": newest} if isinstance(newest, str) else {}
            if isinstance(version, dict) and "Libpod" in version:
                headers["Libpod-Api-Version"] = version["Libpod"]
            return web.Response(text="OK", headers=headers)
        if request.path == "/version":
            return web.json_response(version)
        answered = answer(request)
        return await answered if isinstance(answered, Awaitable) else answered

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", serve)
    runner = web.AppRunner(application)
    await runner.setup()
    socket = str(directory / "e.sock")
    await web.UnixSite(runner, socket).start()
    engine = Engine(resolve(f"unix://{socket}"))
    try:
        yield engine
    finally:
        await engine.close()
        await runner.cleanup()
