"""A snapshot is named by its content; a fork starts where its parent was."""

import io
import json
import multiprocessing
import os
import shutil
import subprocess
import tarfile
from contextlib import suppress
from pathlib import Path

import pytest

from ringfence.digest import Digest
from ringfence.digest.store import Store
from ringfence.digest.store.manifest import put_image
from ringfence.errors import InvalidSpecError, NotFoundError, ResourceExhaustedError, StateError
from ringfence.spec import Repository
from ringfence.workspace import For, Snapshots, clean, fork, prepare
from ringfence.workspace.snapshot import KIND, delete, find, sweep, verify
from ringfence.workspace.snapshot_layer import unpack
from tests.conftest import missing
from tests.unit.workspace.conftest import Make, digest_of_tree, git, inside, keep, only_kept
from tests.unit.workspace.test_patch import snapshot


@pytest.fixture
def place(tmp_path: Path) -> Snapshots:
    return Snapshots(Store(tmp_path / "store"), tmp_path / "farms")


def farms_of(place: Snapshots) -> list[str]:
    return sorted(path.name for path in place.farms.iterdir() if path.name != ".lock")


def layer_of(place: Snapshots, digest: str) -> Digest:
    manifest = json.loads(place.store.read(digest))
    return Digest(manifest["layers"][0]["digest"])


def test_the_same_state_has_the_same_digest(repository: Path, make: Make, place: Snapshots) -> None:
    one, other = make(repository, history="head"), make(repository, history="head")
    first = keep(one, place)
    assert first.digest.startswith("sha256:")
    (inside(one) / "README.md").write_text("changed\n")
    second = keep(one, place)
    assert second.digest != first.digest
    (inside(one) / "README.md").write_text("A project.\n")
    assert keep(one, place).digest == first.digest
    assert len(place.store.tags()) == 2
    assert find(second.digest, place) == second
    assert other is not one


def test_a_directory_made_for_a_mount_is_kept_with_what_else_it_holds(
    repository: Path, make: Make, place: Snapshots
) -> None:
    prepared = make(repository)
    prepared.mounted = ("new/er/data", "src")
    (inside(prepared) / "new/er/data").mkdir(parents=True)
    (inside(prepared) / "new/own").write_text("x\n")
    tree = place.tree(keep(prepared, place).digest)
    assert sorted(path.name for path in tree.rglob("new*/**/*")) == ["own"]
    assert (tree / "src/code.py").exists()


def test_a_snapshot_can_be_opened(repository: Path, make: Make, place: Snapshots) -> None:
    prepared = make(repository)
    (inside(prepared) / "README.md").write_text("kept\n")
    git(inside(prepared), "commit", "-q", "-a", "-m", "inside")
    kept = keep(prepared, place)
    prepared.close()
    opened = make(repository, start=place.tree(kept.digest))
    assert (inside(opened) / "README.md").read_text() == "kept\n"
    assert git(inside(opened), "log", "-1", "--format=%s").strip() == "inside"
    assert len(opened.changes()) == 0
    (inside(opened) / "README.md").write_text("more\n")
    assert opened.changes().of("modified") == ("README.md",)
    verify(kept.digest, place)
    delete(kept.digest, place)
    with pytest.raises(NotFoundError):
        find(kept.digest, place)


def test_names_modes_times_and_links_come_back(
    repository: Path, make: Make, place: Snapshots
) -> None:
    prepared = make(repository)
    work = inside(prepared)
    (work / "odd \n name").write_text("x")
    Path(os.fsdecode(os.fsencode(work) + b"/\xff\xfe")).write_bytes(b"\0" * 3000)
    (work / ("n" * 255)).touch()
    deep = work / "/".join(["d" * 100] * 5)
    deep.mkdir(parents=True)
    (deep / "empty").mkdir(mode=0o750)
    (deep / "loop").symlink_to("../" * 9 + "etc/passwd")
    (deep / "private").write_text("p")
    (deep / "private").chmod(0o400)
    os.utime(deep / "private", ns=(1, 1_234_567_890_123_456_789))
    kept = keep(prepared, place)
    tree = place.tree(kept.digest)
    assert snapshot(tree) == snapshot(work)
    for path in (work, *work.rglob("*")):
        there = tree / path.relative_to(work)
        before, after = path.lstat(), there.lstat()
        assert (before.st_mode, before.st_mtime_ns) == (after.st_mode, after.st_mtime_ns)
    before_again = digest_of_tree(tree)
    shutil.rmtree(tree.parent)
    assert digest_of_tree(place.tree(kept.digest)) == before_again


