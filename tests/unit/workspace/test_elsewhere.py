"""What a `.git` says of other places of the host: nothing is read there, and nothing of it goes in."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ringfence.errors import InvalidSpecError, NotFoundError, StateError, UnsupportedError
from ringfence.spec import Repository
from ringfence.workspace import gitdir, plan
from tests.unit.workspace.conftest import Make, digest_of_tree, git, inside

SECRET = "the victim's own words"


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """Another repository of the same user."""
    root = tmp_path / "victim"
    root.mkdir()
    git(root, "init", "-q", "-b", "main")
    (root / "words").write_text(SECRET)
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "words")
    return root


def objects_of(work: Path) -> str:
    """All that its object store holds; "" for no repository."""
    if not (work / ".git").exists():
        return ""
    return git(work, "cat-file", "--batch", "--batch-all-objects")


def _alternates(own: Path, other: Path) -> None:
    (own / "objects/info").mkdir(exist_ok=True)
    (own / "objects/info/alternates").write_text(f"{other / 'objects'}\n")
    _refer(own, other)


def _fan_out(own: Path, other: Path) -> None:
    for part in (other / "objects").glob("??"):
        shutil.rmtree(own / "objects" / part.name, ignore_errors=True)
        (own / "objects" / part.name).symlink_to(part)
    _refer(own, other)


def _loose(own: Path, other: Path) -> None:
    for part in (other / "objects").glob("??/*"):
        place = own / "objects" / part.parent.name
        place.mkdir(exist_ok=True)
        (place / part.name).symlink_to(part)
    _refer(own, other)


def _pack(own: Path, other: Path) -> None:
    git(other.parent, "repack", "-q", "-a", "-d")
    shutil.rmtree(own / "objects/pack", ignore_errors=True)
    (own / "objects/pack").symlink_to(other / "objects/pack")
    _refer(own, other)


def _refer(own: Path, other: Path) -> None:
    name = git(other.parent, "rev-parse", "HEAD").strip()
    (own / "refs/heads/main").write_text(name + "\n")


def _common(own: Path, other: Path) -> None:
    (own / "commondir").write_text(f"{other}\n")


def _file(own: Path, other: Path) -> None:
    own.rename(own.with_name("old"))
    own.write_text(f"gitdir: {other}\n")


def _link(own: Path, other: Path) -> None:
    own.rename(own.with_name("old"))
    own.symlink_to(other)


def _work_tree(own: Path, other: Path) -> None:
    """A submodule's repository that names the tree, with objects that are the victim's."""
    module = own.with_name("module")
    own.rename(module)
    own.write_text("gitdir: module\n")
    with (module / "config").open("a") as file:
        file.write("[core]\n\tworktree = ..\n")
    _alternates(module, other)


def _worktree(own: Path, other: Path) -> None:
    """A worktree of the victim's repository by its own word alone."""
    tree = own.with_name("tree")
    tree.mkdir()
    (tree / "HEAD").write_text("ref: refs/heads/main\n")
    (tree / "gitdir").write_text(f"{own}\n")
    (tree / "commondir").write_text(f"{other}\n")
    own.rename(own.with_name("old"))
    own.write_text("gitdir: tree\n")


def _worktree_of_another_place(own: Path, other: Path) -> None:
    git(other.parent, "worktree", "add", "-q", "-b", "side", str(other.parent / "side"))
    _file(own, other / "worktrees/side")


def _work_tree_of_another_place(own: Path, other: Path) -> None:
    git(other.parent, "config", "core.worktree", "..")
    _file(own, other)


@pytest.mark.parametrize(
    "disguise",
    [_alternates, _fan_out, _loose, _pack, _common, _file, _link, _work_tree, _worktree,
     _worktree_of_another_place, _work_tree_of_another_place],
)  # fmt: skip
@pytest.mark.parametrize("ref", [None, "main"])
def test_no_object_of_another_repository_goes_in(
    disguise: Callable[[Path, Path], None],
    ref: str | None,
    repository: Path,
    victim: Path,
    make: Make,
) -> None:
    """CVE-2022-39253 and its like: by an alternate, a link or a .git file, with a clone or not."""
    disguise(repository / ".git", victim / ".git")
    before = digest_of_tree(victim)
    try:
        prepared = make(repository, ref=ref)
    except StateError:
        assert ref is not None
    else:
        assert SECRET not in objects_of(inside(prepared))
        assert not (inside(prepared) / "words").exists()
        assert ref is None
        assert any("git's history stays outside" in warning for warning in prepared.warnings)
    assert digest_of_tree(victim) == before


