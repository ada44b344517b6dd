"""What the daemon says of an image."""

import posixpath
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ringfence.backends.docker.engine import Engine
from ringfence.backends.docker.stored import details, inspect
from ringfence.errors import ImageError, ImageNotFoundError, InvalidSpecError
from ringfence.images import Lock, Reference
from ringfence.images.reference import check_name
from ringfence.policy.facts import ImageFacts

_ID = re.compile(r"sha256:[0-9a-f]{12,64}")


@dataclass(frozen=True, slots=True)
class Image:
    """facts: for the policy. volumes: paths that it declares as volumes."""

    facts: ImageFacts
    volumes: tuple[str, ...]


async def look_up(engine: Engine, reference: str | None, lock: Lock | None = None) -> Image:
    """The image on the daemon that a reference or an id names; the one that `lock` has for it.

    ImageNotFoundError when there is none, InvalidSpecError for what is no reference, ImageError
    for an image that is not Linux's, or that has no digest and is not in the lock file;
    PolicyDeniedError, naming both digests, when the daemon has only another one than was locked.
    """
    if reference is None:
        raise InvalidSpecError(
            "image: the docker backend needs one, such as python:3.12-slim",
            op="open",
            context={"fields": ["image"]},
        )
    check_name(reference, "open")
    if lock is None or _ID.fullmatch(reference):
        data = await details(engine, reference)
    else:
        data = await _locked(engine, Reference.parse_familiar(reference), lock)
    if data.get("Os", "linux") != "linux":
        raise ImageError(f"image: {reference} is for {data['Os']}, not for linux", op="open")
    return _image(data)


def read_lock(path: str) -> Lock:
    """The lock file there. InvalidSpecError when it is missing or cannot be read. It blocks."""
    try:
        return Lock.parse(Path(path).read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        said = error.strerror if isinstance(error, OSError) else error
        raise InvalidSpecError(
            f"lock: {path} cannot be read: {said}", op="open", context={"fields": ["lock"]}
        ) from None


async def _locked(engine: Engine, reference: Reference, lock: Lock) -> Any:
    """What the daemon says of the locked image; else why it is not there."""
    pin = lock.find(reference)
    wanted = lock.resolve(reference)
    name = str(pin.digest) if pin is not None and pin.local else _exact(wanted)
    if pin is not None or wanted.digest is not None:
        try:
            return await engine.described("image", "images", name, "json", by="Id")
        except ImageNotFoundError:
            if pin is None:
                raise
    found = await inspect(engine, reference.with_tag().familiar())
    lock.check(reference, found.manifests(reference), str(found.id))
    return await engine.described("image", "images", str(found.id), "json", by="Id")


def _exact(reference: Reference) -> str:
    """The name by digest alone: beside one, engines look at no tag, and older ones refuse it."""
    return f"{reference.familiar_name}@{reference.digest}"


def _image(data: dict[str, Any]) -> Image:
    config = data.get("Config") or {}
    pairs = (entry.partition("=") for entry in config.get("Env") or ())
    facts = ImageFacts(
        digest=str(data["Id"]),
        user=str(config.get("User") or ""),
        env={name: value for name, _, value in pairs},
        cwd=str(config.get("WorkingDir") or ""),
        architecture=str(data.get("Architecture") or "amd64"),
    )
    return Image(facts, tuple(sorted({_normal(path) for path in config.get("Volumes") or ()})))


def _normal(path: str) -> str:
    """As an Engine takes what an image says: "/tmp/" is /tmp, and so is "//x/../tmp"."""
    return posixpath.normpath("/" + path.lstrip("/") if path.startswith("/") else path)
