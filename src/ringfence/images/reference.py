"""References to images, by the grammar of the distribution specification's implementations.

reference = name [":" tag] ["@" digest]
name      = [domain "/"] path-component {"/" path-component}
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from ringfence.digest import Digest, DigestError
from ringfence.errors import InvalidSpecError

DEFAULT_DOMAIN = "docker.io"
DEFAULT_TAG = "latest"
_LONGEST_NAME = 255
_LONGEST = 4096

_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_DIGEST = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}"
_REFERENCE = re.compile(
    rf"(?P<name>(?:{_DOMAIN}/)?{_PART}(?:/{_PART})*)(?::(?P<tag>{_TAG}))?(?:@(?P<digest>{_DIGEST}))?"
)
_SPLIT = re.compile(rf"(?:(?P<domain>{_DOMAIN})/)?(?P<path>{_PART}(?:/{_PART})*)")
_IDENTIFIER = re.compile("[a-f0-9]{64}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,511}")


@dataclass(frozen=True, slots=True)
class Reference:
    """One image's name. domain is "" when the text had none and `parse` was used.

    digest: what it is pinned to; then the tag says nothing.
    """

    domain: str
    path: str
    tag: str | None = None
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """The reference that `text` is, nothing filled in. InvalidSpecError."""
        match = _REFERENCE.fullmatch(text) if len(text) <= _LONGEST else None
        if match is None:
            raise _wrong(text, _reason(text))
        parts = _SPLIT.fullmatch(match["name"])
        if parts is None:
            raise _wrong(text, "its name has no path")
        if len(parts["path"]) > _LONGEST_NAME:
            raise _wrong(text, f"its name is longer than {_LONGEST_NAME} characters")
        return cls(
            parts["domain"] or "", parts["path"], match["tag"], _digest(text, match["digest"])
        )

    @classmethod
    def parse_familiar(cls, text: str) -> Reference:
        """The reference that a person means by `text`: "debian" is docker.io/library/debian.

        The tag stays as it is, None included; `with_tag` fills it in. InvalidSpecError.
        """
        if _IDENTIFIER.fullmatch(text):
            raise _wrong(text, "64 hexadecimal digits are an image's id, not its name")
        head, slash, rest = text.partition("/")
        if not slash or not _is_domain(head):
            head, rest = DEFAULT_DOMAIN, text
        if head == "index.docker.io":
            head = DEFAULT_DOMAIN
        if head == DEFAULT_DOMAIN and "/" not in rest.partition("@")[0]:
            rest = f"library/{rest}"
        path = re.split("[:@]", rest, maxsplit=1)[0]
        if path != path.lower():
            raise _wrong(text, "the name must be in lower case")
        return cls.parse(f"{head}/{rest}")

    @property
    def name(self) -> str:
        """Domain and path."""
        return f"{self.domain}/{self.path}" if self.domain else self.path

    @property
    def familiar_name(self) -> str:
        """The name as people write it, without what is filled in by itself."""
        if self.domain != DEFAULT_DOMAIN:
            return self.name
        head, _, rest = self.path.partition("/")
        return rest if head == "library" and "/" not in rest and rest else self.path

    @property
    def pinned(self) -> bool:
        """Whether it says by its digest what it is."""
        return self.digest is not None

    def with_tag(self) -> Reference:
        """The same with the tag "latest" when it has neither tag nor digest."""
        return self if self.tag or self.digest else replace(self, tag=DEFAULT_TAG)

    def pin(self, digest: str) -> Reference:
        """The same, pinned. InvalidSpecError when it is pinned to another digest already."""
        checked = _digest(str(self), digest)
        if self.digest not in (None, checked):
            raise _wrong(str(self), f"it cannot be pinned to {digest} as well")
        return replace(self, digest=checked)

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.name}{tag}{digest}"

    def familiar(self) -> str:
        """The whole reference as people write it."""
        return self.familiar_name + str(self)[len(self.name) :]


def check_name(text: str, op: str) -> None:
    """Raise InvalidSpecError for what is neither a reference nor an id nor the beginning of one."""
    if not _NAME.fullmatch(text) or ".." in text or "//" in text:
        raise _wrong(text, _reason(text.replace("..", "!")), op)


def _is_domain(text: str) -> bool:
    return any(mark in text for mark in ".:") or text == "localhost" or text != text.lower()


def _digest(text: str, digest: str | None) -> Digest | None:
    if digest is None:
        return None
    try:
        return Digest.parse(digest)
    except DigestError as error:
        raise _wrong(text, f"{digest!r}: {error}") from None


def _reason(text: str) -> str:
    if not text:
        return "it is empty"
    if _REFERENCE.fullmatch(text.lower()):
        return "the name must be in lower case"
    return "it must look like [registry/]name[:tag][@sha256:...]"


def _wrong(text: str, reason: str, op: str = "image") -> InvalidSpecError:
    shown = text if len(text) <= 200 else text[:200] + "..."
    return InvalidSpecError(
        f"image: {shown!r} is not an image's reference: {reason}",
        op=op,
        context={"fields": ["image"], "reference": shown},
    )
