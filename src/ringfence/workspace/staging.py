"""A frozen tree of the selected files: what stands below a sandbox's writable layer.

Files become hard links of the originals (nothing is copied, and what is renamed, replaced or added
in the original later is not seen), reflinks or copies where links are not possible or where owner
or mode must differ. Directories are our own. An original edited in place shows through a hard link;
`check_unchanged` tells it from the record.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from ringfence.errors import StateError
from ringfence.workspace.beneath import open_directory
from ringfence.workspace.entries import DIRECTORY, Entry, entry_of, same_content
from ringfence.workspace.failures import failed, shown
from ringfence.workspace.linking import Begun, is_linked
from ringfence.workspace.ownership import Ownership
from ringfence.workspace.putting import Stage
from ringfence.workspace.stopping import Check, always

_THREADS = min(4, os.cpu_count() or 1)
_FEW = 1000


class Staged(NamedTuple):
    """entries: as they are in the copy, each directory before what it holds. linked: whether every
    file is a hard link of its original, and so the same file."""

    entries: list[Entry]
    linked: bool


def stage(
    root: int,
    entries: Sequence[Entry],
    target: int,
    *,
    ownership: Ownership | None = None,
    links: bool = True,
    begun: Begun | None = None,
    check: Check = always,
) -> Staged:
    """Put `entries` of the tree `root` into the directory `target` (both descriptors), which holds
    nothing but what `begun` names.

    links: hard links where they are possible; each is recorded as it was chosen, so that what was
    edited since then is told by `check_unchanged`. Large trees take several threads. check: what it
    raises ends the work.
    Errors: StateError when the tree changes meanwhile, ResourceExhaustedError when the disk is
    full, InvalidSpecError for what cannot be read; each names the path. What was made stays: the
    caller removes the directory. It blocks.
    """
    wanted, there = ownership or Ownership(), begun or {}
    directories, ready, groups = _divided(entries, there)
    _drop(target, there, ready)
    missing = [entry for entry in directories if entry.path not in there]
    _worked(Stage(root, target, wanted, links), lambda work: _made(work, missing))
    works = [Stage(root, target, wanted, links, check) for _ in range(_threads(groups))]
    staged, linked = _filled(works, list(groups.items()))
    done = _worked(Stage(root, target, wanted, links), lambda work: _finished(work, directories))
    return Staged([*done, *ready, *staged], linked)


_Group = tuple[str, list[Entry]]


def _divided(
    entries: Sequence[Entry], begun: Begun
) -> tuple[list[Entry], list[Entry], dict[str, list[Entry]]]:
    """The directories in order, the files that are linked already, and the others by directory."""
    linked_already = {f"{path}/{name}".lstrip("/") for path in begun for name in begun[path]}
    directories: list[Entry] = []
    ready: list[Entry] = []
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        if entry.kind == DIRECTORY:
            directories.append(entry)
        elif entry.path in linked_already and is_linked(entry):
            ready.append(entry)
        else:
            groups.setdefault(entry.path.rpartition("/")[0], []).append(entry)
    directories.sort(key=lambda entry: entry.path)
    return directories, ready, groups


def _drop(target: int, begun: Begun, ready: Sequence[Entry]) -> None:
    """Unlink what was linked and is hidden after all."""
    if sum(map(len, begun.values())) == len(ready):
        return
    wanted = {entry.path for entry in ready}
    for directory, names in begun.items():
        gone = [name for name in names if f"{directory}/{name}".lstrip("/") not in wanted]
        if gone:
            place = open_directory(target, directory)
            try:
                for name in gone:
                    os.unlink(name, dir_fd=place)
            finally:
                os.close(place)


def _threads(groups: Mapping[str, Sequence[Entry]]) -> int:
    return _THREADS if sum(map(len, groups.values())) > _FEW else 1


def _filled(works: list[Stage], groups: list[_Group]) -> tuple[list[Entry], bool]:
    """Stage the files of all directories, with a thread for each work; whether all are linked."""
    waiting = iter(groups)

    def run(work: Stage) -> list[Entry]:
        staged: list[Entry] = []
        try:
            for directory, entries in waiting:
                staged += work.group(directory, entries)
        except BaseException:
            for _ in waiting:  # the other threads find nothing more
                pass
            raise
        return staged

    if len(works) == 1:
        found = [_worked(works[0], run)]
    else:
        with ThreadPoolExecutor(len(works)) as pool:
            found = list(pool.map(lambda work: _worked(work, run), works))
    return [entry for part in found for entry in part], all(work.linked for work in works)


def _worked(work: Stage, run: Callable[[Stage], list[Entry]]) -> list[Entry]:
    try:
        return run(work)
    except OSError as error:
        raise failed(error, work.path, "staging the repository") from None
    finally:
        work.close()


def _made(work: Stage, directories: Sequence[Entry]) -> list[Entry]:
    for entry in directories:
        work.path = entry.path
        work.add(entry)
    return []


def _finished(work: Stage, directories: Sequence[Entry]) -> list[Entry]:
    staged = []
    for entry in reversed(directories):
        work.path = entry.path
        staged.append(work.finish(entry))
    return staged[::-1]


def check_unchanged(base: int, recorded: Entry) -> None:
    """StateError when a staged file of the tree `base` is not what was recorded: its original was
    edited in place, or got another mode."""
    directory, _, name = recorded.path.rpartition("/")
    try:
        parent = open_directory(base, directory)
        try:
            now = entry_of(recorded.path, os.stat(name, dir_fd=parent, follow_symlinks=False))
        finally:
            os.close(parent)
    except OSError as error:
        raise failed(error, recorded.path, "reading the staged repository") from None
    same = now is not None and same_content(now, recorded)
    if now is None or not same or now.mode != recorded.mode:
        what = "had its mode changed" if same else "was edited in place"
        raise StateError(
            f"{shown(recorded.path)} {what} while the sandbox used it",
            op="workspace",
            context={"path": shown(recorded.path)},
        )
