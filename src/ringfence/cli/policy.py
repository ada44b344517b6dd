"""`ringfence policy`: what the profiles give and why, and the ceiling of a machine."""

import platform
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from ringfence.cli import output
from ringfence.cli.common import Json
from ringfence.cli.exits import exits

group = typer.Typer(
    help="Profiles: what each gives, why, and how they differ.", no_args_is_help=True
)

_Name = Annotated[str, typer.Argument(metavar="PROFILE")]
_OrStrict = Annotated[str, typer.Argument(metavar="[PROFILE]")]


@group.command()
@exits
def show(profile: _OrStrict = "strict", json: Json = False) -> int:
    """Every control of a profile with its value."""
    from ringfence.policy import explain

    rows = explain.rows(profile)
    if json:
        output.document({"profile": profile, "controls": {row.control: row.value for row in rows}})
    else:
        output.fields({row.control: row.value for row in rows})
    return 0


@group.command("explain")
@exits
def explain_(profile: _OrStrict = "strict", json: Json = False) -> int:
    """A sentence of why for each control, and what the seccomp filter refuses."""
    from ringfence.policy import explain

    rows, refused = explain.rows(profile), explain.refused(profile)
    if json:
        output.document(
            {
                "profile": profile,
                "controls": [asdict(row) for row in rows],
                "seccomp": [asdict(row) for row in refused],
            }
        )
        return 0
    for row in rows:
        output.line(f"{row.control}: {row.value}\n    {row.why}")
    output.line("\nseccomp refuses")
    for row in refused:
        output.line(f"{row.control}: {row.value}\n    {row.why}")
    return 0


@group.command()
@exits
def diff(left: _Name, right: _Name, json: Json = False) -> int:
    """The controls in which two profiles differ. Ends with 1 when there are any."""
    from ringfence.policy import explain

    found = explain.difference(left, right)
    if json:
        output.document([asdict(one) for one in found])
    else:
        output.table(
            ("control", left, right), [(one.control, one.left, one.right) for one in found]
        )
    return 1 if found else 0


@group.command()
@exits
def seccomp(
    profile: _OrStrict = "strict",
    arch: Annotated[str, typer.Option(help="x86_64 or aarch64; this machine's if left out.")] = "",
) -> int:
    """A built-in seccomp profile in the OCI runtime's format."""
    from ringfence.policy import seccomp as profiles

    output.document(profiles.profile(profile, arch or platform.machine()))
    return 0


@group.command()
@exits
def ceiling(
    path: Annotated[Path, typer.Argument(metavar="FILE")],
    json: Json = False,
) -> int:
    """Check a ceiling file and show what it caps."""
    from ringfence.policy import load_ceiling

    capped = load_ceiling(path).model_dump(mode="json", exclude_defaults=True)
    if json:
        output.document(capped)
    else:
        output.fields(dict(_flat(capped)) or {"ceiling": "caps nothing"})
    return 0


def _flat(capped: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """The names of fields as errors have them, such as limits.memory."""
    for name, value in capped.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value
