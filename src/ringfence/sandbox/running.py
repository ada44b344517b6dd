"""Commands of one sandbox: execute, spawn, list, attach, forget."""

from dataclasses import dataclass, replace
from time import monotonic
from typing import TypeVar

from ringfence.backends.finish import finish
from ringfence.errors import InvalidSpecError, NotFoundError, UnsupportedError
from ringfence.guest.execs import LAST_COLUMN
from ringfence.guest.given import whole_number
from ringfence.guest.protocol import U32, Ask, ExecFlag, Feature
from ringfence.guest.request import ExecRequest, Exit, NotStarted
from ringfence.ledger.reasons import CPU_TIME
from ringfence.sandbox.announcing import Announcing
from ringfence.sandbox.commands import Command, Prepared, Sink, check_sinks, prepare
from ringfence.sandbox.context import Context
from ringfence.sandbox.ending import not_started, result
from ringfence.sandbox.following import follow
from ringfence.sandbox.measuring import Measured
from ringfence.sandbox.process import Process, signal_number
from ringfence.sandbox.setting import Settings
from ringfence.sandbox.spawned import Spawned, did_not_start
from ringfence.spec import ExecResult, Reason


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """A command that the guest knows: running, or ended and held.

    id: for `Sandbox.attach`. pid: inside. stdout_end, stderr_end: bytes written so far.
    """

    id: int
    pid: int
    running: bool
    args: tuple[str, ...]
    stdout_end: int
    stderr_end: int


@dataclass(frozen=True, slots=True)
class Terminal:
    """A terminal for a command. Its size in characters."""

    rows: int = 24
    columns: int = 80


