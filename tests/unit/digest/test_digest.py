"""The digest type: go-digest's rules and the image specification's."""

import asyncio
import hashlib
import io
import json
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from ringfence.digest import (
    CANONICAL,
    Algorithm,
    Digest,
    DigestError,
    DigestInvalidFormat,
    DigestInvalidLength,
    DigestUnsupported,
)

H64 = hashlib.sha256(b"x").hexdigest()
H96 = hashlib.sha384(b"x").hexdigest()
H128 = hashlib.sha512(b"x").hexdigest()
FORMAT, LENGTH, UNSUPPORTED = DigestInvalidFormat, DigestInvalidLength, DigestUnsupported

VECTORS: list[tuple[str, type[DigestError] | None]] = [
    (f"sha256:{H64}", None),
    (f"sha512:{H128}", None),
    ("", FORMAT),
    ("     ", FORMAT),
    ("sha256:", FORMAT),
    (":", FORMAT),
    (f":{H64}", FORMAT),
    ("d41d8cd98f00b204e9800998ecf8427e", FORMAT),
    ("sha256:" + " " * 64, FORMAT),
    ("sha256:d41d8cd98f00b204e9800m98ecf8427e", LENGTH),
    ("sha256:abcdef0123456789", LENGTH),
    (f"sha512:{H64}", LENGTH),
    (f"sha256:{H64}0", LENGTH),
    (f"sha256:{H64}\n", LENGTH),
    (f"sha256:{H64[1:]}\n", FORMAT),
    (f"sha256:{H64[:62]}\u00e9", FORMAT),
    (f"sha256:{H64[:63]}\u00e9", LENGTH),
    (f"sha256:{H64[:63]}\uff11", LENGTH),
    (f"sha256:{H64[:61]}\uff11", FORMAT),
    (f"sha256:{H64[:63]}:", FORMAT),
    ("foo:d41d8cd98f00b204e9800998ecf8427e", UNSUPPORTED),
    ("foo:abc\n", FORMAT),
    (f"sha256:{'ABCDEF01' * 8}", FORMAT),
    (f"SHA256:{H64}", FORMAT),
    (f" sha256:{H64}", FORMAT),
    (f"sha384__foo+bar:{H96}", FORMAT),
    (f"sha384.foo+bar:{H96}", UNSUPPORTED),
    (f"sha384_foo+bar:{H96}", UNSUPPORTED),
    ("sha256+b64:LCa0a2j_xo_5m0U8HTBBNBNCLXBkg7-g-YpeiGJm564", UNSUPPORTED),
    (f"sha224:{H64}", UNSUPPORTED),
]


@pytest.mark.parametrize(("text", "error"), VECTORS)
def test_each_text_gets_exactly_the_error_that_go_digest_gives(
    text: str, error: type[DigestError] | None
) -> None:
    if error is None:
        assert Digest.parse(text) == text
        Digest(text).validate()
        return
    for check in (lambda: Digest.parse(text), lambda: Digest(text).validate()):
        with pytest.raises(DigestError) as caught:
            check()
        assert type(caught.value) is error
        assert str(caught.value) == error.text


def test_the_image_specification_lets_unknown_algorithms_pass_and_known_ones_not() -> None:
    for text in (
        "multihash+base58:QmRZxt2b1FVZPNqd8hsiykDL3TdBDeTSPX9Kv46HmX4Gx8",
        "sha256+b64u:LCa0a2j_xo_5m0U8HTBBNBNCLXBkg7-g-YpeiGJm564",
    ):
        assert Digest(text).is_wellformed()
        assert Digest.parse(text, strict=False) == text
        with pytest.raises(DigestUnsupported):
            Digest(text).verifier()
    assert not Digest("blake3:abc").is_wellformed()
    assert not Digest(f"sha256:{'ABCDEF01' * 8}").is_wellformed()
    assert not Digest("foo:").is_wellformed()
    assert not Digest("x").is_wellformed()


NAMES = st.from_regex(r"[a-z0-9]{1,6}([+._-][a-z0-9]{1,4}){0,2}", fullmatch=True)
ENCODED = st.from_regex(r"[a-zA-Z0-9=_-]{1,40}", fullmatch=True)
GRAMMAR = re.compile(r"[a-z0-9]+([+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]+")


