"""A sandbox's directory tells who looks after it, by the kernel's word."""

import fcntl
import os
import signal
import struct
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ringfence.backends.process import binary
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


def test_what_a_maker_that_ended_left_is_abandoned_at_once(tmp_path: Path) -> None:
    """Unlike what somebody makes at this moment."""
    making, left = Home(tmp_path / "making"), Home(tmp_path / "left")
    making.make({"maker": homes.maker()}, "/bin/true")
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as other:
        _, _, boot = homes.maker()
        left.make({"maker": [other.pid, 1, boot]}, "/bin/true")
    assert list(homes.abandoned(tmp_path)) == [left]


def test_a_program_of_another_file_system_is_copied_beside_the_homes_once(tmp_path: Path) -> None:
    place = Path("/dev/shm")
    if os.getuid() != 0 or place.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no other file system to write to")
    program = tmp_path / "guest-1"
    program.write_bytes(b"program")
    with tempfile.TemporaryDirectory(dir=place) as directory:
        first, second = Home(Path(directory, "a")), Home(Path(directory, "b"))
        assert first.make({}, str(program)) is True
        assert second.make({}, str(program)) is True
        copy = Path(binary.name_beside(str(program), str(first.path)))
        assert copy.stat().st_nlink == 3
        assert (second.run / "guest").samefile(copy)
        assert copy.stat().st_mode & 0o777 == 0o711
        assert {home.id for home in homes.homes(Path(directory))} == {"a", "b"}


def test_a_newer_program_of_the_same_name_is_copied_anew(tmp_path: Path) -> None:
    """Where the state directory is mounted noexec, the installed one is used, whose name stays."""
    program, home = tmp_path / "program", str(tmp_path / "place/box")
    (tmp_path / "place").mkdir()
    for version in (b"old", b"newer"):
        program.write_bytes(version)
        assert Path(binary.beside(str(program), home)).read_bytes() == version


def test_where_no_program_runs_none_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "guest-1"
    program.touch()
    (tmp_path / "place").mkdir()
    monkeypatch.setattr("os.statvfs", lambda _: SimpleNamespace(f_flag=os.ST_NOEXEC))
    with pytest.raises(PermissionError):
        binary.beside(str(program), str(tmp_path / "place/box"))
    assert not list((tmp_path / "place").iterdir())


def test_threads_that_copy_the_program_at_once_do_not_write_into_each_others_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"whole")
    (tmp_path / "place").mkdir()
    send = os.sendfile
    others: list[str] = []

    def other() -> None:
        others.append(binary.beside(str(program), str(tmp_path / "place/box")))

    def meanwhile(*args: Any) -> int:
        monkeypatch.setattr("os.sendfile", send)
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        return send(*args)

    monkeypatch.setattr("os.sendfile", meanwhile)
    made = binary.beside(str(program), str(tmp_path / "place/box"))
    assert others == [made]
    assert Path(made).read_bytes() == b"whole"
    assert list((tmp_path / "place").iterdir()) == [Path(made)]
