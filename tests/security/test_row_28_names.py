"""Row 28: names, labels and arguments are data: no shell, no option and no line is made of them."""

import os
import subprocess
from pathlib import Path

import pytest

import ringfence
from ringfence.errors import InvalidSpecError

from .conftest import ALL, BOTH, DOCKER, PROCESS, keywords, needs_users

pytestmark = pytest.mark.asyncio(loop_scope="module")

ODD = ["$(id)", "`id`", "; id", "a\nb", "-n", "--", "-rf", "*", "\udcff", "'\"", " ", "\t", "é",
       "a\\b", "\x1b[2J", "%s", "x" * 255, "..x", "#", "~"]  # fmt: skip


@ALL
async def test_arguments_are_never_a_shells(box: ringfence.Sandbox) -> None:
    result = await box.exec(["printf", "%s\\0", *ODD])
    assert result.stdout.split(b"\0")[:-1] == [os.fsencode(text) for text in ODD]


@BOTH
async def test_any_name_goes_through_every_operation(box: ringfence.Sandbox) -> None:
    """Written, listed, read, renamed, copied and removed, byte by byte what it was."""
    for name in ODD:
        await box.files.write(f"/tmp/n/{name}", os.fsencode(name), parents=True)
    listing = await box.files.list("/tmp/n")
    assert sorted(listing.names) == sorted(ODD)
    for name in ODD:
        assert await box.files.read(f"/tmp/n/{name}") == os.fsencode(name)
        await box.files.copy(f"/tmp/n/{name}", "/tmp/copy")
        await box.files.rename(f"/tmp/n/{name}", f"/tmp/n/{name}"[:200] + "2")
    assert await box.files.remove("/tmp/n", recursive=True) == len(ODD) + 1


@BOTH
@pytest.mark.parametrize("path", ["a", "", "/a\0b", "a/../b", "~", "./x"])
async def test_what_is_no_absolute_path_is_refused(box: ringfence.Sandbox, path: str) -> None:
    for work in (box.files.read(path), box.files.remove(path), box.files.mkdir(path)):
        with pytest.raises(InvalidSpecError):
            await work
    if "\0" in path:
        with pytest.raises(InvalidSpecError):
            await box.exec(["echo", path])


@BOTH
async def test_a_listing_of_very_many_names_is_bounded_and_goes_on(box: ringfence.Sandbox) -> None:
    """A page has a limit, and the next one begins where it ended."""
    await box.exec(shell="mkdir /tmp/many; cd /tmp/many; seq 3000 | xargs touch", timeout=60)
    seen: set[str] = set()
    cursor: bytes | None = None
    while True:
        page = await box.files.list("/tmp/many", limit=700, cursor=cursor)
        assert len(page.entries) <= 700
        seen.update(page.names)
        cursor = page.cursor
        if cursor is None:
            break
    assert seen == {str(number) for number in range(1, 3001)}


@pytest.mark.parametrize("kind", [DOCKER, PROCESS])
async def test_labels_stay_values(state: Path, kind: str) -> None:
    """They come back as they were, they choose no other sandbox, and the engine gets a safe name."""
    labels = {"a": "x,ringfence.id=other", "b": "$(id)\n--privileged", "c": "'\";"}
    async with ringfence.open(**keywords(kind), labels=labels) as sandbox:
        assert dict(sandbox.info.labels) == labels
        assert sandbox.id.isalnum()
        assert len(sandbox.id) <= 40
        if kind == "docker":
            line = ["docker", "ps", "--filter", f"label=ringfence.id={sandbox.id}", "-q"]
            found = subprocess.run(line, capture_output=True, check=True, text=True)
            assert len(found.stdout.split()) == 1


@pytest.mark.parametrize("name", ["ringfence.id", "A B", "", "a\nb", "a\0", "a" * 200, "-x"])
async def test_what_is_no_labels_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidSpecError):
        ringfence.SandboxSpec.parse({"labels": {name: "x"}})


@BOTH
@pytest.mark.parametrize("user", ["65501", "65502", "1005:65501", "1005:065502", "65501:1005"])
async def test_the_guests_ids_are_nobodys(box: ringfence.Sandbox, user: str) -> None:
    """As a uid and as a group, for the whole sandbox and for one command."""
    with pytest.raises(ringfence.PolicyDeniedError, match="guest's own"):
        async with ringfence.open(backend="process", user=user):
            pass
    needs_users(box)
    with pytest.raises(ringfence.NotFoundError):
        await box.exec(["true"], user=user)


@BOTH
@pytest.mark.parametrize("user", ["0:0", "root", "-1", "4294967295", "a b", "x:y:z", "../x", "\0"])
async def test_a_users_name_gives_no_more_than_the_profile(
    box: ringfence.Sandbox, user: str
) -> None:
    """Refused in a spec; in an exec, at most an unprivileged uid 0 with nothing it could use."""
    with pytest.raises((InvalidSpecError, ringfence.SandboxError)):
        async with ringfence.open(backend="process", user=user):
            pass
    try:
        result = await box.exec(["cat", "/proc/self/status"], user=user)
    except ringfence.SandboxError:
        return
    fields = dict(line.split(":", 1) for line in result.stdout.decode().splitlines() if ":" in line)
    for name in ("CapEff", "CapPrm", "CapInh", "CapAmb"):
        assert int(fields[name], 16) == 0
