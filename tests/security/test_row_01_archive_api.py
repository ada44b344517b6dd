"""Row 1, CVE-2018-15664 and its like: no copy interface of the engine touches a running container."""

from pathlib import Path

import pytest

import ringfence

from .conftest import keywords
from .relay import relay

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="module")]


async def test_files_and_commands_call_nothing_of_the_engine(state: Path, tmp_path: Path) -> None:
    """Between the start and the end all goes over the guest's stream: the wire shows no request."""
    seen: list[str] = []
    options = keywords("docker")
    async with (
        relay(tmp_path, lambda body: None, seen) as endpoint,
        ringfence.open(**options, endpoint=endpoint) as sandbox,
    ):
        started = len(seen)
        (tmp_path / "tree").mkdir()
        (tmp_path / "tree" / "file").write_text("x")
        await sandbox.files.write("/tmp/a", b"1")
        await sandbox.files.read("/tmp/a")
        await sandbox.files.upload(tmp_path / "tree", "/tmp/tree")
        await sandbox.files.download("/tmp/tree", tmp_path / "back")
        await sandbox.files.remove("/tmp/tree", recursive=True)
        await sandbox.exec(["true"])
        during = seen[started:]
    assert any("/containers/create" in line for line in seen)
    assert [line for line in during if "/exec" in line] == []
    for word in ("/archive", "/copy", "/export", "/exec"):
        assert [line for line in seen if word in line.split("?")[0]] == []
