"""Clones, made on the host by a git that nobody else's configuration, hook or filter reaches.

A repository of this host is cloned from a mirror of ours: git's own server program would follow
whatever its directory says, to any other repository of the user.
"""

import os
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ringfence.errors import NotFoundError, StateError
from ringfence.policy.home import home
from ringfence.spec import Repository
from ringfence.spec.paths import lies_in
from ringfence.workspace.beneath import open_directory
from ringfence.workspace.failures import shown
from ringfence.workspace.gitdir import GitDirectory
from ringfence.workspace.isolated import git
from ringfence.workspace.mirror import mirrored

_URL = re.compile(r"(?i)(file|https?|ssh)://(.+)")
_SCP = re.compile(r"[A-Za-z0-9_.-]+@[A-Za-z0-9.-]+:[^:].*")
_SECONDS = 1800.0


def is_url(path: str) -> bool:
    """Whether `path` names a remote repository."""
    return _URL.fullmatch(path) is not None or _SCP.fullmatch(path) is not None


def clone_remote(repository: Repository, directory: Path) -> Path:
    """Clone the URL of a repository below `directory`; the work tree.

    StateError with git's words when it fails. It blocks.
    """
    url = repository.path
    with _configured(directory, url) as env:
        work = _Clone(directory / "clone", env)
        work.make(url, repository)
        if repository.submodules:
            work.run("submodule", "update", "--init", "--recursive", "--quiet")
    return work.target


def clone_local(repository: Repository, source: GitDirectory, directory: Path) -> Path:
    """Clone a repository of this host below `directory`; the work tree.

    Submodules come from its own store of them, never from where .gitmodules says: StateError for
    one that is not there. It blocks.
    """
    target = directory / "clone"
    _local(repository, source, directory, target)
    return target


def _local(repository: Repository, source: GitDirectory, directory: Path, target: Path) -> None:
    """Check one commit of `source` out into `target`, and its submodules into that."""
    with (
        mirrored(source, directory / "mirror") as url,
        _configured(directory, url) as env,
    ):
        work = _Clone(target, env)
        work.make(url, repository)
        listed = work.submodules(repository.subpath) if repository.submodules else []
    for path, name, commit in listed:
        module = _module(source, path, name)
        _check_empty(target, path)
        inner = repository.model_copy(update={"ref": commit, "subpath": None})
        _local(inner, module, directory, target / path)


def _module(source: GitDirectory, path: str, name: str | None) -> GitDirectory:
    """The repository of the submodule at `path`; StateError when it cannot be used."""
    module, reason = (None, None) if name is None else source.module(name)
    if module is None:
        absent = "is not in the repository: run git submodule update --init there first"
        why = f"cannot be cloned: {reason}" if reason else absent
        raise StateError(
            f"the submodule {shown(path)} {why}", op="workspace", context={"path": shown(path)}
        )
    return module


def _check_empty(target: Path, path: str) -> None:
    """StateError unless there is an empty directory at `path`, and no link on the way."""
    root = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        place = open_directory(root, path)
        try:
            with os.scandir(place) as found:
                empty = next(found, None) is None
        finally:
            os.close(place)
    except OSError:
        empty = False
    finally:
        os.close(root)
    if not empty:
        raise StateError(f"no submodule can be put at {shown(path)}", op="workspace")


