"""The same daemon over TCP, plain and with TLS on both sides."""

import asyncio
import contextlib
import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ringfence.backends.docker import DockerBackend
from ringfence.errors import BackendUnavailableError
from ringfence.guest.request import ExecRequest, Exit

from ...conftest import require_docker
from ...images import BUSYBOX
from .conftest import assert_nothing_left, greet, new_id, spec_of

pytestmark = pytest.mark.docker

SOCKET = "/var/run/docker.sock"


@contextlib.asynccontextmanager
async def relay(context: ssl.SSLContext | None) -> AsyncIterator[int]:
    """The port of a relay to the daemon's socket."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        inner_reader, inner_writer = await asyncio.open_unix_connection(SOCKET)
        try:
            await asyncio.gather(copy(reader, inner_writer), copy(inner_reader, writer))
        except (asyncio.CancelledError, OSError):
            pass
        finally:
            inner_writer.transport.abort()
            writer.transport.abort()
            tasks.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
    else:
        writer.close()


async def works(backend: DockerBackend) -> None:
    """A sandbox comes and goes over this backend."""
    spec, sandbox_id = spec_of(), new_id()
    try:
        instance = await backend.create(spec, sandbox_id, await backend.facts(spec))
        try:
            session = await greet(instance)
            ended = await session.run(ExecRequest(["/bin/echo", "hello"], uid=1000, gid=1000))
            assert isinstance(ended, Exit)
            assert ended.stdout == b"hello\n"
            await session.close()
        finally:
            await instance.delete()
    finally:
        await backend.aclose()
    assert_nothing_left(sandbox_id)


async def test_a_daemon_over_tcp(state_directory: Path, transport: str) -> None:
    require_docker(BUSYBOX)
    async with relay(None) as port:
        await works(DockerBackend(f"tcp://127.0.0.1:{port}"))


def certify(directory: Path) -> ssl.SSLContext:
    """ca.pem, cert.pem and key.pem in `directory`; a server's context that asks for them."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    for file in ("ca.pem", "cert.pem"):
        (directory / file).write_bytes(pem)
    (directory / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "cert.pem", directory / "key.pem")
    context.load_verify_locations(directory / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    return context


async def test_a_daemon_over_tls_that_asks_for_a_certificate(
    state_directory: Path, transport: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_docker(BUSYBOX)
    async with relay(certify(tmp_path)) as port:
        monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
        monkeypatch.setenv("DOCKER_CERT_PATH", str(tmp_path))
        await works(DockerBackend(f"tcp://127.0.0.1:{port}"))


async def test_a_daemon_with_another_certificate_is_not_talked_to(
    state_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_docker()
    for name in ("theirs", "ours"):
        (tmp_path / name).mkdir()
    certify(tmp_path / "ours")
    async with relay(certify(tmp_path / "theirs")) as port:
        monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
        monkeypatch.setenv("DOCKER_CERT_PATH", str(tmp_path / "ours"))
        backend = DockerBackend(f"tcp://127.0.0.1:{port}")
        with pytest.raises(BackendUnavailableError, match="certificate"):
            await backend.features()
        await backend.aclose()
