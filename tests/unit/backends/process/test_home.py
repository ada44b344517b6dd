"""A sandbox's directory tells who looks after it, by the kernel's word."""

import fcntl
import os
import signal
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from ringfence.backends.process import home as homes
from ringfence.backends.process.home import Home
from ringfence.errors import AlreadyExistsError


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "box")
    assert made.make({"labels": {"a": "b"}}, str(tmp_path / "absent")) is False
    return made


@pytest.fixture
def keeper(home: Home) -> Iterator[int]:
    """A process that holds the lock as a keeper does."""
    ready, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            descriptor = os.open(home.path / "keeper", os.O_RDWR | os.O_CREAT)
            fcntl.fcntl(
                descriptor, fcntl.F_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0)
            )
            os.write(told, b"x")
            signal.pause()
        finally:
            os._exit(0)
    os.close(told)
    os.read(ready, 1)
    os.close(ready)
    yield pid
    os.kill(pid, 9)
    os.waitpid(pid, 0)


def test_an_id_is_taken_once_and_facts_are_kept(home: Home) -> None:
    assert home.facts() == {"labels": {"a": "b"}}
    with pytest.raises(AlreadyExistsError):
        home.make({}, "/bin/true")
    home.remove()
    home.remove()
    assert home.facts() is None


def test_the_keeper_is_the_process_that_holds_the_lock(home: Home, keeper: int) -> None:
    assert home.keeper() == keeper


def test_without_a_lock_nobody_keeps_it(home: Home) -> None:
    assert home.keeper() is None
    (home.path / "keeper").touch()
    assert home.keeper() is None


@pytest.mark.parametrize(
    ("text", "pid"),
    [('{\n    "child-pid": 77\n}\n', 77), ("", None), ('{"child', None), ("{}", None)],
)
def test_the_guests_pid_is_known_once_it_was_written(
    home: Home, text: str, pid: int | None
) -> None:
    assert home.guest() is None
    (home.path / "info").write_text(text)
    assert home.guest() == pid


def test_only_old_directories_without_a_keeper_are_abandoned(home: Home, keeper: int) -> None:
    root = home.path.parent
    other = Home(root / "other")
    other.make({}, "/bin/true")
    assert list(homes.abandoned(root)) == []
    for one in (home, other):
        os.utime(one.path, (0, 0))
    assert list(homes.abandoned(root)) == [other]
    assert list(homes.homes(root / "absent")) == []
