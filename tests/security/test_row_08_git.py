"""Rows 8 and 9: the host's git runs nothing that a sandbox, or a hostile repository, has planted."""

import contextlib
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

import ringfence
from ringfence import Repository
from ringfence.errors import SandboxError
from ringfence.workspace import gitdir

from ..conftest import give
from .conftest import BOTH, keywords, sh

pytestmark = pytest.mark.asyncio(loop_scope="module")

PLANT = """
cd /workspace
C='touch CANARY'
printf '#!/bin/sh\\n%s\\n' "$C" > run.sh; chmod 755 run.sh
git config core.fsmonitor "$C"; git config core.hooksPath /workspace/hooks
git config diff.external "$C"; git config core.pager "$C"; git config core.sshCommand "$C"
git config filter.evil.clean "$C"; git config filter.evil.smudge "$C"
git config filter.evil.process "$C"; git config diff.evil.textconv "$C"
git config diff.evil.command "$C"; git config uploadpack.packObjectsHook "$C"
git config gpg.program "$C"; git config commit.gpgsign true; git config core.editor "$C"
git config alias.init "!$C"; git config include.path /workspace/evil.config
printf '[core]\\n\\tfsmonitor = %s\\n' "$C" > evil.config
echo '* filter=evil diff=evil merge=evil' > .gitattributes
mkdir -p hooks .git/hooks
for h in pre-commit post-checkout post-index-change reference-transaction pre-auto-gc; do
    cp run.sh hooks/$h; cp run.sh .git/hooks/$h
done
mkdir -p .git/info; echo '* filter=evil diff=evil' > .git/info/attributes
git init -q --bare bare 2>/dev/null; (cd bare && git config core.fsmonitor "$C")
mkdir inner && (cd inner && git init -q && git config core.fsmonitor "$C" && echo x > f)
echo 'gitdir: /workspace/bare' > wt.git
printf '[submodule "s"]\\n\\tpath = s\\n\\turl = ext::sh -c "%s"\\n\\tupdate = !%s\\n' "$C" "$C" > .gitmodules
echo changed >> file; echo new > new
true
"""
MADE = ("file", "new", "run.sh", ".gitattributes", ".gitmodules")


@pytest.fixture(scope="module")
def area() -> Iterator[Path]:
    """A directory for repositories; CANARY in it appears when something planted was run."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="ringfence-test-", dir="/var/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def repository(path: Path) -> Path:
    path.mkdir()
    (path / "file").write_text("one\n")
    for args in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "one"]):
        git(path, *args)
    give(path)
    return path


def git(path: Path, *args: str) -> str:
    line = ["git", "-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "safe.directory=*"]
    done = subprocess.run([*line, *args], cwd=path, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def planted(area: Path) -> str:
    return PLANT.replace("CANARY", str(area / "canary"))


def untouched(area: Path) -> bool:
    return not (area / "canary").exists()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def attacked(kind: str, state: Path, area: Path) -> AsyncIterator[ringfence.Sandbox]:
    original = repository(area / f"original-{kind}")
    async with ringfence.open(
        **keywords(kind), repository=Repository(path=str(original))
    ) as sandbox:
        await sandbox.exec(shell=planted(area))
        assert await sh(sandbox, "git config core.fsmonitor") != ""
        yield sandbox


@BOTH
async def test_changes_and_patch_run_nothing_of_a_hostile_repository(
    attacked: ringfence.Sandbox, area: Path
) -> None:
    """Hooks, filters, fsmonitor, diff drivers, aliases, includes: none is run, all are shown."""
    changed = {change.path for change in await attacked.workspace.changes()}
    assert set(MADE) <= changed
    patch = await attacked.workspace.patch()
    assert b"filter=evil" in patch
    await attacked.workspace.summary()
    await attacked.workspace.snapshot()
    assert untouched(area)


@BOTH
async def test_apply_writes_files_and_no_configuration(
    attacked: ringfence.Sandbox, area: Path, kind: str
) -> None:
    """No .git at any depth gets to the original, so that its owner's own git runs nothing either."""
    original = area / f"original-{kind}"
    before = (original / ".git/config").read_text()
    await attacked.workspace.apply()
    assert (original / "file").read_text() == "one\nchanged\n"
    assert (original / ".git/config").read_text() == before
    assert not any((original / ".git/hooks").glob("pre-commit"))
    assert [p for p in original.rglob(".git") if p.parent != original] == []
    git(original, "status")
    assert untouched(area)


