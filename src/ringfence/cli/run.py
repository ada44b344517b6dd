"""`ringfence run`: one command in a sandbox of its own."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ringfence.cli import FAILED, output, shape
from ringfence.cli.changes import changes, check_patch
from ringfence.cli.common import Audit
from ringfence.cli.explaining import explain
from ringfence.cli.opening import opened
from ringfence.cli.options import describes_a_sandbox
from ringfence.errors import SandboxError

if TYPE_CHECKING:
    from ringfence.spec import SandboxSpec


_Command = Annotated[list[str], typer.Argument(metavar="-- COMMAND [ARG...]", show_default=False)]
_Timeout = Annotated[
    str | None,
    typer.Option(
        "--timeout",
        "-t",
        metavar="DURATION",
        help="The command may take this long, such as 5m.",
    ),
]
_Patch = Annotated[
    Path | None,
    typer.Option("--patch", metavar="FILE", help="Write what changed as a git patch."),
]
_Apply = Annotated[
    bool,
    typer.Option("--apply", help="Apply what changed to the repository, if it has not moved."),
]
_Receipt = Annotated[
    bool, typer.Option("--receipt", help="Print what was really enforced, on stderr.")
]
_Cgroup = Annotated[
    bool,
    typer.Option("--cgroup", help="Tell in --json what the command's whole family used."),
]
_Json = Annotated[
    bool, typer.Option("--json", help="One JSON document with result, usage and receipt.")
]


@describes_a_sandbox
def run(
    command: _Command,
    spec: "SandboxSpec",
    timeout: _Timeout = None,
    patch: _Patch = None,
    apply: _Apply = False,
    receipt: _Receipt = False,
    cgroup: _Cgroup = False,
    audit: Audit = None,
    json: _Json = False,
) -> int:
    """Run one command in a sandbox of its own; nothing of it is left afterwards.

    Output streams, piped input goes in, Ctrl-C is passed on. For example:

        ringfence run -- python3 -c 'print(1+1)'

        ringfence run -i python:3.12-slim --repo . -t 5m -- python -m unittest

        ringfence run --repo . --patch out.patch -- ./fix-it

    Exit code: the command's own; 124 timeout, 137 out of memory, 125 when Ringfence failed.
    """
    check_patch(patch, apply, spec)
    return asyncio.run(_run(command, spec, timeout, patch, apply, receipt, cgroup, audit, json))


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
            out, failed = await changes(sandbox, patch, apply)
        if failed is not None:
            if not json:
                raise failed
            out["error"] = failed.to_dict()
        usage = await _usage(sandbox) if json else None
        if receipt and not json:
            output.note(output.escape_text(f"what was enforced\n{sandbox.receipt}"))
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


async def _usage(sandbox: Any) -> Any:
    """Its usage; None where it cannot be had, or not any more."""
    try:
        return await sandbox.usage()
    except SandboxError:
        return None
