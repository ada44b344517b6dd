"""The types of ringfence.sync. Written by scripts/sync_stub."""

# ruff: noqa
import os
from collections.abc import (
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import AbstractContextManager
from typing import Any, Self

from ringfence.backends.base import Backend
from ringfence.events import (
    Event,
    EventBus,
)
from ringfence.guest.execs import Exec
from ringfence.guest.protocol import (
    Stat,
)
from ringfence.ledger import Ledger
from ringfence.policy import Ceiling
from ringfence.sandbox.commands import (
    Args,
    OnOutputLimit,
    Sink,
)
from ringfence.sandbox.control import Health
from ringfence.sandbox.entries import FileEvent, FileInfo, Listing
from ringfence.sandbox.entry import ProfileName
from ringfence.sandbox.environment import Environment
from ringfence.sandbox.extract import Caps
from ringfence.sandbox.files import Data, Path, User
from ringfence.sandbox.life import DeleteReport
from ringfence.sandbox.pool import PoolStatistics
from ringfence.sandbox.progress import Progress
from ringfence.sandbox.running import ProcessInfo, Terminal
from ringfence.sandbox.stdin import Stdin
from ringfence.sandbox.trees import Moved
from ringfence.sandbox.workspace import Workspace
from ringfence.spec import (
    ExecResult,
    Limits,
    Mount,
    Network,
    Receipt,
    Repository,
    RunResult,
    SandboxInfo,
    SandboxSpec,
    Security,
    State,
    Ulimits,
    Usage,
)
from ringfence.workspace import Snapshot

class Sandbox:
    files: Files

    @property
    def id(self) -> str: ...
    @property
    def spec(self) -> SandboxSpec: ...
    @property
    def receipt(self) -> Receipt: ...
    @property
    def info(self) -> SandboxInfo: ...
    @property
    def workspace(self) -> Workspace: ...
    @property
    def env(self) -> Environment: ...
    @property
    def cwd(self) -> str: ...
    @property
    def history(self) -> tuple[Event, ...]: ...
    def chdir(self, path: str) -> None: ...
    def state(self) -> State: ...
    def exec(
        self,
        args: Args | None = ...,
        *,
        shell: str | None = ...,
        env: Mapping[str, str | None] | None = ...,
        cwd: str | None = ...,
        user: str | int | None = ...,
        stdin: Stdin | None | Iterator[bytes] = ...,
        timeout: float | str | None = ...,
        grace: float = ...,
        output: int | str | None = ...,
        on_output_limit: OnOutputLimit = ...,
        merge_stderr: bool = ...,
        ulimits: Ulimits | None = ...,
        on_stdout: Sink | None = ...,
        on_stderr: Sink | None = ...,
    ) -> ExecResult: ...
    def spawn(
        self,
        args: Args | None = ...,
        *,
        shell: str | None = ...,
        env: Mapping[str, str | None] | None = ...,
        cwd: str | None = ...,
        user: str | int | None = ...,
        stdin: Stdin | None | Iterator[bytes] = ...,
        timeout: float | str | None = ...,
        grace: float = ...,
        output: int | str | None = ...,
        on_output_limit: OnOutputLimit = ...,
        merge_stderr: bool = ...,
        ulimits: Ulimits | None = ...,
        pty: bool | Terminal = ...,
        hold: bool = ...,
    ) -> Process: ...
    def processes(self) -> tuple[ProcessInfo, ...]: ...
    def attach(
        self, process_id: int, *, stdout_offset: int = ..., stderr_offset: int = ...
    ) -> Process: ...
    def forget(self, process_id: int) -> None: ...
    def signal(self, process_id: int, number: int | str, *, group: bool = ...) -> None: ...
    def kill_all(self) -> int: ...
    def usage(self) -> Usage: ...
    def stats(self, interval: float = ...) -> Iterator[Usage]: ...
    def events(self) -> Events: ...
    def health(self) -> Health: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def extend(self, lifetime: float | str) -> float: ...
    def update(self, limits: Limits) -> Limits: ...
    def snapshot(self) -> Snapshot: ...
    def fork(self, number: int) -> list[Sandbox]: ...
    def detach(self) -> None: ...
    def delete(self, *, grace: float = ...) -> DeleteReport: ...
    def close(self, *, grace: float = ...) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *error: object) -> None: ...

