"""A repository over ssh, with a key that only the user's own agent has."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ringfence.errors import StateError
from ringfence.spec import Repository
from ringfence.workspace import clean, plan, prepare
from tests.conftest import missing
from tests.unit.workspace.conftest import git, inside
from tests.unit.workspace.conftest import repository as repository  # noqa: PLC0414 - a fixture

SBIN = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"


@dataclass
class Server:
    """A server on the loopback. place: host key, user key, authorized keys. port: where."""

    place: Path
    port: int

    def url(self, path: Path) -> str:
        user = pwd.getpwuid(os.geteuid()).pw_name
        return f"ssh://{user}@127.0.0.1:{self.port}{path}"

    def known(self) -> str:
        """The line of known_hosts for it."""
        key = (self.place / "host.pub").read_text()
        return f"[127.0.0.1]:{self.port} {key}"


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory with a short path, which the name of a socket needs."""
    with tempfile.TemporaryDirectory(prefix="rf ssh ") as name:
        yield Path(name)


@pytest.fixture
def server(place: Path) -> Iterator[Server]:
    """Its own sshd for every connection, with a configuration of ours."""
    program = shutil.which("sshd", path=SBIN)
    if program is None or shutil.which("ssh-agent") is None:
        missing("there is no sshd: apt-get install openssh-server openssh-client")
    if _is_locked():
        pytest.skip("the account has no password that could be right: sshd lets nobody in")
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(place / name)],
                       check=True, stdin=subprocess.DEVNULL)  # fmt: skip
    shutil.copy(place / "user.pub", place / "authorized")
    config = place / "config"
    config.write_text(
        f'HostKey "{place}/host"\nAuthorizedKeysFile "{place}/authorized"\nStrictModes no\n'
        "UsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPidFile none\n"
        "PermitRootLogin prohibit-password\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = [str(program), "-i", "-e", "-f", str(config)]
        thread = threading.Thread(target=_serve, args=(listener, command, place / "log"))
        thread.start()
        yield Server(place, listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def _is_locked() -> bool:
    """Whether sshd takes the user for locked out; not known to an ordinary user."""
    name = pwd.getpwuid(os.geteuid()).pw_name
    try:
        lines = Path("/etc/shadow").read_text().splitlines()
    except OSError:
        return False
    return any(line.startswith(f"{name}:!") for line in lines)


def _serve(listener: socket.socket, command: list[str], log: Path) -> None:
    children = []
    with log.open("wb") as errors:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                break
            with connection:
                children.append(
                    subprocess.Popen(
                        command,
                        stdin=connection.fileno(),
                        stdout=connection.fileno(),
                        stderr=errors,
                    )
                )
    for child in children:
        child.wait()


@pytest.fixture
def agent(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An agent with the user's key, and a home that knows the server."""
    address = server.place / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(address)], stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while not address.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(address))
        subprocess.run(["ssh-add", "-q", str(server.place / "user")], check=True)
        (server.place / "user").unlink()
        (server.place / ".ssh").mkdir(mode=0o700)
        (server.place / ".ssh/known_hosts").write_text(server.known())
        monkeypatch.setenv("HOME", str(server.place))
        yield
    finally:
        process.terminate()
        process.wait()


@pytest.mark.usefixtures("agent")
def test_the_users_own_agent_opens_it_and_stays_outside(
    repository: Path, server: Server, tmp_path: Path
) -> None:
    directory = tmp_path / "state/one"
    try:
        prepared = prepare(
            Repository(path=server.url(repository), ref="main", depth=1), directory=directory,
            uid=os.geteuid(), gid=os.getegid(), privileged=False, strategy="copy",
        )  # fmt: skip
        assert (inside(prepared) / "README.md").read_text() == "A project.\n"
        assert git(inside(prepared), "log", "--format=%s").strip() == "first"
        said = " ".join([*prepared.env, *prepared.env.values()])
        assert "agent" not in said.lower()
        assert "127.0.0.1" not in (inside(prepared) / ".git/config").read_text()
    finally:
        clean(directory)


@pytest.mark.usefixtures("agent")
def test_without_the_key_or_for_another_host_key_it_is_refused(
    repository: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = Repository(path=server.url(repository))
    known = server.place / ".ssh/known_hosts"
    known.write_text(server.known().replace("127.0.0.1", "127.0.0.2"))
    with pytest.raises(StateError, match="Host key verification failed"):
        plan(wanted)
    known.write_text(server.known())
    monkeypatch.delenv("SSH_AUTH_SOCK")
    with pytest.raises(StateError, match="Permission denied"):
        plan(wanted)
