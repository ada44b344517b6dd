"""Workspaces on real mounts, and sandboxes on real backends."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ringfence.errors import StateError
from ringfence.spec import Repository
from ringfence.workspace import Prepared, clean, mounts, prepare
from tests.conftest import require_bwrap, require_docker, require_root
from tests.images import DEBIAN
from tests.unit.workspace.conftest import repository

__all__ = ["repository"]
Mount = Callable[..., Prepared]
BACKENDS = [
    pytest.param("docker", marks=pytest.mark.docker),
    pytest.param("process", marks=pytest.mark.process),
]


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Mount]:
    """Prepare workspaces as root, seen by uid 1000; all are closed at the end."""
    require_root()
    made: list[Path] = []

    def prepared(path: Path, *, uid: int = 1000, **fields: Any) -> Prepared:
        directory = tmp_path / "state" / f"workspace-{len(made)}"
        made.append(directory)
        known = {name: fields.pop(name) for name in ("strategy", "privileged", "volumes", "start")
                 if name in fields}  # fmt: skip
        return prepare(
            Repository(path=str(path), **fields),
            directory=directory,
            uid=uid,
            gid=uid,
            **{"privileged": True, **known},
        )

    yield prepared
    for directory in made:
        clean(directory)


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A directory that every user can reach, which pytest's own cannot."""
    require_root()
    place = Path(tempfile.mkdtemp(prefix="ringfence-test-"))
    place.chmod(0o755)
    try:
        yield place
    finally:
        for left in mounts.mounted_below(place):
            mounts.unmount(left)
        shutil.rmtree(place)


def opened_on(backend: str) -> dict[str, Any]:
    """Arguments of `ringfence.open` for one backend, if it is there."""
    if backend == "docker":
        require_docker(DEBIAN)
        return {"backend": "docker", "image": DEBIAN}
    require_root()
    require_bwrap()
    return {"backend": "process"}


async def shell(sandbox: Any, line: str) -> str:
    """What a line of shell, which must succeed, says."""
    result = await sandbox.exec(shell=line, timeout=60)
    assert result.exit_code == 0, result.stderr
    return str(result.stdout.decode())


async def check_hidden_and_guarded(sandbox: Any, mode: str) -> None:
    """In `ro` and `rw`: .env, .git and vendor/.git, which are there, can be neither read nor
    written, the rest is written in `rw` alone, and there are changes to ask for in neither."""
    assert await shell(sandbox, "cat .env vendor/.git/config 2>/dev/null; true") == ""
    written = await sandbox.exec(shell="echo x > written")
    assert (written.exit_code == 0) is (mode == "rw")
    for path in (".git/config", ".git/hooks/x", "vendor/.git/config", ".env"):
        denied = await sandbox.exec(shell=f"echo x > {path}")
        assert denied.exit_code != 0, path
    if mode == "ro":
        assert len(await sandbox.workspace.changes()) == 0
    else:
        with pytest.raises(StateError, match="rw"):
            await sandbox.workspace.patch()
