"""On gVisor's kernel: the proxy, a published port, a repository's copy, files and usage."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import ringfence
from ringfence.events import EgressDecided
from tests.conftest import require_gvisor, require_root
from tests.images import DEBIAN

from .internet import site

pytestmark = [pytest.mark.docker, pytest.mark.gvisor]

GET = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=60).read())"


@pytest.fixture
def place(state_directory: Path) -> dict[str, Any]:
    require_gvisor()
    return {
        "image": DEBIAN,
        "backend": "docker",
        "security": {"runtime": "runsc"},
        "limits": {"timeout": 120},
    }


async def test_the_proxy_lets_out_what_is_listed(
    place: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_root()
    (tmp_path / "hello.txt").write_text("hello\n")
    with site(tmp_path) as public:

        async def resolve(host: str, port: int) -> Sequence[str]:
            return [public.address]

        monkeypatch.setattr("ringfence.network.proxy.resolve", resolve)
        network = {"mode": "proxy", "allow": ["good.test"]}
        async with ringfence.open(network=network, **place) as sandbox:
            fetched = await sandbox.exec(["python3", "-c", GET, "http://good.test/hello.txt"])
            assert fetched.stdout == b"b'hello\\n'\n", fetched.stderr
            refused = await sandbox.exec(["python3", "-c", GET, "http://other.test/"])
            assert b"403" in refused.stderr
            seen = [(e.host, e.allowed) for e in sandbox.history if isinstance(e, EgressDecided)]
            assert seen == [("good.test", True), ("other.test", False)]


async def ask(port: int) -> bytes:
    """What a web server at a port of this machine answers; nothing while it does not."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /f HTTP/1.0\r\n\r\n")
        answer = await asyncio.wait_for(reader.read(), 30)
        writer.close()
    except OSError:
        return b""
    return answer


async def test_a_repository_is_worked_on_and_a_port_is_published(
    place: dict[str, Any], tmp_path: Path
) -> None:
    repository = tmp_path / "repository"
    repository.mkdir()
    (repository / "f").write_text("original\n")
    network = {"ports": [8000]}
    async with ringfence.open(
        network=network, repository={"path": str(repository)}, **place
    ) as sandbox:
        assert await sandbox.files.read("/workspace/f") == b"original\n"
        await sandbox.files.write("/workspace/f", b"changed\n")
        assert (await sandbox.exec(["cat", "/workspace/f"])).stdout == b"changed\n"
        assert "+changed" in (await sandbox.workspace.patch()).decode()
        serve = ["python3", "-m", "http.server", "8000", "--bind", "127.0.0.1"]
        async with sandbox.spawn(serve, cwd="/workspace"):
            answer = b""
            for _ in range(200):
                if answer := await ask(sandbox.network.ports[8000]):
                    break
                await asyncio.sleep(0.1)
            assert answer.startswith(b"HTTP/1.0 200 OK")
            assert answer.endswith(b"changed\n")
        usage = await sandbox.usage()
        assert usage.cpu_seconds is not None
        assert usage.cpu_seconds > 0
        assert usage.memory
    assert (repository / "f").read_text() == "original\n"
