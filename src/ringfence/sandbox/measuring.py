"""A cgroup of its own for one command: made before it is sent, read and removed at its end."""

import asyncio
from dataclasses import replace
from typing import Protocol, runtime_checkable

from ringfence.backends.exec_cgroups import ExecCgroup
from ringfence.backends.finish import finish
from ringfence.errors import InvalidSpecError, UnsupportedError
from ringfence.guest.protocol import Feature
from ringfence.guest.request import Exit, NotStarted
from ringfence.sandbox.commands import Prepared
from ringfence.sandbox.context import Context


@runtime_checkable
class Measuring(Protocol):
    """An instance that can give a command a cgroup of its own."""

    async def exec_cgroup(self) -> ExecCgroup:
        """A new one; the caller ends it. UnsupportedError where it cannot, ResourceExhaustedError,
        SandboxLostError. An error or cancellation leaves none."""
        ...


class Measured:
    """The cgroup of one command of this process, from `begin` to `end`."""

    def __init__(self, cgroup: ExecCgroup) -> None:
        self._cgroup = cgroup
        self._ending: asyncio.Task[None] | None = None

    @classmethod
    async def begin(cls, context: Context, *, hold: bool = False) -> "Measured":
        """UnsupportedError before anything has started where there is none; InvalidSpecError for a
        held command, which may outlive who measures it."""
        if hold:
            raise InvalidSpecError(
                "cgroup: not with hold, whose command may end when nobody is there to read it",
                op="spawn",
                context={"fields": ["cgroup", "hold"]},
            )
        instance = context.instance
        takes = context.session.hello.features & Feature.DESCRIPTORS
        if not context.features.exec_cgroups or not takes or not isinstance(instance, Measuring):
            raise UnsupportedError(
                f"cgroup: the {context.spec.backend} backend gives no command of this sandbox a"
                " cgroup of its own (see docs/monitoring.md): leave it out",
                op="exec",
                context={"fields": ["cgroup"]},
            )
        return cls(await instance.exec_cgroup())

    def within(self, prepared: Prepared) -> Prepared:
        """The same command, for the guest to start in it."""
        request = replace(prepared.request, cgroups=self._cgroup.descriptors)
        return replace(prepared, request=request)

    def begun(self) -> None:
        """The command has started: the guest has the descriptors."""
        self._cgroup.close()

    async def end(self, ending: Exit | NotStarted | None = None) -> None:
        """Read it into `ending` and remove it, once. Cancellation does not interrupt it."""
        if self._ending is None:
            self._ending = asyncio.create_task(self._end(ending))
        await finish(asyncio.wait([self._ending]))
        self._ending.result()

    async def _end(self, ending: Exit | NotStarted | None) -> None:
        usage = await asyncio.to_thread(self._cgroup.end)
        if not isinstance(ending, Exit) or usage is None:
            return
        ending.cgroup = usage
        # The guest counts in the sandbox's cgroup, where kills in this one do not show.
        if usage.oom_kills is not None:
            ending.oom_kills = usage.oom_kills
