"""Sinks: verifying, suspending, resuming; readers that raise."""

import asyncio
import ctypes
import hashlib
import io
import os
import pickle
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ringfence.digest import (
    AsyncVerifyingReader,
    Descriptor,
    Digest,
    Digester,
    DigestError,
    DigestMismatch,
    DigestUnsupported,
    SizeMismatch,
    StateInvalid,
    StateUnusable,
    TrailingData,
    Unverified,
    VerifyingReader,
    digest_file,
    digest_mapped,
    files,
    gostate,
    libcrypto,
    suspension,
)
from ringfence.digest.streams import pour

DATA = bytes(range(256)) * 1000
# FIPS 180-4's examples, and the million times "a".
NIST = [
    (b"abc", "sha256", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
    (
        b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
        "sha256",
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
    ),
    (
        b"a" * 1_000_000,
        "sha256",
        "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0",
    ),
    (
        b"abc",
        "sha512",
        "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
    ),
]


@pytest.fixture(params=["libcrypto", "rehash"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each way to suspend, forced."""
    if request.param == "libcrypto" and "sha256" not in libcrypto.USABLE:
        pytest.skip("this interpreter has no shared libcrypto")
    monkeypatch.setattr(suspension, "backend_of", lambda algorithm: request.param)
    return str(request.param)


@pytest.mark.parametrize(("data", "algorithm", "wanted"), NIST)
def test_the_published_examples_come_out(
    data: bytes, algorithm: str, wanted: str, backend: str
) -> None:
    sink = Digester(algorithm)
    sink.write(data)
    assert sink.digest() == f"{algorithm}:{wanted}"


@settings(deadline=None, suppress_health_check=list(HealthCheck), max_examples=60)
@given(
    st.sampled_from(["sha256", "sha512"]),
    st.binary(max_size=700),
    st.binary(max_size=700),
    st.sampled_from([bytes, bytearray, memoryview]),
)
def test_suspending_anywhere_changes_nothing(
    algorithm: str, head: bytes, tail: bytes, kind: type
) -> None:
    sink = Digester(algorithm)
    sink.write(kind(head))
    state = sink.state()
    again = Digester.resume(algorithm, state, offset=len(head), prefix=io.BytesIO(head))
    assert again.state() == state
    for one in (sink, again, sink.copy()):
        one.update(kind(tail))
        assert one.digest() == f"{algorithm}:{hashlib.new(algorithm, head + tail).hexdigest()}"
        assert one.written == len(head) + len(tail)


def test_buffers_of_every_kind_are_hashed_alike(backend: str) -> None:
    wide = memoryview(bytearray(DATA)).cast("I")
    for buffer in (DATA, bytearray(DATA), memoryview(DATA), memoryview(bytearray(DATA)), wide):
        sink = Digester()
        assert sink.write(buffer) == len(DATA)
        assert sink.digest() == Digest.from_bytes(DATA)
    for empty in (b"", bytearray(), memoryview(b"")):
        sink = Digester()
        sink.write(empty)
        assert sink.digest() == Digest.from_bytes(b"")
    for whole in (ctypes.c_int(7), (ctypes.c_int * 3)(1, 2, 3)):
        sink = Digester()
        assert sink.write(whole) == ctypes.sizeof(whole)
        assert sink.digest() == Digest.from_bytes(bytes(whole))


@pytest.mark.skipif("sha256" not in libcrypto.USABLE, reason="no shared libcrypto")
@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
def test_a_state_is_laid_out_as_gos(algorithm: str) -> None:
    hasher = libcrypto.Hasher(algorithm)
    layout = gostate.LAYOUTS[algorithm]
    initial = gostate.pack(algorithm, hasher.progress())
    assert len(initial) == layout.whole.size == {"sha256": 108}.get(algorithm, 204)
    content = bytes(range(1, layout.block + 6))
    hasher.update(content)
    state = gostate.pack(algorithm, hasher.progress())
    assert state[:4] == layout.magic
    assert state[-8:] == struct.pack(">Q", len(content))
    block = state[-8 - layout.block : -8]
    assert block == content[-5:] + bytes(layout.block - 5)


def test_the_state_of_the_empty_sha256_is_the_standards_first_values() -> None:
    if Digester().backend == "rehash":
        pytest.skip("this interpreter has no shared libcrypto and no rehashes")
    words = (
        0x6A09E667,
        0xBB67AE85,
        0x3C6EF372,
        0xA54FF53A,
        0x510E527F,
        0x9B05688C,
        0x1F83D9AB,
        0x5BE0CD19,
    )
    assert Digester().state() == b"sha\x03" + struct.pack(">8I", *words) + bytes(72)


def _good(algorithm: str, content: bytes) -> bytes:
    hasher = libcrypto.Hasher(algorithm)
    hasher.update(content)
    return gostate.pack(algorithm, hasher.progress())


@pytest.mark.skipif("sha256" not in libcrypto.USABLE, reason="no shared libcrypto")
def test_a_state_that_is_wrong_in_any_way_is_refused() -> None:
    good = _good("sha256", b"x" * 70)
    tail = bytearray(good)
    tail[-9] = 1
    huge = good[:-8] + struct.pack(">Q", 1 << 61)
    cases = [
        (b"", None, "identifier"),
        (b"sha\x07" + good[4:], None, "identifier"),
        (good + b"\0", None, "size"),
        (good[:-1], None, "size"),
        (bytes(tail), None, "after the pending"),
        (huge, None, "length"),
        (good, 69, "offset 70, not of 69"),
        (b"ringfence rehash\0" + bytes(7), None, "state"),
    ]
    for state, offset, words in cases:
        with pytest.raises(StateInvalid, match=words):
            Digester.resume("sha256", state, offset=offset)
    accepted = Digester.resume("sha256", bytes(tail), offset=70, any_tail=True)
    assert accepted.digest() == Digest.from_bytes(b"x" * 70)
    with pytest.raises(StateInvalid):
        Digester.resume("sha512", good)
    with pytest.raises(DigestUnsupported):
        Digester.resume("md5", good)


def test_without_a_suspending_backend_the_prefix_is_hashed_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gos = Digester()
    gos.write(DATA[:1000])
    states = [gos.state()]
    monkeypatch.setattr(suspension, "backend_of", lambda algorithm: "rehash")
    own = Digester()
    own.write(DATA[:1000])
    states.append(own.state())
    for state in states:
        with pytest.raises(StateUnusable):
            Digester.resume("sha256", state, offset=1000)
        with pytest.raises(StateInvalid, match="prefix ends"):
            Digester.resume("sha256", state, prefix=io.BytesIO(DATA[:999]))
        again = Digester.resume("sha256", state, prefix=io.BytesIO(DATA))
        again.write(DATA[1000:])
        assert again.digest() == Digest.from_bytes(DATA)


def test_an_interpreter_without_libcrypto_uses_what_it_has() -> None:
    script = """
import ctypes
real = ctypes.CDLL
def deny(name, *rest, **more):
    if name and "crypto" in str(name):
        raise OSError(name)
    return real(name, *rest, **more)
ctypes.CDLL = deny
from ringfence.digest import Digester
sink = Digester(); sink.write(b"abc")
assert sink.backend in ("rehashes", "rehash"), sink.backend
assert sink.digest().startswith("sha256:ba7816bf")
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_states_interchange_with_the_package_rehashes() -> None:
    pytest.importorskip("rehashes", reason="rehashes is not installed")
    from ringfence.digest import rehashing

    assert frozenset({"sha256", "sha512"}) == rehashing.USABLE
    for algorithm in sorted(rehashing.USABLE):
        for length in (0, 1, 63, 64, 65, 127, 128, 129, 1000):
            hasher = rehashing.Hasher(algorithm)
            hasher.update(DATA[:length])
            assert gostate.pack(algorithm, hasher.progress()) == _good(algorithm, DATA[:length])


GO = """package main
import ("crypto/sha256";"crypto/sha512";"encoding";"fmt";"hash";"os";"io")
func main() {
  var h hash.Hash = sha256.New()
  if os.Args[1] == "sha512" { h = sha512.New() }
  if os.Args[2] == "out" {
    io.Copy(h, os.Stdin)
    b, _ := h.(encoding.BinaryMarshaler).MarshalBinary()
    os.Stdout.Write(b)
  } else {
    b, _ := os.ReadFile(os.Args[3])
    if err := h.(encoding.BinaryUnmarshaler).UnmarshalBinary(b); err != nil { panic(err) }
    io.Copy(h, os.Stdin)
    fmt.Printf("%x", h.Sum(nil))
  }
}
"""


@pytest.mark.skipif(shutil.which("go") is None, reason="Go is not installed")
@pytest.mark.skipif("sha256" not in libcrypto.USABLE, reason="no shared libcrypto")
def test_states_interchange_with_go(tmp_path: Path) -> None:
    (tmp_path / "main.go").write_text(GO)
    binary = tmp_path / "states"
    subprocess.run(["go", "build", "-o", binary, tmp_path / "main.go"], check=True, timeout=120)
    for algorithm in ("sha256", "sha512"):
        for length in (0, 1, 64, 127, 128, 1000):
            head, tail = DATA[:length], DATA[length : length + 77]
            theirs = subprocess.run(
                [binary, algorithm, "out"], input=head, capture_output=True, check=True, timeout=60
            ).stdout
            assert theirs == _good(algorithm, head)
            (tmp_path / "state").write_bytes(_good(algorithm, head))
            total = subprocess.run(
                [binary, algorithm, "in", tmp_path / "state"],
                input=tail,
                capture_output=True,
                check=True,
                timeout=60,
            ).stdout.decode()
            assert total == hashlib.new(algorithm, head + tail).hexdigest()


def test_a_digester_is_not_pickled_and_a_copy_is_independent(backend: str) -> None:
    sink = Digester()
    with pytest.raises(TypeError, match="state"):
        pickle.dumps(sink)
    sink.write(b"a")
    other = sink.copy()
    other.write(b"b")
    assert sink.digest() == Digest.from_bytes(b"a")
    assert other.digest() == Digest.from_bytes(b"ab")
    assert sink.digest() == sink.digest()


def test_a_verifier_says_at_any_time_whether_the_bytes_are_right() -> None:
    verifier = Digest.from_bytes(DATA).verifier()
    assert not verifier.verified()
    verifier.write(DATA[:-1])
    other = verifier.copy()
    assert not verifier.verified()
    verifier.update(DATA[-1:])
    assert verifier.verified()
    verifier.write(b"x")
    assert not verifier.verified()
    assert not other.verified()
    assert not Digest("sha256:xyz").verifier().verified()
    with pytest.raises(DigestMismatch), Digest.from_bytes(DATA).verifier() as sink:
        sink.write(b"other")
    with Digest.from_bytes(DATA).verifier() as sink:
        assert sink.read_from(io.BytesIO(DATA)) == len(DATA)
    for text, words in (
        (":", "empty digest algorithm"),
        ("bean:0123456789abcdef", "bean not available"),
        ("sha256-garbage:pure", "sha256-garbage not available"),
    ):
        with pytest.raises(DigestUnsupported, match=words):
            Digest(text).verifier()


def test_a_verifying_reader_hands_out_the_last_bytes_only_when_all_is_right() -> None:
    good = Digest.from_bytes(DATA)
    for size in (len(DATA), None):
        with VerifyingReader(io.BytesIO(DATA), good, size) as reader:
            assert reader.read() == DATA
            assert reader.verified
            assert reader.read(10) == b""
    with io.BufferedReader(VerifyingReader(io.BytesIO(DATA), good, len(DATA))) as buffered:
        assert buffered.read(10) + buffered.read() == DATA
    empty = VerifyingReader(io.BytesIO(b""), Digest.from_bytes(b""), 0)
    assert empty.read() == b""
    assert empty.verified


WRONG = [
    (DATA + b"x", len(DATA), TrailingData),
    (DATA[:-1], len(DATA), SizeMismatch),
    (DATA[:-1] + b"!", len(DATA), DigestMismatch),
    (DATA[:-1] + b"!", None, DigestMismatch),
    (b"x", 0, TrailingData),
]


@pytest.mark.parametrize(("content", "size", "error"), WRONG)
def test_a_verifying_reader_raises_and_stays_failed(
    content: bytes, size: int | None, error: type[Exception]
) -> None:
    got = 0
    reader = VerifyingReader(io.BytesIO(content), Digest.from_bytes(DATA), size)

    def drain() -> None:
        nonlocal got
        while part := reader.read(1000):
            got += len(part)

    with pytest.raises(error):
        drain()
    assert size is None or got < max(1, size)
    with pytest.raises(error):
        reader.read(1)
    with pytest.raises(error):
        reader.verify()

    async def go() -> None:
        source = asyncio.StreamReader()
        source.feed_data(content)
        source.feed_eof()
        async with AsyncVerifyingReader(source, Digest.from_bytes(DATA), size) as stream:
            await stream.read()

    with pytest.raises(error):
        asyncio.run(go())


class Stumbling(io.BytesIO):
    """Its second read has nothing now; the asynchronous one is cancelled in it."""

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        return None if self.reads == 2 else super().read(size)  # type: ignore[return-value]


def test_after_a_read_that_failed_at_the_end_nothing_is_taken_for_the_verified_end() -> None:
    reader = VerifyingReader(Stumbling(DATA), Digest.from_bytes(DATA), len(DATA))
    with pytest.raises(BlockingIOError):
        reader.read(len(DATA))
    with pytest.raises(Unverified, match="a read of its source failed"):
        reader.read(1)
    assert not reader.verified


async def test_after_a_cancelled_read_nothing_is_taken_for_the_verified_end() -> None:
    class Source(Stumbling):
        async def read(self, size: int = -1, /) -> bytes:  # type: ignore[override]
            data = super().read(size)
            if data is None:
                raise asyncio.CancelledError
            return data

    reader = AsyncVerifyingReader(Source(DATA), Digest.from_bytes(DATA), len(DATA))
    with pytest.raises(asyncio.CancelledError):
        await reader.read(len(DATA))
    with pytest.raises(Unverified):
        await reader.read(1)
    assert not reader.verified


async def test_a_source_that_gives_more_than_was_asked_for_is_refused_before_it_is_handed_out() -> (
    None
):
    class Generous(io.BytesIO):
        def read(self, _size: int | None = -1, /) -> bytes:
            return super().read()

    class Later(Generous):
        async def read(self, _size: int = -1, /) -> bytes:  # type: ignore[override]
            return super().read()

    good = Digest.from_bytes(DATA[:10])
    with pytest.raises(TrailingData):
        VerifyingReader(Generous(DATA), good, 10).read()
    with pytest.raises(TrailingData):
        await AsyncVerifyingReader(Later(DATA), good, 10).read(10)


def test_leaving_a_verifying_reader_early_is_an_error() -> None:
    with (
        pytest.raises(Unverified),
        VerifyingReader(io.BytesIO(DATA), Digest.from_bytes(DATA), len(DATA)) as reader,
    ):
        reader.read(10)
    with pytest.raises(SizeMismatch):
        VerifyingReader(io.BytesIO(DATA), Digest.from_bytes(DATA), -1)


class OnlyReads:
    """A source that fills nobody's buffer."""

    read: Callable[[int], bytes]

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)
        self.read = self._data.read
        self.tell = self._data.tell


class Dribbles(io.BytesIO):
    """One that gives little at a time, as a pipe does."""

    def readinto(self, buffer: Any) -> int:
        return super().readinto(memoryview(buffer)[:999])


class DribblesOnly(OnlyReads):
    """The same of the other."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.read = lambda size: self._data.read(min(size, 999))


@pytest.mark.parametrize("source", [io.BytesIO, OnlyReads, Dribbles, DribblesOnly])
def test_a_stream_is_read_to_its_end_or_to_a_limit_and_no_further(
    source: Callable[[bytes], Any],
) -> None:
    for limit, wanted in ((-1, DATA), (len(DATA) + 1, DATA), (100_001, DATA[:100_001]), (0, b"")):
        stream, found = source(DATA), bytearray()
        assert pour(stream, found.extend, limit) == len(wanted)
        assert found == wanted
        assert stream.tell() == len(wanted)


async def test_to_read_nothing_takes_nothing() -> None:
    source = asyncio.StreamReader()
    source.feed_data(DATA)
    source.feed_eof()
    for stream in (
        AsyncVerifyingReader(source, Digest.from_bytes(DATA)),
        AsyncVerifyingReader(source, Digest.from_bytes(DATA), len(DATA)),
    ):
        assert await stream.read(0) == b""
    assert await source.read() == DATA


async def test_asynchronous_streams_are_verified_too() -> None:
    source = asyncio.StreamReader()
    source.feed_data(DATA)
    source.feed_eof()
    async with AsyncVerifyingReader(source, Digest.from_bytes(DATA), len(DATA)) as stream:
        parts = [part async for part in stream]
    assert b"".join(parts) == DATA
    assert stream.verified
    sink = Digester()
    again = asyncio.StreamReader()
    again.feed_data(DATA)
    again.feed_eof()
    assert await sink.read_from_async(again) == len(DATA)
    assert sink.digest() == Digest.from_bytes(DATA)


def test_a_file_is_read_or_mapped_to_the_same_digest(tmp_path: Path) -> None:
    for size in (0, 1, 256 * 1024, 300_001):
        path = tmp_path / str(size)
        path.write_bytes(bytes(size))
        seen: list[int] = []
        for function in (digest_file, digest_mapped):
            assert function(path) == Digest.from_bytes(bytes(size))
            assert function(path, "sha512", progress=seen.append) == Digest.from_bytes(
                bytes(size), "sha512"
            )
        assert sum(seen) == 2 * size


SHORTENED = """
import mmap, os, sys
from ringfence.digest import digest_mapped, files

ticks = iter((0, 1, 1, int(sys.argv[2])))
files.time.thread_time = lambda: next(ticks)
real = mmap.mmap

def shortened(*args, **options):
    made = real(*args, **options)
    os.truncate(sys.argv[1], 4096)
    return made

mmap.mmap = shortened
files._LONG = files._TRIED = 64 * 1024
try:
    digest_mapped(sys.argv[1])
except OSError as error:
    print(type(error).__name__)
"""


@pytest.mark.parametrize("tick", [1, 9], ids=["a mapping is cheaper", "a copy is cheaper"])
def test_a_page_that_cannot_be_read_is_an_error_and_ends_no_process(
    tmp_path: Path, tick: int
) -> None:
    """As on a disk that fails: of a mapping the kernel says so with SIGBUS."""
    path = tmp_path / "long"
    path.write_bytes(bytes(1_000_000))
    ended = subprocess.run(
        [sys.executable, "-c", SHORTENED, path, str(tick)],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("clock", [(0, 1, 1, 3), (0, 3, 3, 4)])
def test_a_long_file_is_tried_both_ways_and_goes_the_cheaper(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: tuple[int, ...]
) -> None:
    for name, size in (("_TRIED", 64 * 1024), ("_LONG", 512 * 1024), ("_WINDOW", 128 * 1024)):
        monkeypatch.setattr(files, name, size)
    ticks = iter(clock)
    monkeypatch.setattr(files.time, "thread_time", lambda: next(ticks))
    path = tmp_path / "long"
    content = os.urandom(700_001)
    path.write_bytes(content)
    steps: list[int] = []
    assert digest_mapped(path, progress=steps.append) == Digest.from_bytes(content)
    assert sum(steps) == len(content)
    mapped = clock[1] - clock[0] > clock[3] - clock[2]
    assert (128 * 1024 in steps) == mapped


def test_a_descriptor_is_checked_size_first() -> None:
    good = Descriptor("text/plain", Digest.from_bytes(b"abc"), 3)
    noted = Descriptor("text/plain", Digest.from_bytes(b""), 0, {"a": "b"})
    for one in (good, noted):
        assert Descriptor.from_dict(one.to_dict()) == one
    good.verify(b"abc")
    with pytest.raises(SizeMismatch):
        good.verify(b"abcd")
    with pytest.raises(DigestMismatch):
        good.verify(b"abd")
    for change in ({"size": -1}, {"size": True}, {"size": "3"}, {"data": "YWJk"}, {"data": "!"},
                   {"digest": "sha256:1"}, {"digest": 3}, {"annotations": 3}):  # fmt: skip
        with pytest.raises(DigestError):
            Descriptor.from_dict({**good.to_dict(), **change})
    with pytest.raises(DigestError):
        Descriptor.from_dict({})
    assert Descriptor.from_dict({**good.to_dict(), "data": "YWJj"}) == good