@pytest.mark.parametrize(
    "part",
    ["HEAD", "index", "config", "objects", "objects/pack", "packed-refs", "refs", "shallow"],
)
def test_a_part_of_git_that_is_a_link_is_named(repository: Path, part: str) -> None:
    place = repository / ".git" / part
    if place.exists():
        place.rename(repository / "elsewhere")
    place.symlink_to(repository / "elsewhere")
    reason = f"{place.name} of its .git is a symbolic link"
    assert gitdir.find(repository) == (None, reason)


def test_nothing_in_git_is_waited_for(repository: Path, make: Make) -> None:
    """A FIFO where git has a file would hold up whoever opens it."""
    git(repository, "pack-refs", "--all")
    for name in ("packed-refs", "shallow", "index", "refs/heads/pipe"):
        (repository / ".git" / name).unlink(missing_ok=True)
        os.mkfifo(repository / ".git" / name)
    (repository / ".git/info").mkdir(exist_ok=True)
    (repository / ".git/info/exclude").unlink(missing_ok=True)
    os.mkfifo(repository / ".git/info/exclude")
    assert inside(make(repository, gitignore=True)).is_dir()


def test_a_secret_that_was_only_staged_stays_outside(repository: Path, make: Make) -> None:
    git(repository, "add", "-f", ".env")
    prepared = make(repository)
    assert "hunter2" not in objects_of(inside(prepared))
    assert git(inside(prepared), "ls-files", ".env") == ""
    assert git(inside(prepared), "status", "--porcelain") == ""


def test_the_index_tells_nothing_but_what_is_tracked(repository: Path, make: Make) -> None:
    """Git keeps names of files that it does not track in it, too."""
    git(repository, "update-index", "--untracked-cache")
    git(repository, "status")
    (repository / ".git/index").write_bytes((repository / ".git/index").read_bytes())
    assert b".env" in (repository / ".git/index").read_bytes()
    for history in ("head", "full"):
        index = inside(make(repository, history=history)) / ".git/index"
        assert b".env" not in index.read_bytes()


def test_a_secret_in_a_directory_with_a_newline_is_found_in_the_history(
    repository: Path, make: Make
) -> None:
    (repository / "a\nb").mkdir()
    (repository / "a\nb/.env").write_text("hunter2")
    git(repository, "add", "-f", "a\nb/.env")
    git(repository, "commit", "-q", "-m", "oops")
    assert plan(Repository(path=str(repository))).history == "head"
    assert "hunter2" not in objects_of(inside(make(repository)))


def test_a_tag_on_a_file_or_a_tree_counts_as_hidden(repository: Path, make: Make) -> None:
    """The paths of what it holds are in no commit."""
    blob = git(repository, "hash-object", "-w", ".env").strip()
    git(repository, "tag", "key", blob)
    assert plan(Repository(path=str(repository))).history == "head"
    assert "hunter2" not in objects_of(inside(make(repository)))


def test_one_commit_leaves_the_times_of_the_originals_objects(repository: Path, make: Make) -> None:
    """The tree without the secret is one that the original has already: git would touch it."""
    (repository / "secret.key").write_text("hunter2")
    git(repository, "add", "-f", "secret.key")
    git(repository, "commit", "-q", "-m", "oops")
    before = digest_of_tree(repository)
    work = inside(make(repository))
    assert git(work, "log", "--format=%an %s").strip() == (
        "Ringfence The repository as the sandbox sees it"
    )
    assert git(work, "status", "--porcelain") == ""
    assert digest_of_tree(repository) == before


def test_full_history_keeps_hidden_files_as_they_were_committed(
    repository: Path, make: Make
) -> None:
    git(repository, "add", "-f", ".env")
    git(repository, "commit", "-q", "-m", "oops")
    (repository / ".env").write_text("TOKEN=staged\n")
    git(repository, "add", "-f", ".env")
    work = inside(make(repository, history="full"))
    assert "staged" not in objects_of(work)
    assert git(work, "show", ":.env") == "TOKEN=hunter2\n"
    assert git(work, "status", "--porcelain") == ""


