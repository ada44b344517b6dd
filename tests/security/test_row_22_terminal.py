"""Row 22: what a command prints, and how its files are called, cannot drive the caller's terminal."""

import errno
import os
import pty
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import ringfence

from ..conftest import process_options, require_root
from .conftest import DOCKER, PROCESS, keywords, python

pytestmark = pytest.mark.process

RINGFENCE = str(Path(sys.executable).with_name("ringfence"))
ESCAPES = r"\033]0;owned\007\033[2J\033[6n\302\2332J\r\b\177"


def on_a_terminal(*args: str) -> bytes:
    """What the command line writes when both of its outputs are a terminal."""
    leader, follower = pty.openpty()
    try:
        running = subprocess.Popen(
            [RINGFENCE, *args], stdin=subprocess.DEVNULL, stdout=follower, stderr=follower
        )
        os.close(follower)
        shown = b""
        while select.select([leader], [], [], 60)[0]:
            try:
                piece = os.read(leader, 65536)
            except OSError:
                break
            if not piece:
                break
            shown += piece
        running.wait(60)
    finally:
        os.close(leader)
    return shown


def controls(shown: bytes) -> set[int]:
    return {byte for byte in shown.replace(b"\r\n", b"\n") if byte < 32 or byte == 127} - {10, 9}


def test_escapes_are_shown_on_a_terminal(state: Path) -> None:
    """On both streams, and in one that comes byte by byte."""
    line = rf"printf '{ESCAPES}'; printf '{ESCAPES}' >&2; printf '\302'; sleep 0.2; printf '\233A'"
    shown = on_a_terminal("run", *process_options(), "--", "sh", "-c", line)
    assert b"]0;owned" in shown
    assert controls(shown) == set()
    assert b"\xc2\x9b" not in shown


def test_a_pipe_gets_the_bytes_as_they_are(state: Path) -> None:
    args = [RINGFENCE, "run", *process_options(), "--", "printf", ESCAPES]
    done = subprocess.run(
        args, capture_output=True, stdin=subprocess.DEVNULL, timeout=60, check=False
    )
    assert done.stdout == b"\x1b]0;owned\x07\x1b[2J\x1b[6n\xc2\x9b2J\r\b\x7f"


def test_errors_and_lists_are_escaped_too(state: Path) -> None:
    """The name of a missing program, and names of files, a newline of theirs included."""
    shown = on_a_terminal("run", *process_options(), "--", "\x1b[2Jno-such")
    assert b"[2Jno-such" in shown
    assert controls(shown) == set()
    made = subprocess.run(
        [RINGFENCE, "create", *process_options(), "--lifetime", "5m"],
        capture_output=True, text=True, timeout=60, check=True,
    ).stdout.strip()  # fmt: skip
    try:
        name = "a\nfake\x1b[2J"
        subprocess.run([RINGFENCE, "exec", made, "--", "touch", f"/tmp/{name}"],
                       check=True, timeout=60, stdin=subprocess.DEVNULL)  # fmt: skip
        shown = on_a_terminal("ls", f"{made}:/tmp")
        assert controls(shown) == set()
        assert b"\nfake" not in shown
        assert b"fake" in shown
    finally:
        subprocess.run([RINGFENCE, "rm", made], check=False, timeout=60, capture_output=True)


_TAKING = """
import os
made = []
try:
    while len(made) < 400:
        made.append(os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY))
except OSError as error:
    print(len(made), error.errno)
"""


@pytest.mark.parametrize("kind", [PROCESS, DOCKER])
@pytest.mark.parametrize(
    "more", [{}, {"profile": "standard", "security": {"devices": ["/dev/full"]}}]
)
async def test_no_sandbox_takes_all_terminals_of_the_host(
    state: Path, kind: str, more: dict[str, Any]
) -> None:
    """Whoever mounts its /dev: the kernel counts them for all of the host (kernel.pty.max)."""
    require_root()
    async with ringfence.open(**keywords(kind), **more) as sandbox:
        assert await python(sandbox, _TAKING) == f"256 {errno.ENOSPC}\n"
        taking = _TAKING + "print(flush=True); import time; time.sleep(600)"
        async with sandbox.spawn(["python3", "-c", taking]) as process:
            await process.stdout.read(1)
            with pytest.raises(ringfence.ResourceExhaustedError, match="no terminal is left"):
                async with sandbox.spawn(["tty"], pty=True):
                    pass
        async with sandbox.spawn(["tty"], pty=True) as process:
            assert (await process.wait()).stdout.startswith(b"/dev/pts/")