@BOTH
@pytest.mark.parametrize("how", [{}, {"history": "head"}, {"ref": "HEAD"}])
async def test_a_hostile_repository_that_is_opened_runs_nothing(
    kind: str, state: Path, area: Path, how: dict[str, str]
) -> None:
    """One that came with its own .git, hooks and configuration included."""
    hostile = area / "hostile"
    if not hostile.exists():
        repository(hostile)
        script = planted(area).replace("/workspace", str(hostile)).replace("touch /", ">/")
        subprocess.run(["sh", "-c", script.replace("cd " + str(hostile), "")], cwd=hostile,
                       check=True, capture_output=True)  # fmt: skip
        give(hostile)
        (area / "canary").unlink(missing_ok=True)
    try:
        async with ringfence.open(
            **keywords(kind), repository=Repository(path=str(hostile), **how)
        ) as sandbox:
            await sandbox.workspace.patch()
            assert (await sandbox.exec(["cat", "file"])).ok
    except SandboxError:
        pass
    assert untouched(area)


@BOTH
async def test_in_mode_rw_no_git_directory_can_be_written(
    kind: str, state: Path, area: Path
) -> None:
    """Neither the repository's own nor a nested one, nor can a new hook or a new .git be planted in
    the repository's own place."""
    path = repository(area / f"rw-{kind}")
    inner = repository(path / "inner")
    give(path)
    before = (path / ".git/config").read_text()
    async with ringfence.open(
        **keywords(kind), repository=Repository(path=str(path), mode="rw")
    ) as sandbox:
        script = """
cd /workspace; echo changed > file
for g in .git inner/.git; do
    echo x >> $g/config; echo x > $g/hooks/pre-commit; mv $g $g.old; rm -rf $g; ln -sfn /tmp $g
done
"""
        await sandbox.exec(shell=script)
    assert (path / "file").read_text() == "changed\n"
    assert (path / ".git/config").read_text() == before
    for place in (path, inner):
        assert not (place / ".git/hooks/pre-commit").exists()
        assert (place / ".git/HEAD").exists()


@BOTH
async def test_links_in_what_comes_out_leave_the_original_alone(
    kind: str, state: Path, area: Path, tmp_path: Path
) -> None:
    """Two copy-outs into one place: the second does not go through a link that the first made."""
    outside = area / f"outside-{kind}"
    outside.mkdir()
    path = repository(area / f"links-{kind}")
    (tmp_path / "out").mkdir()
    async with ringfence.open(**keywords(kind), repository=Repository(path=str(path))) as sandbox:
        await sandbox.exec(shell=f"mkdir one; ln -s {outside} one/d; ln -s ../.. one/up")
        await _try(sandbox.workspace.download(["one"], tmp_path / "out"))
        await sandbox.exec(shell="rm one/d; mkdir one/d; echo x > one/d/f; echo y > f")
        await _try(sandbox.workspace.download(["one"], tmp_path / "out"))
        await _try(sandbox.workspace.download(["one/d/f"], tmp_path / "out"))
        (path / "d").symlink_to(outside)
        await sandbox.exec(shell="mkdir d; echo x > d/f")
        await _try(sandbox.workspace.apply())
        await sandbox.exec(shell=f"rm -rf d; ln -s {outside}/made e")
        await _try(sandbox.workspace.apply())
    assert list(outside.iterdir()) == []
    assert not (path / "e").is_symlink()


async def _try(work: object) -> None:
    with contextlib.suppress(SandboxError):
        await work  # type: ignore[misc]


def disguise(path: Path, victim: Path, how: str) -> None:
    """Make the repository at `path` show another one."""
    own = path / ".git"
    if how == "worktree":
        own.rename(path / "git.old")
        (path / "evil").mkdir()
        own.write_text("gitdir: evil\n")
        (path / "evil" / "gitdir").write_text(f"{own}\n")
        (path / "evil" / "commondir").write_text(f"{victim / '.git'}\n")
        (path / "evil" / "HEAD").write_text("ref: refs/heads/master\n")
    elif how == "gitfile":
        own.rename(path / "git.old")
        own.write_text(f"gitdir: {victim / '.git'}\n")
    elif how == "link":
        own.rename(path / "git.old")
        own.symlink_to(victim / ".git")
    else:
        for name in how.split():
            (own / name).rename(own / f"{name}.old")
            (own / name).symlink_to(victim / ".git" / name)


@pytest.mark.parametrize("how", ["worktree", "gitfile", "link", "refs objects", "HEAD objects"])
async def test_a_hostile_git_directory_does_not_show_another_repository(
    tmp_path: Path, how: str
) -> None:
    """CVE-2026-55607's like: the history of a repository that was not given stays out."""
    victim = repository(tmp_path / "victim")
    (victim / "file").write_text("the victim's\n")
    git(victim, "commit", "-q", "-a", "-m", "secret")
    disguise(repository(tmp_path / "hostile"), victim, how)
    found, why = gitdir.find((tmp_path / "hostile").resolve())
    assert found is None
    assert why


async def test_a_worktree_of_the_users_own_is_still_found(tmp_path: Path) -> None:
    """So that the test above does not pass by refusing every one."""
    mine = repository(tmp_path / "mine")
    git(mine, "worktree", "add", "-q", "-b", "side", str(tmp_path / "side"))
    found, why = gitdir.find((tmp_path / "side").resolve())
    assert found is not None, why
