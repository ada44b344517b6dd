"""Each wrong input is a typed error that names the path; the original is as it was."""

import errno
import os
import socket
from pathlib import Path
from typing import Literal

import pytest

from ringfence.errors import (
    InvalidSpecError,
    NotFoundError,
    PolicyDeniedError,
    ResourceExhaustedError,
    SandboxError,
    StateError,
    UnsupportedError,
)
from ringfence.spec import Repository, SandboxSpec
from ringfence.workspace import clean, plan, prepare, putting
from ringfence.workspace.sources import _forbidden, check_root, find
from tests.unit.workspace.conftest import Make, digest_of_tree, git, inside


def test_a_path_that_is_no_directory(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="missing"):
        check_root(str(tmp_path / "missing"))
    (tmp_path / "file").touch()
    with pytest.raises(InvalidSpecError, match="file"):
        check_root(str(tmp_path / "file"))
    with pytest.raises(NotFoundError, match="below"):
        check_root(str(tmp_path / "file/below"))
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        with pytest.raises(InvalidSpecError, match="socket"):
            check_root(str(tmp_path / "socket"))
    (tmp_path / "round").symlink_to("round")
    with pytest.raises(SandboxError, match="round"):
        check_root(str(tmp_path / "round"))


def test_a_path_that_is_not_utf_8_is_an_error_of_the_spec() -> None:
    with pytest.raises(InvalidSpecError, match="UTF-8") as caught:
        SandboxSpec.parse({"repository": {"path": "project-\udcff"}})
    assert caught.value.context["fields"] == ["repository.path"]


@pytest.mark.parametrize("url", ["git://u:hunter2@a.example/b", "ftp://a.example/b", "s3://b/c"])
def test_a_url_of_another_kind_is_told_so(url: str) -> None:
    """It is no directory that is missing; and its login is in no message."""
    with pytest.raises(InvalidSpecError, match=f"not of {url.partition(':')[0]}") as caught:
        plan(Repository(path=url))
    assert "hunter2" not in str(caught.value.to_dict())


def test_a_directory_may_have_the_name_of_a_url(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "s3:/b").mkdir(parents=True)
    (tmp_path / "s3:/b/file").touch()
    monkeypatch.chdir(tmp_path)
    assert plan(Repository(path="s3://b")).selection.count == 1


def test_a_directory_that_goes_behind_a_link_once_it_was_checked_is_not_opened(
    tmp_path: Path,
) -> None:
    (tmp_path / "above/project").mkdir(parents=True)
    found = find(Repository(path=str(tmp_path / "above/project")), tmp_path)
    (tmp_path / "above").rename(tmp_path / "elsewhere")
    (tmp_path / "above").symlink_to("elsewhere")
    with pytest.raises(OSError, match=os.strerror(errno.ENOTDIR)):
        found.open()


def test_a_path_in_a_commit_that_no_file_can_have(repository: Path, make: Make) -> None:
    blob = git(repository, "rev-parse", "HEAD:README.md").strip()
    path = "/".join(["d" * 200] * 25)
    git(repository, "update-index", "--add", "--cacheinfo", f"100644,{blob},{path}")
    git(repository, "commit", "-q", "-m", "too long")
    with pytest.raises(StateError, match="too long"):
        make(repository)


def test_the_files_of_git_itself_are_no_work_tree(repository: Path, tmp_path: Path) -> None:
    """A bare repository and what is in a .git hold credentials, hidden files and hooks."""
    git(tmp_path, "clone", "-q", "--bare", str(repository), "bare")
    mode: Literal["copy", "ro", "rw"]
    for mode in ("copy", "ro", "rw"):
        for place in (tmp_path / "bare", repository / ".git", repository / ".git/hooks"):
            with pytest.raises(PolicyDeniedError, match="git's own"):
                plan(Repository(path=str(place), mode=mode))
    for place in (tmp_path / "bare", repository / ".git"):
        assert plan(Repository(path=str(place), ref="main")).selection.files
    git(repository, "worktree", "add", "-q", ".git/tree")
    assert plan(Repository(path=str(repository / ".git/tree"))).selection.files


def test_a_tree_is_no_bare_repository_for_a_directory_called_as_one_of_its_parts(
    tmp_path: Path,
) -> None:
    for name in ("objects", "refs"):
        (tmp_path / "project" / name).mkdir(parents=True)
    assert plan(Repository(path=str(tmp_path / "project"))).selection.count == 2


