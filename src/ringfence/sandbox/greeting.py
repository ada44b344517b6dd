"""The first words with a guest: the greeting, and what is asked along with it."""

import asyncio
from collections.abc import Callable
from typing import Any

from ringfence.backends.base import Features, Instance, Starting, filter_of, user_of
from ringfence.errors import SandboxLostError
from ringfence.guest.control import User
from ringfence.guest.request import Exit, NotStarted
from ringfence.guest.session import Session
from ringfence.sandbox import receipt as receipts
from ringfence.spec import SandboxSpec

LEASE_SECONDS = 10.0
GREETING_SECONDS = 30.0


async def greet(
    instance: Instance,
    granted: SandboxSpec,
    *,
    again: bool = False,
    first: Callable[[Session], object] = lambda _: None,
) -> Session:
    """A session with the guest. again: it is not the first, so that its lifetime runs already.
    first: what is sent along with the greeting; see `Session.start`.
    As `Session.start` raises, and where its guest does not come up at all, as its backend does."""
    try:
        session = await _session(instance, granted, again=again, first=first)
    except SandboxLostError:
        error = await instance.not_started() if isinstance(instance, Starting) else None
        if error is None:
            raise
        raise error from None
    if isinstance(instance, Starting):
        instance.started()
    return session


async def _session(
    instance: Instance, granted: SandboxSpec, *, again: bool, first: Callable[[Session], object]
) -> Session:
    record = instance.record
    return await Session.start(
        instance.connect,
        marker=record.marker,
        next_marker=record.marker,
        lease=LEASE_SECONDS,
        lifetime=None if again else granted.lifetime,
        detached=granted.detached,
        deadline=GREETING_SECONDS,
        first=first,
    )


class FirstAsked:
    """The user of commands, as the sandbox knows it, their filter, and what a command of that user
    sees where the backend knows the user, too: in one breath with the greeting, of which each
    would be a turn of the event loop."""

    def __init__(self, granted: SandboxSpec, instance: Instance, features: Features) -> None:
        self._granted = granted
        self._filter = b""
        self._guess: User | None = None
        if features.receipt:
            self._filter = filter_of(instance)
            self._guess = _guessed(instance)
        self._user: asyncio.Future[User] | None = None
        self._filtered: asyncio.Future[None] | None = None
        self._view: asyncio.Future[Exit | NotStarted] | None = None

    def ask(self, session: Session) -> None:
        """For `greet`."""
        self._user = session.begin_user(self._granted.user or "")
        self._user.add_done_callback(_heard)
        if self._filter:
            self._filtered = session.begin_filter(self._filter)
            self._filtered.add_done_callback(_heard)
        if self._guess is not None:
            self._view = session.begin(receipts.viewing(self._granted, self._guess))

    async def user(self) -> User:
        """The user, once both are answered. NotFoundError, UnsupportedError."""
        assert self._user is not None  # noqa: S101 - the greeting asked for it
        if self._filtered is not None:
            await self._filtered
        return await self._user

    async def view(self, user: User) -> "asyncio.Future[Exit | NotStarted] | None":
        """What shows `user`'s view, begun already; None where another's was begun, which is over
        then, or none."""
        guess, view = self._guess, self._view
        if guess is None or view is None:
            return None
        if (guess.uid, guess.gid, guess.groups) == (user.uid, user.gid, user.groups):
            return view
        await view
        return None


def _guessed(instance: Instance) -> User | None:
    known = user_of(instance)
    return None if known is None else User(*known, (), "", "", "")


def _heard(asked: "asyncio.Future[Any]") -> None:
    """What a session that did not come about leaves unanswered is no error of its own."""
    if not asked.cancelled():
        asked.exception()
