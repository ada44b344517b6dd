"""Which images a Dockerfile starts from: what a build needs of registries."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from ringfence.errors import InvalidSpecError
from ringfence.images.reference import Reference

_ESCAPE = re.compile(r"\s*#\s*escape\s*=\s*`\s*", re.IGNORECASE)
_ARGUMENT = re.compile(r"""(\w+)(?:=("[^"]*"|'[^']*'|\S*))?""")
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)(?::([-+])([^}]*))?\})")


def bases(text: str, arguments: Mapping[str, str]) -> list[Reference]:
    """The images that stages begin with or copy from, each once, those of other stages left out.

    arguments: what the build gives for ARG. What is no reference is left out, too: the builder
    says what is wrong with it.
    """
    known: dict[str, str] = {}
    stages: set[str] = {"scratch"}
    found: dict[str, Reference] = {}
    begun = False
    for verb, rest in _instructions(text):
        names: list[str] = []
        if verb == "ARG" and not begun:
            known |= _declared(rest, arguments, known)
        elif verb == "FROM":
            begun = True
            words = [word for word in rest.split() if not word.startswith("--")]
            names = [_substituted(words[0], known)] if words else []
        elif verb == "COPY":
            names = re.findall(r"(?:^|\s)--from=(\S+)", rest)
        for name in names:
            if name.lower() not in stages and not name.isdigit():
                found |= {str(each): each for each in _reference(name)}
        if verb == "FROM" and len(words) == 3 and words[1].upper() == "AS":
            stages.add(words[2].lower())
    return list(found.values())


def _reference(name: str) -> Iterable[Reference]:
    try:
        return [Reference.parse_familiar(name).with_tag()]
    except InvalidSpecError:
        return []


def _instructions(text: str) -> Iterator[tuple[str, str]]:
    """Verb and rest of each instruction; comments left out and continued lines joined."""
    lines = text.removeprefix("\ufeff").splitlines()
    mark = "`" if any(_ESCAPE.fullmatch(line) for line in lines[:2]) else "\\"
    joined = ""
    for line in lines:
        if line.lstrip().startswith("#") or (joined and not line.strip()):
            continue
        if line.rstrip().endswith(mark):
            joined += line.rstrip()[:-1]
            continue
        words = (joined + line).split(maxsplit=1)
        joined = ""
        if words:
            yield words[0].upper(), words[1].strip() if len(words) > 1 else ""


def _declared(rest: str, arguments: Mapping[str, str], known: Mapping[str, str]) -> dict[str, str]:
    made: dict[str, str] = {}
    for name, value in _ARGUMENT.findall(rest):
        plain = value[1:-1] if value[:1] in ("'", '"') and len(value) > 1 else value
        made[name] = arguments.get(name, _substituted(plain, {**known, **made}))
    return made


def _substituted(text: str, known: Mapping[str, str]) -> str:
    def value(found: re.Match[str]) -> str:
        given = known.get(found[1] or found[2], "")
        if found[3] == "-":
            return given or found[4]
        return found[4] if found[3] == "+" and given else "" if found[3] else given

    return _VARIABLE.sub(value, text.strip("\"'"))
