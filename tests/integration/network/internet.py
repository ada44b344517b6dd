"""A host with a public-looking address in a network namespace of its own.

The addresses are of TEST-NET-2 (RFC 5737): nothing else answers there. Each user takes a block of
four under a lock, so that tests may run side by side.
"""

import contextlib
import fcntl
import os
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

BLOCKS = 60
_CLONE_NEWNET = 0x40000000


@dataclass
class Site:
    """A web server at a public-looking address. seen: path and headers of each request."""

    address: str
    directory: Path
    seen: list[tuple[str, dict[str, str]]]


@contextlib.contextmanager
def site(directory: Path) -> Iterator[Site]:
    """Serve `directory` on port 80 of an address of its own, in a namespace of its own."""
    with _block() as block:
        ours, theirs = f"198.51.100.{block * 4 + 1}", f"198.51.100.{block * 4 + 2}"
        namespace, outer, inner = f"rf-site-{block}", f"rfo{block}", f"rfi{block}"
        _clear(namespace, outer)
        try:
            _ip("netns", "add", namespace)
            _ip("link", "add", outer, "type", "veth", "peer", "name", inner, "netns", namespace)
            _ip("addr", "add", f"{ours}/30", "dev", outer)
            _ip("link", "set", outer, "up")
            _ip("-n", namespace, "addr", "add", f"{theirs}/30", "dev", inner)
            _ip("-n", namespace, "link", "set", inner, "up")
            _ip("-n", namespace, "link", "set", "lo", "up")
            found = Site(theirs, directory, [])
            with _served(namespace, found):
                yield found
        finally:
            _clear(namespace, outer)


@contextlib.contextmanager
def _block() -> Iterator[int]:
    """The number of a block that nobody else has."""
    folder = Path(tempfile.gettempdir(), "ringfence-test-net")
    folder.mkdir(mode=0o777, exist_ok=True)
    for number in range(BLOCKS):
        lock = os.open(folder / str(number), os.O_CREAT | os.O_RDWR, 0o666)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        try:
            yield number
        finally:
            os.close(lock)
        return
    raise RuntimeError("all test addresses are taken")


@contextlib.contextmanager
def _served(namespace: str, site: Site) -> Iterator[None]:
    """A server whose socket was made inside the namespace, served from here."""

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            site.seen.append((self.path, dict(self.headers)))
            super().do_GET()

        def log_message(self, *args: Any) -> None:
            return

    server: list[ThreadingHTTPServer] = []

    def make() -> None:
        with Path("/run/netns", namespace).open() as file:
            _setns(file.fileno())
        handler = partial(Handler, directory=str(site.directory))
        server.append(ThreadingHTTPServer((site.address, 80), handler))

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    serving = threading.Thread(target=server[0].serve_forever)
    serving.start()
    try:
        yield
    finally:
        server[0].shutdown()
        server[0].server_close()
        serving.join()


def _setns(descriptor: int) -> None:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def _ip(*args: str) -> None:
    subprocess.run(["ip", *args], check=True, capture_output=True, timeout=30)


def _clear(namespace: str, outer: str) -> None:
    for args in (("link", "del", outer), ("netns", "del", namespace)):
        subprocess.run(["ip", *args], check=False, capture_output=True, timeout=30)
