"""The patch, applied by git to a pristine copy, gives what is in the workspace, byte by byte."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ringfence.workspace import clean
from tests.unit.workspace.conftest import GIT, Make, git, inside

CONTENT = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([b"", b"one\r\ntwo\r\n", b"no newline", b"\0binary\0", b"a\n" * 60]),
    st.lists(st.sampled_from([b"x\n", b"y\r\n", b"z"]), max_size=30).map(b"".join),
)
NAME = st.sampled_from(
    [
        "plain",
        "sp ace",
        "new\nline",
        "tab\t",
        'quo"te',
        "back\\slash",
        "bad\udcff",
        "ümlaut",
        "d/one",
        "d/two",
        "d/e/three",
        "-dash",
        "f",
        "f/below",
        "trail ",
    ]
)
EDIT = st.one_of(
    st.tuples(st.just("write"), NAME, CONTENT),
    st.tuples(st.just("delete"), NAME, st.just(b"")),
    st.tuples(st.just("mode"), NAME, st.just(b"")),
    st.tuples(st.just("link"), NAME, st.sampled_from([b"plain", b"/etc/passwd", b"../.."])),
    st.tuples(st.just("rename"), NAME, NAME.map(os.fsencode)),
)


def edit(root: Path, what: str, name: str, data: bytes) -> None:
    """One edit, as a program inside could make it; an impossible one does nothing."""
    path = root / name
    try:
        if what == "delete":
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        elif what == "mode":
            path.chmod(0o755 ^ (path.stat().st_mode & 0o111))
        elif what == "rename":
            (root / os.fsdecode(data)).parent.mkdir(parents=True, exist_ok=True)
            path.rename(root / os.fsdecode(data))
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_symlink() or (what == "link" and path.exists()):
                path.unlink()
            if what == "write":
                path.write_bytes(data)
            else:
                path.symlink_to(os.fsdecode(data))
    except OSError:
        return


def snapshot(root: Path) -> dict[str, tuple[str, bytes]]:
    """Files and links as git keeps them."""
    found = {}
    for path in root.rglob("*"):
        key = str(path.relative_to(root))
        if ".git" in key.split("/"):
            continue
        if path.is_symlink():
            found[key] = ("link", os.fsencode(path.readlink()))
        elif path.is_file():
            mode = "exec" if path.stat().st_mode & 0o100 else "file"
            found[key] = (mode, path.read_bytes())
    return found


def apply_with_git(patch: bytes, root: Path) -> None:
    done = subprocess.run(
        ["git", "-c", "safe.directory=*", "apply", "--whitespace=nowarn", "-"],
        cwd=root, env=GIT, input=patch, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode(errors="replace")


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(first=st.lists(EDIT, max_size=6), edits=st.lists(EDIT, min_size=1, max_size=8))
def test_the_patch_gives_the_workspace_again(
    first: list[tuple[str, str, bytes]], edits: list[tuple[str, str, bytes]], make: Make
) -> None:
    with tempfile.TemporaryDirectory() as name:
        original = Path(name) / "original"
        original.mkdir()
        for each in first:
            edit(original, *each)
        for path in original.rglob("*"):
            if path.is_symlink() and str(path.readlink()) != "plain":
                path.unlink()
        pristine = Path(name) / "pristine"
        shutil.copytree(original, pristine, symlinks=True)
        git(pristine, "init", "-q")
        prepared = make(original)
        try:
            work = inside(prepared)
            for each in edits:
                edit(work, *each)
            patch = prepared.patch()
            if patch.data:
                apply_with_git(patch.data, pristine)
            assert snapshot(pristine) == snapshot(work)
        finally:
            clean(prepared.directory)


def test_renames_modes_and_binary_files_are_said_as_git_says_them(
    repository: Path, make: Make
) -> None:
    prepared = make(repository)
    work = inside(prepared)
    (work / "src/code.py").rename(work / "src/moved.py")
    (work / "README.md").chmod(0o755)
    (work / "src/data.bin").write_bytes(b"\0\1\2")
    (work / "run.sh").unlink()
    (work / "fresh").write_bytes(b"one\r\n")
    changes = prepared.changes()
    assert changes.of("renamed") == ("src/moved.py",)
    assert changes.of("mode") == ("README.md",)
    assert changes.of("modified") == ("src/data.bin",)
    assert changes.of("deleted") == ("run.sh",)
    assert changes.of("added") == ("fresh",)
    patch = prepared.patch()
    assert b"rename from src/code.py\nrename to src/moved.py\n" in patch.data
    assert b"GIT binary patch" in patch.data
    assert "5 files changed" in patch.stat


def test_git_inside_does_not_speak_for_the_tree(repository: Path, make: Make) -> None:
    """Attributes, filters, hooks and an index that the sandbox writes have no say on the host."""
    prepared = make(repository)
    work = inside(prepared)
    mark = repository.parent / "ran"
    (work / ".git/config").write_text(
        f'[core]\n\tfsmonitor = "touch {mark}"\n[filter "x"]\n\tclean = touch {mark}\n'
        f'[diff "x"]\n\ttextconv = touch {mark}\n\tcommand = touch {mark}\n'
    )
    (work / ".gitattributes").write_text("* filter=x diff=x -text\n*.py binary\n")
    (work / ".git/info").mkdir(exist_ok=True)
    (work / ".git/info/attributes").write_text("* diff=x\n")
    (work / ".git/index").write_bytes(b"nonsense")
    (work / "src/code.py").write_text("changed\n")
    (work / "vendor/.git").mkdir(parents=True)
    (work / "vendor/.git/config").write_text("x")
    (work / "GIT~1").write_text("x")
    patch = prepared.patch()
    assert b"+changed\n" in patch.data
    assert not mark.exists()
    assert set(prepared.changes().refused) == {"vendor/.git", "GIT~1"}
    assert b"vendor" not in patch.data


def test_times_set_back_hide_nothing(repository: Path, make: Make) -> None:
    prepared = make(repository)
    path = inside(prepared) / "src/code.py"
    before = path.stat()
    path.write_bytes(path.read_bytes().replace(b"line 1\n", b"LINE 1\n"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert prepared.changes().of("modified") == ("src/code.py",)
