"""A repository from a URL or at a ref, cloned by a git that nothing of ours can talk into anything."""

import http.server
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ringfence.errors import InvalidSpecError, NotFoundError, SandboxError, StateError
from ringfence.spec import Repository
from ringfence.workspace import Prepared, apply, clean, plan, prepare
from tests.unit.workspace.conftest import GIT, digest_of_tree, git, inside
from tests.unit.workspace.conftest import repository as repository  # noqa: PLC0414 - a fixture

Clone = Callable[..., Prepared]


class _Handler(http.server.BaseHTTPRequestHandler):
    """Passes requests to git's own CGI program."""

    root: Path

    def do_GET(self) -> None:
        self._run(b"")

    def do_POST(self) -> None:
        self._run(self.rfile.read(int(self.headers.get("Content-Length", "0"))))

    def _run(self, body: bytes) -> None:
        path, _, query = self.path.partition("?")
        env = {
            **GIT,
            "GIT_PROJECT_ROOT": str(self.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
        }
        done = subprocess.run(
            ["git", "http-backend"], env=env, input=body, capture_output=True, check=False
        )
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if line)
        self.send_response(int(fields.pop("Status", "200").split()[0]))
        for name, value in fields.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def served(repository: Path) -> Iterator[str]:
    """The address of the repository on a server of ours on the loopback."""
    handler = type("Handler", (_Handler,), {"root": repository.parent})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/{repository.name}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def clone(tmp_path: Path) -> Iterator[Clone]:
    made: list[Path] = []

    def prepared(path: str, **fields: object) -> Prepared:
        made.append(tmp_path / "state" / f"clone-{len(made)}")
        return prepare(
            Repository(path=path, **fields), directory=made[-1], uid=os.geteuid(),
            gid=os.getegid(), privileged=False, strategy="copy",
        )  # fmt: skip

    yield prepared
    for directory in made:
        clean(directory)


@pytest.fixture
def grown(repository: Path) -> Path:
    """The repository with a second commit, a branch, a tag and a file that is not committed."""
    git(repository, "tag", "v1")
    git(repository, "checkout", "-q", "-b", "side")
    (repository / "README.md").write_text("On the side.\n")
    git(repository, "commit", "-q", "-a", "-m", "side")
    git(repository, "checkout", "-q", "main")
    (repository / "second").write_text("second\n")
    git(repository, "add", "second")
    git(repository, "commit", "-q", "-m", "second")
    (repository / "dirty").write_text("not committed\n")
    return repository


def test_a_url_over_http_with_depth_ref_and_subpath(grown: Path, served: str, clone: Clone) -> None:
    before = digest_of_tree(grown)
    whole = clone(served)
    assert git(inside(whole), "log", "--format=%s").split() == ["second", "first"]
    assert git(inside(whole), "symbolic-ref", "HEAD").strip() == "refs/heads/main"
    assert git(inside(whole), "status", "--porcelain").strip() == ""
    assert not (inside(whole) / "dirty").exists()
    assert git(inside(clone(served, depth=1)), "log", "--format=%s").split() == ["second"]
    side = inside(clone(served, ref="side"))
    assert (side / "README.md").read_text() == "On the side.\n"
    assert not (inside(clone(served, ref="v1")) / "second").exists()
    first = git(grown, "rev-parse", "v1").strip()
    assert not (inside(clone(served, ref=first)) / "second").exists()
    part = inside(clone(served, subpath="src"))
    assert {path.name for path in part.iterdir()} == {".git", "src"}
    assert git(part, "status", "--porcelain").strip() == ""
    assert digest_of_tree(grown) == before
    (inside(whole) / "x").touch()
    with pytest.raises(StateError, match="cloned"):
        apply(whole)


def test_a_local_repository_at_a_ref(grown: Path, clone: Clone) -> None:
    before = digest_of_tree(grown)
    prepared = clone(str(grown), ref="side")
    assert (inside(prepared) / "README.md").read_text() == "On the side.\n"
    assert not (inside(prepared) / "dirty").exists()
    assert digest_of_tree(grown) == before


