"""Patterns with the meaning they have in .gitignore, made fast for many paths.

A path is relative, with "/" between its names, as text with surrogateescape. What is decided for a
directory holds for all below it: the caller does not descend.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

import pathspec

_NAME = r"[^\\*?\[\]!#\s/]+"
_PLAIN, _PREFIX, _SUFFIX = (re.compile(text) for text in (_NAME, rf"({_NAME})\*", rf"\*({_NAME})"))
_GLOB = re.compile(r"[^\\\[\]!#\s/]*[^\\*?\[\]!#\s/][^\\\[\]!#\s/]*")


_ANY_START, _ANY_DEPTH, _ANY_NAME = "^(?:.+/)?", "(?:/.+)?", "[^/]*"
"""What pathspec makes of `**/`, `/**/` and `*`; no literal and no brackets contain them."""

_BRACKETS = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)

_SET = re.compile(r"\\.|(\[[!^]?\]?)((?:\\.?|\[:[^\]]{0,16}:\]|[^\]\\])*+)(\]?)", re.DOTALL)
"""One that does not end goes on to the end of the text: nobody looks twice at a letter of it."""
_IN_SET = re.compile(r"\\.|\[:[^\]]*:\]|[\[&~|]", re.DOTALL)
_CLASSES = {"alnum": "A-Za-z0-9", "alpha": "A-Za-z", "blank": r" \t", "cntrl": r"\x00-\x1f\x7f",
            "digit": "0-9", "graph": "!-~", "lower": "a-z", "print": " -~",
            "punct": r"!-/:-@\[-`{-~", "space": r" \t-\r", "upper": "A-Z",
            "xdigit": "0-9A-Fa-f"}  # fmt: skip
_WORDS = {f"[:{name}:]": letters for name, letters in _CLASSES.items()}
_WORDS |= {letter: rf"\{letter}" for letter in r"[&~|]\-^!"}
_STANDS = {word: chr(0xD800 + number) for number, word in enumerate(_WORDS)}
"""What stands for the classes of a set and for letters after a backslash, neither of which pathspec
knows, and for letters of which `re` warns, while it has the pattern. No text that was read holds
them."""
_MEANT = {ord(letter): _WORDS[word] for word, letter in _STANDS.items()}


class _Rule(NamedTuple):
    matches: re.Pattern[str]
    excludes: bool
    directory_only: bool


class Patterns:
    """An ordered list of patterns; the last one that matches decides.

    What the last name of a path must be like for a pattern to match is looked up first; only a
    pattern that does not tell it (`logs/**`, `[ab]`) costs a regular expression per path.
    """

    def __init__(self, lines: Iterable[str]) -> None:
        self._rules: list[_Rule] = []
        self._names: set[str] = set()
        prefixes: set[str] = set()
        suffixes: set[str] = set()
        globs: set[str] = set()
        slow: list[_Rule] = []
        for line in lines:
            rule = _rule(line)
            if rule is None:
                continue
            self._rules.append(rule)
            last = line.rstrip(" \r\n").removeprefix("!").removesuffix("/").rpartition("/")[2]
            if _PLAIN.fullmatch(last):
                self._names.add(last)
            elif found := _PREFIX.fullmatch(last):
                prefixes.add(found[1])
            elif found := _SUFFIX.fullmatch(last):
                suffixes.add(found[1])
            elif _GLOB.fullmatch(last):
                globs.add(_of_name(last))
            else:
                slow.append(rule)
        self._prefixes, self._suffixes = tuple(prefixes), tuple(suffixes)
        self._globs = re.compile("|".join(sorted(globs)), re.DOTALL) if globs else None
        self._slow = _any_of(slow)
        self._rules.reverse()

    def __bool__(self) -> bool:
        return bool(self._rules)

    def verdict(self, path: str, name: str, is_directory: bool) -> bool | None:
        """True when the last matching pattern excludes, False when it starts with "!", else None.

        name: the last part of `path`.
        """
        if not (
            name in self._names
            or name.endswith(self._suffixes)
            or name.startswith(self._prefixes)
            or (self._globs is not None and self._globs.match(name))
            or (self._slow is not None and self._slow.match(path + "/"))
        ):
            return None
        for rule in self._rules:
            if rule.directory_only:
                if is_directory and rule.matches.match(path + "/"):
                    return rule.excludes
            elif rule.matches.match(path):
                return rule.excludes
        return None


def _rule(line: str) -> _Rule | None:
    text = line.rstrip("\n").rstrip("\r")
    directory_only = text.rstrip(" ").endswith("/")
    if text.rstrip(" ").endswith("/**/"):
        text = text.rstrip(" ") + "*/"
    try:
        plain = _SET.sub(_without_classes, text)
        parsed = pathspec.GitIgnoreSpec.from_lines([plain]).patterns
    except (ValueError, KeyError, re.error):
        return None
    for pattern in parsed:
        if pattern.include is None or pattern.regex is None:
            return None
        regex = _bounded(_of_whole_path(pattern.regex.pattern, directory_only)).translate(_MEANT)
        try:
            matches = re.compile(regex, re.DOTALL)
        except re.error:  # a range from or to a class
            return None
        return _Rule(matches, bool(pattern.include), directory_only)
    return None


def _without_classes(found: re.Match[str]) -> str:
    """A set such as `[[:alpha:]_]` with letters that stand for its classes. KeyError for a class
    that is none, and a set that does not end: nothing matches such a pattern."""
    if found[1] is None:
        return found[0]
    if not found[3]:
        raise KeyError(found[0])
    return found[1] + _IN_SET.sub(_stands, found[2]) + "]"


def _stands(found: re.Match[str]) -> str:
    word = found[0]
    return _STANDS.get(word[1], word[1]) if word[0] == "\\" else _STANDS[word]


def _of_name(glob: str) -> str:
    """The expression for a name with * and ? in it."""
    parts = [
        "".join("." if letter == "?" else re.escape(letter) for letter in part)
        for part in glob.split("*")
    ]
    return _earliest(parts, ".*") + r"\Z"


def _bounded(regex: str) -> str:
    """An expression for the same paths whose time grows with the path's length, not with a power of
    it: a repository brings its own patterns, `*a*a*a*b` or `**/a/**/a/**/b` among them.

    What stands between two wildcards of a kind, each of which may take anything, may as well match
    at its first place and stay there. That needs brackets that never match "/", as git's do not.
    """
    regex = _BRACKETS.sub(lambda found: _no_slash(found[0]), regex)
    groups = [_bounded_group(group) for group in regex.split(_ANY_DEPTH)]
    if len(groups) > 1 and groups[0].startswith(_ANY_START):
        groups[0] = f"^(?>(?:.+?/)??{groups[0].removeprefix(_ANY_START)}(?=/))"
    inner = "".join(f"(?>(?:/.+?)??{group}(?=/))" for group in groups[1:-1])
    return groups[0] + inner + "".join(_ANY_DEPTH + group for group in groups[1:][-1:])


def _no_slash(piece: str) -> str:
    return piece if piece[0] == "\\" or piece == "[^/]" else "(?!/)" + piece


def _bounded_group(group: str) -> str:
    """Each name of the path on its own: its last wildcard ends where its "/" is."""
    bounded, run = "", list[str]()
    for part in group.split(_ANY_NAME):
        run.append(part)
        if "/" in part.replace("(?!/)", "").replace("[^/]", ""):
            bounded += _earliest(run, _ANY_NAME)
            run = [""]
    return bounded + _earliest(run, _ANY_NAME)


def _earliest(parts: list[str], wildcard: str) -> str:
    """The parts with the wildcard between them; all but the last are taken where they are first."""
    if len(parts) == 1:
        return parts[0]
    inner = "".join(f"(?>{wildcard}?{part})" for part in parts[1:-1])
    return parts[0] + inner + wildcard + parts[-1]


def _of_whole_path(regex: str, directory_only: bool) -> str:
    """pathspec's expression, made to match the path itself and not what is below a match.

    It is for a path, or for a directory with "/" behind it when only directories are meant.
    """
    regex = regex.replace("(?P<ps_d>/)", "/")
    regex = regex if regex.startswith("^") else ".*" + regex
    if directory_only:
        return regex.removesuffix(".*$") + r"\Z"
    for tail in ("(?:/|$)", "(?:/.*)?$", "$"):
        if regex.endswith(tail):
            return regex.removesuffix(tail) + r"\Z"
    return regex


def _any_of(rules: list[_Rule]) -> re.Pattern[str] | None:
    """One expression for whatever one of the rules may match, with "/" behind the path."""
    if not rules:
        return None
    return re.compile("|".join(f"(?:{_loose(r.matches.pattern)})" for r in rules), re.DOTALL)


def _loose(regex: str) -> str:
    if not regex.endswith(r"\Z") or regex.endswith(r"/\Z"):
        return regex
    return regex.removesuffix(r"\Z") + r"/\Z"
