"""The options that describe a sandbox, the same for every verb that makes one."""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from ringfence.cli.described import make_spec


def _panel(panel: str) -> Callable[..., Any]:
    """What makes an option of that part of the help: of what is typed behind it, what it is for,
    and its names where they are not the parameter's."""

    def option(metavar: str, text: str, *names: str) -> Any:
        return typer.Option(*names, metavar=metavar, help=text, rich_help_panel=panel)

    return option


_place = _panel("Where it runs")
_repo = _panel("Repository")
_limit = _panel("Limits")
_net = _panel("Network")


def _describe(
    image: Annotated[
        str | None,
        _place(
            "IMAGE",
            "Reference; for process a root directory or tar. Without: this machine's /usr.",
            "--image",
            "-i",
        ),
    ] = None,
    backend: Annotated[
        str | None,
        _place(
            "NAME", "docker, process or auto: docker when an image is asked for, process otherwise."
        ),
    ] = None,
    lock: Annotated[
        str | None,
        _place("FILE", "The image is the one that was locked there; see `ringfence image lock`."),
    ] = None,
    snapshot: Annotated[
        str | None,
        _place("DIGEST", "Start from what `ringfence snapshot` kept."),
    ] = None,
    profile: Annotated[
        str | None,
        _place(
            "NAME", "strict (the default), standard or permissive; see `ringfence policy show`."
        ),
    ] = None,
    runtime: Annotated[
        str | None,
        _place("NAME", "OCI runtime, such as runsc (gVisor)."),
    ] = None,
    user: Annotated[
        str | None,
        _place("USER", "Name, uid or uid:gid.", "--user", "-u"),
    ] = None,
    cwd: Annotated[
        str | None,
        _place("DIR", "Working directory inside.", "--cwd", "-w"),
    ] = None,
    env: Annotated[
        list[str] | None,
        _place(
            "K=V", "Variable of every command; K alone takes this shell's value.", "--env", "-e"
        ),
    ] = None,
    mount: Annotated[
        list[str] | None,
        _place("SRC:DST[:rw]", "Directory or file of this machine, read-only unless :rw."),
    ] = None,
    label: Annotated[
        list[str] | None,
        _place("K=V", "Label.", "--label", "-l"),
    ] = None,
    lifetime: Annotated[
        str | None,
        _place("DURATION", "It ends by itself after this, such as 1h."),
    ] = None,
    idle_timeout: Annotated[
        str | None,
        _place("DURATION", "It ends after this time without use, such as 10m."),
    ] = None,
    spec: Annotated[
        Path | None,
        _place("FILE", "TOML or JSON spec; options given here go on top.", "--spec"),
    ] = None,
    repo: Annotated[
        str | None,
        _repo("DIR|URL", "Tree the command works on; appears at /workspace.", "--repo", "-r"),
    ] = None,
    repo_mode: Annotated[
        str | None,
        _repo("MODE", "copy (the default: writable inside, the original never changes), ro or rw."),
    ] = None,
    ref: Annotated[
        str | None,
        _repo("REF", "Branch, tag or commit instead of the working tree."),
    ] = None,
    include: Annotated[
        list[str] | None,
        _repo("PATTERN", "Only these (gitignore patterns)."),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        _repo("PATTERN", "Not these."),
    ] = None,
    history: Annotated[
        str | None,
        _repo("DEPTH", "Git history inside: head (one commit) or full."),
    ] = None,
    memory: Annotated[
        str | None,
        _limit("SIZE", "Such as 512MiB.", "--memory", "-m"),
    ] = None,
    swap: Annotated[
        str | None,
        _limit("SIZE", "Swap on top of --memory."),
    ] = None,
    cpus: Annotated[
        float | None,
        _limit("NUMBER", "Cores' worth of time."),
    ] = None,
    cpuset: Annotated[
        str | None,
        _limit("CORES", "Cores it may run on, such as 0-1,3."),
    ] = None,
    cpu_shares: Annotated[
        int | None,
        _limit("NUMBER", "Weight when cores are short; 1024 is usual."),
    ] = None,
    pids: Annotated[
        int | None,
        _limit("NUMBER", "Processes and threads."),
    ] = None,
    disk: Annotated[
        str | None,
        _limit("SIZE", "Bytes that may be written."),
    ] = None,
    tmp: Annotated[str | None, _limit("SIZE", "Size of /tmp.")] = None,
    shm: Annotated[str | None, _limit("SIZE", "Size of /dev/shm.")] = None,
    run_size: Annotated[
        str | None,
        _limit("SIZE", "Size of /run.", "--run"),
    ] = None,
    read_rate: Annotated[
        str | None,
        _limit("SIZE", "Bytes a second read from disks."),
    ] = None,
    write_rate: Annotated[
        str | None,
        _limit("SIZE", "Bytes a second written to disks."),
    ] = None,
    network_rate: Annotated[
        str | None,
        _limit("SIZE", "Bytes a second through the proxy."),
    ] = None,
    cpu_time: Annotated[
        str | None,
        _limit("DURATION", "Processor time of the sandbox, such as 5m."),
    ] = None,
    output_limit: Annotated[
        str | None,
        _limit("SIZE", "Bytes kept of each stream.", "--output"),
    ] = None,
    ulimit: Annotated[
        list[str] | None,
        _limit("NAME=SOFT[:HARD]", "As in setrlimit(2)."),
    ] = None,
    allow_degraded: Annotated[
        str | None,
        _limit(
            "NAME,...",
            "Controls to do without where this machine cannot enforce them, such as"
            " memory,cpus,pids for a user without cgroups.",
        ),
    ] = None,
    network: Annotated[
        str | None,
        _net("MODE", "none (the default), proxy or bridge."),
    ] = None,
    allow: Annotated[
        list[str] | None,
        _net(
            "HOST[:PORT]",
            "Host that may be reached through the proxy; .example.com is every name below it.",
        ),
    ] = None,
    publish: Annotated[
        list[str] | None,
        _net(
            "[HOST:]PORT",
            "Port inside that is reachable on this machine's loopback.",
            "--publish",
            "-p",
        ),
    ] = None,
) -> None:
    """Its parameters are the options; never called."""


PARAMETERS = list(inspect.signature(_describe).parameters.values())
_NAMES = [parameter.name for parameter in PARAMETERS]


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