@pytest.mark.parametrize("ref", ["nope", "0" * 40, "deadbeef"])
def test_a_ref_that_is_not_there_is_not_found(ref: str, grown: Path, clone: Clone) -> None:
    """By class, not by what git says: a harness tells a wrong commit from a broken repository."""
    with pytest.raises(NotFoundError, match=f"{ref} is no branch, tag or commit"):
        clone(str(grown), ref=ref)


@pytest.mark.parametrize("kind", ["HEAD^{tree}", "HEAD:README.md"])
def test_a_tag_of_what_is_no_commit_is_told_so(kind: str, grown: Path, clone: Clone) -> None:
    git(grown, "tag", "odd", kind)
    with pytest.raises(NotFoundError, match="odd is a tree or a file"):
        clone(str(grown), ref="odd")


def test_submodules_by_choice(grown: Path, clone: Clone, tmp_path: Path) -> None:
    outer = tmp_path / "outer"
    outer.mkdir()
    git(outer, "init", "-q", "-b", "main")
    git(outer, "-c", "protocol.file.allow=always", "submodule", "add", "-q",
        grown.as_uri(), "inner")  # fmt: skip
    git(outer, "commit", "-q", "-m", "outer")
    assert not list((inside(clone(outer.as_uri())) / "inner").iterdir())
    with_inner = inside(clone(outer.as_uri(), submodules=True))
    assert (with_inner / "inner/second").read_text() == "second\n"


def test_a_submodule_of_a_url_comes_over_the_protocol_that_was_named_alone(
    grown: Path, served: str, clone: Clone, tmp_path: Path
) -> None:
    """Where .gitmodules says a file of this host, it is not read."""
    git(tmp_path, "clone", "-q", str(grown), "victim")
    git(grown, "submodule", "add", "-q", served, "inner")
    git(grown, "commit", "-q", "-m", "inner")
    work = inside(clone(served, submodules=True))
    assert (work / "inner/second").read_text() == "second\n"
    git(grown, "config", "-f", ".gitmodules", "submodule.inner.url", (tmp_path / "victim").as_uri())
    git(grown, "commit", "-q", "-a", "-m", "evil")
    with pytest.raises(StateError, match="transport 'file' not allowed"):
        clone(served, submodules=True)


def test_the_clone_listens_to_no_configuration_hook_or_protocol(
    grown: Path, clone: Clone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "ran"
    home = tmp_path / "home"
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    home.mkdir()
    (hooks / "post-checkout").write_text(f"#!/bin/sh\ntouch {mark}\n")
    (hooks / "post-checkout").chmod(0o755)
    (home / ".gitconfig").write_text(
        f'[core]\n\thooksPath = {hooks}\n[filter "x"]\n\tsmudge = touch {mark}; cat\n'
        f"[init]\n\ttemplateDir = {hooks}\n"
    )
    (grown / ".gitattributes").write_text("* filter=x\n")
    git(grown, "add", ".gitattributes")
    git(grown, "commit", "-q", "-m", "attributes")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))
    assert (inside(clone(grown.as_uri())) / ".gitattributes").exists()
    assert not mark.exists()
    for url in ("ext::sh -c touch% ran", "http://127.0.0.1:1/none"):
        with pytest.raises(SandboxError):
            clone(url)
    assert not mark.exists()


def test_a_clone_cannot_be_written_through(grown: Path, served: str, clone: Clone) -> None:
    with pytest.raises(InvalidSpecError, match="copy"):
        clone(served, mode="rw")
    with pytest.raises(InvalidSpecError, match="mode rw has no ref"):
        clone(str(grown), mode="rw", ref="side")


def test_a_plan_of_a_url_leaves_nothing(served: str, tmp_path: Path) -> None:
    found = plan(Repository(path=served))
    assert {entry.path for entry in found.selection.entries} >= {"README.md", "src/code.py"}
    assert not found.source.root.exists()
