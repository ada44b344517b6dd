"""Repositories on the command line: plan, run, diff, apply."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import process_options, require_docker
from tests.images import DEBIAN
from tests.integration.workspace.conftest import BACKENDS, opened_on
from tests.unit.workspace.conftest import digest_of_tree, git
from tests.unit.workspace.test_patch import apply_with_git

RINGFENCE = str(Path(sys.executable).with_name("ringfence"))


def ringfence(*args: str | Path, code: int = 0, umask: int = 0o022) -> bytes:
    done = subprocess.run(
        [RINGFENCE, *map(str, args)], capture_output=True, check=False, timeout=120,
        stdin=subprocess.DEVNULL, umask=umask,
    )  # fmt: skip
    assert done.returncode == code, done.stderr.decode()
    return done.stdout + done.stderr


def test_plan_says_what_would_be_visible(repository: Path) -> None:
    said = ringfence("repo", "plan", repository, "--exclude", "src/").decode()
    assert ".env" in said
    assert "usually holds secrets" in said
    assert "3 files are visible" in said
    data = json.loads(ringfence("repo", "plan", repository, "--json", "--include", "*.py"))
    assert data["visible"] == ["src/code.py"]
    assert data["hidden"]["README.md"] == "not included"
    assert data["history"] == "head"
    ringfence("repo", "plan", repository / "missing", code=125)


@pytest.mark.docker
def test_run_writes_a_patch_or_applies_it(
    repository: Path, state_directory: Path, tmp_path: Path
) -> None:
    require_docker(DEBIAN)
    where = ("--image", DEBIAN, "--repo", repository)
    patch = tmp_path / "out.patch"
    line = "echo more >> README.md && cat .env"
    said = ringfence("run", *where, "--patch", patch, "--", "sh", "-c", line, code=1).decode()
    assert "1 file changed, 1 insertion(+)" in said
    assert "hunter2" not in said
    assert (repository / "README.md").read_text() == "A project.\n"
    apply_with_git(patch.read_bytes(), repository)
    assert (repository / "README.md").read_text() == "A project.\nmore\n"
    git(repository, "add", "-f", ".env")
    git(repository, "commit", "-q", "-m", "oops")
    said = ringfence("run", *where, "--apply", "--", "sh", "-c", "echo even >> README.md").decode()
    assert "hidden files are in git's history" in said
    assert (repository / "README.md").read_text() == "A project.\nmore\neven\n"


def test_a_patch_that_cannot_be_written_is_told_before_anything_runs(
    repository: Path, state_directory: Path, tmp_path: Path
) -> None:
    for place in (tmp_path / "missing/out.patch", tmp_path):
        said = ringfence("run", "--backend", "process", "--repo", repository, "--patch", place,
                         "--", "touch", "made", code=2)  # fmt: skip
        assert b"cannot be written" in said


def test_a_patch_that_does_not_fit_names_its_file(repository: Path, state_directory: Path) -> None:
    said = ringfence("run", *process_options(), "--repo", repository, "--patch", "/dev/full", "--",
                     "touch", "made", code=125)  # fmt: skip
    assert b"--patch: /dev/full: No space left" in said


def test_changes_that_cannot_be_applied_are_kept_as_a_patch(
    repository: Path, state_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sandbox is gone then, and what the command did with it."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    before = digest_of_tree(repository)
    said = ringfence("run", *process_options(), "--repo", repository, "--apply", "--", "sh", "-c",
                     "echo more >> README.md; echo mine > .env", code=125)  # fmt: skip
    [kept] = tmp_path.glob("ringfence-*.patch")
    assert str(kept).encode() in said
    assert b"+more" in kept.read_bytes()
    assert digest_of_tree(repository) == before


def test_a_result_is_told_also_where_its_changes_cannot_be_applied(
    repository: Path, state_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one document with the error and the patch: the sandbox is gone."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    said = ringfence("run", *process_options(), "--repo", repository, "--apply", "--json", "--", "sh",
                     "-c", "echo done; echo more >> README.md; echo mine > .env", code=125)  # fmt: skip
    document = json.loads(next(line for line in said.splitlines() if line.startswith(b"{")))
    assert document["result"]["stdout"] == "done\n"
    assert "+more" in document["patch"]
    assert not document["applied"]
    assert document["error"]["category"]
    assert document["sandbox"]["state"] == "exited"


@pytest.mark.parametrize("umask", [0o000, 0o077])
@pytest.mark.parametrize("backend", BACKENDS)
def test_an_unusual_umask_of_the_caller_changes_nothing(
    backend: str, umask: int, repository: Path, state_directory: Path, tmp_path: Path
) -> None:
    known = opened_on(backend)
    where = ["--backend", backend, *(["--image", known["image"]] if "image" in known else [])]
    patch = tmp_path / "out.patch"
    line = "echo more >> README.md && echo new > src/new && stat -c %a src src/new"
    said = ringfence("run", *where, "--repo", repository, "--patch", patch, "--", "sh", "-c", line,
                     umask=umask)  # fmt: skip
    assert said.split()[:2] == [b"755", b"644"]
    ringfence("run", *where, "--repo", repository, "--apply", "--", "sh", "-c", line, umask=umask)
    assert (repository / "src/new").stat().st_mode & 0o777 == 0o644
    assert (repository / "README.md").stat().st_mode & 0o777 == 0o644


@pytest.mark.docker
def test_diff_and_apply_of_a_sandbox(repository: Path, state_directory: Path) -> None:
    require_docker(DEBIAN)
    made = ringfence("create", "--image", DEBIAN, "--repo", repository, "--lifetime", "10m")
    name = made.decode().strip()
    try:
        ringfence("exec", name, "--", "sh", "-c", "echo fresh > fresh")
        assert b"+fresh\n" in ringfence("diff", name)
        assert b"1 file changed" in ringfence("diff", "--stat", name)
        changes = json.loads(ringfence("diff", "--json", name))["changes"]
        assert [(one["path"], one["kind"]) for one in changes] == [("fresh", "added")]
        ringfence("apply", name)
        assert (repository / "fresh").read_text() == "fresh\n"
        assert ringfence("apply", name) == b""
        ringfence("exec", name, "--", "sh", "-c", "echo more >> fresh")
        assert ringfence("apply", name) == b"modified fresh\n"
        (repository / "fresh").write_text("mine\n")
        ringfence("exec", name, "--", "rm", "fresh")
        ringfence("apply", name, code=125)
    finally:
        ringfence("rm", name)
    ringfence("diff", name, code=125)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_snapshot_is_kept_and_opened(
    backend: str, repository: Path, state_directory: Path
) -> None:
    where = opened_on(backend)
    options = [text for name, value in where.items() for text in (f"--{name}", value)]
    made = ringfence("create", *options, "--repo", repository, "--lifetime", "10m")
    name = made.decode().split()[-1]
    try:
        ringfence("exec", name, "--", "sh", "-c", "echo kept >> README.md")
        digest = ringfence("snapshot", name).decode().strip()
        assert json.loads(ringfence("snapshot", "--json", name))["digest"] == digest
    finally:
        ringfence("rm", name)
    said = ringfence("run", *options, "--snapshot", digest, "--", "cat", "README.md")
    assert said.startswith(b"A project.\nkept\n")
    assert f"snapshot-{digest.partition(':')[2]}" in ringfence("store", "ls").decode()
    ringfence("store", "rm", digest)
    assert json.loads(ringfence("store", "ls", "--json"))["blobs"] == []
    ringfence("store", "rm", digest, code=125)
    ringfence("run", *options, "--snapshot", digest, "--", "true", code=125)
