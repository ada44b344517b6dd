"""The disks that read and write rates hold for."""

import os
from collections.abc import Iterable
from pathlib import Path


def disks_of(paths: Iterable[str]) -> tuple[str, ...]:
    """The whole disks that these paths are on, as device files; those without one are left out."""
    found = {disk for path in paths if (disk := _disk_of(path)) is not None}
    return tuple(sorted(found))


def _disk_of(path: str) -> str | None:
    try:
        number = Path(path).stat().st_dev
        here = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}").resolve(strict=True)
    except OSError:
        return None
    disk = here.parent if (here / "partition").exists() else here
    device = Path("/dev") / disk.name.replace("!", "/")
    return str(device) if device.is_block_device() else None
