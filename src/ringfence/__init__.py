"""Execution sandboxes for tasks nobody vouches for. Begin with `open` and `run`.

Names are loaded when they are first used, so that importing one part does not load the others.
"""

from __future__ import annotations

TYPE_CHECKING = False  # what type checkers take for typing's: typing is most of an import's time
if TYPE_CHECKING:
    from typing import Any

    from ringfence import digest as digest
    from ringfence import errors as errors
    from ringfence import events as events
    from ringfence import spec as spec
    from ringfence import sync as sync
    from ringfence import testing as testing
    from ringfence.errors import AlreadyExistsError as AlreadyExistsError
    from ringfence.errors import BackendUnavailableError as BackendUnavailableError
    from ringfence.errors import Category as Category
    from ringfence.errors import DeadlineExceededError as DeadlineExceededError
    from ringfence.errors import ErrorCode as ErrorCode
    from ringfence.errors import FileError as FileError
    from ringfence.errors import FileTooLargeError as FileTooLargeError
    from ringfence.errors import GuestError as GuestError
    from ringfence.errors import ImageError as ImageError
    from ringfence.errors import ImageNotFoundError as ImageNotFoundError
    from ringfence.errors import InvalidSpecError as InvalidSpecError
    from ringfence.errors import NotFoundError as NotFoundError
    from ringfence.errors import PathDeniedError as PathDeniedError
    from ringfence.errors import PathExistsError as PathExistsError
    from ringfence.errors import PathIsADirectoryError as PathIsADirectoryError
    from ringfence.errors import PathNotADirectoryError as PathNotADirectoryError
    from ringfence.errors import PathNotFoundError as PathNotFoundError
    from ringfence.errors import PolicyDeniedError as PolicyDeniedError
    from ringfence.errors import ProcessError as ProcessError
    from ringfence.errors import ResourceExhaustedError as ResourceExhaustedError
    from ringfence.errors import SandboxError as SandboxError
    from ringfence.errors import SandboxLostError as SandboxLostError
    from ringfence.errors import StateError as StateError
    from ringfence.errors import UnsafeArchiveError as UnsafeArchiveError
    from ringfence.errors import UnsupportedError as UnsupportedError
    from ringfence.events import Event as Event
    from ringfence.events import EventBus as EventBus
    from ringfence.events import EventStream as EventStream
    from ringfence.ledger import Ledger as Ledger
    from ringfence.policy import Ceiling as Ceiling
    from ringfence.sandbox.control import Health as Health
    from ringfence.sandbox.deleting import DeleteReport as DeleteReport
    from ringfence.sandbox.entries import FileEvent as FileEvent
    from ringfence.sandbox.entries import FileInfo as FileInfo
    from ringfence.sandbox.entries import Kind as Kind
    from ringfence.sandbox.entries import Listing as Listing
    from ringfence.sandbox.entry import open as open  # noqa: A004 - the library's own word
    from ringfence.sandbox.entry import run as run
    from ringfence.sandbox.extract import Caps as Caps
    from ringfence.sandbox.files import Files as Files
    from ringfence.sandbox.members import delete_sandbox as delete_sandbox
    from ringfence.sandbox.members import list_sandboxes as list_sandboxes
    from ringfence.sandbox.members import pause_sandbox as pause_sandbox
    from ringfence.sandbox.members import resume_sandbox as resume_sandbox
    from ringfence.sandbox.members import usages as usages
    from ringfence.sandbox.monitor import Monitor as Monitor
    from ringfence.sandbox.moved import Moved as Moved
    from ringfence.sandbox.pool import Pool as Pool
    from ringfence.sandbox.pool import pool as pool
    from ringfence.sandbox.process import Process as Process
    from ringfence.sandbox.running import ProcessInfo as ProcessInfo
    from ringfence.sandbox.running import Terminal as Terminal
    from ringfence.sandbox.sandbox import Sandbox as Sandbox
    from ringfence.sandbox.stock import PoolStatistics as PoolStatistics
    from ringfence.sandbox.workspace import Workspace as Workspace
    from ringfence.spec import Control as Control
    from ringfence.spec import ExecResult as ExecResult
    from ringfence.spec import ExecUsage as ExecUsage
    from ringfence.spec import GitIdentity as GitIdentity
    from ringfence.spec import Limits as Limits
    from ringfence.spec import Mount as Mount
    from ringfence.spec import Network as Network
    from ringfence.spec import Port as Port
    from ringfence.spec import Reason as Reason
    from ringfence.spec import Receipt as Receipt
    from ringfence.spec import Repository as Repository
    from ringfence.spec import Rule as Rule
    from ringfence.spec import RunResult as RunResult
    from ringfence.spec import SandboxInfo as SandboxInfo
    from ringfence.spec import SandboxSpec as SandboxSpec
    from ringfence.spec import Secret as Secret
    from ringfence.spec import Security as Security
    from ringfence.spec import State as State
    from ringfence.spec import Ulimit as Ulimit
    from ringfence.spec import Ulimits as Ulimits
    from ringfence.spec import Usage as Usage
    from ringfence.workspace import Changes as Changes
    from ringfence.workspace import Patch as Patch
    from ringfence.workspace import Snapshot as Snapshot

