"""A snapshot of a sandbox that does not come about leaves nothing in the store."""

import asyncio
import errno
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ringfence.digest import Descriptor, Digest
from ringfence.digest.store import Store, StoreInvalid
from ringfence.digest.store.manifest import LAYER, put_image
from ringfence.errors import NotFoundError, ResourceExhaustedError, StateError
from ringfence.sandbox import snapshots
from ringfence.sandbox.context import Context
from ringfence.sandbox.workspace import Workspace
from ringfence.workspace import Snapshot
from tests.unit.workspace.conftest import Make, make, repository  # noqa: F401 - fixtures

CONFIG = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}


class Root:
    """An instance whose root file system is one layer."""

    async def commit(
        self, store: Store, annotations: Mapping[str, str], made: list[Digest]
    ) -> Descriptor:
        layer = store.put(b"a layer")
        made.append(layer)
        return put_image(store, CONFIG, [Descriptor(LAYER, layer, 7)], annotations, made)


@pytest.fixture
def context() -> Context:
    return cast(Context, SimpleNamespace(life=SimpleNamespace(instance=Root())))


def kept(state: Path) -> tuple[list[str], int]:
    store = Store(state / "store")
    return list(store.tags()), len(list(store.walk()))


@pytest.mark.parametrize("step", ["_joined", "find"])
async def test_one_that_is_cancelled_at_its_end_is_taken_back(
    context: Context, state_directory: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    begun, go = threading.Event(), threading.Event()
    plain = getattr(snapshots, step)

    def slow(*args: Any) -> Any:
        begun.set()
        go.wait(60)
        return plain(*args)

    with monkeypatch.context() as patched:
        patched.setattr(snapshots, step, slow)
        task = asyncio.create_task(snapshots.keep_whole(context, None))
        await asyncio.to_thread(begun.wait, 60)
        task.cancel()
        await asyncio.wait([task], timeout=0.2)
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert kept(state_directory) == ([], 0)
    made = await snapshots.keep_whole(context, None)
    assert kept(state_directory) == ([snapshots.name_of(made.digest)], 3)


async def test_one_that_was_there_before_stays(
    context: Context, state_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same state has the same digest."""
    made = await snapshots.keep_whole(context, None)

    def broken(*_: object) -> None:
        raise StateError("no")

    monkeypatch.setattr(snapshots, "find", broken)
    with pytest.raises(StateError):
        await snapshots.keep_whole(context, None)
    assert kept(state_directory) == ([snapshots.name_of(made.digest)], 3)


async def test_one_that_has_no_name_yet_is_taken_back_without_a_look_at_the_names(
    context: Context, state_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise StateError("no")

    def tags(_store: Store) -> None:
        raise StoreInvalid("names are read")

    with monkeypatch.context() as patched:
        patched.setattr(snapshots, "_joined", broken)
        patched.setattr(Store, "tags", tags)
        with pytest.raises(StateError, match=r"^no$"):
            await snapshots.keep_whole(context, None)
    assert kept(state_directory) == ([], 0)


@pytest.mark.parametrize(("step", "before"), [("label", False), ("tag", False), ("tag", True)])
async def test_a_workspaces_that_is_cancelled_is_taken_back_if_it_is_new(
    repository: Path,  # noqa: F811
    make: Make,  # noqa: F811
    state_directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    before: bool,
) -> None:
    workspace = Workspace(make(repository))
    if before:
        await workspace.snapshot()
    there = kept(state_directory)
    begun, go = threading.Event(), threading.Event()
    plain = getattr(Store, step)

    def slow(*args: Any) -> Any:
        begun.set()
        go.wait(60)
        return plain(*args)

    with monkeypatch.context() as patched:
        patched.setattr(Store, step, slow)
        task = asyncio.create_task(workspace.snapshot())
        await asyncio.to_thread(begun.wait, 60)
        task.cancel()
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert kept(state_directory) == there
    made = await workspace.snapshot()
    assert kept(state_directory)[0] == [snapshots.name_of(made.digest)]


@pytest.mark.parametrize("what", ["workspace", "root", "both"])
async def test_a_disk_that_is_full_at_any_step_is_told_and_nothing_stays(
    context: Context,
    repository: Path,  # noqa: F811 - a fixture
    make: Make,  # noqa: F811 - a fixture
    state_directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
) -> None:
    prepared = None if what == "root" else make(repository)
    place = snapshots.snapshots()
    real, left = os.fsync, 0

    def fsync(descriptor: int) -> None:
        nonlocal left
        place = Path(f"/proc/self/fd/{descriptor}").readlink()
        left -= place.parent.name != "blobs"  # what was renamed into one of these is there
        if left == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    async def keep() -> Snapshot:
        if what == "workspace":
            assert prepared is not None
            return await snapshots.keep_workspace(prepared, place)
        return await snapshots.keep_whole(context, prepared)

    monkeypatch.setattr(os, "fsync", fsync)
    for step in range(1, 100):
        left = step
        try:
            made = await keep()
        except ResourceExhaustedError:
            assert kept(state_directory) == ([], 0), step
        else:
            break
    assert step > 5
    assert kept(state_directory)[0] == [snapshots.name_of(made.digest)]


@pytest.mark.parametrize("taken_out", [False, True])
async def test_a_damaged_one_can_be_removed(
    context: Context, state_directory: Path, taken_out: bool
) -> None:
    """Whether its manifest is there or `scrub` took it out: else nothing is collected any more."""
    made = await snapshots.keep_whole(context, None)
    store = Store(state_directory / "store")
    blob = store.blob_path(made.digest)
    blob.chmod(0o600)
    blob.write_bytes(b"{}")
    if taken_out:
        assert [found.moved for found in store.scrub(move=True)] == [True, False]
    with pytest.raises(StoreInvalid):
        store.gc(grace=0)
    await snapshots.delete_snapshot(made.digest)
    store.gc(grace=0)
    assert kept(state_directory) == ([], 0)
    with pytest.raises(NotFoundError):
        await snapshots.delete_snapshot(made.digest)
