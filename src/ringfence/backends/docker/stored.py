"""An image that is on the daemon: its names, its digests, how it is pinned."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ringfence.backends.docker.engine import Engine
from ringfence.digest import Digest
from ringfence.errors import ImageNotFoundError
from ringfence.images import Pin, Reference
from ringfence.images.reference import check_name

_ID = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Stored:
    """An image on the daemon. id: its configuration's digest. digests: those of its manifests, as
    registries serve it, with their names. size: bytes. created: RFC 3339 or seconds, as given."""

    id: Digest
    tags: tuple[str, ...]
    digests: tuple[str, ...]
    size: int
    created: str
    labels: Mapping[str, str]

    def manifests(self, reference: Reference) -> tuple[str, ...]:
        """The digests under which the registry of `reference` serves this."""
        pairs = (entry.partition("@") for entry in self.digests)
        name = reference.name
        return tuple(
            digest for known, _, digest in pairs if Reference.parse_familiar(known).name == name
        )

    def pin(self, reference: Reference) -> Pin:
        """What a lock file keeps of it: the digest that `reference` stands for, else the id."""
        if reference.digest is not None:
            return Pin(reference.digest)
        found = self.manifests(reference)
        return Pin(Digest(found[0])) if len(found) == 1 else Pin(self.id, local=True)

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able data."""
        return {
            "id": str(self.id),
            "tags": list(self.tags),
            "digests": list(self.digests),
            "size": self.size,
            "created": self.created,
            "labels": dict(self.labels),
        }


async def inspect(engine: Engine, name: str) -> Stored:
    """One image by reference or id. ImageNotFoundError, InvalidSpecError."""
    check_name(name, "image")
    return parse(await details(engine, name))


def kept_as(image: str) -> tuple[str, str]:
    """Repository and tag for an image of ours that the Engine does not know by `image`, its
    configuration's digest: in containerd's store the id is the manifest's."""
    return "ringfence-snapshot", image.rpartition(":")[2]


async def details(engine: Engine, image: str) -> Any:
    """All that the Engine says of an image by reference or id. ImageNotFoundError."""
    try:
        return await engine.described("image", "images", image, "json", by="Id")
    except ImageNotFoundError:
        if not _ID.fullmatch(image):
            raise
        with contextlib.suppress(ImageNotFoundError):
            kept = ":".join(kept_as(image))
            return await engine.described("image", "images", kept, "json", by="Id")
        raise


async def tag(engine: Engine, image: str, repository: str, label: str) -> None:
    """Call an image `repository:label`, whatever was called that before."""
    await engine.post("image", "images", image, "tag", repo=repository, tag=label)


def parse(data: Mapping[str, Any]) -> Stored:
    """What the Engine says of one image, in a list or alone."""
    labels = data.get("Labels") or (data.get("Config") or {}).get("Labels") or {}
    return Stored(
        id=Digest(data["Id"]),
        tags=tuple(tag for tag in data.get("RepoTags") or () if tag != "<none>:<none>"),
        digests=tuple(
            text for text in data.get("RepoDigests") or () if not text.startswith("<none>")
        ),
        size=int(data.get("Size") or 0),
        created=str(data.get("Created") or ""),
        labels={str(name): str(text) for name, text in labels.items()},
    )
