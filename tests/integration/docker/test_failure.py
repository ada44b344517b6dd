"""A create that fails or is cancelled leaves nothing; a daemon elsewhere or absent is no surprise."""

import asyncio
import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from ringfence.backends.base import Bind
from ringfence.backends.docker import DockerBackend, place, removal
from ringfence.backends.docker import backend as module
from ringfence.backends.docker.engine import Engine
from ringfence.backends.docker.place import fill_volume
from ringfence.errors import (
    AlreadyExistsError,
    BackendUnavailableError,
    InvalidSpecError,
    UnsupportedError,
)

from ...images import BUSYBOX
from .conftest import Make, assert_nothing_left, docker, greet, new_id, spec_of

pytestmark = pytest.mark.docker


POINTS = [("socket", op) for op in ("create", "start", "inspect")]
POINTS += [("stream", op) for op in ("create", "attach", "start", "inspect")]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("carrier", "op"), POINTS)
async def test_a_create_that_is_cancelled_leaves_nothing(
    backend: DockerBackend, carrier: str, op: str, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RINGFENCE_DOCKER_TRANSPORT", carrier)
    spec, sandbox_id = spec_of(), new_id()
    facts = await backend.facts(spec)
    hit = cancel_at(monkeypatch, op, when)
    task = asyncio.create_task(backend.create(spec, sandbox_id, facts))
    hit.append(task)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(hit) == 2, "the create never came to that point"
    assert_nothing_left(sandbox_id)
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize("op", ["volume", "create", "fill"])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_filling_the_guest_s_volume_can_be_cancelled(
    backend: DockerBackend, op: str, when: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    binary = tmp_path / "guest"
    binary.write_bytes(os.urandom(100))
    engine = backend._connected()
    hit = cancel_at(monkeypatch, op, when)
    task = asyncio.create_task(fill_volume(engine, BUSYBOX, binary))
    hit.append(task)
    with pytest.raises(asyncio.CancelledError):
        await task
    name = f"ringfence-guest-{hashlib.sha256(binary.read_bytes()).hexdigest()[:16]}"
    try:
        assert not docker("ps", "-aq", "--filter", f"label=ringfence.volume={name}")
        assert await fill_volume(engine, BUSYBOX, binary) == name
    finally:
        docker("volume", "rm", "-f", name)


async def test_filling_the_guest_s_volume_leaves_none_of_the_image_s(
    backend: DockerBackend, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The container for it, which is never started, has the volumes that its image declares."""
    binary, image = tmp_path / "guest", f"ringfence-test-{new_id()}"
    binary.write_bytes(os.urandom(100))
    volumes: list[str] = []
    original = place._remove

    async def remove(engine: Engine, container: str) -> None:
        mounts = (await engine.get("look", "containers", container, "json"))["Mounts"]
        volumes.extend(mount["Name"] for mount in mounts if mount["Destination"] == "/data")
        await original(engine, container)

    monkeypatch.setattr(place, "_remove", remove)
    container = docker("create", BUSYBOX, "true")
    docker("commit", "-c", "VOLUME /data", container, image)
    docker("rm", container)
    try:
        filled = await fill_volume(backend._connected(), image, binary)
        docker("volume", "rm", filled)
        [volume] = volumes
        assert docker("volume", "ls", "-q", "--filter", f"name={volume}") == ""
    finally:
        docker("rmi", image)


def cancel_at(monkeypatch: pytest.MonkeyPatch, op: str, when: str) -> list[Any]:
    """Cancel the task that is put into the list, once, around the Engine's operation `op`."""
    hit: list[Any] = []
    method = "hijack" if op == "attach" else "request"
    original = getattr(Engine, method)

    async def cancelling(self: Engine, named: str, *args: Any, **kwargs: Any) -> Any:
        wanted = named == op and len(hit) == 1
        if wanted and when == "before":
            hit[0].cancel()
            hit.append(op)
        answer = await original(self, named, *args, **kwargs)
        if wanted and when == "after":
            hit[0].cancel()
            hit.append(op)
        return answer

    monkeypatch.setattr(Engine, method, cancelling)
    return hit


async def test_a_create_cancelled_while_the_guest_is_awaited_leaves_nothing(
    backend: DockerBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RINGFENCE_DOCKER_TRANSPORT", "socket")
    waiting = asyncio.Event()

    async def forever(*args: object) -> None:
        waiting.set()
        await asyncio.Event().wait()

    monkeypatch.setattr("ringfence.backends.door.Door.accept", forever)
    spec, sandbox_id = spec_of(), new_id()
    task = asyncio.create_task(backend.create(spec, sandbox_id, await backend.facts(spec)))
    await asyncio.wait_for(waiting.wait(), 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert_nothing_left(sandbox_id)


async def test_a_guest_that_does_not_dial_is_reached_over_the_stream(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def forever(*args: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.delenv("RINGFENCE_DOCKER_TRANSPORT", raising=False)
    monkeypatch.setattr("ringfence.backends.door.Door.accept", forever)
    monkeypatch.setattr("ringfence.backends.docker.creation.GUEST_SECONDS", 0.5)
    place = await make()
    assert place.instance.record.transport == "stream"
    features = await place.backend.features()
    assert features.transports == ("stream",)


async def test_a_taken_id_is_refused_and_its_holder_lives(
    make: Make, backend: DockerBackend
) -> None:
    place = await make()
    record = place.instance.record
    with pytest.raises(AlreadyExistsError):
        await backend.create(record.spec, record.id, await backend.facts(record.spec))
    assert (await place.sh("echo alive")).stdout == b"alive\n"


async def test_a_bind_that_the_daemon_refuses_leaves_nothing(
    backend: DockerBackend, tmp_path: Path
) -> None:
    spec, sandbox_id = spec_of(), new_id()
    missing = Bind(str(tmp_path / "missing"), "/workspace")
    with pytest.raises(InvalidSpecError, match="missing"):
        await backend.create(spec, sandbox_id, await backend.facts(spec), binds=(missing,))
    assert_nothing_left(sandbox_id)


async def test_a_start_that_fails_leaves_nothing(backend: DockerBackend) -> None:
    # The kernel has no such setting in a network namespace of its own.
    spec = spec_of(security={"sysctls": {"net.ipv4.no_such_setting": "1"}})
    sandbox_id = new_id()
    with pytest.raises(UnsupportedError, match="start"):
        await backend.create(spec, sandbox_id, await backend.facts(spec))
    assert_nothing_left(sandbox_id)


async def test_no_daemon_is_unavailable_with_the_remedy(tmp_path: Path) -> None:
    backend = DockerBackend(f"unix://{tmp_path}/none.sock")
    with pytest.raises(BackendUnavailableError, match="systemctl start docker"):
        await backend.features()
    with pytest.raises(BackendUnavailableError):
        await backend.found({})
    await backend.aclose()


async def test_a_daemon_that_does_not_share_our_files_gets_the_guest_by_a_volume(
    make: Make, backend: DockerBackend, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def elsewhere(*args: object) -> bool:
        return False

    monkeypatch.delenv("RINGFENCE_DOCKER_TRANSPORT", raising=False)
    monkeypatch.setattr(module.DockerBackend, "_is_local", elsewhere)
    place = await make(detached=True, lifetime=120)
    record = place.instance.record
    kind, volume, writable = docker(
        "inspect", "-f", "{{range .Mounts}}{{.Type}} {{.Name}} {{.RW}}{{end}}", record.native
    ).split()
    assert (kind, writable) == ("volume", "false")
    assert volume.startswith("ringfence-guest-")
    assert record.transport == "stream"
    assert (await place.sh("echo there")).stdout == b"there\n"
    await place.session.close()
    place.instance = await backend.attach(place.instance.record)
    place.session = await greet(place.instance)
    facts = await backend.facts(record.spec)
    with pytest.raises(InvalidSpecError, match="share"):
        await backend.create(record.spec, new_id(), facts, binds=(Bind(str(tmp_path), "/w"),))
    await place.instance.delete()


async def test_whether_the_daemon_shares_our_files_is_found_by_trying(
    backend: DockerBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ringfence.backends.docker.machine._shares_mounts", lambda pid: False)
    before = docker("ps", "-aq", "--filter", "label=ringfence.probe")
    assert (await backend.facts(spec_of())).local
    for _ in range(100):  # a neighbour's probe lasts a moment
        after = docker("ps", "-aq", "--filter", "label=ringfence.probe")
        if set(after.split()) <= set(before.split()):
            return
        await asyncio.sleep(0.1)
    raise AssertionError("a probe was left")


async def test_a_removal_that_fails_leaves_nothing_open_and_is_done_by_the_next(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = await make()
    await place.instance.usage()  # its counters stay open
    cgroups = [one for one in open_files() if "/cgroup/" in one]
    assert cgroups

    async def fail(*_: object) -> None:
        raise BackendUnavailableError("the daemon is gone", op="delete")

    with monkeypatch.context() as patched:
        patched.setattr(removal, "remove", fail)
        with pytest.raises(BackendUnavailableError):
            await place.instance.delete()
    assert not set(cgroups) & set(open_files())


def open_files() -> list[str]:
    """What this process has open."""
    links = list(Path("/proc/self/fd").iterdir())
    return [str(link.readlink()) for link in links if os.path.lexists(link)]
