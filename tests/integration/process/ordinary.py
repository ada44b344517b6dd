"""What an ordinary user can do, run as one by test_ordinary.py; prints its findings as JSON.

    python -m tests.integration.process.ordinary UID DIRECTORY OWNER MODE [bubblewrap]

OWNER and MODE are those of the guest's file: an installation for all users is root's, and its guest
may be run by them, not read. bubblewrap: that the keeper finds it may not do without. It starts as root, loads all that it needs (the interpreter may be out of that user's reach), and
becomes the user for good.
"""

import asyncio
import concurrent.futures.thread
import ctypes
import encodings.idna
import importlib.readers
import json
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ringfence.backends.process import ProcessBackend, images, trial
from ringfence.errors import SandboxError
from ringfence.guest import build
from ringfence.guest.protocol import ExecFlag
from ringfence.guest.request import ExecRequest
from ringfence.guest.session import Session
from ringfence.metrics.places import read_text
from ringfence.policy import seccomp
from tests.integration.process.conftest import grant, opened
from tests.integration.process.test_images import Layout

_SET_DUMPABLE = 4
LOCK = """
import fcntl, os, time
fcntl.flock(os.open("/.ringfence", os.O_RDONLY), fcntl.LOCK_EX)
print("locked", flush=True)
time.sleep(600)
"""
LOADED = (concurrent.futures.thread, encodings.idna, importlib.readers, images)


def become(
    uid: int,
    directory: Path,
    owner: int | None = None,
    mode: int = build.MODE,
    groups: Sequence[int] = (),
) -> None:
    guest = directory / "guest"
    shutil.copy(build.target(), guest)
    os.chown(directory, uid, uid)
    owner = uid if owner is None else owner
    os.chown(guest, owner, owner)
    guest.chmod(mode)
    build.target = lambda *_: guest
    os.environ["RINGFENCE_STATE_DIR"] = str(directory / "state")
    seccomp.syscalls("x86_64")
    os.setgroups(groups)
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    ctypes.CDLL(None).prctl(_SET_DUMPABLE, 1, 0, 0, 0)


async def look() -> dict[str, Any]:
    backend = ProcessBackend()
    features = await backend.features()
    told: dict[str, Any] = {"users": features.users, "limits": sorted(features.limits)}
    told["begins"] = backend._ground().machine.begins
    try:
        spec, facts = await grant(backend, security={"allow_degraded": ()})
        await backend.create(spec, "never", facts)
    except SandboxError as error:
        told["refused"] = [str(error.code), str(error)]
    async with opened(backend, user="1000", profile="standard") as sandbox:
        told["id"] = (await sandbox.sh("id -u; id -un")).stdout.decode().split()
        told["status"] = (await sandbox.sh("grep -E '^(Cap|NoNew|Secc)' /proc/self/status")).stdout
        told["status"] = told["status"].decode().split()
        told["mounts"] = (await sandbox.sh("cat /proc/self/mountinfo")).stdout.decode()
        told["noexec"] = (await sandbox.sh("cp /bin/true /run/t; /run/t")).code
        told["write"] = [
            (await sandbox.sh(f"touch {path}")).code
            for path in ("/x", "/usr/x", "/etc/x", "/tmp/x")
        ]
        told["python"] = (await sandbox.sh("python3 -c 'print(1+1)'")).stdout.decode()
        told["unshare"] = (await sandbox.sh("unshare -U true")).code
        told["kill"] = (await sandbox.sh("kill -9 -1; kill -9 1; echo /proc/[0-9]*")).stdout
        told["kill"] = told["kill"].decode().split()
        told["alive"] = (await sandbox.sh("echo alive")).stdout.decode()
        told["masked"] = (await sandbox.sh("cat /proc/keys; ls /proc/acpi")).stdout.decode()
        told["sysrq"] = (await sandbox.sh("test -w /proc/sysrq-trigger")).code
        evidence = await sandbox.instance.evidence()
        told["namespaces"] = evidence.runtime["namespaces"]
        told["uid_map"] = read_text(f"/proc/{sandbox.instance.pid}/uid_map").split()
    async with opened(backend, detached=True, lifetime=60.0) as sandbox:
        keeper, guest = sandbox.instance._keeper.pid, sandbox.instance.pid
        above = int(read_text(f"/proc/{guest}/stat").rpartition(")")[2].split()[1])
        for pid in (keeper, above):
            os.kill(pid, signal.SIGKILL)
        async with asyncio.timeout(60):
            while os.path.exists(f"/proc/{guest}"):  # noqa: PTH110, ASYNC240 - quick
                await asyncio.sleep(0.02)
        told["above"] = {"keeper": above == keeper, "killed": True}
    told["opened_again"] = await opened_again(backend)
    image = Path(os.environ["RINGFENCE_STATE_DIR"]).parent / "image"
    (image / "etc").mkdir(parents=True)
    (image / "etc/group").write_text("others:x:4321:me\n")
    (image / "etc/passwd").write_text("me:x:1000:4321::/:/bin/sh\n")
    async with opened(backend, user="1000", image=str(image)) as sandbox:
        known = await sandbox.session.user("1000")
        (image / "etc/passwd").write_text("")
        unknown = await sandbox.session.user("1000")
        told["of_image"] = [[one.uid, one.gid, *one.groups] for one in (known, unknown)]
    told["layers"] = await layers(backend, image.parent / "layout")
    told["unreadable"] = []
    for path in (image, image.parent / "file.tar"):
        path.touch()
        path.chmod(0)
        try:
            await grant(backend, image=str(path))
        except SandboxError as error:
            told["unreadable"].append(type(error).__name__)
    told["left"] = [one.id for one in await backend.found({})]
    return told


async def opened_again(backend: ProcessBackend) -> list[str]:
    """Whether a command locked what it sees of the sandbox's directory, and a second session's."""
    async with opened(backend, detached=True, lifetime=60.0) as sandbox:
        args = ["/usr/bin/python3", "-c", LOCK]
        locking = await sandbox.session.spawn(
            ExecRequest(args, uid=1000, gid=1000, flags=ExecFlag.HOLD, env={})
        )
        locked = await locking.read()
        await sandbox.session.close()
        sandbox.session = await Session.start(sandbox.instance.connect, detached=True)
        return [locked.decode(), (await sandbox.sh("echo alive")).stdout.decode()]


async def layers(backend: ProcessBackend, path: Path) -> str:
    """What is in a directory of three layers' that each says is read-only."""
    layout = Layout(path)
    layout.system(Path(shutil.which("busybox") or ""), {"./": b"", "bin/": b"", "bin/old": b""})
    layout.layer({"bin/": b"", "bin/.wh.old": b""})
    layout.layer({"bin/new": b""})
    layout.close("mine")
    async with opened(backend, image=str(path)) as sandbox:
        return (await sandbox.sh("echo /bin/*")).stdout.decode()


if __name__ == "__main__":
    if sys.argv[5:] == ["bubblewrap"]:
        trial.succeeds = lambda *_, **__: False
    become(int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4], 8))
    print(json.dumps(asyncio.run(look())))
