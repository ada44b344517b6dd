"""What an ordinary user in the group of the daemon's socket leaves of workspaces, run as one by
test_docker_user.py; prints its findings as JSON.

    python -m tests.integration.workspace.docker_user UID DIRECTORY

It starts as root, loads all that it needs and becomes the user for good, as
`tests.integration.process.ordinary` does. DIRECTORY/project is that user's repository.
"""

import asyncio
import encodings.latin_1
import encodings.unicode_escape
import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ringfence
from ringfence.backends.docker import DockerBackend
from ringfence.backends.docker.endpoint import resolve
from ringfence.ledger import Ledger, cleaning, guard, reap
from ringfence.sandbox import repository, workspace
from ringfence.sandbox.members import delete_sandbox
from ringfence.workspace import clone
from tests.images import DEBIAN
from tests.integration.process.ordinary import LOADED, become

ALL = (LOADED, encodings.latin_1, encodings.unicode_escape, repository, workspace, clone)
DELETING = "rm a; rm -r d; mkdir d; ls"
MOUNTED: list[str] = []


def count_mounts() -> None:
    real = DockerBackend.mount_once

    async def counted(self: DockerBackend, sandbox_id: str, volume: Mapping[str, str]) -> None:
        MOUNTED.append(sandbox_id)
        await real(self, sandbox_id, volume)

    DockerBackend.mount_once = counted  # type: ignore[method-assign]


class Looked:
    """What is there of workspaces and of records, and for how many the daemon was asked."""

    def __init__(self, directory: Path) -> None:
        self.state = directory / "state"
        self.project = str(directory / "project")

    def opened(self, **more: Any) -> Any:
        return ringfence.open(backend="docker", image=DEBIAN, repository=self.project, **more)

    def left(self) -> dict[str, Any]:
        names = [path.name for path in (self.state / "workspaces").iterdir()]
        users = (self.state / "workspaces/.layers").glob("*/users/*")
        asked = len(MOUNTED)
        MOUNTED.clear()
        return {
            "workspaces": [name for name in names if not name.startswith(".")],
            "used": [path.name for path in users],
            "records": [entry.record.id for entry in Ledger.default().live()],
            "asked": asked,
        }

    async def deleted(self, command: str) -> dict[str, Any]:
        async with self.opened() as sandbox:
            done = (await sandbox.exec(["sh", "-c", command])).check()
            strategy = sandbox.workspace.strategy
        error = (await sandbox.delete()).error
        said = {"error": error, "strategy": strategy, "said": done.stdout.decode()}
        return {**said, **self.left()}

    async def forked(self) -> dict[str, Any]:
        async with self.opened() as sandbox:
            (await sandbox.exec(["sh", "-c", "rm b"])).check()
            forks = await sandbox.fork(2)
            for fork in forks:
                (await fork.exec(["sh", "-c", DELETING])).check()
                assert (await fork.delete()).error is None
        return self.left()

    async def by_name(self) -> dict[str, Any]:
        async with self.opened(detached=True, lifetime=60.0) as sandbox:
            (await sandbox.exec(["sh", "-c", DELETING])).check()
        before = self.left()
        await delete_sandbox(sandbox.id)
        return {"before": before["workspaces"] == [sandbox.id], **self.left()}

    async def killed(self) -> None:
        async with self.opened() as sandbox:
            (await sandbox.exec(["sh", "-c", DELETING])).check()
            os.kill(os.getpid(), signal.SIGKILL)

    async def reaped(self) -> dict[str, Any]:
        errors = [one.error for one in await reap(Ledger.default())]
        return {"errors": errors, **self.left()}

    async def of_before(self) -> dict[str, Any]:
        """A client that asks no daemon, as those of before did not; then a sweep."""
        real = cleaning.emptied

        async def asks_nobody(directory: Path, backend: object) -> None:
            pass

        cleaning.emptied = asks_nobody
        before = await self.deleted(DELETING)
        cleaning.emptied = real
        return {"before": before, "after": await self.reaped()}


def main() -> None:
    uid, directory = int(sys.argv[1]), Path(sys.argv[2])
    endpoint = resolve(None)
    os.environ["DOCKER_HOST"] = endpoint.url
    for name in ringfence.__all__:
        getattr(ringfence, name)
    guard.missing = lambda directory: None
    count_mounts()
    become(uid, directory, groups=[Path(endpoint.socket or "").stat().st_gid])
    looked = Looked(directory)
    looked.state.mkdir(mode=0o711)
    child = os.fork()
    if child == 0:
        asyncio.run(looked.killed())
        os._exit(1)
    told: dict[str, Any] = {"ending": os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}
    told["killed"] = looked.left()
    told["reaped"] = asyncio.run(looked.reaped())
    told["plain"] = asyncio.run(looked.deleted("echo more >> a; ls"))
    told["deleted"] = asyncio.run(looked.deleted(DELETING))
    told["by_name"] = asyncio.run(looked.by_name())
    told["of_before"] = asyncio.run(looked.of_before())
    told["forked"] = asyncio.run(looked.forked())
    print(json.dumps(told))


if __name__ == "__main__":
    main()
