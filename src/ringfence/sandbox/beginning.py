"""What begins when it is awaited, or when its block begins, which then ends it."""

from collections.abc import Generator
from types import TracebackType
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Beginning(Generic[T]):
    """`await` it, and end what it gives yourself, or `async with` it."""

    _begun: T | None = None

    async def _begin(self) -> T:
        raise NotImplementedError

    async def _end(self, begun: T, error: BaseException | None) -> None:
        """Its block is over. error: what it raised."""
        raise NotImplementedError

    def __await__(self) -> Generator[Any, None, T]:
        return self._begin().__await__()

    async def __aenter__(self) -> T:
        self._begun = begun = await self._begin()
        return begun

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._begun is not None:
            await self._end(self._begun, error)
