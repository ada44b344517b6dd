"""Removing a container with all that belongs to it, and what runtimes leave behind."""

import asyncio
import contextlib
import os
import signal
from pathlib import Path

from ringfence.backends.docker.engine import Engine
from ringfence.errors import (
    BackendUnavailableError,
    DeadlineExceededError,
    NotFoundError,
    SandboxError,
    StateError,
)

_SECONDS = 30.0
_FIRST_PAUSE = 0.005
_LONGEST_PAUSE = 0.25
_LEFT_BEHIND = (b"containerd-shim", b"runsc")


async def remove(engine: Engine, container: str) -> None:
    """Kill a container and remove it and its anonymous volumes; returns when it is gone.

    By id or name. Idempotent. A removal that is under way already (its first process ended) is
    waited for. DeadlineExceededError when it is still there after 30 s.
    """
    pause = _FIRST_PAUSE
    last: SandboxError | None = None
    deadline = asyncio.get_running_loop().time() + _SECONDS
    while asyncio.get_running_loop().time() < deadline:
        try:
            await engine.request(
                "delete", "DELETE", ("containers", container), {"force": True, "v": True}
            )
            return
        except NotFoundError:
            return
        except (StateError, BackendUnavailableError) as error:
            if "status" not in error.context:
                raise
            last = error
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
    raise DeadlineExceededError(
        f"delete: the container {container} is still there after {_SECONDS:g} s"
        + (f": {last.message}" if last else ""),
        op="delete",
        context={"container": container},
    )


def reap(container: str) -> int:
    """Kill what a failed start left running on this machine for a container; how many there were.

    Seen with gVisor: its shim, gofer and sandbox outlive the container. They are known by the
    container's full id in their arguments.
    """
    killed = 0
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            args = (entry / "cmdline").read_bytes()
            name = args.split(b"\0")[0].rpartition(b"/")[2]
            if container.encode() in args and name.startswith(_LEFT_BEHIND):
                os.kill(int(entry.name), signal.SIGKILL)
                killed += 1
    return killed
