"""Repositories: opening, comparing and forking a tree of 50,000 files and 1 GiB."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ringfence.spec import Repository
from ringfence.workspace import For, Prepared, clean, fork, prepare, walks
from ringfence.workspace.beneath import open_root
from ringfence.workspace.select import select
from ringfence.workspace.shared import STORE
from tests.bench.measure import Line, at_least, at_most, below, interleaved

DIRECTORIES, FILES, BYTES = 500, 100, 21_475
PATTERNS = (
    "*.o", "*.pyc", "build/", "dist/", "/docs/_build", "node_modules/", "*.egg-info/",
    "**/cache/**", "a*b*c", "*.log", "tmp/", "/target", "*.swp", ".tox/", ".venv/", "*.so", "*.a",
    "secret*", "/x/y", "/x/z*", "*.bak", "coverage.*", "!coverage.py", "*.tmp", "*.cache",
)  # fmt: skip


class Bench:
    """The trees, and the workspaces made of them."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.tree, self.empty = place / "tree", place / "empty"
        self.empty.mkdir()
        (self.empty / "file").touch()
        self.made = 0
        for number in range(DIRECTORIES):
            below_it = self.tree / f"part{number % 20}" / f"module{number}"
            below_it.mkdir(parents=True)
            for file in range(FILES):
                (below_it / f"file{file}.py").write_bytes(os.urandom(25) * (BYTES // 25))

    def directory(self) -> Path:
        self.made += 1
        return self.place / "state" / f"w{self.made}"

    def open(self, path: Path, **fields: object) -> Prepared:
        strategy = fields.pop("strategy", None)
        return prepare(
            Repository(path=str(path), **fields), directory=self.directory(), uid=1000, gid=1000,
            privileged=True, strategy=strategy,
        )  # fmt: skip

    def forget(self) -> None:
        """Drop the frozen trees and the walks that are kept for the next workspace."""
        for store in (STORE, walks.STORE):
            shutil.rmtree(self.place / "state" / store, ignore_errors=True)

    def commit(self) -> None:
        """Make a packed repository of the tree; `show` puts it there and takes it away."""
        git = ["git", "-c", "gc.auto=0", "-c", "user.name=a", "-c", "user.email=a@example.com"]
        for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "all"], ["gc", "-q"]):
            subprocess.run([*git, *words], cwd=self.tree, check=True)
        self.show(False)

    def show(self, shown: bool) -> None:
        """Let the tree be that repository, or none."""
        apart, there = self.place / "git", self.tree / ".git"
        if shown:
            apart.rename(there)
        else:
            there.rename(apart)

    def edit(self) -> None:
        """Replace ten files of the tree."""
        for path in sorted(self.tree.glob("part3/module*/file7.py"))[:10]:
            (self.place / "edited").write_bytes(os.urandom(25) * (BYTES // 25))
            (self.place / "edited").replace(path)

    async def walk(self) -> None:
        root = open_root(self.tree)
        try:
            select(root, Repository(path=str(self.tree), exclude=PATTERNS))
        finally:
            os.close(root)

    async def walk_again(self) -> None:
        root, known = open_root(self.tree), self.place / "state" / walks.STORE
        try:
            walks.choose(root, Repository(path=str(self.tree), exclude=PATTERNS), known)
        finally:
            os.close(root)


@contextmanager
def trees() -> Iterator[Bench]:
    place = Path(tempfile.mkdtemp(prefix="ringfence-bench-"))
    try:
        yield Bench(place)
    finally:
        for left in (place / "state").glob("w*"):
            clean(left)
        shutil.rmtree(place)


async def measure(rounds: int) -> list[Line]:
    rounds = rounds or 3
    with trees() as bench:
        opening, using = await _opening(bench, rounds), await _using(bench, rounds)
        versioned = [*await _versioned(bench, rounds), *await _walking(bench, rounds)]
        return [*opening, *versioned, *using, *await _copying(bench)]


async def _opening(bench: Bench, rounds: int) -> list[Line]:
    opened: list[Prepared] = []

    async def tree() -> None:
        opened.append(bench.open(bench.tree))

    async def empty() -> None:
        opened.append(bench.open(bench.empty))

    async def bound() -> None:
        opened.append(bench.open(bench.tree, mode="ro"))

    async def edit() -> None:
        while opened:
            opened.pop().close()
        bench.edit()

    async def tidy() -> None:
        while opened:
            opened.pop().close()
        bench.forget()

    things = {"first": tree, "empty": empty, "again": tree, "bound": bound, "walk": bench.walk}
    things |= {"edit": edit, "edited": tree}
    times = await interleaved({**things, "tidy": tidy}, rounds, warm=1)
    first = times["first"] - times["empty"] - times["walk"]
    again = times["again"] - times["empty"] - times["walk"]
    edited = times["edited"] - times["empty"] - times["walk"]
    return [
        below("the walk with 25 patterns", times["walk"] * 1e3, 400, "ms"),
        below("opening first, above an empty one and the walk", first * 1e3, 150, "ms"),
        below("opening again, above an empty one and the walk", again * 1e3, 150, "ms"),
        below("opening edited, above an empty one and the walk", edited * 1e3, 150, "ms"),
        below("ro, above the walk", (times["bound"] - times["walk"]) * 1e3, 5, "ms"),
    ]


async def _versioned(bench: Bench, rounds: int) -> list[Line]:
    opened: list[Prepared] = []
    bench.commit()

    async def tree() -> None:
        opened.append(bench.open(bench.tree))

    async def versioned() -> None:
        bench.show(True)
        opened.append(bench.open(bench.tree))
        bench.show(False)

    async def tidy() -> None:
        while opened:
            opened.pop().close()
        bench.forget()

    things = {"without": tree, "between": tidy, "with": versioned, "tidy": tidy}
    times = await interleaved(things, rounds, warm=1)
    more = times["with"] - times["without"]
    return [below("opening first, a git tree, above one without", more * 1e3, 200, "ms")]


async def _walking(bench: Bench, rounds: int) -> list[Line]:
    """Of the git tree that `_versioned` made: anew, again, and again with ten files replaced."""

    async def edit() -> None:
        bench.edit()

    things = {"walk": bench.walk, "again": bench.walk_again}
    things |= {"edit": edit, "edited": bench.walk_again}
    bench.show(True)
    times = await interleaved(things, rounds * 3, warm=1)
    bench.show(False)
    again, edited, peer = times["again"], times["edited"], "the walk of a git tree"
    return [
        at_least("the walk again, by the one that is kept", again, times["walk"], peer, 3),
        at_least("the walk again, ten files replaced", edited, times["walk"], peer, 1),
    ]


async def _using(bench: Bench, rounds: int) -> list[Line]:
    prepared = bench.open(bench.tree)
    work = Path(prepared.binds[0].source)
    for number in range(min(100, DIRECTORIES)):
        (work / f"part{number % 20}/module{number}/file1.py").write_text("changed\n")
    forks: list[Prepared] = []

    async def changes() -> None:
        assert len(prepared.changes()) == min(100, DIRECTORIES)

    async def forked() -> None:
        forks.extend(fork(prepared, [bench.directory() for _ in range(8)], For(0, 0, True)))

    async def tidy() -> None:
        while forks:
            forks.pop().close()

    times = await interleaved({"changes": changes, "fork": forked, "tidy": tidy}, rounds, warm=1)
    prepared.close()
    return [
        below("changes() with 100 changed files", times["changes"] * 1e3, 200, "ms"),
        below("fork(8)", times["fork"] * 1e3, 1000, "ms"),
    ]


async def _copying(bench: Bench) -> list[Line]:
    """A gibibyte goes to the disk each time: what was written before is written out first."""
    made: list[Prepared] = []

    async def ours() -> None:
        made.append(bench.open(bench.tree, strategy="copy"))

    async def theirs() -> None:
        command = ["cp", "-a", "--reflink=auto", str(bench.tree), str(bench.place / "copied")]
        subprocess.run(command, check=True)

    async def tidy() -> None:
        while made:
            made.pop().close()
        shutil.rmtree(bench.place / "copied", ignore_errors=True)
        os.sync()

    things = {"ours": ours, "between": tidy, "theirs": theirs, "tidy": tidy}
    times = await interleaved(things, 2, warm=0)
    return [at_most("a plain copy", times["ours"], times["theirs"], "cp -a --reflink=auto", 1.2)]
