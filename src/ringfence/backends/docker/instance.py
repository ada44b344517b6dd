"""One container with a guest in it."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from ringfence.backends import late_binds
from ringfence.backends.base import Bind, Evidence, ProtocolFactory, Record
from ringfence.backends.cgroup_files import hold_sockets, make_room
from ringfence.backends.docker import failures, removal, rootfs, statistics, streams
from ringfence.backends.docker.config import limits_body
from ringfence.backends.docker.connecting import Connecting
from ringfence.backends.docker.directory import remove_directory
from ringfence.backends.docker.engine import Engine
from ringfence.backends.docker.inspection import (
    Inspection,
    cgroup_files,
    guest_status,
    inspect,
)
from ringfence.backends.docker.machine import Machine
from ringfence.backends.docker.pausing import Pausing, is_frozen
from ringfence.backends.exec_cgroups import ExecCgroup, ExecCgroups
from ringfence.digest import Descriptor, Digest
from ringfence.digest.store import Store
from ringfence.errors import (
    BackendUnavailableError,
    NotFoundError,
    ResourceExhaustedError,
    SandboxLostError,
    UnsupportedError,
)
from ringfence.metrics import Reader, open_cpu_counter, places_apart, places_of, reader_for
from ringfence.policy.profiles import is_gvisor
from ringfence.spec import Limits, State, Usage

_CHANGEABLE = frozenset({"memory", "swap", "cpus", "cpuset", "cpu_shares", "pids"})


class DockerInstance:
    """A container. Made by `DockerBackend.create` and `attach`.

    waiting: the stream that create opened already, for the first `connect`.
    """

    def __init__(
        self,
        engine: Engine,
        machine: Machine,
        record: Record,
        seen: Inspection,
        waiting: socket.socket | streams.Attached | None = None,
    ) -> None:
        self.record = record
        self.pid = seen.pid_here
        self._engine = engine
        self._machine = machine
        self._started = seen.started
        self._forked = (
            str(seen.data["Image"]) if seen.labels.get(rootfs.STEP) == rootfs.FORK else ""
        )
        self._directory = seen.run_directory
        self._connecting = Connecting(engine, record, self._directory, waiting)
        self._pausing = Pausing(engine, record, self.pid)
        # What create has just asked is not asked again for the receipt, while its process lives.
        self._just_seen = seen if waiting is not None else None
        self._reader: Reader | None = None
        self._execs: ExecCgroups | None = None
        self._deleted = False

    async def connect(self, factory: ProtocolFactory) -> asyncio.Transport:
        """The stream to the guest, as `Instance.connect` describes it."""
        return await self._connecting.connect(factory)

    async def bind(self, binds: Sequence[Bind], lives: Callable[[], Awaitable[object]]) -> None:
        """Bind more of the host in it, as `Enterable.bind` describes it."""
        if not self.pid:
            raise UnsupportedError("bind: its first process is not seen here", op="bind")
        await late_binds.bind(self.pid, binds, lives, below=False)

    async def state(self) -> State:
        """The Engine's word, and the freezer's."""
        seen = await self._inspect()
        if seen is None:
            return State.EXITED
        if seen.state is State.RUNNING and is_frozen(seen):
            return State.PAUSED
        return seen.state

    async def evidence(self) -> Evidence:
        """What the Engine and the kernel say of it. SandboxLostError when it is gone."""
        seen, self._just_seen = self._just_seen, None
        if seen is None or not seen.pid_here:
            seen = await self._inspect()
        if seen is None:
            raise self._lost("evidence")
        pid = seen.pid_here
        return Evidence(seen.data, guest_status(pid), cgroup_files(pid))

    async def usage(self) -> Usage | None:
        """Read from its cgroups on kept descriptors; asked of the Engine, which takes up to two
        seconds, when it is on another machine.

        SandboxLostError when it is gone.
        """
        if not self.pid:
            found = await statistics.ask(self._engine, self.record.native, self._started)
            if found is None:
                raise self._lost("usage")
            return found
        try:
            return self._commands().total(self._measured().read())
        except (NotFoundError, ProcessLookupError):
            raise self._lost("usage") from None

    async def exec_cgroup(self) -> ExecCgroup:
        """A cgroup for one command, below the container's; see `ExecCgroups.begin`.

        UnsupportedError where commands are no processes of this machine.
        """
        runtime = self.record.spec.security.runtime or self._machine.default_runtime
        if not self.pid or is_gvisor(runtime):
            raise UnsupportedError(
                "cgroup: commands of this sandbox are no processes of this machine", op="exec"
            )
        try:
            return await self._commands().begin()
        except (NotFoundError, ProcessLookupError):
            raise self._lost("exec") from None

    def _commands(self) -> ExecCgroups:
        if self._execs is None:
            self._execs = ExecCgroups(places_apart(self.pid))
        return self._execs

    def cpu_counter(self) -> int | None:
        """A descriptor of its counter of processor time, None when it is on another machine."""
        try:
            return open_cpu_counter(places_apart(self.pid)) if self.pid else None
        except ProcessLookupError:
            return None

    async def open_files(self) -> int | None:
        """How many descriptors its processes hold, the guest's too; None where /proc may not be
        read. UnsupportedError when it is on another machine, SandboxLostError when it is gone."""
        if not self.pid:
            raise UnsupportedError(
                "open_files: its processes are on another machine", op="open_files"
            )
        try:
            return await asyncio.to_thread(self._measured().open_files)
        except NotFoundError:
            raise self._lost("open_files") from None

    async def written(self) -> int:
        """Bytes of the container's own layer, as the Engine counts them, which takes it time.

        SandboxLostError when it is gone.
        """
        try:
            found = await self._engine.get(
                "written", "containers", self.record.native, "json", size=True
            )
        except NotFoundError:
            raise self._lost("written") from None
        return int(found.get("SizeRw") or 0)

    def _measured(self) -> Reader:
        if self._reader is None:
            self._reader = reader_for(self.pid)
        return self._reader

    async def pause(self) -> None:
        """Freeze everything in it; through its cgroup where that is possible, else the Engine.

        Idempotent. SandboxLostError when it is gone.
        """
        await self._pausing.pause()

    async def resume(self) -> None:
        """Let it go on. Idempotent. SandboxLostError when it is gone."""
        await self._pausing.resume()

    @property
    def changeable(self) -> frozenset[str]:
        """The limits that the daemon changes while it runs."""
        return _CHANGEABLE & self._machine.limits

    async def update(self, limits: Limits) -> None:
        """Change limits while it runs: memory, swap, cpus, cpuset, cpu_shares, pids; those that
        are None stay. InvalidSpecError when the daemon refuses a value, ResourceExhaustedError when
        more memory is used and its kernel would kill for it."""
        if limits.memory is not None and self.pid:
            self._make_room(limits.memory)
        freezer = self._pausing.freezer()
        frozen = freezer is not None and freezer.frozen()
        body = limits_body(limits, self._machine, self.record.spec.security.runtime)
        if freezer is not None and frozen:
            await freezer.thaw()
        try:
            await self._engine.post("update", "containers", self.record.native, "update", body=body)
        except NotFoundError:
            raise self._lost("update") from None
        except BackendUnavailableError:
            await self._check_room(limits.memory)
            raise
        finally:
            if freezer is not None and frozen:
                await freezer.freeze()
        if limits.memory is not None and self.pid:
            hold_sockets(self.pid, limits.memory)

    async def _check_room(self, memory: int | None) -> None:
        """Tell what a daemon cannot: version 1 refuses a limit below what is used."""
        usage = None if memory is None else await self.usage()
        if usage is not None and memory is not None and (usage.memory or 0) > memory:
            raise ResourceExhaustedError(
                f"limits: it uses more than {memory} already (memory)",
                op="update",
                sandbox_id=self.record.id,
            )

    def _make_room(self, memory: int) -> None:
        try:
            make_room(places_of(self.pid), memory)
        except (NotFoundError, ProcessLookupError):
            raise self._lost("update") from None

    async def commit(
        self, store: Store, annotations: Mapping[str, str], made: list[Digest]
    ) -> Descriptor:
        """Its root file system as an image in a store; see `rootfs.commit`. UnsupportedError under
        gVisor, which may keep changes to itself. ResourceExhaustedError when there is no room for
        what its files claim to hold, here or on the daemon. SandboxLostError when it is gone."""
        seen = await self._committable("snapshot", store.root)
        return await rootfs.commit(
            self._engine,
            self.record.native,
            str(seen.data["Image"]),
            store,
            annotations,
            made=made,
        )

    async def branch(self) -> str:
        """An image of its root file system, for forks; it goes with the last of them, or with
        `drop`. As `commit`."""
        seen = await self._committable("fork")
        return await rootfs.branch(self._engine, self.record.native, str(seen.data["Image"]))

    async def drop(self, image: str) -> None:
        """Remove an image that `branch` made, unless a container needs it. Idempotent."""
        await rootfs.drop(self._engine, image)

    async def _committable(self, op: str, *places: Path) -> Inspection:
        if is_gvisor(self.record.spec.security.runtime or self._machine.default_runtime):
            raise UnsupportedError(
                f"{op}: gVisor keeps changes to the root file system to itself: use runc",
                op=op,
                sandbox_id=self.record.id,
            )
        seen = await self._inspect()
        if seen is None:
            raise self._lost(op)
        daemon = [Path(self._machine.root)] if self.pid else []
        await asyncio.to_thread(rootfs.check_room, await self.written(), [*places, *daemon])
        return seen

    async def delete(self) -> None:
        """Kill it and remove it, its anonymous volumes and its directory, and the image of a fork
        with the last of them. Idempotent."""
        if self._deleted:
            return
        try:
            await removal.remove(self._engine, self.record.native)
            if self._forked:
                await rootfs.drop(self._engine, self._forked)
        finally:
            self.release()
        if self._directory is not None:
            remove_directory(self._directory)
        self._deleted = True

    def release(self) -> None:
        """Close what it holds open; it goes on. Idempotent."""
        self._connecting.drop()
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    async def _inspect(self) -> Inspection | None:
        return await inspect(self._engine, self.record.native)

    def _lost(self, op: str) -> SandboxLostError:
        return failures.of_ended(op, self.record.id)
