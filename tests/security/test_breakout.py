"""Ways out that containers have had: the runtime's file, descriptors, working directories, mounts."""

import hashlib
import os
import socket
from pathlib import Path

import pytest

import ringfence
from ringfence.errors import InvalidSpecError, PolicyDeniedError
from ringfence.guest import build
from ringfence.sandbox.sandbox import Sandbox
from tests.conftest import require_docker
from tests.images import DEBIAN

pytestmark = pytest.mark.docker


async def test_the_guests_program_cannot_be_overwritten(strict: Sandbox) -> None:
    """CVE-2019-5736: through /proc/self/exe, /proc/1/exe or its path."""
    before = hashlib.sha256(build.target().read_bytes()).digest()
    script = """
for target in /proc/1/exe /proc/self/exe /.ringfence/guest; do
    (echo evil > $target) 2>/dev/null && echo "wrote $target"
done
rm -f /.ringfence/guest 2>/dev/null && echo removed
chmod 777 /.ringfence/guest 2>/dev/null && echo changed
true
"""
    result = await strict.exec(shell=script)
    assert result.stdout == b""
    assert hashlib.sha256(build.target().read_bytes()).digest() == before


@pytest.mark.parametrize("cwd", ["/proc/self/fd/7", "/proc/1/cwd", "/sys", "/dev/fd/3", "/a/../x"])
async def test_a_working_directory_in_the_kernels_trees_is_refused(
    strict: Sandbox, cwd: str
) -> None:
    """CVE-2024-21626: as a spec's and as an exec's."""
    with pytest.raises(InvalidSpecError):
        ringfence.SandboxSpec.parse({"cwd": cwd})
    with pytest.raises(InvalidSpecError):
        await strict.exec(["true"], cwd=cwd)


async def test_no_descriptor_of_the_guest_or_the_host_is_inherited(strict: Sandbox) -> None:
    script = "import os; print(sorted(int(fd) for fd in os.listdir('/proc/self/fd'))[:-1])"
    result = await strict.exec(["python3", "-c", script])
    assert result.stdout.strip() == b"[0, 1, 2]"


async def test_the_first_process_can_be_neither_traced_nor_read(strict: Sandbox) -> None:
    script = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
found = []
for pid in [int(name) for name in os.listdir("/proc") if name.isdigit()]:
    if pid == os.getpid():
        continue
    if libc.ptrace(16, pid, 0, 0) == 0:
        found.append(f"attached to {pid}")
    for name in ("mem", "environ", "maps", "fd", "root", "cwd"):
        try:
            path = f"/proc/{pid}/{name}"
            os.listdir(path) if os.path.isdir(path) or name in ("root", "cwd", "fd") else open(path).read(1)
            found.append(path)
        except OSError:
            pass
print(found)
"""
    result = await strict.exec(["python3", "-c", script])
    assert result.stdout.strip() == b"[]", result.stderr


@pytest.mark.parametrize("source", [
    "/", "/etc", "/proc", "/sys", "/dev", "/run", "/var/run", "/var/run/docker.sock",
    "/var/lib/docker", str(Path.home()),
])  # fmt: skip
async def test_what_gives_the_host_away_is_never_bound(state_directory: Path, source: str) -> None:
    require_docker(DEBIAN)
    with pytest.raises((PolicyDeniedError, InvalidSpecError)):
        async with ringfence.open(
            image=DEBIAN,
            backend="docker",
            mounts=[ringfence.Mount(source=source, destination="/host", read_only=True)],
        ):
            pass


async def test_a_link_to_it_is_not_bound_either(tmp_path: Path, state_directory: Path) -> None:
    require_docker(DEBIAN)
    (tmp_path / "data").symlink_to("/etc")
    with pytest.raises(PolicyDeniedError):
        async with ringfence.open(
            image=DEBIAN,
            backend="docker",
            mounts=[ringfence.Mount(source=str(tmp_path / "data"), destination="/host")],
        ):
            pass


async def test_abstract_sockets_of_the_host_are_out_of_reach(strict: Sandbox) -> None:
    """They belong to the network namespace, not to the file system."""
    name = f"ringfence-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(b"\0" + name.encode())
        listener.listen()
        script = (
            f"import socket; s = socket.socket(socket.AF_UNIX); print(s.connect_ex('\\0{name}'))"
        )
        result = await strict.exec(["python3", "-c", script])
    assert result.stdout.strip() == b"111"


async def test_nothing_answers_that_is_not_inside(strict: Sandbox) -> None:
    """Neither the metadata address, nor the host's, nor a name, nor the hypervisor."""
    script = """
import errno, socket
for address in ("169.254.169.254", "172.17.0.1", "10.0.0.1", "1.1.1.1", "224.0.0.1"):
    with socket.socket() as one:
        one.settimeout(5)
        print(errno.errorcode[one.connect_ex((address, 80))])
for family in (40, 38, 17):
    try:
        socket.socket(family, socket.SOCK_STREAM)
        print("opened", family)
    except PermissionError:
        pass
try:
    print(socket.getaddrinfo("host.docker.internal", 80))
except OSError:
    pass
"""
    result = await strict.exec(["python3", "-c", script])
    assert set(result.stdout.split()) == {b"ENETUNREACH"}, result.stderr
