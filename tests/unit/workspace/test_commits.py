"""What git found out of a repository's commits is kept with the layer, and used while it is true."""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from ringfence.errors import StateError
from ringfence.spec import Repository
from ringfence.workspace import Prepared, commits, gitdir, history, isolated, plan, prepare
from tests.unit.workspace.conftest import Make, git, inside


def count_of(prepared: Prepared) -> int:
    """How many commits are inside."""
    return len(git(inside(prepared), "log", "--format=%h").split())


def commit_secret(repository: Path) -> None:
    """Commit the secret, and take it away again."""
    git(repository, "add", "-f", ".env")
    git(repository, "commit", "-q", "-m", "secret")
    git(repository, "rm", "-q", "--cached", ".env")
    git(repository, "commit", "-q", "-m", "no secret")


def test_an_unchanged_repository_is_opened_again_without_git(
    repository: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make(repository)
    monkeypatch.setattr(isolated.shutil, "which", lambda name: None)
    again = make(repository)
    assert again.layers == first.layers
    assert again.warnings == first.warnings


def test_files_may_change_and_the_commits_are_still_known(
    repository: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(repository)
    (repository / "README.md").write_text("Another.\n")
    listed = []
    monkeypatch.setattr(
        "ringfence.workspace.history.Running",
        lambda args, **more: listed.append(args) or isolated.Running(args, **more),
    )
    again = make(repository)
    assert [args[0] for args in listed] == ["pack-objects"]
    assert count_of(again) == 1
    assert git(inside(again), "status", "--porcelain") == " M README.md\n"


def test_what_was_committed_since_is_not_taken_for_known(repository: Path, make: Make) -> None:
    assert count_of(make(repository)) == 1
    commit_secret(repository)
    again = make(repository)
    assert count_of(again) == 1
    assert any("hidden files are in git's history" in words for words in again.warnings)
    assert "hunter2" not in git(inside(again), "log", "-p", "--all")


def test_what_is_committed_while_the_files_are_walked_does_not_go_in(
    repository: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was known of the commits before it says nothing of it."""
    make(repository)
    (repository / "fresh").touch()
    planning = sys.modules["ringfence.workspace.plan"]
    choose = planning._choose_history

    def late(*args: object) -> None:
        commit_secret(repository)
        choose(*args)

    monkeypatch.setattr(planning, "_choose_history", late)
    again = make(repository)
    assert count_of(again) == 1
    assert "hunter2" not in git(inside(again), "log", "-p", "--all")


@pytest.mark.parametrize("known", [False, True])
def test_what_is_staged_while_the_files_are_walked_does_not_go_in(
    repository: Path, make: Make, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    """Its objects are not among those that were lent when git began to look."""
    if known:
        make(repository)
    planning = sys.modules["ringfence.workspace.plan"]
    choose = planning._choose_history

    def late(*args: object) -> None:
        (repository / "late").write_text("late\n")
        git(repository, "add", "late")
        choose(*args)

    monkeypatch.setattr(planning, "_choose_history", late)
    work = inside(make(repository))
    git(work, "fsck")
    assert git(work, "status", "--porcelain") in ("", "AD late\n")


def test_other_patterns_are_asked_of_the_same_commits(repository: Path, make: Make) -> None:
    git(repository, "commit", "-q", "--allow-empty", "-m", "second")
    assert count_of(make(repository)) == 2
    again = make(repository, exclude=("run.sh",))
    assert count_of(again) == 1
    assert git(inside(again), "ls-tree", "-r", "--name-only", "HEAD", "run.sh") == ""


def test_a_look_without_a_workspace_believes_no_record_in_the_directory_of_temporary_files(
    repository: Path, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anybody may write there."""
    make(repository)
    commit_secret(repository)
    shared = tmp_path / "tmp"
    forged = shared / ".layers/forged"
    forged.mkdir(parents=True)
    (forged / "origin").symlink_to(repository)
    found = gitdir.find(repository)[0]
    assert found is not None
    commits.write(forged, found.commits(), ["README.md"])
    monkeypatch.setattr(tempfile, "tempdir", str(shared))
    look = Repository(path=str(repository))
    assert plan(look).committed == plan(look, workspaces=tmp_path / "state").committed == (".env",)


@pytest.mark.parametrize(
    "spoil", [lambda data: data[:40], lambda data: data[:-1] + b"\0", lambda data: b""]
)
def test_a_damaged_record_is_not_believed(repository: Path, make: Make, spoil: object) -> None:
    """Cut short, it would not name the hidden file that is in the history."""
    commit_secret(repository)
    first = make(repository)
    record = first.layers[-1] / commits.NAME
    record.write_bytes(spoil(record.read_bytes()))  # type: ignore[operator]
    (repository / "fresh").touch()
    assert count_of(make(repository)) == 1


def test_what_changed_before_git_looked_is_not_kept_for_what_was_before(
    repository: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = git(repository, "rev-parse", "HEAD").strip()
    after = git(repository, "commit-tree", "-p", before, "-m", "second", "HEAD^{tree}").strip()
    begin = history.Builder.begin

    def late(builder: history.Builder, paths: object = None) -> None:
        git(repository, "update-ref", "refs/heads/main", after)
        begin(builder)

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(history.Builder, "begin", late)
        assert count_of(make(repository)) == 1
    assert count_of(make(repository)) == 2
    git(repository, "update-ref", "refs/heads/main", before)
    assert count_of(make(repository)) == 1


def test_a_walk_that_is_given_up_ends_the_git_that_goes_on_meanwhile(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[isolated.Running] = []

    class Known(isolated.Running):
        def __init__(self, *args: object, **more: object) -> None:
            super().__init__(["cat-file", "--batch-command", "--buffer"], **more)  # type: ignore[arg-type]
            started.append(self)

    def stop(seen: int) -> None:
        raise StateError("enough", op="workspace")

    monkeypatch.setattr("ringfence.workspace.history.Running", Known)
    with pytest.raises(StateError, match="enough"):
        prepare(
            Repository(path=str(repository)), directory=tmp_path / "state/one", uid=0, gid=0,
            privileged=False, count=stop,
        )  # fmt: skip
    assert [one._process.returncode is None for one in started] == [False]
    assert not (tmp_path / "state/one").exists()


def test_no_history_is_listed_that_cannot_be_known_whole(
    repository: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reference to a file shows it, whatever the commits say."""
    blob = git(repository, "rev-parse", "HEAD:README.md").strip()
    git(repository, "update-ref", "refs/tags/file", blob)
    started: list[str] = []
    monkeypatch.setattr(
        "ringfence.workspace.history.Running",
        lambda args, **more: started.append(args[0]) or isolated.Running(args, **more),
    )
    assert any("git's history" in words for words in make(repository).warnings)
    assert started == ["pack-objects"]


def test_git_waits_for_no_disk_in_repositories_of_ours(repository: Path, tmp_path: Path) -> None:
    def waits(name: str, pack: Callable[[dict[str, str]], object]) -> bool:
        pack({"GIT_DIR": str(repository / ".git"), "GIT_TRACE2_EVENT": str(tmp_path / name)})
        return '"category":"fsync"' in (tmp_path / name).read_text()

    words = ("pack-objects", "--all", "--quiet", str(tmp_path / "pack"))
    if not waits("theirs", lambda env: git(tmp_path, *words, env=env)):
        pytest.skip("this git does not tell how often it waited")
    assert not waits("ours", lambda env: isolated.git(words, directory=tmp_path, env=env))
