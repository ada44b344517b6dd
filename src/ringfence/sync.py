"""The same interface without asyncio: every name of `ringfence` blocks until it is done.

    with ringfence.sync.open(image="python:3.12-slim") as sandbox:
        print(sandbox.exec(["python3", "--version"]).stdout)

One thread runs the event loop of all sandboxes; any number of threads may use this module, and
several sandboxes, at once. Nothing here has logic of its own: classes and functions are made from
the asynchronous ones when they are first used, with the same parameters. `await` and `async with`
fall away (`spawn` and `open` give what can be used in a `with`), async iterators become iterators,
`aclose` becomes `close`, and an iterator of bytes serves wherever an async one does. Callbacks are
called in the loop's thread. Ctrl-C cancels the operation under way and is raised after its end.
A forked child may open sandboxes of its own; its parent's raise StateError there, and stay.
"""

import asyncio
import functools
import inspect
import os
import threading
from collections.abc import (
    AsyncIterator,
    Callable,
    Coroutine,
    Iterator,
)
from contextlib import AbstractAsyncContextManager
from typing import Any

from ringfence.errors import StateError
from ringfence.events import EventStream as _EventStream
from ringfence.guest.reading import Reader as _Reader
from ringfence.sandbox import entry as _entry
from ringfence.sandbox import members as _members
from ringfence.sandbox import pool as _pool
from ringfence.sandbox.files import Files as _Files
from ringfence.sandbox.process import Process as _Process
from ringfence.sandbox.sandbox import Sandbox as _Sandbox
from ringfence.sandbox.stream import Stream as _Stream
from ringfence.sandbox.workspace import Workspace as _Workspace

__all__ = [
    "Events",
    "Files",
    "Pool",
    "Process",
    "Reader",
    "Sandbox",
    "Stream",
    "Workspace",
    "delete_sandbox",
    "list_sandboxes",
    "open",
    "pause_sandbox",
    "pool",
    "resume_sandbox",
    "run",
    "usages",
]


class _Loop:
    """The event loop in a thread of its own, started when it is first needed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0

    def get(self) -> asyncio.AbstractEventLoop:
        """The running loop; a new one in a forked child."""
        with self._lock:
            if self._loop is None or self._pid != os.getpid():
                self._loop = asyncio.new_event_loop()
                self._pid = os.getpid()
                run = self._loop.run_forever
                threading.Thread(target=run, name="ringfence-sync", daemon=True).start()
            return self._loop

    def run(self, step: Coroutine[Any, Any, Any]) -> Any:
        """The result of `step`. What interrupts the waiting cancels it and is raised after its
        end."""
        loop = self.get()
        if asyncio._get_running_loop() is loop:
            step.close()
            raise StateError("ringfence.sync cannot be used in its own callbacks", op="sync")
        tasks: list[asyncio.Task[Any]] = []
        done = threading.Event()

        def start() -> None:
            tasks.append(loop.create_task(step))
            tasks[0].add_done_callback(lambda _: done.set())

        def cancel() -> None:
            tasks[0].cancel()

        loop.call_soon_threadsafe(start)
        try:
            done.wait()
        except BaseException:
            loop.call_soon_threadsafe(cancel)
            done.wait()
            raise
        return tasks[0].result()


_LOOP = _Loop()


def _own(inner: "_Facade", op: str) -> None:
    """StateError in a forked child: a session is its opener's, and its stream may not be shared."""
    if inner._pid != os.getpid():
        raise StateError(
            f"{op}: this belongs to the process that forked this one: open another sandbox here,"
            " or a detached one by its id",
            op=op,
        )


async def _call(function: Callable[..., Any], args: tuple[Any, ...], kw: dict[str, Any]) -> Any:
    value = function(*map(_adapt, args), **{name: _adapt(one) for name, one in kw.items()})
    while inspect.isawaitable(value):
        value = await value
    return value


def _adapt(value: Any) -> Any:
    """An argument as the asynchronous side takes it."""
    if isinstance(value, _Facade):
        return value._inner
    if isinstance(value, Iterator) and not hasattr(value, "read"):
        return _iterate(value)
    return value


_END = object()


async def _iterate(source: Iterator[Any]) -> AsyncIterator[Any]:
    while (item := await asyncio.to_thread(next, source, _END)) is not _END:
        yield item


