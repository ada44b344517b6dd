"""Nothing in a sandbox runs as long as anybody who reads its files wants it so."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from ringfence.backends.finish import finish
from ringfence.errors import SandboxError, StateError
from ringfence.sandbox import control
from ringfence.sandbox.context import Context
from ringfence.spec import State


class Stillness:
    """Freezes with the first who wants it and thaws after the last; one that its user paused, or
    that cannot be frozen, stays as it is."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._turn = asyncio.Lock()
        self._wanted = 0
        self._frozen: int | None = None

    @asynccontextmanager
    async def wanted(self) -> AsyncIterator[None]:
        """For the block. A cancellation while it is frozen or thawed is raised afterwards."""
        try:
            await finish(self._enter())
            yield
        finally:
            await finish(self._leave())

    async def _enter(self) -> None:
        async with self._turn:
            self._wanted += 1
            context = self._context
            running = context.life.state is State.RUNNING
            if self._wanted == 1 and running and context.features.pause:
                with suppress(SandboxError):
                    await control.pause(context)
                    self._frozen = context.freezes

    async def _leave(self) -> None:
        async with self._turn:
            self._wanted -= 1
            if self._wanted:
                return
            ours, self._frozen = self._frozen, None
            if ours == self._context.freezes:  # else its user resumed and paused it meanwhile
                with suppress(StateError):  # its user resumed it, or deleted it
                    await control.resume(self._context)
