"""Real programs in real sandboxes reach what the allowlist names, and nothing else."""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import ringfence
from ringfence.events import EgressDecided
from tests.conftest import on_process, require_bwrap, require_docker, require_root
from tests.images import DEBIAN

from .internet import Site, site

BACKENDS = [
    pytest.param({"image": DEBIAN, "backend": "docker"}, marks=pytest.mark.docker, id="docker"),
    pytest.param({"backend": "process"}, marks=pytest.mark.process, id="process"),
]


@pytest.fixture
def public(tmp_path: Path) -> Iterator[Site]:
    require_root()
    directory = tmp_path / "public"
    directory.mkdir()
    (directory / "hello.txt").write_text("hello\n")
    with site(directory) as found:
        yield found


@pytest.fixture(params=BACKENDS)
def place(request: pytest.FixtureRequest, state_directory: Path) -> dict[str, Any]:
    if request.param["backend"] == "docker":
        require_docker(DEBIAN)
        return dict(request.param)
    return on_process()


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch, public: Site) -> dict[str, list[str]]:
    """What the host's resolver says, changed by tests."""
    known = {"good.test": [public.address], "other.test": [public.address]}

    async def resolve(host: str, port: int) -> Sequence[str]:
        if host not in known:
            raise OSError(f"{host}: no such name")
        return known[host]

    monkeypatch.setattr("ringfence.network.proxy.resolve", resolve)
    return known


@asynccontextmanager
async def opened(
    place: dict[str, Any], *, options: dict[str, Any] | None = None, **network: Any
) -> AsyncIterator[ringfence.Sandbox]:
    network = {"mode": "proxy", **network}
    async with ringfence.open(network=network, **place, **(options or {})) as sandbox:
        yield sandbox


async def out(sandbox: ringfence.Sandbox, *args: str) -> tuple[int | None, str]:
    result = await sandbox.exec(args, timeout=60)
    return result.exit_code, (result.stdout + result.stderr).decode()


GET = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=20).read())"


async def test_a_listed_host_is_reached_and_another_is_not(
    place: dict[str, Any], names: dict[str, list[str]], public: Site
) -> None:
    async with opened(place, allow=["good.test"]) as sandbox:
        code, text = await out(sandbox, "python3", "-c", GET, "http://good.test/hello.txt")
        assert (code, text) == (0, "b'hello\\n'\n")
        code, text = await out(sandbox, "python3", "-c", GET, "http://other.test/hello.txt")
        assert code == 1
        assert "403" in text
        assert [path for path, _ in public.seen] == ["/hello.txt"]
        decisions = [(e.host, e.allowed) for e in sandbox.history if isinstance(e, EgressDecided)]
        assert decisions == [("good.test", True), ("other.test", False)]
        assert sandbox.network.received > 0


async def test_rules_change_in_a_running_sandbox(
    place: dict[str, Any], names: dict[str, list[str]]
) -> None:
    async with opened(place) as sandbox:
        ask = ("python3", "-c", GET, "http://good.test/hello.txt")
        assert (await out(sandbox, *ask))[0] == 1
        sandbox.network.allow(["good.test"])
        assert (await out(sandbox, *ask))[0] == 0
        sandbox.network.allow([])
        assert (await out(sandbox, *ask))[0] == 1


DETACHED = {"detached": True, "lifetime": 120}
SQUAT = """
import socket, time
print("trying", flush=True)
while True:
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        one.bind(("127.0.0.1", 3128))
        one.listen()
        print("taken", flush=True)
        time.sleep(600)
    except OSError:
        one.close()
        time.sleep(0.01)
"""


async def test_no_command_takes_the_proxy_s_port_while_nobody_holds_the_sandbox(
    place: dict[str, Any], names: dict[str, list[str]], public: Site
) -> None:
    """It would keep the sandbox from being opened again, or be taken for the proxy inside."""
    async with opened(place, allow=["good.test"], options=DETACHED) as sandbox:
        process = await sandbox.spawn(["python3", "-c", SQUAT], hold=True)
        assert await process.stdout.readline() == b"trying\n"
    await asyncio.sleep(0.5)
    async with ringfence.open(id=sandbox.id) as again:
        get = ("python3", "-c", GET, "http://good.test/hello.txt")
        assert await out(again, *get) == (0, "b'hello\\n'\n")
        held = await again.attach(process.id)
        held.kill()
        assert await held.stdout.read_all() == b"trying\n"
        await again.delete()


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "192.168.0.1"])
async def test_a_listed_name_that_leads_to_a_private_address_is_refused(
    place: dict[str, Any], names: dict[str, list[str]], address: str
) -> None:
    names["good.test"] = [address]
    async with opened(place, allow=["good.test"]) as sandbox:
        code, text = await out(sandbox, "python3", "-c", GET, "http://good.test/")
        assert code == 1
        assert "403" in text


