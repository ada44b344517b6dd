"""Signals to `run` and `exec`: what becomes of their command, and of other ones beside it."""

import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

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


@contextmanager
def shell(*args: str) -> Iterator[tuple[subprocess.Popen[bytes], int, int]]:
    """`ringfence shell` on a terminal of its own: the process, the terminal and its other end."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [*RINGFENCE, "shell", *args], stdin=slave, stdout=slave, stderr=slave,
        start_new_session=True,
    )  # fmt: skip
    try:
        yield process, slave, master
    finally:
        process.kill()
        process.wait()
        os.close(master)
        os.close(slave)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
def test_the_terminal_is_as_it_was_before_a_shell_that_a_signal_ended(
    created: str, number: signal.Signals
) -> None:
    with shell(created, "--", "sh", "-c", "echo ready; exec sleep 600") as (process, slave, master):
        before = termios.tcgetattr(slave)
        assert os.read(master, 5) == b"ready"
        assert termios.tcgetattr(slave) != before
        process.send_signal(number)
        assert process.wait(60) == 128 + number
        assert termios.tcgetattr(slave) == before


def unread(master: int) -> int:
    return int.from_bytes(fcntl.ioctl(master, termios.FIONREAD, bytes(4)), sys.byteorder)


def test_a_shell_whose_terminal_nobody_reads_ends_by_a_signal(created: str) -> None:
    with shell(created, "--", "sh", "-c", "echo ready; yes") as (process, slave, master):
        before = termios.tcgetattr(slave)
        assert os.read(master, 5) == b"ready"
        before_that, there = -1, 0
        while there != before_that:  # a full one may be said to be writable all the same
            time.sleep(0.5)
            before_that, there = there, unread(master)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143
        assert termios.tcgetattr(slave) == before


def test_a_shell_whose_terminal_is_gone_ends(created: str) -> None:
    """It has no SIGHUP of it, as under nohup."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [*RINGFENCE, "shell", created, "--", "sh", "-c", "echo ready; cat"],
        stdin=slave, stdout=slave, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    os.close(slave)
    assert os.read(master, 5) == b"ready"
    os.close(master)
    assert process.wait(60) == 0
