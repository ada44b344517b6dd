"""The content store where others work in it at once, or somebody stopped in the middle."""

import json
import os
import random
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from ringfence.digest import Descriptor, Digest
from ringfence.digest.digester import Digester
from ringfence.digest.store import (
    KEEP,
    BlobNotFound,
    QuotaExceeded,
    Store,
    StoreError,
    StoreInvalid,
    leftovers,
    manifest,
    scrub,
)
from ringfence.digest.store import labels as label_files
from ringfence.digest.store import layout as layouts

LAYER = b"layer" * 100
DIGEST = Digest.from_bytes(LAYER)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def files(store: Store) -> set[str]:
    return {str(path.relative_to(store.root)) for path in store.root.rglob("*") if path.is_file()}


EMPTY = {"oci-layout", "index.json", ".ringfence/lock", ".ringfence/composing"}


def live(root: Path) -> None:
    """A store's whole life: blobs, an ingest, an image with a name, a collection, the end."""
    store = Store(root, quota=10_000_000, checkpoint=100)
    kept = store.put(b"kept", labels={KEEP: "test"})
    with store.composing():
        parts = [store.put(LAYER, expected=DIGEST, size=len(LAYER))]
        with store.ingest("second", size=300) as ingest:
            ingest.write(bytes(150))
            ingest.write(bytes(150))
            parts.append(ingest.commit({"a": "b"}))
        described = [Descriptor(manifest.LAYER, part, store.info(part).size) for part in parts]
        store.tag("image", manifest.put_image(store, {"a": 1}, described))
    store.put(b"garbage")
    store.gc(grace=0, stale=0)
    store.release("image")
    store.label(kept, {KEEP: None})
    store.gc(grace=0)


def killed(root: Path, line: int) -> bool:
    """Whether a process that lives there was killed, which it is at this line of the store's."""
    child = os.fork()
    if child == 0:
        passed = 0

        def trace(frame: FrameType, event: str, _: Any) -> Any:
            nonlocal passed
            if "/digest/store/" not in frame.f_code.co_filename:
                return None
            passed += event == "line"
            if passed == line:
                os.kill(os.getpid(), signal.SIGKILL)
            return trace

        try:
            sys.settrace(trace)
            live(root)
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitpid(child, 0)[1]
    assert status in (0, signal.SIGKILL)
    return status != 0


def test_killed_at_any_line_a_store_is_whole_and_nothing_stays_for_ever(tmp_path: Path) -> None:
    """At each sixty-first, other ones in each run."""
    for line in range(random.randrange(1, 62), 20_000, 61):
        root = tmp_path / str(line)
        if not killed(root, line):
            break
        store = Store(root)
        for entry in store.tags().values():
            store.read(entry.digest)
        assert {damage.reason for damage in store.scrub()} <= {"missing"}
        store.gc(grace=0, stale=0)
        for name in store.tags():
            store.release(name)
        for damage in store.scrub():
            store.delete(damage.digest)
        for blob in store.walk():
            store.delete(blob.digest)
        store.gc(grace=0, stale=0)
        assert files(store) - {".ringfence/labels.lock"} == EMPTY
        live(root)
    assert line > 500


