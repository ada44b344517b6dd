"""`ringfence run` on the mock: what it prints and how it ends."""

import asyncio
import base64
import errno
import io
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

import ringfence
from ringfence.cli.app import run
from ringfence.cli.changes import changes, write
from ringfence.cli.explaining import explain
from ringfence.cli.relay import piped_stdin
from ringfence.errors import ResourceExhaustedError, SandboxError, StateError
from ringfence.spec.results import named_bytes
from ringfence.workspace.patch import Patch


def test_json_is_one_document_even_where_nothing_is_measured(
    capfd: pytest.CaptureFixture[str], state_directory: Path
) -> None:
    """The usage is null; the command's code is the exit code. The sandbox is gone by then."""
    assert run(["run", "--backend", "mock", "--json", "--", "sh", "-c", "echo out; exit 3"]) == 3
    document = json.loads(capfd.readouterr().out)
    assert document["result"]["stdout"] == "out\n"
    assert document["result"]["exit_code"] == 3
    assert document["usage"] is None
    assert document["sandbox"]["backend"] == "mock"
    assert (document["sandbox"]["state"], document["sandbox"]["reason"]) == ("exited", "deleted")


@pytest.mark.parametrize(
    ("words", "code", "named"),
    [
        (["--backend", "mok", "--", "true"], 125, "mok"),
        (["--memory", "1parsec", "--", "true"], 125, "limits.memory"),
        (["--profile", "strikt", "--", "true"], 125, "strict"),
        (["--patch", "x", "--", "true"], 2, "--repo"),
        (["--imag", "x", "--", "true"], 2, "imag"),
        (["--repo", ".", "--patch", "-", "--", "true"], 2, "standard output is the command's"),
    ],
)
def test_what_is_wrong_is_named_before_anything_starts(
    words: list[str], code: int, named: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["run", *words]) == code
    assert named in capfd.readouterr().err


