"""`ringfence exec`: one command in a sandbox that is there."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from ringfence.cli import output
from ringfence.cli.common import Audit, Id, Json
from ringfence.cli.pairs import pair


def exec(  # noqa: A001 - the verb's name
    sandbox: Id,
    command: Annotated[
        list[str], typer.Argument(metavar="-- COMMAND [ARG...]", show_default=False)
    ],
    env: Annotated[
        list[str] | None,
        typer.Option("--env", "-e", metavar="K=V", help="On top of the sandbox's."),
    ] = None,
    cwd: Annotated[
        str | None, typer.Option("--cwd", "-w", metavar="DIR", help="Working directory inside.")
    ] = None,
    user: Annotated[
        str | None, typer.Option("--user", "-u", metavar="USER", help="Name, uid or uid:gid.")
    ] = None,
    timeout: Annotated[
        str | None, typer.Option("--timeout", "-t", metavar="DURATION", help="Such as 30s.")
    ] = None,
    cgroup: Annotated[
        bool,
        typer.Option("--cgroup", help="Tell in --json what the command's whole family used."),
    ] = False,
    audit: Audit = None,
    json: Json = False,
) -> int:
    """Run one command in a sandbox made by `ringfence create`.

    Output streams, piped input goes in, Ctrl-C is passed on. For example:

        ringfence exec 3f2a -- pytest -q

        ringfence exec 3f2a --timeout 1m --json -- make test >result.json

    Exit code: the command's own; 124 timeout, 137 out of memory, 125 when Ringfence failed.
    """
    return asyncio.run(_exec(sandbox, command, env, cwd, user, timeout, cgroup, audit, json))


async def _exec(
    name: str,
    command: list[str],
    env: list[str] | None,
    cwd: str | None,
    user: str | None,
    timeout: str | None,
    cgroup: bool,
    audit: Path | None,
    json: bool,
) -> int:
    import ringfence
    from ringfence.cli.explaining import explain
    from ringfence.cli.relay import relay

    variables = dict(pair(text, "--env", inherit=True) for text in env or [])
    async with ringfence.open(id=name, audit=audit) as sandbox:
        result = await relay(
            sandbox,
            command,
            show=not json,
            env=variables,
            cwd=cwd,
            user=user,
            timeout=timeout,
            cgroup=cgroup,
        )
        ended = sandbox.info.reason
    if json:
        output.document({"result": result.to_dict()})
    explain(result, json, ended)
    return int(result.shell_code)
