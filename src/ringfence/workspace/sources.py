"""Where a repository comes from: a directory of the host, or a clone that is made first."""

import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ringfence.errors import InvalidSpecError, PolicyDeniedError, StateError
from ringfence.spec import Repository
from ringfence.workspace.beneath import open_resolved
from ringfence.workspace.failures import missing, shown
from ringfence.workspace.isolated import git
from ringfence.workspace.secrets import CREDENTIALS

_URL = re.compile(r"(?i)(file|https?|ssh)://(.+)")
_SCP = re.compile(r"[A-Za-z0-9_.-]+@[A-Za-z0-9.-]+:[^:].*")
_SYSTEM = ("/bin", "/boot", "/dev", "/etc", "/lib", "/lib64", "/proc", "/run", "/sbin", "/sys",
           "/usr", "/var/run", "/var/lib/docker", "/var/lib/containerd")  # fmt: skip
_WHOLE = ("/", "/home", "/root", "/var", "/var/lib", "/tmp", "/opt", "/srv", "/mnt", "/media")  # noqa: S108 - a list of what is refused
_ALLOWED = ("/dev/shm",)  # noqa: S108 - a place for files in memory
_CLONE_SECONDS = 1800.0

_Run = Callable[..., bytes]


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


def is_url(path: str) -> bool:
    """Whether `path` names a remote repository."""
    return _URL.fullmatch(path) is not None or _SCP.fullmatch(path) is not None


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
        return _cloned(repository, repository.path, directory, None)
    root = check_root(repository.path, forbidden=forbidden)
    if repository.ref is None:
        return Source(root, root)
    if repository.mode == "rw":
        raise InvalidSpecError("mode rw has no ref: it is the work tree", op="workspace")
    return _cloned(repository, root.as_uri(), directory, root)


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
    if reason := _forbidden(place, forbidden):
        raise PolicyDeniedError(
            f"{shown(place)} is not shown to a sandbox: {reason}",
            op="workspace",
            context={"path": shown(place)},
        )
    return place


def _forbidden(place: Path, more: tuple[Path, ...]) -> str | None:
    home = Path.home()
    if str(place) in _WHOLE:
        return "choose a directory below it"
    if place == home or place in home.parents:
        return "it is, or holds, your home directory"
    if place.parent == Path("/home"):
        return "it is a whole home directory"
    credentials = [base / name for base in (home, Path("/root")) for name in CREDENTIALS]
    for denied in (*map(Path, _SYSTEM), *more, *credentials):
        inside = place == denied or denied in place.parents
        if inside and not any(Path(ok) in (place, *place.parents) for ok in _ALLOWED):
            return f"it is in {denied}"
        if place in denied.parents and denied not in credentials:
            return f"it holds {denied}"
    return None


def _cloned(repository: Repository, url: str, directory: Path, original: Path | None) -> Source:
    target = directory / "clone"
    target.mkdir(mode=0o700)
    config = directory / "clone.config"
    config.write_text(_config(url, original), encoding="utf-8")
    env = {"GIT_CONFIG_GLOBAL": str(config), **_ssh(url)}

    def run(*args: str) -> bytes:
        return git(args, directory=target, env=env, seconds=_CLONE_SECONDS)

    try:
        run("init", "--quiet", "--template=", "--initial-branch=main")
        commit = _fetched(run, repository, url)
        if repository.subpath is not None:
            run("sparse-checkout", "set", "--no-cone", f"/{_literal(repository.subpath)}/")
        run("checkout", "--quiet", "--force", *commit)
        if repository.submodules:
            run("submodule", "update", "--init", "--recursive", "--quiet")
    finally:
        config.unlink(missing_ok=True)
    return Source(target, original, cloned=True)


def _fetched(run: _Run, repository: Repository, url: str) -> list[str]:
    """Fetch what is asked for; the arguments of checkout."""
    depth = [] if repository.depth is None else [f"--depth={repository.depth}"]
    run("remote", "add", "origin", url)
    ref = repository.ref
    if ref is None:
        run("fetch", "--quiet", *depth, "origin", "HEAD")
        return ["-B", _branch(run), "FETCH_HEAD"]
    for wanted, into in ((f"refs/heads/{ref}", ["-B", ref]), (f"refs/tags/{ref}", ["--detach"])):
        try:
            run("fetch", "--quiet", *depth, "origin", wanted)
        except StateError:
            continue
        return [*into, "FETCH_HEAD"]
    return _commit(run, ref, depth)


def _commit(run: _Run, ref: str, depth: list[str]) -> list[str]:
    try:
        run("fetch", "--quiet", *depth, "origin", ref)
    except StateError:
        run("fetch", "--quiet", "origin", "+refs/heads/*:refs/remotes/origin/*")
    else:
        return ["--detach", "FETCH_HEAD"]
    return ["--detach", ref]


def _branch(run: _Run) -> str:
    """The name of the branch that the remote's HEAD is on."""
    answer = run("ls-remote", "--symref", "origin", "HEAD")
    found = re.search(rb"ref: refs/heads/(\S+)\tHEAD", answer)
    return os.fsdecode(found[1]) if found else "main"


def _config(url: str, original: Path | None) -> str:
    """The only configuration: which protocols may be used, and whose repository is read."""
    parts = _URL.fullmatch(url)
    scheme = parts[1].lower() if parts else "ssh"
    lines = ["[protocol]", "\tallow = never"]
    lines += [f'[protocol "{scheme}"]', "\tallow = always"]
    if scheme == "http":
        lines += ['[protocol "https"]', "\tallow = always"]
    if scheme == "file":
        place = str(original) if original is not None else url[len("file://") :]
        quoted = place.replace("\\", "\\\\").replace('"', '\\"')
        lines += ["[safe]", f'\tdirectory = "{quoted}"', f'\tdirectory = "{quoted}/.git"']
    return "\n".join(lines) + "\n"


def _ssh(url: str) -> dict[str, str]:
    """For ssh: the user's own agent and known hosts, but no configuration and no questions."""
    if not url.lower().startswith("ssh://") and not _SCP.fullmatch(url):
        return {}
    known = Path("~/.ssh/known_hosts").expanduser()
    command = f"ssh -F /dev/null -o BatchMode=yes -o UserKnownHostsFile={known}"
    agent = os.environ.get("SSH_AUTH_SOCK")
    return {"GIT_SSH_COMMAND": command, **({"SSH_AUTH_SOCK": agent} if agent else {})}


def _literal(subpath: str) -> str:
    return re.sub(r"([\\*?\[\]!#])", r"\\\1", subpath)
