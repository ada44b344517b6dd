"""The pages that list what there is list all of it: fields, variables, events, methods."""

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

import ringfence
from ringfence import events
from ringfence.policy import Ceiling
from ringfence.policy.ceiling import NetworkCeiling, SecurityCeiling
from ringfence.policy.profiles import PROFILES
from ringfence.sandbox.networking import Networking
from ringfence.spec import Limits, Mount, Network, Repository, SandboxSpec, Security

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
_NAME = re.compile(r"`([\w.]+)`")
OURS: dict[type, set[str]] = {ringfence.Process: {"exec"}, ringfence.Workspace: {"join"}}
"""Methods that the library alone calls."""
_GIB, _MIB, _KIB = 2**30, 2**20, 2**10


def section(page: str, heading: str) -> str:
    """What stands below a heading, to the next one as high."""
    text = (DOCS / page).read_text()
    _, found, rest = text.partition(f"\n## {heading}\n")
    assert found, f"docs/{page} has no heading {heading}"
    return rest.partition("\n## ")[0]


def rows(text: str) -> list[list[str]]:
    """The cells of a section's table, without its head."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in lines[1:]]


def as_written(value: Any) -> str:
    """A default as the page writes it: in TOML, "-" for what is filled in."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value!r}`".replace("'", '"').replace("()", "[]")


@pytest.mark.parametrize(
    ("heading", "model"),
    [
        ("The sandbox", SandboxSpec),
        ("`[repository]`", Repository),
        ("`[[mounts]]`", Mount),
        ("`[security]`", Security),
        ("`[network]`", Network),
    ],
)
def test_a_table_of_the_spec_has_every_field_with_its_default(
    heading: str, model: type[BaseModel]
) -> None:
    told: dict[str, str] = {}
    for names, default, *_ in rows(section("spec.md", heading)):
        told |= dict.fromkeys(_NAME.findall(names), default)
    assert told.keys() == model.model_fields.keys()
    for name, field in model.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if field.is_required():
            assert told[name] == "needed"
        elif not isinstance(default, BaseModel):
            assert told[name] == as_written(default), name


def test_the_limits_of_the_spec_are_named() -> None:
    named = _NAME.findall(section("spec.md", "`[limits]`"))
    assert sorted(named) == sorted(Limits.model_fields)


def test_every_variable_that_is_read_is_listed() -> None:
    """But for those of the conformance suite."""
    read = {
        name
        for path in (ROOT / "src" / "ringfence").rglob("*.py")
        for name in re.findall(r'"(RINGFENCE_[A-Z_]+)"', path.read_text())
        if "testing" not in path.parts
    }
    listed = {name for row in rows(section("machine.md", "Variables")) for name in row[:1]}
    assert read == {name for row in listed for name in re.findall(r"RINGFENCE_[A-Z_]+", row)}


def test_every_event_is_listed_with_its_fields() -> None:
    told: dict[str, list[str]] = {}
    for names, further, _ in rows(section("monitoring.md", "Events")):
        told |= dict.fromkeys(_NAME.findall(names), _NAME.findall(further))
    common = {field.name for field in fields(events.Event)}
    assert told == {
        cls.__name__: [field.name for field in fields(cls) if field.name not in common]
        for cls in events.Event.__subclasses__()
    }


def test_every_field_of_a_ceiling_is_named() -> None:
    text = section("policy.md", "Ceiling")
    for model in (Ceiling, SecurityCeiling, NetworkCeiling):
        for name in model.model_fields:
            assert re.search(rf"^{name} =|^\[{name}\]|`{name}`", text, re.MULTILINE), name


@pytest.mark.parametrize(
    ("heading", "cls", "attributes"),
    [
        ("Sandbox", ringfence.Sandbox, {"files", "network"}),
        ("Process", ringfence.Process, {"stdout", "stderr"}),
        ("Files", ringfence.Files, set()),
        ("Workspace", ringfence.Workspace, set()),
        ("Network", Networking, {"ports"}),
        ("Pool", ringfence.Pool, set()),
    ],
)
def test_every_method_is_listed(heading: str, cls: type, attributes: set[str]) -> None:
    """docs/library.md; but for what only the library itself calls."""
    told = {name for row in rows(section("library.md", heading)) for name in _NAME.findall(row[0])}
    known = {name for name in vars(cls) if not name.startswith("_")} | attributes
    assert told == known - OURS.get(cls, set())


def size(value: int | None) -> str:
    assert value is not None
    for unit, name in ((_GIB, "GiB"), (_MIB, "MiB"), (_KIB, "KiB")):
        if value and value % unit == 0:
            return f"{value // unit} {name}"
    return str(value)


def test_the_table_of_profiles_has_their_numbers() -> None:
    table = {row[0]: row[1:] for row in rows(section("policy.md", "Profiles"))}
    for at, profile in enumerate(PROFILES.values()):
        limits, ulimits = profile.limits, profile.limits.ulimits
        for names, wanted in {
            "memory, swap": f"{size(limits.memory)}, {limits.swap}",
            "cpus, pids": f"{limits.cpus:g}, {limits.pids}",
            "/run, /dev/shm": f"{size(limits.run)}, {size(limits.shm)}",
        }.items():
            assert table[names][at] == wanted
        assert table["/tmp"][at].startswith(size(limits.tmp))
        assert ulimits.nofile is not None
        assert table["open files, file size"][at].startswith(f"{ulimits.nofile.hard}, ")
        kept = f"{limits.timeout:g} s, {size(limits.output)}, "
        assert table["exec timeout, output kept, idle life"][at].startswith(kept)


def test_the_readme_leads_to_every_page() -> None:
    text = (ROOT / "README.md").read_text()
    assert [page.name for page in DOCS.glob("*.md") if f"docs/{page.name})" not in text] == []


def test_the_changelog_has_the_usual_kinds_and_short_entries() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    for version in text.split("\n## ")[1:]:
        kinds = re.findall(r"^### (.+)$", version, re.MULTILINE)
        known = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]
        assert kinds == [kind for kind in known if kind in kinds]
    entries = re.findall(r"^- .+(?:\n  .+)*", text, re.MULTILINE)
    assert [entry for entry in entries if len(entry.split()) > 60] == []
