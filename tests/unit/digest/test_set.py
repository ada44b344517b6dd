"""Digest sets: looking up by the beginning."""

import hashlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ringfence.digest import (
    Digest,
    DigestAmbiguous,
    DigestInvalidFormat,
    DigestNotFound,
    DigestSet,
)


def d256(prefix: str) -> str:
    return "sha256:" + prefix.ljust(64, "0")


def d512(prefix: str) -> str:
    return "sha512:" + prefix.ljust(128, "0")


def test_a_digest_is_found_by_its_beginning_alone() -> None:
    found = DigestSet([d256("12345"), d256("12"), d256("54")])
    assert found.lookup("54") == d256("54")
    assert found.lookup("sha256:123") == d256("12345")
    assert found.lookup(d256("12")) == d256("12")
    for text in ("12", "", "sha256:12"):
        with pytest.raises(DigestAmbiguous, match="ambiguous digest string"):
            found.lookup(text)
    for text in ("9", "sha512:54", "sha256:", "ABC", "54x"):
        with pytest.raises(DigestNotFound, match="digest not found"):
            found.lookup(text)
    with pytest.raises(DigestNotFound):
        DigestSet().lookup("")
    assert DigestSet([d256("1")]).lookup("") == d256("1")


def test_adding_and_removing_validate_and_repeat_harmlessly() -> None:
    found = DigestSet()
    for _ in range(2):
        found.add(d256("b"))
        found.add(d256("a"))
    assert list(found) == [d256("a"), d256("b")]
    assert d256("a") in found
    assert d512("a") not in found
    found.remove(d256("a"))
    found.remove(d256("a"))
    assert len(found) == 1
    with pytest.raises(DigestInvalidFormat):
        found.add("nonsense")
    with pytest.raises(DigestInvalidFormat):
        found.remove("")


def test_a_named_algorithm_is_found_behind_a_twin_of_another() -> None:
    """go-digest's set looks at the first sorted entry only and does not find these."""
    found = DigestSet([d256("1234"), d512("12345")])
    assert found.lookup("sha512:1234") == d512("12345")
    assert found.lookup("sha256:1234") == d256("1234")
    with pytest.raises(DigestAmbiguous):
        found.lookup("1234")


def test_short_codes_are_those_of_go_digest() -> None:
    names = ["1234111", "12345", "12346", "5432", "6543", "6432", "6542", "6532"]
    codes = DigestSet(map(d256, names)).short_codes(2)
    assert codes == {
        d256("1234111"): "12341",
        d256("12345"): "12345",
        d256("12346"): "12346",
        d256("5432"): "54",
        d256("6543"): "6543",
        d256("6432"): "64",
        d256("6542"): "6542",
        d256("6532"): "653",
    }


@settings(deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sets(st.tuples(st.booleans(), st.text("01", max_size=5)), max_size=12), st.integers(0, 6))
def test_every_short_code_leads_back_to_its_digest(
    wanted: set[tuple[bool, str]], length: int
) -> None:
    found = DigestSet(d512(text) if long else d256(text) for long, text in wanted)
    codes = found.short_codes(length)
    assert set(codes) == set(found)
    for digest, code in codes.items():
        assert found.lookup(code) == digest


def test_large_sets_answer_for_every_member() -> None:
    members = [
        Digest.from_raw("sha256", hashlib.sha256(bytes([n % 256, n >> 8])).digest())
        for n in range(2000)
    ]
    found = DigestSet(members)
    assert all(found.lookup(member.encoded[:20]) == member for member in members)