class Files:
    def read(
        self,
        path: Path,
        *,
        offset: int = ...,
        length: int | None = ...,
        max_bytes: int | None = ...,
        user: User = ...,
        progress: Progress | None = ...,
    ) -> bytes: ...
    def read_text(
        self,
        path: Path,
        *,
        encoding: str = ...,
        errors: str = ...,
        max_bytes: int | None = ...,
        user: User = ...,
    ) -> str: ...
    def open(
        self, path: Path, *, offset: int = ..., length: int | None = ..., user: User = ...
    ) -> AbstractContextManager[Reader]: ...
    def write(
        self,
        path: Path,
        data: Data | Iterator[bytes],
        *,
        encoding: str = ...,
        mode: int = ...,
        parents: bool = ...,
        exclusive: bool = ...,
        atomic: bool = ...,
        user: User = ...,
        progress: Progress | None = ...,
    ) -> int: ...
    def append(
        self,
        path: Path,
        data: Data | Iterator[bytes],
        *,
        encoding: str = ...,
        mode: int = ...,
        user: User = ...,
        progress: Progress | None = ...,
    ) -> int: ...
    def write_at(self, path: Path, offset: int, data: bytes, *, user: User = ...) -> int: ...
    def stat(self, path: Path, *, follow_symlinks: bool = ..., user: User = ...) -> FileInfo: ...
    def exists(self, path: Path, *, user: User = ...) -> bool: ...
    def list(
        self, path: Path, *, limit: int = ..., cursor: bytes | None = ..., user: User = ...
    ) -> Listing: ...
    def walk(
        self,
        path: Path,
        *,
        depth: int | None = ...,
        max_entries: int | None = ...,
        user: User = ...,
    ) -> Iterator[FileInfo]: ...
    def glob(self, pattern: str, *, limit: int = ..., user: User = ...) -> tuple[str, ...]: ...
    def watch(
        self, path: Path, *, recursive: bool = ..., user: User = ...
    ) -> AbstractContextManager[Iterator[FileEvent]]: ...
    def mkdir(
        self, path: Path, *, mode: int = ..., parents: bool = ..., user: User = ...
    ) -> None: ...
    def remove(self, path: Path, *, recursive: bool = ..., user: User = ...) -> int: ...
    def rename(self, path: Path, to: Path, *, replace: bool = ..., user: User = ...) -> None: ...
    def copy(self, path: Path, to: Path, *, recursive: bool = ..., user: User = ...) -> int: ...
    def chmod(self, path: Path, mode: int, *, user: User = ...) -> None: ...
    def symlink(self, target: Path, path: Path, *, user: User = ...) -> None: ...
    def readlink(self, path: Path, *, user: User = ...) -> str: ...
    def upload(
        self,
        source: str | os.PathLike[str],
        destination: Path,
        *,
        user: User = ...,
        progress: Progress | None = ...,
    ) -> Moved: ...
    def download(
        self,
        source: Path,
        destination: str | os.PathLike[str],
        *,
        caps: Caps = ...,
        user: User = ...,
        progress: Progress | None = ...,
    ) -> Moved: ...

class Process:
    stdout: Stream
    stderr: Stream

    @property
    def id(self) -> int: ...
    @property
    def pid(self) -> int: ...
    @property
    def args(self) -> tuple[str, ...]: ...
    @property
    def running(self) -> bool: ...
    @property
    def exec(self) -> Exec: ...
    def write(self, data: bytes | str) -> None: ...
    def close_stdin(self) -> None: ...
    def signal(self, number: int | str, *, group: bool = ...) -> None: ...
    def kill(self) -> None: ...
    def resize(self, rows: int, columns: int) -> None: ...
    def wait(self) -> ExecResult: ...
    def communicate(self, data: bytes | str = ...) -> ExecResult: ...
    def detach(self) -> None: ...
    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *error: object) -> None: ...

