"""Every error that Ringfence raises.

SandboxError
├── InvalidSpecError          the request is wrong; nothing was started
├── PolicyDeniedError         a policy or a missing enforcement forbids it
├── UnsupportedError          this backend, daemon or machine cannot do it
├── NotFoundError             no such sandbox, user, directory ...
├── AlreadyExistsError        the name is taken
├── StateError                not possible in the sandbox's present state
├── ResourceExhaustedError    a limit or the machine is full; later it may work
├── BackendUnavailableError   the daemon or tool is absent, too old or refuses
├── DeadlineExceededError     an operation of ours did not end in time
├── SandboxLostError          the sandbox ended underneath the operation
├── GuestError                the guest broke the protocol
├── ImageError                an image is missing or unusable
│   └── ImageNotFoundError
├── ProcessError              a command failed and `check()` was called
└── FileError                 a file operation inside the sandbox failed
    ├── PathNotFoundError     (also FileNotFoundError)
    ├── PathExistsError       (also FileExistsError)
    ├── PathIsADirectoryError (also IsADirectoryError)
    ├── PathNotADirectoryError(also NotADirectoryError)
    ├── PathDeniedError       (also PermissionError)
    ├── FileTooLargeError
    └── UnsafeArchiveError    an archive or tree that must not be unpacked
"""

from __future__ import annotations

import enum
import errno
import os
from collections.abc import Mapping
from typing import Any, ClassVar


class Category(enum.StrEnum):
    """What kind of trouble it is; stable, for programs that branch on it."""

    INVALID = "invalid"
    DENIED = "denied"
    UNSUPPORTED = "unsupported"
    MISSING = "missing"
    CONFLICT = "conflict"
    EXHAUSTED = "exhausted"
    UNAVAILABLE = "unavailable"
    DEADLINE = "deadline"
    LOST = "lost"
    FAILED = "failed"
    INTERNAL = "internal"


class ErrorCode(enum.StrEnum):
    """One stable word per error class."""

    SANDBOX = "sandbox"
    INVALID_SPEC = "invalid_spec"
    POLICY_DENIED = "policy_denied"
    UNSUPPORTED = "unsupported"
    NOT_FOUND = "not_found"
    ALREADY_EXISTS = "already_exists"
    STATE = "state"
    RESOURCE_EXHAUSTED = "resource_exhausted"
    BACKEND_UNAVAILABLE = "backend_unavailable"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    SANDBOX_LOST = "sandbox_lost"
    GUEST = "guest"
    IMAGE = "image"
    IMAGE_NOT_FOUND = "image_not_found"
    PROCESS = "process"
    FILE = "file"
    PATH_NOT_FOUND = "path_not_found"
    PATH_EXISTS = "path_exists"
    PATH_IS_A_DIRECTORY = "path_is_a_directory"
    PATH_NOT_A_DIRECTORY = "path_not_a_directory"
    PATH_DENIED = "path_denied"
    FILE_TOO_LARGE = "file_too_large"
    UNSAFE_ARCHIVE = "unsafe_archive"


class SandboxError(Exception):
    """The root of the tree.

    `op` is the operation that failed ("create", "exec", "files.write"), `sandbox_id` the sandbox
    it happened in, `context` small JSON-able facts (a path, a status, a limit). `str()` says what
    happened and what to do about it. All of it survives pickling and `to_dict`/`from_dict`.
    """

    code: ClassVar[ErrorCode] = ErrorCode.SANDBOX
    category: ClassVar[Category] = Category.INTERNAL
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        op: str | None = None,
        sandbox_id: str | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.op = op
        self.sandbox_id = sandbox_id
        self.context: dict[str, Any] = dict(context or {})

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.message, self.op, self.sandbox_id, self.context))

    def to_dict(self) -> dict[str, Any]:
        """The error as JSON-able data."""
        return {
            "code": str(self.code),
            "category": str(self.category),
            "retryable": self.retryable,
            "message": self.message,
            "op": self.op,
            "sandbox_id": self.sandbox_id,
            "context": self.context,
        }

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> SandboxError:
        """The error that `to_dict` described; an unknown code gives a plain SandboxError."""
        cls = _by_code().get(data.get("code", ""), SandboxError)
        return _rebuild(
            cls,
            str(data.get("message", "")),
            data.get("op"),
            data.get("sandbox_id"),
            dict(data.get("context") or {}),
        )


def _rebuild(
    cls: type[SandboxError],
    message: str,
    op: str | None,
    sandbox_id: str | None,
    context: dict[str, Any],
) -> SandboxError:
    return cls(message, op=op, sandbox_id=sandbox_id, context=context)


def _by_code() -> dict[str, type[SandboxError]]:
    found: dict[str, type[SandboxError]] = {}
    waiting: list[type[SandboxError]] = [SandboxError]
    while waiting:
        cls = waiting.pop()
        found.setdefault(str(cls.code), cls)
        waiting.extend(cls.__subclasses__())
    return found


