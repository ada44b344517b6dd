"""The audit log: JSON lines, each bound to the one before by its digest."""

import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ringfence.errors import ResourceExhaustedError, StateError

START = "sha256:" + "0" * 64
REDACTED = "[redacted]"
_TAIL_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Verdict:
    """What `verify` found. line: the first bad line, counted from 1; None when all hold."""

    entries: int
    head: str
    line: int | None = None
    problem: str | None = None

    @property
    def ok(self) -> bool:
        """Whether every line follows from the one before."""
        return self.line is None


class AuditLog:
    """An append-only file of what was done, shared by any number of processes.

    secrets: values that are replaced by "[redacted]" wherever they stand in an entry. Each entry
    names the digest of the one before, so that a line changed, dropped or put in is found by
    `verify`; a log cut off at its end is found by who kept the head that `append` returned.
    """

    def __init__(self, path: str | os.PathLike[str], *, secrets: Iterable[str] = ()) -> None:
        self.path = Path(path)
        self._secrets: list[str] = []
        self.hide(secrets)

    def hide(self, secrets: Iterable[str]) -> None:
        """Replace these, too, in every entry from now on."""
        more = (value for value in secrets if value)
        self._secrets = sorted({*self._secrets, *more}, key=len, reverse=True)

    def append(self, kind: str, sandbox_id: str | None = None, **fields: Any) -> str:
        """Write one entry and return its digest. ResourceExhaustedError when the disk is full,
        StateError when the file ends with what is no entry: nothing could follow from that."""
        entry = {"time": time.time(), "kind": kind, "sandbox": sandbox_id, **self._clean(fields)}
        try:
            with _locked(self.path) as file:
                entry = {"seq": 0, **entry, "previous": START}
                if (line := _last(file)) is not None:
                    last = self._follow(line)
                    entry["seq"], entry["previous"] = last["seq"] + 1, last["digest"]
                entry["digest"] = digest_of(entry)
                _write(file, json.dumps(entry, ensure_ascii=True).encode() + b"\n")
        except OSError as error:
            raise ResourceExhaustedError(
                f"the audit log {self.path} cannot be written: {error.strerror}", op="audit"
            ) from None
        return str(entry["digest"])

    def _follow(self, line: bytes) -> Mapping[str, Any]:
        """The entry in the newest line. StateError."""
        try:
            entry = json.loads(line)
            if isinstance(entry["seq"], int) and isinstance(entry["digest"], str):
                found: Mapping[str, Any] = entry
                return found
        except (ValueError, KeyError, TypeError):
            pass
        raise StateError(
            f"the audit log {self.path} ends with a line that is no entry: keep it as it is, see"
            " `ringfence audit verify`, and name another file",
            op="audit",
        )

    def _clean(self, value: Any) -> Any:
        if isinstance(value, str):
            for secret in self._secrets:
                value = value.replace(secret, REDACTED)
            return value
        if isinstance(value, Mapping):
            return {self._clean(str(key)): self._clean(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._clean(item) for item in value]
        plain = value is None or isinstance(value, bool | int | float)
        return value if plain else self._clean(str(value))


def verify(path: str | os.PathLike[str]) -> Verdict:
    """Check the whole chain of a log. OSError when it cannot be read."""
    previous, count = START, 0
    with Path(path).open("rb") as file:
        for number, line in enumerate(file, 1):
            problem, entry = _check(line, count, previous)
            if problem is not None:
                return Verdict(count, previous, number, problem)
            previous, count = entry["digest"], count + 1
    return Verdict(count, previous)


def _check(line: bytes, seq: int, previous: str) -> tuple[str | None, dict[str, Any]]:
    try:
        entry = json.loads(line)
    except ValueError:
        return "it is not JSON", {}
    if not isinstance(entry, dict):
        return "it is not an entry", {}
    if entry.get("seq") != seq:
        return f"entry {seq} is missing", {}
    if entry.get("previous") != previous:
        return "it does not follow from the line before", {}
    if entry.get("digest") != digest_of(entry):
        return "it was changed after it was written", {}
    return None, entry


def digest_of(entry: Mapping[str, Any]) -> str:
    """The OCI digest of an entry: sha256 of its JSON with sorted keys, without its own digest."""
    body = {key: value for key, value in entry.items() if key != "digest"}
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[int]:
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    file = os.open(path, flags, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file
    finally:
        os.close(file)


def _last(file: int) -> bytes | None:
    """The newest whole line; half a line that a crash left is cut off."""
    size = os.fstat(file).st_size
    end = _line_start(file, size)
    if end < size:
        os.ftruncate(file, end)
    if not end:
        return None
    start = _line_start(file, end - 1)
    return os.pread(file, end - start, start)


def _line_start(file: int, end: int) -> int:
    """Where the line begins that goes on up to `end`."""
    while end:
        start = max(0, end - _TAIL_BYTES)
        newline = os.pread(file, end - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def _write(file: int, line: bytes) -> None:
    """All of it, or an error: a disk that fills up meanwhile takes a part without a word."""
    while line:
        line = line[os.write(file, line) :]
