"""Two sandboxes beside each other and beside the host: what the kernel names or counts for a user is
not a way from one to the other, and what a client holds does not come along."""

import contextlib
import os
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

import ringfence

from ..conftest import give, wait_for
from .conftest import BUBBLEWRAP, DOCKER, GVISOR, PROCESS, begun, keywords, needs_users, python

pytestmark = pytest.mark.asyncio(loop_scope="module")

EVERYWHERE = pytest.mark.parametrize("kind", [DOCKER, PROCESS, BUBBLEWRAP, GVISOR], scope="module")
KERNEL = pytest.mark.parametrize("kind", [DOCKER, PROCESS, BUBBLEWRAP], scope="module")

NAMED = """
import ctypes, os, socket, sys, time
libc = ctypes.CDLL(None, use_errno=True)
flags = 0o1600 if sys.argv[1] == "make" else 0
made = {
    "memory": libc.shmget(0x52464E47, 4096, flags),
    "semaphores": libc.semget(0x52464E47, 1, flags),
    "queue": libc.mq_open(b"/ringfence-test", os.O_RDWR | (os.O_CREAT if flags else 0), 0o600, 0),
}
one = socket.socket(socket.AF_UNIX)
try:
    (one.bind if flags else one.connect)("\\0ringfence-test-beside")
    made["socket"] = 0
    one.listen() if flags else None
except OSError:
    made["socket"] = -1
print(*sorted(name for name, number in made.items() if number >= 0), flush=True)
if flags:
    time.sleep(60)
"""


@EVERYWHERE
async def test_what_one_sandbox_names_no_other_and_no_host_finds(
    box: ringfence.Sandbox, kind: str
) -> None:
    """Shared memory and semaphores by key, message queues (gVisor has them), abstract sockets; of
    the same user in both."""
    with begun(kind):
        async with (
            ringfence.open(**keywords(kind)) as other,
            box.spawn(["python3", "-c", NAMED, "make"]) as holding,
        ):
            made = (await holding.stdout.read(100)).decode().split()
            assert {"memory", "semaphores", "socket"} <= set(made)
            found = await other.exec(["python3", "-c", NAMED, "find"])
            assert (found.exit_code, found.stdout) == (0, b"\n"), found.stderr
            for table in ("sysvipc/shm", "sysvipc/sem", "net/unix"):
                text = Path("/proc", table).read_text()
                assert str(0x52464E47) not in text
                assert "ringfence-test-beside" not in text


COUNTED = """
import ctypes, time
libc = ctypes.CDLL(None)
had = sum(libc.inotify_init1(0) >= 0 for _ in range(900))
print(had > 0, had < 900, flush=True)
time.sleep(60)
"""


@KERNEL
async def test_sandboxes_of_two_users_do_not_share_what_is_counted_for_a_user(
    box: ringfence.Sandbox, kind: str
) -> None:
    """One that takes all instances of inotify that a user may have leaves another user's alone; one
    of the same user gets none."""
    needs_users(box)
    with begun(kind):
        async with (
            ringfence.open(**keywords(kind)) as other,
            box.spawn(["python3", "-c", COUNTED], user="42001") as holding,
        ):
            assert await holding.stdout.read(100) == b"True True\n"
            args = ["python3", "-c", COUNTED.replace("time.sleep(60)", "")]
            assert (await other.exec(args, user="42002")).stdout == b"True True\n"
            assert (await other.exec(args, user="42001")).stdout == b"False True\n"


@contextlib.contextmanager
def burdened(tmp_path: Path) -> Iterator[os.stat_result]:
    """A client with an inheritable descriptor of a file, a blocked and an ignored signal."""
    (tmp_path / "held").write_text("hunter2")
    held = os.open(tmp_path / "held", os.O_RDWR)
    os.set_inheritable(held, True)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGUSR1])
    try:
        yield os.fstat(held)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGHUP, before)
        os.close(held)


def holders(file: os.stat_result) -> set[int]:
    """Processes of this machine that have a file open, without guards, which are no sandbox's."""
    found = set()
    for name in filter(str.isdigit, os.listdir("/proc")):
        place = Path("/proc", name)
        with contextlib.suppress(OSError):
            for link in os.listdir(place / "fd"):
                seen = (place / "fd" / link).stat()
                if (seen.st_dev, seen.st_ino) == (file.st_dev, file.st_ino):
                    found.add(int(name))
        with contextlib.suppress(OSError):
            if b"ringfence.ledger.guard" in (place / "cmdline").read_bytes():
                found.discard(int(name))
    return found


INHERITED = """
import os, signal
names = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
print(sorted(os.path.basename(name) for name in names if os.path.lexists(name)))
print(signal.pthread_sigmask(signal.SIG_BLOCK, []))
own = (signal.SIGPIPE, signal.SIGXFSZ)
print([one for one in signal.valid_signals()
       if one not in own and signal.getsignal(one) is signal.SIG_IGN])
"""


