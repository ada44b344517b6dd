"""References: the distribution grammar."""

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ringfence.errors import InvalidSpecError
from ringfence.images import Reference

H = "a" * 64
D = f"sha256:{H}"


@pytest.mark.parametrize(
    ("text", "domain", "path", "tag", "digest"),
    [
        ("test_com", "", "test_com", None, None),
        ("test.com:tag", "", "test.com", "tag", None),
        ("test.com:5000", "", "test.com", "5000", None),
        ("test.com/repo:tag", "test.com", "repo", "tag", None),
        ("test:5000/repo", "test:5000", "repo", None, None),
        ("test:5000/repo:tag", "test:5000", "repo", "tag", None),
        (f"test:5000/repo@{D}", "test:5000", "repo", None, D),
        (f"test:5000/repo:tag@{D}", "test:5000", "repo", "tag", D),
        ("a/a/a/a/a/a/a/a/a", "a", "a/a/a/a/a/a/a/a", None, None),
        ("sub-dom1.foo.com/bar/baz/quux", "sub-dom1.foo.com", "bar/baz/quux", None, None),
        ("sub-dom1.foo.com/bar/baz/quux:some-long-tag", "sub-dom1.foo.com", "bar/baz/quux", "some-long-tag", None),
        ("b.gcr.io/test.example.com/my-app:test.example.com", "b.gcr.io", "test.example.com/my-app", "test.example.com", None),
        ("xn--n3h.com/myimage:xn--n3h.com", "xn--n3h.com", "myimage", "xn--n3h.com", None),
        ("foo_bar.com:8080", "", "foo_bar.com", "8080", None),
        ("foo/foo_bar.com:8080", "foo", "foo_bar.com", "8080", None),
        ("192.168.1.1:5000/repo", "192.168.1.1:5000", "repo", None, None),
        ("[2001:db8::1]:5000/repo:tag", "[2001:db8::1]:5000", "repo", "tag", None),
        ("[::1]/repo", "[::1]", "repo", None, None),
        ("Uppercase.com/lower:tag", "Uppercase.com", "lower", "tag", None),
        ("a__b/c---d:T_1.2", "", "a__b/c---d", "T_1.2", None),
    ],
)  # fmt: skip
def test_a_reference_is_taken_apart_as_the_grammar_says(
    text: str, domain: str, path: str, tag: str | None, digest: str | None
) -> None:
    parsed = Reference.parse(text)
    assert (parsed.domain, parsed.path, parsed.tag, parsed.digest) == (domain, path, tag, digest)
    assert str(parsed) == text


@pytest.mark.parametrize(
    "text",
    [
        "", ":justtag", f"@{D}", "repo@sha256:ffffffffffffffffffffffffffffffffff",
        f"validname@invaliddigest:{'f' * 128}", "Uppercase:tag", "test:5000/Uppercase/lowercase:tag",
        "a//b", "a/", "/a", "-a", "a-", "a:", "a@", "a b", "a\n", "a:tag\n", f"a@{D}\n", "a...b",
        "a:" + "t" * 129, f"{'a/' * 129}a:tag", "aa/asdf$$^/aa", "[fe80::1%eth0]:5000/repo",
        "http://example.com/a", "../../etc/passwd", "a:.tag", f"a@{D.upper()}", "a" * 5000,
    ],
)  # fmt: skip
def test_what_is_outside_the_grammar_is_refused(text: str) -> None:
    for parse in (Reference.parse, Reference.parse_familiar):
        with pytest.raises(InvalidSpecError, match="is not an image's reference"):
            parse(text)


@pytest.mark.parametrize(
    ("text", "whole", "familiar"),
    [
        ("debian", "docker.io/library/debian", "debian"),
        ("debian:12", "docker.io/library/debian:12", "debian:12"),
        (f"debian@{D}", f"docker.io/library/debian@{D}", f"debian@{D}"),
        ("user/repo", "docker.io/user/repo", "user/repo"),
        ("library/debian", "docker.io/library/debian", "debian"),
        ("docker.io/debian", "docker.io/library/debian", "debian"),
        ("index.docker.io/debian:1", "docker.io/library/debian:1", "debian:1"),
        ("localhost/repo", "localhost/repo", "localhost/repo"),
        ("localhost:5000/repo:x", "localhost:5000/repo:x", "localhost:5000/repo:x"),
        ("example.com/repo", "example.com/repo", "example.com/repo"),
        ("docker.io/a/b/c", "docker.io/a/b/c", "a/b/c"),
    ],
)
def test_what_people_write_is_filled_in(text: str, whole: str, familiar: str) -> None:
    parsed = Reference.parse_familiar(text)
    assert str(parsed) == whole
    assert parsed.familiar() == familiar
    assert Reference.parse_familiar(familiar) == parsed


def test_an_id_is_not_a_name_and_capitals_are_named_as_the_fault() -> None:
    with pytest.raises(InvalidSpecError, match="id"):
        Reference.parse_familiar(H)
    with pytest.raises(InvalidSpecError, match="lower case"):
        Reference.parse_familiar("Debian:12")


def test_pinning() -> None:
    plain = Reference.parse("example.com/a:1")
    assert not plain.pinned
    assert str(plain.pin(D)) == f"example.com/a:1@{D}"
    assert plain.pin(D).pin(D).pinned
    with pytest.raises(InvalidSpecError, match="as well"):
        plain.pin(D).pin("sha256:" + "b" * 64)
    with pytest.raises(InvalidSpecError):
        plain.pin("sha256:1")
    assert str(Reference.parse("a").with_tag()) == "a:latest"
    assert str(Reference.parse(f"a@{D}").with_tag()) == f"a@{D}"


PART = st.from_regex(r"[a-z0-9]{1,5}((\.|_|__|-{1,3})[a-z0-9]{1,4}){0,2}", fullmatch=True)
DOMAIN = st.from_regex(
    r"[a-zA-Z0-9]{1,5}\.[a-zA-Z0-9]([a-z-]{0,3}[a-z0-9])?(:[0-9]{1,5})?", fullmatch=True
)
TAG = st.from_regex(r"[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,10}", fullmatch=True)
NO_DEADLINE = settings(deadline=None, suppress_health_check=list(HealthCheck))


@NO_DEADLINE
@given(DOMAIN, st.lists(PART, min_size=1, max_size=4), st.none() | TAG, st.booleans())
def test_what_is_written_is_read_again(
    domain: str, parts: list[str], tag: str | None, pinned: bool
) -> None:
    made = Reference(domain, "/".join(parts), tag)
    made = made.pin(D) if pinned else made
    assert Reference.parse(str(made)) == made
    assert Reference.parse_familiar(str(made)) == made


@NO_DEADLINE
@given(st.one_of(st.text(), st.text("aA0:/@.-_[]\n", max_size=20)))
def test_nothing_that_is_accepted_holds_more_than_the_grammar(text: str) -> None:
    try:
        parsed = Reference.parse(text)
    except InvalidSpecError:
        return
    assert str(parsed) == text
    assert re.fullmatch(r"[A-Za-z0-9:/@.\-_\[\]]+", text)
    assert "//" not in text
    assert ".." not in parsed.path
