"""The file systems under a path: its own, and those of the layers where it is an overlay's. And the
disks that they are on."""

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from ringfence.metrics.places import unescape

_LAYERS = ("lowerdir", "upperdir")


def whole_disks(paths: Iterable[str]) -> set[Path]:
    """The directories in /sys of the whole disks below these paths; what is on no disk is left
    out."""
    found = set()
    for number in {one for path in paths for one in devices_under(path)}:
        with contextlib.suppress(OSError):
            node = Path(f"/sys/dev/block/{number}").resolve(strict=True)
            found.add(node.parent if (node / "partition").exists() else node)
    return found


def devices_under(path: str, mountinfo: Path = Path("/proc/self/mountinfo")) -> set[str]:
    """ "major:minor" of what holds the data of `path`. An overlay has no disk of its own: what is
    read and written there is on those of its layers. Nothing for what is not there."""
    try:
        number = _device(path)
    except OSError:
        return set()
    found = {number}
    if not number.startswith("0:"):
        return found
    for layer in _layers(number, mountinfo):
        try:
            found.add(_device(layer))
        except OSError:
            continue
    return found


def _device(path: str) -> str:
    number = Path(path).stat().st_dev
    return f"{os.major(number)}:{os.minor(number)}"


def _layers(number: str, mountinfo: Path) -> Iterator[str]:
    """The directories of the overlay with this device number, if it is one."""
    for line in mountinfo.read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        if before.split(" ", 3)[2] != number or kind != "overlay":
            continue
        for option in options.split(","):
            name, _, value = option.partition("=")
            if name.rstrip("+") in _LAYERS:
                yield from unescape(value).split(":")
        return
