"""Downloads that are cut short, and what changes while they run."""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ringfence
from ringfence.backends.mock import MockBackend
from ringfence.guest.files import Files as GuestFiles
from ringfence.sandbox import downloading

from .conftest import cancelled


async def a_tree(sandbox: ringfence.Sandbox) -> None:
    await sandbox.files.write("/tmp/t/file", b"content", parents=True)
    await sandbox.files.symlink("file", "/tmp/t/link")


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.mark.parametrize("step", ["_make_place", "_put"])
async def test_cancelled_in_a_step_on_the_host_it_leaves_nothing_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """The step in its thread goes on, and what it makes is gone before the caller hears of it."""
    begun, go, ended = threading.Event(), threading.Event(), threading.Event()
    plain: Callable[..., None] = getattr(downloading, step)

    def slow(*args: Any) -> None:
        begun.set()
        go.wait(60)
        plain(*args)
        ended.set()

    monkeypatch.setattr(downloading, step, slow)
    async with ringfence.open(backend=MockBackend()) as sandbox:
        await a_tree(sandbox)
        await cancelled(sandbox.files.download("/tmp/t", tmp_path / "out"), begun, go)
        assert ended.is_set()
    assert names(tmp_path) == []


async def test_a_link_that_goes_away_meanwhile_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a file is."""
    plain = GuestFiles.readlink

    async def gone(files: GuestFiles, path: bytes, who: Any) -> bytes:
        await files.remove(path, who)
        return await plain(files, path, who)

    monkeypatch.setattr(GuestFiles, "readlink", gone)
    async with ringfence.open(backend=MockBackend()) as sandbox:
        await a_tree(sandbox)
        moved = await sandbox.files.download("/tmp/t", tmp_path / "out")
    assert moved.skipped == [("link", "it went away meanwhile")]
    assert (moved.members, names(tmp_path / "out")) == (2, ["file"])


async def test_a_full_disk_of_the_host_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing is left on it."""

    def full(number: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    async with ringfence.open(backend=MockBackend()) as sandbox:
        await a_tree(sandbox)
        with monkeypatch.context() as patched:
            patched.setattr(downloading, "_write_all", full)
            with pytest.raises(ringfence.ResourceExhaustedError, match="free some"):
                await sandbox.files.download("/tmp/t", tmp_path / "out")
    assert names(tmp_path) == []


async def test_what_is_no_destination_is_named(tmp_path: Path) -> None:
    async with ringfence.open(backend=MockBackend()) as sandbox:
        await a_tree(sandbox)
        for wrong in ("out\0", "none/out"):
            with pytest.raises(ringfence.InvalidSpecError, match="nothing can be made beside"):
                await sandbox.files.download("/tmp/t", f"{tmp_path}/{wrong}")
        await sandbox.files.download("/tmp/t", os.fsencode(tmp_path / "out"))  # type: ignore[arg-type]
    assert names(tmp_path / "out") == ["file", "link"]
