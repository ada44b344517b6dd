"""What of a directory goes into a build: everything but what .dockerignore names."""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from ringfence.errors import InvalidSpecError

IGNORE = ".dockerignore"
_LARGEST_IGNORE = 1024 * 1024


def pack(directory: Path, into: IO[bytes], dockerfile: str = "Dockerfile") -> None:
    """Write the context as a tar: sorted, owned by root, links kept as links.

    dockerfile: path below the directory. InvalidSpecError when there is none.
    """
    if not (directory / dockerfile).is_file() or ".." in Path(dockerfile).parts:
        raise InvalidSpecError(f"there is no {dockerfile} in {directory}", op="build")
    rules = _rules(directory)
    with tarfile.open(fileobj=into, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in _walk(directory):
            name = path.relative_to(directory).as_posix()
            if name not in (dockerfile, IGNORE) and ignored(rules, name):
                continue
            add(archive, path, name)


def pack_tree(directory: Path, into: IO[bytes]) -> None:
    """Write a whole directory as a tar, owners and modes as they are: a root file system."""
    with tarfile.open(fileobj=into, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in _walk(directory):
            add(archive, path, path.relative_to(directory).as_posix(), keep_owner=True)


def add(archive: tarfile.TarFile, path: Path, name: str, *, keep_owner: bool = False) -> None:
    """Add one entry; sockets are left out, as tar has none."""
    info = archive.gettarinfo(str(path), name)
    if info is None:  # type: ignore[redundant-expr,unused-ignore]
        return
    info.uname = info.gname = ""
    if not keep_owner:
        info.uid = info.gid = 0
    if info.isreg():
        with path.open("rb") as stream:
            archive.addfile(info, stream)
    else:
        archive.addfile(info)


Rules = tuple[tuple[bool, re.Pattern[str]], ...]
"""In order: whether it takes back an earlier one, and what it matches."""


def rules_of(text: str) -> Rules:
    """The rules that a .dockerignore's text states. InvalidSpecError for a broken pattern."""
    found = []
    for line in text.splitlines():
        pattern = line.strip()
        if not pattern or pattern.startswith("#"):
            continue
        back = pattern.startswith("!")
        cleaned = os.path.normpath(pattern.lstrip("!").strip()).lstrip("/")
        if cleaned != ".":
            found.append((back, _compile(cleaned)))
    return tuple(found)


def ignored(rules: Rules, name: str) -> bool:
    """Whether a path is left out: the last rule that matches it or a directory above decides."""
    parts = name.split("/")
    ways = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
    verdict = False
    for back, pattern in rules:
        if verdict == back and any(pattern.fullmatch(way) for way in ways):
            verdict = not back
    return verdict


def _rules(directory: Path) -> Rules:
    path = directory / IGNORE
    if not path.is_file():
        return ()
    if path.stat().st_size > _LARGEST_IGNORE:
        raise InvalidSpecError(f"{path} is larger than {_LARGEST_IGNORE} bytes", op="build")
    return rules_of(path.read_text("utf-8", "surrogateescape"))


_TOKEN = re.compile(r"\*\*/|\*\*|\*|\?|\[\^?[^\]]+\]|\\.|.", re.DOTALL)
_WILD = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def _compile(pattern: str) -> re.Pattern[str]:
    out = []
    for token in _TOKEN.findall(pattern):
        if token in _WILD:
            out.append(_WILD[token])
        elif token.startswith("[") and len(token) > 1:
            out.append(token.replace("[[", r"[\["))
        else:
            out.append(re.escape(token[-1]))
    try:
        return re.compile("".join(out), re.DOTALL)
    except re.error as error:
        raise InvalidSpecError(f"{IGNORE}: {pattern!r}: {error}", op="build") from None


def _walk(directory: Path) -> Iterator[Path]:
    for base, names, files in os.walk(directory):
        names.sort()
        for name in sorted(names + files):
            yield Path(base, name)
