"""The lock file."""

import pytest

from ringfence.errors import ImageError, InvalidSpecError, PolicyDeniedError
from ringfence.images import Lock, Pin, Reference

A, B = (f"sha256:{mark * 64}" for mark in "ab")
PYTHON = Reference.parse_familiar("python:3.12")


def test_a_lock_is_written_and_read_again() -> None:
    lock = (
        Lock()
        .locked(PYTHON, Pin.parse(A))
        .locked(Reference.parse_familiar("mine"), Pin.parse(f"id:{B}"))
    )
    text = lock.render()
    assert Lock.parse(text) == lock
    assert f'"docker.io/library/python:3.12": "{A}"' in text
    assert f'"docker.io/library/mine:latest": "id:{B}"' in text
    assert text.endswith("}\n")
    assert Lock.parse(lock.render()).render() == text


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"version": 2, "images": {}}', '{"version": 1, "images": {"A": "x"}}',
     '{"version": 1, "images": {"a": "sha256:1"}}', '{"version": 1, "images": {"a": 3}}',
     "3", "null", '{"version": 1, "images": 3}', '{"version": 1, "images": [["a"]]}',
     '{"version": 1, "images": ' + "[" * 200_000],
)  # fmt: skip
def test_a_file_that_is_no_lock_is_refused(text: str) -> None:
    with pytest.raises(InvalidSpecError, match=r"^(the lock file (cannot|has version)|image: 'A')"):
        Lock.parse(text)


def test_an_image_that_is_there_twice_is_refused_unless_both_say_the_same() -> None:
    for other in ("python:3.12", "docker.io/library/python:3.12"):
        text = f'{{"version": 1, "images": {{"python:3.12": "{A}", "{other}": "%s"}}}}'
        assert Lock.parse(text % A) == Lock().locked(PYTHON, Pin.parse(A))
        with pytest.raises(InvalidSpecError, match=f"twice, as {A} and as {B}"):
            Lock.parse(text % B)


@pytest.mark.parametrize("key", ["images", "version"])
def test_a_file_that_has_a_part_twice_is_refused(key: str) -> None:
    """As after a merge: the first one was passed over, and what it pinned with it."""
    parts = {"version": "1", "images": f'{{"python:3.12": "{A}"}}'}
    again = ", ".join(f'"{name}": {parts[name]}' for name in (*parts, key))
    with pytest.raises(InvalidSpecError, match=f"cannot be read: it has {key!r} twice"):
        Lock.parse(f"{{{again}}}")


def test_a_locked_tag_is_pulled_by_its_digest() -> None:
    lock = Lock().locked(PYTHON, Pin.parse(A))
    assert str(lock.resolve(PYTHON)) == f"docker.io/library/python:3.12@{A}"
    assert lock.resolve(PYTHON.pin(A)) == PYTHON.pin(A)
    other = Reference.parse_familiar("debian")
    assert lock.resolve(other) == other
    with pytest.raises(PolicyDeniedError, match=f"locked to {A} and is {B} now"):
        lock.resolve(PYTHON.pin(B))


def test_a_changed_tag_is_an_error_that_names_both_digests() -> None:
    lock = Lock().locked(PYTHON, Pin.parse(A))
    lock.check(PYTHON, [B, A], B)
    with pytest.raises(PolicyDeniedError, match=f"locked to {A} and is {B} now") as caught:
        lock.check(PYTHON, [B], A)
    assert caught.value.context["locked"] == A
    assert caught.value.context["found"] == B
    with pytest.raises(PolicyDeniedError, match="id:"):
        lock.check(PYTHON, [], A)
    with pytest.raises(ImageError, match="not in the lock file"):
        lock.check(Reference.parse_familiar("debian"), [A], A)


def test_an_image_that_no_registry_knows_is_locked_by_its_id() -> None:
    mine = Reference.parse_familiar("mine:1")
    lock = Lock().locked(mine, Pin.parse(f"id:{A}"))
    assert lock.resolve(mine) == mine
    lock.check(mine, [], A)
    with pytest.raises(PolicyDeniedError):
        lock.check(mine, [A], B)
