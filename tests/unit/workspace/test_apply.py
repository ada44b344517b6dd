"""Changes go into the original whole or not at all, and never into one that moved."""

import errno
import fcntl
import gc
import os
import shutil
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ringfence.errors import (
    AlreadyExistsError,
    InvalidSpecError,
    NotFoundError,
    PolicyDeniedError,
    ResourceExhaustedError,
    StateError,
    UnsupportedError,
)
from ringfence.workspace import (
    Prepared,
    application,
    apply,
    attach,
    checking,
    clean,
    discard,
    download,
)
from ringfence.workspace.application import Application, alone, settle
from ringfence.workspace.changes import Changes, compare
from ringfence.workspace.layers import Layers
from tests.conftest import give
from tests.unit.workspace.conftest import Make, digest_of_tree, git, inside
from tests.unit.workspace.test_patch import snapshot


def change_all(work: Path) -> None:
    (work / "src/code.py").rename(work / "moved.py")
    (work / "README.md").write_text("Changed.\n")
    (work / "run.sh").unlink()
    (work / "run.sh").mkdir()
    (work / "run.sh/inner").write_text("a file became a directory\n")
    (work / "link").unlink()
    (work / "link").symlink_to("moved.py")
    (work / "src/data.bin").chmod(0o755)


def test_apply_gives_the_original_what_the_workspace_has(repository: Path, make: Make) -> None:
    prepared = make(repository)
    change_all(inside(prepared))
    again = attach(prepared.record())
    apply(again)
    kept = snapshot(repository)
    assert kept.pop(".env") == ("file", b"TOKEN=hunter2\n")
    assert kept == snapshot(inside(prepared))
    assert not list(repository.glob(".ringfence*"))
    assert len(prepared.changes()) > 0


def test_new_directories_are_whose_the_one_above_is(repository: Path, make: Make) -> None:
    give(repository)
    prepared = make(repository)
    (inside(prepared) / "src/fresh/deep").mkdir(parents=True)
    (inside(prepared) / "src/fresh/deep/file").write_text("x")
    apply(prepared)
    whose = (repository / "src").stat()
    for name in ("fresh", "fresh/deep", "fresh/deep/file"):
        found = (repository / "src" / name).stat()
        assert (found.st_uid, found.st_gid) == (whose.st_uid, whose.st_gid), name


