"""The images that were unpacked, kept by their digest until nobody has wanted them for a while.

    images/sha256-HEX/   one image; its modification time says when a start wanted it last
    images/known/        digests of archives, so that they need not be read anew
    images/.new-*/       what a process unpacks, or removes: it goes with that process
    images/lock          shared by who begins to use an image, exclusive for who takes one away

A sandbox's `facts` name the image that it uses. Between the start's look at the image and its facts
there is a moment in which the time alone speaks for it.
"""

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ringfence.backends import owned
from ringfence.backends.owner import mark
from ringfence.backends.process import home as homes
from ringfence.backends.process import memory
from ringfence.digest import Digest, DigestError
from ringfence.digest.store import locks
from ringfence.errors import InvalidSpecError, SandboxError, StateError
from ringfence.spec.quantity import parse_duration

NEW = ".new-"
VARIABLE = "RINGFENCE_IMAGES_KEPT"
DEFAULT, NEVER = "30d", "never"
_STARTING_SECONDS = 3600.0
"""A start takes no longer from its look at an image to its facts."""


@dataclass(frozen=True, slots=True)
class Unpacked:
    """An image that was unpacked. digest: None for what is left of one. used: when a start wanted
    it last, in seconds of the clock. size: bytes on the disk, as far as they can be counted. error:
    why it could not be removed."""

    digest: str | None
    used: float
    size: int
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able data."""
        return asdict(self)


def use(rootfs: Path) -> bool:
    """Whether an image is there; it stays for as long as a start takes. OSError."""
    with locks.shared(_lock(rootfs)):
        try:
            os.utime(rootfs)
        except FileNotFoundError:
            return False
    return True


def prune(directory: Path, *, older_than: float, dry_run: bool = False) -> list[Unpacked]:
    """Remove the images that no sandbox uses and no start wanted for `older_than` seconds, and what
    killed processes left of others; what went, and with its error what could not be removed. What
    was wanted within the last hour stays.

    directory: the backend's own. dry_run: only say what would go. StateError when a sandbox does
    not say what it uses.
    """
    before = time.time() - max(older_than, _STARTING_SECONDS)
    images = directory / "images"
    gone = []
    for rootfs, used in _unused(directory, before):
        found = Unpacked(str(_digest(rootfs)), used, _size(rootfs))
        try:
            if dry_run or _remove(rootfs, before):
                gone.append(found)
        except StateError as error:
            gone.append(replace(found, error=error.message))
    if not dry_run and images.is_dir():
        for path, problem in owned.sweep(images, NEW).items():
            with suppress(FileNotFoundError):  # another one removes it, too
                gone.append(_left(path, problem))
        _forget(images / "known", before)
    return gone


def kept_seconds() -> float | None:
    """How long the images that nobody uses are kept, by $RINGFENCE_IMAGES_KEPT; None for ever.
    InvalidSpecError."""
    text = os.environ.get(VARIABLE) or DEFAULT
    try:
        return None if text == NEVER else parse_duration(text)
    except ValueError as error:
        raise InvalidSpecError(
            f"{VARIABLE}: {error}; a time such as {DEFAULT!r}, or {NEVER!r} to remove none",
            op="create",
        ) from None


def drop(directory: Path, older_than: float) -> None:
    """As `prune`, for who unpacked another one. Whatever keeps it from that is no error there: the
    next one tries it again, and `prune` tells of it."""
    before = time.time() - max(older_than, _STARTING_SECONDS)
    with suppress(SandboxError, OSError):
        for rootfs, _ in _unused(directory, before):
            with suppress(StateError):
                _remove(rootfs, before)
        _forget(directory / "images" / "known", before)


def _unused(directory: Path, before: float) -> Iterator[tuple[Path, float]]:
    """The images that no sandbox uses, and that no start wanted since; when one wanted them last.
    StateError."""
    images = directory / "images"
    if not images.is_dir():
        return
    kept = _in_use(directory / "sandboxes")
    for rootfs in sorted(images.iterdir()):
        if _digest(rootfs) is None or rootfs.name in kept:
            continue
        with suppress(FileNotFoundError):  # another one removes it, too
            used = rootfs.stat().st_mtime
            if used < before:
                yield rootfs, used


def _in_use(sandboxes: Path) -> set[str]:
    memory.ours(sandboxes)
    used = set()
    for home in homes.homes(sandboxes):
        facts = home.facts() or {"rootfs": ""}
        if facts.get("image") and "rootfs" not in facts:
            raise StateError(
                f"the sandbox {home.id} was made by another version, which does not say what it"
                " uses: delete it first",
                op="prune",
                sandbox_id=home.id,
            )
        used.add(str(facts.get("rootfs")))
    return used


def _remove(rootfs: Path, before: float) -> bool:
    """Whether it was taken away: it is moved first, so that nobody waits who wants another one, or
    unpacks it anew. StateError when it cannot be, or a part of it is left."""
    doomed = rootfs.with_name(f"{NEW}{mark()}-{os.urandom(8).hex()}")
    with locks.exclusive(_lock(rootfs)):
        if not _is_older(rootfs, before):  # a start came meanwhile
            return False
        try:
            rootfs.rename(doomed)
        except OSError as error:
            raise _stays(rootfs, error) from None
    if problem := owned.remove(doomed):
        raise _stays(doomed, problem)
    return True


def _stays(path: Path, error: OSError) -> StateError:
    where = f" (at {error.filename})" if error.filename not in (None, path.name, str(path)) else ""
    return StateError(f"{path} cannot be removed: {error.strerror}{where}", op="prune")


def _left(path: Path, error: OSError) -> Unpacked:
    """What a killed process left."""
    return Unpacked(None, path.lstat().st_mtime, _size(path), _stays(path, error).message)


def _is_older(path: Path, before: float) -> bool:
    with suppress(FileNotFoundError):  # another one removes it, too
        return path.stat().st_mtime < before
    return False


def _forget(known: Path, before: float) -> None:
    """Remove the notes of that age: an archive that still comes is read anew."""
    for note in known.glob("*"):
        if _is_older(note, before):
            note.unlink(missing_ok=True)


def _digest(rootfs: Path) -> str | None:
    """What an image is kept by; None for what is none."""
    with suppress(DigestError, ValueError):
        return str(Digest.parse(rootfs.name.replace("-", ":", 1)))
    return None


def _lock(rootfs: Path) -> Path:
    return rootfs.with_name("lock")


def _size(rootfs: Path) -> int:
    size, waiting = 0, [str(rootfs)]
    while waiting:
        with suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                size += entry.stat(follow_symlinks=False).st_blocks * 512
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
    return size
