"""Files in and out, against the archive API of the Engine on the same kind of container.

The small ones are written and read several times in a row, each round: a first one comes after
the archive API had the processor for a while, and waits for it and for its caches.
"""

import io
import statistics
import tarfile
import tempfile
import time
import tracemalloc
import urllib.parse
from collections.abc import Awaitable
from pathlib import Path

import aiodocker

import ringfence
from tests.bench import engine
from tests.bench.measure import Line, at_least, below, interleaved

SMALL = b"x" * 1024
LARGE = bytes(64 << 20)
ROW = 5


async def measure(rounds: int) -> list[Line]:
    rounds = rounds or 20
    docker = aiodocker.Docker()
    container = await engine.start(docker)
    limits = {"tmp": "300MiB", "memory": "1GiB"}
    try:
        async with ringfence.open(image=engine.IMAGE, limits=limits) as sandbox:
            small = await _small(sandbox, container, rounds)
            large = await _large(sandbox, container, max(3, rounds // 6))
            listing = await _listing(sandbox)
            streamed = await _memory(_stream(sandbox))
            downloaded = await _memory(_download(sandbox))
    finally:
        await engine.remove(container)
        await docker.close()
    return [*small, *large, below("listing 10,000 files", listing * 1e3, 100, "ms"),
            below("client memory of a 64 MiB stream", streamed, 16, "MiB"),
            below("client memory of a 64 MiB download", downloaded, 16, "MiB")]  # fmt: skip


async def _small(
    sandbox: ringfence.Sandbox, container: aiodocker.containers.DockerContainer, rounds: int
) -> list[Line]:
    await sandbox.files.write("/tmp/small", SMALL)
    await container.put_archive("/tmp", _archive("small", SMALL))
    times = await interleaved(
        {
            **{f"write {n}": lambda: sandbox.files.write("/tmp/small", SMALL) for n in range(ROW)},
            **{f"read {n}": lambda: sandbox.files.read("/tmp/small") for n in range(ROW)},
            "put": lambda: container.put_archive("/tmp", _archive("small", SMALL)),
            "get": lambda: _get(container, "/tmp/small"),
        },
        rounds,
    )
    write = statistics.median(times[f"write {n}"] for n in range(ROW))
    read = statistics.median(times[f"read {n}"] for n in range(ROW))
    return [
        at_least("write 1 KiB", write, times["put"], "archive API", 100),
        at_least("read 1 KiB", read, times["get"], "archive API", 100),
        below("write 1 KiB, p50", write * 1e3, 0.3, "ms"),
        below("read 1 KiB, p50", read * 1e3, 0.3, "ms"),
        at_least(
            "write 1 KiB, the first of a row", times["write 0"], times["put"], "archive API", 100
        ),
    ]


async def _large(
    sandbox: ringfence.Sandbox, container: aiodocker.containers.DockerContainer, rounds: int
) -> list[Line]:
    archive = _archive("large", LARGE)
    await sandbox.files.write("/tmp/large", LARGE)
    await container.put_archive("/tmp", archive)
    times = await interleaved(
        {
            "remove": lambda: sandbox.files.remove("/tmp/large"),
            "write": lambda: sandbox.files.write("/tmp/large", LARGE),
            "write over": lambda: sandbox.files.write("/tmp/large", LARGE),
            "read": lambda: sandbox.files.read("/tmp/large", max_bytes=None),
            "put": lambda: container.put_archive("/tmp", archive),
            "get": lambda: _get(container, "/tmp/large"),
        },
        rounds,
        warm=1,
    )
    return [
        at_least("write 64 MiB", times["write"], times["put"], "archive API", 5),
        at_least("write 64 MiB over it", times["write over"], times["put"], "archive API", 5),
        at_least("read 64 MiB", times["read"], times["get"], "archive API", 5),
    ]


async def _listing(sandbox: ringfence.Sandbox) -> float:
    script = "mkdir /tmp/many && cd /tmp/many && i=0; while [ $i -lt 10000 ]; do : > f$i; i=$((i+1)); done"
    (await sandbox.exec(shell=script, timeout=120)).check()
    best = float("inf")
    for _ in range(5):
        begin = time.perf_counter()
        count, cursor = 0, None
        while True:
            page = await sandbox.files.list("/tmp/many", limit=10_000, cursor=cursor)
            count += len(page.entries)
            cursor = page.cursor
            if cursor is None:
                break
        best = min(best, time.perf_counter() - begin)
        assert count == 10_000
    return best


async def _memory(moving: Awaitable[int]) -> float:
    """The most MiB of the client's that were in use at once."""
    tracemalloc.start()
    size = await moving
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert size == len(LARGE)
    return peak / 2**20


async def _stream(sandbox: ringfence.Sandbox) -> int:
    size = 0
    async with sandbox.files.open("/tmp/large") as reader:
        async for chunk in reader:
            size += len(chunk)
    return size


async def _download(sandbox: ringfence.Sandbox) -> int:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as place:
        return (await sandbox.files.download("/tmp/large", Path(place) / "large")).bytes


async def _get(container: aiodocker.containers.DockerContainer, path: str) -> int:
    quoted = urllib.parse.quote(path)
    size = 0
    address = f"containers/{container.id}/archive?path={quoted}"
    async with container.docker._query(address) as response:
        async for chunk in response.content.iter_chunked(1 << 18):
            size += len(chunk)
    return size


def _archive(name: str, data: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()
