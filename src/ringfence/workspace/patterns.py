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
        parsed = pathspec.GitIgnoreSpec.from_lines([text]).patterns
    except ValueError:
        return None
    for pattern in parsed:
        if pattern.include is None or pattern.regex is None:
            return None
        regex = _of_whole_path(pattern.regex.pattern, directory_only)
        return _Rule(re.compile(regex, re.DOTALL), bool(pattern.include), directory_only)
    return None


def _of_name(glob: str) -> str:
    """The expression for a name with * and ? in it."""
    marks = {"*": ".*", "?": "."}
    return "".join(marks.get(letter) or re.escape(letter) for letter in glob) + r"\Z"


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