@pytest.mark.parametrize("target", ["nowhere", "..", "../refs"])
def test_a_link_called_git_makes_no_work_tree_of_git_s_own_files(
    repository: Path, target: str
) -> None:
    (repository / ".git/hooks/.git").symlink_to(target)
    with pytest.raises(PolicyDeniedError, match="git's own"):
        plan(Repository(path=str(repository / ".git/hooks")))


def test_places_that_would_open_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home/ada"
    (home / "project").mkdir(parents=True)
    (tmp_path / "to-etc").symlink_to("/etc")
    monkeypatch.setenv("HOME", str(home))
    for denied in ("/", "/etc", "/proc/self", "/sys", "/dev", "/var", home, home.parent,
                   tmp_path / "to-etc"):  # fmt: skip
        with pytest.raises(PolicyDeniedError):
            check_root(str(denied))
    (tmp_path / "daemon/overlay2").mkdir(parents=True)
    with pytest.raises(PolicyDeniedError, match="daemon"):
        check_root(str(tmp_path / "daemon/overlay2"), forbidden=(tmp_path / "daemon",))
    (tmp_path / "data").symlink_to("daemon")
    with pytest.raises(PolicyDeniedError, match="daemon"):
        check_root(str(tmp_path / "daemon/overlay2"), forbidden=(tmp_path / "data",))
    assert check_root(str(home / "project")) == home / "project"


@pytest.mark.parametrize(
    ("place", "allowed"),
    [("/home/other", False), ("/home/other/project", True), ("/root/.ssh", False),
     ("/root/.aws/cli", False), ("/home/ada/.docker/x", False), ("/home/ada/.dockers", True),
     ("/home/ada/.config", True), ("/home/ada/.config/gh", False), ("/usr/src/x", False),
     ("/dev/shm", True), ("/dev/shm/x", True), ("/dev/shmx", False), ("/run/user/0", False),
     ("/var/lib/docker/x", False), ("/var/lib", False), ("/var/lib/mine", True), ("/tmp", False),
     ("/tmp/x", True), ("/srv", False), ("/srv/x", True), ("/data", False), ("/data/daemon", False),
     ("/data/daemon/x", False), ("/data/mine", True), ("/mnt/x", True)],
)  # fmt: skip
def test_what_is_shown_to_no_sandbox_is_told_by_its_place(
    monkeypatch: pytest.MonkeyPatch, place: str, allowed: bool
) -> None:
    """A whole home of anybody's, credentials, the system's and the daemon's own, and what holds
    one of them."""
    monkeypatch.setenv("HOME", "/home/ada")
    assert (_forbidden(Path(place), (Path("/data/daemon"),)) is None) is allowed


def test_a_home_of_nobody_is_said_to_be_none() -> None:
    with pytest.raises(InvalidSpecError, match="cannot be used"):
        check_root("~nobody-has-this-name/project")


def test_a_directory_that_this_user_may_not_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def access(path: Path, mode: int, *, effective_ids: bool) -> bool:
        assert effective_ids, "as it will be opened"
        assert mode == os.R_OK | os.X_OK, "its names, and what they are"
        return Path(path) != tmp_path

    monkeypatch.setattr(os, "access", access)
    with pytest.raises(InvalidSpecError, match=f"{tmp_path} cannot be read by this user"):
        check_root(str(tmp_path))


def test_a_home_that_is_reached_over_a_link_is_refused_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = tmp_path / "var/home/ada"
    for name in (".ssh", "project"):
        (real / name).mkdir(parents=True)
    (tmp_path / "home").symlink_to("var/home")
    monkeypatch.setenv("HOME", str(tmp_path / "home/ada"))
    for denied in (real, real.parent, real / ".ssh"):
        with pytest.raises(PolicyDeniedError):
            check_root(str(denied))
    assert check_root(str(tmp_path / "home/ada/project")) == real / "project"


