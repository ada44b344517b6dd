"""Row 5, CVE-2025-31133 and its like: an image's links turn no mount and no mask elsewhere."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import ringfence
from ringfence.backends.docker.endpoint import resolve
from ringfence.backends.docker.engine import Engine
from ringfence.backends.docker.place import fill_volume
from ringfence.errors import ImageError, NotFoundError, PolicyDeniedError, SandboxError
from tests.images import BUSYBOX, imported

from .conftest import DOCKER, GVISOR, keywords

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="module")]

LINKS = {
    "dev/null": "/proc/sysrq-trigger",
    "dev/console": "/proc/sysrq-trigger",
    "etc": "../../../../../etc",
    "workspace": "/proc/self/fd/7",
    "run": "../../../../run",
    "tmp": "/proc/1/root/tmp",
    ".ringfence": "../../../../var/tmp",
    "sys": "/proc",
}


@pytest.fixture(scope="module")
def hostile() -> Iterator[str]:
    """An image of links alone, made for this file."""
    keywords("docker")
    with imported(LINKS) as name:
        yield name


async def test_an_image_of_links_writes_nothing_on_the_host(
    hostile: str, state: Path, mountable: Path
) -> None:
    """It opens with every mount where it was asked for, or not at all."""
    places = [Path(p) for p in ("/etc", "/run", "/var/tmp")]
    before = [sorted(p.name for p in place.iterdir() if "guest" in p.name) for place in places]
    (mountable / "mark").write_text("x")
    mounts = [{"source": str(mountable), "destination": "/workspace/in"}]
    try:
        async with ringfence.open(
            image=hostile, backend="docker", mounts=mounts, user="1000:1000"
        ) as sandbox:
            assert sandbox.receipt.gaps == ()
            assert await sandbox.files.read("/workspace/in/mark") == b"x"
            with pytest.raises(SandboxError):
                await sandbox.files.read("/etc/hostname", user=0)
    except SandboxError:
        pass
    after = [sorted(p.name for p in place.iterdir() if "guest" in p.name) for place in places]
    assert after == before


VOLUMES = ["/.ringfence/run", "/.ringfence", "//x/../.ringfence/run/", "work", "/proc/self/attr"]


@pytest.fixture(params=VOLUMES)
def claiming(request: pytest.FixtureRequest) -> Iterator[str]:
    """An image that declares a volume where the guest finds its host, where runtimes confine what
    they start (CVE-2019-16884), or nowhere."""
    keywords("docker")
    with imported({}, f"VOLUME {request.param}") as name:
        yield name


@pytest.mark.parametrize("kind", [DOCKER, GVISOR])
async def test_an_image_has_no_volume_where_it_would_undo_something(
    claiming: str, kind: str, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The source of one was taken for the directory of the sandbox's socket and removed: without a
    name, the directory that the caller was in."""
    (tmp_path / "mine").write_text("x")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ImageError, match="volume"):
        async with ringfence.open(**{**keywords(kind), "image": claiming}):
            pass
    assert (tmp_path / "mine").read_text() == "x"


POISON = {
    ".ringfence/guest": b"not the guest",
    ".ringfence/complete": b"",
    ".ringfence/filled": b"",
}


@pytest.fixture
def poisoned() -> Iterator[str]:
    """An image that brings a guest of its own, where the guest of its sandbox is to be."""
    keywords("docker")
    with imported(POISON) as name:
        yield name


async def test_an_image_does_not_choose_the_guest_of_others(poisoned: str, tmp_path: Path) -> None:
    """An Engine puts what an image has at a new volume's place into it, and all sandboxes of a
    daemon elsewhere, and those under gVisor, share the guest's."""
    guest = tmp_path / "guest"
    guest.write_bytes(os.urandom(100))
    engine = Engine(resolve(None))
    volume = await fill_volume(engine, poisoned, guest)
    try:
        look = ["docker", "run", "--rm", "-v", f"{volume}:/v:ro", BUSYBOX, "cat", "/v/guest"]
        seen = subprocess.run(look, check=True, capture_output=True, timeout=60)
        assert seen.stdout == guest.read_bytes()
    finally:
        await engine.close()
        subprocess.run(["docker", "volume", "rm", volume], check=True, capture_output=True)


JOINING = {
    "etc/passwd": b"alice:x:1001:1001::/:/bin/sh\ncarol:x:1003:65501::/:/bin/sh\n",
    "etc/group": b"guest:x:65501:alice\nbeside:x:65502:\n",
}


@pytest.mark.parametrize("user", ["alice", "carol", "carol:beside"])
async def test_an_image_puts_nobody_into_a_group_of_the_guest(user: str, state: Path) -> None:
    """Neither the user of all commands nor that of one."""
    keywords("docker")
    with imported(JOINING) as name:
        with pytest.raises(PolicyDeniedError) as caught:
            async with ringfence.open(image=name, backend="docker", user=user):
                pass
        assert set(caught.value.context["controls"]) <= {"user", "groups"}
        async with ringfence.open(image=name, backend="docker") as sandbox:
            with pytest.raises(NotFoundError, match="reserved for the guest"):
                await sandbox.exec(["true"], user=user)
