"""What is kept of an image is whole, whoever gives up meanwhile."""

import asyncio
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from ringfence.backends import owned
from ringfence.backends.process import images, unpacked
from ringfence.backends.process.archives import Archive, verified
from ringfence.digest import Digest
from ringfence.digest.store import locks
from ringfence.errors import ImageError, InvalidSpecError, StateError
from tests.conftest import wait_for


class Unpacking:
    """Puts one file into an image."""

    def __init__(self, machine: object, target: Path) -> None:
        self.target = target

    async def add(self, archive: Archive, *, layer: bool) -> None:
        shutil.copy(archive.path, self.target / "file")

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


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(images, "Unpacking", Unpacking)
    path = tmp_path / "image.tar"
    path.write_text("content")
    return path


async def look_up(path: Path) -> images.Image:
    machine: Any = None
    return await images.Images(path.parent / "kept", machine).look_up(str(path))


async def test_an_archive_that_is_written_anew_within_its_size_and_time_is_another_image(
    archive: Path,
) -> None:
    """As who builds so that equal content makes equal files does: each has the same time."""
    found = []
    for content in ("content", "CONTENT"):
        archive.write_text(content)  # noqa: ASYNC240 - at once
        os.utime(archive, (1, 1))
        found.append(await look_up(archive))
    assert [(image.rootfs / "file").read_text() for image in found] == ["content", "CONTENT"]
    assert [image.facts.digest for image in found] == [
        Digest.from_str("content"), Digest.from_str("CONTENT")
    ]  # fmt: skip


async def test_an_image_says_when_it_was_wanted_last(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its archive says when its root was changed: what is new would be taken for unused."""

    async def add(self: Unpacking, *_: object, **__: object) -> None:
        os.utime(self.target, (1, 1))

    monkeypatch.setattr(Unpacking, "add", add)
    for _ in ("unpacked", "found"):
        rootfs = (await look_up(archive)).rootfs
        assert rootfs.stat().st_mtime > 1
        os.utime(rootfs, (1, 1))


async def test_what_nobody_wanted_for_long_goes_when_another_image_is_unpacked(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not as one is found that is there: a start waits for no removal."""
    directory = archive.parent / "images"
    old, newer = (directory / f"sha256-{letter * 64}" for letter in "ab")

    def age() -> None:
        for path, days in ((old, 31), (newer, 29)):
            path.mkdir(parents=True, exist_ok=True)
            os.utime(path, (time.time() - days * 86400,) * 2)

    async def look() -> None:
        machine: Any = None
        await images.Images(directory, machine).look_up(str(archive))

    age()
    await look()
    while old.exists():
        await asyncio.sleep(0.01)
    age()
    called = []
    monkeypatch.setattr(unpacked, "drop", lambda *given: called.append(given))
    await look()
    assert called == []
    assert old.is_dir()
    assert newer.is_dir()
    monkeypatch.setenv("RINGFENCE_IMAGES_KEPT", "never")
    archive.write_text("another")  # noqa: ASYNC240 - at once
    await look()
    assert called == []


def aged(directory: Path, *days: float) -> list[Path]:
    """Unpacked images that nobody wanted for so long."""
    found = []
    for number, age in enumerate(days):
        path = directory / "images" / f"sha256-{number:064}"
        path.mkdir(parents=True)
        os.utime(path, (time.time() - age * 86400,) * 2)
        found.append(path)
    return found


@pytest.mark.parametrize("step", [unpacked.prune, unpacked.drop])
def test_an_image_that_a_start_wants_as_it_is_to_go_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: Callable[..., object]
) -> None:
    """It comes after the look at its age, and before the lock."""
    wanted, unwanted = aged(tmp_path, 31, 31)
    exclusive = locks.exclusive

    def late(path: Path) -> AbstractContextManager[None]:
        assert unpacked.use(wanted)
        return exclusive(path)

    monkeypatch.setattr(locks, "exclusive", late)
    step(tmp_path, older_than=30 * 86400.0)
    assert wanted.is_dir()
    assert not unwanted.exists()


@pytest.mark.parametrize("step", [unpacked.prune, unpacked.drop])
def test_a_start_has_an_hour_whatever_time_is_set(
    tmp_path: Path, step: Callable[..., object]
) -> None:
    """Nothing but that time speaks for the image until the sandbox says what it uses."""
    started, older = aged(tmp_path, 0.5 / 24, 1.5 / 24)
    step(tmp_path, older_than=1.0)
    assert started.is_dir()
    assert not older.exists()