async def test_without_the_proxy_there_is_no_way_out(
    place: dict[str, Any], names: dict[str, list[str]], public: Site
) -> None:
    """No interface but lo, no route, no resolver; what the variables say does not matter."""
    direct = (
        "import socket, sys\n"
        "print([name for _, name in socket.if_nameindex()])\n"
        "s = socket.socket(); s.settimeout(5)\n"
        "print(s.connect_ex((sys.argv[1], 80)))\n"
    )
    async with opened(place, allow=["good.test"]) as sandbox:
        code, text = await out(sandbox, "python3", "-c", direct, public.address)
        assert code == 0
        interfaces, error = text.splitlines()
        assert interfaces == "['lo']"
        assert int(error) != 0
    assert public.seen == []


def publish_git_and_index(directory: Path, repository: Path) -> None:
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(repository)]
    subprocess.run(["git", "init", "-q", str(repository)], check=True)
    (repository / "f").write_text("content\n")
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "one"], check=True)
    bare = directory / "r.git"
    subprocess.run(["git", "clone", "-q", "--bare", str(repository), str(bare)], check=True)
    subprocess.run(["git", "-C", str(bare), "update-server-info"], check=True)
    index = directory / "simple" / "nothing"
    index.mkdir(parents=True)
    (index / "index.html").write_text('<a href="/nothing-1.0.tar.gz">nothing-1.0.tar.gz</a>')


async def test_curl_git_and_pip_work_through_it(
    place: dict[str, Any], names: dict[str, list[str]], public: Site, tmp_path: Path
) -> None:
    publish_git_and_index(public.directory, tmp_path / "work")
    async with opened(place, allow=["good.test"]) as sandbox:
        assert await out(sandbox, "curl", "-sS", "http://good.test/hello.txt") == (0, "hello\n")
        clone = ("git", "clone", "-q", "http://good.test/r.git", "/tmp/r")
        assert await out(sandbox, *clone) == (0, "")
        assert await out(sandbox, "cat", "/tmp/r/f") == (0, "content\n")
        pip = ("python3", "-m", "pip", "index", "versions", "nothing", "--disable-pip-version-check",
               "--index-url", "http://good.test/simple", "--trusted-host", "good.test")  # fmt: skip
        await out(sandbox, *pip)
    assert "/simple/nothing/" in [path for path, _ in public.seen]


async def test_a_secret_is_added_outside_and_never_seen_inside(
    place: dict[str, Any], names: dict[str, list[str]], public: Site
) -> None:
    secrets = [{"host": "good.test", "value": "Bearer hidden", "tls": False}]
    async with opened(place, allow=["good.test"], secrets=secrets) as sandbox:
        assert (await out(sandbox, "python3", "-c", GET, "http://good.test/hello.txt"))[0] == 0
        code, text = await out(sandbox, "sh", "-c", "env; cat /proc/[0-9]*/environ 2>/dev/null")
        assert code is not None
        assert "hidden" not in text
    [(_, headers)] = public.seen
    assert headers["Authorization"] == "Bearer hidden"


async def test_a_published_port_leads_to_a_server_inside(place: dict[str, Any]) -> None:
    async with ringfence.open(network={"ports": [8000]}, **place) as sandbox:
        serve = ["python3", "-m", "http.server", "8000", "--bind", "127.0.0.1"]
        async with sandbox.spawn(serve, cwd="/tmp"):
            answer = b""
            for _ in range(200):
                try:
                    reader, writer = await asyncio.open_connection(
                        "127.0.0.1", sandbox.network.ports[8000]
                    )
                    writer.write(b"GET / HTTP/1.0\r\n\r\n")
                    answer = await asyncio.wait_for(reader.read(), 20)
                    writer.close()
                except OSError:
                    answer = b""
                if answer:
                    break
                await asyncio.sleep(0.1)
            assert answer.startswith(b"HTTP/1.0 200 OK")


async def test_a_network_that_a_backend_has_not_is_refused_before_the_start(
    state_directory: Path,
) -> None:
    require_bwrap()
    with pytest.raises(ringfence.SandboxError, match=r"bridge|network\.mode"):
        async with ringfence.open(
            backend="process", profile="permissive", network={"mode": "bridge"}
        ):
            pass
