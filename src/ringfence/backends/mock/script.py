"""What the user of the mock says in advance, and what the mock noted down."""

import inspect
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import EllipsisType
from typing import Protocol

from ringfence.errors import InvalidSpecError, SandboxError
from ringfence.guest.protocol import Cred

Pattern = Sequence[str | re.Pattern[str] | EllipsisType]
"""Arguments to match one by one: a text exactly, a compiled pattern fully; a final ... matches any
rest."""


class Call(Protocol):
    """One run of a command, as the command itself sees it."""

    args: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str
    who: Cred

    async def read(self, size: int = 65536) -> bytes:
        """Up to `size` bytes of stdin; b"" at its end."""
        ...

    async def stdout(self, data: bytes) -> None:
        """Write to stdout, waiting like a process on a full pipe."""
        ...

    async def stderr(self, data: bytes) -> None:
        """Write to stderr, likewise."""
        ...

    def read_file(self, path: str) -> bytes:
        """A file, with the permissions of the command's user. OSError."""
        ...

    def write_file(self, path: str, data: bytes, *, append: bool = False) -> None:
        """Write a file, likewise."""
        ...


Answer = int | None
"""An exit code; None is 0."""
Command = Callable[[Call], Awaitable[Answer] | Answer]


@dataclass(frozen=True, slots=True)
class Recorded:
    """One operation that reached the mock's guest, oldest first in `MockBackend.calls`.

    op: "exec", "read", "write", "mkdir" ... args: of an exec. path: of a file operation.
    uid: whom it ran as, None where that has no meaning.
    """

    op: str
    args: tuple[str, ...] = ()
    path: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None
    uid: int | None = None


@dataclass(slots=True)
class Fault:
    """What happens instead of, or before, the next `times` operations called `op`.

    errno, stage: answer FAIL. delay: seconds before anything is done. lose: the stream ends, as if
    the sandbox had died. hang: nothing is ever answered. error: raised by an operation of the
    backend itself ("create", "facts", "connect", "delete", "attach").
    """

    op: str
    times: int = 1
    errno: int = 0
    stage: int = 0
    delay: float = 0.0
    lose: bool = False
    hang: bool = False
    error: SandboxError | None = None


@dataclass(slots=True)
class Script:
    """Expected commands, injected faults and recorded calls; shared by all instances."""

    commands: list[tuple[Pattern, Command]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    calls: list[Recorded] = field(default_factory=list)

    def command(self, args: Sequence[str]) -> Command | None:
        """The command of the newest pattern that matches."""
        for pattern, command in reversed(self.commands):
            if matches(pattern, args):
                return command
        return None

    def fault(self, op: str) -> Fault | None:
        """The fault that hits this operation, used up by it."""
        for fault in self.faults:
            if fault.op == op and fault.times > 0:
                fault.times -= 1
                return fault
        return None

    def check(self, op: str) -> None:
        """Raise the error that is injected for an operation of the backend."""
        fault = self.fault(op)
        if fault is not None and fault.error is not None:
            raise fault.error


def matches(pattern: Pattern, args: Sequence[str]) -> bool:
    """Whether `args` are what `pattern` describes."""
    wanted = list(pattern)
    if wanted and wanted[-1] is ...:
        wanted.pop()
        args = args[: len(wanted)]
    return len(args) == len(wanted) and all(map(_matches_one, wanted, args))


def _matches_one(wanted: str | re.Pattern[str] | EllipsisType, arg: str) -> bool:
    if isinstance(wanted, re.Pattern):
        return wanted.fullmatch(arg) is not None
    return wanted is ... or wanted == arg


def check_pattern(pattern: Pattern) -> Pattern:
    """`pattern`, unless it is a bare text, is empty, or has a ... before its end."""
    if isinstance(pattern, str) or not pattern or ... in list(pattern)[:-1]:
        raise InvalidSpecError(
            f"pattern: {pattern!r} is not a list of arguments: write ['git', 'status'] or "
            "['git', ...]",
            op="mock.on",
            context={"fields": ["pattern"]},
        )
    return tuple(pattern)


async def settle(answer: Awaitable[Answer] | Answer) -> int:
    """The exit code of a command, plain or async."""
    value = await answer if inspect.isawaitable(answer) else answer
    return 0 if value is None else value
