"""A keeper that makes namespaces and mounts itself, as an ordinary user's does."""

from pathlib import Path

import pytest

from ringfence.backends.process import trial
from ringfence.guest import build
from tests.conftest import require_root
from tests.integration.process.kept import SYSTEM, Kept

PARTS = (*SYSTEM, "--tmpfs", "noexec,size=65536,mode=1777:/tmp", "--")


@pytest.fixture
def inside(tmp_path: Path) -> Kept:
    """A keeper for programs that run in a sandbox with all that its guest begins with."""
    require_root()
    return Kept(tmp_path)


def run(kept: Kept, script: str) -> tuple[int, str]:
    kept.start(
        "--begin", "--user", "1000:1001", "--", *PARTS, "/bin/sh", "-c", f"exec 1>&2; {script}"
    )
    return kept.end()


def test_it_is_one_user_who_is_first_and_alone(inside: Kept) -> None:
    code, words = run(inside, "id -u; id -g; echo /proc/[0-9]*; cat /proc/self/uid_map; hostname")
    assert (code, words.split()) == (0, ["1000", "1001", "/proc/1", "1000", "0", "1", "sandbox"])
    assert not inside.home.path.exists()


def test_no_other_user_namespace_can_be_made_below(inside: Kept) -> None:
    """No filter is installed by then."""
    code, words = run(inside, "unshare --user true")
    assert (code, "No space left" in words) == (1, True), words


@pytest.mark.parametrize(
    "change",
    [
        "umount /usr", "umount -l /proc", "umount /dev/null", "umount /tmp",
        "mount -o remount,bind,rw /usr", "mount -o remount,bind,exec,dev /tmp",
        "mount -o remount,size=1g /tmp",
    ],
)  # fmt: skip
def test_what_was_mounted_is_neither_taken_away_nor_weakened_with_the_guests_capabilities(
    change: str, inside: Kept
) -> None:
    code, words = run(inside, f"mount -t tmpfs own /mnt 2>/dev/null; {change}")
    assert code != 0, words
    assert code < 126, words


def test_the_guests_capabilities_mount_in_a_copy_of_its_own(inside: Kept) -> None:
    """Which the changes above would be made in: they do not fail for lack of a capability."""
    assert run(inside, "mount -t tmpfs own /tmp && grep -q 'own /tmp' /proc/mounts") == (0, "")


def test_devices_are_the_hosts_that_everybody_may_use(inside: Kept) -> None:
    script = (
        "echo x > /dev/null && head -c 3 /dev/zero | wc -c && ls /dev /dev/pts && test -c /dev/tty"
    )
    code, words = run(inside, script)
    assert code == 0, words
    assert set(words.split()) - {"3", "/dev:", "/dev/pts:"} == {
        "core", "fd", "full", "null", "ptmx", "pts", "random", "stderr", "stdin", "stdout", "tty",
        "urandom", "zero",
    }  # fmt: skip


@pytest.mark.parametrize("ids", ["", "1000", "a:b"])
def test_ids_that_are_none_are_told(ids: str, inside: Kept) -> None:
    inside.start("--begin", "--user", ids, "--", *PARTS, "/bin/true")
    assert inside.end() == (125, f"user {ids}: Invalid argument\n")


@pytest.mark.parametrize("privileged", [True, False])
def test_that_a_keeper_may_is_found_out_and_leaves_nothing(
    privileged: bool, tmp_path: Path
) -> None:
    require_root()
    assert trial.succeeds(build.target(), tmp_path, privileged=privileged) is True
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("reaping_kernel")
def test_it_is_found_out_by_a_client_that_gets_no_status_of_its_children(tmp_path: Path) -> None:
    require_root()
    assert trial.succeeds(build.target(), tmp_path, privileged=True) is True
    assert trial.succeeds(Path("/bin/true"), tmp_path, privileged=True) is False


def test_a_keeper_that_fails_may_not(tmp_path: Path) -> None:
    for program in ("/bin/false", "/bin/true", "/etc/passwd"):
        assert trial.succeeds(Path(program), tmp_path, privileged=True) is False
    assert trial.succeeds(build.target(), tmp_path / "absent", privileged=True) is False
    assert list(tmp_path.iterdir()) == []
