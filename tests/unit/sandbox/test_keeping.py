"""A sandbox's file goes into a content store whole, or not at all."""

import hashlib
import threading
from pathlib import Path
from typing import Any

import pytest

import ringfence
from ringfence.backends.mock import MockBackend
from ringfence.digest.store import Ingest, Store
from ringfence.sandbox.extract import Caps

from .conftest import cancelled

DATA = bytes(range(256)) * 4096


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


async def test_a_file_becomes_a_blob_with_its_digest(store: Store) -> None:
    async with ringfence.open(backend=MockBackend()) as sandbox:
        await sandbox.files.write("/tmp/out", DATA)
        seen: list[int] = []
        moved = await sandbox.files.download(
            "/tmp/out", store=store, progress=lambda done, _: seen.append(done)
        )
        assert moved.digest == "sha256:" + hashlib.sha256(DATA).hexdigest()
        assert moved.bytes == seen[-1] == len(DATA)
        assert store.blob_path(moved.digest).read_bytes() == DATA
        assert store.info(moved.digest).labels["ringfence.path"] == "/tmp/out"
        again = await sandbox.files.download("/tmp/out", store=store)
        assert again.digest == moved.digest


async def test_what_cannot_be_read_or_is_too_large_leaves_no_blob(store: Store) -> None:
    async with ringfence.open(backend=MockBackend()) as sandbox:
        await sandbox.files.write("/tmp/out", DATA)
        with pytest.raises(ringfence.FileTooLargeError):
            await sandbox.files.download("/tmp/out", store=store, caps=Caps(bytes=1000))
        with pytest.raises(ringfence.PathNotFoundError):
            await sandbox.files.download("/tmp/none", store=store)
        with pytest.raises(ringfence.PathIsADirectoryError):
            await sandbox.files.download("/tmp", store=store)
    assert list(store.walk()) == []
    assert store.ingests() == {}


async def test_a_destination_or_a_store_not_both(store: Store, tmp_path: Path) -> None:
    async with ringfence.open(backend=MockBackend()) as sandbox:
        with pytest.raises(ringfence.InvalidSpecError, match="destination"):
            await sandbox.files.download("/tmp/out")
        with pytest.raises(ringfence.InvalidSpecError, match="destination"):
            await sandbox.files.download("/tmp/out", tmp_path / "x", store=store)


@pytest.mark.parametrize("step", ["ingest", "write", "commit"])
async def test_what_is_cancelled_in_any_step_leaves_no_blob_in_the_making(
    store: Store, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Nor is its file closed under the thread that writes it, whose number may be another's then."""
    begun, go, ended = threading.Event(), threading.Event(), threading.Event()
    owner = Store if step == "ingest" else Ingest
    plain = getattr(owner, step)

    def slow(self: object, *args: Any) -> Any:
        begun.set()
        go.wait(60)
        result = plain(self, *args)
        assert step == "commit" or not (result if step == "ingest" else self).closed
        ended.set()
        return result

    monkeypatch.setattr(owner, step, slow)
    async with ringfence.open(backend=MockBackend()) as sandbox:
        await sandbox.files.write("/tmp/out", DATA)
        await cancelled(sandbox.files.download("/tmp/out", store=store), begun, go)
        assert ended.is_set()
    assert store.ingests() == {}
