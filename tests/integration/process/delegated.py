"""What an ordinary user can do to whom a version 2 cgroup is delegated; prints it as JSON.

    python -m tests.integration.process.delegated UID DIRECTORY

It starts as root, makes the cgroup as a service manager would, and becomes the user for good.
"""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import ringfence
from ringfence.backends.process import ProcessBackend
from ringfence.errors import ResourceExhaustedError
from ringfence.spec import Limits
from tests.integration.process.conftest import Sandbox, grant, new_id, opened
from tests.integration.process.ordinary import LOADED, become

ROOT = Path("/sys/fs/cgroup")
CONTROLLERS = "+cpu +cpuset +io +memory +pids"
HOG = "head -c 200000000 /dev/zero | tail"


def delegate(uid: int) -> Path:
    """A cgroup of that user's, with this process in a leaf below it."""
    (ROOT / "cgroup.subtree_control").write_text(CONTROLLERS)
    top = ROOT / f"delegated-{os.getpid()}"
    leaf = top / "leaf"
    leaf.mkdir(parents=True)
    (leaf / "cgroup.procs").write_text("0")
    for directory in (top, leaf):
        for path in (directory, directory / "cgroup.procs", directory / "cgroup.subtree_control"):
            os.chown(path, uid, uid)
    return top


async def calm(sandbox: Sandbox) -> None:
    """Until what was killed is counted no more, which the kernel does in its own time."""
    for _ in range(300):
        usage = await sandbox.instance.usage()
        if usage is not None and (usage.pids or 0) < 12:
            return
        await asyncio.sleep(0.1)


async def measure(wanted: dict[str, Any]) -> list[int | None]:
    """OOM kills of a command in a cgroup of its own and of its sandbox, and its memory at most."""
    async with ringfence.open(backend="process", **wanted) as sandbox:
        result = await sandbox.exec(shell=HOG, timeout=300, cgroup=True)
        found, whole = result.usage.cgroup, await sandbox.usage()
        assert found is not None
        assert whole is not None
        return [found.oom_kills, whole.oom_kills, found.memory_peak]


async def look(top: Path) -> dict[str, Any]:
    backend = ProcessBackend()
    features = await backend.features()
    told: dict[str, Any] = {"limits": sorted(features.limits), "pause": features.pause}
    limits = {"memory": "64MiB", "tmp": "16MiB", "shm": "1MiB", "run": "1MiB", "pids": 20,
              "cpus": 0.5}  # fmt: skip
    wanted: dict[str, Any] = {"limits": limits, "security": {"allow_degraded": ()}}
    async with opened(backend, user="1000", **wanted) as sandbox:
        evidence = await sandbox.instance.evidence()
        told["cgroup"] = dict(evidence.cgroup)
        told["hog"] = (await sandbox.sh(HOG)).end.oom_kills
        told["forks"] = (await sandbox.sh("for i in $(seq 60); do sleep 30 & done; wait")).code
        await sandbox.session.kill_all()
        await calm(sandbox)
        usage = await sandbox.instance.usage()
        assert usage is not None
        told["usage"] = [usage.oom_kills, usage.forks_refused, usage.memory_limit]
        await sandbox.instance.pause()
        told["paused"] = str(await sandbox.instance.state())
        await sandbox.instance.resume()
        told["resumed"] = str(await sandbox.instance.state())
        await sandbox.instance.update(Limits(memory="96MiB"))
        told["updated"] = (await sandbox.instance.evidence()).cgroup["memory.max"]
        await sandbox.sh("head -c 12M /dev/zero > /tmp/f")
        try:
            await sandbox.instance.update(Limits(memory="6MiB"))
        except ResourceExhaustedError:
            told["refused"] = True
        told["alive"] = (await sandbox.sh("echo alive")).stdout.decode()
    told["measured"] = await measure(wanted)
    told["left"] = [path.name for path in (top / "ringfence").iterdir() if path.is_dir()]
    spec, facts = await grant(backend, **wanted)
    again = await backend.create(spec, new_id(), facts)
    await again.pause()
    await again.delete()
    told["left"] += [path.name for path in (top / "ringfence").iterdir() if path.is_dir()]
    return told


if __name__ == "__main__":
    assert LOADED
    at = delegate(int(sys.argv[1]))
    become(int(sys.argv[1]), Path(sys.argv[2]))
    print(json.dumps(asyncio.run(look(at))))