@pytest.mark.parametrize(
    "command",
    [
        ["update-index", "--split-index"],
        ["update-index", "--index-version", "4"],
        ["sparse-checkout", "set", "--cone", "--sparse-index", "none"],
    ],
)
def test_every_kind_of_index_is_taken_over(
    command: list[str], repository: Path, make: Make
) -> None:
    (repository / "lib/deep").mkdir(parents=True)
    (repository / "lib/deep/file").write_text("x")
    git(repository, "add", "lib")
    git(repository, "commit", "-q", "-m", "second")
    git(repository, *command)
    (repository / "README.md").write_text("staged\n")
    git(repository, "add", "README.md")
    if command[0] == "update-index":
        git(repository, "rm", "-q", "--cached", "run.sh")
    wanted = git(repository, "status", "--porcelain", "-uno")
    work = inside(make(repository))
    assert git(work, "status", "--porcelain", "-uno") == wanted
    assert git(work, "ls-files") == git(repository, "ls-files")


def test_a_submodules_own_repository_is_found(repository: Path, victim: Path, make: Make) -> None:
    """Its .git is a file that names a place in the outer repository, which names it back."""
    git(repository, "-c", "protocol.file.allow=always", "submodule", "add", "-q",
        victim.as_uri(), 'inner "dir"')  # fmt: skip
    work = inside(make(repository / 'inner "dir"'))
    assert git(work, "log", "--format=%s").strip() == "words"
    assert git(work, "status", "--porcelain") == ""


def test_submodules_never_come_from_where_a_local_repository_says(
    repository: Path, victim: Path, make: Make
) -> None:
    name = git(victim, "rev-parse", "HEAD").strip()
    (repository / ".gitmodules").write_text(
        f'[submodule "s"]\n\tpath = s\n\turl = {victim.as_uri()}\n'
    )
    git(repository, "update-index", "--add", "--cacheinfo", f"160000,{name},s")
    git(repository, "add", ".gitmodules")
    git(repository, "commit", "-q", "-m", "evil")
    with pytest.raises(StateError, match="submodule s is not in the repository"):
        make(repository, ref="main", submodules=True)


def test_a_submodules_repository_is_not_looked_for_behind_a_link(
    repository: Path, victim: Path, make: Make
) -> None:
    name = git(victim, "rev-parse", "HEAD").strip()
    (repository / ".gitmodules").write_text('[submodule "s"]\n\tpath = s\n\turl = ./s\n')
    git(repository, "update-index", "--add", "--cacheinfo", f"160000,{name},s")
    git(repository, "add", ".gitmodules")
    git(repository, "commit", "-q", "-m", "evil")
    (repository / ".git/modules").mkdir()
    (repository / ".git/modules/s").symlink_to(victim / ".git")
    with pytest.raises(StateError, match=r"s cannot be cloned: .* behind a symbolic link"):
        make(repository, ref="main", submodules=True)
    (repository / ".git/modules").rename(repository / "modules")
    (repository / ".git/modules").symlink_to(repository / "modules")
    with pytest.raises(StateError, match=r"s cannot be cloned: .* behind a symbolic link"):
        make(repository, ref="main", submodules=True)


def test_a_submodule_is_kept_below_its_repository_and_nowhere_else(repository: Path) -> None:
    (repository / ".git/modules").mkdir()
    found, _ = gitdir.find(repository)
    assert found is not None
    for name in ("..", "../../.git", "", ".", "s/../..", "/", "none"):
        assert found.module(name) == (None, None), name
    git(repository, "clone", "-q", "--bare", ".", ".git/modules/own")
    own, _ = found.module("own")
    assert own is not None
    assert own.common == repository / ".git/modules/own"
    (repository / ".git/modules/own/objects/info/alternates").write_text("../../../objects\n")
    own, reason = found.module("own")
    assert own is None
    assert "borrows objects" in str(reason)


