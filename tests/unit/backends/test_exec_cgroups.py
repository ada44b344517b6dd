"""A command's cgroup is made only where the sandbox's limits hold for it, whole or not at all."""

import asyncio
import errno
import gc
import os
import threading
from pathlib import Path

import pytest

from ringfence.backends import exec_cgroups
from ringfence.backends.exec_cgroups import ExecCgroups
from ringfence.errors import NotFoundError, ResourceExhaustedError, UnsupportedError
from ringfence.metrics import Place
from ringfence.spec import Usage

FILES = {
    "memory": {
        "memory.max_usage_in_bytes": "4096\n",
        "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
    },
    "cpuacct": {"cpuacct.usage": "3000000000\n"},
    "pids": {"pids.peak": "5\n", "pids.events": "max 3\n"},
    "blkio": {"blkio.throttle.io_service_bytes_recursive": "8:0 Read 7\n8:0 Write 9\nTotal 16\n"},
}


class Kernel:
    """Directories in the place of cgroups; a new one has its files, which go with it."""

    def __init__(self, top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.top = top
        self.error: OSError | None = None
        self.busy = False
        self.makes, self.removes = Path.mkdir, Path.rmdir
        self.places = {name: self._place(name) for name in FILES}
        monkeypatch.setattr(Path, "mkdir", lambda path: self.mkdir(path))  # noqa: PLW0108 - bound
        monkeypatch.setattr(Path, "rmdir", lambda path: self.rmdir(path))  # noqa: PLW0108 - bound

    def _place(self, name: str) -> Place:
        directory = self.top / name
        self.makes(directory)
        return Place(1, f"/{name}", str(directory))

    def mkdir(self, path: Path) -> None:
        if self.error is not None and path.parent.name == "pids":
            raise self.error
        self.makes(path)
        (path / "tasks").touch()
        for name, text in FILES[path.parent.name].items():
            (path / name).write_text(text)

    def rmdir(self, path: Path) -> None:
        if self.busy:
            raise OSError(errno.EBUSY, "busy")
        for file in path.glob("*"):
            file.unlink()
        self.removes(path)

    def there(self) -> list[str]:
        return sorted(str(one.relative_to(self.top)) for one in self.top.glob("*/exec-*"))


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    return Kernel(tmp_path, monkeypatch)


def open_files() -> int:
    gc.collect()  # what other tests left to it may go at any time
    return len(list(Path("/proc/self/fd").iterdir()))


def test_it_is_read_and_removed_at_its_end(kernel: Kernel) -> None:
    before = open_files()
    made = ExecCgroups(kernel.places).make()
    assert len(made.descriptors) == len(kernel.there()) == 4
    usage = made.end()
    assert usage is not None
    assert (usage.memory_peak, usage.cpu_seconds, usage.pids_peak) == (4096, 3.0, 5)
    assert (usage.disk_read, usage.disk_written) == (7, 9)
    assert (usage.oom_kills, usage.forks_refused) == (2, 3)
    assert kernel.there() == []
    assert open_files() == before
    assert made.end() == usage


def test_what_the_kernel_counts_only_in_it_counts_for_the_sandbox(kernel: Kernel) -> None:
    """While it is there, when it could not be removed, and when it is gone: once each."""
    groups = ExecCgroups(kernel.places)
    whole = Usage(oom_kills=1, forks_refused=None)
    assert groups.total(whole) is whole
    made = groups.make()
    assert groups.total(whole).oom_kills == 3
    assert groups.total(whole).forks_refused is None
    kernel.busy = True
    made.end()
    assert kernel.there() != []
    assert groups.total(whole).oom_kills == 3
    kernel.busy = False
    groups.make().end()
    assert kernel.there() == []
    assert groups.total(Usage(oom_kills=1, forks_refused=0)) == Usage(oom_kills=5, forks_refused=6)


def test_who_looks_from_another_process_counts_the_same(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that are gone by an attribute of the sandbox's cgroup, which each reads anew."""
    kept: dict[tuple[str, str], bytes] = {}

    def get(path: str, name: str) -> bytes:
        try:
            return kept[path, name]
        except KeyError:
            raise OSError(errno.ENODATA, "none") from None

    monkeypatch.setattr(os, "getxattr", get)
    monkeypatch.setattr(
        os, "setxattr", lambda path, name, value: kept.update({(path, name): value})
    )
    maker, other = ExecCgroups(kernel.places), ExecCgroups(kernel.places)
    whole = Usage(oom_kills=1, forks_refused=0)
    assert other.total(whole) is whole
    for number in (1, 2):
        made = maker.make()
        expected = Usage(oom_kills=1 + 2 * number, forks_refused=3 * number)
        assert maker.total(whole) == other.total(whole) == expected
        made.end()
        assert maker.total(whole) == other.total(whole) == expected
    assert ExecCgroups(kernel.places).total(whole) == expected
    kept[next(iter(kept))] = b"what somebody wrote"
    assert other.total(whole) is whole


def test_where_no_attribute_is_kept_the_maker_knows(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> bytes:
        raise OSError(errno.EOPNOTSUPP, "no attributes")

    monkeypatch.setattr(os, "getxattr", refuse)
    monkeypatch.setattr(os, "setxattr", refuse)
    groups = ExecCgroups(kernel.places)
    groups.make().end()
    groups.make().end()
    assert groups.total(Usage(oom_kills=0)).oom_kills == 4


def test_memory_is_left_out_where_its_limit_would_not_hold(kernel: Kernel) -> None:
    (kernel.top / "memory/memory.use_hierarchy").write_text("0\n")
    made = ExecCgroups(kernel.places).make()
    assert {one.partition("/")[0] for one in kernel.there()} == {"blkio", "cpuacct", "pids"}
    usage = made.end()
    assert usage is not None
    assert (usage.memory_peak, usage.oom_kills) == (None, None)


@pytest.mark.parametrize("name", ["read_bps", "write_bps", "read_iops", "write_iops"])
def test_block_io_is_left_out_where_it_has_a_rate(kernel: Kernel, name: str) -> None:
    (kernel.top / f"blkio/blkio.throttle.{name}_device").write_text("8:0 1048576\n")
    made = ExecCgroups(kernel.places).make()
    assert {one.partition("/")[0] for one in kernel.there()} == {"memory", "cpuacct", "pids"}
    made.end()


def test_controllers_that_are_mounted_together_have_one(kernel: Kernel) -> None:
    together = {**kernel.places, "cpuacct": kernel.places["memory"]}
    made = ExecCgroups(together).make()
    assert len(made.descriptors) == len(kernel.there()) == 3
    made.end()


def test_what_an_earlier_session_left_is_removed(kernel: Kernel) -> None:
    ExecCgroups(kernel.places).make().close()
    assert kernel.there() != []
    ExecCgroups(kernel.places).make().end()
    assert kernel.there() == []


def test_one_that_is_about_to_be_used_is_not_removed(kernel: Kernel) -> None:
    groups = ExecCgroups(kernel.places)
    first = groups.make()
    groups.make().end()
    assert len(kernel.there()) == 4
    first.end()


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.EACCES, UnsupportedError),
        (errno.EROFS, UnsupportedError),
        (errno.ENOSPC, ResourceExhaustedError),
        (errno.EMFILE, ResourceExhaustedError),
        (errno.ENOENT, NotFoundError),
    ],
)
def test_one_that_cannot_be_made_whole_is_not_made(
    kernel: Kernel, number: int, kind: type[Exception]
) -> None:
    kernel.error = OSError(number, os.strerror(number))
    before = open_files()
    groups = ExecCgroups(kernel.places)
    with pytest.raises(kind, match="cgroup"):
        groups.make()
    assert kernel.there() == []
    assert open_files() == before
    assert not groups.under_way


def test_without_a_place_there_is_none() -> None:
    with pytest.raises(UnsupportedError):
        ExecCgroups({"freezer": Place(1, "/x", "/nowhere")}).make()


async def test_a_cancellation_while_it_is_made_leaves_none(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on, makes = threading.Event(), exec_cgroups.ExecCgroups.make

    def slow(groups: ExecCgroups) -> exec_cgroups.ExecCgroup:
        goes_on.wait(30)
        return makes(groups)

    monkeypatch.setattr(exec_cgroups.ExecCgroups, "make", slow)
    before = open_files()
    task = asyncio.create_task(ExecCgroups(kernel.places).begin())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    goes_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert kernel.there() == []
    assert open_files() == before
