"""Where a repository comes from: a directory of the host, or a clone that is made first."""

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from ringfence.errors import InvalidSpecError, PolicyDeniedError, StateError
from ringfence.policy.home import home
from ringfence.spec import Repository
from ringfence.workspace import gitdir
from ringfence.workspace.beneath import open_resolved
from ringfence.workspace.clone import clone_local, clone_remote, is_url
from ringfence.workspace.failures import missing, shown
from ringfence.workspace.secrets import CREDENTIALS

_SYSTEM = ("/bin", "/boot", "/dev", "/etc", "/lib", "/lib64", "/proc", "/run", "/sbin", "/sys",
           "/usr", "/var/run", "/var/lib/docker", "/var/lib/containerd")  # fmt: skip
_WHOLE = ("/", "/home", "/root", "/var", "/var/lib", "/tmp", "/opt", "/srv", "/mnt", "/media")  # noqa: S108 - a list of what is refused
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_ALLOWED = ("/dev/shm",)  # noqa: S108 - a place for files in memory


@dataclass(frozen=True, slots=True)
class Source:
    """A tree on this host. root: its directory. original: where changes may be applied, None for a
    clone. cloned: whether we made it."""

    root: Path
    original: Path | None
    cloned: bool = False

    def open(self) -> int:
        """A descriptor of the root. OSError when somebody else's was moved behind a link since it
        was checked."""
        if self.root == self.original:
            return open_resolved(self.root)
        return os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def find(repository: Repository, directory: Path, *, forbidden: tuple[Path, ...] = ()) -> Source:
    """The tree that a repository names; URLs and `ref` are cloned below `directory` first.

    forbidden: further directories that must not be used (the daemon's data). Errors: NotFoundError,
    InvalidSpecError, PolicyDeniedError for a place that would open the host, StateError with git's
    words for a clone that fails. It blocks.
    """
    if is_url(repository.path):
        if repository.mode == "rw":
            raise InvalidSpecError(
                "a repository that is cloned cannot be written through: use mode copy",
                op="workspace",
            )
        if repository.path.lower().startswith("file:"):
            root = _local_path(repository.path)
            return Source(_cloned_at_ref(repository, root, directory), None, cloned=True)
        return Source(clone_remote(repository, directory), None, cloned=True)
    _check_scheme(repository.path)
    root = check_root(repository.path, forbidden=forbidden)
    if repository.ref is None:
        _check_work_tree(root)
        return Source(root, root)
    if repository.mode == "rw":
        raise InvalidSpecError("mode rw has no ref: it is the work tree", op="workspace")
    return Source(_cloned_at_ref(repository, root, directory), root, cloned=True)


def _check_scheme(path: str) -> None:
    """InvalidSpecError for a URL of another kind, which is no path either; it may hold a login."""
    scheme = _SCHEME.match(path)
    if scheme is not None and not os.path.lexists(path):
        raise InvalidSpecError(
            "repository.path: a directory, or a URL of file, http, https or ssh; not of"
            f" {scheme[1]}",
            op="workspace",
        )


def check_root(path: str, *, forbidden: tuple[Path, ...] = ()) -> Path:
    """The absolute path of a directory that may be shown to a sandbox.

    NotFoundError; InvalidSpecError when it is no directory; PolicyDeniedError for the root, a
    system directory, the home directory itself or what holds one of them.
    """
    try:
        place = Path(os.path.realpath(Path(path).expanduser(), strict=True))
        status = place.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise missing(path) from None
    except (OSError, RuntimeError) as error:
        raise InvalidSpecError(
            f"{shown(path)} cannot be used: {error}", op="workspace", context={"path": shown(path)}
        ) from None
    if not stat.S_ISDIR(status.st_mode):
        raise InvalidSpecError(
            f"{shown(path)} is not a directory", op="workspace", context={"path": shown(path)}
        )
    if not os.access(place, os.R_OK | os.X_OK, effective_ids=True):
        raise InvalidSpecError(
            f"{shown(path)} cannot be read by this user",
            op="workspace",
            context={"path": shown(path)},
        )
    if reason := _forbidden(place, forbidden):
        raise PolicyDeniedError(
            f"{shown(place)} is not shown to a sandbox: {reason}",
            op="workspace",
            context={"path": shown(place)},
        )
    return place


def _check_work_tree(root: Path) -> None:
    """PolicyDeniedError for git's own files, which hold credentials, what was hidden, and hooks."""
    own = root / ".git"
    if os.path.lexists(own) and not own.is_symlink():
        return
    if ".git" in root.parts or gitdir.is_bare(root):
        raise PolicyDeniedError(
            f"{shown(root)} is git's own, without a work tree: name a ref, which is checked out,"
            " or a work tree",
            op="workspace",
            context={"path": shown(root)},
        )


def _real(path: Path) -> Path:
    """Where `path`, which need not be there, really is: a home may be reached over a link."""
    return Path(os.path.realpath(path))


def _forbidden(place: Path, more: tuple[Path, ...]) -> str | None:
    own = _real(home())
    if str(place) in _WHOLE:
        return "choose a directory below it"
    if place == own or place in own.parents:
        return "it is, or holds, your home directory; choose a project in it"
    if place.parent == Path("/home"):
        return "it is a whole home directory; choose a project in it"
    credentials = [_real(base / name) for base in (own, Path("/root")) for name in CREDENTIALS]
    for denied in (*map(Path, _SYSTEM), *map(_real, more), *credentials):
        inside = place == denied or denied in place.parents
        if inside and not any(Path(ok) in (place, *place.parents) for ok in _ALLOWED):
            return f"it is in {denied}"
        if place in denied.parents and denied not in credentials:
            return f"it holds {denied}"
    return None


def _cloned_at_ref(repository: Repository, root: Path, directory: Path) -> Path:
    """Clone the local repository `root`, a work tree or a bare one."""
    found, reason = gitdir.find(root)
    if found is None and reason is None:
        found, reason = gitdir.find_bare(root)
    if found is None:
        raise StateError(
            f"{shown(root)} cannot be cloned: {reason}",
            op="workspace",
            context={"path": shown(root)},
        )
    return clone_local(repository, found, directory)


def _local_path(url: str) -> Path:
    """The directory that a file URL names. InvalidSpecError, NotFoundError."""
    path = unquote(url[len("file://") :], errors="surrogateescape")
    if not path.startswith("/"):
        raise InvalidSpecError(
            f"{shown(url)} is not the URL of a file of this host: file:///a/path", op="workspace"
        )
    place = Path(os.path.realpath(path))
    if not place.is_dir():
        raise missing(path)
    return place
