"""What is visible is chosen, and what is not cannot be read by any path."""

import errno
import os
import sys
from pathlib import Path

import pytest

from ringfence.errors import (
    InvalidSpecError,
    NotFoundError,
    ResourceExhaustedError,
    SandboxError,
    StateError,
)
from ringfence.spec import Repository
from ringfence.workspace import plan, select
from tests.unit.workspace.conftest import Make, git, inside


def visible(root: Path, **fields: object) -> set[str]:
    found = plan(Repository(path=str(root), **fields))
    return {entry.path for entry in found.selection.entries if entry.kind != "directory"}


def test_secrets_are_left_out_and_shown_unless_asked_for(repository: Path) -> None:
    found = plan(Repository(path=str(repository)))
    assert found.hidden[".env"] == "usually holds secrets"
    assert ".env" not in visible(repository)
    assert ".env" in visible(repository, secrets_excluded=False)
    assert ".env" in visible(repository, exclude=("!.env",))


def test_secrets_are_left_out_whatever_the_case_of_their_names(repository: Path) -> None:
    """What the spec and .gitignore say counts as git has it, letter by letter."""
    secret = {".ENV", "Id_RSA", "src/Credentials.JSON", ".Aws/config", "Key.Pem", ".Env.LOCAL"}
    plain = {".ENV.Example", "id_rsa.PUB", "a.LOG"}
    for name in (*secret, *plain, "a.log", "b.log"):
        (repository / name).parent.mkdir(exist_ok=True)
        (repository / name).touch()
    (repository / ".gitignore").write_text("B.LOG\n")
    seen = visible(repository, exclude=("*.LOG", "!A.LOG", "!.env"), gitignore=True)
    assert not secret & seen
    assert plain - {"a.LOG"} | {"a.log", "b.log", ".env"} <= seen
    assert "a.LOG" not in seen
    assert ".ENV" in visible(repository, exclude=("!.ENV",))
    assert secret <= visible(repository, secrets_excluded=False)
    git(repository, "add", "-f", ".ENV")
    git(repository, "commit", "-q", "-m", "a secret")
    assert plan(Repository(path=str(repository))).committed == (".ENV",)


def test_include_exclude_and_subpath_narrow(repository: Path) -> None:
    assert visible(repository, include=("*.py",)) == {"src/code.py"}
    assert visible(repository, exclude=("src/",)) == {"README.md", "run.sh", "link"}
    assert visible(repository, subpath="src") == {"src/code.py", "src/data.bin"}
    assert visible(repository, subpath="src", include=("*.bin",)) == {"src/data.bin"}


def test_a_directory_is_there_for_what_is_included_in_it(repository: Path) -> None:
    """Or when it is included itself, be it empty."""
    for name in ("deep/er/one.py", "deep/other/two.txt", "empty/none.txt"):
        (repository / name).parent.mkdir(parents=True, exist_ok=True)
        (repository / name).touch()
    (repository / "empty/none.txt").unlink()

    def directories(**fields: object) -> set[str]:
        found = plan(Repository(path=str(repository), **fields))
        return {entry.path for entry in found.selection.entries if entry.kind == "directory"}

    assert directories(include=("*.py",)) == {"src", "deep", "deep/er"}
    assert directories(include=("empty/",)) == {"empty"}
    assert directories(subpath="deep/er") == {"deep", "deep/er"}
    assert directories() == {"src", "deep", "deep/er", "deep/other", "empty"}


def test_a_selection_is_counted(repository: Path) -> None:
    found = plan(Repository(path=str(repository))).selection
    chosen = [repository / name for name in visible(repository)]
    assert found.files == len(chosen)
    assert found.count == len(chosen) + 1
    assert found.size == sum(path.stat().st_size for path in chosen if not path.is_symlink())
    assert found.elsewhere(repository.stat().st_dev) is None
    assert found.elsewhere(-1) == found.entries[0].path


def test_bits_that_lend_an_identity_count_on_files_alone(repository: Path) -> None:
    (repository / "src").chmod(0o3755)
    assert not plan(Repository(path=str(repository))).selection.set_ids
    (repository / "run.sh").chmod(0o4755)
    assert plan(Repository(path=str(repository))).selection.set_ids


@pytest.mark.parametrize("pattern", ["a[b", "[a-\\]z]*", "!", "/"])
def test_a_pattern_that_would_hide_nothing_is_refused(repository: Path, pattern: str) -> None:
    with pytest.raises(InvalidSpecError, match="no path matches"):
        plan(Repository(path=str(repository), exclude=(pattern,)))


