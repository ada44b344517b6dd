"""The streams to a container's guest: the one that create opened, a connection, an attachment."""

import asyncio
import os
import socket
from pathlib import Path

from ringfence.backends.base import ProtocolFactory, Record
from ringfence.backends.docker import failures, holding, streams
from ringfence.backends.docker.engine import Engine
from ringfence.backends.docker.inspection import Inspection, inspect
from ringfence.backends.door import Door, join
from ringfence.errors import DeadlineExceededError, SandboxLostError
from ringfence.spec import State

CONNECT_SECONDS = 10.0
_LOOK_SECONDS = 0.5


class Connecting:
    """Connects to the guest of one container. directory: where its door opens, None when it has
    none. waiting: the stream that create opened already, for the first time."""

    def __init__(
        self,
        engine: Engine,
        record: Record,
        directory: Path | None,
        waiting: socket.socket | streams.Attached | None,
    ) -> None:
        self._engine = engine
        self._record = record
        self._directory = directory
        self._waiting = waiting

    async def connect(self, factory: ProtocolFactory) -> asyncio.Transport:
        """The stream to the guest, as `Instance.connect` describes it."""
        waiting, self._waiting = self._waiting, None
        if self._record.transport == "stream":
            if not isinstance(waiting, streams.Attached) or waiting.ended:
                waiting = None
            return (await self._alone(waiting)).join(factory)
        if not isinstance(waiting, socket.socket):
            waiting = await self._dialled()
        return await join(waiting, factory)

    def drop(self) -> None:
        """Close what was opened and never asked for."""
        waiting, self._waiting = self._waiting, None
        if isinstance(waiting, socket.socket):
            waiting.close()
        elif waiting is not None:
            waiting.abort()

    async def _alone(self, waiting: streams.Attached | None) -> streams.Attached:
        """The stream of a sandbox, which no other client of this machine has meanwhile."""
        if not self._record.spec.detached:
            return waiting or await self._attached()
        held = await holding.hold(self._record.id, CONNECT_SECONDS)
        try:
            attached = waiting or await self._attached()
        except BaseException:
            os.close(held)
            raise
        attached.keep(held)
        return attached

    async def _attached(self) -> streams.Attached:
        attached = await streams.attach(self._engine, self._record.native)
        try:
            # Engines attach to what has ended too, and then nothing ever comes.
            seen = await inspect(self._engine, self._record.native)
            if seen is None or seen.state is State.EXITED:
                raise failures.of_ended("connect", self._record.id)
        except BaseException:
            attached.abort()
            raise
        return attached

    async def _dialled(self) -> socket.socket:
        seen = await inspect(self._engine, self._record.native)
        if seen is None or seen.state is State.EXITED or self._directory is None:
            raise failures.of_ended("connect", self._record.id)
        with Door(self._directory, holding.take(self._record.id)) as opened:
            return await dialled(opened, self._engine, seen)


async def dialled(
    opened: Door, engine: Engine, seen: Inspection, seconds: float = CONNECT_SECONDS
) -> socket.socket:
    """The connection of a container's guest through an open door.

    SandboxLostError when the container ends meanwhile, DeadlineExceededError after `seconds`.
    """
    accepting = asyncio.ensure_future(opened.accept(seen.pid))
    try:
        async with asyncio.timeout(seconds):
            while not (await asyncio.wait([accepting], timeout=_LOOK_SECONDS))[0]:
                now = await inspect(engine, seen.container)
                if now is None or now.state is State.EXITED:
                    raise SandboxLostError(
                        "connect: the sandbox ended before its guest came", op="connect"
                    )
    except TimeoutError as error:
        if isinstance(error, DeadlineExceededError):
            raise
        raise DeadlineExceededError(
            f"connect: the guest did not dial within {seconds:g} s", op="connect"
        ) from None
    finally:
        if not accepting.done():
            accepting.cancel()
            await asyncio.wait([accepting])
    return accepting.result()
