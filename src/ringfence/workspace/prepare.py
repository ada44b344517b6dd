"""From a repository of a spec to a workspace: choose, stage, mount."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from ringfence.errors import InvalidSpecError, PolicyDeniedError, ResourceExhaustedError
from ringfence.spec import Repository
from ringfence.workspace import linking, shared, sources, walks
from ringfence.workspace.bound import bound
from ringfence.workspace.clone import is_url
from ringfence.workspace.copied import Early, copied, restored
from ringfence.workspace.entries import Entry
from ringfence.workspace.failures import shown
from ringfence.workspace.making import Making
from ringfence.workspace.plan import Plan, look
from ringfence.workspace.prepared import Prepared, Strategy, clean
from ringfence.workspace.rules import Rules
from ringfence.workspace.selection import nothing
from ringfence.workspace.stopping import Check, Count, always, nobody
from ringfence.workspace.writable import For


def prepare(
    repository: Repository,
    *,
    directory: Path,
    uid: int,
    gid: int,
    privileged: bool,
    volumes: bool = False,
    strategy: Strategy | None = None,
    forbidden: tuple[Path, ...] = (),
    start: Path | None = None,
    mounts: Sequence[str] = (),
    check: Check = always,
    count: Count = nobody,
) -> Prepared:
    """Make the workspace of one sandbox in `directory`, which must not exist yet.

    Arguments are those of `For`. forbidden: directories that no repository may be in (the daemon's
    data). start: the tree of a snapshot, to start from instead of the repository's files. mounts:
    where else in the sandbox something is mounted. An error leaves nothing: NotFoundError,
    InvalidSpecError, PolicyDeniedError, StateError (it changes meanwhile), ResourceExhaustedError
    (full), UnsupportedError (asked for, but not possible here); it names the path. It blocks: run
    it in a thread. check: what it raises ends the work between two directories or files, and leaves
    nothing either. count: is called in the same thread.
    """
    whom = For(uid, gid, privileged, volumes, strategy, check)
    try:
        directory.mkdir(mode=0o711, parents=True)
        with ExitStack() as until_made:
            found, early = _found(
                repository, directory, forbidden, start, until_made, check=check, count=count
            )
            making = Making(repository, found, directory, whom)
            if start is not None and repository.mode != "copy":
                raise InvalidSpecError("a snapshot is opened in mode copy only", op="workspace")
            prepared = restored(making) if start is not None else _made(making, early)
            above = f"{repository.mount_point}/"
            inside = (path for path in mounts if path.startswith(above))
            prepared.mounted = tuple(path.removeprefix(above) for path in inside)
            prepared.save()
    except OSError as error:
        clean(directory)
        raise ResourceExhaustedError(
            f"the workspace of {shown(repository.path)} cannot be made in {directory}:"
            f" {error.strerror or error}{_where(error)}",
            op="workspace",
        ) from None
    except BaseException:
        clean(directory)
        raise
    return prepared


def _where(error: OSError) -> str:
    return f" ({shown(error.filename)})" if isinstance(error.filename, str) else ""


def _found(
    repository: Repository,
    directory: Path,
    forbidden: tuple[Path, ...],
    start: Path | None,
    until: ExitStack,
    *,
    check: Check,
    count: Count,
) -> tuple[Plan, Early | None]:
    """What goes in, and what of it is on its way. Of a snapshot everything does, and the host's git
    does not look at it."""
    if start is not None:
        original = None
        if not is_url(repository.path) and Path(repository.path) != start:
            original = sources.check_root(repository.path, forbidden=forbidden)
        return Plan(sources.Source(start, original), nothing()), None
    source = sources.find(repository, directory, forbidden=forbidden)
    _check_apart(source.root, directory, source.cloned)
    early = None
    if _pays(repository, source, directory):
        early = Early(source, directory, until)
    seen = 0

    def visit(path: str, entries: Sequence[Entry]) -> None:
        nonlocal seen
        check()
        seen += len(entries)
        count(seen)
        if early is not None:
            early.linking.add(path, entries)

    known = walks.store_of(directory)
    found = look(repository, source, directory, until, known, visit=visit, check=check)
    if not seen:
        count(found.selection.count)
    return found, early


def _made(making: Making, early: Early | None) -> Prepared:
    return copied(making, early) if making.repository.mode == "copy" else bound(making)


def _pays(repository: Repository, source: sources.Source, directory: Path) -> bool:
    """Whether to link files before all is chosen: when all that is seen goes in, as a link, and no
    earlier layer may do instead."""
    return (
        repository.mode == "copy"
        and repository.file_mode is None
        and repository.directory_mode is None
        and not Rules(repository).narrows
        and source.root.stat().st_dev == directory.stat().st_dev
        and not shared.keeps(directory, source.root)
        and linking.is_possible()
    )


def _check_apart(root: Path, directory: Path, cloned: bool) -> None:
    if not cloned and (root in directory.resolve().parents or directory in root.parents):
        raise PolicyDeniedError(
            f"{root} and the state directory {directory} lie in each other", op="workspace"
        )
