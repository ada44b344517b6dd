"""Row 20: from inside, no spelling gets the egress proxy to an address that is not to be reached."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
import pytest_asyncio

import ringfence
from ringfence.events import EgressDecided

from .conftest import DOCKER, PROCESS, keywords, python
from .test_row_19_network import listener

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.parametrize("kind", [DOCKER, PROCESS], scope="module"),
]

NAMES = {
    "good.test": ["127.0.0.1"],
    "mixed.good.test": ["198.51.100.7", "127.0.0.1"],
    "six.good.test": ["::1"],
    "mapped.good.test": ["::ffff:127.0.0.1"],
    "nat.good.test": ["64:ff9b::7f00:1"],
    "any.good.test": ["0.0.0.0"],
    "meta.good.test": ["169.254.169.254"],
    "evil.test": ["127.0.0.1"],
}
TARGETS = [
    *NAMES, "127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "0", "localhost",
    "localhost.", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::1%25lo]", "GOOD.test.",
    "good.test\\0.evil.test", "good.test@127.0.0.1", "127.0.0.1#good.test", "127.0.0.1\\\\good.test",
    "good.test.evil.test", "evilgood.test", "good.test%00.evil.test", "good。test", "127。0。0。1",
    "good.test:443@127.0.0.1", " good.test", "good.test\\t", "", ".", ".good.test", "x" * 5000,
]  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def reached(
    kind: str, state: Path
) -> AsyncIterator[tuple[ringfence.Sandbox, int, list[str]]]:
    """A sandbox with a proxy, a port of the host that its rules name, and who came to that port."""

    async def resolve(host: str, port: int) -> Sequence[str]:
        if host not in NAMES:
            raise OSError(f"{host}: no such name")
        return NAMES[host]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ringfence.network.proxy.resolve", resolve)
        async with listener() as (port, came):
            network = {"mode": "proxy", "allow": [f"good.test:{port}", f".good.test:{port}"]}
            async with ringfence.open(**keywords(kind), network=network) as sandbox:
                yield sandbox, port, came


SCRIPT = """
import socket, struct
def ask(data):
    try:
        with socket.create_connection(("127.0.0.1", 3128), 20) as one:
            one.settimeout(TIMEOUT)
            one.sendall(data)
            got = one.recv(4096)
        if b" 200" in got[:16]:
            print("answered", data[:60], got[:60])
    except OSError:
        pass
def socks(kind, address):
    try:
        with socket.create_connection(("127.0.0.1", 3128), 20) as one:
            one.settimeout(TIMEOUT)
            one.sendall(b"\\5\\1\\0")
            one.recv(2)
            one.sendall(b"\\5\\1\\0" + kind + address + struct.pack(">H", PORT))
            got = one.recv(64)
        if got[1:2] == b"\\0":
            print("socks", address, got)
    except OSError:
        pass
for target in TARGETS:
    raw = target.encode("utf-8", "surrogateescape")
    for port in (b":%d" % PORT, b""):
        ask(b"CONNECT " + raw + port + b" HTTP/1.1\\r\\nHost: " + raw + port + b"\\r\\n\\r\\n")
        ask(b"CONNECT " + raw + port + b" HTTP/1.1\\r\\nHost: good.test\\r\\n\\r\\n")
        ask(b"GET http://" + raw + port + b"/ HTTP/1.1\\r\\nHost: good.test:%d\\r\\n\\r\\n" % PORT)
        ask(b"GET / HTTP/1.1\\r\\nHost: " + raw + port + b"\\r\\n\\r\\n")
    socks(b"\\3", bytes([min(len(raw), 255)]) + raw[:255])
socks(b"\\1", b"\\x7f\\0\\0\\1")
socks(b"\\4", bytes(15) + b"\\1")
socks(b"\\4", bytes(10) + b"\\xff\\xff\\x7f\\0\\0\\1")
"""


async def test_no_spelling_of_a_target_reaches_the_host(
    reached: tuple[ringfence.Sandbox, int, list[str]],
) -> None:
    """CONNECT, GET, a Host that says something else, SOCKS: all are refused, and nobody came."""
    sandbox, port, came = reached
    script = f"PORT = {port}\nTIMEOUT = 20\nTARGETS = {TARGETS!r}\n{SCRIPT}"
    assert await python(sandbox, script, timeout=120) == ""
    assert came == []
    allowed = [e for e in sandbox.history if isinstance(e, EgressDecided) and e.allowed]
    assert allowed == []
    assert [e for e in sandbox.history if isinstance(e, EgressDecided)]


async def test_requests_cannot_be_smuggled_behind_others(
    reached: tuple[ringfence.Sandbox, int, list[str]],
) -> None:
    """Two requests in one, two lengths, folded or broken lines: nobody came."""
    sandbox, port, came = reached
    attacks = [
        (
            "GET http://good.test:P/ HTTP/1.1\r\nHost: good.test:P\r\nContent-Length: 0\r\n"
            "Transfer-Encoding: chunked\r\n\r\nGET http://evil.test:P/ HTTP/1.1\r\n\r\n"
        ),
        "GET http://good.test:P/ HTTP/1.1\r\nHost: good.test:P\r\nHost: 127.0.0.1:P\r\n\r\n",
        "GET http://good.test:P/\r\nHost: 127.0.0.1:P HTTP/1.1\r\n\r\n",
        "GET http://good.test:P/ HTTP/1.1\nHost: 127.0.0.1:P\n\n",
        "CONNECT good.test:P HTTP/1.1\r\n CONNECT 127.0.0.1:P HTTP/1.1\r\n\r\n",
        "CONNECT good.test:443:P HTTP/1.1\r\n\r\n",
        "CONNECT good.test:+P HTTP/1.1\r\n\r\n",
        "CONNECT good.test:65536 HTTP/1.1\r\n\r\n",
    ]
    script = f"PORT = {port}\nTIMEOUT = 1\nTARGETS = []\n{SCRIPT}\n" + "".join(
        f"ask({text.replace('P/', f'{port}/').replace(':P', f':{port}')!r}.encode())\n"
        for text in attacks
    )
    assert await python(sandbox, script, timeout=120) == ""
    assert came == []


async def test_without_the_variables_there_is_no_way_at_all(
    reached: tuple[ringfence.Sandbox, int, list[str]],
) -> None:
    """They are a convenience: what ignores them finds no interface, not an open one."""
    sandbox, port, came = reached
    off = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY"), None)
    script = f"""
import socket
print(open("/proc/net/dev").read().count(":"))
for address in ("127.0.0.1", "172.17.0.1", "198.51.100.7"):
    with socket.socket() as one:
        one.settimeout(5)
        if one.connect_ex((address, {port})) == 0:
            print("reached", address)
"""
    assert await python(sandbox, script, env=off) == "1\n"
    assert came == []


async def test_the_proxy_is_the_sandboxes_alone(
    reached: tuple[ringfence.Sandbox, int, list[str]],
) -> None:
    """It listens inside; on the host there is no port that another user could use."""
    _sandbox, port, _came = reached
    own = set()
    for number in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            own.add(str(number.readlink()))
    listening = set()
    for table in ("/proc/self/net/tcp", "/proc/self/net/tcp6"):
        for row in Path(table).read_text().splitlines()[1:]:
            fields = row.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in own:
                listening.add(int(fields[1].rpartition(":")[2], 16))
    assert listening == {port}
