"""Rows 19 and 21: without a network nothing answers that is not inside, by whatever family or name."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import ringfence

from .conftest import ALL, keywords, python, sh

pytestmark = [pytest.mark.asyncio(loop_scope="module"), ALL]


@asynccontextmanager
async def listener() -> AsyncIterator[tuple[int, list[str]]]:
    """A server on every address of the host: its port, and who came."""
    came: list[str] = []

    def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.append(str(writer.get_extra_info("peername")))
        writer.close()

    server = await asyncio.start_server(greet, "0.0.0.0", 0)
    try:
        yield server.sockets[0].getsockname()[1], came
    finally:
        server.close()


async def test_no_address_of_the_host_or_beyond_it_answers(box: ringfence.Sandbox) -> None:
    """Neither the metadata address, nor a gateway, nor the host's own, nor its loopback."""
    async with listener() as (port, came):
        probe = socket.create_connection(("127.0.0.1", port))
        probe.close()
        own = {"127.0.0.1", "169.254.169.254", "172.17.0.1", "10.0.0.1", "1.1.1.1", "224.0.0.1"}
        own |= {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None)}
        script = f"""
import errno, socket
for address in {sorted(map(str, own))}:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as one:
        one.settimeout(5)
        number = one.connect_ex((address, {port}))
        if number == 0:
            print("reached", address)
    with socket.socket(family, socket.SOCK_DGRAM) as one:
        try:
            one.sendto(b"x", (address, 53))
            if not address.startswith("127."):
                print("sent", address)
        except OSError:
            pass
"""
        assert await python(box, script) == ""
        while not came:
            await asyncio.sleep(0.01)
    assert len(came) == 1


async def test_no_name_is_known_and_nothing_resolves_names(box: ringfence.Sandbox) -> None:
    """Not even the names that engines give to the host."""
    script = """
import socket
for name in ("host.docker.internal", "gateway.docker.internal", "example.com", "metadata.google.internal"):
    try:
        print(name, socket.getaddrinfo(name, 80))
    except OSError:
        pass
"""
    assert await python(box, script, timeout=60) == ""
    assert "internal" not in await sh(box, "cat /etc/hosts")


async def test_no_family_that_leaves_the_network_namespace_opens(
    box: ringfence.Sandbox, kind: str
) -> None:
    """AF_VSOCK leads to the hypervisor, AF_ALG and AF_PACKET to the kernel, netlink to its tables
    (gVisor's are its own)."""
    families = [16, 17, 29, 30, 31, 38, 40, 44][kind == "gvisor" :]
    script = f"""
import socket
for family in {families}:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET):
        for protocol in (0, 2, 9, 15):
            if family == 16 and protocol == 0:
                continue
            try:
                socket.socket(family, kind, protocol)
                print("opened", family, kind, protocol)
            except OSError:
                pass
for protocol in (1, 6, 255):
    try:
        socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol)
        print("raw", protocol)
    except OSError:
        pass
"""
    assert await python(box, script) == ""


async def test_abstract_sockets_of_the_host_are_out_of_reach(box: ringfence.Sandbox) -> None:
    """They belong to the network namespace, not to the file system."""
    name = f"ringfence-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(b"\0" + name.encode())
        server.listen()
        script = (
            f"import socket; s = socket.socket(socket.AF_UNIX); print(s.connect_ex('\\0{name}'))"
        )
        assert await python(box, script) == "111\n"


HEARD = """
import socket
try:
    heard = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, 15)
    heard.bind((0, 1))
    print("listens")
except PermissionError:
    pass
"""


@pytest.mark.parametrize("profile", ["standard", "permissive"])
async def test_the_hosts_device_events_are_not_heard(state: Path, kind: str, profile: str) -> None:
    """The kernel sends them into each network namespace of the host's user namespace."""
    async with ringfence.open(**keywords(kind), profile=profile) as sandbox:
        assert await python(sandbox, HEARD) == ""
