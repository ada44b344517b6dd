"""What containers that are never started leave where their client was killed meanwhile."""

import contextlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ringfence.backends.docker.engine import Engine
from ringfence.backends.docker.removal import remove
from ringfence.backends.state import state_directory
from ringfence.errors import SandboxError

PROBE = "ringfence.probe"
"""Label of a container that tries whether the daemon sees a directory of ours: its name."""
VOLUME = "ringfence.volume"
"""Label of a container through which a volume is filled with the guest: the volume's name."""
DIRECTORIES = "probe-"
VOLUMES = "ringfence-guest-"
_ABANDONED_SECONDS = 600.0


def probe_name(directory: str) -> str:
    """The name of the container that tries a directory of this name."""
    return f"ringfence-{directory}"


async def sweep(engine: Engine) -> None:
    """Remove those that are older than ten minutes, on the daemon and here."""
    rows = await engine.get("list", "containers", "json", all=True, filters={"status": ["created"]})
    for container in _abandoned(rows):
        with contextlib.suppress(SandboxError):
            await remove(engine, container)
    for directory in state_directory().glob(f"{DIRECTORIES}*"):
        _forget(directory)


def _abandoned(rows: list[Mapping[str, Any]]) -> Iterator[str]:
    for row in rows:
        labels = row.get("Labels") or {}
        named = any(_is_ours(name, labels) for name in row.get("Names") or ())
        if named and time.time() - float(row.get("Created") or 0) > _ABANDONED_SECONDS:
            yield str(row["Id"])


def _is_ours(name: str, labels: Mapping[str, str]) -> bool:
    """An image's labels are its containers' too, and hold what anybody likes: only ours have the
    name that goes with it, and that is of our making."""
    probe, volume = labels.get(PROBE, ""), labels.get(VOLUME, "")
    if probe.startswith(DIRECTORIES) and name == f"/{probe_name(probe)}":
        return True
    return volume.startswith(VOLUMES) and name.startswith(f"/{volume}-")


def _forget(directory: Path) -> None:
    with contextlib.suppress(OSError):
        if time.time() - directory.stat().st_mtime > _ABANDONED_SECONDS:
            directory.rmdir()
