"""When the guest tells what became of a command's input, and whom."""

import signal
import struct
from collections.abc import Callable
from pathlib import Path

from ringfence.guest.protocol import U64, Answer, Ask, Told

from .raw import HELD, Guest, Raw, accept, listen, until
from .test_life import again, attach

DATA = bytes(200_000)
"""More than a pipe holds."""


def signalled(raw: Raw, command: int) -> None:
    raw.send(Ask.SIGNAL, command, struct.pack("<IB", signal.SIGCONT, 0))


def test_what_nobody_will_read_counts_as_consumed(guest: Guest) -> None:
    """Else who writes to a command that closed its stdin waits for ever."""
    raw = guest.raw
    command = raw.start("sh", "-c", "kill -STOP $$; exec <&-; exec sleep 1000", flags=33)
    raw.started(command)
    raw.send(Ask.STDIN, command, DATA)
    signalled(raw, command)
    consumed = 0
    while consumed < len(DATA):
        op, answered, payload = raw.frame()
        assert (op, answered) == (Answer.STDIN_ACK, command)
        consumed = U64.unpack(payload)[0]
    assert consumed == len(DATA)


def test_who_did_not_attach_hears_nothing_of_the_input_and_who_does_hears_it_once(
    start_guest: Callable[..., Guest], directory: Path
) -> None:
    """A frame for what a session never asked for ends it."""
    listener = listen(directory)
    start_guest("--socket", str(directory))
    raw = accept(listener)
    raw.hello(detached=True, lifetime=600_000)
    script = f"kill -STOP $$; head -c {len(DATA)} >/dev/null; echo read; exec sleep 1000"
    held = raw.start("sh", "-c", script, flags=HELD | 1)
    raw.started(held)
    raw.send(Ask.STDIN, held, DATA)
    raw = again(raw, directory)
    assert attach(raw, held)[3] < len(DATA)
    raw = again(raw, directory)
    signalled(raw, held)

    def written() -> int:
        answer = raw.ask(Ask.LIST)
        return struct.unpack_from("<Q", answer, 13)[0]

    until(written, "it has read all, while nobody is attached to it")
    assert attach(raw, held)[1:] == (Told.STDIN_OPEN, len(DATA), len(DATA))
    raw.send(Ask.KILL, held)
    assert raw.frame()[0] == Answer.EXIT
