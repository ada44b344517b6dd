"""What the parts of one sandbox share: its life, its session, its users and its settings."""

import asyncio
import errno
import os
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING

from ringfence.backends.base import Backend, Features, Instance
from ringfence.errors import (
    FileError,
    InvalidSpecError,
    NotFoundError,
    PolicyDeniedError,
    ResourceExhaustedError,
    SandboxError,
    UnsupportedError,
)
from ringfence.events import EventBus
from ringfence.guest.control import User
from ringfence.guest.protocol import Cred
from ringfence.guest.session import Session
from ringfence.policy import PROFILES, Ceiling, Facts
from ringfence.policy.users import are_reserved
from ringfence.sandbox import tmpfs
from ringfence.sandbox.environment import Environment
from ringfence.sandbox.life import Life
from ringfence.spec import SandboxSpec
from ringfence.spec.sandbox import check_user

if TYPE_CHECKING:
    from ringfence.sandbox.stillness import Stillness

_LIMITS = {
    ("files", errno.ENOSPC): "disk",
    ("files", errno.EDQUOT): "disk",
    ("exec", errno.EAGAIN): "pids",
    ("spawn", errno.EAGAIN): "pids",
}
"""Which limit an operation met, by its kind and the kernel's word."""


class Context:
    """Shared by Sandbox, its commands and its files. spec: the granted one. backend: where it was
    made. ceiling: the most that may be granted. changing: held while its limits are changed;
    freezing: while it is paused or resumed. freezes: how often it was paused. room: how full its
    own disk is, None when it has none of a size. hide: keeps what is secret in a spec out of the
    audit log."""

    def __init__(
        self,
        life: Life,
        spec: SandboxSpec,
        features: Features,
        default: User,
        *,
        backend: Backend,
        ceiling: Ceiling,
    ) -> None:
        self.life = life
        self.ceiling = ceiling
        self.changing = asyncio.Lock()
        self.freezing = asyncio.Lock()
        self.freezes = 0
        self.backend = backend
        self.features = features
        self.default_user = default
        self.room: Callable[[], os.statvfs_result | None] = lambda: None
        self.hide: Callable[[SandboxSpec], None] = lambda _: None
        self.stillness: Stillness | None = None
        self.take(spec)

    @property
    def id(self) -> str:
        """The sandbox's id."""
        return self.life.id

    @property
    def session(self) -> Session:
        """The session with its guest."""
        return self.life.session

    @property
    def instance(self) -> Instance:
        """Its instance on the backend."""
        return self.life.instance

    @property
    def bus(self) -> EventBus:
        """Where its events go."""
        return self.life.bus

    @property
    def limited_tmpfs(self) -> Mapping[str, str]:
        """Its tmpfs that have a size, as `tmpfs.limits` has them."""
        return tmpfs.limits(self.spec, self.features)

    async def facts(self, spec: SandboxSpec | None = None) -> Facts:
        """What the machine can give, for its own spec or another one, asked anew."""
        return await self.backend.facts(spec or self.spec)

    def take(self, spec: SandboxSpec) -> None:
        """Be a sandbox of another spec, before its first command."""
        self.spec = spec
        self.env = Environment(spec.env)
        self.cwd = _cwd(spec)

    def operation(self, op: str, *, uses: bool = True) -> "Doing":
        """Around each operation: is it possible now, and whose error is it. uses: whether the
        sandbox is not idle meanwhile."""
        return Doing(self, op, uses=uses)

    def say_limit(self, op: str, error: SandboxError) -> None:
        """An operation that a full disk or the limit of processes kept from being done."""
        limit = _LIMITS.get((op.partition(".")[0], error.context.get("errno") or 0))
        if limit == "disk" and isinstance(error, FileError) and error.path is not None:
            filled = error.context.get("to", error.path)
            limit = tmpfs.limit_at(filled, self.spec, self.limited_tmpfs) or limit
        if limit is not None:
            self.life.hit(limit, op)

    async def user(self, name: str | int | None) -> User:
        """A user of the sandbox by name, uid, "uid:gid" or "name:group"; None is the default.

        NotFoundError, InvalidSpecError; UnsupportedError where there is only one user;
        PolicyDeniedError for root, and whom the sandbox's /etc/group has in root's group, where the
        profile or the ceiling gives no root.
        """
        if name is None:
            return self.default_user
        try:
            text = check_user(name)
        except ValueError as error:
            raise InvalidSpecError(
                f"user: {error}", op="user", context={"fields": ["user"]}
            ) from None
        if not self.features.users and not _is(self.default_user, text):
            raise UnsupportedError(
                f"user: this backend runs everything as {self.default_user.uid}: leave user out",
                op="user",
                context={"fields": ["user"]},
            )
        user = await self.session.user(text)
        if are_reserved(user.ids, self.session.hello.reserved_uid):
            raise NotFoundError(
                f"user: {text!r}, or a group of it, is reserved for the guest: choose another",
                op="user",
            )
        if self.default_user.uid != 0:
            if user.uid == 0:
                self._need_root(f"{text!r} is root")
            elif 0 in user.groups:
                self._need_root(f"{text!r} is in the group of root")
        return user

    def _need_root(self, asked: str) -> None:
        profile = self.spec.profile
        if PROFILES[profile].relaxed and self.ceiling.security.root:
            return
        why = f"only profile 'permissive' gives it, this is {profile!r}"
        if PROFILES[profile].relaxed:
            why = "it is above the ceiling"
        raise PolicyDeniedError(
            f"user: {asked}: {why}",
            op="user",
            sandbox_id=self.id,
            context={"fields": ["user"]},
        )

    async def cred(self, name: str | int | None) -> Cred:
        """Likewise, as the guest takes it for files."""
        return (await self.user(name)).cred


class Doing:
    """One operation, from its begin to its end."""

    __slots__ = ("_context", "_op", "_uses")

    def __init__(self, context: Context, op: str, *, uses: bool) -> None:
        self._context = context
        self._op = op
        self._uses = uses

    def __enter__(self) -> None:
        life = self._context.life
        life.check(self._op)
        life.running += self._uses

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        life = self._context.life
        if isinstance(error, SandboxError):
            life.blame(error)
            self._context.say_limit(self._op, error)
        if self._uses:
            life.running -= 1
            life.touch()
        if _is_full(error):
            raise ResourceExhaustedError(
                f"{self._op}: this process has too many files open: close some, or raise its limit"
                " (ulimit -n)",
                op=self._op,
                sandbox_id=self._context.id,
            ) from error


def _is_full(error: BaseException | None) -> bool:
    """Whether it is Python's own word for no more descriptors."""
    if isinstance(error, SandboxError) or not isinstance(error, OSError):
        return False
    return error.errno in (errno.EMFILE, errno.ENFILE)


def _cwd(spec: SandboxSpec) -> str:
    return spec.cwd or (spec.repository.mount_point if spec.repository else "/")


def _is(user: User, text: str) -> bool:
    return text in (user.name, str(user.uid), f"{user.uid}:{user.gid}")
