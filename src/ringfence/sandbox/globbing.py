"""Glob patterns over paths that come from a sandbox."""

import re

from ringfence.errors import InvalidSpecError

_MAGIC = re.compile(r"[*?[]")
_SPECIAL = re.compile(r"[\\[&~|]")


class Pattern:
    """An absolute pattern. base: the directory that holds everything that can match, at most
    `depth` names below; None where any number may be. literal: whether it is a plain path."""

    def __init__(self, pattern: str) -> None:
        if not isinstance(pattern, str) or not pattern.startswith("/") or "\0" in pattern:
            raise InvalidSpecError(
                f"pattern: {pattern!r} is not absolute: write it from /, such as /workspace/*.py",
                op="files.glob",
                context={"fields": ["pattern"]},
            )
        parts = [part for part in pattern.split("/") if part]
        plain = next((i for i, part in enumerate(parts) if _MAGIC.search(part)), len(parts))
        self.pattern = pattern
        self.literal = plain == len(parts)
        self.base = "/" + "/".join(parts[:plain])
        self.depth = None if "**" in parts[plain:] else len(parts) - plain
        self._before = self.base.rstrip("/") + "/"
        try:
            self._regex = re.compile(_regex(parts[plain:]), re.DOTALL)
        except re.error as error:
            raise InvalidSpecError(
                f"pattern: {pattern!r} is none: {error}",
                op="files.glob",
                context={"fields": ["pattern"]},
            ) from None

    def matches(self, path: str) -> bool:
        """Whether a path below `base` matches."""
        return self._regex.fullmatch(path.removeprefix(self._before)) is not None


def _regex(parts: list[str]) -> str:
    built = ""
    for position, part in enumerate(parts):
        last = position == len(parts) - 1
        if part == "**":
            built += r"(?:[^/.][^/]*/)*" + (r"[^/.][^/]*" if last else "")
        else:
            built += _name(part) + ("" if last else "/")
    return built


def _name(part: str) -> str:
    built = "" if part.startswith(".") else r"(?!\.)"
    at = 0
    while at < len(part):
        character = part[at]
        if character == "*":
            built += "[^/]*"
        elif character == "?":
            built += "[^/]"
        elif character == "[" and (end := _closing(part, at)) > 0:
            inner = _SPECIAL.sub(r"\\\g<0>", part[at + 1 : end])
            built += "(?!/)[" + ("^" + inner[1:] if inner.startswith("!") else inner) + "]"
            at = end
        else:
            built += re.escape(character)
        at += 1
    return built


def _closing(part: str, at: int) -> int:
    """Where the set ends that begins there, -1 for none; one that stands first in it is of it."""
    first = at + (2 if part[at + 1 : at + 2] in ("!", "^") else 1)
    return part.find("]", first + 1)
