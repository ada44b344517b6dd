"""What was unpacked of images goes when nothing uses it, and never from under a start."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ringfence.backends import owned
from ringfence.backends.owner import mark
from ringfence.backends.process import unpacked
from ringfence.backends.process.home import Home
from ringfence.backends.process.unpacked import drop, prune, use
from ringfence.cli.app import run
from ringfence.errors import StateError
from tests.conftest import require_root

DIGEST = f"sha256:{'a' * 64}"
NAME = DIGEST.replace(":", "-")
WEEK = 7 * 86400.0


def age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A process backend's own."""
    return tmp_path / "process"


@pytest.fixture
def image(directory: Path) -> Path:
    """An image that was used eight days ago."""
    path = directory / "images" / NAME
    (path / "usr/bin").mkdir(parents=True)
    (path / "usr/bin/sh").write_bytes(b"x" * 10_000)
    (path / "usr").chmod(0o500)
    age(path, WEEK + 86400)
    return path


def made(directory: Path, **facts: str) -> Home:
    home = Home(directory / "sandboxes" / "one")
    home.path.parent.mkdir(exist_ok=True)
    home.make(facts, "/bin/true")
    return home


def test_what_was_not_used_for_long_goes(directory: Path, image: Path) -> None:
    assert prune(directory, older_than=WEEK + 2 * 86400) == []
    [told] = prune(directory, older_than=WEEK, dry_run=True)
    assert image.is_dir()
    assert prune(directory, older_than=WEEK) == [told]
    assert told.digest == DIGEST
    assert told.size >= 10_000
    assert time.time() - told.used > WEEK
    assert [path.name for path in image.parent.iterdir()] == ["lock"]
    assert prune(directory, older_than=WEEK) == []


def test_where_nothing_was_unpacked_nothing_goes(tmp_path: Path) -> None:
    assert prune(tmp_path / "none", older_than=WEEK) == []


def test_what_a_start_wanted_just_now_stays_whatever_is_asked_for(
    directory: Path, image: Path
) -> None:
    """It may not have said yet what it uses."""
    assert use(image)
    assert prune(directory, older_than=0.001) == []
    age(image, 3700)
    assert prune(directory, older_than=0.001) != []


def test_what_a_sandbox_uses_stays(directory: Path, image: Path) -> None:
    home = made(directory, image="/x.tar", rootfs=NAME)
    assert prune(directory, older_than=WEEK) == []
    home.remove()
    assert prune(directory, older_than=WEEK) != []


def test_a_sandbox_that_does_not_say_what_it_uses_keeps_it_all(
    directory: Path, image: Path
) -> None:
    made(directory, image="/x.tar")
    with pytest.raises(StateError, match="the sandbox one was made by another version"):
        prune(directory, older_than=WEEK)
    assert image.is_dir()


def test_what_goes_by_itself_is_what_would_go_when_asked_for(directory: Path, image: Path) -> None:
    """What keeps it from that is no error of who unpacked another image."""
    drop(directory.with_name("nothing"), WEEK)
    home = made(directory, rootfs=NAME)
    drop(directory, WEEK)
    assert image.is_dir()
    home.remove()
    made(directory, image="an older version does not say which")
    drop(directory, WEEK)
    assert image.is_dir()
    home.remove()
    drop(directory, WEEK)
    assert not image.exists()