def test_what_keeps_images_from_going_is_no_error_of_who_unpacked_another(tmp_path: Path) -> None:
    """A sandbox of another version, say, that does not say what it uses; notes go with images."""
    [old] = aged(tmp_path, 31)
    note = tmp_path / "images" / "known" / "note"
    note.parent.mkdir()
    note.write_text("")
    os.utime(note, (1, 1))
    facts = tmp_path / "sandboxes" / "other" / "sandbox"
    facts.parent.mkdir(parents=True)
    facts.write_text('{"image": "x"}')
    with pytest.raises(StateError):
        unpacked.prune(tmp_path, older_than=86400.0)
    unpacked.drop(tmp_path, 86400.0)
    assert old.is_dir()
    facts.unlink()
    unpacked.drop(tmp_path, 86400.0)
    assert not old.exists()
    assert not note.exists()


def test_what_would_go_is_what_nobody_wanted_for_long(tmp_path: Path) -> None:
    old, new = aged(tmp_path, 31, 29)
    [found] = unpacked.prune(tmp_path, older_than=30 * 86400.0, dry_run=True)
    assert found.digest == str(Digest.parse(old.name.replace("-", ":")))
    assert old.is_dir()
    assert new.is_dir()


async def test_a_setting_that_is_no_time_is_said_before_anything_is_unpacked(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RINGFENCE_IMAGES_KEPT", "soon")
    with pytest.raises(InvalidSpecError, match="RINGFENCE_IMAGES_KEPT"):
        await look_up(archive)
    assert not list((archive.parent / "kept").glob("sha256-*"))
    monkeypatch.setenv("RINGFENCE_IMAGES_KEPT", "12h")
    assert unpacked.kept_seconds() == 12 * 3600


async def test_a_digest_that_a_crash_cut_short_is_made_again(archive: Path) -> None:
    """Empty, it named the directory of all images as the image."""
    image = await look_up(archive)
    [note] = (archive.parent / "kept/known").iterdir()
    for text in ("", "sha256:", "sha256:" + "a" * 63):
        note.write_text(text)
        assert await look_up(archive) == image


async def test_one_archive_can_be_looked_up_by_many_at_once(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They wrote the digest to one file, which the first moved away from the others."""
    together = threading.Barrier(3, timeout=30)
    real = Path.rename

    def rename(path: Path, target: Path) -> Path:
        if target.parent.name == "known":
            together.wait()
        return real(path, target)

    monkeypatch.setattr(Path, "rename", rename)
    found = await asyncio.gather(*(look_up(archive) for _ in range(3)))
    assert len({image.facts.digest for image in found}) == 1


@pytest.mark.parametrize("mode", [0o644, 0o666])
def test_what_is_unpacked_is_what_was_verified(tmp_path: Path, mode: int) -> None:
    """Else whoever may write to a file would put other content under a digest that all trust."""
    path, digest = tmp_path / "layer", Digest.from_str("content")
    path.write_bytes(b"content")
    path.chmod(mode)
    with verified(path, digest, 7, tmp_path).file as file:
        path.replace(tmp_path / "moved")
        path.write_bytes(b"another")
        assert file.read() == b"content"
    path.write_bytes(b"content")
    path.chmod(mode)
    held = verified(path, digest, None, tmp_path)
    held.require_unchanged()
    path.write_bytes(b"CONTENT")
    with held.file:
        if mode == 0o644:
            with pytest.raises(ImageError, match="changed while it was unpacked"):
                held.require_unchanged()
        else:
            held.require_unchanged()
            assert Path(f"/proc/self/fd/{held.file.fileno()}").read_bytes() == b"content"


async def test_an_opening_that_is_cancelled_while_it_verifies_closes_the_file(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()
    held: list[Archive] = []

    def slowly(*rest: Any) -> Archive:
        loop.call_soon_threadsafe(begun.set)
        go_on.wait(30)
        held.append(verified(*rest))
        return held[0]

    monkeypatch.setattr(images, "verified", slowly)
    looking = asyncio.create_task(look_up(archive))
    await begun.wait()
    looking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await looking
    go_on.set()
    assert await asyncio.to_thread(wait_for, lambda: bool(held) and held[0].file.closed, 30)


def test_two_remove_at_once_what_an_ended_process_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "left"
    for name in ("one", "two"):
        (place / name).mkdir(parents=True)
        (place / name / "file").touch()
    unlink = os.unlink

    def late(name: str, *, dir_fd: int) -> None:
        unlink(name, dir_fd=dir_fd)
        monkeypatch.undo()
        owned.remove(place / "two")
        unlink(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", late)
    owned.remove(place)
    assert not place.exists()


def test_what_an_ended_process_left_goes_however_deep_it_is(tmp_path: Path) -> None:
    """Of an image, which is a stranger's: neither its opening nor any later one came past it."""
    place = tmp_path / "left"
    subprocess.run(["mkdir", "-p", f"{place}/{'a/' * 1500}"], check=True, timeout=60)
    owned.remove(place)
    assert not place.exists()
