"""Tables and escapes where a person reads, JSON where a script does."""

import io
import json as jsonlib
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from ringfence.errors import SandboxError

if TYPE_CHECKING:
    from rich.console import Console

_CONTROL = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]|\xc2[\x80-\x9f]")
_CONTROL_TEXT = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


def line(text: str = "") -> None:
    """One line on stdout."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def name_line(text: str) -> None:
    """One line on stdout with the name of a file of this machine: byte by byte for a script."""
    if sys.stdout.isatty():
        line(escape_name(text))
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(os.fsencode(text) + b"\n")
    sys.stdout.buffer.flush()


def note(text: str) -> None:
    """One line on stderr: progress and what a person should know. Where none can be written the
    exit code says what it would have."""
    try:
        sys.stderr.write(f"ringfence: {text}\n")
        sys.stderr.flush()
    except OSError:
        _lead_nowhere(sys.stderr)


def error(failure: SandboxError, *, json: bool = False) -> None:
    """What went wrong and what to do: a sentence on stderr, a line for each note on it, with --json
    the error on stdout too."""
    if json:
        document({"error": failure.to_dict()})
    for text in (str(failure), *getattr(failure, "__notes__", ())):
        note(escape_text(text))


def document(data: Any) -> None:
    """One JSON document on stdout."""
    line(jsonlib.dumps(data, indent=2 if sys.stdout.isatty() else None, default=str))


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Aligned columns under upper-case heads; never wrapped, so that lines stay lines."""
    cells = [list(columns), *([escape_name(str(cell)) for cell in row] for row in rows)]
    cells[0] = [head.upper() for head in cells[0]]
    widths = [max(_width(row[index]) for row in cells) for index in range(len(columns))]
    padded = ([cell + " " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True)]
              for row in cells)  # fmt: skip
    line("\n".join("  ".join(row).rstrip() for row in padded))


def _width(text: str) -> int:
    """The columns that it takes on a terminal."""
    if text.isascii():
        return len(text)
    import unicodedata

    wide = sum(unicodedata.east_asian_width(letter) in "FW" for letter in text)
    marks = sum(unicodedata.category(letter) in ("Mn", "Me", "Cf") for letter in text)
    return len(text) + wide - marks


def fields(data: Mapping[str, object]) -> None:
    """One name and value a line."""
    width = max((len(name) for name in data), default=0)
    for name, value in data.items():
        line(f"{name.ljust(width)}  {escape_name(_worded(value))}")


def labels(data: Mapping[str, str]) -> str:
    """Labels in one cell."""
    return ",".join(f"{name}={value}" for name, value in sorted(data.items()))


def _worded(value: object) -> str:
    if value is None or value == {}:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "-"
    return labels(value) if isinstance(value, Mapping) else str(value)


def span(seconds: float) -> str:
    """Seconds as a person says them: 45s, 12m, 3h, 2d."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{max(0, int(seconds))}s"


def size(count: int | None) -> str:
    """Bytes as a person reads them, "-" when unknown."""
    if count is None:
        return "-"
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f}{unit}" if unit == "B" else f"{amount:.1f}{unit}"
        amount /= 1024
    return f"{amount:.1f}TiB"


def escape(data: bytes) -> bytes:
    """Terminal control bytes of a sandbox made visible; newline and tab stay (C0, DEL and C1)."""
    return _CONTROL.sub(lambda match: b"".join(b"\\x%02x" % byte for byte in match[0]), data)


def escape_text(text: str) -> str:
    """The same for text, for what turns the direction of writing around, and for bytes that are no
    text."""
    return _CONTROL_TEXT.sub(lambda match: _shown(ord(match[0])), text)


def _shown(code: int) -> str:
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def escape_name(text: str) -> str:
    """The same for what stands on one line: newline and tab are shown too."""
    return escape_text(text).replace("\n", "\\x0a").replace("\t", "\\x09")


def console() -> "Console":
    """A rich console on stderr, for live tables and progress bars."""
    from rich.console import Console

    return Console(stderr=True)


def complete() -> None:
    """Let a standard stream that our caller closed lead nowhere, before another file gets its
    number, and show what has no place in the locale's encoding."""
    for number, (name, mode) in enumerate(_STREAMS):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            stream = open(number, mode, encoding="utf-8", closefd=False)  # noqa: SIM115 - it stays
            setattr(sys, name, stream)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def silence() -> None:
    """Nobody reads stdout any more: let the interpreter's last flush go nowhere."""
    _lead_nowhere(sys.stdout)


def _lead_nowhere(stream: TextIO) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class Escaping:
    """A sandbox's output piece by piece: escaped for a terminal, also where a control character is
    cut in two by the pieces, and as it is for files and pipes."""

    def __init__(self, *, terminal: bool) -> None:
        self._terminal = terminal
        self._last = b""

    def shown(self, data: bytes) -> bytes:
        """The next piece."""
        if not self._terminal:
            return data
        cut = self._last == b"\xc2" and b"\x80" <= data[:1] <= b"\x9f"
        self._last = data[-1:] or self._last
        if cut:
            return b"\\x%02x" % data[0] + escape(data[1:])
        return escape(data)
