"""The backend of sandboxes that exist in memory only."""

import asyncio
import os
import socket
import stat
import time
from collections.abc import Mapping, Sequence
from functools import partial

from ringfence.backends.base import Bind, Evidence, Features, Found, ProtocolFactory, Record
from ringfence.backends.hosts import LOCALHOST
from ringfence.backends.mock.guest import MockGuest
from ringfence.backends.mock.script import (
    Call,
    Command,
    Fault,
    Pattern,
    Recorded,
    Script,
    check_pattern,
)
from ringfence.backends.mock.session import GuestSession
from ringfence.backends.mock.tree import Tree
from ringfence.errors import DeadlineExceededError, NotFoundError, SandboxError, SandboxLostError
from ringfence.guest.protocol import Cred
from ringfence.policy.facts import Facts, ImageFacts
from ringfence.spec import SandboxSpec, State, Usage

_ROOT = Cred(0, 0)
_USER = Cred(1000, 1000)
_PASSWD = "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home/user:/bin/sh\n"  # noqa: S105 - a file's content
_GROUP = "root:x:0:\nuser:x:1000:\n"
_CONNECT_SECONDS = 10.0
_LOOK_SECONDS = 0.02
_FEATURES = Features(
    transports=("memory",),
    family_kill="none",
    detached=True,
    users=True,
    receipt=False,
    usage=False,
)


class MockInstance:
    """One sandbox in memory."""

    def __init__(self, record: Record, guest: MockGuest, script: Script) -> None:
        self.record = record
        self.guest = guest
        self._script = script

    async def connect(self, factory: ProtocolFactory) -> asyncio.Transport:
        """A stream to the guest. SandboxLostError when it has ended, DeadlineExceededError while
        another client has it."""
        self._script.check("connect")
        end = time.monotonic() + _CONNECT_SECONDS
        while self.guest.held and not self.guest.dead:
            if time.monotonic() >= end:
                raise DeadlineExceededError("connect: another client holds it", op="connect")
            await asyncio.sleep(_LOOK_SECONDS)
        if self.guest.dead:
            raise SandboxLostError(
                "the mock sandbox has ended: create a new one",
                op="connect",
                sandbox_id=self.record.id,
            )
        ours, theirs = socket.socketpair()
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(partial(GuestSession, self.guest), sock=theirs)
            transport, _ = await loop.create_connection(factory, sock=ours)
        except BaseException:
            ours.close()
            theirs.close()
            raise
        return transport

    async def state(self) -> State:
        """RUNNING until it ended."""
        return State.EXITED if self.guest.dead else State.RUNNING

    async def evidence(self) -> Evidence:
        """Nothing but the fact that it is a mock: nothing is enforced."""
        return Evidence({"backend": "mock"})

    async def usage(self) -> Usage | None:
        """None: it uses nothing that could be told."""
        return None

    async def delete(self) -> None:
        """End it. Idempotent."""
        self._script.check("delete")
        self.guest.die()