class Stream:
    touched: bool
    number: int

    def read(self, size: int = ...) -> bytes: ...
    def read_all(self, limit: int | None = ...) -> bytes: ...
    def readline(self) -> bytes: ...
    def lines(self) -> Iterator[bytes]: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *error: object) -> None: ...
    def __iter__(self) -> Self: ...
    def __next__(self) -> bytes: ...
    def close(self) -> None: ...

class Reader:
    stat: Stat | None

    def read(self, size: int = ...) -> bytes: ...
    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *error: object) -> None: ...
    def __iter__(self) -> Self: ...
    def __next__(self) -> bytes: ...

class Events:
    dropped: int

    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *error: object) -> None: ...
    def __iter__(self) -> Self: ...
    def __next__(self) -> Event: ...

class Pool:
    @property
    def statistics(self) -> PoolStatistics: ...
    def acquire(self) -> AbstractContextManager[Sandbox]: ...
    def fill(self) -> None: ...
    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *error: object) -> None: ...

def open(
    spec: SandboxSpec | None = ...,
    *,
    id: str | None = ...,
    image: str | None = ...,
    backend: str | Backend | None = ...,
    profile: ProfileName | None = ...,
    env: Mapping[str, str] | None = ...,
    cwd: str | None = ...,
    user: str | int | None = ...,
    repository: Repository | str | os.PathLike[str] | None = ...,
    mounts: Sequence[Mount] | None = ...,
    limits: Limits | Mapping[str, Any] | None = ...,
    security: Security | Mapping[str, Any] | None = ...,
    network: Network | Mapping[str, Any] | None = ...,
    labels: Mapping[str, str] | None = ...,
    lifetime: float | str | None = ...,
    idle_timeout: float | str | None = ...,
    detached: bool | None = ...,
    snapshot: str | None = ...,
    endpoint: str | None = ...,
    ceiling: Ceiling | None = ...,
    ledger: Ledger | None = ...,
    events: EventBus | None = ...,
    audit: str | os.PathLike[str] | None = ...,
) -> Sandbox: ...
def run(
    args: Args | None = ...,
    *,
    spec: SandboxSpec | None = ...,
    shell: str | None = ...,
    stdin: Stdin | None | Iterator[bytes] = ...,
    timeout: float | str | None = ...,
    output: int | str | None = ...,
    on_output_limit: OnOutputLimit = ...,
    on_stdout: Sink | None = ...,
    on_stderr: Sink | None = ...,
    image: str | None = ...,
    backend: str | Backend | None = ...,
    profile: ProfileName | None = ...,
    env: Mapping[str, str] | None = ...,
    cwd: str | None = ...,
    user: str | int | None = ...,
    repository: Repository | str | os.PathLike[str] | None = ...,
    mounts: Sequence[Mount] | None = ...,
    limits: Limits | Mapping[str, Any] | None = ...,
    security: Security | Mapping[str, Any] | None = ...,
    network: Network | Mapping[str, Any] | None = ...,
    labels: Mapping[str, str] | None = ...,
    endpoint: str | None = ...,
    ceiling: Ceiling | None = ...,
    ledger: Ledger | None = ...,
    events: EventBus | None = ...,
    audit: str | os.PathLike[str] | None = ...,
) -> RunResult: ...
def pool(
    spec: SandboxSpec,
    *,
    size: int = ...,
    concurrency: int = ...,
    backend: str | Backend | None = ...,
    endpoint: str | None = ...,
    ceiling: Ceiling | None = ...,
    ledger: Ledger | None = ...,
    events: EventBus | None = ...,
) -> Pool: ...
