"""What a .dockerignore says: Go's filepath.Match, `**` for any directories, `!` to take back.

A repository brings its own patterns. Each path is looked at once, letter by letter, with the set of
all the places of the pattern that it may have come to: no pattern makes that longer.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from typing import NamedTuple

from ringfence.errors import InvalidSpecError
from ringfence.spec.paths import lies_in

IGNORE = ".dockerignore"
_SPECIAL = re.compile(r"[*?\[\\]")
_LETTER = r"(?:\\.|[^\\\]-])"
_SET = rf"\[\^?(?:{_LETTER}(?:-{_LETTER})?)+\]"
_PART = re.compile(rf"\*\*/?|\*|\?|{_SET}|\\.|[^*?\[\\]", re.DOTALL)
_RANGE = re.compile(rf"({_LETTER})(?:-({_LETTER}))?", re.DOTALL)
_MOST_KNOWN = 4096
"""Places and letters that are remembered of one pattern."""


class Rule(NamedTuple):
    """back: whether it takes back what an earlier one left out. text: the pattern, cleaned.

    covers: whether it matches a path or a directory above it.
    """

    back: bool
    text: str
    covers: Callable[[str], bool]


class Rules:
    """A .dockerignore's text. always: paths that are not left out, whatever it says.

    InvalidSpecError for a broken pattern.
    """

    def __init__(self, text: str = "", always: tuple[str, ...] = ()) -> None:
        lines = text.removeprefix("\ufeff").split("\n")
        self._rules = [rule for line in lines if (rule := _rule(line)) is not None]
        self._rules += [Rule(True, name, name.__eq__) for name in always]

    def ignored(self, name: str) -> bool:
        """Whether a path is left out: the last rule for it or a directory above decides."""
        verdict = False
        for rule in self._rules:
            if verdict == rule.back and rule.covers(name):
                verdict = not rule.back
        return verdict

    def ends_at(self, directory: str) -> bool:
        """Whether nothing below a directory that is left out can be taken back."""
        return not any(
            rule.back and (_SPECIAL.search(rule.text) or rule.text.startswith(directory + "/"))
            for rule in self._rules
        )


def _rule(line: str) -> Rule | None:
    """What a line says. Docker cleans it twice: where it reads the file, and where it matches."""
    pattern = "" if line.startswith("#") else line.strip()
    taken = pattern.startswith("!")
    pattern = pattern[1:].strip() if taken else pattern
    if pattern:
        pattern = _cleaned(pattern)
        pattern = pattern[1:] if pattern[0] == "/" and len(pattern) > 1 else pattern
    pattern = f"!{pattern}" if taken else pattern.strip()
    if not pattern:
        return None
    pattern = _cleaned(pattern)
    if pattern == "!":
        raise InvalidSpecError(f'{IGNORE}: "!" without a pattern', op="build")
    back = pattern.startswith("!")
    pattern = pattern.removeprefix("!")
    return None if pattern == "." else Rule(back, pattern, _covers(pattern))


def _cleaned(pattern: str) -> str:
    """As Go cleans a path, which begins with one slash at most."""
    cleaned = posixpath.normpath(pattern)
    return cleaned[1:] if cleaned.startswith("//") else cleaned


def _covers(pattern: str) -> Callable[[str], bool]:
    """The cheapest way to tell what a pattern matches."""
    parts = parts_of(pattern)
    if not _SPECIAL.search(pattern):
        return lambda name: lies_in(name, pattern)
    rest = pattern.removeprefix("**")
    if rest != pattern and not _SPECIAL.search(rest):
        # `**log` is for mylog, too; every other `**` is for whole names.
        return lambda name: f"{rest}/" in f"/{name}/"
    start = pattern.removesuffix("**")
    if start != pattern and not _SPECIAL.search(start):
        return lambda name: name.startswith(start)
    return Automaton(parts).covers


def parts_of(pattern: str) -> list[str]:
    """The pattern's parts, each for one letter or a wildcard. InvalidSpecError."""
    parts: list[str] = []
    place = 0
    while place < len(pattern):
        found = _PART.match(pattern, place)
        if found is None:
            raise InvalidSpecError(f"{IGNORE}: {pattern!r} is not a pattern", op="build")
        place = found.end()
        part = "**" if found[0] == "**/" else found[0]
        if part != "**" or parts[-1:] != ["**"]:
            parts.append(part)
    return parts


class Automaton:
    """A pattern and the places of it that paths have come to, each a bit of a number.

    Bit n: the parts before n have matched. A `**` that is not the last has two: before its first
    letter, when it may still be nothing, and after.
    """

    def __init__(self, parts: list[str]) -> None:
        self._singles: list[tuple[int, Callable[[str], bool]]] = []
        self._within = self._anything = self._depth = self._deeper = self._empty = 0
        bit = 1
        for index, part in enumerate(parts):
            if part == "*":
                self._within |= bit
                self._empty |= bit
            elif part == "**" and index == len(parts) - 1:
                self._anything |= bit
                self._empty |= bit
            elif part == "**":
                self._depth |= bit
                bit <<= 1
                self._deeper |= bit
            else:
                self._singles.append((bit, _takes(part)))
            bit <<= 1
        self._end = bit
        self._start = self._closed(1)
        self._letters: dict[str, int] = {}
        self.steps: dict[tuple[int, str], int] = {}

    def covers(self, name: str) -> bool:
        """Whether it matches a path or a directory above it."""
        here = self._start
        for letter in name:
            if letter == "/" and here & self._end:
                return True
            key = (here, letter)
            known = self.steps.get(key)
            here = self._step(key) if known is None else known
            if not here:
                return False
        return bool(here & self._end)

    def _step(self, key: tuple[int, str]) -> int:
        if len(self.steps) >= _MOST_KNOWN:
            self.steps.clear()
            self._letters.clear()
        here, letter = key
        on = (here & self._taking(letter)) << 1 | here & (self._anything | self._deeper)
        on |= (here & self._depth) << 1
        if letter == "/":
            on |= (here & self._deeper) << 1 | (here & self._depth) << 2
        else:
            on |= here & self._within
        self.steps[key] = made = self._closed(on)
        return made

    def _taking(self, letter: str) -> int:
        """The places whose part takes this letter."""
        found = self._letters.get(letter)
        if found is None:
            found = sum(bit for bit, takes in self._singles if takes(letter))
            self._letters[letter] = found
        return found

    def _closed(self, here: int) -> int:
        """With the places that need no letter; no three wildcards stand in a row."""
        for _ in range(3):
            here |= (here & self._empty) << 1 | (here & self._depth) << 2
        return here


def _takes(part: str) -> Callable[[str], bool]:
    """Whether a part takes a letter."""
    if part == "?":
        return lambda letter: letter != "/"
    if part[0] != "[" or len(part) == 1:
        return lambda letter: letter == part[-1]
    out = part[1] == "^"
    ranges = []
    for first, last in _RANGE.findall(part[2 if out else 1 : -1]):
        low, high = first[-1], (last or first)[-1]
        if low > high:
            raise InvalidSpecError(f"{IGNORE}: {part!r} is no set of letters", op="build")
        ranges.append((low, high))
    return lambda letter: any(low <= letter <= high for low, high in ranges) is not out
