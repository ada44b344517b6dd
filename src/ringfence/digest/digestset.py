"""A set of digests that finds them by the beginning of their encoded part."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterable, Iterator

from ringfence.digest.algorithm import Algorithm
from ringfence.digest.digest import Digest
from ringfence.digest.errors import (
    DigestAmbiguous,
    DigestInvalidFormat,
    DigestInvalidLength,
    DigestNotFound,
    DigestUnsupported,
)

_Entry = tuple[str, str]


class DigestSet:
    """Digests in the order of (encoded, algorithm). Thread-safe.

    Unlike go-digest's set, `lookup` considers every entry that begins as asked. There, with twins
    of two algorithms, "sha512:12" is not found when a sha256 digest that begins with 12 sorts
    first, and a short code may not lead back to its digest.
    """

    def __init__(self, digests: Iterable[str] = ()) -> None:
        self._entries: list[_Entry] = []
        self._changing = threading.Lock()
        for digest in digests:
            self.add(digest)

    def add(self, digest: str) -> None:
        """Add a digest, which is validated. One that is there already changes nothing."""
        entry = _entry(digest)
        with self._changing:
            place = bisect_left(self._entries, entry)
            if self._entries[place : place + 1] != [entry]:
                self._entries.insert(place, entry)

    def remove(self, digest: str) -> None:
        """Remove a digest, which is validated. One that is not there changes nothing."""
        entry = _entry(digest)
        with self._changing:
            place = bisect_left(self._entries, entry)
            if self._entries[place : place + 1] == [entry]:
                del self._entries[place]

    def lookup(self, text: str) -> Digest:
        """The one digest that `text` means: a digest, or the beginning of one's encoded part.

        `text` may name the algorithm, as in "sha256:1f". A whole digest is found even when another
        one begins with it. Raises DigestNotFound or DigestAmbiguous.
        """
        algorithm, prefix = _split(text)
        with self._changing:
            place = bisect_left(self._entries, (prefix, ""))
            found: list[_Entry] = []
            for encoded, name in self._entries[place:]:
                if not encoded.startswith(prefix):
                    break
                if algorithm in ("", name):
                    found.append((encoded, name))
                    if len(found) > 1:
                        break
        if not found:
            raise DigestNotFound
        if len(found) > 1 and found[0] != (prefix, algorithm):
            raise DigestAmbiguous
        return _digest(found[0])

    def short_codes(self, length: int = 12) -> dict[Digest, str]:
        """For each digest the shortest text, of `length` or more, that looks it up.

        Neighbours that begin alike grow alike. Where the whole encoded part does not suffice, the
        text is the digest itself.
        """
        with self._changing:
            entries = list(self._entries)
        codes: dict[Digest, str] = {}
        wanted, last = length, 0
        for index, entry in enumerate(entries):
            code, wanted, reach = _code(entries, index, wanted)
            last = max(last, reach)
            codes[_digest(entry)] = code
            if index >= last:
                wanted = length
        return codes

    def __contains__(self, digest: object) -> bool:
        if not isinstance(digest, str):
            return False
        name, _, encoded = digest.partition(":")
        with self._changing:
            place = bisect_left(self._entries, (encoded, name))
            return self._entries[place : place + 1] == [(encoded, name)]

    def __iter__(self) -> Iterator[Digest]:
        with self._changing:
            entries = list(self._entries)
        return map(_digest, entries)

    def __len__(self) -> int:
        return len(self._entries)


def _code(entries: list[_Entry], index: int, length: int) -> tuple[str, int, int]:
    """A digest's code, its length, and the last entry that began alike on the way."""
    encoded = entries[index][0]
    reach = 0
    while length < len(encoded):
        code = encoded[:length]
        alike = index
        while alike + 1 < len(entries) and entries[alike + 1][0].startswith(code):
            alike += 1
        if alike == index and not (index and entries[index - 1][0].startswith(code)):
            return code, length, reach
        reach = max(reach, alike)
        length += 1
    return str(_digest(entries[index])), length, reach


def _digest(entry: _Entry) -> Digest:
    return Digest.from_encoded(entry[1], entry[0])


def _entry(digest: str) -> _Entry:
    parsed = Digest.parse(digest)
    return parsed.encoded, str(parsed.algorithm)


def _split(text: str) -> tuple[str, str]:
    """Algorithm and prefix; what is no digest by its format is a prefix as a whole."""
    try:
        Digest.parse(text)
    except DigestInvalidFormat:
        return "", text
    except (DigestInvalidLength, DigestUnsupported):
        pass
    name, _, prefix = text.partition(":")
    return str(Algorithm(name)), prefix
