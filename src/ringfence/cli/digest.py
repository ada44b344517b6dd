"""`ringfence digest`: what files are, and whether they are what they were."""

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from ringfence.cli import output
from ringfence.cli.common import Json
from ringfence.errors import InvalidSpecError

_LARGE = 64 * 1024 * 1024
_LINE = re.compile(r"(\\?)([a-z0-9+._-]+:)?([a-zA-Z0-9=_-]+) [ *](.+)")
_TAGGED = re.compile(r"(\\?)([A-Z0-9]+) \((.+)\) = ([a-fA-F0-9]+)")
_BY_LENGTH = {64: "sha256", 96: "sha384", 128: "sha512"}


class Checked(NamedTuple):
    """verdict: "OK", "FAILED" or why it could not be read. digest: None of a list, or a line of it,
    that names nothing to check."""

    name: str
    digest: str | None
    verdict: str


def digest(
    files: Annotated[
        list[str] | None, typer.Argument(metavar="[FILE...]", help="- or none: standard input.")
    ] = None,
    algorithm: Annotated[
        str, typer.Option("--algorithm", "-a", help="sha256, sha384, sha512 or blake3.")
    ] = "sha256",
    check: Annotated[
        bool, typer.Option("--check", "-c", help="Each FILE lists digests: check what they name.")
    ] = False,
    json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="With -c: only failures.")] = False,
) -> int:
    """Print or check the digests of files, in the manner of sha256sum.

    With -c, lines are what this prints, or what sha256sum and its like print. Ends with 1 when a
    file is not what it was or cannot be read, or a line is none of these; the others are checked.
    """
    names = files or ["-"]
    _register(algorithm)
    if check:
        return _check(names, algorithm, json, quiet)
    found: list[dict[str, str | None]] = []
    for name in names:
        try:
            made = _digest(name, algorithm)
        except OSError as error:
            output.note(output.escape_text(f"{name}: {error.strerror}"))
            found.append({"file": name, "digest": None, "error": error.strerror})
            continue
        found.append({"file": name, "digest": made, "error": None})
        if not json:
            output.name_line(_line(made, name))
    if json:
        output.document(found)
    return 1 if any(one["error"] for one in found) else 0


def _check(names: list[str], algorithm: str, json: bool, quiet: bool) -> int:
    results: list[Checked] = []
    for listing in names:
        try:
            found = [_checked(*line, algorithm, json, quiet) for line in _lines(listing)]
        except OSError as error:
            found = [_unchecked(listing, str(error.strerror))]
        else:
            if not any(result.digest for result in found):
                found.append(_unchecked(listing, "nothing in it was checked"))
        results += found
    if json:
        output.document([result._asdict() for result in results])
    return 1 if any(result.verdict != "OK" for result in results) else 0


def _unchecked(name: str, why: str) -> Checked:
    """A list, or a line of it, that names nothing to check, which is said."""
    output.note(output.escape_text(f"{name}: {why}"))
    return Checked(name, None, why)


def _lines(listing: str) -> Iterator[tuple[str, str]]:
    """Place and text of each line that is neither empty nor a comment. OSError."""
    data = sys.stdin.buffer.read() if listing == "-" else Path(listing).read_bytes()
    for number, whole in enumerate(os.fsdecode(data).split("\n"), 1):
        line = whole.removesuffix("\r")
        if line.strip() and not line.startswith("#"):
            yield f"{listing}:{number}", line


def _checked(place: str, line: str, algorithm: str, json: bool, quiet: bool) -> Checked:
    """A line of a list, and the file that it names, which is told."""
    try:
        name, wanted = _parse(line, algorithm)
    except InvalidSpecError as error:
        return _unchecked(place, str(error))
    try:
        verdict = "OK" if _digest(name, wanted.partition(":")[0]) == wanted else "FAILED"
    except OSError as error:
        verdict = str(error.strerror)
    result = Checked(name, wanted, verdict)
    _tell(result, json, quiet)
    return result


def _tell(result: Checked, json: bool, quiet: bool) -> None:
    """On stdout as sha256sum does; with --json only what is wrong, on stderr."""
    if result.verdict == "OK" and (json or quiet):
        return
    name = _escape(result.name)
    if result.verdict not in ("OK", "FAILED") and not json:
        output.line(output.escape_text(f"{name}: FAILED open or read"))
    tell = output.line if result.verdict in ("OK", "FAILED") and not json else output.note
    tell(output.escape_text(f"{name}: {result.verdict}"))


def _parse(line: str, algorithm: str) -> tuple[str, str]:
    """File name and digest of a line. InvalidSpecError."""
    from ringfence.digest import Digest, DigestError

    tagged = _TAGGED.fullmatch(line)
    match = tagged or _LINE.fullmatch(line)
    if match is None or "\0" in line:
        raise InvalidSpecError(
            "it is neither DIGEST, two spaces, FILE nor ALGORITHM (FILE) = DIGEST", op="digest"
        )
    escaped, prefix, encoded, name = match.groups()
    if tagged is not None:
        prefix, name, encoded = f"{prefix.lower()}:", encoded, name.lower()
    elif not prefix:
        guessed = algorithm if algorithm != "sha256" else _BY_LENGTH.get(len(encoded), algorithm)
        prefix, encoded = f"{guessed}:", encoded.lower()
    _register(prefix[:-1])
    try:
        wanted = Digest.parse(prefix + encoded)
    except DigestError as error:
        raise InvalidSpecError(str(error), op="digest") from None
    return (_unescape(name) if escaped else name), str(wanted)


def _digest(name: str, algorithm: str) -> str:
    from ringfence.digest import Digest, digest_file

    if name == "-":
        return str(Digest.from_reader(sys.stdin.buffer, algorithm))
    size = os.stat(name).st_size  # noqa: PTH116 - a name is kept as it was given
    if size < _LARGE or not sys.stderr.isatty():
        return str(digest_file(name, algorithm))
    with _bar(name, size) as advance:
        return str(digest_file(name, algorithm, progress=advance))


@contextmanager
def _bar(name: str, size: int) -> Iterator[Callable[[int], None]]:
    from rich.markup import escape
    from rich.progress import Progress

    with Progress(console=output.console(), transient=True) as progress:
        task = progress.add_task(escape(output.escape_name(name)), total=size)
        yield lambda count: progress.advance(task, count)


def _register(algorithm: str) -> None:
    """Let the algorithms that are built in be used. InvalidSpecError for one that is not there."""
    from ringfence.digest import Algorithm

    if algorithm in ("sha384", "blake3"):
        Algorithm.register(algorithm)
    if not Algorithm(algorithm).available:
        raise InvalidSpecError(
            f"the algorithm {algorithm!r} is not available: use sha256, sha384, sha512, or blake3"
            " with the extra ringfence[blake3]",
            op="usage",
        )


def _line(made: str, name: str) -> str:
    """As sha256sum writes it: a name with a newline or a backslash is escaped, and says so."""
    escaped = _escape(name)
    mark = "\\" if escaped != name else ""
    return f"{mark}{made}  {escaped}"


def _escape(name: str) -> str:
    return name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")


def _unescape(name: str) -> str:
    meanings = {"\\\\": "\\", "\\n": "\n", "\\r": "\r"}
    return re.sub(r"\\[\\nr]", lambda match: meanings[match[0]], name)
