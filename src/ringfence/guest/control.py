"""What the guest answers about the sandbox as a whole, and what its refusals mean."""

from dataclasses import dataclass
from errno import ENOENT, ENOSYS, ESRCH
from typing import NamedTuple

from ringfence.errors import (
    GuestError,
    InvalidSpecError,
    NotFoundError,
    SandboxError,
    UnsupportedError,
)
from ringfence.guest.payload import Payload, malformed
from ringfence.guest.protocol import Cred, Failure

_EXEC_ROW_BYTES = 29


@dataclass(frozen=True, slots=True)
class User:
    """A user as the sandbox's own /etc/passwd and /etc/group have it. home, shell: "" if unset."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    name: str
    home: str
    shell: str

    @property
    def ids(self) -> tuple[int, ...]:
        """Its uid and all its gids."""
        return (self.uid, self.gid, *self.groups)

    @property
    def cred(self) -> Cred:
        """Likewise, as the guest takes it for files."""
        return Cred(self.uid, self.gid, self.groups)


@dataclass(frozen=True, slots=True)
class ListedExec:
    """One exec that the guest knows. id: for `attach` and `forget`; stdout_end, stderr_end: offsets
    behind the last byte written."""

    id: int
    pid: int
    running: bool
    stdout_end: int
    stderr_end: int
    args: tuple[bytes, ...]


class Space(NamedTuple):
    """How full a tmpfs is. size, free: bytes. files, free_files: how many; all are 0 for what is on
    no tmpfs."""

    size: int
    free: int
    files: int
    free_files: int


def unpack_spaces(fields: Payload, count: int) -> list[Space]:
    """The payload of SPACE, for so many places."""
    if fields.count(32) != count:
        raise malformed("a SPACE of other places")
    return [Space(fields.u64(), fields.u64(), fields.u64(), fields.u64()) for _ in range(count)]


def unpack_user(fields: Payload) -> User:
    """The payload of USER."""
    uid, gid = fields.u32(), fields.u32()
    groups = fields.numbers()
    return User(uid, gid, groups, fields.text(), fields.text(), fields.text())


def unpack_list(fields: Payload) -> list[ListedExec]:
    """The payload of LIST."""
    return [_unpack_row(fields) for _ in range(fields.count(_EXEC_ROW_BYTES))]


def _unpack_row(fields: Payload) -> ListedExec:
    exec_id, pid, state = fields.u32(), fields.u32(), fields.u8()
    if state > 1:
        raise malformed(f"an exec in state {state}")
    ends = fields.u64(), fields.u64()
    return ListedExec(exec_id, pid, state == 0, *ends, tuple(fields.strings()))


def failed(op: str, failure: Failure, what: str) -> SandboxError:
    """The error for a FAIL of a control operation about `what`."""
    context = {"errno": failure.errno, "what": what}
    if failure.errno in (ENOENT, ESRCH):
        return NotFoundError(f"{op}: there is no {what} in this sandbox", op=op, context=context)
    if failure.errno == ENOSYS:
        return UnsupportedError(f"{op}: the guest cannot do this", op=op, context=context)
    if op == "user":
        return InvalidSpecError(
            f"user: {what} cannot be used (errno {failure.errno}): choose another user",
            op=op,
            context=context,
        )
    return GuestError(f"{op}: {what} failed with errno {failure.errno}", op=op, context=context)
