"""An overlay gives what a copy gives, at once, limited, and with the owner that commands need."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from ringfence.digest.store import Store
from ringfence.errors import InvalidSpecError, PolicyDeniedError, StateError, UnsupportedError
from ringfence.workspace import For, Snapshots, apply, attach, clean, discard, fork, mounts
from ringfence.workspace.snapshot import verify
from tests.integration.workspace.conftest import Mount
from tests.unit.workspace.conftest import digest_of_tree, git, inside, keep, only_kept
from tests.unit.workspace.test_apply import change_all
from tests.unit.workspace.test_patch import apply_with_git, snapshot


def as_user(uid: int, place: Path, script: str) -> str:
    """Run a shell line in `place` as an ordinary user."""
    done = subprocess.run(
        ["sh", "-ec", script], cwd=place, user=uid, group=uid, extra_groups=[],
        capture_output=True, check=False, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("strategy", ["overlay", "copy"])
def test_the_patch_of_each_strategy_is_the_same(
    repository: Path, mounted: Mount, tmp_path: Path, strategy: str
) -> None:
    before = digest_of_tree(repository)
    pristine = tmp_path / "pristine"
    shutil.copytree(repository, pristine, symlinks=True)
    (pristine / ".env").unlink()
    prepared = mounted(repository, strategy=strategy)
    assert prepared.strategy == strategy
    change_all(inside(prepared))
    shutil.rmtree(inside(prepared) / "src")
    (inside(prepared) / "src").mkdir()
    (inside(prepared) / "src/other").write_text("the directory was made anew\n")
    changes = prepared.changes()
    assert changes.of("deleted") == ("run.sh", "src/data.bin")
    assert changes.of("renamed") == ("moved.py",)
    apply_with_git(prepared.patch().data, pristine)
    assert snapshot(pristine) == snapshot(inside(prepared))
    assert digest_of_tree(repository) == before
    apply(prepared)
    assert snapshot(repository).keys() - {".env"} == snapshot(inside(prepared)).keys()


@pytest.mark.parametrize("strategy", ["overlay", "copy"])
def test_a_tree_of_root_alone_works_for_an_ordinary_user(
    repository: Path, mounted: Mount, strategy: str, open_place: Path
) -> None:
    for path in [repository, *repository.rglob("*")]:
        if not path.is_symlink():
            path.chmod(0o700 if path.is_dir() else 0o600)
    before = digest_of_tree(repository)
    prepared = mounted(repository, strategy=strategy)
    assert prepared.strategy == strategy
    work = open_place / "bound"
    work.mkdir()
    subprocess.run(["mount", "--bind", inside(prepared), work], check=True)
    try:
        said = as_user(1000, work, "cat README.md; echo more >> README.md; mkdir d; stat -c %u d")
        assert said == "A project.\n1000\n"
        with pytest.raises(AssertionError):
            as_user(1001, work, "cat README.md")
    finally:
        subprocess.run(["umount", work], check=True)
    assert prepared.changes().of("modified") == ("README.md",)
    assert digest_of_tree(repository) == before


@pytest.mark.parametrize("strategy", ["overlay", "copy"])
def test_what_is_written_is_limited(repository: Path, mounted: Mount, strategy: str) -> None:
    prepared = mounted(repository, strategy=strategy, size="16m")
    with pytest.raises(OSError, match="No space left"):
        (inside(prepared) / "big").write_bytes(b"\1" * (18 << 20))
    assert (inside(prepared) / "big").stat().st_size > 12 << 20
    (inside(prepared) / "big").unlink()
    (inside(prepared) / "small").write_bytes(b"\1" * (8 << 20))
    assert prepared.changes().of("added") == ("small",)


def test_no_mount_of_a_workspace_has_devices_or_set_user_id(
    repository: Path, mounted: Mount, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the host, too, where somebody may find the way into one."""
    made = [mounted(repository), mounted(repository, mode="rw")]
    monkeypatch.setattr(mounts, "_ext4", lambda *args: False)
    made.append(mounted(repository))
    places = {str(place) for one in made for place in mounts.mounted_below(one.directory)}
    lines = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    options = {line[4]: set(line[5].split(",")) for line in lines if line[4] in places}
    assert len(options) == 7  # mapped, writable and merged, two times, and one that is mapped
    assert [place for place, found in options.items() if not {"nosuid", "nodev"} <= found] == []


def test_a_tmpfs_stands_in_where_there_are_no_loop_devices(
    repository: Path, mounted: Mount, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mounts, "_ext4", lambda *args: False)
    prepared = mounted(repository, strategy="overlay", size="4m")
    with pytest.raises(OSError, match="No space left"):
        (inside(prepared) / "big").write_bytes(b"\1" * (8 << 20))


def test_what_appears_in_the_original_later_is_not_seen(repository: Path, mounted: Mount) -> None:
    prepared = mounted(repository, strategy="overlay")
    (repository / "src").rename(repository / "moved")
    (repository / "src").mkdir()
    (repository / "src/.env.local").write_text("SECRET\n")
    (repository / "later").write_text("later\n")
    assert {path.name for path in inside(prepared).iterdir()} == {
        ".git", "README.md", "link", "run.sh", "src",
    }  # fmt: skip
    assert not (inside(prepared) / "src/.env.local").exists()
    assert len(prepared.changes()) == 0


