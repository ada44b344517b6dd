"""The backends of what is on record, each opened once."""

from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from types import TracebackType
from typing import Self

from ringfence.backends import registry
from ringfence.backends.base import Backend, Instance, Record, release
from ringfence.errors import NotFoundError

Load = Callable[[str, str | None], Backend]


class Backends:
    """The backends that one walk over the ledger needs. Use it in an `async with`: leaving it
    closes them; instances go on. load: gives a backend by name and endpoint; the registry's when
    left out."""

    def __init__(self, load: Load | None = None) -> None:
        self._load = load or registry.load
        self._open: dict[tuple[str, str], Backend] = {}

    def of(self, record: Record) -> Backend:
        """The backend that `record` names, opened when it is the first to."""
        key = (record.backend, record.endpoint)
        if key not in self._open:
            self._open[key] = self._load(record.backend, record.endpoint or None)
        return self._open[key]

    @property
    def opened(self) -> Collection[Backend]:
        """Those that were needed so far."""
        return self._open.values()

    @asynccontextmanager
    async def instance(self, record: Record) -> AsyncIterator[Instance]:
        """The instance of `record`, let go of at the end of the block; NotFoundError when it is
        gone or not made yet."""
        if not record.native:
            raise NotFoundError(f"sandbox {record.id} is being created", sandbox_id=record.id)
        instance = await self.of(record).attach(record)
        try:
            yield instance
        finally:
            release(instance)

    @asynccontextmanager
    async def if_there(self, record: Record) -> AsyncIterator[Instance | None]:
        """As `instance`, None when there is none."""
        async with AsyncExitStack() as held:
            instance = None
            with suppress(NotFoundError):
                instance = await held.enter_async_context(self.instance(record))
            yield instance

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        async with AsyncExitStack() as closing:  # all of them, whatever one of them raises
            for backend in self._open.values():
                closing.push_async_callback(backend.aclose)
