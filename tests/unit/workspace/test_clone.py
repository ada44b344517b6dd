"""A repository of this host at a ref: which branch or tag it is, which part of it, its submodules."""

import os
from pathlib import Path

import pytest

from ringfence.errors import StateError
from ringfence.spec import Repository
from ringfence.workspace import clone, plan
from tests.unit.workspace.conftest import Make, git, inside


@pytest.fixture
def outer(repository: Path, tmp_path: Path) -> Path:
    """A repository that has `repository` as the submodule parts/inner."""
    root = tmp_path / "outer"
    (root / "src").mkdir(parents=True)
    git(root, "init", "-q", "-b", "main")
    (root / "src/own").touch()
    git(root, "add", ".")
    git(root, "-c", "protocol.file.allow=always", "submodule", "add", "-q",
        repository.as_uri(), "parts/inner")  # fmt: skip
    git(root, "commit", "-q", "-m", "outer")
    return root


def _missing(root: Path) -> None:
    (root / "sub").mkdir()


def _full(root: Path) -> None:
    (root / "sub/module").mkdir(parents=True)
    (root / "sub/module/file").touch()


def _file(root: Path) -> None:
    (root / "sub").mkdir()
    (root / "sub/module").touch()


def _link(root: Path) -> None:
    (root / "empty").mkdir()
    (root / "sub").mkdir()
    (root / "sub/module").symlink_to(root / "empty")


def _link_above(root: Path) -> None:
    (root / "elsewhere/module").mkdir(parents=True)
    (root / "sub").symlink_to("elsewhere")


@pytest.mark.parametrize("there", [_missing, _full, _file, _link, _link_above])
def test_a_submodule_is_put_into_an_empty_directory_alone(there: object, tmp_path: Path) -> None:
    assert callable(there)
    there(tmp_path)
    with pytest.raises(StateError, match="no submodule can be put at sub/module"):
        clone._check_empty(tmp_path, "sub/module")
    (tmp_path / "plain").mkdir()
    clone._check_empty(tmp_path, "plain")


def test_a_subpath_takes_the_submodules_in_it_and_no_other(outer: Path, make: Make) -> None:
    for subpath in ("parts", "parts/inner"):
        work = inside(make(outer, ref="main", submodules=True, subpath=subpath))
        assert (work / "parts/inner/README.md").read_text() == "A project.\n"
        assert not (work / "src").exists()
    work = inside(make(outer, ref="main", submodules=True, subpath="src"))
    assert {path.name for path in work.iterdir()} == {".git", "src"}


def test_a_submodule_is_at_the_commit_that_is_recorded(outer: Path, make: Make) -> None:
    git(outer / "parts/inner", "rm", "-q", "README.md")
    git(outer / "parts/inner", "commit", "-q", "-m", "later")
    work = inside(make(outer, ref="main", submodules=True))
    assert (work / "parts/inner/README.md").exists()


def test_a_subpath_of_a_clone_is_taken_by_its_letters(repository: Path, make: Make) -> None:
    name = "#a [b]*!\\ "
    (repository / name).mkdir()
    (repository / name / "file").touch()
    git(repository, "add", ".")
    git(repository, "commit", "-q", "-m", "odd")
    work = inside(make(repository, ref="main", subpath=name))
    assert (work / name / "file").exists()


def test_a_branch_counts_before_a_tag_of_its_name_and_the_default_one_is_heads(
    repository: Path, make: Make
) -> None:
    git(repository, "tag", "side")
    git(repository, "checkout", "-q", "-b", "side")
    git(repository, "commit", "-q", "--allow-empty", "-m", "second")
    git(repository, "checkout", "-q", "main")
    work = inside(make(repository, ref="side"))
    assert git(work, "log", "-1", "--format=%s").strip() == "second"
    git(repository, "symbolic-ref", "HEAD", "refs/heads/side")
    found = plan(Repository(path=repository.as_uri()))
    assert found.state is not None
    assert found.state.commits.head == "ref: refs/heads/side"


def test_a_commit_may_be_named_by_the_beginning_of_its_id(repository: Path, make: Make) -> None:
    name = git(repository, "rev-parse", "HEAD").strip()
    work = inside(make(repository, ref=name[:8]))
    assert git(work, "rev-parse", "HEAD").strip() == name


def test_a_commit_that_cannot_be_checked_out_is_not_said_to_be_none(
    repository: Path, make: Make
) -> None:
    blob = git(repository, "rev-parse", "HEAD:README.md").strip()
    git(repository, "update-index", "--add", "--cacheinfo", f"100644,{blob},{'d' * 300}")
    git(repository, "commit", "-q", "-m", "too long")
    with pytest.raises(StateError, match="File name too long"):
        make(repository, ref="main")


def test_ssh_reads_no_configuration_of_the_user_and_asks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it is called with: a configuration may name a program that makes the connection."""
    told = tmp_path / "told"
    ssh = tmp_path / "ssh"
    ssh.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > "{told}"\nexit 1\n')
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    for url in ("ssh://ada@127.0.0.1:9/project", "ada@127.0.0.1:project"):
        with pytest.raises(StateError):
            plan(Repository(path=url))
        words = told.read_text().split("\n")
        assert words[words.index("-F") + 1] == os.devnull
        assert "BatchMode=yes" in words
        told.unlink()