class Running:
    """The commands of one sandbox."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._announcing = Announcing(context)
        self._settings = Settings(context)
        self._spawned = Spawned(context, self._announcing)

    async def execute(self, command: Command, sinks: tuple[Sink | None, Sink | None]) -> ExecResult:
        """Run a command to its end; see `Sandbox.exec`."""
        with self._context.operation("exec"):
            prepared = prepare(command, await self._settings.of(command))
            run = self._measure if command.cgroup else self._run
            ending = await run(prepared, command, sinks)
            outcome = self._outcome(prepared, ending)
            self._announcing.ended(outcome)
            if not outcome.ok:
                await self._announcing.hits.look(outcome)
            return outcome

    async def _run(
        self, prepared: Prepared, command: Command, sinks: tuple[Sink | None, Sink | None]
    ) -> Exit | NotStarted:
        if sinks == (None, None):
            begun = monotonic()

            def sent() -> None:
                nonlocal begun
                begun = monotonic()
                self._announcing.started(prepared)

            ending = await self._context.session.run(prepared.request, sent)
            return _lasted(ending, begun)
        check_sinks(sinks)
        self._announcing.started(prepared)
        return await self._follow(prepared, command, sinks)

    async def _measure(
        self, prepared: Prepared, command: Command, sinks: tuple[Sink | None, Sink | None]
    ) -> Exit | NotStarted:
        """`_run` in a cgroup of its own."""
        measured = await Measured.begin(self._context)
        ending = None
        try:
            ending = await self._run(measured.within(prepared), command, sinks)
            return ending
        finally:
            await measured.end(ending)

    async def _follow(
        self, prepared: Prepared, command: Command, sinks: tuple[Sink | None, Sink | None]
    ) -> Exit | NotStarted:
        request = prepared.request
        if command.on_output_limit == "truncate":
            request = replace(request, stdout_cap=None, stderr_cap=None)
        started = await self._context.session.spawn(request)
        if isinstance(started, NotStarted):
            return started
        begun = monotonic()
        return _lasted(await follow(started, prepared, sinks), begun)

    def _outcome(self, prepared: Prepared, ending: Exit | NotStarted) -> ExecResult:
        if isinstance(ending, NotStarted):
            request = prepared.request
            return not_started(prepared.args, str(request.cwd), prepared.user, ending)
        return self._told(result(prepared.args, ending, prepared.cpu_limit))

    def _told(self, outcome: ExecResult) -> ExecResult:
        """A command that ended because the sandbox used up its processor time says so."""
        ended = outcome.reason in (Reason.KILLED, Reason.SANDBOX_LOST)
        if ended and self._context.life.reason == CPU_TIME:
            return replace(outcome, reason=Reason.CPU_TIME)
        return outcome

    async def spawn(
        self, command: Command, *, pty: Terminal | None, hold: bool, stdin_open: bool
    ) -> Process:
        """Start a command; see `Sandbox.spawn`."""
        context = self._context
        with context.operation("spawn"):
            flags = ExecFlag.HOLD if hold else 0
            if pty is not None:
                self._need_terminals()
                flags |= ExecFlag.PTY
            if stdin_open:
                flags |= ExecFlag.STDIN_OPEN
            rows, columns = _size(pty)
            prepared = prepare(
                command, await self._settings.of(command), flags=flags, rows=rows, columns=columns
            )
            if command.on_output_limit == "truncate":
                request = replace(prepared.request, stdout_cap=None, stderr_cap=None)
                prepared = replace(prepared, request=request)
            measured = await Measured.begin(context, hold=hold) if command.cgroup else None
            self._announcing.started(prepared)
            started = await self._spawned.start(prepared, measured)
            if isinstance(started, NotStarted):
                outcome = self._outcome(prepared, started)
                self._announcing.ended(outcome)
                raise did_not_start(outcome)
            begun = monotonic()
            started.ended.add_done_callback(lambda _: _lasted(started.ending, begun))
            return self._spawned.process(started, prepared, held=hold, measured=measured)

    def _need_terminals(self) -> None:
        context = self._context
        if not context.features.pty or not context.session.hello.features & Feature.PTY:
            raise UnsupportedError(
                f"pty: the {context.spec.backend} backend has no terminals: spawn without pty",
                op="spawn",
                context={"fields": ["pty"]},
            )

    # Held ones.

    async def processes(self) -> tuple[ProcessInfo, ...]:
        """All that the guest knows, the oldest first."""
        with self._context.operation("processes", uses=False):
            listed = await self._context.session.list()
        return tuple(
            ProcessInfo(
                one.id,
                one.pid,
                one.running,
                tuple(arg.decode("utf-8", "surrogateescape") for arg in one.args),
                one.stdout_end,
                one.stderr_end,
            )
            for one in sorted(listed, key=lambda one: one.id)
        )

    async def attach(self, process_id: int, stdout_offset: int, stderr_offset: int) -> Process:
        """Take up a held command; see `Sandbox.attach`."""
        found = [one for one in await self.processes() if one.id == process_id]
        context = self._context
        if not found:
            raise NotFoundError(
                f"attach: no process {process_id} in this sandbox: see processes()",
                op="attach",
                sandbox_id=context.id,
            )
        with context.operation("attach"):
            before, release = self._spawned.held.pop(process_id, (None, None))
            if before is not None and release is not None:
                context.session.drop(before)
                release()
            exec_ = await context.session.attach(process_id, stdout_offset, stderr_offset)
            begun = monotonic()
            exec_.ended.add_done_callback(lambda _: _lasted(exec_.ending, begun))
            request = ExecRequest(args=found[0].args)
            user = context.default_user.name
            kept = context.spec.limits.output or 2**20
            return self._spawned.process(
                exec_, Prepared(request, found[0].args, user, kept, None), held=True
            )

    async def forget(self, process_id: int) -> None:
        """Release a held command, killed first when it runs. A cancellation meanwhile is raised
        when it is gone; it is not released then."""
        with self._context.operation("forget"):
            before, _ = self._spawned.held.pop(process_id, (None, None))
            if before is not None and not before.over:
                await finish(before.abandon())
            await self._context.session.forget(process_id)

    async def signal(self, process_id: int, number: int | str, *, group: bool) -> None:
        """Send a signal to a command; see `Sandbox.signal`."""
        with self._context.operation("signal"):
            listed = await self._context.session.list()
            if not any(one.id == process_id for one in listed):
                raise NotFoundError(
                    f"signal: no process {process_id} in this sandbox: see processes()",
                    op="signal",
                )
            payload = U32.pack(signal_number(number)) + bytes((group,))
            self._context.session.send(Ask.SIGNAL, process_id, payload)

    async def kill_all(self) -> int:
        """Kill every process of every command; how many."""
        with self._context.operation("kill_all"):
            return await self._context.session.kill_all()


_Ending = TypeVar("_Ending", Exit | NotStarted, Exit | NotStarted | None)


def _lasted(ending: _Ending, begun: float) -> _Ending:
    """`ending`, with the time since `begun`, its start or when it was attached to, where no guest
    could tell it: the sandbox was lost."""
    if isinstance(ending, Exit) and ending.reason is Reason.SANDBOX_LOST:
        ending.wall_us = round((monotonic() - begun) * 1e6)
    return ending


def _size(pty: Terminal | None) -> tuple[int, int]:
    if pty is None:
        return 0, 0
    if not isinstance(pty, Terminal):
        raise InvalidSpecError(
            f"pty: {pty!r:.80} is no terminal: write True, or Terminal(rows=24, columns=80)",
            op="spawn",
            context={"fields": ["pty"]},
        )
    return (
        whole_number(pty.rows, "rows", LAST_COLUMN, 1),
        whole_number(pty.columns, "columns", LAST_COLUMN, 1),
    )
