"""What would be visible, found out before anything runs."""

import os
import tempfile
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from ringfence.errors import SandboxError, StateError, UnsupportedError
from ringfence.spec import Repository
from ringfence.workspace import commits, gitdir, shared, sources, walks
from ringfence.workspace.failures import shown
from ringfence.workspace.history import Builder, History
from ringfence.workspace.rules import is_hidden
from ringfence.workspace.select import Visit, select
from ringfence.workspace.selection import Selection, nothing
from ringfence.workspace.sources import Source
from ringfence.workspace.stopping import Check, always


@dataclass(slots=True)
class Plan:
    """One repository, looked at. history: "head", "full", or None when there is no repository that
    can go in. repository: where it is. state: what it was before anything of it was read. builder:
    makes the one that goes in, as long as `look` was told to keep it. committed: hidden paths that
    are in its history. warnings: what to know before."""

    source: Source
    selection: Selection
    history: History | None = None
    repository: gitdir.GitDirectory | None = None
    state: gitdir.State | None = None
    builder: Builder | None = None
    committed: tuple[str, ...] = ()
    warnings: list[str] = field(default_factory=list)

    @property
    def hidden(self) -> dict[str, str]:
        """Hidden paths and why, those that are left out as special too."""
        return {**self.selection.hidden, **self.selection.special}


def plan(
    repository: Repository, *, directory: Path | None = None, workspaces: Path | None = None
) -> Plan:
    """Look at a repository as `prepare` would. It blocks; nothing of it stays unless `directory`
    is given, where a clone is kept. workspaces: where those are whose walks may help.

    Errors: those of `sources.find` and `select`.
    """
    known = None if workspaces is None else workspaces / walks.STORE
    with ExitStack() as until:
        place = directory
        if place is None:
            scratch = tempfile.TemporaryDirectory(prefix="ringfence-plan-")
            place = Path(until.enter_context(scratch))
        source = sources.find(repository, place)
        return look(repository, source, place, until, known, keeps=False)


def look(
    repository: Repository,
    source: Source,
    scratch: Path,
    until: ExitStack,
    known: Path | None,
    *,
    keeps: bool = True,
    visit: Visit | None = None,
    check: Check = always,
) -> Plan:
    """Choose files and history of a source that was found. scratch: for a repository of ours, which
    is kept there as long as `until`. known, keeps: the store of walks, and whether this one may be
    kept there. visit, check: see `walks.choose`."""
    found = Plan(source, nothing())
    root = source.open()
    try:
        _begin_history(found, scratch, until, known)
        if known is None or source.cloned:
            found.selection = select(root, repository, visit)
        else:
            found.selection = walks.choose(
                root, repository, known, visit=visit, check=check, keeps=keeps
            )
    finally:
        os.close(root)
    _choose_history(repository, found)
    _warn(repository, found)
    return found


def hides(repository: Repository, selection: Selection) -> Callable[[Iterable[str]], list[str]]:
    """A function that says which paths are hidden, by a pattern or because they are hidden here."""
    files = {path for path in selection.hidden if not path.endswith("/")}
    directories = {path[:-1] for path in selection.hidden if path.endswith("/")}
    visible = selection.names()

    def hidden(paths: Iterable[str]) -> list[str]:
        listed = [path for path in paths if path not in visible]
        found = set(is_hidden(listed, repository)) if listed else set()
        for path in listed:
            names = path.split("/")
            above = {"/".join(names[:length]) for length in range(1, len(names))}
            if path in files or above & directories:
                found.add(path)
        return sorted(found)

    return hidden


def _begin_history(found: Plan, scratch: Path, until: ExitStack, known: Path | None) -> None:
    """Find the repository, and let git look at it while the files are walked."""
    found.repository, reason = gitdir.find(found.source.root)
    if reason is not None:
        found.warnings.append(f"git's history stays outside: {reason}")
    if found.repository is None:
        whole = None if reason else _repository_above(found.source)
        if whole is not None:
            found.warnings.append(
                f"git does not work inside: this is a part of the repository at {whole}, open that"
            )
        return
    found.state = found.repository.state()
    found.builder = Builder(found.repository, scratch / "history", found.state.commits)
    until.callback(found.builder.close)
    try:
        found.builder.begin(_paths_of_commits(found, found.state, known))
    except SandboxError as error:
        _leave_outside(found, error)


def _paths_of_commits(found: Plan, state: gitdir.State, known: Path | None) -> list[str] | None:
    """What an earlier opening found out, if there was one and they are the same commits. It is kept
    with the layers, whose store is beside that of walks."""
    if known is None or found.repository is None or found.repository.partial:
        return None
    kept = shared.kept(known, found.source.root)
    return commits.read((layer.path for layer in kept), state.commits)


def _choose_history(repository: Repository, found: Plan) -> None:
    builder = found.builder
    if builder is None:
        return
    builder.see(hides(repository, found.selection), found.selection.special)
    try:
        if builder.born():
            _choose_depth(repository, found, builder)
        elif builder.unborn():
            found.history = "head"
        else:
            raise StateError("HEAD names a commit that is not there", op="workspace")
    except UnsupportedError:
        raise
    except SandboxError as error:
        _leave_outside(found, error)


def _leave_outside(found: Plan, error: SandboxError) -> None:
    found.warnings.append(f"git's history stays outside: {error}")
    if found.builder is not None:
        found.builder.close()
    found.repository = found.builder = None


def _repository_above(source: Source) -> Path | None:
    """The directory whose repository has this one in it; none of a clone of ours."""
    if source.original is None:
        return None
    above = source.root.resolve().parents
    return next((one for one in above if os.path.lexists(one / ".git")), None)


def _choose_depth(repository: Repository, found: Plan, builder: Builder) -> None:
    """One commit or all of them. UnsupportedError when all are asked for and not there."""
    if not builder.source.partial:
        found.committed = tuple(builder.committed())
        found.history = repository.history or ("head" if found.committed else "full")
        return
    if repository.history == "full":
        raise UnsupportedError(
            'the history of a partial clone is not whole: use history="head"', op="workspace"
        )
    if not builder.complete():
        raise StateError("it is a partial clone in which files of HEAD are missing", op="workspace")
    found.history = "head"
    found.warnings.append("the repository is a partial clone: one commit goes in")


def _warn(repository: Repository, found: Plan) -> None:
    if found.committed and found.history == "full":
        names = ", ".join(shown(path) or "(not found out)" for path in found.committed[:5])
        found.warnings.append(f"hidden files can be read from git's history: {names}")
    elif found.committed:
        found.warnings.append(
            "hidden files are in git's history: one commit without them goes in instead"
        )
    nested = [path for path in found.selection.git if path != ".git"]
    if nested:
        found.warnings.append(f"{len(nested)} nested git directories stay outside")
    if found.history and repository.mode != "copy" and (found.source.root / ".git").is_file():
        found.warnings.append(f"in mode {repository.mode} git does not work here: .git is a file")
    if repository.mode == "rw":
        found.warnings.append(
            "in mode rw only what exists now can be hidden; look at new .git directories before"
            " you run git there"
        )


def begin_history(found: Plan) -> None:
    """Start to make the repository of the plan, if there is one."""
    if found.builder is not None and found.history is not None:
        found.builder.make(found.history)


def build_history(found: Plan, target: Path) -> bool:
    """Put the repository of the plan at `target`, a path called .git; False when there is none."""
    if found.builder is None or found.history is None:
        return False
    found.builder.make(found.history)
    found.builder.finish(target)
    return True
