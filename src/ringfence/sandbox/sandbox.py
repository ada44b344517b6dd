"""The sandbox as its user holds it.

A **sandbox** is one isolated place; `ringfence.open` makes it. Commands run in it (`exec` to the
end, `spawn` under way), its files are reached through `files`, its variables are `env`, what is
really enforced says `receipt`. It ends with `delete`, with its lifetime or idle timeout, or, when
attached, with its holder; afterwards every operation raises StateError (deleted) or
SandboxLostError (it ended by itself).
"""

from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import PurePath
from types import TracebackType
from typing import Any, Self

from ringfence.errors import StateError
from ringfence.events import Event, EventStream
from ringfence.sandbox import changing, control, later
from ringfence.sandbox.commands import (
    GRACE_SECONDS,
    Args,
    Command,
    OnOutputLimit,
    Sink,
    check_grace,
)
from ringfence.sandbox.context import Context
from ringfence.sandbox.control import Health
from ringfence.sandbox.deleting import DeleteReport
from ringfence.sandbox.environment import Environment
from ringfence.sandbox.files import Files
from ringfence.sandbox.monitor import Monitor, monitored
from ringfence.sandbox.networking import Networking
from ringfence.sandbox.process import Process
from ringfence.sandbox.running import ProcessInfo, Running, Terminal
from ringfence.sandbox.spawning import Spawning
from ringfence.sandbox.stdin import Stdin
from ringfence.spec import (
    ExecResult,
    Limits,
    Receipt,
    SandboxInfo,
    SandboxSpec,
    State,
    Ulimits,
    Usage,
)

_EVENTS_KEPT = 1000
GRACEFUL_SECONDS = 2.0
"""How long running commands have after SIGTERM when a sandbox is deleted."""


