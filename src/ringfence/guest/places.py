"""How many may be under way at once: whoever comes later waits, first come first served."""

import asyncio
from collections import deque


class Places:
    """Places for `most` at once. Belongs to one event loop."""

    def __init__(self, most: int) -> None:
        self._most = self._free = most
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def take(self) -> None:
        """Take a place, once there is one. Cancellation leaves it to the next."""
        if self._free > 0 and not self._waiting:
            self._free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave()
            raise

    def leave(self) -> None:
        """Give a place that was taken to the next."""
        self._free += 1
        while self._free > 0 and self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                self._free -= 1
                turn.set_result(None)

    @property
    def taken(self) -> int:
        """How many are taken."""
        return self._most - self._free

    def narrow(self, most: int) -> None:
        """From now on have no more than `most`; those that are taken beyond it stay."""
        if most < self._most:
            self._free -= self._most - most
            self._most = most