def test_objects_that_are_borrowed_stay_outside_and_it_is_said(
    repository: Path, tmp_path: Path
) -> None:
    git(tmp_path, "clone", "-q", "--shared", str(repository), "borrowed")
    found = plan(Repository(path=str(tmp_path / "borrowed")))
    assert found.history is None
    assert any("borrows objects" in warning for warning in found.warnings)


def test_references_that_are_not_read_are_said(repository: Path) -> None:
    (repository / ".git/reftable").mkdir()
    found = plan(Repository(path=str(repository)))
    assert found.history is None
    assert any("reftable" in warning for warning in found.warnings)


def test_of_a_partial_clone_one_commit_goes_in(
    repository: Path, make: Make, tmp_path: Path
) -> None:
    git(repository, "config", "uploadpack.allowFilter", "true")
    (repository / "README.md").write_text("second\n")
    git(repository, "commit", "-q", "-a", "-m", "second")
    git(tmp_path, "-c", "protocol.file.allow=always", "clone", "-q", "--filter=blob:none",
        repository.as_uri(), "partial")  # fmt: skip
    prepared = make(tmp_path / "partial")
    assert any("partial clone" in warning for warning in prepared.warnings)
    assert git(inside(prepared), "rev-list", "--all", "--count").strip() == "1"
    assert git(inside(prepared), "status", "--porcelain") == ""
    with pytest.raises(UnsupportedError, match="not whole"):
        make(tmp_path / "partial", history="full")
    git(tmp_path, "-c", "protocol.file.allow=always", "clone", "-q", "--filter=blob:none",
        "--no-checkout", repository.as_uri(), "empty")  # fmt: skip
    assert plan(Repository(path=str(tmp_path / "empty"))).history is None


def test_a_bare_repository_is_cloned_by_its_url(
    repository: Path, make: Make, tmp_path: Path
) -> None:
    bare = tmp_path / os.fsdecode(b"bare one\xff.git")
    git(tmp_path, "clone", "-q", "--bare", str(repository), bare.name)
    found, reason = gitdir.find_bare(bare)
    assert (found is not None, reason) == (True, None)
    for url in (bare.as_uri(), bare.as_uri().replace("file:", "File:")):
        found_plan = plan(Repository(path=url, ref="main"))
        paths = {entry.path for entry in found_plan.selection.entries}
        assert paths >= {"README.md", "src/code.py"}


def test_a_url_of_a_file_names_a_directory_of_this_host_from_its_root(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repository.parent)
    with pytest.raises(InvalidSpecError, match="not the URL of a file of this host"):
        plan(Repository(path=f"file://{repository.name}"))
    for name in ("none", "README.md"):
        with pytest.raises(NotFoundError, match=name):
            plan(Repository(path=(repository / name).as_uri()))


def test_a_repository_that_is_refused_is_no_bare_one_at_a_ref(repository: Path) -> None:
    """What looks like one beside its .git is not taken in its place."""
    shutil.copytree(repository / ".git", repository, dirs_exist_ok=True)
    (repository / ".git").rename(repository / "elsewhere")
    (repository / ".git").symlink_to("elsewhere")
    with pytest.raises(StateError, match=r"cannot be cloned: \.git is a symbolic link"):
        plan(Repository(path=str(repository), ref="main"))


def test_git_works_in_a_repository_without_a_commit(repository: Path, make: Make) -> None:
    shutil.rmtree(repository / ".git")
    git(repository, "init", "-q", "-b", "trunk")
    git(repository, "add", "-f", ".env", "README.md")
    prepared = make(repository)
    work = inside(prepared)
    assert git(work, "status", "--porcelain", "-uno") == "A  README.md\n"
    assert SECRET not in objects_of(work)
    git(work, "commit", "-q", "-m", "first")
    assert git(work, "log", "--format=%s", "trunk") == "first\n"
    assert len(prepared.changes()) == 0
    (repository / ".git/index").unlink()
    assert git(inside(make(repository)), "ls-files") == ""


def test_a_head_whose_commit_is_missing_is_said(repository: Path, make: Make) -> None:
    (repository / ".git/refs/heads/main").write_text("1" * 40 + "\n")
    prepared = make(repository)
    assert not (inside(prepared) / ".git").exists()
    assert any("not there" in warning for warning in prepared.warnings)