def test_gitignore_counts_by_choice_and_nests(repository: Path) -> None:
    (repository / ".gitignore").write_text("*.log\n")
    (repository / "src/.gitignore").write_text("!keep.log\n/out\n")
    for name in ("a.log", "src/keep.log", "src/out", "out"):
        (repository / name).touch()
    assert {"a.log", "src/out"} <= visible(repository)
    seen = visible(repository, gitignore=True)
    assert not {"a.log", "src/out"} & seen
    assert {"src/keep.log", "out"} <= seen


def test_what_git_excludes_here_alone_counts_below_gitignore(repository: Path) -> None:
    (repository / ".git/info").mkdir(exist_ok=True)
    (repository / ".git/info/exclude").write_text("*.own\n")
    (repository / "src/.gitignore").write_text("!kept.own\n")
    for name in ("a.own", "src/b.own", "src/kept.own"):
        (repository / name).touch()
    hidden = plan(Repository(path=str(repository), gitignore=True)).selection.hidden
    assert {path for path in hidden if path.endswith(".own")} == {"a.own", "src/b.own"}
    hidden = plan(Repository(path=str(repository))).selection.hidden
    assert not any(path.endswith(".own") for path in hidden)


def test_a_byte_order_mark_is_no_part_of_a_gitignores_first_pattern(repository: Path) -> None:
    """Editors put it there, and git passes over it."""
    (repository / ".gitignore").write_bytes(b"\xef\xbb\xbfREADME.md\r\nrun.sh\r\n")
    seen = visible(repository, gitignore=True)
    assert not {"README.md", "run.sh"} & set(seen)
    assert "src/code.py" in seen


def test_a_hard_link_to_a_hidden_file_is_hidden_too(repository: Path) -> None:
    (repository / "harmless.txt").hardlink_to(repository / ".env")
    (repository / "private").mkdir()
    (repository / "private/notes").write_text("x")
    (repository / "copy").hardlink_to(repository / "private/notes")
    (repository / "also.md").hardlink_to(repository / "run.sh")
    seen = visible(repository, exclude=("private/",))
    assert not {"harmless.txt", "copy"} & seen
    assert {"README.md", "also.md", "run.sh"} <= seen
    assert visible(repository, include=("*.md",)) == {"README.md"}


def test_devices_and_links_out_of_the_tree_stay_outside(repository: Path) -> None:
    (repository / "passwd").symlink_to("/etc/passwd")
    (repository / "src/up").symlink_to("../../elsewhere")
    (repository / "cycle").symlink_to("cycle")
    (repository / "src/fine").symlink_to("../README.md")
    os.mkfifo(repository / "pipe")
    seen = visible(repository)
    assert not {"passwd", "src/up", "pipe"} & seen
    assert {"cycle", "src/fine", "link"} <= seen
    assert set(plan(Repository(path=str(repository))).selection.special) == {
        "passwd", "src/up", "pipe",
    }  # fmt: skip


def test_odd_names_are_carried(repository: Path, make: Make) -> None:
    names = [b"new\nline", b"bad\xff\xfeutf8", b"n" * 255, b" lead", b"tab\t", b'quo"te\\']
    for name in names:
        (repository / os.fsdecode(name)).write_bytes(name)
    there = {os.fsencode(path.name) for path in inside(make(repository)).iterdir()}
    assert set(names) <= there


