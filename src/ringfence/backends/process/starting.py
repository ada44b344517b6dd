"""A start under way: what is kept of it from the keeper's spawn until the guest answers."""

import asyncio
import contextlib
import socket
from collections.abc import Callable

from ringfence.backends.process import machine
from ringfence.backends.process.keeper import Keeper
from ringfence.errors import BackendUnavailableError

_WORDS_SECONDS = 2.0


def not_started(words: str, sandbox_id: str | None = None) -> BackendUnavailableError:
    """The error for the last words of whoever failed, "" for none."""
    return BackendUnavailableError(
        "process: the sandbox did not start: "
        + machine.explain(words or "it ended without a word"),
        op="create",
        sandbox_id=sandbox_id,
        context={"words": words},
    )


class Start:
    """stream: our end of the first session's, in which what is sent waits for the guest. over:
    called once, when the guest has answered or the sandbox is to end. doubt: called where the
    machine forbade what it was found to allow."""

    def __init__(
        self, stream: socket.socket, over: Callable[[], None], doubt: Callable[[], None]
    ) -> None:
        self._stream: socket.socket | None = stream
        self._doubt = doubt
        self._over: Callable[[], None] | None = over

    def take(self) -> socket.socket | None:
        """The stream; from then on it is the caller's. None when it was taken."""
        stream, self._stream = self._stream, None
        return stream

    async def failure(self, keeper: Keeper, sandbox_id: str) -> BackendUnavailableError:
        """Why the stream ended before the guest answered, in the words of whoever failed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_WORDS_SECONDS):
                await keeper.ended()
        words = keeper.words()
        if machine.forbids(words):
            self._doubt()
        return not_started(words, sandbox_id)

    def close(self) -> None:
        """It is over, one way or the other. Idempotent."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()
        over, self._over = self._over, None
        if over is not None:
            over()