def test_a_blob_that_is_collected_while_it_is_put_again_or_read_is_whole_or_not_there(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put(LAYER)
    real = Store.blob_path

    def collected(self: Store, digest: str) -> Path:
        path = real(self, digest)
        path.unlink()
        return path

    monkeypatch.setattr(Store, "blob_path", collected)
    assert store.put(LAYER, expected=DIGEST) == DIGEST
    with pytest.raises(BlobNotFound):
        store.read(DIGEST)
    monkeypatch.undo()
    assert store.put(LAYER, expected=DIGEST) == DIGEST
    assert store.read(DIGEST) == LAYER


def test_a_blob_that_is_there_is_as_young_as_one_that_came_in_now(store: Store) -> None:
    """So that no collection takes it before its manifest comes."""
    store.put(LAYER)
    os.utime(store.blob_path(DIGEST), (1, 1))
    with pytest.raises(StoreError, match="in the store already"):
        store.ingest("again", expected=DIGEST)
    assert store.gc().removed == ()


@pytest.mark.parametrize("size", [2000, None])
def test_what_is_over_the_quota_leaves_nothing(tmp_path: Path, size: int | None) -> None:
    store = Store(tmp_path / "store", quota=1000)
    with pytest.raises(QuotaExceeded):
        store.put(bytes(2000), size=size)
    with pytest.raises(QuotaExceeded):
        store.ingest("named", size=2000)
    assert files(store) == {"oci-layout", "index.json", ".ringfence/lock"}


def test_an_ingest_that_goes_on_keeps_what_it_has_when_the_rest_is_over_the_quota(
    store: Store,
) -> None:
    with store.ingest("named", size=2000) as ingest:
        ingest.write(bytes(500))
    with pytest.raises(QuotaExceeded):
        Store(store.root, quota=1000).ingest("named", size=2000)
    assert store.ingests() == {"named": 500}


def test_an_ingest_that_is_interrupted_as_it_goes_on_keeps_what_it_has(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To hash again what is there takes its time, and so Ctrl-C comes then."""

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with store.ingest("named") as ingest:
        ingest.write(bytes(500))
    with monkeypatch.context() as patched:
        patched.setattr(Digester, "resume", interrupted)
        with pytest.raises(KeyboardInterrupt):
            store.ingest("named")
    assert store.ingests() == {"named": 500}


def test_a_write_that_is_interrupted_ends_the_ingest_at_its_last_checkpoint(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was written twice and hashed once would be a blob of other content than its name."""

    def interrupted(self: Digester, data: bytes) -> int:
        raise KeyboardInterrupt

    with store.ingest("x") as ingest:
        ingest.write(b"one")
        ingest.checkpoint()
        monkeypatch.setattr(Digester, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            ingest.write(b"two")
        with pytest.raises(KeyboardInterrupt):
            store.put(b"three")
        monkeypatch.undo()
        assert set(store.ingests()) == {"x"}
        with pytest.raises(StoreError, match="over"):
            ingest.write(b"two")
    with store.ingest("x") as ingest:
        assert ingest.offset == 3
        ingest.write(b"two")
        assert store.read(ingest.commit()) == b"onetwo"


@pytest.mark.parametrize("document", [
    {"config": {"debug": True}}, {"layers": [1, 2]}, {"manifests": "none"}, {"layers": 5},
    {"subject": "hello"}, "[" * 100_000, '{"a":' + "[" * 100_000,
])  # fmt: skip
def test_a_kept_file_that_looks_like_a_manifest_stops_no_collection(
    store: Store, document: object
) -> None:
    """It may be a sandbox's."""
    text = document if isinstance(document, str) else json.dumps(document)
    odd = store.put(b'{"layers": [1]}')
    entry = Descriptor(manifest.MANIFEST, odd, 15).to_dict()
    store.put(json.dumps({"manifests": [entry]}).encode(), labels={KEEP: "points to it"})
    kept = store.put(text.encode(), labels={KEEP: "artifact"})
    garbage = store.put(b"garbage")
    assert store.gc(grace=0).removed == (garbage,)
    assert list(store.scrub()) == []
    assert store.read(kept) == text.encode()


def test_a_named_manifest_whose_references_cannot_be_read_stops_a_collection(store: Store) -> None:
    content = json.dumps({"layers": [1]}).encode()
    store.tag("odd", Descriptor(manifest.MANIFEST, store.put(content), len(content)))
    with pytest.raises(StoreInvalid, match="references that cannot be read"):
        store.gc(grace=0)


@pytest.mark.parametrize("meanwhile", [lambda store, _: store.put(LAYER),
                                       lambda _, path: path.unlink()])  # fmt: skip
def test_scrub_takes_out_only_what_it_looked_at(
    store: Store, monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[Store, Path], object]
) -> None:
    path = store.blob_path(store.put(LAYER))
    path.chmod(0o600)
    path.write_bytes(b"damaged")
    real = scrub._look

    def look(path: Path, *rest: Any) -> Any:
        found = real(path, *rest)
        meanwhile(store, path)
        return found

    monkeypatch.setattr(scrub, "_look", look)
    assert list(store.scrub(move=True)) == []
    assert not list((store.root / ".ringfence/damaged").iterdir())


@pytest.mark.parametrize(
    ("error", "reason"),
    [(OSError(5, "it cannot be read"), "unreadable"), (ValueError("it is shorter"), "unreadable"),
     (FileNotFoundError(), None)],
)  # fmt: skip
def test_scrub_goes_on_past_a_blob_that_cannot_be_read(
    store: Store, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str | None
) -> None:
    """One that went meanwhile is no damage."""
    store.put(LAYER)

    def fail(*_: object, **__: object) -> Digest:
        raise error

    monkeypatch.setattr(scrub, "digest_mapped", fail)
    assert [damage.reason for damage in store.scrub()] == ([reason] if reason else [])


def test_an_ingest_that_ends_while_a_collection_looks_at_it_is_passed_over(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store.ingest("x") as ingest:
        ingest.write(b"x")
    real = Path.iterdir

    def iterdir(path: Path) -> Iterator[Path]:
        if path.parent.name == "ingests":
            monkeypatch.undo()
            store.abort("x")
        return real(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    assert store.gc(stale=0).ingests == 0
    assert store.ingests() == {}


def test_a_small_file_that_comes_to_its_place_while_a_collection_looks_at_it_is_passed_over(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who makes a store writes its marker while another who made it collects already."""
    scratch = store.root / ".oci-layout.7.0123abcd"
    scratch.write_bytes((store.root / "oci-layout").read_bytes())

    class Moved:
        def fullmatch(self, name: str) -> bool:
            if name == scratch.name:
                scratch.replace(store.root / "oci-layout")
            return name == scratch.name

    monkeypatch.setattr(leftovers, "SCRATCH", Moved())
    assert store.gc(stale=0).removed == ()
    assert not scratch.exists()


def test_labels_without_a_blob_can_be_removed(store: Store) -> None:
    """A commit that is killed leaves its labels before its blob."""
    label_files.change(store._layout, DIGEST, {KEEP: "for ever"})
    assert [damage.reason for damage in store.scrub()] == ["missing"]
    with pytest.raises(BlobNotFound):
        store.label(DIGEST, {"a": "b"})
    store.delete(DIGEST)
    assert list(store.scrub()) == []
    with pytest.raises(BlobNotFound):
        store.delete(DIGEST)


def test_two_that_make_a_store_at_once_lose_no_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "store"
    real = Path.exists

    def first(path: Path, **options: Any) -> bool:
        found = real(path, **options)
        if path.name == "index.json":
            monkeypatch.undo()
            other = Store(root)
            other.tag("named", Descriptor("text/plain", other.put(LAYER), len(LAYER)))
        return found

    monkeypatch.setattr(Path, "exists", first)
    assert set(Store(root).tags()) == {"named"}


def test_what_is_no_directory_and_what_others_may_write_to_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("file", "link", "file/below"):
        with pytest.raises(StoreInvalid, match="no directory"):
            Store(tmp_path / name)
    store = Store(tmp_path / "store")
    (store.root / ".ringfence").chmod(0o777)
    with pytest.raises(StoreInvalid, match=r"\.ringfence must belong"):
        Store(store.root)


def test_whatever_the_umask_nobody_else_may_write_to_a_store(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        live(tmp_path / "store")
        Store(tmp_path / "store").put(b"x", labels={KEEP: "x"})
    finally:
        os.umask(before)
    seen = [tmp_path / "store", *(tmp_path / "store").glob("*"), *(tmp_path / "store").glob("*/*")]
    assert [path for path in seen if path.stat().st_mode & 0o022] == []
    assert (tmp_path / "store/.ringfence").stat().st_mode & 0o777 == 0o700


def test_a_number_too_long_for_a_document_is_said_of_it(store: Store) -> None:
    digest = store.put(b'{"a": ' + b"9" * 5000 + b"}")
    with pytest.raises(StoreInvalid, match="not JSON"):
        manifest.read_document(store, digest)
    with pytest.raises(StoreInvalid, match="not a JSON object"):
        layouts.parsed(b"[]", "x")
