"""The options that describe a sandbox, the same for every verb that makes one."""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from ringfence.cli.described import make_spec

_PLACE = "Where it runs"
_REPO = "Repository"
_LIMITS = "Limits"
_NET = "Network"


def _describe(
    image: Annotated[
        str | None,
        typer.Option(
            "--image",
            "-i",
            rich_help_panel=_PLACE,
            metavar="IMAGE",
            help="Reference; for process a root directory or tar. Without: this machine's /usr.",
        ),
    ] = None,
    backend: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=_PLACE,
            help="docker, process or auto: docker when an image is asked for, process otherwise.",
        ),
    ] = None,
    lock: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=_PLACE,
            metavar="FILE",
            help="The image is the one that was locked there; see `ringfence image lock`.",
        ),
    ] = None,
    snapshot: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=_PLACE,
            metavar="DIGEST",
            help="Start from what `ringfence snapshot` kept.",
        ),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=_PLACE,
            help="strict (the default), standard or permissive; see `ringfence policy show`.",
        ),
    ] = None,
    runtime: Annotated[
        str | None,
        typer.Option(rich_help_panel=_PLACE, help="OCI runtime, such as runsc (gVisor)."),
    ] = None,
    user: Annotated[
        str | None,
        typer.Option("--user", "-u", rich_help_panel=_PLACE, help="Name, uid or uid:gid."),
    ] = None,
    cwd: Annotated[
        str | None,
        typer.Option("--cwd", "-w", rich_help_panel=_PLACE, help="Working directory inside."),
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(
            "--env",
            "-e",
            rich_help_panel=_PLACE,
            metavar="K=V",
            help="Variable of every command; K alone takes this shell's value.",
        ),
    ] = None,
    mount: Annotated[
        list[str] | None,
        typer.Option(
            rich_help_panel=_PLACE,
            metavar="SRC:DST[:rw]",
            help="Directory or file of this machine, read-only unless :rw.",
        ),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option("--label", "-l", rich_help_panel=_PLACE, metavar="K=V", help="Label."),
    ] = None,
    lifetime: Annotated[
        str | None,
        typer.Option(rich_help_panel=_PLACE, help="It ends by itself after this, such as 1h."),
    ] = None,
    idle_timeout: Annotated[
        str | None,
        typer.Option(rich_help_panel=_PLACE, help="It ends after this time without use."),
    ] = None,
    spec: Annotated[
        Path | None,
        typer.Option(
            "--spec",
            rich_help_panel=_PLACE,
            metavar="FILE",
            help="TOML or JSON spec; options given here go on top.",
        ),
    ] = None,
    repo: Annotated[
        str | None,
        typer.Option(
            "--repo",
            "-r",
            rich_help_panel=_REPO,
            metavar="DIR|URL",
            help="Tree the command works on; appears at /workspace.",
        ),
    ] = None,
    repo_mode: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=_REPO,
            help="copy (the default: writable inside, the original never changes), ro or rw.",
        ),
    ] = None,
    ref: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=_REPO, help="Branch, tag or commit instead of the working tree."
        ),
    ] = None,
    include: Annotated[
        list[str] | None,
        typer.Option(
            rich_help_panel=_REPO, metavar="PATTERN", help="Only these (gitignore patterns)."
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(rich_help_panel=_REPO, metavar="PATTERN", help="Not these."),
    ] = None,
    history: Annotated[
        str | None,
        typer.Option(rich_help_panel=_REPO, help="Git history inside: head (one commit) or full."),
    ] = None,
    memory: Annotated[
        str | None, typer.Option("--memory", "-m", rich_help_panel=_LIMITS, help="Such as 512MiB.")
    ] = None,
    swap: Annotated[
        str | None, typer.Option(rich_help_panel=_LIMITS, help="Swap on top of --memory.")
    ] = None,
    cpus: Annotated[
        float | None, typer.Option(rich_help_panel=_LIMITS, help="Cores' worth of time.")
    ] = None,
    cpuset: Annotated[
        str | None,
        typer.Option(rich_help_panel=_LIMITS, help="Cores it may run on, such as 0-1,3."),
    ] = None,
    cpu_shares: Annotated[
        int | None,
        typer.Option(rich_help_panel=_LIMITS, help="Weight when cores are short; 1024 is usual."),
    ] = None,
    pids: Annotated[
        int | None, typer.Option(rich_help_panel=_LIMITS, help="Processes and threads.")
    ] = None,
    disk: Annotated[
        str | None, typer.Option(rich_help_panel=_LIMITS, help="Bytes that may be written.")
    ] = None,
    tmp: Annotated[str | None, typer.Option(rich_help_panel=_LIMITS, help="Size of /tmp.")] = None,
    shm: Annotated[
        str | None, typer.Option(rich_help_panel=_LIMITS, help="Size of /dev/shm.")
    ] = None,
    run_size: Annotated[
        str | None, typer.Option("--run", rich_help_panel=_LIMITS, help="Size of /run.")
    ] = None,
    read_rate: Annotated[
        str | None, typer.Option(rich_help_panel=_LIMITS, help="Bytes a second read from disks.")
    ] = None,
    write_rate: Annotated[
        str | None, typer.Option(rich_help_panel=_LIMITS, help="Bytes a second written to disks.")
    ] = None,
    network_rate: Annotated[
        str | None,
        typer.Option(rich_help_panel=_LIMITS, help="Bytes a second through the proxy."),
    ] = None,
    cpu_time: Annotated[
        str | None, typer.Option(rich_help_panel=_LIMITS, help="Processor time of the sandbox.")
    ] = None,
    output_limit: Annotated[
        str | None,
        typer.Option("--output", rich_help_panel=_LIMITS, help="Bytes kept of each stream."),
    ] = None,
    ulimit: Annotated[
        list[str] | None,
        typer.Option(
            rich_help_panel=_LIMITS, metavar="NAME=SOFT[:HARD]", help="As in setrlimit(2)."
        ),
    ] = None,
    allow_degraded: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=_LIMITS,
            metavar="NAME,...",
            help="Controls to do without where this machine cannot enforce them, such as"
            " memory,cpus,pids for a user without cgroups.",
        ),
    ] = None,
    network: Annotated[
        str | None,
        typer.Option(rich_help_panel=_NET, help="none (the default), proxy or bridge."),
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            rich_help_panel=_NET,
            metavar="HOST[:PORT]",
            help="Host that may be reached through the proxy; .example.com is every name below it.",
        ),
    ] = None,
    publish: Annotated[
        list[str] | None,
        typer.Option(
            "--publish",
            "-p",
            rich_help_panel=_NET,
            metavar="[HOST:]PORT",
            help="Port inside that is reachable on this machine's loopback.",
        ),
    ] = None,
) -> None:
    """Its parameters are the options; never called."""


PARAMETERS = list(inspect.signature(_describe).parameters.values())
_NAMES = [parameter.name for parameter in PARAMETERS]
Audit = Annotated[
    Path | None,
    typer.Option(
        "--audit",
        metavar="FILE",
        help="Append what happens to this log; see `ringfence audit verify`.",
    ),
]
"""The option of every verb that opens a sandbox to do something in it."""


def describes_a_sandbox(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a verb these options; it gets the SandboxSpec they make as its argument `spec`.

    The verb's own parameters stay in front; its `detached` default is left to itself.
    """
    own = [
        parameter
        for parameter in inspect.signature(function).parameters.values()
        if parameter.name != "spec"
    ]

    @functools.wraps(function)
    def verb(**values: Any) -> Any:
        described = {name: values.pop(name) for name in _NAMES}
        return function(spec=make_spec(described), **values)

    parameters = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own + PARAMETERS
    ]
    verb.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    verb.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return verb
