"""Ringfence as a sandbox of Inspect (`pip install 'ringfence[inspect]'`).

    eval(..., sandbox=("ringfence", "task.toml"))

The config file is a spec (TOML or JSON, see `ringfence spec schema`); without one the sandbox is
the process backend's. Each sample gets one sandbox of its own.
"""

import json
import posixpath
import tomllib
from pathlib import Path
from typing import Any, Literal, overload

from inspect_ai.util import (
    ExecResult,
    OutputLimitExceededError,
    SandboxEnvironment,
    SandboxEnvironmentConfigType,
    SandboxEnvironmentLimits,
    SandboxUserUnsupportedError,
    sandboxenv,
)

import ringfence
from ringfence.errors import (
    FileTooLargeError,
    NotFoundError,
    PathNotADirectoryError,
    PolicyDeniedError,
    SandboxError,
    UnsupportedError,
)
from ringfence.spec import Reason, SandboxSpec

_DENIED = 126


@sandboxenv(name="ringfence")
class RingfenceSandboxEnvironment(SandboxEnvironment):
    """One sandbox, as Inspect sees it."""

    def __init__(self, sandbox: ringfence.Sandbox) -> None:
        super().__init__()
        self.sandbox = sandbox

    @classmethod
    def config_files(cls) -> list[str]:
        """Names of spec files that are found beside a task."""
        return ["ringfence.toml", "ringfence.json"]

    @classmethod
    async def sample_init(
        cls,
        task_name: str,
        config: SandboxEnvironmentConfigType | None,
        metadata: dict[str, str],
    ) -> dict[str, SandboxEnvironment]:
        """Open the sandbox of one sample. Raises what `ringfence.open` raises.

        Its working directory is where a sample's files go, so that it is never a root which may not
        be written.
        """
        spec = _spec(config)
        sandbox = await ringfence.open(spec)
        try:
            if spec.cwd is None and sandbox.cwd == "/":
                await sandbox.chdir("/tmp")  # noqa: S108 - the sandbox's
        except BaseException:
            await sandbox.delete()
            raise
        return {"default": cls(sandbox)}

    @classmethod
    async def sample_cleanup(
        cls,
        task_name: str,
        config: SandboxEnvironmentConfigType | None,
        environments: dict[str, SandboxEnvironment],
        interrupted: bool,
    ) -> None:
        """Delete the sandboxes of one sample."""
        for environment in environments.values():
            if isinstance(environment, cls):
                await environment.sandbox.delete()

    async def exec(
        self,
        cmd: list[str],
        input: str | bytes | None = None,  # noqa: A002 - the framework's name
        cwd: str | None = None,
        env: dict[str, str] | None = None,
        user: str | None = None,
        timeout: int | None = None,
        timeout_retry: bool = True,
        concurrency: bool = True,
    ) -> ExecResult[str]:
        """Run a command. A timeout is never retried: it left nothing running, and is the answer."""
        try:
            result = await self.sandbox.exec(
                cmd,
                stdin=input,
                cwd=None if cwd is None else self._path(cwd),
                env=env,
                user=user,
                timeout=timeout,
                output=SandboxEnvironmentLimits.MAX_EXEC_OUTPUT_SIZE,
            )
        except (UnsupportedError, PolicyDeniedError) as error:
            if error.context.get("fields") != ["user"]:
                raise
            raise SandboxUserUnsupportedError(str(error)) from None
        except NotFoundError as error:
            return ExecResult(False, 1, "", str(error))
        if result.reason is Reason.TIMEOUT:
            raise TimeoutError(f"{cmd[0]!r} did not end within {timeout} s")
        if result.reason is Reason.NOT_STARTED and result.exit_code == _DENIED:
            raise PermissionError(result.error)
        stdout, stderr = (
            data.decode("utf-8", "replace") for data in (result.stdout, result.stderr)
        )
        if result.stdout_truncated or result.stderr_truncated:
            limit = SandboxEnvironmentLimits.MAX_EXEC_OUTPUT_SIZE_STR
            raise OutputLimitExceededError(limit_str=limit, truncated_output=stdout + stderr)
        return ExecResult(result.ok, result.shell_code, stdout, stderr + (result.error or ""))

    async def write_file(self, file: str, contents: str | bytes) -> None:
        """Write a file and the directories above it."""
        try:
            await self.sandbox.files.write(self._path(file), contents, parents=True)
        except PathNotADirectoryError as error:
            raise NotADirectoryError(str(error)) from None

    @overload
    async def read_file(self, file: str, text: Literal[True] = True) -> str: ...

    @overload
    async def read_file(self, file: str, text: Literal[False]) -> bytes: ...

    async def read_file(self, file: str, text: bool = True) -> str | bytes:
        """Read a file, as UTF-8 or as bytes."""
        limit = SandboxEnvironmentLimits.MAX_READ_FILE_SIZE
        try:
            data = await self.sandbox.files.read(self._path(file), max_bytes=limit)
        except FileTooLargeError:
            shown = SandboxEnvironmentLimits.MAX_READ_FILE_SIZE_STR
            raise OutputLimitExceededError(limit_str=shown, truncated_output=None) from None
        return data.decode() if text else data

    def _path(self, file: str) -> str:
        return posixpath.normpath(posixpath.join(self.sandbox.cwd, file))


def _spec(config: SandboxEnvironmentConfigType | None) -> SandboxSpec:
    if config is None:
        return SandboxSpec()
    if isinstance(config, SandboxSpec):
        return config
    if not isinstance(config, str):
        return SandboxSpec.parse(config.model_dump(exclude_unset=True))
    path = Path(config)
    try:
        text = path.read_text()
        data: Any = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (OSError, ValueError) as error:
        raise SandboxError(f"{config} cannot be read as a spec: {error}", op="open") from None
    return SandboxSpec.parse(data)
