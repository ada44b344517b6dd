"""Ringfence as a sandbox of LangChain's deep agents (`pip install 'ringfence[langchain]'`).

with RingfenceSandbox(image="python:3.12-slim") as sandbox:
    agent = create_deep_agent(backend=sandbox, ...)
"""

from types import TracebackType
from typing import Any, Self

from deepagents.backends.protocol import (
    ExecuteResponse,
    FileDownloadResponse,
    FileUploadResponse,
)
from deepagents.backends.sandbox import BaseSandbox

from ringfence import sync
from ringfence.errors import (
    PathDeniedError,
    PathIsADirectoryError,
    PathNotFoundError,
    SandboxError,
)
from ringfence.spec import Reason

_TIMEOUT_CODE = 124


class RingfenceSandbox(BaseSandbox):
    """A sandbox that lives from `with` (or the first use) to the block's end (or `close`).

    The keywords are those of `ringfence.open`.
    """

    def __init__(self, sandbox: "sync.Sandbox | None" = None, **settings: Any) -> None:
        self._opening = None if sandbox is not None else sync.open(**settings)
        self._sandbox = sandbox
        named = settings.get("cwd") or getattr(settings.get("spec"), "cwd", None)
        self._anywhere = sandbox is None and named is None

    @property
    def sandbox(self) -> "sync.Sandbox":
        """The Ringfence sandbox, opened at the first use."""
        if self._sandbox is None:
            assert self._opening is not None  # noqa: S101 - one of the two is there
            self._sandbox = self._opening.__enter__()
            if self._anywhere and self._sandbox.cwd == "/":
                self._sandbox.chdir("/tmp")  # noqa: S108 - the sandbox's: a root may not be written
        return self._sandbox

    @property
    def id(self) -> str:
        """The sandbox's id."""
        return str(self.sandbox.id)

    def __enter__(self) -> Self:
        try:
            self.sandbox  # noqa: B018 - opens it
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Delete the sandbox. Idempotent."""
        if self._sandbox is not None:
            self._sandbox.delete()

    def execute(self, command: str, *, timeout: int | None = None) -> ExecuteResponse:
        """Run a shell command; both outputs in the order they came."""
        result = self.sandbox.exec(shell=command, timeout=timeout, merge_stderr=True)
        output = result.stdout.decode("utf-8", "replace")
        if result.reason is Reason.TIMEOUT:
            output += f"\nthe command was ended after {timeout or result.duration:.0f} s"
            return ExecuteResponse(output, _TIMEOUT_CODE, result.stdout_truncated)
        return ExecuteResponse(
            output + (result.error or ""), result.shell_code, result.stdout_truncated
        )

    def upload_files(self, files: list[tuple[str, bytes]]) -> list[FileUploadResponse]:
        """Write files; each one succeeds or fails by itself."""
        return [FileUploadResponse(path, self._upload(path, content)) for path, content in files]

    def _upload(self, path: str, content: bytes) -> str | None:
        if not path.startswith("/"):
            return "invalid_path"
        try:
            self.sandbox.files.write(path, content, parents=True)
        except SandboxError as error:
            return _literal(error)
        return None

    def download_files(self, paths: list[str]) -> list[FileDownloadResponse]:
        """Read files; each one succeeds or fails by itself."""
        return [self._download(path) for path in paths]

    def _download(self, path: str) -> FileDownloadResponse:
        if not path.startswith("/"):
            return FileDownloadResponse(path, None, "invalid_path")
        try:
            return FileDownloadResponse(path, self.sandbox.files.read(path, max_bytes=None), None)
        except SandboxError as error:
            return FileDownloadResponse(path, None, _literal(error))


def _literal(error: SandboxError) -> str:
    """The framework's word for an error."""
    for cls, word in (
        (PathNotFoundError, "file_not_found"),
        (PathIsADirectoryError, "is_directory"),
        (PathDeniedError, "permission_denied"),
    ):
        if isinstance(error, cls):
            return word
    return "invalid_path"