def test_discard_snapshot_and_fork_on_an_overlay(
    repository: Path, mounted: Mount, tmp_path: Path
) -> None:
    prepared = mounted(repository)
    assert prepared.strategy == "overlay"
    start = snapshot(inside(prepared))
    change_all(inside(prepared))
    shutil.rmtree(inside(prepared) / "src")
    (inside(prepared) / "src").mkdir()
    place = Snapshots(Store(tmp_path / "store"), tmp_path / "farms")
    kept = keep(prepared, place)
    verify(kept.digest, place)
    tree = place.tree(kept.digest)
    assert snapshot(tree) == snapshot(inside(prepared))
    for path in inside(prepared).rglob("*"):
        assert (tree / path.relative_to(inside(prepared))).lstat().st_uid == path.lstat().st_uid
    assert (tree / "README.md").stat().st_uid == 1000
    directories = [tmp_path / "state" / f"fork-{number}" for number in range(2)]
    one, other = fork(prepared, directories, For(1000, 1000, privileged=True))
    assert snapshot(inside(one)) == snapshot(inside(prepared))
    assert (inside(one) / "README.md").stat().st_uid == 1000
    (inside(one) / "README.md").write_text("mine\n")
    assert one.changes(since="parent").of("modified") == ("README.md",)
    assert len(other.changes(since="parent")) == 0
    assert set(other.changes()) == set(prepared.changes())
    discard(one)
    assert snapshot(inside(one)) == snapshot(inside(other))
    discard(prepared)
    assert snapshot(inside(prepared)) == start
    assert git(inside(prepared), "status", "--porcelain").strip() == ""
    prepared.close()
    assert (inside(other) / "README.md").read_text() == "Changed.\n"
    for directory in directories:
        clean(directory)
    assert only_kept(tmp_path / "state/.layers")


def test_what_a_killed_client_leaves_is_cleaned_by_another(
    repository: Path, mounted: Mount
) -> None:
    prepared = mounted(repository)
    record = prepared.record()
    assert attach(record) == prepared
    assert mounts.mounted_below(prepared.directory)
    clean(record)
    clean(record)
    assert not mounts.mounted_below(prepared.directory)
    assert not prepared.directory.exists()
    assert (repository / "README.md").read_text() == "A project.\n"


def test_a_mount_that_stays_is_never_removed_through(
    repository: Path, mounted: Mount, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = mounted(repository, mode="rw")
    monkeypatch.setattr(mounts, "unmount", lambda place: None)
    with pytest.raises(StateError, match="cannot be unmounted"):
        prepared.close()
    monkeypatch.undo()
    assert (repository / "README.md").read_text() == "A project.\n"
    prepared.close()
    assert (repository / "README.md").read_text() == "A project.\n"


def test_binds_cover_what_is_hidden_and_everything_called_git(
    repository: Path, mounted: Mount
) -> None:
    (repository / "vendor/.git").mkdir(parents=True)
    (repository / "vendor/.git/config").write_text("token\n")
    (repository / "keys").mkdir()
    for mode in ("ro", "rw"):
        prepared = mounted(repository, mode=mode, exclude=("keys/",))
        seen = {bind.destination: bind for bind in prepared.binds}
        assert seen["/workspace"].read_only is (mode == "ro")
        assert set(seen) == {
            "/workspace", "/workspace/.env", "/workspace/keys", "/workspace/.git",
            "/workspace/vendor/.git",
        }  # fmt: skip
        assert Path(seen["/workspace/.env"].source).read_bytes() == b""
        assert not list(Path(seen["/workspace/keys"].source).iterdir())
        assert not list(Path(seen["/workspace/vendor/.git"].source).iterdir())
        assert all(bind.read_only for path, bind in seen.items() if path != "/workspace")
        built = Path(seen["/workspace/.git"].source)
        assert built != repository / ".git"
        assert git(built, "log", "--format=%s").strip() == "first"
    with pytest.raises(StateError, match="rw"):
        prepared.changes()
    (repository / "sub").mkdir()
    (repository / "sub/.git").symlink_to("../vendor/.git")
    with pytest.raises(PolicyDeniedError, match=r"sub/\.git"):
        mounted(repository, mode="rw")


def test_writes_through_rw_have_the_owner_of_the_original(repository: Path, mounted: Mount) -> None:
    prepared = mounted(repository, mode="rw")
    work = Path(prepared.binds[0].source)
    os.chown(work / "README.md", 1000, 1000)
    (work / "fresh").touch()
    os.chown(work / "fresh", 1000, 1000)
    assert (work / "fresh").stat().st_uid == 1000
    assert (repository / "fresh").stat().st_uid == os.geteuid()
    assert (repository / "README.md").stat().st_uid == os.geteuid()


def test_what_is_mounted_read_only_is_not_taken_for_writable(
    repository: Path, mounted: Mount, open_place: Path
) -> None:
    place = open_place / "seen"
    place.mkdir()
    for options in (["--bind"], ["-o", "remount,bind,ro"]):
        subprocess.run(["mount", *options, repository, place], check=True, timeout=60)
    with pytest.raises(InvalidSpecError, match="read-only"):
        mounted(place, mode="rw")
    assert mounted(place, mode="ro").binds
    prepared = mounted(place)
    assert prepared.merged is not None
    (prepared.merged / "README.md").write_text("Changed.\n")
    with pytest.raises(InvalidSpecError, match="Read-only file system; make the dir"):
        apply(prepared)
    assert (repository / "README.md").read_text() == "A project.\n"


def test_a_file_system_inside_that_a_mapped_bind_would_not_show_is_refused(
    repository: Path, mounted: Mount
) -> None:
    place = repository / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", place], check=True, timeout=60)
    try:
        (place / "file").write_text("seen\n")
        for mode in ("ro", "rw"):
            with pytest.raises(UnsupportedError, match="disk"):
                mounted(repository, mode=mode)
            mounted(repository, mode=mode, exclude=("/disk",))
        assert (inside(mounted(repository)) / "disk/file").read_text() == "seen\n"
    finally:
        subprocess.run(["umount", "-l", place], check=True, timeout=60)