def test_a_changed_snapshot_is_found_out(repository: Path, make: Make, place: Snapshots) -> None:
    kept = keep(make(repository), place)
    blob = place.store.blob_path(layer_of(place, kept.digest))
    whole = blob.read_bytes()
    blob.chmod(0o600)
    blob.write_bytes(whole.replace(b"A project.", b"A forgery."))
    with pytest.raises(StateError, match="damaged"):
        verify(kept.digest, place)
    with pytest.raises(StateError, match="damaged"):
        place.tree(kept.digest)
    assert farms_of(place) == []
    blob.write_bytes(whole)
    assert (place.tree(kept.digest) / "README.md").read_text() == "A project.\n"
    blob.unlink()
    with pytest.raises(StateError, match="lacks"):
        verify(kept.digest, place)
    manifest = place.store.blob_path(kept.digest)
    manifest.chmod(0o600)
    manifest.write_bytes(b"{}")
    with pytest.raises(StateError, match="manifest"):
        find(kept.digest, place)
    with pytest.raises(InvalidSpecError):
        find("sha256:../../x", place)


def test_what_is_no_snapshot_is_not_opened(place: Snapshots) -> None:
    image = put_image(place.store, {}, [])
    with pytest.raises(NotFoundError, match="no snapshot"):
        place.tree(image.digest)
    claims = put_image(place.store, {}, [], {KIND: "workspace"})
    with pytest.raises(StateError):
        place.tree(claims.digest)
    with pytest.raises(NotFoundError):
        find(Digest.from_bytes(b"nothing"), place)


@pytest.mark.parametrize(
    ("name", "kind", "target"),
    [
        ("../out", tarfile.REGTYPE, ""),
        ("/etc/out", tarfile.REGTYPE, ""),
        ("link/out", tarfile.REGTYPE, ""),
        ("file", tarfile.REGTYPE, ""),
        ("file", tarfile.DIRTYPE, ""),
        ("a/../out", tarfile.REGTYPE, ""),
        ("/", tarfile.DIRTYPE, ""),
        ("", tarfile.REGTYPE, ""),
        ("device", tarfile.CHRTYPE, ""),
        ("hard", tarfile.LNKTYPE, "/etc/passwd"),
    ],
)
def test_a_hostile_layer_writes_nothing_outside(
    name: str, kind: bytes, target: str, tmp_path: Path
) -> None:
    place, outside = tmp_path / "place", tmp_path / "outside"
    place.mkdir()
    outside.mkdir()
    hostile = tmp_path / "layer.tar"
    with tarfile.open(hostile, "w") as archive:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, str(outside)
        archive.addfile(link)
        link.name, link.linkname = "file", str(outside / "made")
        archive.addfile(link)
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, target
        archive.addfile(info)
    root = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with hostile.open("rb") as stream, pytest.raises((ValueError, OSError)):
            unpack(stream, root, {})
    finally:
        os.close(root)
    assert not any(outside.iterdir())
    assert {path.name for path in tmp_path.iterdir()} == {"place", "outside", "layer.tar"}


