"""A repository to work on, and a proof that it was left alone."""

import hashlib
import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ringfence.spec import Repository
from ringfence.workspace import Prepared, Snapshot, Snapshots, clean, prepare
from ringfence.workspace.snapshot import name_of, put

GIT = {
    "PATH": os.environ.get("PATH", os.defpath),
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.com",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.com",
}


def git(directory: Path, *args: str, env: dict[str, str] | None = None) -> str:
    """Run git as a user without any configuration."""
    done = subprocess.run(
        ["git", "-c", "safe.directory=*", *args],
        cwd=directory,
        env={**GIT, **(env or {})},
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr.decode()
    return os.fsdecode(done.stdout)


def keep(prepared: Prepared, place: Snapshots) -> Snapshot:
    """A snapshot of the present state, with its name in the store."""
    with place.store.composing():
        made, size = put(prepared, place.store, [])
        place.store.tag(name_of(made.digest), made)
    return Snapshot(str(made.digest), size)


def digest_of_tree(root: Path) -> str:
    """One digest over names, kinds, modes, owners, times and contents of a whole tree."""
    whole = hashlib.sha256()
    for path in [root, *sorted(root.rglob("*"))]:
        status = path.lstat()
        facts = (str(path), status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns)
        whole.update(repr(facts).encode())
        if stat.S_ISREG(status.st_mode):
            whole.update(path.read_bytes())
        elif stat.S_ISLNK(status.st_mode):
            whole.update(os.fsencode(path.readlink()))
    return whole.hexdigest()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A small git repository with a secret that was never committed."""
    root = tmp_path / "project"
    (root / "src").mkdir(parents=True)
    git(root, "init", "-q", "-b", "main")
    (root / "README.md").write_text("A project.\n")
    (root / "src/code.py").write_text("".join(f"line {n}\n" for n in range(50)))
    (root / "src/data.bin").write_bytes(bytes(range(256)) * 8)
    (root / "run.sh").write_text("#!/bin/sh\necho run\n")
    (root / "run.sh").chmod(0o755)
    (root / "link").symlink_to("README.md")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "first")
    (root / ".env").write_text("TOKEN=hunter2\n")
    return root


Make = Callable[..., Prepared]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Prepare workspaces in mode copy by plain copies; all are closed at the end."""
    made: list[Path] = []

    def prepared(path: Path, *, start: Path | None = None, **fields: Any) -> Prepared:
        directory = tmp_path / "state" / f"workspace-{len(made)}"
        made.append(directory)
        status = path.stat()
        return prepare(
            Repository(path=str(path), **fields),
            directory=directory,
            uid=status.st_uid,
            gid=status.st_gid,
            privileged=False,
            strategy="copy",
            start=start,
        )

    yield prepared
    for directory in made:
        clean(directory)


def inside(prepared: Prepared) -> Path:
    """Where the host sees what the sandbox sees."""
    return Path(prepared.binds[0].source)


def only_kept(store: Path) -> bool:
    """Whether no workspace uses a layer of the store, and at most one is kept for the next."""
    layers = list(store.iterdir())
    return len(layers) < 2 and all(
        (layer / "origin").is_symlink() and not list((layer / "users").iterdir())
        for layer in layers
    )
