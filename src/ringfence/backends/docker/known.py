"""What was learned of a daemon, shared by all backends of one event loop that talk to it.

Each sandbox may come with a backend of its own; the daemon need not be asked anew each time, and
starts are bounded for all of them together.
"""

import asyncio
import time
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from ringfence.backends.docker.endpoint import Endpoint
from ringfence.backends.docker.engine import Engine
from ringfence.backends.docker.machine import Machine, describe

_SECONDS = 60.0
_STARTS_PER_CORE = 4


@dataclass(eq=False)
class Known:
    """One daemon. local: whether it shares our files, None until that was tried. socket_fails:
    whether a guest did not come over a socket."""

    local: bool | None = None
    socket_fails: bool = False
    _machine: Machine | None = None
    _asked: float = -_SECONDS
    _asking: asyncio.Lock = field(default_factory=asyncio.Lock)
    _starts: asyncio.Semaphore | None = None

    async def machine(self, engine: Engine) -> Machine:
        """Its description, at most a minute old."""
        async with self._asking:
            if self._machine is None or time.monotonic() - self._asked > _SECONDS:
                self._machine = await describe(engine)
                self._asked = time.monotonic()
            return self._machine

    def limiter(self, machine: Machine) -> asyncio.Semaphore:
        """More starts at once only make each slower."""
        if self._starts is None:
            self._starts = asyncio.Semaphore(_STARTS_PER_CORE * machine.cpus)
        return self._starts


_known: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, str], Known]]
_known = WeakKeyDictionary()


def known(endpoint: Endpoint) -> Known:
    """What the running event loop knows of the daemon at an endpoint."""
    daemons = _known.setdefault(asyncio.get_running_loop(), {})
    return daemons.setdefault((endpoint.url, endpoint.base), Known())
