"""What the daemon says of an image."""

import re
from dataclasses import dataclass
from typing import Any

from ringfence.backends.docker.engine import Engine
from ringfence.errors import ImageError, InvalidSpecError
from ringfence.policy.facts import ImageFacts

_REFERENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,511}")


@dataclass(frozen=True, slots=True)
class Image:
    """facts: for the policy. volumes: paths that it declares as volumes."""

    facts: ImageFacts
    volumes: tuple[str, ...]


async def look_up(engine: Engine, reference: str | None) -> Image:
    """The image on the daemon that a reference or an id names.

    ImageNotFoundError when there is none, InvalidSpecError for what is no reference, ImageError
    for an image that is not Linux's.
    """
    if reference is None:
        raise InvalidSpecError(
            "image: the docker backend needs one, such as python:3.12-slim",
            op="open",
            context={"fields": ["image"]},
        )
    if not _REFERENCE.fullmatch(reference) or ".." in reference or "//" in reference:
        raise InvalidSpecError(
            f"image: {reference!r} is not an image's reference, such as python:3.12-slim",
            op="open",
            context={"fields": ["image"]},
        )
    data = await engine.get("image", "images", reference, "json")
    if data.get("Os", "linux") != "linux":
        raise ImageError(f"image: {reference} is for {data['Os']}, not for linux", op="open")
    return _image(data)


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
    return Image(facts, tuple(sorted(config.get("Volumes") or ())))
