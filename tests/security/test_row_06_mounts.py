"""Row 6: what gives the host away is never bound, whatever name it goes by and whenever it changes."""

import os
import socket
from pathlib import Path
from typing import Any

import pytest

import ringfence
from ringfence import Repository
from ringfence.errors import InvalidSpecError, PolicyDeniedError, SandboxError
from ringfence.workspace import sources

from .conftest import BOTH, DOCKER, PROCESS, keywords

pytestmark = pytest.mark.asyncio(loop_scope="module")

GIVEN_AWAY = [
    "/", "//", "/etc", "/etc/shadow", "/proc", "/proc/self/root", "/sys", "/dev",
    "/dev/null", "/run", "/var/run", "/var/run/docker.sock", "/var/lib/docker", "/var", "/var/lib",
    "~", "/home/../etc", "/boot",
]  # fmt: skip
WHERE = pytest.mark.parametrize("kind", [DOCKER, PROCESS])


async def refused(kind: str, source: str | Path, **how: Any) -> None:
    mount = ringfence.Mount(source=str(source), destination="/host", **how)
    with pytest.raises((PolicyDeniedError, InvalidSpecError)):
        async with ringfence.open(**keywords(kind), mounts=[mount]):
            pass


@WHERE
@pytest.mark.parametrize("source", GIVEN_AWAY)
async def test_what_gives_the_host_away_is_never_bound(state: Path, kind: str, source: str) -> None:
    await refused(kind, source)


@WHERE
@pytest.mark.parametrize("target", ["/etc", "/var/run/docker.sock", "/", "/proc/self/root/etc"])
async def test_a_link_to_it_is_not_bound_either(
    state: Path, kind: str, mountable: Path, target: str
) -> None:
    (mountable / "data").symlink_to(target)
    await refused(kind, mountable / "data")


@WHERE
async def test_sockets_devices_and_fifos_are_not_bound(
    state: Path, kind: str, mountable: Path
) -> None:
    """A socket is a way to whoever listens, wherever it lies."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(mountable / "socket"))
        os.mkfifo(mountable / "fifo")
        for name in ("socket", "fifo"):
            await refused(kind, mountable / name)


@WHERE
async def test_ringfences_own_state_is_not_bound(state: Path, kind: str) -> None:
    await refused(kind, state)
    (state / "sandboxes").mkdir(exist_ok=True)
    await refused(kind, state / "sandboxes", read_only=False)


@pytest.mark.parametrize("mode", ["copy", "ro", "rw"])
@pytest.mark.parametrize("place", ["~/.ssh", "~/.config/gh", "~/.aws/sso", "~", "/home/other"])
async def test_a_repository_is_no_way_around_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, place: str
) -> None:
    """Credentials and whole homes are not shown as a repository either."""
    home = tmp_path / "home"
    for name in (".ssh", ".config/gh", ".aws/sso", "project"):
        (home / name).mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    if place.startswith("/home/"):
        assert sources._forbidden(Path(place), ()) is not None
        return
    with pytest.raises(PolicyDeniedError):
        sources.find(Repository(path=place, mode=mode), tmp_path / "scratch")
    assert sources.check_root("~/project") == home / "project"


@WHERE
@pytest.mark.parametrize("back", [False, True], ids=["stays", "and-back"])
async def test_a_source_swapped_after_the_check_does_not_open(
    state: Path, kind: str, mountable: Path, monkeypatch: pytest.MonkeyPatch, back: bool
) -> None:
    """Another sandbox with a writable mount above it could do that between check and mount."""
    from ringfence.sandbox import opening

    data, other = mountable / "data", mountable / "other"
    data.mkdir()
    other.mkdir()
    (other / "secret").write_text("x")
    create = opening._create

    async def swapped(*args: Any) -> Any:
        data.rename(mountable / "aside")
        data.symlink_to(other)
        try:
            return await create(*args)
        finally:
            if back:
                data.unlink()
                (mountable / "aside").rename(data)

    monkeypatch.setattr(opening, "_create", swapped)
    mount = ringfence.Mount(source=str(data), destination="/data")
    with pytest.raises(SandboxError):
        async with ringfence.open(**keywords(kind), mounts=[mount]):
            pass


@BOTH
async def test_no_socket_of_the_host_is_in_a_sandbox(box: ringfence.Sandbox) -> None:
    """Neither the daemon's nor the guest's own: its door is closed once the guest came."""
    found = await box.exec(shell="find / -xdev -type s 2>/dev/null; ls -A /.ringfence")
    assert b"sock" not in found.stdout
