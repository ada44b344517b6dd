"""What is kept of an image is whole, whoever gives up meanwhile."""

import asyncio
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from ringfence.backends import owned
from ringfence.backends.process import images


class Unpacking:
    """Puts one file into an image."""

    def __init__(self, machine: object, target: Path) -> None:
        self.target = target

    async def add(self, archive: Path) -> None:
        shutil.copy(archive, self.target / "file")

    async def name_localhost(self) -> None:
        pass


async def test_an_opening_that_is_cancelled_while_an_image_is_put_in_its_place_leaves_a_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk may take its time: what is being moved then was removed, and half of it moved."""
    archive = tmp_path / "image.tar"
    archive.write_text("content")
    syncing, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def sync(path: Path) -> None:
        loop.call_soon_threadsafe(syncing.set)
        go_on.wait(10)

    def remove(path: Path) -> None:
        for file in path.rglob("file"):
            file.unlink()
        go_on.set()

    monkeypatch.setattr(images, "Unpacking", Unpacking)
    monkeypatch.setattr(images, "_sync", sync)
    monkeypatch.setattr(owned, "remove", remove)
    machine: Any = None
    looking = asyncio.create_task(images.Images(tmp_path / "kept", machine).look_up(str(archive)))
    await syncing.wait()
    looking.cancel()
    loop.call_later(0.1, go_on.set)
    with pytest.raises(asyncio.CancelledError):
        await looking
    [image] = (tmp_path / "kept").glob("sha256-*")
    assert os.listdir(image) == ["file"]  # noqa: PTH208


def test_two_remove_at_once_what_an_ended_process_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "left"
    (place / "one/two").mkdir(parents=True)
    seen = [(str(place), ["gone", "one"], [])]
    monkeypatch.setattr(os, "walk", lambda path: iter(seen))
    owned.remove(place)
    assert not place.exists()
