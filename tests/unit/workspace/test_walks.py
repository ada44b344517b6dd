"""A walk that is kept gives what a new one would give, whatever was changed meanwhile."""

import marshal
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pathspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ringfence.errors import InvalidSpecError
from ringfence.guest import build
from ringfence.spec import Repository
from ringfence.workspace import patterns, plan, prepare, rules, seen, select, walks
from ringfence.workspace.beneath import open_root
from ringfence.workspace.listing import list_again
from ringfence.workspace.selection import Selection
from ringfence.workspace.stopping import Stopped
from tests.unit.workspace.conftest import Make, inside

EXCLUDE = ("*.log", "private/", "run.sh")
Fields = dict[str, object]


@pytest.fixture(autouse=True)
def small_and_young(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small trees are kept, and links that were just made."""
    monkeypatch.setattr(walks, "FEW", 0)
    monkeypatch.setattr(seen, "_NEW_NANOSECONDS", 0)


@pytest.fixture
def walked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with each walk in `walks.choose`."""
    found: list[int] = []
    real = select.Walk

    def walk(*args: object) -> object:
        found.append(1)
        return real(*args)

    monkeypatch.setattr(select, "Walk", walk)
    return found


def choose(root: Path, store: Path, **fields: object) -> Selection:
    descriptor = open_root(root)
    try:
        return walks.choose(descriptor, Repository(path=str(root), **fields), store)
    finally:
        os.close(descriptor)


def fresh(root: Path, **fields: object) -> Selection:
    descriptor = open_root(root)
    try:
        return select.select(descriptor, Repository(path=str(root), **fields))
    finally:
        os.close(descriptor)


def told(chosen: Selection) -> list[object]:
    """All that a selection says."""
    facts: list[object] = [chosen.entries, chosen.hidden, chosen.special, chosen.git]
    facts += [chosen.count, chosen.files, chosen.size, chosen.set_ids, chosen.names()]
    return [*facts, chosen.elsewhere(0), chosen.packed, chosen.digest]


def same_as_fresh(root: Path, store: Path, **fields: object) -> None:
    kept = choose(root, store, **fields)
    assert told(kept) == told(fresh(root, **fields))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree with something of every kind."""
    root = tmp_path / "tree"
    for name in ("src/deep/er", "private/inner", "empty", ".git/info", "vendored/.git"):
        (root / name).mkdir(parents=True)
    for name in ("README.md", "src/code.py", "src/deep/er/x.py", "private/notes", "a.log", "run.sh",
                 "private/inner/key", ".env", ".git/HEAD", "old"):  # fmt: skip
        (root / name).write_text(f"{name}\n")
    (root / "run.sh").chmod(0o755)
    (root / "link").symlink_to("README.md")
    (root / "away").symlink_to("/etc/passwd")
    (root / ".gitignore").write_text("old\n")
    (root / "src/.gitignore").write_text("deep\n")
    os.mkfifo(root / "pipe")
    for name in (b"new\nline", b"bad\xff", b"x" * 255, b" ", b"\\"):
        Path(os.fsdecode(os.fsencode(root) + b"/" + name)).touch()
    return root


RULES: tuple[Fields, ...] = (
    {},
    {"exclude": EXCLUDE},
    {"exclude": EXCLUDE, "gitignore": True},
    {"include": ("*.py", "x*")},
    {"subpath": "src", "secrets_excluded": False},
)


def edit_unseen(root: Path) -> None:
    """With the same size and time as before."""
    before = (root / "src/code.py").stat()
    (root / "src/code.py").write_text("src/edoc.py\n")
    os.utime(root / "src/code.py", ns=(before.st_atime_ns, before.st_mtime_ns))


def replace(root: Path) -> None:
    shutil.copy2(root / "src/code.py", root / "private/new")
    (root / "private/new").replace(root / "src/code.py")


def swap_for_hidden(root: Path) -> None:
    """A visible file becomes another name of a hidden one: no name and no kind differs."""
    (root / "other").hardlink_to(root / ".env")
    (root / "other").replace(root / "src/code.py")


def swap_for_deeply_hidden(root: Path) -> None:
    (root / "other").hardlink_to(root / "private/inner/key")
    (root / "other").replace(root / "README.md")


def ignore_otherwise(root: Path) -> None:
    before = (root / ".gitignore").stat()
    (root / ".gitignore").write_text("x*\n\n")
    os.utime(root / ".gitignore", ns=(before.st_atime_ns, before.st_mtime_ns))


def exclude_in_git(root: Path) -> None:
    (root / ".git/info/exclude").write_text("README.md\n")


def lead_out(root: Path) -> None:
    (root / "link").unlink()
    (root / "link").symlink_to("../EADME.md")


def swap_directories(root: Path) -> None:
    (root / "empty").rename(root / "third")
    (root / "src").rename(root / "empty")
    (root / "third").rename(root / "src")


def link_for_directory(root: Path) -> None:
    shutil.move(root / "src", root.parent / "outside")
    (root / "src").symlink_to("../outside")


def directory_for_file(root: Path) -> None:
    (root / "old").unlink()
    (root / "old").mkdir()
    (root / "old/inner").touch()


SAME_NAMES: tuple[Callable[[Path], object], ...] = (
    lambda root: None,
    edit_unseen,
    replace,
    lambda root: (root / "src/code.py").write_text("longer than before\n"),
    lambda root: (root / "README.md").chmod(0o4711),
    lambda root: (root / "src").chmod(0o700),
    lambda root: os.utime(root / "empty", ns=(5, -7)),
    lambda root: (root / ".git/more").touch(),
    lambda root: os.utime(root / "README.md", (1, 20_000_000_000)),  # of the year 2603
    lambda root: os.utime(root / "src", (1, -20_000_000_000)),
)
DIFFERENT: tuple[Callable[[Path], object], ...] = (
    lambda root: (root / "src/twin").unlink(),
    swap_for_hidden,
    swap_for_deeply_hidden,
    ignore_otherwise,
    exclude_in_git,
    lead_out,
    swap_directories,
    link_for_directory,
    directory_for_file,
    lambda root: (root / "fresh").touch(),
    lambda root: (root / "README.md").unlink(),
    lambda root: (root / "README.md").rename(root / "a.py"),
    lambda root: (root / "src/deep/er/x.py").rename(root / "src/deep/er/x.log"),
    lambda root: (root / "private/inner/key").unlink(),
    lambda root: shutil.rmtree(root / "src"),
    lambda root: (root / "src/deep/er/.git").mkdir(),
    lambda root: (root / "src/.gitignore").unlink(),
    lambda root: (root / "plain").hardlink_to(root / ".env"),
    lambda root: (root / "plain").hardlink_to(root / "private/inner/key"),
)


@pytest.mark.parametrize("change", [*SAME_NAMES, *DIFFERENT])
@pytest.mark.parametrize("fields", RULES)
def test_it_is_what_a_new_walk_gives(
    tree: Path, tmp_path: Path, change: Callable[[Path], object], fields: Fields
) -> None:
    (tree / "src/twin").hardlink_to(tree / "src/code.py")
    for _ in range(2):
        same_as_fresh(tree, tmp_path / "store", **fields)
    change(tree)
    if fields.get("subpath") and ((tree / "src").is_symlink() or not (tree / "src").exists()):
        return  # an error; see test_the_subpath_is_looked_at_each_time
    for _ in range(2):
        same_as_fresh(tree, tmp_path / "store", **fields)


NAMES = st.sampled_from(("a", "b.log", ".env", ".git", ".gitignore", "private", "d", "x\n\udcff"))
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
TARGETS = st.sampled_from(("a", "..", "d/../..", "/nonexistent"))
TEXTS = st.sampled_from(("a\n", "d\n", "*\n", "!a\n", ""))


def write(root: Path, path: str, text: str, target: str, other: str) -> None:
    if not (root / path).is_fifo():  # which would wait for a reader
        (root / path).write_text(text)


def write_unseen(root: Path, path: str, text: str, target: str, other: str) -> None:
    before = (root / path).stat()
    write(root, path, text, target, other)
    os.utime(root / path, ns=(before.st_atime_ns, before.st_mtime_ns))


def remove(root: Path, path: str, text: str, target: str, other: str) -> None:
    if (root / path).is_dir() and not (root / path).is_symlink():
        shutil.rmtree(root / path)
    else:
        (root / path).unlink()


def change_owner(root: Path, path: str, text: str, target: str, other: str) -> None:
    os.chown(root / path, len(other), len(target), follow_symlinks=False)


EDITS = st.tuples(
    st.sampled_from((
        write, write, write_unseen, remove, change_owner,
        lambda root, path, *_: (root / path).mkdir(),
        lambda root, path, *_: (root / path).mkdir(),
        lambda root, path, _text, target, _other: (root / path).symlink_to(target),
        lambda root, path, *_: os.mkfifo(root / path),
        lambda root, path, text, *_: (root / path).chmod(0o600 + len(text)),
        lambda root, path, _text, _target, other: (root / path).rename(root / other),
        lambda root, path, _text, _target, other: (root / path).hardlink_to(root / other),
        lambda root, path, _text, _target, other: exchange(root / path, root / other),
    )), PATHS, TEXTS, TARGETS, PATHS,
)  # fmt: skip


def exchange(one: Path, other: Path) -> None:
    aside = one.with_name("aside")
    one.rename(aside)
    try:
        other.rename(one)
    finally:
        aside.rename(other if one.exists() else one)


def edit(root: Path, edits: list[tuple[Callable[..., object], str, str, str, str]]) -> None:
    """Make those that are possible, none of them through a link out of the tree."""
    for change, path, text, target, other in edits:
        with suppress(OSError, RuntimeError):  # a loop of links
            if all(
                (root / one).resolve(strict=False).is_relative_to(root) for one in (path, other)
            ):
                change(root, path, text, target, other)


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    start=st.lists(EDITS, min_size=5, max_size=30),
    later=st.lists(st.lists(EDITS, max_size=3), max_size=4),
    fields=st.sampled_from(
        ({"gitignore": True}, {"exclude": ("b*", "private")}, {"include": ("a",)})
    ),
)
def test_after_any_edits_it_is_what_a_new_walk_gives(
    tmp_path_factory: pytest.TempPathFactory, start: Any, later: Any, fields: Fields
) -> None:
    place = tmp_path_factory.mktemp("edited")
    root = place / "tree"
    root.mkdir()
    try:
        assert root == root.resolve()
        for edits in (start, *later, []):
            edit(root, edits)
            same_as_fresh(root, place / "store", **fields)
    finally:
        shutil.rmtree(place)


@pytest.mark.parametrize("change", SAME_NAMES)
def test_where_names_and_kinds_are_the_same_nothing_is_chosen_again(
    tree: Path, tmp_path: Path, walked: list[int], change: Callable[[Path], object]
) -> None:
    choose(tree, tmp_path / "store", exclude=EXCLUDE, gitignore=True)
    change(tree)
    for _ in range(2):
        choose(tree, tmp_path / "store", exclude=EXCLUDE, gitignore=True)
    assert len(walked) == 1


def test_other_rules_and_other_trees_have_walks_of_their_own(tree: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    other = tmp_path / "other"
    shutil.copytree(tree, other, symlinks=True, ignore=shutil.ignore_patterns("pipe", "src"))
    for fields in RULES[:2]:
        choose(tree, store, **fields)
    for fields in RULES[:2]:
        same_as_fresh(tree, store, **fields)
        same_as_fresh(other, store, **fields)


def test_hidden_directories_count_once_a_file_has_another_name(
    tree: Path, tmp_path: Path, walked: list[int]
) -> None:
    """As every file has while a frozen tree of hard links stands."""
    store = tmp_path / "store"
    choose(tree, store, exclude=EXCLUDE)
    (tmp_path / "farm").hardlink_to(tree / "README.md")
    for _ in range(3):
        choose(tree, store, exclude=EXCLUDE)
    assert len(walked) == 2
    (tree / "private/more").touch()
    same_as_fresh(tree, store, exclude=EXCLUDE)


@pytest.mark.parametrize("damage", [
    lambda raw: raw[:-1], lambda raw: raw[:20], lambda raw: b"", lambda raw: raw + b"x",
    lambda raw: raw.replace(b"walk 2", b"walk 0"), lambda raw: raw[:60] + b"\0" * (len(raw) - 60),
    lambda raw: walks._FIRST + walks._sum(data := marshal.dumps((1, 2))) + data,
    lambda raw: walks._FIRST + walks._sum(b"[") + b"[",
])  # fmt: skip
def test_a_damaged_file_is_none(
    tree: Path, tmp_path: Path, walked: list[int], damage: Callable[[bytes], bytes]
) -> None:
    store = tmp_path / "store"
    choose(tree, store)
    (kept,) = store.iterdir()
    kept.write_bytes(damage(kept.read_bytes()))
    same_as_fresh(tree, store)
    choose(tree, store)
    assert len(walked) == 3  # the one in between is `select`


def test_a_file_that_was_hidden_in_the_middle_of_a_walk_is_hidden_by_the_next(
    tree: Path, tmp_path: Path
) -> None:
    """The walk that is kept saw it before it had its second name."""

    def hide(path: str, entries: object) -> None:
        if not path:
            (tree / "src/deep/er/new.log").hardlink_to(tree / "README.md")

    descriptor = open_root(tree)
    try:
        spec = Repository(path=str(tree), exclude=("*.log",))
        before = walks.choose(descriptor, spec, tmp_path / "store", visit=hide)
    finally:
        os.close(descriptor)
    assert "README.md" in before.names()
    same_as_fresh(tree, tmp_path / "store", exclude=("*.log",))


def test_code_that_decides_otherwise_has_walks_of_its_own(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, walked: list[int]
) -> None:
    """By the code that was loaded: an upgrade may put other files in its place at any time."""
    choose(tree, tmp_path / "store")
    monkeypatch.setattr(patterns, "__file__", seen.__file__)
    choose(tree, tmp_path / "store")
    assert len(walked) == 1
    monkeypatch.undo()
    deciding = [(module, "__file__", "/no/such") for module in (patterns, rules, seen, select)]
    for owner, name, value in ((pathspec, "__version__", "0"), *deciding):
        with monkeypatch.context() as patch:
            patch.setattr(seen, "_NEW_NANOSECONDS", 0)
            patch.setattr(owner, name, value)
            assert walks._code() != walks._CODE


def test_a_hidden_directory_without_end_and_a_path_too_long_to_list_are_not_kept(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tree / "src/twin").hardlink_to(tree / "src/code.py")
    with monkeypatch.context() as patch:
        patch.setattr(select, "MAX_ENTRIES", 40)
        for number in range(40):
            (tree / f"private/{number}").touch()
        same_as_fresh(tree, tmp_path / "store", exclude=EXCLUDE)
        assert not (tmp_path / "store").exists()
    here = open_root(tree)
    for _ in range(17):
        os.mkdir("x" * 250, dir_fd=here)
        below = os.open("x" * 250, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    same_as_fresh(tree, tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_a_hidden_directory_that_cannot_be_searched_is_passed_over_and_not_kept(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that cannot be read is: it has mode 0600, say."""
    (tree / "src/twin").hardlink_to(tree / "src/code.py")
    real = select.looked

    def looked(listed: list[os.DirEntry[str]]) -> Any:
        if "inner" in (entry.name for entry in listed):
            raise PermissionError(13, "Permission denied", "inner")
        return real(listed)

    monkeypatch.setattr(select, "looked", looked)
    assert "src/twin" in choose(tree, tmp_path / "store", exclude=EXCLUDE).names()
    assert not (tmp_path / "store").exists()


def test_no_text_is_kept(tree: Path, tmp_path: Path) -> None:
    """A tree may have a file of patterns of a megabyte in each directory."""
    (tree / ".gitignore").write_text("a-word-of-the-text\n" * 1000)
    choose(tree, tmp_path / "store", gitignore=True)
    (kept,) = (tmp_path / "store").iterdir()
    assert b"a-word-of-the-text" not in kept.read_bytes()


_IN_ASCII = """
import os, sys
from ringfence.spec import Repository
from ringfence.workspace import select
assert sys.getfilesystemencoding() == "ascii", sys.getfilesystemencoding()
root = os.open(sys.argv[1], os.O_RDONLY)
chosen = select.select(root, Repository(path=sys.argv[1]))
assert chosen.rows.entries() == chosen.entries
"""


def test_names_are_the_same_whatever_the_locale(tree: Path) -> None:
    (tree / "\u00e9").touch()
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run(
        [sys.executable, "-c", _IN_ASCII, str(tree)], check=True, env=os.environ | locale
    )


def test_without_the_program_the_tree_is_walked(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose(tree, tmp_path / "store")
    for program in ("/nonexistent", "/bin/false", "/bin/true"):
        monkeypatch.setattr(build, "target", lambda program=program: Path(program))
        same_as_fresh(tree, tmp_path / "store")


def test_a_small_tree_and_a_young_link_are_not_kept(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another link that takes its place at once may look the same to the byte."""
    with monkeypatch.context() as patch:
        patch.setattr(seen, "_NEW_NANOSECONDS", 2_000_000_000)
        choose(tree, tmp_path / "store")
    with monkeypatch.context() as patch:
        patch.setattr(walks, "FEW", 2000)
        choose(tree, tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_four_are_kept_for_a_day_and_nobody_else_reads_them(tree: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    kept: list[Path] = []
    for number in range(6):
        choose(tree, store, exclude=(f"x{number}",))
        (new,) = set(store.iterdir()) - set(kept)
        kept.append(new)
        os.utime(new, (time.time() - 60 + number,) * 2)
    assert set(store.iterdir()) == set(kept[2:])
    assert store.stat().st_mode & 0o777 == 0o700
    day = time.time() - 2 * 24 * 3600
    first, *others = store.iterdir()
    os.utime(first, (day, day))
    walks.expire(store)
    assert sorted(store.iterdir()) == sorted(others)


def test_a_walk_that_is_being_written_takes_no_place_of_one_that_is_kept(
    tree: Path, tmp_path: Path
) -> None:
    """Several clients write at once; what one left that was killed goes after a minute."""
    store = tmp_path / "store"
    for number in range(4):
        choose(tree, store, exclude=(f"x{number}",))
    kept = set(store.iterdir())
    written = [store / f"{'0' * 64}.{number}" for number in range(5)]
    for path in written:
        path.touch()
    walks.expire(store)
    assert set(store.iterdir()) == kept | set(written)
    before = time.time() - 100
    for path in written:
        os.utime(path, (before, before))
    walks.expire(store)
    assert set(store.iterdir()) == kept


def test_who_keeps_at_the_same_time_keeps_whole_walks(tree: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    found: list[list[object]] = []

    def run() -> None:
        for _ in range(10):
            (tree / "README.md").write_text(f"{len(found)}\n")
            found.append(choose(tree, store).git)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 20
    assert len(list(store.iterdir())) == 1
    same_as_fresh(tree, store)


def test_the_program_follows_no_link_and_stays_below(tree: Path) -> None:
    (tree / "out").symlink_to("..")
    (tree / "src/up").symlink_to("deep")
    root = open_root(tree)
    try:
        assert list_again(root, [b"", b"src/deep"], 100) is not None
        for path in (
            "..",
            "out",
            "src/up",
            "out/tree",
            "/",
            "/etc",
            "src/../..",
            "README.md",
            "no",
        ):
            assert list_again(root, [b"", path.encode()], 100) is None
        assert list_again(root, [b"", b"src/deep"], 3) is None  # more than that may be endless
    finally:
        os.close(root)


def test_who_cancels_waits_for_no_listing(tree: Path, tmp_path: Path) -> None:
    def stop() -> None:
        raise Stopped

    choose(tree, tmp_path / "store")
    root = open_root(tree)
    before = children()
    try:
        with pytest.raises(Stopped):
            walks.choose(root, Repository(path=str(tree)), tmp_path / "store", check=stop)
        assert children() <= before
    finally:
        os.close(root)


def children() -> set[str]:
    """Those of this process, dead ones that nobody waited for too: other tests may have some."""
    listed = (path.read_text() for path in Path("/proc/self/task").glob("*/children"))
    return {pid for text in listed for pid in text.split()}


def test_the_subpath_is_looked_at_each_time(tree: Path, tmp_path: Path) -> None:
    choose(tree, tmp_path / "store", subpath="src")
    link_for_directory(tree)
    with pytest.raises(InvalidSpecError, match="subpath"):
        choose(tree, tmp_path / "store", subpath="src")


def test_a_file_of_a_far_time_goes_in(repository: Path, make: Make) -> None:
    """One of the year 2603, which no record of 64 bits holds."""
    os.utime(repository / "src/code.py", (1, 20_000_000_000))
    first = make(repository)
    assert make(repository).layers == first.layers
    masked = make(repository, file_mode=0o600)
    assert len(masked.changes()) == len(first.changes()) == 0
    (inside(first) / "src/code.py").write_text("written inside\n")
    assert first.changes().of("modified") == ("src/code.py",)


def test_workspaces_and_plans_use_it_and_a_plan_keeps_none(
    repository: Path, make: Make, tmp_path: Path, walked: list[int]
) -> None:
    spec = Repository(path=str(repository))
    plan(spec, workspaces=tmp_path / "state")
    assert not (tmp_path / "state").exists()
    first = make(repository)
    walked.clear()
    again, bound = make(repository), make(repository, mode="ro")
    assert again.layers == first.layers
    assert bound.mode == "ro"
    assert plan(spec, workspaces=tmp_path / "state").selection.files == 5
    assert not walked
    (repository / "src/code.py").write_text("edited\n")
    assert make(repository).layers != first.layers
    assert not walked


def test_who_counts_hears_the_same_number_at_once(
    repository: Path, tmp_path: Path, walked: list[int]
) -> None:
    heard: list[list[int]] = [[], []]
    for number, counts in enumerate(heard):
        prepared = prepare(
            Repository(path=str(repository), mode="ro"),
            directory=tmp_path / f"state/w{number}",
            uid=os.getuid(),
            gid=os.getgid(),
            privileged=False,
            count=counts.append,
        )
        prepared.close()
    assert len(walked) == 1
    assert heard[1] == heard[0][-1:] == [6]
