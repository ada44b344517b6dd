"""Row 6: what gives the host away is never bound, whatever name it goes by and whenever it changes."""

import asyncio
import os
import socket
from pathlib import Path
from typing import Any

import pytest

import ringfence
from ringfence import Repository
from ringfence.errors import InvalidSpecError, PolicyDeniedError, SandboxError
from ringfence.workspace import sources

from ..conftest import give
from .conftest import BOTH, DOCKER, GVISOR, PROCESS, keywords

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


@pytest.mark.parametrize("kind", [DOCKER, PROCESS, GVISOR])
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
    os.utime(other, (1, 1))
    create, greet = opening._create, opening.greet

    async def swapped(*args: Any) -> Any:
        data.rename(mountable / "aside")
        data.symlink_to(other)
        return await create(*args)

    async def greeted(*args: Any, **kwargs: Any) -> Any:
        """On the process backend it is mounted only when the guest answers."""
        try:
            return await greet(*args, **kwargs)
        finally:
            if back:
                data.unlink()
                (mountable / "aside").rename(data)

    monkeypatch.setattr(opening, "_create", swapped)
    monkeypatch.setattr(opening, "greet", greeted)
    mount = ringfence.Mount(source=str(data), destination="/data")
    with pytest.raises(SandboxError):
        async with ringfence.open(**keywords(kind), mounts=[mount]):
            pass


@pytest.mark.parametrize("kind", [DOCKER, PROCESS, GVISOR])
async def test_a_source_that_is_in_use_is_mounted(state: Path, kind: str, mountable: Path) -> None:
    """So that the test above does not pass by refusing every one: files come while it opens."""
    written = asyncio.ensure_future(_write(mountable))
    try:
        mount = ringfence.Mount(source=str(mountable), destination="/data")
        async with ringfence.open(**keywords(kind), mounts=[mount]) as sandbox:
            assert (await sandbox.exec(["test", "-r", "/data/0"])).ok
    finally:
        written.cancel()
        await asyncio.gather(written, return_exceptions=True)


@WHERE
@pytest.mark.parametrize("mode", ["copy", "ro", "rw"])
async def test_links_of_the_operators_own_are_fine(
    tmp_path: Path, kind: str, mountable: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """To the state directory and to a repository: both are resolved once, when they are checked."""
    (tmp_path / "real").mkdir(mode=0o711)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    monkeypatch.setenv("RINGFENCE_STATE_DIR", str(tmp_path / "link"))
    (mountable / "tree").mkdir()
    (mountable / "tree" / "f").write_text("x")
    give(mountable / "tree")
    (mountable / "alias").symlink_to("tree")
    repository = Repository(path=str(mountable / "alias"), mode=mode)
    async with ringfence.open(**keywords(kind), repository=repository) as sandbox:
        assert (await sandbox.exec(["cat", "/workspace/f"])).stdout == b"x"
        await sandbox.exec(shell="echo y > /workspace/f")
        if mode == "copy":
            await sandbox.workspace.apply()
    assert (mountable / "tree" / "f").read_text() == ("x" if mode == "ro" else "y\n")
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
    assert list((tmp_path / "real" / "workspaces").glob("[!.]*")) == []


async def _write(directory: Path) -> None:
    for number in range(100_000):
        (directory / str(number)).touch()
        await asyncio.sleep(0.02)


@BOTH
async def test_no_socket_of_the_host_is_in_a_sandbox(box: ringfence.Sandbox) -> None:
    """Neither the daemon's nor the guest's own: its door is closed once the guest came."""
    found = await box.exec(shell="find / -xdev -type s 2>/dev/null; ls -A /.ringfence")
    assert b"sock" not in found.stdout


def far_away(mountable: Path, number: int) -> list[ringfence.Mount]:
    """As many mounts, each with a long line of its own in the kernel's table."""
    below = "/".join(["data", *["x" * 200] * 15])
    return [
        ringfence.Mount(source=str(mountable), destination=f"/{below}/{i}") for i in range(number)
    ]


@pytest.mark.parametrize("kind", [DOCKER, PROCESS, GVISOR])
async def test_all_of_many_mounts_are_shown_to_the_receipt(
    state: Path, kind: str, mountable: Path
) -> None:
    async with ringfence.open(**keywords(kind), mounts=far_away(mountable, 80)) as sandbox:
        table = await sandbox.files.read("/proc/self/mountinfo")
        assert len(table) > 128 * 1024
        assert sandbox.receipt.gaps == ()


@pytest.mark.parametrize("kind", [DOCKER, PROCESS])
async def test_more_mounts_than_a_receipt_reads_are_refused_as_that(
    state: Path, kind: str, mountable: Path
) -> None:
    with pytest.raises(PolicyDeniedError, match="more output than is kept"):
        async with ringfence.open(**keywords(kind), mounts=far_away(mountable, 400)):
            pass