__all__ = [
    "AlreadyExistsError",
    "BackendUnavailableError",
    "Caps",
    "Category",
    "Ceiling",
    "Changes",
    "Control",
    "DeadlineExceededError",
    "DeleteReport",
    "ErrorCode",
    "Event",
    "EventBus",
    "EventStream",
    "ExecResult",
    "ExecUsage",
    "FileError",
    "FileEvent",
    "FileInfo",
    "FileTooLargeError",
    "Files",
    "GitIdentity",
    "GuestError",
    "Health",
    "ImageError",
    "ImageNotFoundError",
    "InvalidSpecError",
    "Kind",
    "Ledger",
    "Limits",
    "Listing",
    "Monitor",
    "Mount",
    "Moved",
    "Network",
    "NotFoundError",
    "Patch",
    "PathDeniedError",
    "PathExistsError",
    "PathIsADirectoryError",
    "PathNotADirectoryError",
    "PathNotFoundError",
    "PolicyDeniedError",
    "Pool",
    "PoolStatistics",
    "Port",
    "Process",
    "ProcessError",
    "ProcessInfo",
    "Reason",
    "Receipt",
    "Repository",
    "ResourceExhaustedError",
    "Rule",
    "RunResult",
    "Sandbox",
    "SandboxError",
    "SandboxInfo",
    "SandboxLostError",
    "SandboxSpec",
    "Secret",
    "Security",
    "Snapshot",
    "State",
    "StateError",
    "Terminal",
    "Ulimit",
    "Ulimits",
    "UnsafeArchiveError",
    "UnsupportedError",
    "Usage",
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

_HOMES = {
    "ringfence.errors": (
        "AlreadyExistsError",
        "BackendUnavailableError",
        "Category",
        "DeadlineExceededError",
        "ErrorCode",
        "FileError",
        "FileTooLargeError",
        "GuestError",
        "ImageError",
        "ImageNotFoundError",
        "InvalidSpecError",
        "NotFoundError",
        "PathDeniedError",
        "PathExistsError",
        "PathIsADirectoryError",
        "PathNotADirectoryError",
        "PathNotFoundError",
        "PolicyDeniedError",
        "ProcessError",
        "ResourceExhaustedError",
        "SandboxError",
        "SandboxLostError",
        "StateError",
        "UnsafeArchiveError",
        "UnsupportedError",
    ),
    "ringfence.events": (
        "Event",
        "EventBus",
        "EventStream",
    ),
    "ringfence.ledger": ("Ledger",),
    "ringfence.policy": ("Ceiling",),
    "ringfence.sandbox.control": ("Health",),
    "ringfence.sandbox.deleting": ("DeleteReport",),
    "ringfence.sandbox.entries": (
        "FileEvent",
        "FileInfo",
        "Kind",
        "Listing",
    ),
    "ringfence.sandbox.entry": (
        "open",
        "run",
    ),
    "ringfence.sandbox.extract": ("Caps",),
    "ringfence.sandbox.files": ("Files",),
    "ringfence.sandbox.members": (
        "delete_sandbox",
        "list_sandboxes",
        "pause_sandbox",
        "resume_sandbox",
        "usages",
    ),
    "ringfence.sandbox.monitor": ("Monitor",),
    "ringfence.sandbox.moved": ("Moved",),
    "ringfence.sandbox.pool": (
        "Pool",
        "pool",
    ),
    "ringfence.sandbox.process": ("Process",),
    "ringfence.sandbox.running": (
        "ProcessInfo",
        "Terminal",
    ),
    "ringfence.sandbox.sandbox": ("Sandbox",),
    "ringfence.sandbox.stock": ("PoolStatistics",),
    "ringfence.sandbox.workspace": ("Workspace",),
    "ringfence.spec": (
        "Control",
        "ExecResult",
        "ExecUsage",
        "GitIdentity",
        "Limits",
        "Mount",
        "Network",
        "Port",
        "Reason",
        "Receipt",
        "Repository",
        "Rule",
        "RunResult",
        "SandboxInfo",
        "SandboxSpec",
        "Secret",
        "Security",
        "State",
        "Ulimit",
        "Ulimits",
        "Usage",
    ),
    "ringfence.workspace": (
        "Changes",
        "Patch",
        "Snapshot",
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


_PARTS = frozenset({"digest", "errors", "events", "spec", "sync", "testing"})


if not TYPE_CHECKING:  # to a type checker it would mean that every name is there

    def __getattr__(name: str) -> Any:
        from importlib import import_module

        if name in _PARTS:
            return import_module(f"ringfence.{name}")
        home = _HOME_OF.get(name)
        if home is None:
            raise AttributeError(f"module 'ringfence' has no attribute {name!r}")
        value = getattr(import_module(home), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
