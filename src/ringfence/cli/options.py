"""The options that describe a sandbox, the same for every verb that makes one."""

import functools
import inspect
import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from ringfence.errors import InvalidSpecError
from ringfence.spec import SandboxSpec

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


PARAMETERS = list(inspect.signature(_describe, eval_str=True).parameters.values())
_REPOSITORY = {
    "repo": "path",
    "repo_mode": "mode",
    "ref": "ref",
    "include": "include",
    "exclude": "exclude",
    "history": "history",
}
_LIMIT_NAMES = ("memory", "swap", "cpus", "cpuset", "cpu_shares", "pids", "disk", "tmp", "shm",
                "read_rate", "write_rate", "network_rate", "cpu_time")  # fmt: skip
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
        for parameter in inspect.signature(function, eval_str=True).parameters.values()
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


def make_spec(values: dict[str, Any]) -> SandboxSpec:
    """The spec of a command line: the file's, with the options on top. InvalidSpecError."""
    data = read_spec(values.pop("spec")) if values.get("spec") else {}
    values.pop("spec", None)
    _merge(data, _as_spec(values))
    return SandboxSpec.parse(data)


def read_spec(path: Path) -> dict[str, Any]:
    """The data of a spec file; InvalidSpecError names the line that cannot be read."""
    try:
        text = path.read_text()
        data = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise _usage(f"--spec {path}: {error.strerror}") from None
    except (ValueError, tomllib.TOMLDecodeError) as error:
        raise _usage(f"--spec {path} is not {path.suffix[1:] or 'TOML'}: {error}") from None
    if not isinstance(data, dict):
        raise _usage(f"--spec {path}: a spec is a table of fields, see `ringfence spec schema`")
    return data


_PLAIN = ("image", "backend", "profile", "user", "cwd", "lifetime", "idle_timeout", "lock",
          "snapshot")  # fmt: skip
"""Options that are fields of a spec as they stand."""


def _as_spec(values: dict[str, Any]) -> dict[str, Any]:
    """Options as they stand in a spec; those not given are left out."""
    given = {name: value for name, value in values.items() if value not in (None, [])}
    if "allow_degraded" in given:
        given["allow_degraded"] = [one.strip() for one in given["allow_degraded"].split(",")]
    spec: dict[str, Any] = {}
    for name in _PLAIN:
        _put(spec, given, name, name)
    for name in _LIMIT_NAMES:
        _put(spec, given, name, "limits", name)
    _put(spec, given, "run_size", "limits", "run")
    _put(spec, given, "output_limit", "limits", "output")
    _put(spec, given, "runtime", "security", "runtime")
    _put(spec, given, "allow_degraded", "security", "allow_degraded")
    _put(spec, given, "network", "network", "mode")
    _put(spec, given, "allow", "network", "allow")
    for option, field in _REPOSITORY.items():
        _put(spec, given, option, "repository", field)
    _put_pairs(spec, given)
    if "allow" in given:
        spec["network"].setdefault("mode", "proxy")
    return spec


def _put_pairs(spec: dict[str, Any], given: dict[str, Any]) -> None:
    """What is written as NAME=VALUE or with colons."""
    if "env" in given:
        spec["env"] = dict(pair(text, "--env", inherit=True) for text in given["env"])
    if "label" in given:
        spec["labels"] = dict(pair(text, "--label") for text in given["label"])
    if "mount" in given:
        spec["mounts"] = [_mount(text) for text in given["mount"]]
    if "publish" in given:
        spec.setdefault("network", {})["ports"] = [_port(text) for text in given["publish"]]
    if "ulimit" in given:
        spec.setdefault("limits", {})["ulimits"] = dict(_ulimit(text) for text in given["ulimit"])


def _put(spec: dict[str, Any], given: dict[str, Any], option: str, *path: str) -> None:
    if option in given:
        for name in path[:-1]:
            spec = spec.setdefault(name, {})
        spec[path[-1]] = given[option]


def _merge(data: dict[str, Any], on_top: dict[str, Any]) -> None:
    for name, value in on_top.items():
        if isinstance(value, dict) and isinstance(data.get(name), dict):
            _merge(data[name], value)
        else:
            data[name] = value


def pair(text: str, option: str, *, inherit: bool = False) -> tuple[str, str]:
    """NAME=VALUE of an option; with inherit, NAME alone takes this process's value."""
    import os

    name, equals, value = text.partition("=")
    if not equals and inherit and name in os.environ:
        return name, os.environ[name]
    if not equals and inherit:
        raise _usage(f"{option} {text!r}: it is not set here: write NAME=VALUE, or export it")
    if not equals:
        raise _usage(f"{option} {text!r}: write NAME=VALUE")
    return name, value


def _mount(text: str) -> dict[str, Any]:
    parts = text.split(":")
    if len(parts) == 3 and parts[2] in ("ro", "rw"):
        return {"source": str(Path(parts[0]).absolute()), "destination": parts[1],
                "read_only": parts[2] == "ro"}  # fmt: skip
    if len(parts) != 2:
        raise _usage(f"--mount {text!r}: write SOURCE:DESTINATION or SOURCE:DESTINATION:rw")
    return {"source": str(Path(parts[0]).absolute()), "destination": parts[1]}


def _port(text: str) -> dict[str, int]:
    host, colon, inside = text.rpartition(":")
    if not inside.isdecimal() or (colon and not host.isdecimal()):
        raise _usage(f"--publish {text!r}: write PORT or HOST_PORT:PORT")
    return {"inside": int(inside), "host": int(host or 0)}


def _ulimit(text: str) -> tuple[str, Any]:
    name, value = pair(text, "--ulimit")
    soft, _, hard = value.partition(":")
    try:
        numbers = [part if part == "unlimited" else int(part) for part in (soft, hard or soft)]
    except ValueError:
        raise _usage(f"--ulimit {text!r}: write NAME=SOFT or NAME=SOFT:HARD") from None
    return name, {"soft": numbers[0], "hard": numbers[1]}


def _usage(message: str) -> InvalidSpecError:
    return InvalidSpecError(message, op="usage")
