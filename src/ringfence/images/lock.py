"""The lock file: which content each tag stood for when somebody looked.

JSON, sorted, one line a pin, so that a change is one line of a diff:

    {"version": 1, "images": {"docker.io/library/python:3.12": "sha256:..."}}

The digest is the manifest's, as the registry serves it. An image that no registry knows (built or
imported here) is pinned by its id, which is the digest of its configuration: "id:sha256:...".
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ringfence.digest import Digest
from ringfence.errors import ImageError, InvalidSpecError, PolicyDeniedError
from ringfence.images.reference import Reference

VERSION = 1
NAME = "ringfence.lock"
"""What the file is called unless somebody says otherwise."""
_ID = "id:"


@dataclass(frozen=True, slots=True)
class Pin:
    """digest: of the manifest, or of the configuration when `local`."""

    digest: Digest
    local: bool = False

    def __str__(self) -> str:
        return f"{_ID}{self.digest}" if self.local else str(self.digest)

    @classmethod
    def parse(cls, text: str) -> Pin:
        """The pin that `str` wrote. DigestError."""
        return cls(Digest.parse(text.removeprefix(_ID)), text.startswith(_ID))


@dataclass(frozen=True, slots=True)
class Lock:
    """pins: by the whole reference, as in docker.io/library/debian:12."""

    pins: Mapping[str, Pin] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Lock:
        """The lock that a file's text describes. InvalidSpecError, also when it has an image twice,
        as after a merge."""
        try:
            data = _parts(json.loads(text, object_pairs_hook=list))
            if data["version"] != VERSION:
                raise InvalidSpecError(
                    f"the lock file has version {data['version']!r}, known is {VERSION}", op="image"
                )
            pins = [(str(_key(name)), Pin.parse(pin)) for name, pin in data["images"]]
        except InvalidSpecError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InvalidSpecError(f"the lock file cannot be read: {error}", op="image") from None
        last = dict(pins)
        for name, pin in pins:
            if last[name] != pin:
                raise InvalidSpecError(
                    f"the lock file has {name} twice, as {pin} and as {last[name]}", op="image"
                )
        return cls(last)

    def render(self) -> str:
        """The file's text."""
        images = {name: str(self.pins[name]) for name in sorted(self.pins)}
        return json.dumps({"version": VERSION, "images": images}, indent=2) + "\n"

    def locked(self, reference: Reference, pin: Pin) -> Lock:
        """The same with one more pin, in place of an earlier one."""
        return Lock({**self.pins, str(_key(str(reference))): pin})

    def find(self, reference: Reference) -> Pin | None:
        """What a reference is pinned to, None when it is not in the file."""
        return self.pins.get(str(_key(str(reference))))

    def require(self, reference: Reference) -> Pin:
        """What a reference is pinned to. ImageError when it is not in the file."""
        pin = self.find(reference)
        if pin is None:
            raise ImageError(
                f"{reference} is not in the lock file: ringfence image lock {reference.familiar()}",
                op="image",
                context={"reference": str(reference)},
            )
        return pin

    def resolve(self, reference: Reference) -> Reference:
        """The reference with its pin, for pulling; unchanged when there is none to pull by.

        PolicyDeniedError when it is pinned to another digest already.
        """
        pin = self.find(reference)
        if pin is None or pin.local:
            return reference
        if reference.digest not in (None, pin.digest):
            raise _changed(reference, pin, [reference.digest])
        return reference.pin(pin.digest)

    def check(self, reference: Reference, manifests: Iterable[str], image_id: str) -> None:
        """Raise PolicyDeniedError, naming both digests, unless an image is what was locked.

        manifests: digests that registries serve it under. image_id: its configuration's digest.
        ImageError when the reference is not in the file at all.
        """
        pin = self.require(reference)
        found = [image_id] if pin.local else list(manifests)
        if str(pin.digest) not in found:
            raise _changed(reference, pin, found or [f"{_ID}{image_id}"])


def _parts(pairs: Any) -> dict[str, Any]:
    """What the file's object has. ValueError for one that has a part twice, as after a merge."""
    made: dict[str, Any] = {}
    for key, value in pairs:
        if key in made:
            raise ValueError(f"it has {key!r} twice")
        made[key] = value
    return made


def _key(name: str) -> Reference:
    """The reference without its digest: what a pin is kept under."""
    parsed = Reference.parse_familiar(name)
    return Reference(parsed.domain, parsed.path, parsed.tag).with_tag()


def _changed(reference: Reference, pin: Pin, found: Iterable[object]) -> PolicyDeniedError:
    now = ", ".join(str(digest) for digest in found)
    return PolicyDeniedError(
        f"{reference} is locked to {pin} and is {now} now: if the change is wanted, run"
        f" ringfence image lock {reference.familiar()}",
        op="image",
        context={"reference": str(reference), "locked": str(pin), "found": now},
    )
