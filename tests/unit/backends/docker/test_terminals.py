"""A container's terminals are limited from outside, and nobody else's are."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ringfence.backends.docker.terminals import hold_terminals
from tests.conftest import require_root

_OWN = "mount -t devpts -o newinstance,gid=5,mode=620,ptmxmode=666 devpts /dev/pts"


def terminals(pid: int | str) -> list[str]:
    """What a process has at /dev/pts, by its options."""
    lines = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
    return [line.split(" ")[-1] for line in lines if line.split(" ")[4] == "/dev/pts"]


def test_a_container_s_own_are_limited_and_stay_what_they_were() -> None:
    require_root()
    before = terminals("self")
    waiting = f"{_OWN} && echo there && exec sleep 600"
    with subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", waiting], stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"there\n"
            hold_terminals(process.pid)
            assert terminals(process.pid)[-1] == "rw,gid=5,mode=620,ptmxmode=666,max=256"
        finally:
            process.kill()
    assert terminals("self") == before


@pytest.mark.parametrize("linked", ["dev", "dev/pts", ""])
def test_the_host_s_are_left_alone(tmp_path: Path, linked: str) -> None:
    """Whose own they are not, whatever an image's links say; "": who has the host's."""
    before = terminals("self")
    if not linked:
        hold_terminals(os.getpid())
        assert terminals("self") == before
        return
    require_root()
    link = tmp_path / linked
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(f"/{linked}")
    chroot = f"import os, time; os.chroot({str(tmp_path)!r}); print(flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", chroot], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            hold_terminals(process.pid)
        finally:
            process.kill()
    assert terminals("self") == before


def test_one_that_has_ended_is_nobody() -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    hold_terminals(process.pid)
