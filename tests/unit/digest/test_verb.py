"""`ringfence digest` and `ringfence store`."""

import errno
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ringfence.cli.app import run
from ringfence.digest import Descriptor, Digest
from ringfence.digest.store import Store
from ringfence.digest.store.manifest import LAYER, put_image

SUM = "sha256:" + hashlib.sha256(b"content").hexdigest()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").write_bytes(b"content")
    return tmp_path


def test_files_are_digested_and_checked_again(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = "new\nline \\ name"
    (here / odd).write_bytes(b"content")
    assert run(["digest", "a", odd]) == 0
    listing = capsys.readouterr().out
    assert listing == f"{SUM}  a\n\\{SUM}  new\\nline \\\\ name\n"
    (here / "list").write_text(listing)
    assert run(["digest", "-c", "list"]) == 0
    assert capsys.readouterr().out == "a: OK\nnew\\nline \\\\ name: OK\n"
    (here / "a").write_bytes(b"other")
    assert run(["digest", "-c", "--json", "list"]) == 1
    assert [entry["verdict"] for entry in json.loads(capsys.readouterr().out)] == ["FAILED", "OK"]
    (here / "a").unlink()
    assert run(["digest", "-c", "-q", "list"]) == 1
    assert "No such file" in capsys.readouterr().err


def test_lists_of_the_usual_tools_are_checked(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for tool in ("sha256sum", "sha384sum", "sha512sum"):
        listing = subprocess.run([tool, "a"], capture_output=True, text=True, check=True).stdout
        (here / "list").write_text(listing)
        assert run(["digest", "--check", "list"]) == 0
        assert capsys.readouterr().out == "a: OK\n"
        listing = subprocess.run([tool, "--tag", "a"], capture_output=True, text=True, check=True)
        (here / "list").write_text(listing.stdout)
        assert run(["digest", "--check", "list"]) == 0
        assert capsys.readouterr().out == "a: OK\n"


def test_what_cannot_be_checked_is_told_and_the_rest_is_checked(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = ["nonsense", f"MD5 (a) = {'0' * 32}", f"{'0' * 63}  a", f"{'0' * 64}  a\0"]
    lines = ["# a comment", "", *wrong, f"{SUM}  gone", f"{SUM}  a", f"sha256:{'0' * 64}  a"]
    (here / "list").write_text("\n".join(lines))
    assert run(["digest", "-c", "missing", "list"]) == 1
    ended = capsys.readouterr()
    assert ended.out == "gone: FAILED open or read\na: OK\na: FAILED\n"
    told = ["missing: No such", *(f"list:{n}: " for n in range(3, 7)), "gone:"]
    for said, begins in zip(ended.err.splitlines(), told, strict=True):
        assert said.startswith(f"ringfence: {begins}")
    assert run(["digest", "-c", "-q", "list"]) == 1
    assert capsys.readouterr().out == "gone: FAILED open or read\na: FAILED\n"
    (here / "list").write_text(f"nonsense\n{SUM}  a\n")
    assert run(["digest", "-c", "list"]) == 1
    capsys.readouterr()
    for nothing in ("# nothing\n", "nonsense\n"):
        (here / "list").write_text(nothing)
        assert run(["digest", "-c", "list"]) == 1
        assert "list: nothing in it was checked" in capsys.readouterr().err


def test_a_document_says_why_there_is_no_digest(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a file that cannot be read, and of a list or a line of it that names nothing to check."""
    assert run(["digest", "--json", "gone", "a"]) == 1
    assert json.loads(capsys.readouterr().out) == [
        {"file": "gone", "digest": None, "error": os.strerror(errno.ENOENT)},
        {"file": "a", "digest": SUM, "error": None},
    ]
    (here / "list").write_text(f"{SUM}  a\nnonsense\n")
    (here / "empty").write_text("# nothing\n")
    assert run(["digest", "-c", "--json", "list", "gone", "empty"]) == 1
    told = capsys.readouterr()
    assert "a: OK" not in told.err
    found = [tuple(entry.values()) for entry in json.loads(told.out)]
    assert [name for name, _, _ in found] == ["a", "list:2", "gone", "empty"]
    assert [bool(digest) for _, digest, _ in found] == [True, False, False, False]
    assert [verdict.split()[0] for _, _, verdict in found] == ["OK", "it", "No", "nothing"]


def test_only_newlines_end_the_lines_of_a_list(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = "form\x0cfeed \u2028 \x85 \x1c (a) = b"
    (here / odd).write_bytes(b"content")
    listing = subprocess.run(["sha256sum", odd], capture_output=True, check=True).stdout
    tagged = subprocess.run(["sha256sum", "--tag", odd], capture_output=True, check=True).stdout
    assert run(["digest", odd]) == 0
    for made in (listing, tagged, os.fsencode(capsys.readouterr().out)):
        (here / "list").write_bytes(made)
        assert run(["digest", "-c", "list"]) == 0
        assert capsys.readouterr().out.endswith(": OK\n")
    (here / "list").write_bytes(f"{SUM}  a\r\n".encode())
    assert run(["digest", "-c", "list"]) == 0


def test_algorithms_standard_input_and_errors(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["digest", "-a", "sha512", "--json", "a"]) == 0
    wanted = "sha512:" + hashlib.sha512(b"content").hexdigest()
    assert json.loads(capsys.readouterr().out) == [{"file": "a", "digest": wanted, "error": None}]
    assert run(["digest", "missing", "a"]) == 1
    ended = capsys.readouterr()
    assert "missing: No such file" in ended.err
    assert ended.out == f"{SUM}  a\n"
    assert run(["digest", "-a", "md5", "a"]) == 2
    assert "not available" in capsys.readouterr().err
    piped = subprocess.run(
        [sys.executable, "-c", "from ringfence.cli import main; main()", "digest"],
        input=b"content", capture_output=True, check=True, env=os.environ, timeout=60,
    )  # fmt: skip
    assert piped.stdout.decode() == f"{SUM}  -\n"


def test_the_store_is_listed_verified_and_collected(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(here / "store")
    digest = store.put(b"content", labels={"a": "b"})
    with store.ingest("begun") as ingest:
        ingest.write(b"xyz")
    root = ["--root", str(store.root)]
    assert run(["store", "ls", *root]) == 0
    listed = capsys.readouterr().out
    assert digest in listed
    assert "a=b" in listed
    assert "ingest begun: 3B" in listed
    assert run(["store", "ls", "--json", *root]) == 0
    assert json.loads(capsys.readouterr().out)["blobs"][0]["digest"] == SUM
    assert run(["store", "verify", *root]) == 0
    assert run(["store", "gc", *root]) == 0
    assert digest in store
    capsys.readouterr()
    path = store.blob_path(digest)
    path.chmod(0o600)
    path.write_bytes(b"damaged")
    assert run(["store", "verify", *root]) == 1
    assert f"the content is {Digest.from_bytes(b'damaged')}" in capsys.readouterr().out
    assert run(["store", "gc", "--grace", "0", *root]) == 0
    assert capsys.readouterr().out == f"{digest}\n"
    assert list(store.walk()) == []
    (here / "other").mkdir()
    (here / "other" / "x").touch()
    assert run(["store", "ls", "--root", str(here / "other")]) == 125
    assert "is no OCI layout" in capsys.readouterr().err


def test_an_image_is_removed_with_what_only_it_needed(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(here / "store")
    shared = Descriptor(LAYER, store.put(b"shared"), 6)
    for name in ("one", "two"):
        own = Descriptor(LAYER, store.put(name.encode()), 3)
        store.tag(name, put_image(store, {"os": name}, [shared, own]))
    unnamed = put_image(store, {"os": "three"}, [shared])
    assert len(store.discard(unnamed.digest).removed) == 2
    assert store.discard(store.tags()["one"].digest).removed == ()
    root = ["--root", str(store.root)]
    assert run(["store", "gc", "--grace", "0", *root]) == 0
    assert len(list(store.walk())) == 7
    assert run(["store", "rm", "one", *root]) == 0
    assert len(list(store.walk())) == 4
    assert shared.digest in store
    assert run(["store", "rm", "one", *root]) == 125
    assert "one" in capsys.readouterr().err
    assert run(["store", "rm", str(store.tags()["two"].digest), *root]) == 0
    assert list(store.walk()) == []
