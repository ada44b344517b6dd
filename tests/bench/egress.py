"""Bytes through the guest and the proxy to a server in a network namespace, and one request's cost."""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import ringfence
from tests.bench.measure import Line, below
from tests.integration.network.internet import site

MIB = 200
GET = """
import sys, time, urllib.request
best = 9e9
for _ in range(int(sys.argv[2])):
    begin = time.perf_counter()
    with urllib.request.urlopen(sys.argv[1]) as answer:
        while answer.read(1 << 20): pass
    best = min(best, time.perf_counter() - begin)
print(best)
"""


async def measure(rounds: int) -> list[Line]:
    rounds = rounds or 10
    with tempfile.TemporaryDirectory() as name, site(Path(name)) as public:
        Path(name, "small").write_bytes(b"x")
        with Path(name, "large").open("wb") as file:
            file.truncate(MIB << 20)

        async def lookup(host: str, port: int) -> Sequence[str]:
            return [public.address]

        with mock.patch("ringfence.network.proxy.resolve", lookup):
            network = {"mode": "proxy", "allow": ["site.test"]}
            async with ringfence.open(backend="process", network=network) as sandbox:
                large = await _inside(sandbox, "large", 3)
                small = await _inside(sandbox, "small", rounds)
        direct = _direct(f"http://{public.address}/small", rounds)
    rate = MIB / large
    return [
        Line("rate through the proxy", rate, "MiB/s", None, "", "at least 200 MiB/s", rate >= 200),
        below("a request more than direct", (small - direct) * 1e3, 2, "ms"),
    ]


async def _inside(sandbox: ringfence.Sandbox, name: str, rounds: int) -> float:
    result = await sandbox.exec(
        ["python3", "-c", GET, f"http://site.test/{name}", str(rounds)], timeout=120
    )
    return float(result.check().stdout)


def _direct(url: str, rounds: int) -> float:
    import urllib.request

    best = float("inf")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for _ in range(rounds):
        begin = time.perf_counter()
        with opener.open(url) as answer:
            answer.read()
        best = min(best, time.perf_counter() - begin)
    return best
