"""Pausing a container: through its cgroup where that is possible, else by the Engine."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from ringfence.backends.base import Record
from ringfence.backends.docker import failures
from ringfence.backends.docker.engine import Engine
from ringfence.backends.docker.freezer import Freezer, freezer_of
from ringfence.backends.docker.inspection import Inspection, inspect
from ringfence.errors import BackendUnavailableError, DeadlineExceededError, StateError
from ringfence.spec import State

_TRIES = 50
_SETTLED = 5
_WAIT_SECONDS = 0.02


class Pausing:
    """Pauses and resumes one container. pid: of its first process, 0 on another machine."""

    def __init__(self, engine: Engine, record: Record, pid: int) -> None:
        self._engine = engine
        self._record = record
        self._pid = pid
        self._freezer: Freezer | None = None

    async def pause(self) -> None:
        """Freeze everything in it; through its cgroup where that is possible, else the Engine.

        Idempotent. SandboxLostError when it is gone.
        """
        freezer = self.freezer()
        if freezer is not None:
            await self._direct(freezer.freeze(), "pause")
        else:
            await self._ask_until("pause", State.PAUSED)

    async def resume(self) -> None:
        """Let it go on. Idempotent. SandboxLostError when it is gone."""
        freezer = self.freezer()
        if freezer is not None:
            await self._direct(freezer.thaw(), "resume")
        else:
            await self._ask_until("unpause", State.RUNNING)

    def freezer(self) -> Freezer | None:
        """The freezer of its cgroup, None where it is out of reach."""
        if self._freezer is None and self._pid:
            self._freezer = freezer_of(self._pid)
        return self._freezer

    async def _direct(self, turn: Coroutine[Any, Any, None], op: str) -> None:
        try:
            await turn
        except StateError:
            raise failures.of_ended(op, self._record.id) from None

    async def _ask_until(self, action: str, wanted: State) -> None:
        """For a moment after the opposite was done Engines refuse, and show the state before it.

        So an answer that refuses counts only when the wanted state is seen a few times in a row.
        """
        seen_so, refused = 0, None
        for _ in range(_TRIES):
            refused = await self._refusal(action)
            seen = await inspect(self._engine, self._record.native)
            if seen is None or seen.state is State.EXITED:
                raise failures.of_ended(action, self._record.id)
            seen_so = seen_so + 1 if seen.state is wanted else 0
            if seen_so and (refused is None or seen_so == _SETTLED):
                return
            await asyncio.sleep(_WAIT_SECONDS)
        raise DeadlineExceededError(
            f"{action}: the sandbox is still not {wanted}" + (f": {refused}" if refused else ""),
            op=action,
            sandbox_id=self._record.id,
        )

    async def _refusal(self, action: str) -> str | None:
        """Why the Engine did not do it: with 409, of what is not paused with 500."""
        try:
            await self._engine.post(action, "containers", self._record.native, action)
        except (StateError, BackendUnavailableError) as error:
            return error.message
        return None


def is_frozen(seen: Inspection) -> bool:
    """Whether a container that the Engine says runs is frozen through its cgroup."""
    pid = seen.pid_here
    freezer = freezer_of(pid) if pid else None
    return freezer is not None and freezer.frozen()
