"""A guest that is handed one end of a stream speaks its first session on it, and dials afterwards."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ringfence.guest.protocol import Ask

from .raw import HELD, Guest, accept, listen


def handed(start_guest: Callable[..., Guest], directory: Path) -> Guest:
    return start_guest("--socket", str(directory), "--connected", "1")


def test_who_greets_wrongly_on_it_is_dropped_and_the_guest_dials(
    start_guest: Callable[..., Guest], directory: Path
) -> None:
    guest = handed(start_guest, directory)
    listener = listen(directory)
    guest.raw.send(Ask.PING, 0, b"no greeting")
    assert accept(listener).hello() == 1


def test_who_is_dropped_hears_it_though_others_have_the_stream_open(
    start_guest: Callable[..., Guest], directory: Path
) -> None:
    """As its own standard input is here, and the process that started it has both."""
    guest = handed(start_guest, directory)
    guest.raw.hello(detached=True, lifetime=600_000)
    guest.raw.send_bytes(b"\xff" * 16)
    while guest.raw.stream.recv(1 << 16):
        pass


def test_the_greeting_may_wait_for_the_guest_and_the_next_session_is_dialled(
    start_guest: Callable[..., Guest], directory: Path
) -> None:
    guest = handed(start_guest, directory)
    assert guest.raw.hello(detached=True, lifetime=600_000) == 1
    held = guest.raw.start("sh", "-c", "echo early; read line", flags=HELD | 1)
    guest.raw.started(held)
    guest.raw.output(held, b"early\n")
    listener = listen(directory)
    guest.raw.stream.close()
    second = accept(listener)
    assert second.hello(detached=True) == 2
    second.send(Ask.SHUTDOWN)
    assert guest.wait() == 0


def test_an_attached_guest_ends_with_the_stream_that_it_was_handed(
    start_guest: Callable[..., Guest], directory: Path
) -> None:
    guest = handed(start_guest, directory)
    assert guest.raw.hello() == 1
    guest.raw.stream.close()
    assert guest.wait() != 64


def test_a_command_has_not_the_stream(start_guest: Callable[..., Guest], directory: Path) -> None:
    guest = handed(start_guest, directory)
    guest.raw.hello()
    ended = guest.raw.run("sh", "-c", "ls -l /proc/self/fd | grep -c socket")
    assert ended.stdout.strip() == b"0"


@pytest.mark.parametrize("number", ["0", "-1", "x", ""])
def test_a_wrong_number_is_refused(
    start_guest: Callable[..., Guest], directory: Path, number: str
) -> None:
    assert start_guest("--socket", str(directory), "--connected", number).wait() == 64