class Sandbox:
    """One sandbox; see the module. Belongs to the event loop that opened it."""

    def __init__(
        self,
        context: Context,
        receipt: Receipt,
        network: Networking,
        workspace: "later.Workspace | None" = None,
        again: "later.Again | None" = None,
    ) -> None:
        self._context = context
        self._again = again
        self._running = Running(context)
        self._receipt = receipt
        self._history: deque[Event] = deque(maxlen=_EVENTS_KEPT)
        context.bus.subscribe(self._remember)
        self.files = Files(context)
        self.network = network
        self._workspace = workspace

    def _remember(self, event: Event) -> None:
        if event.sandbox_id == self._context.id:
            self._history.append(event)

    def __repr__(self) -> str:
        return f"<Sandbox {self.id} {self._context.spec.backend} {self._context.life.state}>"

    # What it is.

    @property
    def id(self) -> str:
        """Its id, unique on this machine."""
        return self._context.id

    @property
    def spec(self) -> SandboxSpec:
        """What was granted: the request with every open question answered."""
        return self._context.spec

    @property
    def receipt(self) -> Receipt:
        """What is really enforced, read back before the first command."""
        return self._receipt

    @property
    def info(self) -> SandboxInfo:
        """Id, backend, image, state as known here, labels, transport and ends."""
        return control.info(self._context)

    @property
    def workspace(self) -> "later.Workspace":
        """Its repository: changes, patch, apply, discard. StateError when it has none."""
        if self._workspace is None:
            raise StateError("the sandbox has no repository: open it with one", op="workspace")
        return self._workspace

    @property
    def env(self) -> Environment:
        """The variables of later commands: set, delete and list them as in a dict."""
        return self._context.env

    @property
    def cwd(self) -> str:
        """The working directory of later commands; `chdir` changes it."""
        return self._context.cwd

    @property
    def history(self) -> tuple[Event, ...]:
        """The newest 1000 events of this sandbox, oldest first."""
        return tuple(self._history)

    async def chdir(self, path: str | PurePath) -> None:
        """Set the working directory of later commands. PathNotFoundError,
        PathNotADirectoryError, InvalidSpecError for a path that is not absolute and normalised."""
        await control.chdir(self._context, path)

    async def state(self) -> State:
        """Its state as the runtime says it now; EXITED when it is gone."""
        return await control.state(self._context)

    # Commands.

    async def exec(
        self,
        args: Args | None = None,
        *,
        shell: str | None = None,
        env: Mapping[str, str | None] | None = None,
        cwd: str | PurePath | None = None,
        user: str | int | None = None,
        stdin: Stdin | None = None,
        timeout: float | str | None = None,
        grace: float = GRACE_SECONDS,
        output: int | str | None = None,
        on_output_limit: OnOutputLimit = "truncate",
        merge_stderr: bool = False,
        ulimits: Ulimits | Mapping[str, Any] | None = None,
        cgroup: bool = False,
        on_stdout: Sink | None = None,
        on_stderr: Sink | None = None,
    ) -> ExecResult:
        """Run a command to its end. A failing command is a result; `check()` it to raise.

        args: program and arguments, never parsed by a shell; or shell: a line for /bin/sh -c.
        env: on top of `sandbox.env`; None as a value unsets. cwd, user: the sandbox's when left
        out. timeout: seconds, `limits.timeout` when left out, math.inf for none; then SIGTERM,
        `grace` seconds, and the whole family is killed. output: bytes of each stream kept (at most
        64 MiB; `limits.output` when left out); the rest is counted and dropped, or the command is
        killed on it. cgroup: give it one of its own, so that `result.usage.cgroup` tells of its
        whole family (see docs/monitoring.md). on_stdout, on_stderr: get all output as it comes.

        Raises InvalidSpecError, PolicyDeniedError (above the ceiling), NotFoundError (user),
        FileError (cwd), ResourceExhaustedError,
        UnsupportedError (cgroup and ulimits, where there are none: before anything has started),
        StateError, SandboxLostError (when it was lost before; a loss meanwhile is the result
        SANDBOX_LOST), and what stdin or a callback raises. Cancellation kills the command's family
        and waits until it is gone.
        """
        command = Command(
            args=args,
            shell=shell,
            env=env,
            cwd=cwd,
            user=user,
            stdin=stdin,
            timeout=timeout,
            grace=grace,
            output=output,
            on_output_limit=on_output_limit,
            merge_stderr=merge_stderr,
            ulimits=ulimits,
            cgroup=cgroup,
        )
        return await self._running.execute(command, (on_stdout, on_stderr))

    def spawn(
        self,
        args: Args | None = None,
        *,
        shell: str | None = None,
        env: Mapping[str, str | None] | None = None,
        cwd: str | PurePath | None = None,
        user: str | int | None = None,
        stdin: Stdin | None = None,
        timeout: float | str | None = None,
        grace: float = GRACE_SECONDS,
        output: int | str | None = None,
        on_output_limit: OnOutputLimit = "truncate",
        merge_stderr: bool = False,
        ulimits: Ulimits | Mapping[str, Any] | None = None,
        cgroup: bool = False,
        pty: bool | Terminal = False,
        hold: bool = False,
    ) -> Spawning:
        """Start a command: `async with sandbox.spawn(...) as process`, or `await` it.

        stdin: all of its input; left out, it stays open for `process.write`. output: bytes that
        `process.wait()` collects of a stream that nobody reads; with on_output_limit "kill" the
        command's limit. pty: give it a terminal (UnsupportedError where there is none); its output
        is stdout. hold: it outlives the `async with`, and in a detached sandbox the session; it is
        listed by `processes` and found again by `attach`; not with cgroup. Everything else, and
        what is raised, as in `exec`; ProcessError when the program is missing or not executable.
        """
        command = Command(
            args=args,
            shell=shell,
            env=env,
            cwd=cwd,
            user=user,
            stdin=stdin,
            timeout=timeout,
            grace=grace,
            output=output,
            on_output_limit=on_output_limit,
            merge_stderr=merge_stderr,
            ulimits=ulimits,
            cgroup=cgroup,
        )
        terminal = Terminal() if pty is True else pty or None
        return Spawning(self._running, command, pty=terminal, hold=hold, stdin_open=stdin is None)

    async def processes(self) -> tuple[ProcessInfo, ...]:
        """The commands that the guest knows: running, or ended and held."""
        return await self._running.processes()

    async def attach(
        self, process_id: int, *, stdout_offset: int = 0, stderr_offset: int = 0
    ) -> Process:
        """A held command again, with its output from these offsets or the oldest still held
        (1 MiB of each stream). NotFoundError.

        It is taken from whoever attached to it before, or spawned it here: there its streams end
        and `wait` raises StateError, while the command goes on. Its stdin goes on where it was:
        `process.stdin_total` says how much of what was written before has arrived.
        """
        return await self._running.attach(process_id, stdout_offset, stderr_offset)

    async def forget(self, process_id: int) -> None:
        """Release a held command and its output; it is killed first when it runs. NotFoundError."""
        await self._running.forget(process_id)

    async def signal(self, process_id: int, number: int | str, *, group: bool = False) -> None:
        """Send a signal ("TERM", 15) to the main process of a listed command, or to its process
        group. NotFoundError."""
        await self._running.signal(process_id, number, group=group)

    async def kill_all(self) -> int:
        """Kill every process of every command; how many there were."""
        return await self._running.kill_all()

    # How it is doing.

    async def usage(self) -> Usage:
        """What it used up to now. UnsupportedError where that cannot be told."""
        return await control.usage(self._context)

    def stats(self, interval: float = 1.0) -> AsyncIterator[Usage]:
        """Its usage now and every `interval` seconds, until it ends. InvalidSpecError."""
        return control.stats(self._context, interval)

    def events(self) -> EventStream:
        """Events from now on, as an async iterator, also of other sandboxes on the same bus.

        Close it when done; it ends with the sandbox's own Deleted or Detached.
        """
        stream = self._context.bus.stream(until=self.id)
        if self._context.life.ended or self._context.life.left:
            stream.close()
        return stream

    async def health(self) -> Health:
        """Whether it lives, answers, and has room to write; how fast, and how long it has been
        idle. Never raises a SandboxError."""
        return await control.health(self._context)

    async def answers(self) -> bool:
        """Whether its guest answers, which takes a twentieth of a millisecond. Never raises a
        SandboxError."""
        return await control.answers(self._context)

    async def open_files(self) -> int | None:
        """How many descriptors its processes hold open, counted in /proc; None where that is not
        to be seen. UnsupportedError where it runs on another machine."""
        return await control.open_files(self._context)

    def monitor(self, interval: float = 5.0) -> AbstractAsyncContextManager[Monitor]:
        """Look at its health and usage every `interval` seconds, as long as the block:
        `async with sandbox.monitor(1) as monitor`.

        What changed is an event: HealthChanged, and LimitHit for kills for want of memory and for
        the most processes. `monitor.health` and `monitor.usage` are what was seen last. It does not
        count as use, so an idle sandbox still ends.
        """
        return monitored(self._context, interval)

    # Its life.

    async def pause(self) -> None:
        """Freeze all processes; nothing but `resume` and `delete` works until then.
        UnsupportedError; StateError when it is paused. Cancellation is raised once it is."""
        await control.pause(self._context)

    async def resume(self) -> None:
        """Thaw. StateError unless it is paused. Cancellation is raised once it runs."""
        await control.resume(self._context)

    async def extend(self, lifetime: float | str) -> float:
        """Let it end `lifetime` from now; the end in seconds since the epoch. PolicyDeniedError
        above the ceiling's, StateError or SandboxLostError when it ended already."""
        return await changing.extend(self._context, lifetime)

    async def update(self, limits: Limits | Mapping[str, Any]) -> Limits:
        """Change limits of the running sandbox; what is None stays. All limits now in force.

        UnsupportedError, naming what cannot be changed, InvalidSpecError and PolicyDeniedError for
        what the machine or the ceiling does not allow, before anything is. ResourceExhaustedError
        for less memory than is used.
        """
        given = limits if isinstance(limits, Limits) else Limits.parse(limits)
        return await changing.update(self._context, given)

    async def snapshot(self) -> "later.Snapshot":
        """Keep the present state of its workspace, and of a root file system that may be written;
        `open(snapshot=digest)` starts from it. What lies on a tmpfs, such as /tmp, is not kept.

        StateError without a repository in mode copy where the root is read-only, and for another
        mode; ResourceExhaustedError when the disk is full; UnsupportedError for a writable root on
        another backend than docker, under gVisor, and of an image with volumes. An error or a
        cancellation leaves no snapshot.
        """
        if self._context.spec.security.read_only_root is not False:
            return await self.workspace.snapshot()
        from ringfence.sandbox.snapshots import keep_whole
        from ringfence.sandbox.workspace import frozen

        prepared = None if self._workspace is None else self._workspace.prepared
        async with frozen(self._context):
            return await keep_whole(self._context, prepared)

    async def fork(self, number: int) -> "list[Sandbox]":
        """So many sandboxes like this one, which start from the present state of its workspace,
        and of a root file system that may be written. What lies on a tmpfs and commands are not
        copied.

        They are the caller's to end. An error or a cancellation leaves none of them.
        UnsupportedError as for `snapshot`; InvalidSpecError for a number below 1, and without a
        repository in mode copy where the root is read-only, and for another mode.
        """
        if self._context.spec.security.read_only_root is not False:
            return await self.workspace.fork(number)
        from ringfence.sandbox.forks import fork_whole

        return await fork_whole(self._context, self._workspace, self._again, number)

    async def detach(self) -> None:
        """End the session and leave the sandbox to its lifetime. StateError unless detached."""
        await control.detach(self._context)

    async def delete(self, *, grace: float = GRACEFUL_SECONDS) -> DeleteReport:
        """SIGTERM to what runs, at most `grace` seconds, then everything is killed and removed.

        Idempotent. Cancellation does not interrupt it and is raised after its end. InvalidSpecError
        for a grace that is not 0 to 3600 seconds.
        """
        return await self._context.life.delete(check_grace(grace))

    async def aclose(self, *, grace: float = GRACEFUL_SECONDS) -> None:
        """What leaving its `async with` does: detach a detached sandbox, delete another one."""
        if self.spec.detached:
            await self._context.life.detach()
        else:
            await self._context.life.delete(check_grace(grace))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose(grace=0.0 if error is not None else GRACEFUL_SECONDS)


def context_of(sandbox: Sandbox) -> Context:
    """What the parts of a sandbox share, for those who make it and keep it."""
    return sandbox._context


def take(sandbox: Sandbox, receipt: Receipt, workspace: "later.Workspace") -> None:
    """Have it hold the repository that was bound in it, before its first command."""
    assert sandbox._again is not None  # noqa: S101 - a new one was opened for it
    workspace.join(sandbox._context, sandbox._again)
    sandbox._receipt, sandbox._workspace = receipt, workspace
