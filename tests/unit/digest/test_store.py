"""The content store: what comes in, what stays, what goes."""

import hashlib
import io
import json
import multiprocessing
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ringfence.digest import (
    Descriptor,
    Digest,
    DigestError,
    DigestMismatch,
    DigestUnsupported,
    SizeMismatch,
    TrailingData,
)
from ringfence.digest import digester as digesters
from ringfence.digest.store import (
    KEEP,
    BlobExists,
    BlobNotFound,
    IngestBusy,
    QuotaExceeded,
    Store,
    StoreBusy,
    StoreError,
    StoreInvalid,
    locks,
)
from ringfence.digest.store import store as stores
from ringfence.digest.store.ingest import Ingest
from ringfence.digest.store.quota import Reservation

DATA = random.Random(7).randbytes(300_000)
DIGEST = Digest.from_bytes(DATA)
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", checkpoint=50_000)


def nothing_begun(store: Store) -> bool:
    return not list((store.root / ".ringfence" / "ingests").iterdir())


def test_what_comes_in_is_read_back_verified(store: Store) -> None:
    assert store.put(DATA, labels={"a": "b"}) == DIGEST
    assert store.put(io.BytesIO(DATA), expected=DIGEST, size=len(DATA)) == DIGEST
    assert store.put(b"") in store
    assert store.put(b"x", algorithm="sha512").startswith("sha512:")
    assert store.read(DIGEST) == DATA
    assert store.info(DIGEST)[:2] == (DIGEST, len(DATA))
    assert store.info(DIGEST).labels == {"a": "b"}
    assert [blob.size for blob in store.walk()].count(len(DATA)) == 1
    assert len(list(store.walk())) == 3
    assert store.blob_path(DIGEST).stat().st_mode & 0o777 == 0o444
    assert nothing_begun(store)
    store.delete(DIGEST)
    assert DIGEST not in store
    for call in (store.read, store.info, store.delete, store.blob_path):
        with pytest.raises(BlobNotFound):
            call(DIGEST)


def test_wrong_content_leaves_nothing(store: Store) -> None:
    other = Digest.from_bytes(b"other")
    with pytest.raises(DigestMismatch, match=str(other)):
        store.put(DATA, expected=other)
    with pytest.raises(TrailingData):
        store.put(DATA, size=len(DATA) - 1)
    with pytest.raises(SizeMismatch):
        store.put(DATA, size=len(DATA) + 1)
    with pytest.raises(SizeMismatch, match="negative"):
        store.ingest("layer", size=-1)
    with pytest.raises(DigestUnsupported):
        store.put(DATA, expected="foo:bar")
    with pytest.raises(DigestError):
        store.put(DATA, expected="../../etc/passwd")
    assert list(store.walk()) == []
    assert nothing_begun(store)


