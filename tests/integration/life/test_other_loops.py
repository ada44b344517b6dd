"""An event loop that is not asyncio's own: servers run on uvloop."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import require_bwrap, require_docker
from tests.images import BUSYBOX

pytest.importorskip("uvloop")

PROGRAM = """
import asyncio
import sys

import uvloop

import ringfence


async def main(backend, image):
    async with ringfence.open(backend=backend, image=image or None) as sandbox:
        result = await sandbox.exec(["cat"], stdin=b"x" * 3_000_000, output="4m")
        assert len(result.stdout) == 3_000_000, result
        await sandbox.files.write("/tmp/long", b"x" * 12_000_000)
        assert len(await sandbox.files.read("/tmp/long", max_bytes=None)) == 12_000_000
        task = asyncio.create_task(sandbox.exec(["sleep", "1000"]))
        await asyncio.sleep(0.2)
        task.cancel()
        await asyncio.wait([task])
        assert await sandbox.processes() == ()
        assert (await sandbox.exec(["sleep", "1000"], timeout=0.2)).reason == "timeout"


uvloop.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("backend", "image"),
    [
        ("mock", ""),
        pytest.param("process", "", marks=pytest.mark.process),
        pytest.param("docker", BUSYBOX, marks=pytest.mark.docker),
    ],
)
async def test_a_sandbox_lives_on_uvloop(backend: str, image: str, state_directory: Path) -> None:
    """Commands, long streams, long files, cancellation and timeouts."""
    if backend == "docker":
        require_docker(image)
    elif backend == "process":
        require_bwrap()
    command = [sys.executable, "-c", PROGRAM, backend, image]
    done = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
