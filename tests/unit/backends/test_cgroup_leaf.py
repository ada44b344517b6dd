"""A sandbox's cgroup of version 2 gives controllers to those below it once its processes left it."""

import errno
import gc
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ringfence.backends import cgroup_leaf, exec_cgroups
from ringfence.backends.exec_cgroups import ExecCgroups
from ringfence.errors import ResourceExhaustedError, UnsupportedError
from ringfence.metrics import Place
from ringfence.metrics.places import GUEST_LEAF
from ringfence.spec import Usage

NAME = "sandbox-1"
FILES = {
    "cgroup.controllers": "memory pids io\n",
    "cgroup.procs": "",
    "cgroup.threads": "",
    "cpu.stat": "usage_usec 3000000\nuser_usec 1\nsystem_usec 1\n",
    "memory.peak": "4096\n",
    "memory.max": "max\n",
    "memory.events": "oom_kill 2\n",
    "pids.peak": "5\n",
    "pids.events": "max 3\n",
    "io.stat": "8:0 rbytes=7 wbytes=9\n",
}


class Kernel:
    """A cgroup with processes: the controllers are given once none is left in it. forks: processes
    that come to be after each move."""

    def __init__(self, top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = top / NAME
        self.processes, self.moved, self.forks = ["11", "12"], list[str](), list[str]()
        self.elsewhere: set[str] = set()
        self.refused: dict[str, int] = {}
        self.tries = 0
        self.makes, self.removes, self.writes = Path.mkdir, Path.rmdir, Path.write_text
        self.reads, self.write = cgroup_leaf.read_text, os.write
        self.makes(self.directory)
        for name, text in FILES.items():
            (self.directory / name).write_text(text)
        (self.directory / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
        (self.directory / "cgroup.subtree_control").write_text("")
        monkeypatch.setattr(Path, "mkdir", self._bound(self.mkdir))
        monkeypatch.setattr(Path, "rmdir", self._bound(self.rmdir))
        monkeypatch.setattr(Path, "write_text", self._bound(self.write_text))
        monkeypatch.setattr(cgroup_leaf, "read_text", self.read_text)
        monkeypatch.setattr(cgroup_leaf.os, "write", self.move)

    @staticmethod
    def _bound(method: Callable[..., object]) -> Callable[..., object]:
        return lambda path, *args: method(path, *args)  # noqa: PLW0108 - bound

    @property
    def places(self) -> dict[str, Place]:
        return {"unified": Place(2, f"/{NAME}", str(self.directory))}

    @property
    def given(self) -> set[str]:
        return set((self.directory / "cgroup.subtree_control").read_text().split())

    def mkdir(self, path: Path) -> None:
        self.makes(path)
        for name, text in FILES.items():
            (path / name).touch()
            self.writes(path / name, text)

    def rmdir(self, path: Path) -> None:
        for file in path.glob("*"):
            file.unlink()
        self.removes(path)

    def write_text(self, path: Path, text: str) -> None:
        if path.name == "cgroup.subtree_control":
            self.tries += 1
            if set(self.processes) - self.elsewhere:
                raise OSError(errno.EBUSY, "busy")
            text = text.replace("+", "")
        self.writes(path, text)

    def read_text(self, path: str) -> str:
        if path == f"{self.directory}/cgroup.procs":
            return "".join(f"{pid}\n" for pid in self.processes)
        if path.startswith("/proc/") and path.endswith("/cgroup") and "self" not in path:
            pid = path.split("/")[2]
            name = "other" if pid in self.elsewhere else NAME
            return f"1:name=systemd:/x\n0::/some/{name}\n"
        return self.reads(path)

    def move(self, descriptor: int, data: bytes) -> int:
        link = os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115
        if not link.endswith(f"{GUEST_LEAF}/cgroup.procs"):
            return self.write(descriptor, data)
        pid = data.decode()
        if pid in self.refused:
            raise OSError(self.refused[pid], os.strerror(self.refused[pid]))
        self.moved.append(pid)
        self.processes.remove(pid)
        if self.forks:
            self.processes.append(self.forks.pop())
        return len(data)


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    return Kernel(tmp_path, monkeypatch)


def open_files() -> int:
    gc.collect()  # what other tests left to it may go at any time
    return len(list(Path("/proc/self/fd").iterdir()))


def test_processes_are_moved_to_a_leaf_and_the_controllers_given(kernel: Kernel) -> None:
    """Those that count, not cpu and cpuset; another time nothing is done."""
    cgroup_leaf.offer(str(kernel.directory))
    assert kernel.moved == ["11", "12"]
    assert kernel.given == {"memory", "pids", "io"}
    kernel.processes = ["13"]
    cgroup_leaf.offer(str(kernel.directory))
    assert (kernel.moved, kernel.tries) == (["11", "12"], 1)


def test_those_that_were_started_meanwhile_are_moved_too(kernel: Kernel) -> None:
    kernel.forks = ["16", "15", "14"]
    cgroup_leaf.offer(str(kernel.directory))
    assert sorted(kernel.moved) == ["11", "12", "14", "15", "16"]
    assert kernel.given == {"memory", "pids", "io"}


def test_a_number_that_is_another_processs_by_then_is_left_alone(kernel: Kernel) -> None:
    kernel.elsewhere = {"12"}
    cgroup_leaf.offer(str(kernel.directory))
    assert kernel.moved == ["11"]


def test_processes_that_are_never_all_moved_end_it(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command is refused for now; what was moved stays, and nothing is left open."""
    monkeypatch.setattr(cgroup_leaf, "_SECONDS", 0.0)
    kernel.refused = {"12": errno.ESRCH}
    before = open_files()
    groups = ExecCgroups(kernel.places)
    with pytest.raises(ResourceExhaustedError, match="faster than they can be moved"):
        groups.make()
    assert kernel.moved == ["11"]
    assert open_files() == before
    kernel.refused = {}
    groups.make().end()
    assert kernel.moved == ["11", "12"]


def test_without_the_right_to_move_them_none_is_given(kernel: Kernel) -> None:
    kernel.refused = {"11": errno.EACCES}
    with pytest.raises(UnsupportedError, match="cgroup"):
        ExecCgroups(kernel.places).make()
    assert kernel.given == set()


def test_without_a_controller_that_counts_none_is_given(kernel: Kernel) -> None:
    (kernel.directory / "cgroup.controllers").write_text("cpuset cpu\n")
    with pytest.raises(UnsupportedError, match="no controller"):
        ExecCgroups(kernel.places).make()
    assert kernel.moved == []


def test_a_commands_cgroup_is_read_and_removed_and_the_leaf_stays(kernel: Kernel) -> None:
    """The kernel counts its kills in the sandbox's too; its refused forks it does not."""
    groups = ExecCgroups(kernel.places)
    made = groups.make()
    assert len(made.descriptors) == 1
    whole = Usage(oom_kills=2, forks_refused=0)
    assert groups.total(whole) == Usage(oom_kills=2, forks_refused=3)
    usage = made.end()
    assert usage is not None
    assert (usage.memory_peak, usage.cpu_seconds, usage.pids_peak) == (4096, 3.0, 5)
    assert (usage.disk_read, usage.disk_written) == (7, 9)
    assert (usage.oom_kills, usage.forks_refused) == (2, 3)
    assert groups.total(whole) == Usage(oom_kills=2, forks_refused=3)
    assert [one.name for one in kernel.directory.iterdir() if one.is_dir()] == [GUEST_LEAF]


def test_where_the_kernel_counts_refused_forks_above_a_commands_are_unknown(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FILES, "pids.events.local", "max 0\n")
    monkeypatch.setitem(FILES, "pids.events", "max 0\n")
    groups = ExecCgroups(kernel.places)
    usage = groups.make().end()
    assert usage is not None
    assert usage.forks_refused is None
    assert groups.total(Usage(forks_refused=4)).forks_refused == 4


@pytest.mark.parametrize(
    ("version", "options", "possible"),
    [
        (0, "", False),
        (1, "", True),
        (1, ",memory_localevents", True),
        (2, ",nsdelegate", True),
        (2, ",nsdelegate,memory_localevents", False),
    ],
)
def test_not_where_a_sandboxs_events_leave_out_those_below(
    version: int, options: str, possible: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounted = f"30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw{options}\n"
    monkeypatch.setattr(cgroup_leaf, "read_text", lambda path: mounted)
    assert exec_cgroups.possible(version) is possible