def test_a_sparse_index_leaves_the_times_of_the_originals_objects(
    repository: Path, make: Make
) -> None:
    git(repository, "sparse-checkout", "set", "--cone", "--sparse-index", "none")
    for path in (repository / ".git/objects").rglob("??????*"):
        os.utime(path, (1, 1))
    before = digest_of_tree(repository)
    work = inside(make(repository))
    assert digest_of_tree(repository) == before
    assert git(work, "ls-files") == git(repository, "ls-files")
    assert git(work, "status", "--porcelain", "-uno") == ""


def test_a_sparse_index_does_not_name_more_files_than_there_is_room_for(
    repository: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(repository, "sparse-checkout", "set", "--cone", "--sparse-index", "none")
    monkeypatch.setattr("ringfence.workspace.tracked._MOST_TRACKED", 1)
    with pytest.raises(StateError, match="over 1 files"):
        make(repository)


def test_a_reference_of_any_other_name_is_none(victim: Path) -> None:
    """It would be written into the repository that the sandbox gets, or name a file outside."""
    commit = git(victim, "rev-parse", "HEAD").strip()
    odd = ["refs/heads/../../x", "refs/heads/a b", "refs/heads/a\x7f", "refs/odd/x", "HEAD", "x", "refs/stash",
           "refs/replace/x",
           "refs/heads/", "refs/heads/a:b", "refs/heads/" + "a" * 401, "../refs/heads/x"]  # fmt: skip
    fine = {"refs/heads/fine/one", "refs/tags/v1", "refs/remotes/o/m", "refs/notes/commits"}
    lines = [f"{commit} {name}\n" for name in (*odd, *fine)]
    lines += ["0123 refs/heads/short\n", f"{commit.upper()} refs/heads/upper\n", "refs/heads/y\n"]
    (victim / ".git/packed-refs").write_text("".join(lines))
    (victim / ".git/refs/heads/a b").write_text(commit)
    (victim / ".git/refs/heads/link").symlink_to("main")
    (victim / ".git/refs/odd").mkdir()
    (victim / ".git/refs/odd/x").write_text(commit)
    (victim / ".git/refs/heads/words").write_text(SECRET)
    (victim / ".git/shallow").write_text(f"{commit}\n{commit}0\nwords\n")
    found, _ = gitdir.find(victim)
    assert found is not None
    assert found.shallow() == [commit]
    assert found.references() == dict.fromkeys({*fine, "refs/heads/main"}, commit)
    assert found.head() == "ref: refs/heads/main"
    for name in odd:
        (victim / ".git/HEAD").write_text(f"ref: {name}\n")
        assert found.head() is None
    (victim / ".git/HEAD").write_text(f"{commit}\n")
    assert found.head() == commit


def test_a_file_of_git_is_read_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "config").write_bytes(b"12345")
    assert gitdir.bytes_of(tmp_path, "config", 5) == b"12345"
    assert gitdir.bytes_of(tmp_path, "config", 4) == b""


def test_a_repository_that_is_reached_over_a_link_is_found_where_it_is(
    repository: Path, tmp_path: Path
) -> None:
    (tmp_path / "name").symlink_to(repository)
    found, _ = gitdir.find(tmp_path / "name")
    assert found is not None
    assert found.own == repository / ".git"


@pytest.mark.parametrize("config", ["\n" * 1_000_000, "worktree =" + " " * 1_000_000 + '"'])
@pytest.mark.parametrize("elsewhere", [False, True])
def test_no_configuration_takes_time_in_a_power_of_its_length(
    repository: Path, config: str, elsewhere: bool
) -> None:
    if elsewhere:
        (repository / ".git").rename(repository / "own")
        (repository / ".git").write_text("gitdir: own\n")
    (repository / ("own" if elsewhere else ".git") / "config").write_text(config)
    assert (plan(Repository(path=str(repository))).history is None) == elsewhere


def test_a_reference_with_a_file_of_its_own_is_what_that_says(repository: Path) -> None:
    """The packed one stays as it was when a commit is made."""
    git(repository, "pack-refs", "--all")
    git(repository, "commit", "-q", "--allow-empty", "-m", "second")
    found, _ = gitdir.find(repository)
    assert found is not None
    assert found.references() == {"refs/heads/main": git(repository, "rev-parse", "HEAD").strip()}
