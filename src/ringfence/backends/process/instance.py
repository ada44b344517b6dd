"""One sandbox on this machine."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial

from ringfence.backends import late_binds
from ringfence.backends.base import Bind, Evidence, ProtocolFactory, Record
from ringfence.backends.cgroups import Cgroup
from ringfence.backends.door import join
from ringfence.backends.exec_cgroups import ExecCgroup, ExecCgroups
from ringfence.backends.namespaces import own_namespaces
from ringfence.backends.process import evidence
from ringfence.backends.process.home import Home
from ringfence.backends.process.keeper import Keeper, end
from ringfence.backends.process.starting import Start
from ringfence.errors import (
    BackendUnavailableError,
    NotFoundError,
    SandboxLostError,
    StateError,
    UnsupportedError,
)
from ringfence.metrics import Reader, open_cpu_counter, reader_of
from ringfence.spec import Limits, State, Usage

_FREEZE_SECONDS = 5.0
_LOOK_SECONDS = 0.0005
_HANG_UP_SECONDS = 0.5
"""How long what such a guest wrote last may take to be read."""


class ProcessInstance:
    """A sandbox. Made by `ProcessBackend.create` and `attach`.

    pid: the guest's, None where it is yet to be told. filter: the granted seccomp profile
    as a program for the guest's FILTER, b"" for none. start: what is left of the start that made
    it, None where it was attached to. user: see `base.user_of`. ends: how many of its backend's
    instances may end at once.
    """

    def __init__(
        self,
        record: Record,
        home: Home,
        keeper: Keeper,
        cgroup: Cgroup | None,
        *,
        pid: int | None = None,
        program: bytes = b"",
        start: Start | None = None,
        user: tuple[int, int] | None = None,
    ) -> None:
        self.record = record
        self.filter = program
        self.user = user
        self._home = home
        self._keeper = keeper
        self._cgroup = cgroup
        self._start = start
        if start is not None:
            keeper.at_end(start.close)
        self._pid = pid
        self._reader: Reader | None = None
        self._execs: ExecCgroups | None = None
        self.ends = asyncio.Semaphore()

    async def connect(self, factory: ProtocolFactory) -> asyncio.Transport:
        """The stream to the guest, as `Instance.connect` describes it."""
        stream = None if self._start is None else self._start.take()
        if stream is not None:
            transport = await join(stream, factory)
            self._keeper.at_end(partial(_hang_up, transport))
            return transport
        if not self._keeper.alive():
            raise self._lost("connect")
        from ringfence.backends.process.connecting import dialled

        return await join(await dialled(self._home, self._keeper), factory)

    def started(self) -> None:
        """Its guest has answered, as `Starting.started` says."""
        if self._end_start():
            self._keeper.started()

    async def not_started(self) -> BackendUnavailableError | None:
        """Why its guest never answered, as `Starting.not_started` says."""
        if self._start is None:
            return None
        return await self._start.failure(self._keeper, self.record.id)

    @property
    def pid(self) -> int:
        """The guest's, known once it has answered. SandboxLostError when it is gone."""
        if self._pid is None:
            self._pid = self._home.guest()
        if self._pid is None:
            raise self._lost("look")
        return self._pid

    async def bind(self, binds: Sequence[Bind], lives: Callable[[], Awaitable[object]]) -> None:
        """Bind more of the host in it, as `Enterable.bind` describes it."""
        if not self._keeper.alive():
            raise self._lost("bind")
        await late_binds.bind(self.pid, binds, lives, below=True)

    async def state(self) -> State:
        """The kernel's word: its keeper lives, and its cgroup is frozen or not."""
        if not self._keeper.alive():
            return State.EXITED
        if self._cgroup is not None and self._cgroup.frozen():
            return State.PAUSED
        return State.RUNNING

    async def evidence(self) -> Evidence:
        """What the kernel says of the guest. SandboxLostError when it is gone."""
        if not self._keeper.alive():
            raise self._lost("evidence")
        try:
            status = evidence.status(self.pid)
            limits: Mapping[str, str] = {}
            if self._cgroup is not None:
                limits = self._cgroup.evidence(self.record.spec.limits)
            here = own_namespaces()
            return Evidence(evidence.describe(self.pid, self.record, here), status, limits, here)
        except FileNotFoundError:
            raise self._lost("evidence") from None

    async def usage(self) -> Usage | None:
        """Read from its cgroups on kept descriptors; None when it has none.

        SandboxLostError when it is gone.
        """
        if self._cgroup is None:
            return None
        try:
            found = self._measured(self._cgroup).read()
        except NotFoundError:
            raise self._lost("usage") from None
        return self._commands(self._cgroup).total(found)

    async def exec_cgroup(self) -> ExecCgroup:
        """A cgroup for one command, below the sandbox's; see `ExecCgroups.begin`."""
        if self._cgroup is None:
            raise UnsupportedError("cgroup: this sandbox has none itself", op="exec")
        try:
            return await self._commands(self._cgroup).begin()
        except NotFoundError:
            raise self._lost("exec") from None

    def _commands(self, cgroup: Cgroup) -> ExecCgroups:
        if self._execs is None:
            self._execs = ExecCgroups(cgroup.places)
        return self._execs

    def cpu_counter(self) -> int | None:
        """A descriptor of its counter of processor time, None without a cgroup."""
        return None if self._cgroup is None else open_cpu_counter(self._cgroup.places)

    async def open_files(self) -> int | None:
        """How many descriptors its processes hold, the guest's too; None without a cgroup.

        SandboxLostError when it is gone.
        """
        if self._cgroup is None:
            return None
        try:
            return await asyncio.to_thread(self._measured(self._cgroup).open_files)
        except NotFoundError:
            raise self._lost("open_files") from None

    def _measured(self, cgroup: Cgroup) -> Reader:
        if self._reader is None:
            if not self._keeper.alive():
                raise self._lost("usage")
            self._reader = reader_of(cgroup.places, self.pid)
        return self._reader

    async def pause(self) -> None:
        """Freeze everything in it. Idempotent.

        SandboxLostError when it is gone, StateError when it cannot be frozen. Cancellation lets it
        run on.
        """
        cgroup = self._freezable("pause")
        loop = asyncio.get_running_loop()
        until = loop.time() + _FREEZE_SECONDS
        try:
            cgroup.freeze()
            while not cgroup.frozen():
                if loop.time() > until:
                    raise StateError("pause: its processes do not freeze; it runs on", op="pause")
                if not self._keeper.alive():
                    raise self._lost("pause")
                await asyncio.sleep(_LOOK_SECONDS)
        except NotFoundError:
            raise self._lost("pause") from None
        except BaseException:
            with contextlib.suppress(NotFoundError):
                cgroup.thaw()
            raise

    async def resume(self) -> None:
        """Let it go on. Idempotent. SandboxLostError when it is gone."""
        try:
            self._freezable("resume").thaw()
        except NotFoundError:
            raise self._lost("resume") from None

    def _freezable(self, op: str) -> Cgroup:
        if self._cgroup is None or not self._cgroup.tree.freezes:
            raise StateError(f"{op}: there is no freezer cgroup for it here", op=op)
        if not self._keeper.alive():
            raise self._lost(op)
        return self._cgroup

    @property
    def changeable(self) -> frozenset[str]:
        """The limits that can change while it runs. A cpuset where one was asked for at first."""
        if self._cgroup is None:
            return frozenset()
        return self._cgroup.changeable

    async def update(self, limits: Limits) -> None:
        """Change limits while it runs; those that are None stay.

        ResourceExhaustedError when it uses more already, StateError without cgroups.
        """
        if self._cgroup is None:
            raise StateError("update: it has no cgroups whose limits could change", op="update")
        try:
            self._cgroup.update(limits)
        except NotFoundError:
            raise self._lost("update") from None

    async def delete(self) -> None:
        """Kill it; its keeper removes its cgroups and its directory. Idempotent.

        ResourceExhaustedError when the kernel does not let it die within 30 s.
        """
        self._close()
        keeper = self._keeper
        if keeper.released:
            keeper = Keeper.find(self._home) or keeper
        async with self.ends:
            await end(keeper, self._home, self._cgroup)

    def release(self) -> None:
        """Close what it holds open; it goes on. Idempotent."""
        self._close()
        self._keeper.close()

    def _end_start(self) -> bool:
        """End what is left of its start; whether anything was."""
        start, self._start = self._start, None
        if start is not None:
            start.close()
        return start is not None

    def _close(self) -> None:
        self._end_start()
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _lost(self, op: str) -> SandboxLostError:
        return SandboxLostError(
            f"{op}: the sandbox has ended: it was deleted, it expired or it was killed",
            op=op,
            sandbox_id=self.record.id,
        )


def _hang_up(transport: asyncio.Transport) -> None:
    """End the stream of a guest that is gone. It does so by itself, unless another process has the
    guest's end, too: one that was forked by another thread while we had it."""
    asyncio.get_running_loop().call_later(_HANG_UP_SECONDS, _abort, transport)


def _abort(transport: asyncio.Transport) -> None:
    if not transport.is_closing():
        transport.abort()
