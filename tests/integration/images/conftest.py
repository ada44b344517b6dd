"""A real registry on loopback, and one that does not keep its word."""

import contextlib
import json
import re
import secrets
import socket
import subprocess
import tarfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ringfence.backends.docker.supply import Supply
from ringfence.digest import Digest

from ...conftest import missing, require_docker

CONFIG = """version: 0.1
log: {{level: error}}
storage:
  filesystem: {{rootdirectory: {root}}}
  delete: {{enabled: true}}
http: {{addr: "127.0.0.1:{port}"}}
{more}
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/", timeout=5):
            return True
    except urllib.error.HTTPError as error:
        return error.code == 401
    except OSError:
        return False


@contextlib.contextmanager
def serving(directory: Path, more: str = "") -> Iterator[str]:
    """The address of Debian's docker-registry, started. more: lines of its configuration."""
    require_docker()
    for _ in range(5):
        port = free_port()
        config = directory / "config.yml"
        config.write_text(CONFIG.format(root=directory / "data", port=port, more=more))
        try:
            process = subprocess.Popen(
                ["docker-registry", "serve", config],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        except FileNotFoundError:
            missing("docker-registry is not installed: apt-get install docker-registry")
        end = time.monotonic() + 30
        while process.poll() is None and not _answers(port) and time.monotonic() < end:
            time.sleep(0.05)
        if process.poll() is None and _answers(port):
            break
        process.kill()
        process.wait()
    else:
        pytest.fail("docker-registry does not start")
    try:
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry for this module that anybody may use."""
    with serving(tmp_path_factory.mktemp("registry")) as address:
        yield address


@pytest.fixture
async def supply() -> AsyncIterator[Supply]:
    require_docker()
    async with Supply() as supply:
        yield supply


@pytest.fixture
def name() -> Iterator[str]:
    """A name for images of this test, which are removed afterwards."""
    made = f"ringfence-images-test/{secrets.token_hex(6)}"
    yield made
    listed = subprocess.run(
        ["docker", "images", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}"],
        capture_output=True, text=True, check=False, timeout=60,
    ).stdout  # fmt: skip
    for line in listed.splitlines():
        if made in line:
            tag, image = line.split()
            target = image if tag.endswith(":<none>") else tag
            subprocess.run(
                ["docker", "rmi", "-f", target], capture_output=True, check=False, timeout=60
            )


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    """A root file system of one file with content of its own."""
    directory = tmp_path / "rootfs"
    directory.mkdir()
    (directory / "who").write_bytes(secrets.token_bytes(64))
    path = tmp_path / "rootfs.tar"
    with tarfile.open(path, "w") as archive:
        archive.add(directory, ".")
    return path


def push(source: str, target: str, config: Path | None = None) -> None:
    """Put an image of the daemon into a registry under another name. config: Docker's directory."""
    docker = ["docker", *(["--config", str(config)] if config else [])]
    for command in (["tag", source, target], ["push", "-q", target], ["rmi", target]):
        subprocess.run([*docker, *command], check=True, capture_output=True, timeout=120)


MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


@dataclass
class Liar:
    """A registry that serves `manifests` by tag or digest and `blobs`; `announced` goes into the
    header Docker-Content-Digest in place of the truth. `stall`: bytes of a blob after which nothing
    more comes until `go_on`."""

    manifests: dict[str, bytes] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    announced: str | None = None
    stall: int | None = None
    stalled: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)
    address: str = ""

    def image(self, content: bytes) -> str:
        """Add an image with one layer; its manifest's digest."""
        layer = tar_of("who", content)
        config = json.dumps(
            {
                "architecture": "amd64",
                "os": "linux",
                "config": {},
                "rootfs": {"type": "layers", "diff_ids": [Digest.from_bytes(layer)]},
                "history": [{"created": "2024-01-01T00:00:00Z", "created_by": "test"}],
            }
        ).encode()
        for blob in (layer, config):
            self.blobs[Digest.from_bytes(blob)] = blob
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": described("application/vnd.docker.container.image.v1+json", config),
                "layers": [described("application/vnd.docker.image.rootfs.diff.tar", layer)],
            }
        ).encode()
        digest = Digest.from_bytes(manifest)
        self.manifests[digest] = self.manifests["latest"] = manifest
        return digest


def described(kind: str, content: bytes) -> dict[str, object]:
    return {"mediaType": kind, "size": len(content), "digest": Digest.from_bytes(content)}


def tar_of(name: str, content: bytes) -> bytes:
    import io

    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


@pytest.fixture
def liar() -> Iterator[Liar]:
    liar = Liar()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, *, body: bool) -> None:
            if self.path == "/v2/":
                return self.reply(b"{}", body=body)
            match = re.fullmatch(r"/v2/.+/(manifests|blobs)/(.+)", self.path)
            found = getattr(liar, match[1]).get(match[2]) if match else None
            if found is None or match is None:
                self.send_error(404)
                return None
            if match[1] == "manifests":
                digest = liar.announced or Digest.from_bytes(found)
                return self.reply(found, body=body, kind=MANIFEST, digest=digest)
            return self.reply(found, body=body, stall=liar.stall if len(found) > 100_000 else None)

        def reply(
            self, data: bytes, *, body: bool, kind: str = "application/octet-stream",
            digest: str | None = None, stall: int | None = None,
        ) -> None:  # fmt: skip
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            if digest:
                self.send_header("Docker-Content-Digest", digest)
            self.end_headers()
            if not body:
                return
            if stall is not None:
                self.wfile.write(data[:stall])
                liar.stalled.set()
                liar.go_on.wait(60)
                data = data[stall:]
            with contextlib.suppress(OSError):
                self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    liar.address = f"127.0.0.1:{server.server_address[1]}"
    yield liar
    liar.go_on.set()
    server.shutdown()
    server.server_close()