def test_bits_that_lend_an_identity_are_not_unpacked(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as archive:
        for name, kind in ((".", tarfile.DIRTYPE), ("d", tarfile.DIRTYPE), ("f", tarfile.REGTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.uid, info.gid = kind, 0o7751, 12, 34
            archive.addfile(info)
    layer.seek(0)
    root = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        unpack(layer, root, {".": 5_000_000_001, "d": 6, "f": 7})
    finally:
        os.close(root)
    for path, when in ((place, 5_000_000_001), (place / "d", 6), (place / "f", 7)):
        status = path.stat()
        assert (status.st_mode & 0o7777, status.st_mtime_ns) == (0o751, when)
        assert os.geteuid() != 0 or (status.st_uid, status.st_gid) == (12, 34)


def test_a_layer_with_holes_does_not_fill_the_disk(tmp_path: Path) -> None:
    info = tarfile.TarInfo("hole")
    info.type = tarfile.GNUTYPE_SPARSE
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[483:495] = b"%011o\0" % (7 * 8**10)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    place = tmp_path / "place"
    place.mkdir()
    root = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with pytest.raises(ValueError, match="hole"):
            unpack(io.BytesIO(bytes(header) + bytes(1024)), root, {})
    finally:
        os.close(root)
    assert list(place.iterdir()) == []


def test_removing_a_snapshot_frees_its_blobs_and_no_other_s(
    repository: Path, make: Make, place: Snapshots
) -> None:
    prepared = make(repository)
    first = keep(prepared, place)
    (inside(prepared) / "README.md").write_text("changed\n")
    second = keep(prepared, place)
    place.tree(first.digest)
    place.tree(second.digest)
    assert place.store.gc(grace=0).removed == ()
    assert delete(first.digest, place) > first.size
    assert first.digest not in place.store
    assert farms_of(place) == [second.digest.partition(":")[2]]
    verify(second.digest, place)
    with pytest.raises(NotFoundError):
        delete(first.digest, place)
    delete(second.digest, place)
    assert list(place.store.walk()) == []
    assert place.store.tags() == {}


def test_a_farm_without_its_snapshot_is_swept(
    repository: Path, make: Make, place: Snapshots
) -> None:
    kept = keep(make(repository), place)
    place.tree(kept.digest)
    (place.farms / ".new-begun").mkdir()
    (place.farms / ".gone-old").mkdir()
    os.utime(place.farms / ".gone-old", (0, 0))
    sweep(place)
    assert farms_of(place) == [".new-begun", kept.digest.partition(":")[2]]
    for name in place.store.tags():
        place.store.untag(name)
    place.store.gc(grace=0)
    sweep(place)
    assert farms_of(place) == [".new-begun"]


def keep_and_delete(directory: Path, rounds: int) -> None:
    """What several processes do at once, each with its own workspace of the same content."""
    place = Snapshots(Store(directory / "store"), directory / "farms")
    prepared = prepare(
        Repository(path=str(directory / "project")), directory=directory / "state" / str(os.getpid()),
        uid=os.geteuid(), gid=os.getegid(), privileged=False,
    )  # fmt: skip
    for _ in range(rounds):
        kept = keep(prepared, place)
        with suppress(NotFoundError, StateError):
            place.tree(kept.digest)
            verify(kept.digest, place)
        with suppress(NotFoundError):
            delete(kept.digest, place)
        place.store.gc(grace=0)
        sweep(place)
    prepared.close()


def test_processes_that_keep_and_delete_the_same_state_do_not_disturb_each_other(
    tmp_path: Path, place: Snapshots
) -> None:
    (tmp_path / "project").mkdir()
    (tmp_path / "project/file").write_text("x")
    context = multiprocessing.get_context("spawn")
    others = [context.Process(target=keep_and_delete, args=(tmp_path, 4)) for _ in range(2)]
    for other in others:
        other.start()
    for other in others:
        other.join(240)
        assert other.exitcode == 0
    assert list(place.store.scrub()) == []
    assert place.store.tags() == {}
    assert farms_of(place) == []


def test_a_snapshot_that_has_no_room_leaves_nothing(
    repository: Path, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Snapshots(Store(tmp_path / "store", quota=4096), tmp_path / "farms")
    prepared = make(repository)
    with pytest.raises(ResourceExhaustedError, match="quota"):
        keep(prepared, place)
    place = Snapshots(Store(tmp_path / "store"), tmp_path / "farms")
    with (inside(prepared) / "sparse").open("wb") as sparse:
        sparse.truncate(2**33)
    full = os.statvfs_result((4096, 4096, 9, 9, 9, 9, 9, 9, 0, 255))
    monkeypatch.setattr("os.statvfs", lambda _: full)
    with pytest.raises(ResourceExhaustedError, match="room"):
        keep(prepared, place)
    assert list(place.store.walk()) == []
    assert place.store.ingests() == {}


def test_other_programs_read_a_snapshot(
    repository: Path, make: Make, place: Snapshots, tmp_path: Path
) -> None:
    for tool in ("skopeo", "umoci"):
        if shutil.which(tool) is None:
            missing(f"{tool} is not installed: apt-get install {tool}")
    kept = keep(make(repository), place)
    (name,) = place.store.tags()
    said = subprocess.run(
        ["skopeo", "inspect", f"oci:{place.store.root}:{name}"],
        check=True, capture_output=True, timeout=60,
    ).stdout  # fmt: skip
    assert json.loads(said)["Digest"] == kept.digest
    assert json.loads(said)["Labels"] == {KIND: "workspace"}
    bundle = tmp_path / "bundle"
    rootless = [] if os.geteuid() == 0 else ["--rootless"]
    subprocess.run(
        ["umoci", "unpack", *rootless, "--image", f"{place.store.root}:{name}", str(bundle)],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    assert snapshot(bundle / "rootfs") == snapshot(place.tree(kept.digest))


def test_forks_share_a_start_and_nothing_else(repository: Path, make: Make, tmp_path: Path) -> None:
    parent = make(repository)
    (inside(parent) / "README.md").write_text("parent\n")
    owner = repository.stat()
    directories = [tmp_path / "state" / f"fork-{number}" for number in range(3)]
    children = fork(parent, directories, For(owner.st_uid, owner.st_gid, privileged=False))
    assert all(snapshot(inside(child)) == snapshot(inside(parent)) for child in children)
    (inside(children[0]) / "src/code.py").write_text("first\n")
    (inside(parent) / "README.md").write_text("parent goes on\n")
    assert children[0].changes(since="parent").of("modified") == ("src/code.py",)
    assert children[0].changes().of("modified") == ("README.md", "src/code.py")
    assert len(children[1].changes(since="parent")) == 0
    parent.close()
    assert (inside(children[1]) / "README.md").read_text() == "parent\n"
    for directory in directories:
        clean(directory)
    assert only_kept(tmp_path / "state/.layers")