@EVERYWHERE
async def test_what_a_client_has_open_blocked_or_ignored_is_not_inherited(
    state: Path, kind: str, tmp_path: Path
) -> None:
    """Neither by a command, nor by the guest, nor by what keeps it, once all are begun."""
    with begun(kind), burdened(tmp_path) as file:
        async with ringfence.open(**keywords(kind)) as sandbox:
            assert await python(sandbox, INHERITED) == "['0', '1', '2']\nset()\n[]\n"
            assert wait_for(lambda: holders(file) == {os.getpid()}, seconds=10)


PRIORITIES = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def asked(name, work):
    try:
        if work() != -1:
            print("had", name)
    except OSError:
        pass
asked("fifo", lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)))
asked("round robin", lambda: os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1)))
asked("nice", lambda: os.setpriority(os.PRIO_PROCESS, 0, -1))
asked("deadline", lambda: libc.syscall(314, 0, ctypes.create_string_buffer(
    (48).to_bytes(4, "little") + (6).to_bytes(4, "little") + bytes(16)
    + b"".join(n.to_bytes(8, "little") for n in (10**7, 10**8, 10**8)), 48), 0))
asked("disk", lambda: libc.syscall(251, 1, 0, 1 << 13))
asked("the first to live", lambda: os.write(os.open("/proc/self/oom_score_adj", os.O_WRONLY), b"-1"))
"""


@KERNEL
async def test_no_command_goes_before_the_host(box: ringfence.Sandbox) -> None:
    """In a processor's or a disk's queue, nor where memory ends."""
    assert await python(box, PRIORITIES) == ""


TAMPER = """
import ctypes, fcntl, mmap, os
libc = ctypes.CDLL(None, use_errno=True)
path = "/data/f"
fd = os.open(path, os.O_RDONLY)
link = f"/proc/self/fd/{fd}"
def spliced():
    r, w = os.pipe()
    os.write(w, b"x" * 65536)
    os.read(r, 65536)
    os.splice(fd, w, 1, offset_src=0)
    os.write(w, b"tampered")
    raise OSError("it only wrote into the pipe")
def flagged():
    fcntl.ioctl(fd, 0x40086602, (0x80).to_bytes(8, "little"))
works = {
    "write": lambda: os.open(path, os.O_RDWR), "reopen": lambda: os.open(link, os.O_RDWR),
    "truncate": lambda: os.truncate(path, 0), "cut": lambda: os.ftruncate(fd, 0),
    "through the pipe": spliced, "mode": lambda: os.fchmod(fd, 0o777),
    "mode by name": lambda: os.chmod(link, 0o777), "times": lambda: os.utime(fd, (1, 1)),
    "attribute": lambda: os.setxattr(fd, "user.x", b"y"), "flags": flagged,
    "mapped": lambda: mmap.mmap(fd, 1, mmap.MAP_SHARED, mmap.PROT_WRITE),
    "owner": lambda: os.fchown(fd, os.getuid(), os.getgid()), "gone": lambda: os.unlink(path),
    "moved": lambda: os.rename(path, "/data/g"), "linked": lambda: os.link(path, "/data/g"),
    "linked out": lambda: os.link(link, "/tmp/g", follow_symlinks=True),
    "linked by descriptor": lambda: 1 / (1 + libc.linkat(fd, b"", -100, b"/tmp/h", 0x1000)),
    "nameless": lambda: os.open("/data", os.O_TMPFILE | os.O_RDWR),
    "pipe": lambda: os.mkfifo("/data/g"), "copied": lambda: os.copy_file_range(fd, fd, 1, 0, 1),
    "allocated": lambda: os.posix_fallocate(fd, 0, 1 << 16),
}
done = []
for name, work in works.items():
    try:
        work()
        done.append(name)
    except (OSError, ValueError, ZeroDivisionError):
        pass
print(done)
"""


@EVERYWHERE
async def test_a_mount_for_reading_is_not_changed_by_its_own_owner(
    state: Path, kind: str, mountable: Path
) -> None:
    """By a name, a descriptor, the cache of pages or a link: the command's user owns the file."""
    file = mountable / "f"
    file.write_text("original")
    file.chmod(0o666)
    give(mountable)
    before = facts(file)
    mount = ringfence.Mount(source=str(mountable), destination="/data")
    with begun(kind):
        async with ringfence.open(**keywords(kind), mounts=[mount]) as sandbox:
            assert await python(sandbox, TAMPER) == "[]\n"
    assert facts(file) == before
    assert os.listdir(mountable) == ["f"]


def facts(file: Path) -> tuple[object, ...]:
    seen = file.stat()
    named = tuple(os.listxattr(file))
    return (file.read_bytes(), stat.S_IMODE(seen.st_mode), seen.st_mtime_ns, seen.st_ctime_ns,
            seen.st_nlink, seen.st_uid, named)  # fmt: skip
