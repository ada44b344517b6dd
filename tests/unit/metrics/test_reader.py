"""A reader gives all that the files have, says when a sandbox is gone, and holds no more files."""

import errno
import gc
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from ringfence.errors import NotFoundError
from ringfence.metrics import Place, reader, reader_for, reader_of
from ringfence.metrics.places import GUEST_LEAF, mounted_hierarchies

FILES_V2 = {
    "cgroup.controllers": "cpuset cpu io memory pids\n",
    "memory.current": "1000\n",
    "memory.peak": "2000\n",
    "memory.max": "max\n",
    "memory.stat": "file 10\npgfault 3\npgmajfault 1\n",
    "memory.events": "oom 1\noom_kill 1\n",
    "cpu.stat": "usage_usec 2000000\nuser_usec 1500000\nsystem_usec 500000\n",
    "pids.current": "4\n",
    "pids.peak": "5\n",
    "cgroup.procs": "1\n2\n",
    "cgroup.threads": "1\n2\n3\n",
    "io.stat": "254:0 rbytes=1 wbytes=2\n",
}


def make(directory: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (directory / name).write_text(text)
    return directory


def test_version_2_gives_everything(tmp_path: Path) -> None:
    place = Place(2, "/x", str(make(tmp_path, FILES_V2)))
    with reader_of({"unified": place}) as reader:
        usage = reader.read()
    assert (usage.memory, usage.memory_peak, usage.memory_limit) == (1000, 2000, None)
    assert (usage.cpu_seconds, usage.cpu_user_seconds, usage.cpu_system_seconds) == (2.0, 1.5, 0.5)
    assert (usage.pids, usage.pids_peak, usage.processes, usage.threads) == (4, 5, 2, 3)
    assert (usage.disk_read, usage.disk_written, usage.oom_kills) == (1, 2, 1)
    assert (usage.page_faults, usage.major_page_faults, usage.memory_cache) == (3, 1, 10)
    assert (usage.network_received, usage.uptime, usage.cpu_throttled_seconds) == (None,) * 3


def test_a_controller_that_is_off_stays_unknown(tmp_path: Path) -> None:
    files = {**FILES_V2, "cgroup.controllers": "pids\n"}
    with reader_of({"unified": Place(2, "/x", str(make(tmp_path, files)))}) as reader:
        usage = reader.read()
    assert (usage.pids, usage.memory, usage.disk_read) == (4, None, None)
    assert usage.cpu_seconds == 2.0, "counted without the cpu controller"


def test_what_version_2_does_not_count_of_those_below_is_added(tmp_path: Path) -> None:
    """Processes and threads of all, and refused forks of the guest's leaf; as they come and go."""
    files = {**FILES_V2, "pids.events": "max 1\n", "cgroup.stat": "nr_descendants 0\n"}
    place = Place(2, "/x", str(make(tmp_path, files)))
    with reader_of({"unified": place}) as reader:
        usage = reader.read()
        assert (usage.processes, usage.threads, usage.forks_refused) == (2, 3, 1)
        for name in (GUEST_LEAF, "exec-1"):
            (tmp_path / name).mkdir()
            listed = {"cgroup.procs": "7\n", "cgroup.threads": "7\n8\n"}
            make(tmp_path / name, {**listed, "pids.events": "max 5\n"})
        (tmp_path / "exec-gone").mkdir()
        (tmp_path / "cgroup.stat").write_text("nr_descendants 3\nnr_dying_descendants 1\n")
        usage = reader.read()
        assert (usage.processes, usage.threads, usage.forks_refused) == (4, 7, 6)
        assert (usage.pids, usage.memory, usage.oom_kills) == (4, 1000, 1), "counted above already"


def test_open_files_of_those_below_are_counted(tmp_path: Path) -> None:
    files = {**FILES_V2, "cgroup.procs": "", "cgroup.stat": "nr_descendants 1\n"}
    place = Place(2, "/x", str(make(tmp_path, files)))
    (tmp_path / GUEST_LEAF).mkdir()
    (tmp_path / GUEST_LEAF / "cgroup.procs").write_text(f"{os.getpid()}\n")
    with reader_of({"unified": place}) as reader:
        assert (reader.open_files() or 0) > 3


def test_the_files_are_read_anew_each_time_and_stay_open(tmp_path: Path) -> None:
    place = Place(2, "/x", str(make(tmp_path, FILES_V2)))
    gc.collect()  # or what others left goes away meanwhile
    before = len(list(Path("/proc/self/fd").iterdir()))
    reader = reader_of({"unified": place})
    assert reader.read().memory == 1000
    (tmp_path / "memory.current").write_text("1001\n")
    assert reader.read().memory == 1001
    reader.close()
    reader.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    with pytest.raises(NotFoundError):
        reader.read()


def test_no_descriptor_stays_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a reader that is closed, or that could not be made."""
    files = {**FILES_V2, "cgroup.stat": "nr_descendants 0\n"}
    places = {"unified": Place(2, "/x", str(make(tmp_path, files)))}
    before = list(Path("/proc/self/fd").iterdir())
    reader_of(places).close()
    assert list(Path("/proc/self/fd").iterdir()) == before

    def full(_: Place) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(reader, "_below", full)
    with pytest.raises(OSError, match="Too many"):
        reader_of(places)
    assert list(Path("/proc/self/fd").iterdir()) == before


def test_open_files_that_may_not_be_looked_at_are_not_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those of root's processes, for an ordinary user."""

    def denied(_: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with reader_of({"unified": Place(2, "/x", str(make(tmp_path, FILES_V2)))}) as found:
        monkeypatch.setattr(os, "listdir", denied)
        assert found.open_files() is None


def test_a_process_is_as_old_as_it_is_whatever_its_name(tmp_path: Path) -> None:
    program = shutil.copy("/bin/sleep", tmp_path / "a) R 1 (b")
    place = Place(2, "/x", str(make(tmp_path, FILES_V2)))
    with subprocess.Popen([program, "60"]) as process:
        with reader_of({"unified": place}, process.pid) as found:
            uptime = found.read().uptime
        process.kill()
    assert uptime is not None
    assert uptime < 300


def test_a_process_that_is_not_there_has_no_reader() -> None:
    with pytest.raises(NotFoundError):
        reader_for(2**30)


def test_what_is_shared_with_us_is_not_told_as_a_sandboxes() -> None:
    """A process that shares everything has no reader, and the error says so."""
    with pytest.raises(NotFoundError, match="of its own"):
        reader_for(os.getpid())


def test_the_live_kernels_version_1_files_agree_with_what_a_process_did() -> None:
    memory = next((h for h in mounted_hierarchies() if "memory" in h.controllers), None)
    if os.geteuid() != 0 or memory is None:
        pytest.skip("needs root and cgroup version 1")
    name = f"ringfence-test-{os.getpid()}"
    made = []
    try:
        places = {}
        for controller in ("memory", "pids", "cpuacct", "cpu", "freezer"):
            one = next(h for h in mounted_hierarchies() if controller in h.controllers)
            directory = Path(one.mount_point, name)
            directory.mkdir(exist_ok=True)
            made.append(directory)
            places[controller] = Place(1, f"/{name}", str(directory))
        pid = _spin([directory / "tasks" for directory in made])
        with reader_of(places, pid) as reader:
            os.waitpid(pid, 0)
            usage = reader.read()
            assert (usage.cpu_seconds or 0) > 0.05
            assert (usage.page_faults or 0) > 0
            assert (usage.memory_peak or 0) > 0
            assert (usage.processes, usage.threads, usage.pids) == (0, 0, 0)
            assert usage.pids_peak in (1, None), "kernels before 6.1 do not tell"
            while made:
                made.pop().rmdir()
            with pytest.raises(NotFoundError):
                reader.read()
    finally:
        for directory in made:
            directory.rmdir()


def _spin(tasks: list[Path]) -> int:
    """A child that joins these cgroups and uses a tenth of a second of a processor."""
    pid = os.fork()
    if pid == 0:
        try:
            for path in tasks:
                path.write_text("0")
            while os.times().user + os.times().system < 0.1:
                bytearray(2**20)
        finally:
            os._exit(0)
    return pid
