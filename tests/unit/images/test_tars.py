"""Tars of strangers: what their headers claim takes no memory that is worth the name."""

import gzip
import io
import lzma
import subprocess
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from ringfence.backends.docker import importing
from ringfence.errors import ImageError
from ringfence.images import layouts, tars
from ringfence.images.tars import Tar

CLAIMED = 8 * 2**20
MOST = 4 * 2**20
HEADER = 2**16


def header(kind: bytes, size: int, name: str = "x", **fields: str) -> bytes:
    member = tarfile.TarInfo(name)
    member.type, member.size, member.pax_headers = kind, size, fields
    return member.tobuf(tarfile.PAX_FORMAT if fields else tarfile.GNU_FORMAT)


def attributes(kind: bytes) -> bytes:
    """One attribute of CLAIMED bytes, in their own form."""
    start = b"%d comment=" % CLAIMED
    return header(kind, CLAIMED) + start + bytes(CLAIMED - len(start))


def many_global() -> bytes:
    """Many small attributes for all that follows, a new one each time."""
    size = HEADER // 2
    told = (b"%d %05d=%s\n" % (size, number, b"x" * (size - 13)) for number in range(256))
    return b"".join(header(b"g", size) + each + header(b"0", 0) for each in told)


def many_holes() -> bytes:
    first = bytearray(header(tarfile.GNUTYPE_SPARSE, 0))
    first[482] = 1  # more of them follow
    first[148:156] = b"%06o\0 " % (sum(first) - sum(first[148:156]) + 8 * 32)
    more = (b"%011o\0" % 1) * 42 + b"\1" + bytes(7)
    return bytes(first) + more * (CLAIMED // 512)


def many_listed_holes() -> bytes:
    holes = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "x"}
    return header(b"0", CLAIMED, **holes) + b"9999999\n" + b"1\n" * (CLAIMED // 2)


HOSTILE: dict[str, Callable[[], bytes]] = {
    "attributes": lambda: attributes(tarfile.XHDTYPE),
    "attributes of all": lambda: attributes(tarfile.XGLTYPE),
    "many of all": many_global,
    "a name": lambda: header(tarfile.GNUTYPE_LONGNAME, CLAIMED) + bytes(CLAIMED),
    "a link": lambda: header(tarfile.GNUTYPE_LONGLINK, CLAIMED) + bytes(CLAIMED),
    "holes": many_holes,
    "holes in a list": many_listed_holes,
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_header_takes_no_more_memory_than_one_of_an_image(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packed they are some kilobytes, and took all memory."""
    monkeypatch.setattr(tars, "MOST_HEADER", HEADER)
    path = tmp_path / "hostile.tar.gz"
    path.write_bytes(gzip.compress(HOSTILE[kind]() + header(b"0", 0) + bytes(1024), 1))
    assert path.stat().st_size < 2**20
    tracemalloc.start()
    try:
        with pytest.raises(ImageError):
            layouts.kind_of(path)
        with path.open("rb") as file, pytest.raises(ImageError):
            importing._names_in(file)
        assert tracemalloc.get_traced_memory()[1] < MOST
    finally:
        tracemalloc.stop()


def test_what_is_held_of_many_headers_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "many.tar"
    with tarfile.open(path, "w") as archive:
        for number in range(100):
            archive.addfile(tarfile.TarInfo(f"{number}{'x' * 5000}"))
    monkeypatch.setattr(importing, "_MOST_HEADERS", 100_000)
    with path.open("rb") as file, pytest.raises(ImageError, match="over 100000 bytes of headers"):
        importing._names_in(file)
    assert layouts.kind_of(path) == "rootfs"


@pytest.mark.parametrize("form", ["gnu", "posix"])
def test_an_archive_with_long_names_holes_and_attributes_is_read(tmp_path: Path, form: str) -> None:
    name = "/".join(["n" * 200] * 5)
    (tmp_path / name).mkdir(parents=True)
    with (tmp_path / name / "holes").open("wb") as file:
        for number in range(100):
            file.seek(number * 2**16)
            file.write(b"x")
    path = tmp_path / "a.tar"
    command = [
        "tar",
        "--create",
        "--sparse",
        f"--format={form}",
        "--file",
        str(path),
        "--directory",
    ]
    subprocess.run([*command, str(tmp_path), "n" * 200], check=True, timeout=60)
    data = path.read_bytes()
    for packed in (data, gzip.compress(data), lzma.compress(data)):
        with Tar.open(fileobj=io.BytesIO(packed)) as archive:
            holes = archive.getmember(f"{name}/holes")
            assert holes.size == 99 * 2**16 + 1
            file_there = archive.extractfile(holes)
            assert file_there is not None
            assert file_there.read() == (tmp_path / name / "holes").read_bytes()


def test_nothing_of_a_layout_is_mostly_holes(tmp_path: Path) -> None:
    """Such a member is a few bytes, and would be written out until the disk is full."""
    data = tmp_path / "oci-layout"
    with data.open("wb") as file:
        file.truncate(2**20)
    path = tmp_path / "a.tar"
    command = ["tar", "--create", "--sparse", "--file", str(path), "--directory"]
    subprocess.run([*command, str(tmp_path), "oci-layout"], check=True, timeout=60)
    into = tmp_path / "into"
    into.mkdir()
    layouts.unpack(path, into)
    assert list(into.iterdir()) == []
