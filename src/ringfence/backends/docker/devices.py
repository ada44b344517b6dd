"""The disks that read and write rates hold for."""

from collections.abc import Iterable
from pathlib import Path

from ringfence.backends.layers import devices_under


def disks_of(paths: Iterable[str]) -> tuple[str, ...]:
    """The whole disks that these paths are on, as device files; those without one are left out."""
    numbers = {number for path in paths for number in devices_under(path)}
    found = {disk for number in numbers if (disk := _disk(number)) is not None}
    return tuple(sorted(found))


def _disk(number: str) -> str | None:
    try:
        here = Path(f"/sys/dev/block/{number}").resolve(strict=True)
    except OSError:
        return None
    disk = here.parent if (here / "partition").exists() else here
    device = Path("/dev") / disk.name.replace("!", "/")
    return str(device) if device.is_block_device() else None