def test_what_changes_in_the_sandbox_while_it_is_applied_is_not_applied(
    repository: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even where it is as long as what was compared."""
    prepared = make(repository)
    (inside(prepared) / "README.md").write_text("Changed.\n")

    def turn(_: int) -> None:
        (inside(prepared) / "README.md").write_text("Changes.\n")

    before = snapshot(repository)
    with monkeypatch.context() as patched:
        patched.setitem(apply.__globals__, "turn", turn)
        with pytest.raises(StateError, match="meanwhile"):
            apply(prepared)
    assert snapshot(repository) == before
    apply(prepared)
    assert (repository / "README.md").read_text() == "Changes.\n"


@pytest.mark.parametrize(
    "how",
    ["edited", "edited in place", "deleted", "appeared", "link", "chmod", "replaced, other mode"],
)
def test_apply_refuses_an_original_that_moved(repository: Path, make: Make, how: str) -> None:
    prepared = make(repository)
    work = inside(prepared)
    (work / "README.md").write_text("Changed.\n")
    (work / "new").write_text("new\n")
    if how == "edited":
        (repository / "other").write_text("Edited.\n")
        (repository / "other").rename(repository / "README.md")
    elif how == "edited in place":
        (repository / "README.md").write_text("Edited.\n")
    elif how == "deleted":
        (repository / "README.md").unlink()
    elif how == "appeared":
        (repository / "new").write_text("mine\n")
    elif how == "chmod":
        (repository / "README.md").chmod(0o600)
    elif how == "replaced, other mode":
        shutil.copy2(repository / "README.md", repository / "other")
        (repository / "other").rename(repository / "README.md")
        (repository / "README.md").chmod(0o600)
    else:
        (repository / "README.md").unlink()
        (repository / "README.md").symlink_to("/etc/hostname")
    before = digest_of_tree(repository)
    with pytest.raises(StateError) as caught:
        apply(prepared)
    assert caught.value.context["path"] in ("README.md", "new")
    assert digest_of_tree(repository) == before


def test_apply_takes_no_place_that_somebody_else_took(repository: Path, make: Make) -> None:
    prepared = make(repository)
    (inside(prepared) / "src/code.py").rename(inside(prepared) / "moved.py")
    (repository / "moved.py").write_text("somebody's\n")
    before = digest_of_tree(repository)
    with pytest.raises(StateError, match=r"moved\.py: it exists in the repository"):
        apply(prepared)
    assert digest_of_tree(repository) == before


@pytest.mark.parametrize("kind", ["file", "link"])
def test_apply_goes_below_nothing_but_directories(
    repository: Path, make: Make, tmp_path: Path, kind: str
) -> None:
    prepared = make(repository)
    (inside(prepared) / "new/er").mkdir(parents=True)
    (inside(prepared) / "new/er/file").touch()
    (tmp_path / "outside").mkdir()
    if kind == "file":
        (repository / "new").touch()
    else:
        (repository / "new").symlink_to(tmp_path / "outside")
    before = digest_of_tree(repository)
    with pytest.raises(StateError, match="new: it is no directory"):
        apply(prepared)
    assert digest_of_tree(repository) == before
    assert not list((tmp_path / "outside").iterdir())


def test_apply_puts_things_where_others_go_away(repository: Path, make: Make) -> None:
    """A file that moves into a directory of its name, and one that becomes a link."""
    prepared = make(repository)
    work = inside(prepared)
    (work / "src/code.py").rename(work / "moving")
    (work / "src/code.py").mkdir()
    (work / "moving").rename(work / "src/code.py/inner")
    (work / "README.md").unlink()
    (work / "README.md").symlink_to("run.sh")
    apply(prepared)
    assert snapshot(repository / "src") == snapshot(work / "src")
    assert (repository / "README.md").readlink() == Path("run.sh")


def test_a_mode_that_changed_after_an_application_is_told_by_the_next(
    repository: Path, make: Make
) -> None:
    prepared = make(repository)
    (inside(prepared) / "README.md").write_text("Changed.\n")
    (inside(prepared) / "new").write_text("new\n")
    apply(prepared)
    (repository / "run.sh").chmod(0o700)  # the sandbox has nothing to do with it
    (repository / "new").chmod(0o600)
    (inside(prepared) / "README.md").write_text("Changed again.\n")
    apply(prepared)
    (inside(prepared) / "new").write_text("newer\n")
    with pytest.raises(StateError, match="mode") as caught:
        apply(prepared)
    assert caught.value.context["path"] == "new"
    assert (repository / "new").read_text() == "new\n"
    assert (repository / "run.sh").stat().st_mode & 0o777 == 0o700


_ANY = 0xFFFFFFFF
"""Of an entry of an ACL that names nobody."""


def acl(*entries: tuple[int, int, int]) -> bytes:
    """An access control list as the kernel has it: tag, permissions and id of each entry."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def test_a_file_keeps_its_attributes_and_access_control_list(repository: Path, make: Make) -> None:
    """Without the list its mode would give the group what only a named user had."""
    listed = acl((1, 6, _ANY), (2, 6, 65534), (4, 4, _ANY), (16, 6, _ANY), (32, 0, _ANY))
    inherited = acl((1, 7, _ANY), (2, 7, 65534), (4, 5, _ANY), (16, 7, _ANY), (32, 5, _ANY))
    try:
        os.setxattr(repository / "README.md", "user.note", b"kept")
        os.setxattr(repository / "README.md", "system.posix_acl_access", listed)
        os.setxattr(repository, "system.posix_acl_default", inherited)
    except OSError as error:
        pytest.skip(f"this file system has none: {error}")
    prepared = make(repository)
    (inside(prepared) / "README.md").write_text("Changed.\n")
    (inside(prepared) / "src/code.py").write_text("changed\n")
    apply(prepared)
    assert (repository / "README.md").read_text() == "Changed.\n"
    assert os.getxattr(repository / "README.md", "user.note") == b"kept"
    assert os.getxattr(repository / "README.md", "system.posix_acl_access") == listed
    assert os.listxattr(repository / "src/code.py") == []
    assert (repository / "src/code.py").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EPERM, errno.ENOSPC])