class InvalidSpecError(SandboxError, ValueError):
    """The request is wrong. Nothing was started."""

    code = ErrorCode.INVALID_SPEC
    category = Category.INVALID


class PolicyDeniedError(SandboxError):
    """A policy forbids it, or what was asked for turned out not to be enforced."""

    code = ErrorCode.POLICY_DENIED
    category = Category.DENIED


class UnsupportedError(SandboxError):
    """This backend, daemon or machine cannot do it. Nothing was started."""

    code = ErrorCode.UNSUPPORTED
    category = Category.UNSUPPORTED


class NotFoundError(SandboxError):
    """No such sandbox, user, process, directory or ref of a repository."""

    code = ErrorCode.NOT_FOUND
    category = Category.MISSING


class AlreadyExistsError(SandboxError):
    """The name or id is taken."""

    code = ErrorCode.ALREADY_EXISTS
    category = Category.CONFLICT


class StateError(SandboxError):
    """Not possible in the present state, such as an exec after delete."""

    code = ErrorCode.STATE
    category = Category.CONFLICT


class ResourceExhaustedError(SandboxError):
    """A limit is reached or the machine is full. Trying again later may work."""

    code = ErrorCode.RESOURCE_EXHAUSTED
    category = Category.EXHAUSTED
    retryable = True


class BackendUnavailableError(SandboxError):
    """The daemon or the tool is absent, too old, or refuses. The message names the remedy."""

    code = ErrorCode.BACKEND_UNAVAILABLE
    category = Category.UNAVAILABLE
    retryable = True


class DeadlineExceededError(SandboxError, TimeoutError):
    """An operation of Ringfence itself did not end in time (a command's timeout is a result)."""

    code = ErrorCode.DEADLINE_EXCEEDED
    category = Category.DEADLINE


class SandboxLostError(SandboxError):
    """The sandbox ended underneath the operation: removed, killed, expired, daemon restarted."""

    code = ErrorCode.SANDBOX_LOST
    category = Category.LOST


class GuestError(SandboxError):
    """The guest broke the protocol or could not start an operation."""

    code = ErrorCode.GUEST
    category = Category.INTERNAL


class ImageError(SandboxError):
    """An image is unusable."""

    code = ErrorCode.IMAGE
    category = Category.INVALID


class ImageNotFoundError(ImageError):
    """An image is not on the daemon and could not be had."""

    code = ErrorCode.IMAGE_NOT_FOUND
    category = Category.MISSING


class ProcessError(SandboxError):
    """A command failed and its result was `check()`ed. `context` holds exit code and reason."""

    code = ErrorCode.PROCESS
    category = Category.FAILED


class FileError(SandboxError):
    """A file operation inside the sandbox failed. `path` is the path it was asked for."""

    code = ErrorCode.FILE
    category = Category.FAILED

    number: ClassVar[int] = 0
    """The errno of those that are an OSError, too; they have it with the path as `filename`."""

    def __init__(
        self,
        message: str,
        *,
        op: str | None = None,
        sandbox_id: str | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message, op=op, sandbox_id=sandbox_id, context=context)
        if isinstance(self, OSError):
            _fill(self, self.context.get("errno", self.number), self.path)

    @property
    def path(self) -> str | None:
        """The path inside the sandbox, as it was asked for."""
        path = self.context.get("path")
        return None if path is None else str(path)


def _fill(error: OSError, number: int, path: str | None) -> None:
    error.errno = number
    error.strerror = os.strerror(number)
    error.filename = path


class PathNotFoundError(FileError, FileNotFoundError):
    """Nothing is there."""

    code = ErrorCode.PATH_NOT_FOUND
    category = Category.MISSING
    number = errno.ENOENT


class PathExistsError(FileError, FileExistsError):
    """Something is there already."""

    code = ErrorCode.PATH_EXISTS
    category = Category.CONFLICT
    number = errno.EEXIST


class PathIsADirectoryError(FileError, IsADirectoryError):
    """A directory where a file was wanted."""

    code = ErrorCode.PATH_IS_A_DIRECTORY
    category = Category.INVALID
    number = errno.EISDIR


class PathNotADirectoryError(FileError, NotADirectoryError):
    """Something else where a directory was wanted."""

    code = ErrorCode.PATH_NOT_A_DIRECTORY
    category = Category.INVALID
    number = errno.ENOTDIR


class PathDeniedError(FileError, PermissionError):
    """The user asked for has no permission there, or the file system is read-only."""

    code = ErrorCode.PATH_DENIED
    category = Category.DENIED
    number = errno.EACCES


class FileTooLargeError(FileError):
    """More bytes than the caller allowed."""

    code = ErrorCode.FILE_TOO_LARGE
    category = Category.EXHAUSTED


class UnsafeArchiveError(FileError):
    """An archive or a tree holds what must not be unpacked."""

    code = ErrorCode.UNSAFE_ARCHIVE
    category = Category.DENIED
