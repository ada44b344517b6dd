"""The extractor believes nothing of what a sandbox sends."""

import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ringfence.errors import UnsafeArchiveError
from ringfence.guest.protocol import Cred, Stat
from ringfence.guest.walks import Entry
from ringfence.sandbox.downloading import _Download
from ringfence.sandbox.extract import Caps, Extractor, stays_beneath

FILE, DIRECTORY, LINK = stat.S_IFREG | 0o644, stat.S_IFDIR | 0o755, stat.S_IFLNK | 0o777


def entry(name: bytes, mode: int = FILE, size: int = 1) -> Entry:
    return Entry(name, Stat(mode, 0, 0, size, 8, 0, 1, 1))


def names(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir())


class Liar:
    """A guest's files that say whatever a test wants."""

    def __init__(self, entries: list[Entry], data: bytes = b"x", target: bytes = b"f") -> None:
        self.entries = entries
        self.data = data
        self.target = target

    def walk(self, path: bytes, who: Cred) -> "Liar":
        return self

    async def __aiter__(self) -> AsyncIterator[list[Entry]]:
        yield self.entries

    async def aclose(self) -> None:
        pass

    async def readlink(self, path: bytes, who: Cred) -> bytes:
        return self.target

    def open_read(self, path: bytes, who: Cred) -> "Content":
        return Content(self.data)


class Content:
    def __init__(self, data: bytes) -> None:
        self.data = data

    async def __aenter__(self) -> AsyncIterator[bytes]:
        return self.chunks()

    async def __aexit__(self, *_: object) -> None:
        pass

    async def chunks(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self.data), 65536):
            yield self.data[start : start + 65536]


async def extract(place: Path, liar: Liar, caps: Caps | None = None) -> Any:
    with Extractor(str(place), caps or Caps()) as extractor:
        download = _Download(liar, Cred(0, 0), extractor, None)  # type: ignore[arg-type]
        return await download.run("/t", Stat(DIRECTORY, 0, 0, 0, 0, 0, 1, 1))


@pytest.mark.parametrize(
    "name",
    [b"..", b"../x", b"a/../../x", b"/etc/x", b"", b".", b"a//b", b"a/./b", b"x" * 256, b"a\0b",
     b"/".join([b"d"] * 100), b"/".join([b"x" * 200] * 30)],
)  # fmt: skip
async def test_names_that_lead_anywhere_else(tmp_path: Path, name: bytes) -> None:
    """They are UnsafeArchiveError, and nothing is made outside of the place."""
    place = tmp_path / "place"
    place.mkdir()
    with pytest.raises(UnsafeArchiveError):
        await extract(place, Liar([entry(name)]))
    assert names(tmp_path) == ["place"]


async def test_a_deep_tree_costs_no_descriptors(tmp_path: Path) -> None:
    deep = [b"/".join([b"d"] * depth) for depth in range(1, 40)]
    before = len(names(Path("/proc/self/fd")))
    entries = [entry(name, DIRECTORY) for name in deep]
    await extract(tmp_path, Liar([*entries, entry(deep[-1] + b"/file")]))
    assert len(names(Path("/proc/self/fd"))) == before


async def test_the_same_name_twice(tmp_path: Path) -> None:
    """A second file or directory of a name is UnsafeArchiveError."""
    for entries in (
        [entry(b"a"), entry(b"a")],
        [entry(b"a", DIRECTORY), entry(b"a", DIRECTORY)],
        [entry(b"a", DIRECTORY), entry(b"a")],
        [entry(b"a", LINK), entry(b"a")],
    ):
        place = tmp_path / str(len(names(tmp_path)))
        place.mkdir()
        with pytest.raises(UnsafeArchiveError):
            await extract(place, Liar(entries))


async def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    """A member below a link's name is UnsafeArchiveError, since links are made last."""
    outside = tmp_path / "outside"
    outside.mkdir()
    place = tmp_path / "place"
    place.mkdir()
    with pytest.raises(UnsafeArchiveError):
        await extract(
            place, Liar([entry(b"link", LINK), entry(b"link/file")], target=b"../outside")
        )
    assert names(outside) == []


async def test_content_without_end_is_bounded(tmp_path: Path) -> None:
    """More bytes than the size that was told are counted as they come."""
    with pytest.raises(UnsafeArchiveError):
        await extract(tmp_path, Liar([entry(b"a")], data=b"x" * 300_000), Caps(bytes=200_000))


@pytest.mark.parametrize("kind", [stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK, 0])
async def test_other_kinds_are_left_out(tmp_path: Path, kind: int) -> None:
    """Devices, FIFOs, sockets and what is nothing at all are named and not made."""
    moved = await extract(tmp_path, Liar([entry(b"odd", kind | 0o666), entry(b"fine")]))
    assert [name for name, _ in moved.skipped] == ["odd"]
    assert names(tmp_path / "content") == ["fine"]


async def test_set_id_bits_do_not_come_out(tmp_path: Path) -> None:
    """Nor does a bit that lets others write; the owner can always read and write."""
    await extract(tmp_path, Liar([entry(b"a", stat.S_IFREG | 0o7777), entry(b"b", stat.S_IFREG)]))
    modes = {p.name: p.stat().st_mode & 0o7777 for p in (tmp_path / "content").iterdir()}
    assert modes == {"a": 0o755, "b": 0o600}


NAMES = st.sampled_from([b"a", b"b", b"c", b"d", b"e", b"..", b"."])


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(links=st.dictionaries(NAMES, st.lists(NAMES, min_size=1, max_size=5), max_size=3))
def test_links_never_lead_out_together(
    tmp_path_factory: pytest.TempPathFactory, links: dict[bytes, list[bytes]]
) -> None:
    """Whatever links are accepted, none of them, alone or through others, leaves the tree."""
    root = os.fsencode(tmp_path_factory.mktemp("links") / "in" / "root")
    Path(os.fsdecode(root), "d", "e").mkdir(parents=True)
    made = []
    for name, parts in links.items():
        for parent in (b"", b"d/", b"d/e/"):
            path, target = parent + name, b"/".join(parts)
            if name in (b"", b".", b"..") or not stays_beneath(path, target):
                continue
            if os.path.lexists(root + b"/" + path):
                continue
            Path(os.fsdecode(root + b"/" + path)).symlink_to(os.fsdecode(target))
            made.append(path)
    top = os.path.realpath(root)
    for path in made:
        found = os.path.realpath(root + b"/" + path)
        assert found == top or found.startswith(top + b"/")


@pytest.mark.parametrize(
    ("path", "target", "fine"),
    [
        (b"a", b"b", True),
        (b"a", b"./b/c", True),
        (b"d/a", b"../b", True),
        (b"d/a", b"..", True),
        (b"a", b"..", False),
        (b"d/a", b"../../b", False),
        (b"a", b"/b", False),
        (b"a", b"b/..", False),
        (b"a", b"", False),
        (b"a", b"b\0c", False),
        (b"d/a", b"./../b", True),
    ],
)
def test_which_links_stay(path: bytes, target: bytes, fine: bool) -> None:
    """Leading ".." up to the tree's top, and names; nothing else."""
    assert stays_beneath(path, target) is fine