def test_a_patch_for_a_file_that_may_not_be_written_is_told_before_anything_starts(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its directory may be written: that is not enough where the file is there."""
    patch = tmp_path / "out.patch"
    patch.touch()
    monkeypatch.setattr(os, "access", lambda place, mode: (place, mode) != (patch, os.W_OK))
    assert run(["run", "--repo", str(tmp_path), "--patch", str(patch), "--", "true"]) == 2
    assert "out.patch cannot be written" in capfd.readouterr().err


class Half(io.BytesIO):
    """A file on a disk that is full by now."""

    def write(self, data: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_half_a_patch_is_not_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(file: Path, mode: str) -> Half:
        file.touch()
        return Half()

    monkeypatch.setattr(Path, "open", half)
    with pytest.raises(ResourceExhaustedError, match=r"out\.patch"):
        write(tmp_path / "out.patch", b"half of it")
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_opened_for_a_patch_stays(tmp_path: Path) -> None:
    program = tmp_path / "runs"
    shutil.copy("/bin/sleep", program)
    with subprocess.Popen([program, "60"]) as running:
        try:
            with pytest.raises(StateError, match=os.strerror(errno.ETXTBSY)):
                write(program, b"a patch")
            assert program.is_file()
        finally:
            running.kill()


class WithRepository:
    """A sandbox of the mock, which has none, as one that has."""

    def __init__(self, sandbox: ringfence.Sandbox) -> None:
        self.sandbox = sandbox
        self.workspace = SimpleNamespace(warnings=["a part is hidden"])

    def __getattr__(self, name: str) -> object:
        return getattr(self.sandbox, name)


def test_a_result_whose_changes_could_not_be_applied_is_told_and_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], state_directory: Path
) -> None:
    """The command's own code would say that all went well."""

    @asynccontextmanager
    async def opened(*_: object) -> AsyncIterator[WithRepository]:
        async with ringfence.open(backend="mock") as sandbox:
            yield WithRepository(sandbox)

    async def refused(*_: object) -> tuple[dict[str, object], SandboxError]:
        return {"applied": False}, StateError("the original moved", op="workspace.apply")

    monkeypatch.setattr("ringfence.cli.run.opened", opened)
    monkeypatch.setattr("ringfence.cli.run.changes", refused)
    for words in (["--json"], []):
        assert run(["run", "--repo", ".", "--apply", *words, "--", "true"]) == 125
        told = capfd.readouterr()
        assert "the original moved" in told.err
        assert "ringfence: a part is hidden\n" in told.err
        if words:
            document = json.loads(told.out)
            assert document["result"]["exit_code"] == 0
            assert document["error"]["message"] == "the original moved"


async def test_why_nothing_was_applied_is_told_where_the_changes_cannot_be_kept_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    async def refused() -> None:
        raise StateError("the original moved", op="workspace.apply")

    async def found() -> Patch:
        return Patch(b"a patch", "")

    def full(file: Path, mode: str) -> Half:
        return Half()

    sandbox = SimpleNamespace(workspace=SimpleNamespace(diff=found, apply=refused))
    for place in (tmp_path, tmp_path / "missing"):
        with monkeypatch.context() as patch:
            patch.setattr(Path, "open", full)
            patch.setattr(tempfile, "tempdir", str(place))
            _, failed = await changes(sandbox, None, apply=True)
        assert isinstance(failed, StateError)
        told = capfd.readouterr().err
        assert "could not be kept as a patch" in told
        assert "Errno" not in told
    assert os.listdir(tmp_path) == []  # noqa: PTH208


async def test_what_was_not_found_is_not_said_to_be_applied(tmp_path: Path) -> None:
    async def lost() -> Patch:
        raise StateError("no", op="workspace.diff")

    sandbox = SimpleNamespace(workspace=SimpleNamespace(diff=lost))
    out, failed = await changes(sandbox, tmp_path / "out.patch", apply=True)
    assert out == {"applied": False}
    assert isinstance(failed, StateError)
    assert os.listdir(tmp_path) == []  # noqa: PTH208


@pytest.mark.parametrize(("data", "named"), [(b"a patch", True), (b"a patch", False), (b"", False)])
async def test_changes_that_cannot_be_applied_are_kept_where_nobody_has_them(
    data: bytes, named: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once: not beside the file that was named for them, and not where there are none."""

    async def refused() -> None:
        raise StateError("the original moved", op="workspace.apply")

    async def found() -> Patch:
        return Patch(data, "")

    (tmp_path / "kept").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "kept"))
    sandbox = SimpleNamespace(workspace=SimpleNamespace(diff=found, apply=refused))
    out, failed = await changes(sandbox, tmp_path / "out.patch" if named else None, apply=True)
    assert (out["patch"].encode(), out["applied"]) == (data, False)
    assert isinstance(failed, StateError)
    kept = await asyncio.to_thread(lambda: [one.read_bytes() for one in tmp_path.rglob("*.patch")])
    assert kept == [data] * bool(data)


@pytest.mark.parametrize(
    ("result", "ended", "said"),
    [
        ({"reason": "exited"}, "deleted", ""),
        ({"reason": "signaled"}, "deleted", ""),
        ({"reason": "not_started", "error": "x: not found"}, "deleted", "x: not found"),
        ({"reason": "timeout"}, "deleted", "the command ended by timeout after 1.2 s"),
        ({"reason": "sandbox_lost"}, "lifetime", "the sandbox ended before the command: lifetime"),
        ({"reason": "sandbox_lost"}, None, "`ringfence ps --all`"),
    ],
)
def test_why_a_command_ended_is_a_sentence_where_its_code_does_not_say_it(
    result: dict[str, str], ended: str | None, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Of a sandbox that ended its own reason is the news."""
    told = SimpleNamespace(**{"error": None, "duration": 1.21, **result})
    explain(told, json=False, ended=ended)
    assert (said in capfd.readouterr().err) if said else not capfd.readouterr().err


async def test_what_changed_is_told_in_as_many_lines_as_git_has_for_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async def found() -> Patch:
        return Patch(b"a patch", " f | 1 +\n 1 file changed\n")

    sandbox = SimpleNamespace(workspace=SimpleNamespace(diff=found))
    out, failed = await changes(sandbox, tmp_path / "patch", apply=False)
    assert (out, failed) == ({"patch": "a patch", "applied": False}, None)
    assert (tmp_path / "patch").read_bytes() == b"a patch"
    assert capfd.readouterr().err == "ringfence: changes\n f | 1 +\n 1 file changed\n"


def test_bytes_in_a_document_are_never_lost() -> None:
    """Text as it is; what is not UTF-8 besides in base64."""
    assert named_bytes("patch", "ä\n".encode()) == {"patch": "ä\n"}
    shown = named_bytes("patch", b"\xe4\n")
    assert base64.b64decode(shown["patch_base64"]) == b"\xe4\n"


@pytest.fixture
def stdin(request: pytest.FixtureRequest) -> Iterator[str]:
    """A file that is standard input meanwhile."""
    before = os.dup(0)
    with Path(request.param).open("rb") as file:
        os.dup2(file.fileno(), 0)
    yield request.param
    os.dup2(before, 0)
    os.close(before)


@pytest.mark.parametrize("stdin", ["/dev/zero", "/dev/null"], indirect=True)
async def test_a_device_is_input_except_the_one_that_has_nothing(stdin: str) -> None:
    """As /dev/urandom may be."""
    source = piped_stdin()
    assert (source is None) is (stdin == "/dev/null")
    if source is not None:
        assert set(await anext(source)) == {0}


@pytest.mark.parametrize("json_too", [False, True])
def test_a_receipt_is_told_once(
    json_too: bool, state_directory: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """In the document, which is one line for a script, or in words."""
    words = ["--json"] * json_too
    assert run(["run", "--backend", "mock", "--receipt", *words, "--", "sh", "-c", "exit 0"]) == 0
    told = capfd.readouterr()
    assert ("what was enforced" in told.err) is not json_too
    assert told.out.count("\n") == json_too
