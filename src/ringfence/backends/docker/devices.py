"""The disks that read and write rates hold for."""

from collections.abc import Iterable
from pathlib import Path

from ringfence.backends.layers import whole_disks


def disks_of(paths: Iterable[str]) -> tuple[str, ...]:
    """The whole disks that these paths are on, as device files; those without one are left out."""
    devices = (Path("/dev") / disk.name.replace("!", "/") for disk in whole_disks(paths))
    return tuple(sorted(str(device) for device in devices if device.is_block_device()))
