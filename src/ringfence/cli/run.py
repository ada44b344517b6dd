"""`ringfence run`: one command in a sandbox of its own."""

import asyncio
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ringfence.cli import FAILED, output, shape
from ringfence.cli.opening import opened
from ringfence.cli.options import Audit, describes_a_sandbox
from ringfence.errors import InvalidSpecError, SandboxError

if TYPE_CHECKING:
    from ringfence.spec import SandboxSpec


@describes_a_sandbox
def run(
    command: Annotated[
        list[str], typer.Argument(metavar="-- COMMAND [ARG...]", show_default=False)
    ],
    spec: "SandboxSpec",
    timeout: Annotated[
        str | None,
        typer.Option(
            "--timeout",
            "-t",
            metavar="DURATION",
            help="The command may take this long, such as 5m.",
        ),
    ] = None,
    patch: Annotated[
        Path | None,
        typer.Option("--patch", metavar="FILE", help="Write what changed as a git patch."),
    ] = None,
    apply: Annotated[
        bool,
        typer.Option("--apply", help="Apply what changed to the repository, if it has not moved."),
    ] = False,
    receipt: Annotated[
        bool, typer.Option("--receipt", help="Print what was really enforced, on stderr.")
    ] = False,
    cgroup: Annotated[
        bool,
        typer.Option("--cgroup", help="Tell in --json what the command's whole family used."),
    ] = False,
    audit: Audit = None,
    json: Annotated[
        bool, typer.Option("--json", help="One JSON document with result, usage and receipt.")
    ] = False,
) -> int:
    """Run one command in a sandbox of its own; nothing of it is left afterwards.

    Output streams, piped input goes in, Ctrl-C is passed on. For example:

        ringfence run -- python3 -c 'print(1+1)'

        ringfence run -i python:3.12-slim --repo . -t 5m -- python -m unittest

        ringfence run --repo . --patch out.patch -- ./fix-it

    Exit code: the command's own; 124 timeout, 137 out of memory, 125 when Ringfence failed.
    """
    if (patch or apply) and (spec.repository is None or spec.repository.mode != "copy"):
        raise InvalidSpecError("--patch and --apply need --repo in mode copy", op="usage")
    if patch is not None and str(patch) == "-":
        raise InvalidSpecError(
            "--patch -: standard output is the command's; name a file, or take it from --json",
            op="usage",
        )
    if patch is not None and not _writable(patch):
        raise InvalidSpecError(f"--patch: {patch} cannot be written", op="usage")
    return asyncio.run(_run(command, spec, timeout, patch, apply, receipt, cgroup, audit, json))


def _writable(file: Path) -> bool:
    """Whether a file can be written: better known before a command runs than after it."""
    try:
        place = file if file.exists() else file.parent
        return not file.is_dir() and os.access(place, os.W_OK)
    except OSError:
        return False


async def _run(
    command: list[str],
    spec: "SandboxSpec",
    timeout: str | None,
    patch: Path | None,
    apply: bool,
    receipt: bool,
    cgroup: bool,
    audit: Path | None,
    json: bool,
) -> int:
    from ringfence.cli.relay import relay

    async with opened(spec, audit) as sandbox:
        for warning in sandbox.workspace.warnings if spec.repository is not None else ():
            output.note(output.escape_text(warning))
        result = await relay(sandbox, command, show=not json, timeout=timeout, cgroup=cgroup)
        out: dict[str, Any] = {}
        failed: SandboxError | None = None
        repository = spec.repository
        if repository is not None and repository.mode == "copy" and sandbox.info.state != "exited":
            out, failed = await _changes(sandbox, patch, apply)
        if failed is not None:
            if not json:
                raise failed
            out["error"] = failed.to_dict()
        usage = await _usage(sandbox) if json else None
        if receipt and not json:
            output.note(f"what was enforced\n{sandbox.receipt}")
    if json:  # of its end as well: nothing runs any more
        output.document(_told(sandbox, result, usage, out))
    if failed is not None:
        output.error(failed)
        return FAILED
    explain(result, json, sandbox.info.reason)
    return int(result.shell_code)


def _told(sandbox: Any, result: Any, usage: Any, further: dict[str, Any]) -> dict[str, Any]:
    receipt = sandbox.receipt.to_dict() if sandbox.receipt else None
    return {"result": result.to_dict(), "usage": shape.usage(usage), "receipt": receipt,
            "sandbox": sandbox.info.to_dict(), **further}  # fmt: skip


async def _changes(
    sandbox: Any, patch: Path | None, apply: bool
) -> tuple[dict[str, Any], SandboxError | None]:
    """Write and apply what the command changed; a summary on stderr. What became of it, and what
    went wrong: a result that took an hour is not lost for that."""
    from ringfence.spec.results import named_bytes

    try:
        found = await sandbox.workspace.diff()
    except SandboxError as error:
        return {"applied": False}, error
    out = {**named_bytes("patch", found.data), "applied": False}
    written = False
    try:
        if patch is not None:
            await asyncio.to_thread(_write, patch, found.data)
            written = True
        if found.stat:
            output.note(f"changes\n{output.escape_text(found.stat.rstrip())}")
        if apply:
            await sandbox.workspace.apply()
    except SandboxError as error:
        if found.data and not written:
            output.note(await asyncio.to_thread(_kept, found.data))
        return out, error
    return {**out, "applied": apply}, None


def _write(file: Path, data: bytes, doing: str = "--patch") -> None:
    """Write a patch, or leave none: half of one might apply."""
    try:
        file.write_bytes(data)
    except OSError as error:
        from ringfence.workspace.failures import failed

        if file.is_file():
            file.unlink(missing_ok=True)
        raise failed(error, file, doing) from None


def _kept(data: bytes) -> str:
    """Write a patch into a new temporary file; what became of it, in words."""
    try:
        number, name = tempfile.mkstemp(prefix="ringfence-", suffix=".patch")
        os.close(number)
        _write(Path(name), data, "writing them")
    except (OSError, SandboxError) as error:
        return f"the changes could not be kept as a patch: {error}"
    return f"the changes are kept as a patch in {name}"


async def _usage(sandbox: Any) -> Any:
    """Its usage; None where it cannot be had, or not any more."""
    try:
        return await sandbox.usage()
    except SandboxError:
        return None


def explain(result: Any, json: bool, ended: str | None) -> None:
    """A sentence on stderr where the exit code alone does not say what happened. ended: why the
    sandbox did, where it has."""
    if json or result.reason == "exited":
        return
    if result.error:
        output.note(output.escape_text(result.error))
    elif result.reason == "sandbox_lost":
        why = "`ringfence ps --all` may know why" if ended in (None, "lost") else ended
        output.note(f"the sandbox ended before the command: {why}")
    elif result.reason != "signaled":
        output.note(f"the command ended by {result.reason} after {result.duration:.1f} s")
