"""Row 18: what the kernel counts per user across sandboxes is denied or bounded."""

from pathlib import Path

import pytest

import ringfence

from .conftest import BOTH, keywords, python

pytestmark = [pytest.mark.asyncio(loop_scope="module"), BOTH]

DENIED = {
    "add_key": (248, '"user", "x", "y", 1, -2'),
    "request_key": (249, '"user", "x", 0, -2'),
    "keyctl": (250, "0, -3, 0"),
    "bpf": (321, "0, 0, 0"),
    "perf_event_open": (298, "0, 0, 0, 0, 0"),
    "userfaultfd": (323, "1"),
    "io_uring_setup": (425, "8, 0"),
    "fanotify_init": (300, "0, 0"),
    "mount": (165, "0, 0, 0, 0, 0"),
    "unshare": (272, "0x10000000"),
    "setns": (308, "0, 0"),
    "open_by_handle_at": (304, "0, 0, 0"),
    "process_vm_readv": (310, "1, 0, 0, 0, 0, 0"),
    "ptrace": (101, "16, 1, 0, 0"),
    "kexec_load": (246, "0, 0, 0, 0"),
    "init_module": (175, "0, 0, 0"),
    "syslog": (103, "3, 0, 0"),
    "swapon": (167, "0, 0"),
    "reboot": (169, "0, 0, 0, 0"),
    "memfd_secret": (447, "0"),
    "msgget": (68, "0, 512"),
}
"""Numbers of x86_64, with arguments that an open door would answer otherwise."""


async def test_calls_that_reach_shared_kernel_state_are_denied(box: ringfence.Sandbox) -> None:
    """Each says EPERM (or that it does not exist), before it looks at its arguments."""
    calls = "\n".join(f"go({name!r}, {nr}, {args})" for name, (nr, args) in DENIED.items())
    script = f"""
import ctypes, os, platform
libc = ctypes.CDLL(None, use_errno=True)
def go(name, number, *args):
    done = libc.syscall(number, *[a.encode() if isinstance(a, str) else a for a in args])
    if done != -1 or ctypes.get_errno() not in (1, 38):
        print(name, done, ctypes.get_errno())
if platform.machine() == "x86_64":
    pass
    {calls.replace(chr(10), chr(10) + "    ")}
"""
    assert await python(box, script) == ""


async def test_no_sandbox_takes_the_hosts_asynchronous_requests(state: Path, kind: str) -> None:
    """The kernel counts them for all of the host (fs.aio-max-nr): one that can have them can have
    all, and databases of others get none."""
    script = """
import ctypes, platform
libc = ctypes.CDLL(None, use_errno=True)
number = {"x86_64": 206, "aarch64": 0}[platform.machine()]
print(libc.syscall(number, 1 << 15, ctypes.byref(ctypes.c_ulong(0))), ctypes.get_errno())
"""
    async with ringfence.open(**keywords(kind), profile="standard") as sandbox:
        assert await python(sandbox, script) == "-1 1\n"


async def test_no_socket_filter_is_compiled_for_a_command(state: Path, kind: str) -> None:
    """Their machine code is counted for all of the host (net.core.bpf_jit_limit) and is no cgroup's
    memory: where some sandboxes hold all of it, no ordinary user of the host gets a filter."""
    script = """
import ctypes, socket, struct
code = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0xFFFF))
program = struct.pack("HxxxxxxQ", 1, ctypes.addressof(code))
for option in (26, 51):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            one.setsockopt(socket.SOL_SOCKET, option, program)
            print("attached", option)
        except PermissionError:
            pass
"""
    async with ringfence.open(**keywords(kind), profile="permissive") as sandbox:
        assert await python(sandbox, script) == ""


async def test_other_ways_to_name_a_call_are_shut(box: ringfence.Sandbox) -> None:
    """The x32 and the 32-bit numbers end the process."""
    script = """
import ctypes, os, signal
libc = ctypes.CDLL(None, use_errno=True)
pid = os.fork()
if pid == 0:
    libc.syscall(0x40000000 + 39)
    os._exit(0 if ctypes.get_errno() == 0 else 9)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    assert (await python(box, script)).strip() in ("-31", "9")


async def test_descriptors_watches_and_locked_memory_are_bounded(box: ringfence.Sandbox) -> None:
    script = """
import ctypes, os, resource
libc = ctypes.CDLL(None, use_errno=True)
made = []
try:
    while True:
        made.append(os.open("/dev/null", os.O_RDONLY))
except OSError as error:
    print(len(made) < 1024, error.errno)
for fd in made:
    os.close(fd)
print(resource.getrlimit(resource.RLIMIT_MEMLOCK)[1] <= 65536)
print(resource.getrlimit(resource.RLIMIT_CORE)[1])
size = 2**20
block = ctypes.create_string_buffer(size)
print(libc.mlock(block, size))
try:
    resource.setrlimit(resource.RLIMIT_NOFILE, (2**16, 2**16))
    print("raised")
except (ValueError, OSError):
    pass
"""
    assert await python(box, script) == "True 24\nTrue\n0\n-1\n"


async def test_terminals_are_of_the_sandbox_alone(box: ringfence.Sandbox) -> None:
    """TIOCSTI and TIOCLINUX are refused on them, with the upper bits set too."""
    script = """
import fcntl, os, pty
leader, follower = pty.openpty()
for request in (0x5412, 0x541C, 0x5423):
    for high in (0, 1 << 32):
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        done = libc.syscall(16, follower, ctypes.c_ulong(request | high), b"x")
        if done != -1 or ctypes.get_errno() != 1:
            print(hex(request | high), done, ctypes.get_errno())
"""
    assert await python(box, script) == ""