def test_a_state_directory_inside_the_repository(make: Make, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    with pytest.raises(PolicyDeniedError, match="lie in each other"):
        make(tmp_path)
    assert [path for path in sorted(tmp_path.iterdir()) if path.name != "state"] == before


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_during_copy(
    repository: Path, make: Make, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    before = digest_of_tree(repository)

    def full(*args: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "copy_file_range", full)
    with pytest.raises(ResourceExhaustedError) as caught:
        make(repository, directory_mode=0o755)
    assert caught.value.context["path"] in ("README.md", "run.sh", "src/code.py", "src/data.bin")
    assert digest_of_tree(repository) == before
    assert not list((repository.parent / "state").glob("workspace-*"))
    assert not list((repository.parent / "state/.layers").iterdir())


def test_a_tree_that_changes_while_it_is_opened(
    repository: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = putting.open_directory
    seen: list[str] = []

    def meddle(root: int, path: str) -> int:
        if path == "src" and not seen:
            seen.append(path)
            (repository / "src/code.py").unlink()
        return real(root, path)

    monkeypatch.setattr(putting, "open_directory", meddle)
    with pytest.raises(StateError, match=r"src/code\.py"):
        make(repository)


def test_a_file_swapped_for_a_link_is_not_followed(
    repository: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = putting.open_directory
    (repository.parent / "outside").mkdir()
    (repository.parent / "outside/code.py").write_text("secret\n")

    def meddle(root: int, path: str) -> int:
        if path == "src" and not (repository / "src").is_symlink():
            (repository / "src").rename(repository / "before")
            (repository / "src").symlink_to(repository.parent / "outside")
        return real(root, path)

    monkeypatch.setattr(putting, "open_directory", meddle)
    with pytest.raises(SandboxError, match="src"):
        make(repository)


def test_what_only_root_can_do_is_refused(repository: Path, make: Make) -> None:
    with pytest.raises(UnsupportedError, match="root"):
        make(repository, size="1m")
    with pytest.raises(UnsupportedError, match="root"):
        make(repository, owner="12345")


@pytest.mark.parametrize("mode", ["ro", "rw"])
def test_more_than_can_be_covered_is_refused(repository: Path, make: Make, mode: str) -> None:
    """Each hidden path is a mount; a copy has none of them."""
    hidden = [repository / f"{number}.pem" for number in range(254)]  # with what is hidden already
    for path in hidden:
        path.touch()
    bound = make(repository, mode=mode)
    covered = {bind.destination for bind in bound.binds}
    assert {f"{bound.mount_point}/{path.name}" for path in hidden} <= covered
    for number in range(3):
        (repository / f"more-{number}.pem").touch()
    with pytest.raises(InvalidSpecError, match="too many to cover"):
        make(repository, mode=mode)
    assert not list(inside(make(repository)).glob("*.pem"))


def test_set_user_id_does_not_cross(repository: Path, make: Make) -> None:
    (repository / "run.sh").chmod(0o4755)
    assert (inside(make(repository)) / "run.sh").stat().st_mode & 0o7777 == 0o755
    assert (repository / "run.sh").stat().st_mode & 0o7777 == 0o4755


def test_modes_are_mapped_by_choice(repository: Path, make: Make) -> None:
    prepared = make(repository, file_mode=0o640, directory_mode=0o750)
    work = inside(prepared)
    assert (work / "run.sh").stat().st_mode & 0o777 == 0o640
    assert (work / "src").stat().st_mode & 0o777 == 0o750
    assert len(prepared.changes()) == 0


def test_the_original_is_untouched_by_all_that_happens_inside(repository: Path, make: Make) -> None:
    before = digest_of_tree(repository)
    prepared = make(repository)
    work = inside(prepared)
    for path in (work / "README.md", work / "src/code.py"):
        path.write_text("overwritten in place\n")
        path.chmod(0o600)
    (work / "src/data.bin").unlink()
    prepared.patch()
    prepared.close()
    prepared.close()
    assert digest_of_tree(repository) == before
    with pytest.raises(StateError, match="closed"):
        prepared.changes()


def test_a_deep_tree_is_removed(repository: Path, make: Make) -> None:
    prepared = make(repository)
    place = os.open(inside(prepared), os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d" * 20, dir_fd=place)
        below = os.open("d" * 20, os.O_RDONLY, dir_fd=place)
        os.close(place)
        place = below
    os.close(os.open("leaf", os.O_CREAT | os.O_WRONLY, dir_fd=place))
    os.close(place)
    changes = prepared.changes()
    assert len(changes) == 0
    assert len(changes.refused) == 1
    clean(prepared.record())
    assert not prepared.directory.exists()


@pytest.mark.parametrize("mode", ["copy", "rw", "ro"])
def test_commands_that_will_not_own_the_files_are_told_beforehand(
    tmp_path: Path, mode: Literal["copy", "rw", "ro"]
) -> None:
    """An ordinary user's Docker daemon shows files as they are stored: nobody maps their owner."""
    project = tmp_path / "project"
    project.mkdir()
    (project / "file").write_text("x")
    said = []
    for number, uid in enumerate((project.stat().st_uid, 61237)):
        prepared = prepare(
            Repository(path=str(project), mode=mode),
            directory=tmp_path / f"state-{number}",
            uid=uid,
            gid=uid,
            privileged=False,
            volumes=True,
        )
        said.append([text for text in prepared.warnings if "only root can map owners" in text])
        clean(prepared.directory)
    assert said[0] == []
    assert len(said[1]) == (0 if mode == "ro" else 1)
