"""What a backend is: it makes an isolated place, starts the guest in it and hands back the stream.

Nouns. A **backend** makes instances on one daemon or machine. An **instance** is one isolated
place whose first process is the guest. Its **stream** carries the guest protocol. **Facts** are
what the backend knows before anything starts. **Evidence** is what the runtime and the kernel say
of an instance after it started, seen from outside.

Life of an instance: `create` (place made, guest started, nothing of the user's has run), `connect`
(any number of times, one at a time), `delete` (idempotent; nothing is left). `attach` gives the
instance of a sandbox that another process created.

A backend never runs commands and never touches files inside: the guest session does.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from ringfence.errors import SandboxError
from ringfence.policy.facts import Facts
from ringfence.spec import SandboxSpec, State, Usage

ProtocolFactory = Callable[[], asyncio.BaseProtocol]


@dataclass(frozen=True, slots=True)
class Features:
    """What this backend can enforce and do; what is absent raises UnsupportedError when asked for.

    limits: names of `Limits` fields (and "ulimits") that hold. transports: in order of preference.
    family_kill: "exec" when killing one exec spares the others of its user, else "user".
    locks: whether `SandboxSpec.lock` decides which image is used.
    networks: modes of `Network`; "proxy" and published ports need the guest's forward. watched:
    limits that nothing holds, but whose use the holder can watch, where `allow_degraded` has them.
    exec_cgroups: whether a command can have a cgroup of its own (`exec(cgroup=True)`), where the
    sandbox is on a socket.
    missing: why what cgroups do (limits, usage, pause) is not to be had here, and what can be done;
    "" when nothing is missing.
    lifeline: whether an attached instance ends with its client and nothing of it stays, even when
    that happens while it is made; its record is then written once it is made, not before.
    cpu_counter: whether a guest can be handed the counter of its sandbox's processor time, so that
    `limits.cpu_time` holds in detached sandboxes, too; see `Counted`.
    late_binds: whether more of the host can be bound in an instance that runs; see `Enterable`.
    """

    limits: frozenset[str] = frozenset()
    transports: tuple[str, ...] = ()
    family_kill: str = "exec"
    pty: bool = False
    detached: bool = False
    users: bool = False
    mounts: bool = False
    pause: bool = False
    locks: bool = False
    runtimes: frozenset[str] = frozenset()
    networks: frozenset[str] = frozenset({"none"})
    receipt: bool = True
    usage: bool = True
    watched: frozenset[str] = frozenset()
    lifeline: bool = False
    exec_cgroups: bool = False
    cpu_counter: bool = False
    late_binds: bool = False
    missing: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """What is needed to find an instance again; kept in the ledger.

    native: the backend's own name for it (a container id). marker: what the guest of a detached
    sandbox on a stream waits for. created, ends: seconds since the epoch.
    """

    id: str
    backend: str
    endpoint: str
    native: str
    transport: str
    spec: SandboxSpec
    created: float
    ends: float | None = None
    marker: bytes = b""
    image_digest: str | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """One sandbox that a daemon knows of, by its labels."""

    id: str
    native: str
    state: State
    labels: Mapping[str, str]
    image: str | None = None
    created: float | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is seen of an instance from outside.

    runtime: the daemon's own description, as data (docker: the inspect answer). guest_status:
    /proc/PID/status of the guest on this host, "" when the daemon is elsewhere. cgroup: limit
    files by name, such as {"pids.max": "288"}, read on this host, empty when elsewhere. here: the
    namespaces of this process at that time, by kind, {} when they were not looked at.
    """

    runtime: Mapping[str, object]
    guest_status: str = ""
    cgroup: Mapping[str, str] = field(default_factory=dict)
    here: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Bind:
    """One directory or file of the host that appears inside: the repository, a mount, a workspace.

    source: absolute path on the host, checked by `backends.sources`. destination: absolute path
    inside. The backend binds it as it stands and asks no more. volume: instead of a source, the
    options (type, device, o) of a local volume that the daemon mounts itself.
    """

    source: str
    destination: str
    read_only: bool = True
    volume: Mapping[str, str] | None = None