def test_an_ingest_goes_on_where_it_was_suspended_and_hashes_only_the_rest(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store.ingest("layer", expected=DIGEST, size=len(DATA)) as ingest:
        ingest.write(DATA[:200_001])
    assert store.ingests() == {"layer": 200_001}
    hashed: list[int] = []
    write = digesters.Digester.write
    monkeypatch.setattr(
        digesters.Digester,
        "write",
        lambda self, data: hashed.append(len(data)) or write(self, data),
    )
    with store.ingest("layer", expected=DIGEST, size=len(DATA)) as ingest:
        assert ingest.offset == 200_001
        ingest.write(DATA[200_001:])
        assert ingest.commit() == DIGEST
        with pytest.raises(StoreError, match="over"):
            ingest.write(b"x")
    assert sum(hashed) == len(DATA) - 200_001
    assert store.read(DIGEST) == DATA
    assert nothing_begun(store)
    with pytest.raises(BlobExists):
        store.ingest("layer", expected=DIGEST)


def test_a_checkpoint_that_does_not_fit_means_from_the_beginning(store: Store) -> None:
    def begin() -> Path:
        with store.ingest("x") as ingest:
            ingest.write(DATA[:1000])
        (directory,) = (p for p in (store.root / ".ringfence" / "ingests").iterdir() if p.is_dir())
        return directory

    def offset(**options: object) -> int:
        ingest = store.ingest("x", **options)  # type: ignore[arg-type]
        try:
            return ingest.offset
        finally:
            ingest.abort()

    directory = begin()
    assert offset() == 1000
    for damage in (
        lambda: (directory / "checkpoint").write_text("{"),
        lambda: (directory / "checkpoint").write_text('{"algorithm": "sha256", "offset": 5}'),
        lambda: (directory / "checkpoint").write_text(
            (directory / "checkpoint").read_text().replace("1000", "0999")
        ),
        lambda: os.truncate(directory / "data", 999),
        (directory / "about").unlink,
    ):
        begin()
        damage()
        assert offset() == 0
    begin()
    assert offset(algorithm="sha512") == 0
    begin()
    assert offset(size=5000) == 0
    begin()
    with (directory / "data").open("ab") as stream:
        stream.write(b"not checkpointed")
    assert offset() == 1000


def test_one_writer_at_a_time(store: Store) -> None:
    with store.ingest("x"):
        with pytest.raises(IngestBusy):
            store.ingest("x")
        with pytest.raises(IngestBusy):
            Store(store.root).abort("x")
        with store.ingest("y"):
            pass
    store.ingest("x").abort()
    store.abort("y")
    store.abort("never")
    assert nothing_begun(store)


CRASH = """
import os, sys
from ringfence.digest.store import Store
root, source, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
store = Store(root, checkpoint=40_000)
with open(source, "rb") as stream:
    ingest = store.ingest("crash", size=size)
    stream.seek(ingest.offset)
    print(ingest.offset, flush=True)
    while data := stream.read(1500):
        ingest.write(data)
    ingest.commit()
print("done", flush=True)
"""


def test_killed_at_random_points_an_ingest_still_ends_right(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(DATA)
    chance = random.Random()
    offsets = []
    for attempt in range(12):
        process = subprocess.Popen(
            [sys.executable, "-c", CRASH, store.root, source, str(len(DATA))],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        offsets.append(int(process.stdout.readline()))
        if attempt < 11:
            time.sleep(chance.uniform(0, 0.02))
            process.kill()
        rest = process.stdout.read()
        process.wait(60)
        process.stdout.close()
        if "done" in rest or DIGEST in store:
            break
    assert DIGEST in store
    assert store.read(DIGEST) == DATA
    assert all(offset <= len(DATA) for offset in offsets)
    assert list(store.scrub()) == []
    store.gc([DIGEST], grace=0, stale=0)
    assert nothing_begun(store)


@pytest.mark.parametrize("step", ["fsync", "replace", "fchmod"])
def test_a_crash_in_any_step_of_the_commit_loses_no_checkpoint_and_shows_no_half_blob(
    store: Store, step: str
) -> None:
    script = f"""
import os, pathlib, sys
from ringfence.digest.store import Store
store = Store({str(store.root)!r})
ingest = store.ingest("c")
ingest.write(sys.stdin.buffer.read()); ingest.checkpoint()
def die(*_): os._exit(9)
os.fsync = os.fsync if {step!r} != "fsync" else die
os.fchmod = os.fchmod if {step!r} != "fchmod" else die
if {step!r} == "replace": pathlib.Path.replace = die
ingest.commit()
"""
    ended = subprocess.run([sys.executable, "-c", script], input=DATA, timeout=60, check=False)
    assert ended.returncode == 9
    assert DIGEST not in store
    with store.ingest("c") as ingest:
        assert ingest.offset == len(DATA)
        assert ingest.commit() == DIGEST
    assert store.read(DIGEST) == DATA


def _put_many(root: str, seed: int) -> None:
    store = Store(root)
    for number in range(12):
        store.put(f"{number % 6} {seed % 2}".encode() * 2000)
        store.gc(grace=3600)


def test_processes_that_put_and_collect_at_once_do_not_disturb_each_other(store: Store) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_put_many, args=(str(store.root), n)) for n in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    assert len(list(store.walk())) == 12
    assert list(store.scrub()) == []
    assert nothing_begun(store)


def image(store: Store, name: str | None) -> tuple[Digest, list[Digest]]:
    """A manifest with a config and a layer, under `name`."""
    parts = [store.put(f"{name} {part}".encode()) for part in ("config", "layer")]
    described = [Descriptor("text/plain", part, store.info(part).size).to_dict() for part in parts]
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": described[0],
        "layers": described[1:],
    }
    content = json.dumps(document).encode()
    manifest = store.put(content)
    if name is not None:
        store.tag(name, Descriptor(MANIFEST, manifest, len(content)))
    return manifest, parts


def test_collection_keeps_what_roots_need_and_nothing_else(store: Store) -> None:
    tagged, parts = image(store, "latest")
    loose, loose_parts = image(store, None)
    kept = store.put(b"kept", labels={KEEP: "the audit chain"})
    pointed = store.put(b"pointed")
    store.label(kept, {"ringfence.ref.next": pointed})
    rooted = store.put(b"rooted")
    assert store.gc().removed == ()
    planned = store.gc([rooted], grace=0, dry_run=True)
    assert set(planned.removed) == {loose, *loose_parts}
    assert loose in store
    assert store.gc([rooted], grace=0) == planned
    assert {blob.digest for blob in store.walk()} == {tagged, *parts, kept, pointed, rooted}
    store.untag("latest")
    store.label(kept, {KEEP: None})
    assert len(store.gc(grace=0).removed) == 6
    assert list(store.walk()) == []
    assert store.usage() == 0


@pytest.mark.parametrize(
    "spoil",
    [lambda good: good.replace(b"schema", b"Schema"), lambda good: b"\0" + good[1:], lambda _: b""],
    ids=["another field", "another first byte", "empty"],
)
def test_collection_does_nothing_when_a_needed_manifest_is_damaged(
    store: Store, spoil: Callable[[bytes], bytes]
) -> None:
    tagged, parts = image(store, "latest")
    good = store.read(tagged)
    garbage = store.put(b"garbage")
    path = store.blob_path(tagged)
    path.chmod(0o600)
    path.write_bytes(spoil(good))
    with pytest.raises(StoreInvalid, match="damaged"):
        store.gc(grace=0)
    assert [(found.digest, found.reason) for found in store.scrub()] == [(tagged, "damaged")]
    assert [found.moved for found in store.scrub(move=True) if found.reason == "damaged"] == [True]
    with pytest.raises(StoreInvalid, match="taken out: put it in again, or take away the tag"):
        store.gc(grace=0)
    store.put(good)
    assert store.gc(grace=0).removed == (garbage,)
    assert {blob.digest for blob in store.walk()} == {tagged, *parts}
    assert store.usage() == sum(blob.size for blob in store.walk())


def test_a_damaged_image_can_be_released(store: Store) -> None:
    tagged, parts = image(store, "latest")
    store.blob_path(tagged).chmod(0o600)
    store.blob_path(tagged).write_bytes(b"?")
    list(store.scrub(move=True))
    assert store.release("latest").removed == ()
    assert set(store.gc(grace=0).removed) == set(parts)
    assert store.usage() == 0


def test_collection_does_nothing_when_the_index_cannot_be_read(store: Store) -> None:
    kept = store.put(b"kept")
    for text in ("{}", '{"manifests": 3}', '{"manifests": [1]}', '{"manifests": [{}]}', "", "?"):
        (store.root / "index.json").write_text(text)
        with pytest.raises(StoreInvalid, match=r"index\.json"):
            store.gc(grace=0)
        with pytest.raises(StoreInvalid, match=r"index\.json"):
            store.tags()
    assert kept in store


def test_what_is_no_blob_of_ours_is_passed_over(store: Store) -> None:
    kept = store.put(b"kept")
    beside = store.blob_path(kept).parent
    (beside / ("a" * 64)).mkdir()
    (beside / ("b" * 64)).symlink_to("nowhere")
    (beside / "stray").write_bytes(b"x")
    with store.ingest("spoilt") as ingest:
        ingest.write(b"x")
    (
        store.root / ".ringfence" / "ingests" / Digest.from_str("spoilt").encoded / "about"
    ).write_text("{")
    assert store.ingests() == {}
    assert [blob.digest for blob in store.walk()] == [kept]
    assert list(store.scrub()) == []
    assert store.gc(grace=0).removed == (kept,)


def test_collection_ends_ingests_that_nobody_writes_to(store: Store) -> None:
    with store.ingest("old") as ingest:
        ingest.write(b"x")
    with store.ingest("new") as ingest:
        assert store.gc(stale=0).ingests == 1
        ingest.write(b"y")
        ingest.commit()
    assert nothing_begun(store)


def test_an_ingest_that_goes_on_meanwhile_is_not_ended(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was old when it was found, and was written to and let go before it was locked."""
    store.ingest("old").suspend()
    place = store._layout.ingest("old")
    for path in (*place.iterdir(), place):
        os.utime(path, (1, 1))
    take = locks.own

    def late(path: Path) -> int:
        os.utime(place / "data")
        return take(path)

    monkeypatch.setattr(locks, "own", late)
    assert store.gc(stale=1000).ingests == 0
    assert place.is_dir()


def test_what_a_needed_blob_is_called_outlives_its_absence(store: Store) -> None:
    """It can be put in again, and then needs what its labels name."""
    _, (config, _) = image(store, "latest")
    other = store.put(DATA)
    for digest in (config, other):
        store.label(digest, {"a": "b"})
        store.blob_path(digest).unlink()
        os.utime(store._layout.label(digest), (1, 1))
    store.gc(grace=0)
    assert store._layout.label(config).exists()
    assert not store._layout.label(other).exists()


def test_nothing_is_collected_while_a_blob_comes_to_its_place(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Ingest._place

    def watched(ingest: Ingest, digest: Digest, labels: dict[str, str]) -> None:
        with pytest.raises(StoreBusy), locks.exclusive(store._layout.lock, wait=False):
            pass
        place(ingest, digest, labels)

    monkeypatch.setattr(Ingest, "_place", watched)
    assert store.put(DATA) in store


def test_names_are_given_one_after_the_other(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who read the index meanwhile would write back what it no longer holds."""
    image(store, "first")
    real, calls = stores.write, []

    def watched(path: Path, data: bytes) -> None:
        with pytest.raises(StoreBusy), locks.exclusive(store._layout.lock, wait=False):
            pass
        calls.append(path)
        real(path, data)

    monkeypatch.setattr(stores, "write", watched)
    store.tag("second", store.tags()["first"])
    store.untag("first")
    assert calls == [store._layout.index] * 2
    assert list(store.tags()) == ["second"]


def test_what_a_released_blob_is_called_goes_with_it(store: Store) -> None:
    _, (config, _) = image(store, "latest")
    store.label(config, {"a": "b"})
    store.release("latest")
    assert not store._layout.label(config).exists()


def test_a_checkpoint_is_made_as_often_as_was_said(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An ingest that goes on need not make the one that it has again."""
    made = []
    real = Ingest.checkpoint
    monkeypatch.setattr(Ingest, "checkpoint", lambda self: made.append(self.offset) or real(self))
    with store.ingest("x") as ingest:
        for _ in range(11):
            ingest.write(bytes(10_000))
        assert made == [50_000, 100_000]
    with store.ingest("x") as ingest:
        for _ in range(5):
            ingest.write(bytes(10_000))
        assert made == [50_000, 100_000, 110_000, 160_000]


def test_an_ingest_that_another_writes_costs_no_descriptor(store: Store) -> None:
    with store.ingest("busy"):
        before = len(list(Path("/proc/self/fd").iterdir()))
        for _ in range(5):
            with pytest.raises(IngestBusy):
                store.ingest("busy")
        assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_scrub_finds_damage_and_takes_it_out(store: Store) -> None:
    tagged, (config, layer) = image(store, "latest")
    store.put(DATA)
    path = store.blob_path(DIGEST)
    path.chmod(0o600)
    path.write_bytes(DATA[:-1] + b"!")
    store.delete(layer)
    odd = store.root / "blobs" / "odd+one" / "abc"
    odd.parent.mkdir()
    odd.write_bytes(b"?")
    with pytest.raises(DigestMismatch):
        store.read(DIGEST)
    seen = 0

    def count(size: int) -> None:
        nonlocal seen
        seen += size

    found = {damage.digest: damage for damage in store.scrub(progress=count)}
    assert {digest: damage.reason for digest, damage in found.items()} == {
        DIGEST: "damaged",
        layer: "missing",
        Digest("odd+one:abc"): "unverifiable",
    }
    assert found[DIGEST].found == Digest.from_bytes(DATA[:-1] + b"!")
    assert seen >= len(DATA)
    assert [damage.moved for damage in store.scrub(move=True) if damage.reason == "damaged"] == [
        True
    ]
    assert DIGEST not in store
    assert store.put(DATA) == DIGEST
    assert config in store
    assert tagged in store


def test_the_quota_holds_for_blobs_and_for_what_is_being_written(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", quota=1_000_000)
    store.put(DATA)
    with store.ingest("declared", size=500_000):
        with pytest.raises(QuotaExceeded, match="quota of 1000000"):
            store.ingest("too much", size=300_000)
        small = store.ingest("small")
        small.write(bytes(190_000))
        with pytest.raises(QuotaExceeded):
            small.write(bytes(20_000))
        small.commit()
    store.abort("declared")
    store.abort("too much")
    assert store.usage() == 490_000
    with pytest.raises(QuotaExceeded):
        store.put(bytes(600_000))
    store.put(b"a little")
    assert nothing_begun(store)


def test_an_ingest_is_not_counted_against_itself(tmp_path: Path) -> None:
    """It may fill the quota to the last byte, whatever it reserved on the way; another that nobody
    bounded reserves nothing."""
    Store(tmp_path / "store").ingest("unbounded").suspend()
    store = Store(tmp_path / "store", quota=1000)
    reservation = Reservation(store._layout, store._layout.ingest("mine"), 1000)
    store._layout.ingest("mine").mkdir()
    reservation.need(10, ahead=500)
    reservation.need(1000, ahead=500)
    with pytest.raises(QuotaExceeded, match="1001 bytes are more than the 1000"):
        reservation.need(1001)
    with pytest.raises(QuotaExceeded):
        Reservation(store._layout, store._layout.ingest("other"), 1000).need(1)


def test_a_full_disk_counts_nothing_of_the_failed_write(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest = store.ingest("full")
    ingest.write(b"first")
    real = os.write
    calls = iter([True, False])

    def write(number: int, data: memoryview) -> int:
        if next(calls):
            return real(number, data[:2])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        with pytest.raises(OSError, match="No space"):
            ingest.write(b"second")
    ingest.write(b" third")
    assert store.read(ingest.commit()) == b"first third"


def test_a_directory_that_is_not_a_store_or_not_ours_alone_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "precious").write_text("x")
    with pytest.raises(StoreInvalid, match="neither empty"):
        Store(other)
    public = tmp_path / "public"
    public.mkdir()
    public.chmod(0o777)
    with pytest.raises(StoreInvalid, match="alone"):
        Store(public)
    odd = tmp_path / "odd"
    odd.mkdir()
    (odd / "oci-layout").write_text('{"imageLayoutVersion": "9"}')
    with pytest.raises(StoreInvalid, match="version"):
        Store(odd)
    if os.geteuid() == 0:
        theirs = Store(tmp_path / "theirs").root
        os.chown(theirs, 1000, 1000)
        with pytest.raises(StoreInvalid, match="must belong to uid 0"):
            Store(theirs)


def test_labels_are_set_and_removed(store: Store) -> None:
    store.put(DATA)
    assert store.label(DIGEST, {"a": "1", "b": "2"}) == {"a": "1", "b": "2"}
    assert store.label(DIGEST, {"a": None}) == {"b": "2"}
    assert store.label(DIGEST, {"b": None}) == {}
    with pytest.raises(BlobNotFound):
        store.label(Digest.from_bytes(b"none"), {"a": "1"})


def test_hashes_agree_with_hashlib_however_it_is_cut(store: Store) -> None:
    with store.ingest("cut") as ingest:
        for start in range(0, len(DATA), 7777):
            ingest.write(bytearray(DATA[start : start + 7777]))
        assert ingest.commit() == "sha256:" + hashlib.sha256(DATA).hexdigest()


def test_a_blob_is_as_old_as_its_commit(store: Store) -> None:
    """However long ago its last byte came: a collection right after leaves it."""
    with store.ingest("slow") as ingest:
        ingest.write(b"content")
        os.utime(ingest._data, (1, 1))
        digest = ingest.commit()
    assert store.gc(grace=3600).removed == ()
    assert store.info(digest).modified > 1


def test_what_came_after_the_last_checkpoint_before_a_crash_is_cut_off(store: Store) -> None:
    """Also where less comes the second time."""
    crashed = store.ingest("again")
    crashed.write(b"a" * 10)
    crashed.checkpoint()
    crashed.write(b"b" * 100)
    crashed._close()
    with store.ingest("again") as ingest:
        assert ingest.offset == 10
        ingest.write(b"c")
        digest = ingest.commit()
    assert store.read(digest) == b"a" * 10 + b"c"


def test_an_ingest_whose_checkpoint_is_damaged_begins_anew(store: Store) -> None:
    """Else the content would get a digest that is not its own."""
    begun = store.ingest("damaged")
    begun.write(b"a" * 10)
    begun.suspend()
    place = begun._directory / "checkpoint"
    about = json.loads(place.read_text())
    state = bytearray.fromhex(about["state"])
    state[4] ^= 1
    place.write_text(json.dumps({**about, "state": state.hex()}))
    again = store.ingest("damaged")
    assert again.offset == 0
    again.abort()


def test_what_a_full_disk_took_of_a_write_is_no_part_of_the_blob(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, room = os.write, 50

    def full(descriptor: int, data: memoryview) -> int:
        nonlocal room
        if not room:
            raise OSError(28, "No space left on device")
        written = real(descriptor, data[:room])
        room -= written
        return written

    with store.ingest("full") as ingest:
        with monkeypatch.context() as patched:
            patched.setattr(os, "write", full)
            with pytest.raises(OSError, match="No space left"):
                ingest.write(b"a" * 100)
        ingest.write(b"b")
        digest = ingest.commit()
    assert store.read(digest) == b"b"


def test_a_blob_that_comes_again_is_young_and_ends_what_was_begun_of_it(store: Store) -> None:
    digest = Digest.from_bytes(b"content")
    with store.ingest("begun", expected=digest) as ingest:
        ingest.write(b"con")
    store.put(b"content")
    os.utime(store.blob_path(digest), (1, 1))
    with pytest.raises(BlobExists):
        store.ingest("begun", expected=digest)
    assert store.ingests() == {}
    assert store.gc(grace=3600).removed == ()


@pytest.mark.parametrize("size", [4, 8])
def test_a_blob_of_another_size_than_was_asked_for_is_not_there(store: Store, size: int) -> None:
    """The size is half of what a descriptor says: a wrong one is no success, and a blob that a
    disk has cut short comes in again."""
    digest = store.put(b"content")
    with pytest.raises((SizeMismatch, TrailingData)):
        store.put(b"content", expected=digest, size=size)
    assert store.read(digest) == b"content"
    path = store.blob_path(digest)
    path.chmod(0o644)
    path.write_bytes(b"content"[:size] + b"t" * (size - 7))
    assert store.put(b"content", expected=digest, size=7) == digest
    assert store.read(digest) == b"content"
    with pytest.raises(BlobExists):
        store.ingest("again", expected=digest, size=7)