def _wrap(value: Any) -> Any:
    """A result as the blocking side gives it."""
    for asynchronous, blocking in _PAIRS.items():
        if isinstance(value, asynchronous):
            return blocking(value)
    if isinstance(value, AsyncIterator):
        return _Iterator(value)
    if isinstance(value, list) and value and isinstance(value[0], tuple(_PAIRS)):
        return [_wrap(one) for one in value]
    if isinstance(value, AbstractAsyncContextManager):
        return _Block(value)
    return value


class _Facade:
    """A class whose methods are another's, made blocking."""

    def __init_subclass__(cls, of: type | None = None) -> None:
        if of is None:
            return
        cls.__doc__ = of.__doc__
        for name, member in vars(of).items():
            if name == "aclose":
                cls.close = _method(name, member)  # type: ignore[attr-defined]
            elif not name.startswith("_"):
                setattr(cls, name, _member(name, member))

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._pid = os.getpid()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "aclose":
            raise AttributeError(name)
        return self._part(getattr(self._inner, name))

    def _part(self, value: Any) -> Any:
        """A part of it, which is the same process's."""
        part = _wrap(value)
        if isinstance(part, _Facade):
            part._pid = self._pid
        return part

    def __repr__(self) -> str:
        return repr(self._inner)

    def __enter__(self) -> Any:
        _LOOP.run(_call(self._inner.__aenter__, (), {}))
        return self

    def __exit__(self, *error: object) -> Any:
        if self._pid != os.getpid():
            return None
        return _LOOP.run(_call(self._inner.__aexit__, error, {}))


class _Iterator(_Facade):
    """An asynchronous iterator, made blocking. `close` ends it early."""

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        _own(self, "next")
        try:
            return _wrap(_LOOP.run(_call(self._inner.__anext__, (), {})))
        except StopAsyncIteration:
            raise StopIteration from None

    def close(self) -> None:
        """End it. Idempotent."""
        aclose = getattr(self._inner, "aclose", None)
        if aclose is None or self._pid != os.getpid():
            return
        _LOOP.run(_call(aclose, (), {}))

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class _Block(_Facade):
    """An asynchronous context manager, made blocking."""

    def __enter__(self) -> Any:
        return _wrap(_LOOP.run(_call(self._inner.__aenter__, (), {})))


def _member(name: str, member: Any) -> Any:
    if isinstance(member, property):
        return property(lambda self: self._part(getattr(self._inner, name)), doc=member.__doc__)
    return _method(name, member) if callable(member) else member


def _method(name: str, member: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(member)
    def method(self: _Facade, *args: Any, **kw: Any) -> Any:
        _own(self, name)
        return _wrap(_LOOP.run(_call(getattr(self._inner, name), args, kw)))

    return method


def _function(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def blocking(*args: Any, **kw: Any) -> Any:
        return _wrap(_LOOP.run(_call(function, args, kw)))

    return blocking


class Sandbox(_Facade, of=_Sandbox):  # noqa: D101 - documented by the class it is made of
    pass


class Files(_Facade, of=_Files):  # noqa: D101 - likewise
    pass


class Workspace(_Facade, of=_Workspace):  # noqa: D101 - likewise
    pass


class Process(_Facade, of=_Process):  # noqa: D101 - likewise
    pass


class Stream(_Iterator, of=_Stream):  # noqa: D101 - likewise
    pass


class Reader(_Iterator, of=_Reader):  # noqa: D101 - likewise
    pass


class Events(_Iterator, of=_EventStream):  # noqa: D101 - likewise
    pass


class Pool(_Facade, of=_pool.Pool):  # noqa: D101 - likewise
    pass


_PAIRS: dict[type, type] = {
    _Sandbox: Sandbox,
    _Files: Files,
    _Workspace: Workspace,
    _Process: Process,
    _Stream: Stream,
    _Reader: Reader,
    _EventStream: Events,
    _pool.Pool: Pool,
}

open = _function(_entry.open)  # noqa: A001 - as in ringfence
run = _function(_entry.run)
pool = _function(_pool.pool)
list_sandboxes = _function(_members.list_sandboxes)
delete_sandbox = _function(_members.delete_sandbox)
pause_sandbox = _function(_members.pause_sandbox)
resume_sandbox = _function(_members.resume_sandbox)
usages = _function(_members.usages)