@settings(deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(["sha256", "sha512"]), st.binary())
def test_what_is_made_can_be_parsed_and_taken_apart(algorithm: str, data: bytes) -> None:
    made = Digest.from_bytes(data, algorithm)
    assert Digest.parse(str(made)) == made
    assert made == f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"
    assert Digest.from_encoded(made.algorithm, made.encoded) == made


@settings(deadline=None, suppress_health_check=list(HealthCheck))
@given(st.one_of(st.text(), st.builds("{}:{}".format, NAMES, ENCODED), st.text("sha256:af \n")))
def test_no_text_passes_that_the_grammar_forbids(text: str) -> None:
    matches = GRAMMAR.fullmatch(text) is not None
    for strict in (True, False):
        try:
            Digest.parse(text, strict=strict)
        except DigestInvalidFormat:
            assert not matches or text.startswith(("sha256:", "sha512:", "blake3:", "sha384:"))
        except DigestError:
            pass
        else:
            assert matches


def test_parts_of_what_is_no_digest_are_refused() -> None:
    with pytest.raises(DigestInvalidFormat, match="no ':' separator in digest 'x'"):
        _ = Digest("x").algorithm
    with pytest.raises(DigestInvalidFormat):
        _ = Digest("").encoded
    assert Digest("a:b:c").encoded == "b:c"


def test_what_is_returned_is_what_was_checked_whatever_a_str_subclass_says() -> None:
    class Two(str):
        def __str__(self) -> str:
            return "evil"

    with pytest.raises(DigestInvalidFormat):
        Digest.parse(Two(Digest.from_bytes(b"x")))
    for none in (None, b"sha256:" + b"a" * 64, Path("sha256:" + "a" * 64)):
        with pytest.raises(TypeError):
            Digest.parse(none)  # type: ignore[arg-type]


def test_every_way_of_making_a_digest_agrees() -> None:
    data = "ünï".encode() * 100_000
    wanted = "sha512:" + hashlib.sha512(data).hexdigest()

    class Plain:
        def __init__(self) -> None:
            self.inner = io.BytesIO(data)

        def read(self, size: int = -1) -> bytes:
            return self.inner.read(size)

    async def pieces():  # type: ignore[no-untyped-def]
        for start in range(0, len(data), 70_000):
            yield data[start : start + 70_000]

    async def stream() -> Digest:
        reader = asyncio.StreamReader()
        reader.feed_data(data)
        reader.feed_eof()
        return await Digest.from_async_reader(reader, "sha512")

    assert Digest.from_str("ünï" * 100_000, "sha512") == wanted
    assert Digest.from_reader(io.BytesIO(data), "sha512") == wanted
    assert Digest.from_reader(Plain(), "sha512") == wanted
    assert Digest.from_hash("sha512", hashlib.sha512(data)) == wanted
    assert Digest.from_raw("sha512", hashlib.sha512(data).digest()) == wanted
    assert asyncio.run(Digest.from_async_reader(pieces(), "sha512")) == wanted
    assert asyncio.run(stream()) == wanted


def test_a_readers_error_passes() -> None:
    class Broken(io.RawIOBase):
        def readinto(self, _buffer: object) -> int:
            raise OSError(5, "broken")

    with pytest.raises(OSError, match="broken"):
        Digest.from_reader(Broken())


def test_a_field_of_a_model_validates_and_is_a_string_in_json() -> None:
    class Model(BaseModel):
        digest: Digest

    made = Model(digest=f"sha256:{H64}")  # type: ignore[arg-type]
    assert isinstance(made.digest, Digest)
    assert json.loads(made.model_dump_json()) == {"digest": f"sha256:{H64}"}
    assert Model.model_validate_json(made.model_dump_json()) == made
    schema = Model.model_json_schema()["properties"]["digest"]
    assert schema["type"] == "string"
    assert re.search(schema["pattern"], made.digest)
    assert not re.search(schema["pattern"], "nonsense")
    assert json.dumps(made.digest) == f'"sha256:{H64}"'
    for wrong in ("nonsense", "", 3, None):
        with pytest.raises(ValidationError):
            Model(digest=wrong)  # type: ignore[arg-type]