class Instance(Protocol):
    """One isolated place with a guest in it."""

    record: Record

    async def connect(self, factory: ProtocolFactory) -> asyncio.Transport:
        """Open the stream to the guest and return its transport, connected to `factory()`.

        The bytes are the guest protocol's in both directions, whatever carries them. The first
        stream may wait for its guest to come up, with what is sent meanwhile. Raises
        SandboxLostError when the instance is gone, DeadlineExceededError when the guest does not
        come within 10 s. Cancellation closes what was opened.
        """
        ...

    async def state(self) -> State:
        """The runtime's word, never a memory. EXITED when it is gone."""
        ...

    async def evidence(self) -> Evidence:
        """What runtime and kernel say of it from outside."""
        ...

    async def usage(self) -> Usage | None:
        """Its usage seen from outside, None when the backend cannot tell."""
        ...

    async def delete(self) -> None:
        """Kill it and remove all that belongs to it. Idempotent. Not interrupted by cancellation
        (the caller shields it)."""
        ...


@runtime_checkable
class Pausable(Protocol):
    """An instance that can be frozen and thawed."""

    async def pause(self) -> None:
        """Freeze all processes."""
        ...

    async def resume(self) -> None:
        """Thaw them."""
        ...


@runtime_checkable
class Counted(Protocol):
    """An instance whose processor time a guest on a socket can watch itself."""

    def cpu_counter(self) -> int | None:
        """A descriptor of its cgroup's counter, open for reading, which the caller closes; None
        where it cannot be had."""
        ...


@runtime_checkable
class Enterable(Protocol):
    """An instance in which more of the host can be bound while it runs."""

    async def bind(self, binds: Sequence[Bind], lives: Callable[[], Awaitable[object]]) -> None:
        """Bind these, in their order, as `create` would have. No link inside is followed on the
        way to a destination; directories of it that are missing are made.

        lives: raises unless the guest answers; it is called once. InvalidSpecError for a
        destination that cannot be made, PolicyDeniedError for a link, NotFoundError,
        ResourceExhaustedError, UnsupportedError, SandboxLostError. An error or a cancellation,
        which is raised once the work is done, leaves what was bound: delete the instance then.
        """
        ...


@runtime_checkable
class Starting(Protocol):
    """An instance that `create` may hand out before its guest is up; the first stream ends where
    the guest does not come up."""

    def started(self) -> None:
        """Its guest has answered: the start is over. Idempotent."""
        ...

    async def not_started(self) -> SandboxError | None:
        """The error of a start whose stream ended before the guest answered, as `create` would
        have raised it; None where the start is over."""
        ...


@runtime_checkable
class Releasing(Protocol):
    """An instance that keeps descriptors open, to be asked again at less cost."""

    def release(self) -> None:
        """Close them: nobody asks anything of it any more but `delete`. The instance goes on when
        it was attached to, or made detached. Idempotent."""
        ...


def filter_of(instance: Instance) -> bytes:
    """The seccomp filter (as of `policy.seccomp.bpf`) of an instance whose place has none of its
    own, its attribute `filter`: the guest installs it in every command, once the host has sent it.
    """
    found: bytes = getattr(instance, "filter", b"")
    return found


def user_of(instance: Instance) -> tuple[int, int] | None:
    """The uid and gid of its commands, its attribute `user`, where its backend itself wrote the
    files that say so: what needs them can begin before the guest has looked them up."""
    found: tuple[int, int] | None = getattr(instance, "user", None)
    return found


def release(instance: Instance) -> None:
    """Let go of an instance that goes on without its holder. Idempotent."""
    if isinstance(instance, Releasing):
        instance.release()


class Backend(Protocol):
    """Makes instances. Constructed with `endpoint`: a URL, or None for the environment's."""

    name: str

    async def features(self) -> Features:
        """What it can enforce; BackendUnavailableError when it is not there."""
        ...

    async def facts(self, spec: SandboxSpec) -> Facts:
        """What is known of image and machine; ImageNotFoundError, BackendUnavailableError."""
        ...

    async def create(
        self, spec: SandboxSpec, sandbox_id: str, facts: Facts, *, binds: Sequence[Bind] = ()
    ) -> Instance:
        """Make the place for a granted spec and start the guest. An error leaves nothing behind,
        nor does cancellation.

        binds: all of the host that appears inside; `spec.repository` and `spec.mounts` are not
        looked at, they were made into these.
        """
        ...

    async def attach(self, record: Record) -> Instance:
        """The instance of an earlier create; NotFoundError when it is gone."""
        ...

    async def found(self, labels: Mapping[str, str]) -> Sequence[Found]:
        """All sandboxes of Ringfence on this endpoint that carry these labels."""
        ...

    async def aclose(self) -> None:
        """Close connections; instances go on."""
        ...
