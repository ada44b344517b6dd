"""What happens to sandboxes, as typed values that audit, metrics and traces subscribe to.

An **event** is a frozen value with the sandbox's id and the time. A **bus** hands each event to
its subscribers at once, in the order of subscription; a subscriber must not block, and one that
raises is reported to the event loop's exception handler, never to whoever published.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

KEPT = 1000
"""Events that a stream of a slow reader holds; older ones are dropped and counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened. at: seconds since the epoch."""

    sandbox_id: str
    at: float = field(default_factory=time.time)

    @property
    def name(self) -> str:
        """The class's name, such as "ExecEnded"."""
        return type(self).__name__

    def to_dict(self) -> dict[str, Any]:
        """The event as JSON-able data, with its name under "event"."""
        return {"event": self.name, **asdict(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Created(Event):
    """A sandbox is ready for its first command. seconds: how long that took."""

    backend: str
    image: str | None
    transport: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryBound(Event):
    """A sandbox of a pool got the repository that it was acquired with. path: of the host, or a URL
    without its login. strategy: as of `sandbox.workspace`. seconds: how long that took."""

    path: str
    mode: str
    mount_point: str
    strategy: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryRefused(Event):
    """A sandbox of a pool could not get the repository that it was acquired with; it is deleted.
    path: as of RepositoryBound. code: of the error."""

    path: str
    mode: str
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateFailed(Event):
    """No sandbox came about; nothing was left. code: of the error."""

    backend: str
    code: str
    message: str


class Attached(Event):
    """A session with an existing sandbox began."""

    __slots__ = ()


class Detached(Event):
    """The session ended and the sandbox goes on."""

    __slots__ = ()


class Paused(Event):
    """All processes were frozen."""

    __slots__ = ()


class Resumed(Event):
    """All processes were thawed."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Extended(Event):
    """The lifetime was set anew. ends: seconds since the epoch."""

    ends: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsUpdated(Event):
    """Limits were changed in the running sandbox. limits: names and new values."""

    limits: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecStarted(Event):
    """A command was sent to the guest. Its arguments may hold secrets: mind where they go."""

    args: tuple[str, ...]
    user: str
    cwd: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecEnded(Event):
    """A command ended. reason: of its result. duration: seconds inside."""

    args: tuple[str, ...]
    reason: str
    exit_code: int | None
    signal: int | None
    duration: float
    stdout_total: int
    stderr_total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitHit(Event):
    """A limit took effect. limit: "timeout", "memory", "cpu_time", "output", "pids", "disk", "tmp",
    "shm", "run", "tmpfs", "lifetime", "idle_timeout". detail: the program, or what else is known.
    counters: what was counted, by name, such as oom_kills or forks_refused; bytes and seconds."""

    limit: str
    detail: str = ""
    counters: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthChanged(Event):
    """A monitor found that the sandbox began or ceased to answer. latency: seconds, None without
    an answer."""

    ok: bool
    latency: float | None
    message: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesMoved(Event):
    """A tree was copied in or out. direction: "upload" or "download"."""

    direction: str
    path: str
    members: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressDecided(Event):
    """A connection to the outside was allowed or refused. rule: what decided it."""

    host: str
    port: int
    allowed: bool
    rule: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost(Event):
    """The sandbox ended underneath its user. message: what is known of it."""

    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Deleted(Event):
    """The sandbox is gone. reason: "deleted", "lifetime", "idle_timeout", "lost" ..."""

    reason: str


Subscriber = Callable[[Event], None]


class EventBus:
    """Subscribers of events. Belongs to one event loop; not safe from other threads."""

    def __init__(self) -> None:
        self._subscribers: list[Subscriber] = []

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Call `subscriber` with every event from now on; what is returned ends that."""
        self._subscribers.append(subscriber)

        def unsubscribe() -> None:
            if subscriber in self._subscribers:
                self._subscribers.remove(subscriber)

        return unsubscribe

    @property
    def heard(self) -> bool:
        """Whether anybody subscribed."""
        return bool(self._subscribers)

    def publish(self, event: Event) -> None:
        """Hand `event` to all subscribers. Never raises."""
        for subscriber in tuple(self._subscribers):
            try:
                subscriber(event)
            except Exception as error:
                _report(error, event)

    def stream(self, until: str | None = None) -> "EventStream":
        """All events from now on, as an async iterator; `aclose()` it when done. until: the id of
        the sandbox with whose Deleted or Detached it ends."""
        return EventStream(self, until)


class EventStream(AsyncIterator[Event]):
    """Events as they come. Holds the newest `KEPT`; `dropped` counts those that had to go."""

    def __init__(self, bus: EventBus, until: str | None = None) -> None:
        self._until = until
        self._events: deque[Event] = deque()
        self._arrived = asyncio.Event()
        self._closed = False
        self._unsubscribe = bus.subscribe(self._take)
        self.dropped = 0

    def _take(self, event: Event) -> None:
        if len(self._events) >= KEPT:
            self._events.popleft()
            self.dropped += 1
        self._events.append(event)
        self._arrived.set()
        if event.sandbox_id == self._until and isinstance(event, Deleted | Detached):
            self.close()

    def __aiter__(self) -> "EventStream":
        return self

    async def __anext__(self) -> Event:
        while not self._events:
            if self._closed:
                raise StopAsyncIteration
            self._arrived.clear()
            await self._arrived.wait()
        return self._events.popleft()

    def close(self) -> None:
        """No event is added any more; those that came can still be read. Idempotent."""
        self._closed = True
        self._unsubscribe()
        self._arrived.set()

    async def aclose(self) -> None:
        """Like `close`, as async iterators have it."""
        self.close()


def _report(error: Exception, event: Event) -> None:
    context = {"message": f"a subscriber failed on {event.name}", "exception": error}
    try:
        asyncio.get_running_loop().call_exception_handler(context)
    except RuntimeError:
        return