class _Clone:
    """A clone in `target`. env: for its git, on top of the isolated ones."""

    def __init__(self, target: Path, env: dict[str, str]) -> None:
        self.target, self.env = target, env
        target.mkdir(mode=0o700, exist_ok=True)

    def run(self, *args: str) -> bytes:
        return git(args, directory=self.target, env=self.env, seconds=_SECONDS)

    def make(self, url: str, wanted: Repository) -> None:
        """Fetch and check out what is asked for."""
        depth = [] if wanted.depth is None else [f"--depth={wanted.depth}"]
        self.run("init", "--quiet", "--template=", "--initial-branch=main")
        self.run("remote", "add", "origin", url)
        commit = self._fetched(wanted.ref, depth)
        if wanted.subpath is not None:
            self.run("sparse-checkout", "set", "--no-cone", f"/{_literal(wanted.subpath)}")
        try:
            self.run("checkout", "--quiet", "--force", *commit)
        except StateError:
            if self._is_commit(commit[-1]):
                raise
            raise _no_ref(wanted.ref, "is a tree or a file, not a commit") from None

    def _fetched(self, ref: str | None, depth: list[str]) -> list[str]:
        """Fetch it; the arguments of checkout."""
        if ref is None:
            self.run("fetch", "--quiet", *depth, "origin", "HEAD")
            return ["-B", self._branch(), "FETCH_HEAD"]
        heads, tags = f"refs/heads/{ref}", f"refs/tags/{ref}"
        for wanted, into in ((heads, ["-B", ref]), (tags, ["--detach"])):
            try:
                self.run("fetch", "--quiet", *depth, "origin", wanted)
            except StateError:
                continue
            return [*into, "FETCH_HEAD"]
        try:
            self.run("fetch", "--quiet", *depth, "origin", ref)
        except StateError:
            self.run("fetch", "--quiet", "origin", "+refs/heads/*:refs/remotes/origin/*")
        else:
            return ["--detach", "FETCH_HEAD"]
        if not self._is_commit(ref):
            raise _no_ref(ref, "is no branch, tag or commit of the repository")
        return ["--detach", ref]

    def _is_commit(self, name: str) -> bool:
        try:
            self.run("rev-parse", "--quiet", "--verify", name + "^{commit}")
        except StateError:
            return False
        return True

    def _branch(self) -> str:
        """The name of the branch that the remote's HEAD is on."""
        answer = self.run("ls-remote", "--symref", "origin", "HEAD")
        found = re.search(rb"ref: refs/heads/(\S+)\tHEAD", answer)
        return os.fsdecode(found[1]) if found else "main"

    def submodules(self, subpath: str | None) -> list[tuple[str, str | None, str]]:
        """Path, name (None when .gitmodules does not say it) and commit of each that is wanted."""
        staged = [line.partition(b"\t") for line in self.run("ls-files", "-s", "-z").split(b"\0")]
        links = {os.fsdecode(path): facts.split()[1] for facts, _, path in staged
                 if facts.startswith(b"160000 ")}  # fmt: skip
        try:
            said = self.run("config", "--blob", ":.gitmodules", "--no-includes", "-z",
                            "--get-regexp", r"^submodule\..*\.path$")  # fmt: skip
        except StateError:
            said = b""
        names = {}
        for setting in said.split(b"\0"):
            key, _, path = os.fsdecode(setting).partition("\n")
            names[path] = key.removeprefix("submodule.").removesuffix(".path")
        return [
            (path, names.get(path), commit.decode())
            for path, commit in sorted(links.items())
            if subpath is None or lies_in(path, subpath)
        ]


def _no_ref(ref: str | None, why: str) -> NotFoundError:
    name = ref or "HEAD"
    return NotFoundError(
        f"repository.ref: {shown(name)} {why}", op="workspace", context={"ref": name}
    )


@contextmanager
def _configured(directory: Path, url: str) -> Iterator[dict[str, str]]:
    """Variables by which git has no configuration but ours: which protocols may be used, and whose
    repository is read."""
    parts = _URL.fullmatch(url)
    scheme = parts[1].lower() if parts else "ssh"
    lines = ["[protocol]", "\tallow = never"]
    lines += [f'[protocol "{scheme}"]', "\tallow = always"]
    if scheme == "http":
        lines += ['[protocol "https"]', "\tallow = always"]
    config = directory / "clone.config"
    config.write_text("\n".join(lines) + "\n", encoding="utf-8")
    try:
        yield {"GIT_CONFIG_GLOBAL": str(config), **_ssh(url)}
    finally:
        config.unlink(missing_ok=True)


def _ssh(url: str) -> dict[str, str]:
    """For ssh: the user's own agent and known hosts, but no configuration and no questions."""
    if not url.lower().startswith("ssh://") and not _SCP.fullmatch(url):
        return {}
    known = home() / ".ssh" / "known_hosts"
    option = shlex.quote(f'UserKnownHostsFile="{known}"')
    command = f"ssh -F /dev/null -o BatchMode=yes -o {option}"
    agent = os.environ.get("SSH_AUTH_SOCK")
    return {"GIT_SSH_COMMAND": command, **({"SSH_AUTH_SOCK": agent} if agent else {})}


def _literal(subpath: str) -> str:
    return re.sub(r"([\\*?\[\]!# ])", r"\\\1", subpath)
