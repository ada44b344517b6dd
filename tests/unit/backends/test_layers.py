"""Which file systems hold the data of a path."""

import os
from pathlib import Path

from ringfence.backends.layers import devices_under


def number(path: Path) -> str:
    device = path.stat().st_dev
    return f"{os.major(device)}:{os.minor(device)}"


def test_an_overlay_stands_for_its_layers(tmp_path: Path) -> None:
    """All of them, whatever their names hold; one that is not to be seen is left out."""
    lower, upper, merged = tmp_path / "low er", tmp_path / "upper", Path("/proc")
    lower.mkdir()
    upper.mkdir()
    table = tmp_path / "mountinfo"
    layers = f"lowerdir={str(lower).replace(' ', chr(92) + '040')}:/not/there,upperdir={upper}"
    table.write_text(
        f"20 1 8:1 / / rw - ext4 /dev/a rw\n"
        f"21 1 {number(merged)} / /x rw shared:1 - overlay overlay rw,{layers},workdir=/w\n"
    )
    assert devices_under(str(merged), table) == {number(merged), number(tmp_path)}


def test_what_is_no_overlay_is_on_its_own_file_system(tmp_path: Path) -> None:
    """And what is not there is on none."""
    assert devices_under(str(tmp_path)) == {number(tmp_path)}
    assert devices_under(str(tmp_path / "nothing")) == set()