class MockBackend:
    """A backend for tests of programs that use Ringfence: no daemon, no isolation at all.

    Say with `on` which commands there are, with `fail` and `delay` what goes wrong; read in
    `calls` what happened. files: content by absolute path, in every new sandbox, owned by the
    user 1000. endpoint: unused. docs/mock.md has an example.
    """

    name = "mock"

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        commands: Mapping[str, Command] | None = None,
        files: Mapping[str, bytes | str] | None = None,
    ) -> None:
        self.endpoint = endpoint
        self._script = Script()
        self._files = dict(files or {})
        self._instances: dict[str, MockInstance] = {}
        for name, command in (commands or {}).items():
            self._script.commands.append(((name, ...), command))

    # What a test says and reads.

    def on(
        self,
        pattern: Pattern,
        command: Command | None = None,
        *,
        stdout: bytes | str = b"",
        stderr: bytes | str = b"",
        exit_code: int = 0,
        delay: float = 0.0,
        files: Mapping[str, bytes | str] | None = None,
    ) -> None:
        """Say what happens when arguments that match `pattern` are executed.

        Either `command` runs, or after `delay` seconds `files` are written with the permissions of
        the command's user, stdout and stderr are given out and it exits. The newest match wins.
        """

        async def scripted(call: Call) -> int:
            await asyncio.sleep(delay)
            for path, data in (files or {}).items():
                call.write_file(path, _bytes(data))
            await call.stdout(_bytes(stdout))
            await call.stderr(_bytes(stderr))
            return exit_code

        self._script.commands.append((check_pattern(pattern), command or scripted))

    def fail(
        self,
        op: str,
        *,
        errno: int = 0,
        stage: int = 0,
        error: SandboxError | None = None,
        times: int = 1,
    ) -> None:
        """Fail the next `times` operations `op`.

        op: of the backend ("facts", "create", "connect", "attach", "delete") with `error`, or of
        the guest ("exec", "read", "write", "stat", "list_dir", "user" ...) with `errno` (and, for
        exec, `stage`; see docs/guest-protocol.md).
        """
        self._script.faults.append(Fault(op, times, errno=errno, stage=stage, error=error))

    def delay(self, op: str, seconds: float, *, times: int = 1) -> None:
        """Begin the next `times` operations `op` of the guest `seconds` late."""
        self._script.faults.append(Fault(op, times, delay=seconds))

    def hang(self, op: str, *, times: int = 1) -> None:
        """Never answer the next `times` operations `op` of the guest."""
        self._script.faults.append(Fault(op, times, hang=True))

    def lose(self, op: str) -> None:
        """End the sandbox, as by `docker rm -f`, when the next operation `op` reaches its guest."""
        self._script.faults.append(Fault(op, lose=True))

    @property
    def calls(self) -> Sequence[Recorded]:
        """The operations that reached a guest, oldest first."""
        return tuple(self._script.calls)

    # The backend.

    async def features(self) -> Features:
        """Detached sandboxes (within this object) and users; nothing is enforced."""
        return _FEATURES

    async def facts(self, spec: SandboxSpec) -> Facts:
        """Any image exists, with the user 1000."""
        self._script.check("facts")
        image = None
        if spec.image is not None:
            image = ImageFacts(digest="sha256:" + "0" * 64, user="1000")
        return Facts(memory=2**34, cpus=4.0, nofile=2**20, image=image)

    async def create(
        self,
        spec: SandboxSpec,
        sandbox_id: str,
        facts: Facts,
        *,
        binds: Sequence[Bind] = (),  # noqa: ARG002 - a mock has no host to show
    ) -> MockInstance:
        """A new tree with its guest. Of `binds` nothing appears in it: its files are invented."""
        self._script.check("create")
        record = Record(
            id=sandbox_id,
            backend=self.name,
            endpoint=self.endpoint or "",
            native=sandbox_id,
            transport="memory",
            spec=spec,
            created=time.time(),
            ends=None if spec.lifetime is None else time.time() + spec.lifetime,
            image_digest=None if facts.image is None else facts.image.digest,
        )
        guest = MockGuest(_tree(self._files), self._script)
        instance = MockInstance(record, guest, self._script)
        self._instances[sandbox_id] = instance
        return instance

    async def attach(self, record: Record) -> MockInstance:
        """The instance of an earlier create of this object; NotFoundError when it is gone."""
        self._script.check("attach")
        instance = self._instances.get(record.id)
        if instance is None or instance.guest.dead:
            raise NotFoundError(
                f"there is no mock sandbox {record.id}: it ended, or another MockBackend made it",
                op="attach",
                sandbox_id=record.id,
            )
        return instance

    def record(self, sandbox_id: str) -> Record:
        """The record of a sandbox of this object; NotFoundError."""
        instance = self._instances.get(sandbox_id)
        if instance is None:
            raise NotFoundError(
                f"there is no mock sandbox {sandbox_id}", op="open", sandbox_id=sandbox_id
            )
        return instance.record

    async def found(self, labels: Mapping[str, str]) -> Sequence[Found]:
        """The sandboxes of this object that run and carry these labels."""
        return [
            Found(
                record.id,
                record.native,
                State.RUNNING,
                dict(record.spec.labels),
                record.spec.image,
                record.created,
            )
            for record in (i.record for i in self._instances.values() if not i.guest.dead)
            if labels.items() <= record.spec.labels.items()
        ]

    async def aclose(self) -> None:
        """Nothing is open between calls."""


def _bytes(data: bytes | str) -> bytes:
    return data.encode() if isinstance(data, str) else data


def _tree(files: Mapping[str, bytes | str]) -> Tree:
    tree = Tree()
    for name in (b"/bin", b"/etc", b"/home", b"/root", b"/tmp", b"/workspace"):
        tree.mkdir(name, _ROOT)
    tree.chmod(b"/tmp", _ROOT, stat.S_ISVTX | 0o777)
    tree.mkdir(b"/home/user", _ROOT)
    for name in (b"/home/user", b"/workspace"):
        node = tree.find(name, _ROOT)
        node.uid, node.gid = _USER.uid, _USER.gid
    system = {
        "/etc/passwd": (_ROOT, _PASSWD),
        "/etc/group": (_ROOT, _GROUP),
        "/etc/hosts": (_ROOT, LOCALHOST),
    }
    given = {path: (_USER, data) for path, data in files.items()}
    for path, (owner, data) in {**system, **given}.items():
        tree.plant(os.fsencode(path), owner, _bytes(data))
    return tree
