"""Signals to `run` and `exec`: what becomes of their command, and of other ones beside it."""

import fcntl
import signal
import subprocess
import sys
import termios
import time

from tests.integration.cli import test_verbs
from tests.integration.cli.test_verbs import RINGFENCE, listed, ringfence

place, created = test_verbs.place, test_verbs.created

HOLD = """
import asyncio, sys
import ringfence

async def main():
    async with ringfence.open(id=sys.argv[1]) as sandbox:
        await sandbox.spawn(["sleep", "4321"], hold=True)

asyncio.run(main())
"""


def test_the_second_ctrl_c_kills_what_ignores_the_first(place: list[str]) -> None:
    """Without a traceback; the exit code says killed."""
    process = subprocess.Popen(
        [*RINGFENCE, "run", *place, "--", "sh", "-c", "trap 'echo once' INT; echo ready; while :; do sleep 0.1; done"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == b"once\n"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 137
    assert b"Traceback" not in said


def test_ctrl_c_in_exec_leaves_other_commands_alone(created: str) -> None:
    """One that the sandbox holds goes on, whether the first or the second Ctrl-C ends ours."""
    held = [sys.executable, "-c", HOLD, created]
    subprocess.run(held, check=True, timeout=60)
    for stubborn, code in (("", 130), ("trap 'echo once' INT; ", 130)):
        script = f"{stubborn}echo ready; while :; do sleep 0.1; done"
        process = subprocess.Popen(
            [*RINGFENCE, "exec", created, "--", "sh", "-c", script],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        if stubborn:
            assert process.stdout.readline() == b"once\n"
            process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        assert process.returncode == code
    listing = ringfence(
        "exec", created, "--", "sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"
    )
    assert b"sleep 4321" in listing.stdout


def test_sigterm_ends_a_command_that_ignores_it(place: list[str]) -> None:
    """As timeout(1) and service managers send it, once: in two seconds the command is killed."""
    process = subprocess.Popen(
        [*RINGFENCE, "run", *place, "--", "sh", "-c", "trap '' TERM; echo ready; sleep 600; :"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 137
    assert listed() == []


def test_sigterm_ends_a_command_whose_output_nobody_reads(place: list[str]) -> None:
    """As of a pager that waits for a key: a full pipe keeps the command, and never us."""
    process = subprocess.Popen(
        [*RINGFENCE, "run", *place, "--", "yes"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    room = fcntl.fcntl(process.stdout, fcntl.F_GETPIPE_SZ)
    while int.from_bytes(fcntl.ioctl(process.stdout, termios.FIONREAD, b"0000"), "little") < room:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    assert listed() == []
    process.stdout.close()