def test_algorithms_say_what_they_are() -> None:
    assert CANONICAL == "sha256"
    assert (Algorithm("sha256").size, Algorithm("sha512").size, Algorithm("x").size) == (32, 64, 0)
    assert not Algorithm("md5").available
    assert Algorithm("sha256").encode(b"\x00\xff") == "00ff"
    assert Algorithm("sha256").encode() == b"sha256"
    Algorithm("sha256").validate(H64)
    with pytest.raises(DigestInvalidLength):
        Algorithm("sha256").validate("")
    with pytest.raises(DigestUnsupported, match="md5 not available"):
        Algorithm("md5").hash()
    with pytest.raises(DigestUnsupported, match="empty digest algorithm"):
        Algorithm("").digester()
    assert Algorithm("sha512").digester().digest() == Digest.from_bytes(b"", "sha512")


def test_names_outside_the_grammar_cannot_be_registered_and_twice_changes_nothing() -> None:
    for name in ("sha256-", "-", "SHA256", "sha25*", "", "a..b", "sha256\n"):
        with pytest.raises(ValueError, match="does not fit within the allowed grammar"):
            Algorithm.register(name, new=hashlib.sha256, size=32)
    assert not Algorithm.register("sha256", new=hashlib.md5, size=16)
    assert Algorithm("sha256").size == 32
    with pytest.raises(ValueError, match="not built in"):
        Algorithm.register("unknown-one")
    assert not Algorithm("unknown-one").available


def test_registering_makes_an_algorithm_known_once_whatever_the_threads() -> None:
    script = """
import threading
from ringfence.digest import Algorithm, Digest, DigestUnsupported
H = "ab" * 48
try:
    Digest.parse("sha384:" + H)
except DigestUnsupported:
    pass
else:
    raise SystemExit("known before")
won = []
def go(): won.append(Algorithm.register("sha384"))
threads = [threading.Thread(target=go) for _ in range(8)]
[t.start() for t in threads]; [t.join() for t in threads]
assert sorted(won) == [False] * 7 + [True], won
Digest.parse("sha384:" + H)
assert Algorithm.register("sha256_384-test", new=__import__("hashlib").sha384, size=48)
Digest.parse("sha256_384-test:" + H)
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_blake3_is_there_once_registered() -> None:
    pytest.importorskip("blake3")
    script = """
from ringfence.digest import Algorithm, Digest, Digester
assert Algorithm.register("blake3") and Algorithm("blake3").available
want = "blake3:b40b44dfd97e7a84a996a91af8b85188c66c126940ba7aad2e7ae6b385402aa2"
assert Digest.from_bytes(bytes(range(5)), "blake3") == want
Digest.parse(want)
sink = Digester("blake3"); sink.write(bytes(range(3)))
state = sink.state()
import io
again = Digester.resume("blake3", state, offset=3, prefix=io.BytesIO(bytes(range(5))))
again.write(bytes([3, 4])); assert again.digest() == want
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_the_import_loads_nothing_else_of_ours_and_no_third_party() -> None:
    script = """
import sys
before = set(sys.modules)
import ringfence.digest
new = {name for name in set(sys.modules) - before}
ours = {n for n in new if n.startswith("ringfence") and not n.startswith("ringfence.digest")}
assert ours == {"ringfence"}, ours
tops = {n.partition(".")[0] for n in new} - {"ringfence"} - set(sys.stdlib_module_names)
assert not tops, tops
assert "typing" not in new, "a third of the import's time"
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_parsing_in_many_threads_while_others_register_is_safe() -> None:
    done = threading.Event()
    wrong: list[Exception] = []

    def parse() -> None:
        try:
            while not done.is_set():
                Digest.parse(f"sha256:{H64}")
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=parse) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(50):
        Algorithm.register(f"test-{number}", new=hashlib.sha256, size=32)
    done.set()
    for thread in threads:
        thread.join()
    assert not wrong