def test_an_image_that_another_one_removes_meanwhile_is_none(
    directory: Path, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several may do it at once, since it also happens by itself."""
    other = image.with_name(f"sha256-{'b' * 64}")
    other.mkdir()
    age(other, WEEK * 2)
    remove = unpacked._remove

    def both(rootfs: Path, before: float) -> bool:
        remove(other, before)
        return remove(rootfs, before)

    monkeypatch.setattr(unpacked, "_remove", both)
    assert [told.digest for told in prune(directory, older_than=WEEK)] == [DIGEST]


def test_a_start_between_the_look_and_the_removal_keeps_its_image(
    directory: Path, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpacked, "_size", lambda path: int(use(path)))
    assert prune(directory, older_than=WEEK) == []
    assert (image / "usr/bin/sh").is_file()


def test_a_start_during_the_removal_finds_no_half_of_an_image(
    directory: Path, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does it wait: it unpacks the image anew beside it."""
    found = []
    remove = owned.remove

    def late(path: Path) -> None:
        found.append(use(image))
        image.mkdir()
        remove(path)

    monkeypatch.setattr(owned, "remove", late)
    assert len(prune(directory, older_than=WEEK)) == 1
    assert found == [False]
    assert sorted(path.name for path in image.parent.iterdir()) == ["lock", NAME]


@pytest.fixture
def others(directory: Path, image: Path) -> Iterator[tuple[Path, Path, Path]]:
    """Three more: one that cannot be moved, one that cannot be emptied, and one after them."""
    found = []
    for letter in "bcd":
        path = image.with_name(f"sha256-{letter * 64}")
        (path / "etc").mkdir(parents=True)
        found.append(path)
    fixed, full, last = found
    require_root()
    mounts = (fixed, full / "etc")
    for place in mounts:
        subprocess.run(["mount", "-t", "tmpfs", "none", place], check=True)
    for path in found:
        age(path, WEEK * 2)
    yield fixed, full, last
    for place in mounts:
        for at in (place, *directory.glob("images/.new-*/etc")):
            subprocess.run(["umount", at], check=False, stderr=subprocess.DEVNULL)


def test_what_cannot_be_removed_keeps_nothing_else_and_is_told(
    directory: Path, image: Path, others: tuple[Path, Path, Path]
) -> None:
    """Again by the next one, of what is left of one whose process has ended."""
    fixed, full, last = others
    told = {unpacked.digest: unpacked.error for unpacked in prune(directory, older_than=WEEK)}
    assert (told[DIGEST], told[digest(last)]) == (None, None)
    assert not image.exists()
    assert not last.exists()
    assert str(told[digest(fixed)]).startswith(f"{fixed} cannot be removed: ")
    assert fixed.is_dir()
    [left] = directory.glob("images/.new-*")
    assert str(told[digest(full)]).startswith(f"{left} cannot be removed: ")
    pid, start, rest = mark().split("-", 2)
    dead = left.rename(left.with_name(f".new-{pid}-{int(start) + 1}-{rest}-x"))
    again = {unpacked.digest: unpacked.error for unpacked in prune(directory, older_than=WEEK)}
    assert set(again) == {digest(fixed), None}
    assert str(again[None]).startswith(f"{dead} cannot be removed: ")


def test_who_unpacked_another_one_is_not_kept_from_the_rest(
    directory: Path, image: Path, others: tuple[Path, Path, Path]
) -> None:
    fixed, full, last = others
    drop(directory, WEEK)
    assert [path.exists() for path in (image, fixed, full, last)] == [False, True, False, False]


def test_the_verb_tells_what_could_not_be_removed(
    tmp_path: Path,
    others: tuple[Path, Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("RINGFENCE_STATE_DIR", str(tmp_path))
    fixed, _, last = others
    assert run(["image", "prune", "--unpacked"]) == 1
    told = capsys.readouterr()
    assert digest(last) in told.out
    assert digest(fixed) not in told.out
    assert f"{fixed} cannot be removed: " in told.err
    assert "2 images, " in told.err
    assert run(["image", "prune", "--unpacked", "--json"]) == 1
    [left] = json.loads(capsys.readouterr().out)
    assert left["error"].startswith(f"{fixed} cannot be removed: ")


def digest(image: Path) -> str:
    return image.name.replace("-", ":", 1)


def test_nothing_else_goes_but_what_killed_processes_left_and_old_notes(
    directory: Path, image: Path
) -> None:
    pid, start, rest = mark().split("-", 2)
    mine, dead = f".new-{mark()}-x", f".new-{pid}-{int(start) + 1}-{rest}-x"
    for name in (mine, dead, "other", "known"):
        (image.parent / name).mkdir()
        age(image.parent / name, WEEK + 1)
    for name, old in (("old", WEEK + 1), ("young", 0)):
        (image.parent / "known" / name).write_text(DIGEST)
        age(image.parent / "known" / name, old)
    prune(directory, older_than=WEEK, dry_run=True)
    assert (image.parent / dead).is_dir()
    prune(directory, older_than=WEEK)
    there = {path.name for path in image.parent.iterdir()}
    assert there == {mine, "other", "known", "lock"}
    assert os.listdir(image.parent / "known") == ["young"]  # noqa: PTH208


def test_the_verb_tells_what_went(
    tmp_path: Path, image: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RINGFENCE_STATE_DIR", str(tmp_path))
    verb = ["image", "prune", "--unpacked"]
    assert run([*verb, "--older-than", "9d"]) == 0
    assert "0 images" in capsys.readouterr().err
    assert run([*verb, "--dry-run"]) == 0
    told = capsys.readouterr()
    assert told.out.split()[:4] == ["DIGEST", "SIZE", "UNUSED", DIGEST]
    assert told.out.endswith(" 8d\n")
    assert "1 images" in told.err
    assert "would be removed" in told.err
    assert run([*verb, "--json"]) == 0
    [gone] = json.loads(capsys.readouterr().out)
    assert gone["digest"] == DIGEST
    assert not image.exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "prune takes --label"),
        (["--unpacked", "--label", "a=b"], "prune takes --label"),
        (["--unpacked", "--tagged"], "prune takes --label"),
        (["--label", "a=b", "--dry-run"], "go with --unpacked"),
        (["--label", "a=b", "--older-than", "1d"], "go with --unpacked"),
        (["--unpacked", "--older-than", "soon"], "--older-than: "),
    ],
)
def test_what_does_not_go_together_is_said(
    options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["image", "prune", *options]) != 0
    assert words in capsys.readouterr().err