@pytest.mark.parametrize("call", ["setxattr", "removexattr"])
def test_an_attribute_that_cannot_be_given_is_named_before_anything_is_applied(
    repository: Path, make: Make, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    """As on a file system that was mounted without them since. No directory is at fault."""
    name = {"setxattr": "user.note", "removexattr": "system.posix_acl_access"}[call]
    prepared = make(repository)
    (inside(prepared) / "README.md").write_text("Changed.\n")
    (inside(prepared) / "src/code.py").write_text("changed\n")
    before = snapshot(repository)
    lists = iter([["user.note"], []] if call == "setxattr" else [[], [name]])

    def refused(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "listxattr", lambda _: next(lists))
    monkeypatch.setattr(os, "getxattr", lambda *_: b"kept")
    monkeypatch.setattr(os, call, refused)
    full = number == errno.ENOSPC
    with pytest.raises(ResourceExhaustedError if full else StateError) as caught:
        apply(prepared)
    if not full:
        assert f"README.md: {name} cannot be kept" in str(caught.value)
    assert caught.value.context["path"] == "README.md"
    assert snapshot(repository) == before
    assert not list(repository.glob(".ringfence*"))


def test_modes_by_choice_are_none_of_the_original_s(repository: Path, make: Make) -> None:
    """The sandbox saw others, so that there is nothing to compare with; each keeps its own."""
    prepared = make(repository, file_mode=0o666)
    (repository / "README.md").chmod(0o640)
    for number in range(2):
        (inside(prepared) / "README.md").write_text(f"Changed {number}.\n")
        (inside(prepared) / "run.sh").write_text(f"echo {number}\n")
        apply(attach(prepared.record()))
    assert (repository / "README.md").stat().st_mode & 0o777 == 0o640
    assert (repository / "run.sh").stat().st_mode & 0o777 == 0o755


def deepest(root: Path, *, made: bool) -> int:
    """A descriptor of a directory whose path below `root` has 3,959 bytes."""
    directory = os.open(root, os.O_RDONLY)
    for _ in range(20):
        if made:
            os.mkdir("x" * 197, dir_fd=directory)
        below = os.open("x" * 197, os.O_RDONLY, dir_fd=directory)
        os.close(directory)
        directory = below
    return directory


def test_what_is_at_a_path_too_long_to_be_carried_is_refused_and_stays(
    repository: Path, make: Make
) -> None:
    """It was taken for deleted, and deleted in the original."""
    names = {letter: letter * 100 for letter in "abc"}
    original = deepest(repository, made=True)
    for name in names.values():
        os.close(os.open(name, os.O_CREAT, dir_fd=original))
    os.mkdir("d" * 100, dir_fd=original)
    prepared = make(repository)
    work = deepest(inside(prepared), made=False)
    for name in (names["a"], "new" * 30):
        with os.fdopen(os.open(name, os.O_CREAT | os.O_WRONLY, dir_fd=work), "w") as file:
            file.write("written inside\n")
    os.unlink(names["b"], dir_fd=work)
    os.mkdir(f"{'d' * 100}/below", dir_fd=work)
    os.mkdir("e" * 100, dir_fd=work)
    (inside(prepared) / "README.md").write_text("Changed.\n")
    changes = apply(prepared)
    assert [(change.kind, change.path) for change in changes] == [("modified", "README.md")]
    refused = {path.rpartition("/")[2]: reason for path, reason in changes.refused.items()}
    assert refused.keys() == {names["a"], names["b"], "new" * 30, "d" * 100, "e" * 100}
    assert all("4000 bytes" in reason for reason in refused.values())
    with os.scandir(original) as left:
        assert {entry.name for entry in left} == {*names.values(), "d" * 100}
    assert b"README.md" in prepared.patch().data
    os.close(original)
    os.close(work)


def test_apply_never_replaces_a_hidden_file(repository: Path, make: Make) -> None:
    prepared = make(repository)
    (inside(prepared) / ".env").write_text("TOKEN=stolen\n")
    with pytest.raises(StateError, match=r"\.env"):
        apply(prepared)
    assert (repository / ".env").read_text() == "TOKEN=hunter2\n"


def test_apply_makes_no_link_out_of_the_repository(repository: Path, make: Make) -> None:
    prepared = make(repository)
    (inside(prepared) / "README.md").write_text("Changed.\n")
    (inside(prepared) / "way-out").symlink_to("/etc/passwd")
    before = snapshot(repository)
    with pytest.raises(PolicyDeniedError, match="way-out"):
        apply(prepared)
    assert snapshot(repository) == before


def test_a_failure_half_way_is_undone(
    repository: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = make(repository)
    change_all(inside(prepared))
    (inside(prepared) / "fresh/deep").mkdir(parents=True)
    (inside(prepared) / "fresh/deep/file").write_text("x")
    before, places = snapshot(repository), sorted(repository.rglob("*"))
    real, calls = os.link, []

    def link(*args: object, **kwargs: object) -> None:
        calls.append(args)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        real(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(ResourceExhaustedError):
        apply(prepared)
    assert snapshot(repository) == before
    assert sorted(repository.rglob("*")) == places


def test_a_directory_that_was_emptied_comes_back_as_it_was(
    repository: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repository / "only/deep").mkdir(parents=True)
    (repository / "only/deep/file").write_text("x")
    give(repository / "only")
    (repository / "only").chmod(0o751)
    (repository / "only/deep").chmod(0o1770)
    prepared = make(repository)
    shutil.rmtree(inside(prepared) / "only")
    (inside(prepared) / "fresh").write_text("y")

    def facts() -> dict[str, tuple[int, int, int]]:
        return {
            str(path): (path.stat().st_mode, path.stat().st_uid, path.stat().st_gid)
            for path in repository.glob("only/**/*")
        } | {"only": (repository.joinpath("only").stat().st_mode, 0, 0)}

    def full(*_: object, **__: object) -> None:
        assert not (repository / "only").exists()
        raise OSError(errno.ENOSPC, "No space left on device")

    before = facts()
    with monkeypatch.context() as patched:
        patched.setattr(os, "link", full)
        with pytest.raises(ResourceExhaustedError):
            apply(prepared)
    assert facts() == before
    apply(prepared)
    assert not (repository / "only").exists()


def test_no_descriptor_stays_open(repository: Path, make: Make, tmp_path: Path) -> None:
    """Of what is looked at, staged, applied, downloaded, discarded and removed; a process opens
    thousands of sandboxes."""

    def all_of_it(name: str) -> None:
        prepared = make(repository, gitignore=True, exclude=("hidden/",))
        (inside(prepared) / "README.md").write_text(f"{name}\n")
        apply(prepared)
        download(prepared, ["src"], tmp_path / name)
        discard(prepared)
        clean(prepared.record())

    def opened() -> Counter[str]:
        gc.collect()  # what an earlier test left is closed before
        there = (path for path in Path("/proc/self/fd").iterdir() if path.exists())
        return Counter(str(path.readlink()) for path in there)

    (repository / "hidden/below").mkdir(parents=True)
    (repository / "hidden/one").hardlink_to(repository / "run.sh")
    (repository / "src/.gitignore").write_text("*.log\n")
    all_of_it("first")
    before = opened()
    all_of_it("second")
    assert not opened() - before


def test_where_no_hard_link_can_be_made_nothing_is_applied_and_the_patch_is_advised(
    repository: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on vfat."""
    prepared = make(repository)
    change_all(inside(prepared))
    before = snapshot(repository)

    def link(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(StateError, match="git apply"):
        apply(prepared)
    assert snapshot(repository) == before
    assert not list(repository.glob(".ringfence*"))


@pytest.mark.parametrize("when", ["write", "replace"])
def test_without_room_for_its_record_nothing_is_applied(
    repository: Path, make: Make, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """The error says so, and once there is room everything can be applied, and applied again."""
    prepared = make(repository)
    change_all(inside(prepared))
    before = snapshot(repository)
    real = {"write": Path.write_text, "replace": Path.replace}[when]

    def full(path: Path, *args: object, **kwargs: object) -> object:
        if path.name.startswith("applied.json"):
            path.touch()
            raise OSError(28, "No space left on device", str(path))
        return real(path, *args, **kwargs)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text" if when == "write" else "replace", full)
        with pytest.raises(ResourceExhaustedError, match="No space left"):
            apply(prepared)
    assert snapshot(repository) == before
    assert not list(repository.glob(".ringfence*"))
    assert not list(prepared.directory.glob("applied*"))
    assert len(apply(prepared)) > 0
    assert len(apply(prepared)) == 0


def test_discard_puts_everything_back(repository: Path, make: Make) -> None:
    prepared = make(repository)
    work = inside(prepared)
    before = snapshot(work)
    change_all(work)
    git(work, "add", "-A")
    git(work, "commit", "-q", "-m", "inside")
    assert len(discard(prepared)) > 0
    assert snapshot(work) == before
    assert len(prepared.changes()) == 0
    assert git(work, "log", "--format=%s").strip() == "first"
    assert git(work, "status", "--porcelain").strip() == ""
    (work / "README.md").write_text("again\n")
    assert prepared.changes().of("modified") == ("README.md",)


def test_discard_puts_owners_modes_and_times_back(repository: Path, make: Make) -> None:
    give(repository)
    (repository / "src/code.py").chmod(0o640)
    prepared = make(repository)
    place = inside(prepared) / "src/code.py"

    def facts() -> tuple[int, ...]:
        found = place.stat()
        return found.st_uid, found.st_gid, found.st_mode, found.st_mtime_ns

    before = facts()
    shutil.rmtree(place.parent)
    discard(prepared)
    assert facts() == before


@pytest.mark.parametrize("call", ["mkdir", "rename", "link"])
def test_an_original_that_may_not_be_written_is_told_so(
    repository: Path, make: Make, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """It is not to be made readable: it is."""
    prepared = make(repository)
    (inside(prepared) / "src/new").write_text("new\n")
    (inside(prepared) / "src/code.py").write_text("changed\n")
    before = snapshot(repository)

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, denied)
        with pytest.raises(InvalidSpecError, match="make the directory writable") as caught:
            apply(prepared)
    assert "readable" not in str(caught.value)
    assert caught.value.context["path"] in (str(repository), "src/code.py", "src/new")
    assert snapshot(repository) == before


def test_a_destination_that_cannot_be_used_is_told_so(
    repository: Path, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = make(repository)
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file/below"):
        with pytest.raises(AlreadyExistsError, match=f"{place} .* no directory"):
            download(prepared, ["README.md"], place)

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    for call in ("mkdir", "rename"):
        with monkeypatch.context() as patch:
            patch.setattr(os, call, denied)
            with pytest.raises(InvalidSpecError, match="make the directory writable"):
                download(prepared, ["README.md"], tmp_path / f"target-{call}")
    assert not list(tmp_path.glob("target-*/*"))


@pytest.mark.parametrize("call", ["find", "open"])
def test_what_may_not_be_read_of_the_workspace_is_told_so(
    repository: Path, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """No directory is to be made writable for that."""
    prepared = make(repository)
    (inside(prepared) / "src/code.py").write_text("changed\n")
    real = getattr(Layers, call)
    changes = prepared.changes()

    def denied(layers: Layers, path: str, *rest: object) -> object:
        if path == "src/code.py":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(layers, path, *rest)

    monkeypatch.setattr(Prepared, "changes", lambda *_, **__: changes)
    monkeypatch.setattr(Layers, call, denied)
    for bring in (apply, lambda one: download(one, ["src"], tmp_path / "target")):
        with pytest.raises(InvalidSpecError, match="make it readable") as caught:
            bring(prepared)
        assert "writable" not in str(caught.value)
        assert caught.value.context["path"] == "src/code.py"


def test_a_file_that_cannot_be_made_at_the_destination_is_not_to_be_made_readable(
    repository: Path, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = make(repository)
    real = os.open

    def denied(path: str, flags: int, *rest: int, **fields: int) -> int:
        if flags & os.O_CREAT and path == "README.md":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return real(path, flags, *rest, **fields)

    monkeypatch.setattr(os, "open", denied)
    with pytest.raises(InvalidSpecError, match="make the directory writable"):
        download(prepared, ["README.md"], tmp_path / "target")


def test_download_copies_what_is_named_and_follows_nothing(
    repository: Path, make: Make, tmp_path: Path
) -> None:
    prepared = make(repository)
    work = inside(prepared)
    (work / "out").mkdir()
    (work / "out/report").write_text("fine\n")
    (work / "out/report").chmod(0o4777)
    (work / "out/shadow").symlink_to("/etc/shadow")
    (work / "out/near").symlink_to("report")
    (work / "out/.env").write_text("patterns choose what goes in alone\n")
    os.mkfifo(work / "out/pipe")
    target = tmp_path / "target"
    assert set(download(prepared, ["out", "README.md"], target)) == {
        "out/report", "out/near", "out/.env", "README.md",
    }  # fmt: skip
    assert "out/.env" in prepared.changes().of("added")
    assert (target / "out/report").read_text() == "fine\n"
    assert (target / "out/report").stat().st_mode & 0o7777 == 0o755
    assert not (target / "out/shadow").is_symlink()
    assert (target / "out/near").readlink() == Path("report")
    with pytest.raises(AlreadyExistsError):
        download(prepared, ["README.md"], target)
    for outside in ("../x", "/etc/passwd", "nothing", "out/shadow/x"):
        with pytest.raises(NotFoundError):
            download(prepared, [outside], tmp_path / "other")
    with (work / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ResourceExhaustedError, match="sparse"):
        download(prepared, ["sparse"], tmp_path / "other", max_bytes=1 << 20)
    with pytest.raises(ResourceExhaustedError, match="sparse"):
        prepared.changes(max_bytes=1 << 20)
    assert list((tmp_path / "other").iterdir()) == []


def test_download_brings_no_directory_of_git_s_to_the_host(
    repository: Path, make: Make, tmp_path: Path
) -> None:
    """The sandbox could write its hooks and its configuration, which a git here would obey."""
    prepared = make(repository)
    for name in ("out/.git", "out/deep/.GIT"):
        (inside(prepared) / name).mkdir(parents=True)
        (inside(prepared) / name / "config").write_text("[core]\n\tfsmonitor = evil\n")
    (inside(prepared) / "out/deep/file").touch()
    target = tmp_path / "target"
    assert download(prepared, ["out"], target) == ["out/deep/file"]
    assert sorted(path.name for path in target.rglob("*")) == ["deep", "file", "out"]
    for path in (".git", "out/.git/config", "out/deep/.GIT"):
        with pytest.raises(PolicyDeniedError, match="git's own"):
            download(prepared, [path], tmp_path / "other")


def test_download_refuses_a_directory_whose_path_is_too_long_to_look_into(
    repository: Path, make: Make, tmp_path: Path
) -> None:
    """What was below it was left out, and nobody was told."""
    prepared = make(repository)
    work = deepest(inside(prepared), made=True)
    for name in ("f" * 100, "d" * 40):
        os.mkdir(name, dir_fd=work)
        os.close(os.open(f"{name}/file", os.O_CREAT, dir_fd=work))
    os.close(work)
    top = "x" * 197
    target = tmp_path / "target"
    with pytest.raises(UnsupportedError, match="over 4000 bytes") as caught:
        download(prepared, [top], target)
    assert caught.value.context["path"].endswith("/" + "f" * 100)
    assert list(target.iterdir()) == []
    fits = f"{'/'.join([top] * 20)}/{'d' * 40}"
    assert download(prepared, [fits], target) == [f"{fits}/file"]


def test_apply_goes_on_where_it_stopped(repository: Path, make: Make) -> None:
    prepared = make(repository)
    work = inside(prepared)
    change_all(work)
    apply(prepared)
    before = digest_of_tree(repository)
    assert len(apply(attach(prepared.record()))) == 0
    assert digest_of_tree(repository) == before
    (work / "README.md").write_text("Changed again.\n")
    (work / "moved.py").rename(work / "moved-on.py")
    (work / "run.sh/inner").unlink()
    (work / "run.sh").rmdir()
    (work / "run.sh").write_text("#!/bin/sh\necho run\n")
    (work / "run.sh").chmod(0o755)
    (work / "src/data.bin").chmod(0o644)
    (work / "fresh").write_text("fresh\n")
    done = apply(attach(prepared.record()))
    assert "run.sh" in [change.path for change in done]
    kept = snapshot(repository)
    kept.pop(".env")
    assert kept == snapshot(work)
    assert (repository / "src/data.bin").stat().st_mode & 0o777 == 0o644


def test_what_is_carried_nowhere_is_named_by_each_application(repository: Path, make: Make) -> None:
    prepared = make(repository)
    os.mkfifo(inside(prepared) / "pipe")
    for text in ("Changed.\n", "Changed again.\n"):
        (inside(prepared) / "README.md").write_text(text)
        done = apply(prepared)
        assert (len(done), list(done.refused)) == (1, ["pipe"])


def test_apply_again_refuses_what_somebody_else_changed_meanwhile(
    repository: Path, make: Make
) -> None:
    prepared = make(repository)
    (inside(prepared) / "README.md").write_text("Changed.\n")
    apply(prepared)
    (repository / "README.md").write_text("Mine.\n")
    (inside(prepared) / "README.md").write_text("Changed again.\n")
    with pytest.raises(StateError, match=r"README\.md"):
        apply(prepared)
    assert (repository / "README.md").read_text() == "Mine.\n"


def test_what_was_applied_stays_when_the_workspace_is_discarded(
    repository: Path, make: Make
) -> None:
    prepared = make(repository)
    work = inside(prepared)
    (work / "README.md").write_text("Changed.\n")
    apply(prepared)
    discard(prepared)
    (work / "fresh").write_text("fresh\n")
    apply(prepared)
    assert (repository / "README.md").read_text() == "Changed.\n"
    assert (repository / "fresh").exists()
    (work / "README.md").write_text("Once more.\n")
    with pytest.raises(StateError, match=r"README\.md"):
        apply(prepared)


STEPS = ("mkdir", "rename", "link", "rmdir", "unlink", "replace")


def killed_at(step: int, prepared: Prepared) -> bool:
    """Apply in a process that is gone just before that step of its own; whether it came so far."""
    child = os.fork()
    if child == 0:
        left = step

        def counted(real: Callable[..., object]) -> Callable[..., object]:
            def call(*args: object, **kwargs: object) -> object:
                nonlocal left
                left -= 1
                if left < 0:
                    os._exit(9)
                return real(*args, **kwargs)

            return call

        for name in STEPS:
            setattr(os, name, counted(getattr(os, name)))
        try:
            apply(prepared)
            os._exit(0)
        except BaseException:
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, 9)
    return status == 9


@pytest.mark.parametrize("after", ["apply", "close"])
def test_what_a_killed_client_had_half_applied_is_undone_by_the_next(
    repository: Path, make: Make, after: str
) -> None:
    """At each of its steps: applied again all is in place, and a workspace that goes leaves the
    original as it was, or as it is once all was in place."""
    step, undone = 0, 0
    for step in range(100):
        work = repository.with_name(f"copy-{step}")
        shutil.copytree(repository, work, symlinks=True, ignore=shutil.ignore_patterns(".git"))
        before = snapshot(work)
        prepared = make(work)
        change_all(inside(prepared))
        wanted = {**snapshot(inside(prepared)), ".env": before[".env"]}
        killed = killed_at(step, prepared)
        if after == "apply":
            apply(attach(prepared.record()))
            assert snapshot(work) == wanted
        else:
            clean(prepared.record())
            assert snapshot(work) in (before, wanted)
            undone += snapshot(work) == before
        assert not list(work.glob(".ringfence*"))
        if not killed:
            break
    assert 15 < step < 99
    assert after == "apply" or 10 < undone < step


def test_undoing_takes_nothing_that_somebody_put_in_the_way(repository: Path, make: Make) -> None:
    prepared = make(repository)
    half_applied(repository, prepared)
    (repository / "README.md").write_text("Mine.\n")
    with pytest.raises(StateError, match=r"README\.md is in the way"):
        apply(prepared)
    assert (repository / "README.md").read_text() == "Mine.\n"
    kept = next(repository.glob(".ringfence-apply-*/old-*"))
    assert kept.read_text() == "A project.\n"
    (repository / "README.md").unlink()
    apply(prepared)
    assert (repository / "README.md").read_text() == "Changed.\n"
    assert not list(repository.glob(".ringfence*"))


def half_applied(repository: Path, prepared: Prepared) -> None:
    """Change README.md, and die between moving the old one away and placing the new one."""
    (inside(prepared) / "README.md").write_text("Changed.\n")
    step = 0
    while (repository / "README.md").exists():
        settle(prepared.directory)
        assert killed_at(step, prepared)
        step += 1


def test_a_record_that_was_being_written_when_the_client_was_killed_is_none(
    repository: Path, make: Make
) -> None:
    prepared = make(repository)
    (inside(prepared) / "fresh").touch()
    (prepared.directory / "applied.json.new").write_text('{"version": 2, "sta')
    assert len(apply(prepared)) == 1
    (prepared.directory / "applied.json.new").write_text('{"version": 2, "sta')
    clean(prepared.record())
    assert not prepared.directory.exists()


def test_an_original_that_is_away_for_a_while_is_put_right_when_it_is_back(
    repository: Path, make: Make
) -> None:
    prepared = make(repository)
    half_applied(repository, prepared)
    away = repository.rename(repository.with_name("away"))
    with pytest.raises(StateError, match="undoing"):
        apply(prepared)
    away.rename(repository)
    clean(prepared.record())
    assert (repository / "README.md").read_text() == "A project.\n"
    assert not list(repository.glob(".ringfence*"))


def test_undoing_waits_for_its_turn(
    repository: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would take away what another sandbox is writing just then."""
    prepared = make(repository)
    half_applied(repository, prepared)
    monkeypatch.setattr(application, "_TURN_TRIES", 1)
    held = os.open(repository, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(StateError, match="locked by another"):
            apply(prepared)
        assert not (repository / "README.md").exists()
    finally:
        os.close(held)
    assert len(apply(prepared)) == 1


def test_what_the_disk_says_while_an_application_is_undone_is_an_error_of_ours(
    repository: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the record stays for the next one."""
    prepared = make(repository)
    change_all(inside(prepared))
    before = snapshot(repository)

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", full)
        patch.setattr(Application, "_put_back", full)
        with pytest.raises(ResourceExhaustedError, match="undoing"):
            apply(prepared)
    assert snapshot(repository) != before
    clean(prepared.record())
    assert snapshot(repository) == before


def test_a_workspace_that_another_removes_at_the_same_time_is_removed(
    repository: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = make(repository)
    is_dir = Path.is_dir

    def seen_before_it_went(path: Path) -> bool:
        there = is_dir(path)
        if path == prepared.directory:
            shutil.rmtree(path, ignore_errors=True)
        return there

    with monkeypatch.context() as patch:
        patch.setattr(Path, "is_dir", seen_before_it_went)
        clean(prepared.directory)
    assert not prepared.directory.exists()


def test_a_workspace_that_is_closed_is_said_to_be_so(repository: Path, make: Make) -> None:
    prepared = make(repository)
    prepared.close()
    for use in (apply, discard):
        with pytest.raises(StateError, match="closed"):
            use(prepared)


def test_a_workspace_is_not_removed_while_it_is_applied(repository: Path, make: Make) -> None:
    """Nobody would know any more what is to be undone where that client is killed then."""
    prepared = make(repository)
    half_applied(repository, prepared)
    with alone(prepared.directory):
        remover = threading.Thread(target=clean, args=(prepared.record(),))
        remover.start()
        remover.join(0.3)
        assert remover.is_alive()
    remover.join()
    assert (repository / "README.md").read_text() == "A project.\n"


def test_nothing_of_an_application_stays_when_the_workspace_is_discarded(
    repository: Path, make: Make
) -> None:
    """Its client was killed when all was in place, before it removed what was there before."""
    prepared = make(repository)
    (inside(prepared) / "README.md").write_text("Changed.\n")
    step = 0
    while not (prepared.directory / "applied.json").exists():
        assert killed_at(step, prepared)
        step += 1
    assert list(repository.glob(".ringfence*"))
    discard(prepared)
    assert not list(repository.glob(".ringfence*"))


def test_an_original_that_may_not_be_looked_at_is_an_error_of_ours(
    repository: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = make(repository)
    (inside(prepared) / "src/code.py").write_text("changed\n")

    def denied(root: int, path: str) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "src")

    monkeypatch.setattr(checking, "lstat", denied)
    with pytest.raises(InvalidSpecError, match="repository: src: Permission denied"):
        apply(prepared)


def test_one_client_applies_at_a_time(repository: Path, make: Make) -> None:
    prepared = make(repository)
    (inside(prepared) / "README.md").write_text("Changed.\n")
    with alone(prepared.directory), pytest.raises(StateError, match="one at a time"):
        apply(prepared)
    assert len(apply(prepared)) == 1


def test_two_workspaces_are_not_applied_to_one_original_at_once(
    repository: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both found it as they had started from it, and the second took the first one's changes."""
    one, other = make(repository), make(repository)
    (inside(one) / "README.md").write_text("one\n")
    (inside(other) / "README.md").write_text("other\n")
    checked, started = checking.check, list[threading.Thread]()
    ends: list[object] = []

    def second() -> None:
        try:
            ends.append(apply(other))
        except StateError as error:
            ends.append(error)

    def check(changes: Changes, root: int, *, modes: bool) -> None:
        checked(changes, root, modes=modes)
        if not started:
            started.append(threading.Thread(target=second))
            started[0].start()
            started[0].join(0.5)

    monkeypatch.setattr(checking, "check", check)
    apply(one)
    started[0].join()
    assert isinstance(ends[0], StateError)
    assert (repository / "README.md").read_text() == "one\n"


def test_who_holds_the_original_for_ever_is_not_waited_for(
    repository: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = make(repository)
    (inside(prepared) / "README.md").write_text("one\n")
    monkeypatch.setattr(application, "_TURN_TRIES", 1)
    held = os.open(repository, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(StateError, match="locked by another"):
            apply(prepared)
    finally:
        os.close(held)
    assert len(apply(prepared)) == 1


@pytest.mark.parametrize("step", ["comparing", "writing"])
def test_a_layer_that_is_gone_meanwhile_is_an_error_of_ours(
    step: str, repository: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """StateError, whenever it went; nothing was applied."""
    prepared = make(repository)
    change_all(inside(prepared))
    before = digest_of_tree(repository)
    application_of = Application.of

    def gone() -> None:
        shutil.rmtree(inside(prepared))

    def of(*given: Any) -> Application:
        made = application_of(*given)
        gone()
        return made

    if step == "comparing":
        gone()
    else:
        monkeypatch.setattr(Application, "of", of)
    with pytest.raises(StateError, match="No such file or directory"):
        apply(prepared)
    assert digest_of_tree(repository) == before


@pytest.mark.parametrize("look", [Prepared.changes, Prepared.patch, discard])
def test_a_base_that_is_gone_is_an_error_of_ours(
    look: Callable[[Prepared], object], repository: Path, make: Make
) -> None:
    prepared = make(repository)
    shutil.rmtree(prepared.layers[0])
    with pytest.raises(StateError, match="No such file or directory"):
        look(prepared)


def test_layers_of_which_one_is_gone_leave_nothing_open(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(StateError, match="gone"):
        Layers([tmp_path, tmp_path, tmp_path / "gone"])
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_what_cannot_be_listed_is_told_of_the_layers(tmp_path: Path) -> None:
    """No path can be named yet: they are still being gathered."""

    def paths() -> Iterator[str]:
        yield "a"
        raise OSError(errno.EIO, "Input/output error")

    with Layers([tmp_path]) as layers, pytest.raises(StateError, match="its layers"):
        compare(layers, layers, paths(), max_bytes=1)
