"""Looking at files: what is looked at, and what is told of it."""

import asyncio

import pytest

import ringfence
from ringfence.backends.mock import MockBackend
from ringfence.sandbox.entries import file_event


async def test_a_glob_looks_no_deeper_than_its_pattern() -> None:
    """A tree of any size below does not count; with ** it does."""
    async with ringfence.open(backend=MockBackend()) as sandbox:
        for number in range(20):
            await sandbox.files.write(f"/tmp/deep/er/{number}", b"", parents=True)
        assert await sandbox.files.glob("/tmp/*", limit=1) == ("/tmp/deep",)
        assert await sandbox.files.glob("/tmp/*/er", limit=2) == ("/tmp/deep/er",)
        with pytest.raises(ringfence.FileTooLargeError, match="over 20 paths"):
            await sandbox.files.glob("/tmp/**", limit=20)
        assert len(await sandbox.files.glob("/tmp/**", limit=22)) == 22


async def test_nothing_matches_below_what_is_no_directory() -> None:
    """As nothing matches below what is not there; what cannot be looked at is an error."""
    async with ringfence.open(backend=MockBackend()) as sandbox:
        await sandbox.files.write("/tmp/file", b"")
        for pattern in ("/tmp/file/*", "/tmp/file/x/**", "/tmp/none/*", f"/{'n' * 300}/*"):
            assert await sandbox.files.glob(pattern) == ()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, (11, 11)),
        ({"offset": 6}, (5, 5)),
        ({"offset": 50}, (0, 0)),
        ({"length": 3}, (3, 3)),
        ({"offset": 6, "length": 100}, (5, 5)),
    ],
)
async def test_what_is_read_in_all_is_told(given: dict[str, int], told: tuple[int, int]) -> None:
    seen = []
    async with ringfence.open(backend=MockBackend()) as sandbox:
        await sandbox.files.write("/tmp/f", b"hello world")
        data = await sandbox.files.read("/tmp/f", progress=lambda *now: seen.append(now), **given)
        assert data == await sandbox.files.read("/tmp/f", **given)
        with pytest.raises(ringfence.InvalidSpecError, match="max_bytes"):
            await sandbox.files.read("/tmp/f", max_bytes=-1, progress=lambda *_: None)
    assert seen[-1] == told


async def test_a_wait_for_an_event_that_is_cancelled_leaves_the_watch() -> None:
    """As it is with a timeout around each."""
    async with (
        ringfence.open(backend=MockBackend()) as sandbox,
        sandbox.files.watch("/tmp") as events,
    ):
        for name in ("a", "b"):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await anext(events)
            await sandbox.files.mkdir(f"/tmp/{name}")
            assert (await anext(events)).path == f"/tmp/{name}"


@pytest.mark.parametrize(
    ("mask", "kind"),
    [(0x400, "deleted"), (0x800, "moved_from"), (0x2000, "overflow")],
    ids=["IN_DELETE_SELF", "IN_MOVE_SELF", "IN_UNMOUNT"],
)
def test_what_becomes_of_a_watched_path_has_a_kind(mask: int, kind: str) -> None:
    """What has no name of its own says that one has to look again."""
    assert file_event(mask, 0, "/watched").kind == kind
