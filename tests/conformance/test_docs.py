"""The worked example of docs/conformance.md does what it says; test_every_example.py runs the others."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

import ringfence
from ringfence.guest import build

from ..conftest import missing, require_root

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page: str) -> list[str]:
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def defined(source: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(source, "example", "exec"), names)
    return names


async def test_the_backend_of_60_lines_runs_commands() -> None:
    """docs/conformance.md: a sandbox on it executes, spawns, and moves files."""
    require_root()
    if shutil.which("unshare") is None or not build.target().exists():
        missing("needs unshare and the guest: python -m ringfence.guest.build")
    example = next(block for block in blocks("conformance.md") if "class UnshareBackend" in block)
    assert len([line for line in example.splitlines() if line.strip()]) <= 80
    backend = defined(example)["UnshareBackend"]()
    async with ringfence.open(backend=backend) as sandbox:
        assert (await sandbox.exec(["echo", "hello"])).stdout == b"hello\n"
        async with sandbox.spawn(["cat"]) as process:
            await process.write(b"line\n")
            assert await process.stdout.readline() == b"line\n"
        assert await sandbox.files.exists("/etc/passwd")
        with pytest.raises(ringfence.UnsupportedError):
            await sandbox.pause()
    with pytest.raises(ringfence.UnsupportedError, match="memory"):
        await ringfence.open(backend=backend, limits={"memory": "1g"})
