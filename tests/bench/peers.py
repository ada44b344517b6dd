"""Beside other people's sandboxes: the first command done, and a further one.

Each peer of the package index runs in a process of its own environment (scripts/bench_peers); one
that is not there is left out. All are measured in turn, round after round.
"""

import asyncio
import json
import statistics
import subprocess
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiodocker

import ringfence
from tests.bench import engine
from tests.bench.measure import Line
from tests.bench.process import BWRAP

PYTHON = Path(".cache/peers/bin/python")
IMAGE = "ringfence-test/debian"
OURS = "ringfence, process"
FURTHER = 10
Times = tuple[float, float]

_HEAD = """
import json, statistics, time
def report(first, further):
    times = []
    begin = time.perf_counter(); first(); one = time.perf_counter() - begin
    for _ in range({further}):
        begin = time.perf_counter(); further(); times.append(time.perf_counter() - begin)
    print(json.dumps([one, statistics.median(times)]))
""".replace("{further}", str(FURTHER))

SCRIPTS = {
    "docker-py": """
import docker
client = docker.from_env()
held = []
def first():
    held.append(client.containers.run("IMAGE", ["sleep", "600"], detach=True, network_mode="none"))
    further()
def further():
    assert held[0].exec_run(["true"]).exit_code == 0
report(first, further)
held[0].remove(force=True)
""",
    "llm-sandbox": """
from llm_sandbox import SandboxSession
session = SandboxSession(lang="python", image="IMAGE", keep_template=True, skip_environment_setup=True,
                         runtime_configs={"network_mode": "none", "command": ["sleep", "600"]})
def first():
    session.open()
    further()
def further():
    assert session.execute_command("true").exit_code == 0
report(first, further)
session.container.remove(force=True)
""",
    "sandlock": """
from sandlock import Sandbox
sandbox = Sandbox(fs_readable=["/usr", "/lib", "/lib64", "/bin", "/etc"])
def further():
    assert sandbox.run(["/bin/true"]).exit_code == 0
report(further, further)
""",
}


async def measure(rounds: int) -> list[Line]:
    rounds = rounds or 5
    peers: dict[str, Callable[[], Awaitable[Times]]] = {
        OURS: lambda: _ours(backend="process"),
        "ringfence, docker": lambda: _ours(image=IMAGE),
        "bwrap per command": _bwrap,
        "docker run": _docker_run,
        "Engine API (aiodocker)": _engine,
    }
    for name, script in SCRIPTS.items():
        if PYTHON.exists():
            peers[name] = lambda script=script: _elsewhere(script)
    found: dict[str, list[Times]] = {name: [] for name in peers}
    for _ in range(rounds):
        for name, peer in list(peers.items()):
            try:
                found[name].append(await peer())
            except (OSError, ValueError, AssertionError, subprocess.SubprocessError) as error:
                print(f"  {name} is left out: {error!s:.200}")
                del peers[name], found[name]
    return [*_lines("first command", 0, found), *_lines("further command", 1, found)]


def _lines(title: str, which: int, found: dict[str, list[Times]]) -> list[Line]:
    values = {name: statistics.median(one[which] for one in times) for name, times in found.items()}
    ours = values[OURS]
    ranked = sorted(values.items(), key=lambda pair: pair[1])
    return [
        Line(f"{title}: {name}", value * 1e3, "ms", value / ours, OURS, "", _good(name))
        for name, value in ranked
    ]


def _good(name: str) -> bool | None:
    return True if name.startswith("ringfence") else None


async def _ours(**keywords: str) -> Times:
    begin = time.perf_counter()
    async with ringfence.open(**keywords) as sandbox:  # type: ignore[arg-type]
        await sandbox.exec(["true"])
        return time.perf_counter() - begin, await _further(lambda: sandbox.exec(["true"]))


async def _further(one: Callable[[], Awaitable[object]]) -> float:
    times = []
    for _ in range(FURTHER):
        begin = time.perf_counter()
        await one()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


async def _command(*args: str) -> None:
    process = await asyncio.create_subprocess_exec(*args)
    assert await process.wait() == 0


async def _bwrap() -> Times:
    begin = time.perf_counter()
    await _command(*BWRAP)
    return time.perf_counter() - begin, await _further(lambda: _command(*BWRAP))


async def _docker_run() -> Times:
    args = ["docker", "run", "--rm", "--network", "none", IMAGE, "true"]
    begin = time.perf_counter()
    await _command(*args)
    first = time.perf_counter() - begin
    times = []
    for _ in range(2):
        begin = time.perf_counter()
        await _command(*args)
        times.append(time.perf_counter() - begin)
    return first, statistics.median(times)


async def _engine() -> Times:
    docker = aiodocker.Docker()
    begin = time.perf_counter()
    container = await engine.start(docker)
    try:
        await engine.execute(container, ["true"])
        first = time.perf_counter() - begin
        return first, await _further(lambda: engine.execute(container, ["true"]))
    finally:
        await engine.remove(container)
        await docker.close()


async def _elsewhere(script: str) -> Times:
    code = _HEAD + script.replace("IMAGE", IMAGE)
    process = await asyncio.create_subprocess_exec(
        str(PYTHON), "-c", code, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), 120)
    if process.returncode != 0:
        raise ValueError(err.decode("utf-8", "replace").strip().splitlines()[-1])
    first, further = json.loads(out.decode().splitlines()[-1])
    return first, further
