"""What git says is a line of text in an error, whatever ends its lines, and how it ends."""

import os
import signal
import socket
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from ringfence.errors import DeadlineExceededError, ResourceExhaustedError, StateError
from ringfence.workspace import isolated
from tests.conftest import wait_for


@pytest.mark.parametrize("between", [b"\n", b"\r\n", b"\r"])
def test_line_ends_of_git_are_not_shown_as_escapes(between: bytes) -> None:
    with pytest.raises(StateError) as caught:
        isolated._check(["fetch"], 128, b"remote: no" + between + b"fatal: gone\r\n")
    assert str(caught.value) == "git fetch failed: remote: no; fatal: gone"


@pytest.mark.parametrize(
    "words",
    [
        b"fatal: unable to write loose object file: No space left on device\n",
        b"fatal: sha1 file 'tmp_pack' write error. Out of diskspace\nfast-import: dumping\n",
    ],
)
def test_a_git_without_room_is_no_wrong_state(words: bytes) -> None:
    """But where the other side had none."""
    with pytest.raises(ResourceExhaustedError, match="make room in the state directory"):
        isolated._check(["fast-import"], 128, words)
    with pytest.raises(StateError):
        isolated._check(["fetch"], 128, b"remote: No space left on device\nfatal: gone\n")


def test_a_git_that_goes_on_meanwhile_is_waited_for_and_fails_as_another(tmp_path: Path) -> None:
    """What it printed before it failed would be taken for all."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    assert isolated.Running(["--version"], directory=tmp_path).finish().startswith(b"git version")
    with pytest.raises(StateError, match="git rev-parse failed: fatal: not a git repository"):
        isolated.Running(["rev-parse", "HEAD"], directory=tmp_path).finish()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_git_that_takes_too_long_is_ended_and_told(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    endless = ["hash-object", "--no-filters", "fifo"]
    running = isolated.Running(endless, directory=tmp_path, seconds=0.1)
    with pytest.raises(DeadlineExceededError, match="took over 0 s"):
        running.finish()
    assert running._process.returncode == -signal.SIGKILL
    with pytest.raises(DeadlineExceededError, match="took over 0 s"):
        isolated.git(endless, directory=tmp_path, seconds=0.1)


def test_what_git_started_ends_with_it(tmp_path: Path) -> None:
    """A server that never answers would be waited for by a process that nobody knows."""

    def helpers() -> list[int]:
        found = []
        for place in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if url.encode() in (place / "cmdline").read_bytes().split(b"\0"):
                    found.append(int(place.name))
        return found

    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/x.git"
        taken: list[object] = []
        asking = threading.Thread(target=lambda: taken.append(server.accept()))
        asking.start()
        with pytest.raises(DeadlineExceededError):
            isolated.git(["ls-remote", url], directory=tmp_path, seconds=2.0)
        asking.join()
        assert wait_for(lambda: helpers() == [], 20)