def test_too_many_entries_is_a_typed_error(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(select, "MAX_ENTRIES", 3)
    with pytest.raises(ResourceExhaustedError, match="over 3 entries"):
        plan(Repository(path=str(repository)))
    below = [
        path
        for path in repository.rglob("*")
        if path.relative_to(repository).parts[1:] and ".git" not in path.parts
    ]
    most = len(list(repository.iterdir())) + len(below)
    monkeypatch.setattr(select, "MAX_ENTRIES", most)
    plan(Repository(path=str(repository)))
    monkeypatch.setattr(select, "MAX_ENTRIES", most - 1)
    with pytest.raises(ResourceExhaustedError, match=f"over {most - 1} entries"):
        plan(Repository(path=str(repository)))


def test_a_committed_secret_turns_history_into_one_commit(repository: Path, make: Make) -> None:
    git(repository, "add", "-f", ".env")
    git(repository, "commit", "-q", "-m", "oops")
    git(repository, "rm", "-q", "--cached", ".env")
    git(repository, "commit", "-q", "-m", "gone, but in the history")
    secret = git(repository, "rev-parse", "HEAD~1:.env").strip()
    found = plan(Repository(path=str(repository)))
    assert (found.history, found.committed) == ("head", (".env",))
    work = inside(make(repository))
    assert git(work, "rev-list", "--all", "--count").strip() == "1"
    assert secret not in git(work, "cat-file", "--batch-check", "--batch-all-objects")
    assert git(work, "status", "--porcelain").strip() == ""
    full = plan(Repository(path=str(repository), history="full"))
    assert full.history == "full"
    assert any(".env" in warning for warning in full.warnings)


def test_a_part_of_a_repository_is_told_from_a_whole_one(repository: Path) -> None:
    part = plan(Repository(path=str(repository / "src")))
    assert part.history is None
    assert [str(repository) in warning for warning in part.warnings] == [True]
    assert plan(Repository(path=str(repository))).warnings == []


def test_a_clean_history_is_kept_whole_without_what_is_unreachable(
    repository: Path, make: Make
) -> None:
    git(repository, "config", "remote.origin.url", "https://user:token@example.com/x")
    lost = git(repository, "hash-object", "-w", ".env").strip()
    git(repository, "tag", "v1")
    hook = repository / ".git/hooks/pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    (repository / "README.md").write_text("dirty\n")
    work = inside(make(repository))
    assert git(work, "log", "--format=%s").strip() == "first"
    assert git(work, "tag").strip() == "v1"
    assert git(work, "status", "--porcelain").strip() == "M README.md"
    assert lost not in git(work, "cat-file", "--batch-check", "--batch-all-objects")
    assert "token" not in (work / ".git/config").read_text()
    assert not (work / ".git/hooks/pre-commit").exists()
    git(work, "commit", "-q", "-a", "-m", "inside")
    assert git(repository, "log", "--format=%s").strip() == "first"


def test_a_hidden_tracked_file_is_no_deletion(repository: Path, make: Make) -> None:
    for history in ("head", "full"):
        prepared = make(repository, exclude=("src/",), history=history)
        assert git(inside(prepared), "status", "--porcelain").strip() == ""
        assert len(prepared.changes()) == 0


def test_a_worktree_is_followed_only_when_it_is_named_back(
    repository: Path, make: Make, tmp_path: Path
) -> None:
    git(repository, "worktree", "add", "-q", "-b", "side", str(tmp_path / "side"))
    work = inside(make(tmp_path / "side"))
    assert git(work, "symbolic-ref", "HEAD").strip() == "refs/heads/side"
    assert git(work, "status", "--porcelain").strip() == ""
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    (stranger / ".git").write_text(f"gitdir: {repository / '.git'}\n")
    prepared = make(stranger)
    assert not (inside(prepared) / ".git").exists()
    assert any("does not name it back" in warning for warning in prepared.warnings)


@pytest.mark.parametrize(
    ("subpath", "error"),
    [("nope", NotFoundError), ("src/nope", NotFoundError), ("README.md", InvalidSpecError),
     ("link", InvalidSpecError), ("README.md/x", InvalidSpecError)],
)  # fmt: skip
def test_a_subpath_that_is_no_directory_is_named(
    repository: Path, subpath: str, error: type[SandboxError]
) -> None:
    with pytest.raises(error, match=subpath):
        plan(Repository(path=str(repository), subpath=subpath))


@pytest.mark.parametrize(
    ("number", "error", "path"),
    [(errno.ENOENT, StateError, "src/code.py"), (errno.EACCES, InvalidSpecError, "src")],
)
def test_what_cannot_be_looked_at_is_named(
    repository: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    error: type[SandboxError],
    path: str,
) -> None:
    """A file that went away by its path; of a directory whose names can be read and nothing of what
    they are, to exclude one name would be no help."""
    module = sys.modules["ringfence.workspace.select"]
    real = module.open_directory

    class Gone:
        name = "code.py"

        def stat(self, *, follow_symlinks: bool) -> object:
            monkeypatch.undo()
            raise OSError(number, os.strerror(number), self.name)

    class Listing:
        def __enter__(self) -> list[Gone]:
            return [Gone()]

        def __exit__(self, *_: object) -> None:
            pass

    def meddle(root: int, path: str) -> int:
        if path == "src":
            monkeypatch.setattr(os, "scandir", lambda _: Listing())
        return real(root, path)

    monkeypatch.setattr(module, "open_directory", meddle)
    with pytest.raises(error, match=f"{path}: {os.strerror(number)}") as caught:
        plan(Repository(path=str(repository)))
    assert caught.value.context["path"] == path
