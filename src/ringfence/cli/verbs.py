"""Every verb and where it stands in `ringfence --help`; each module is loaded when asked for."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import typer

from ringfence.cli.shown import OfCommand, Verb

_COMMANDS = "Commands"
_SANDBOXES = "Sandboxes"
_FILES = "Files"
_WATCH = "Watching"
_MACHINE = "This machine"

PANELS: Mapping[str, Mapping[str, str]] = {
    _COMMANDS: {"run": "run", "exec": "exec", "shell": "shell"},
    _SANDBOXES: {
        "create": "create",
        "ps": "ps",
        "rm": "rm",
        "reap": "rm",
        "pause": "life",
        "resume": "life",
        "extend": "life",
        "snapshot": "life",
    },
    _FILES: {"ls": "files", "cp": "files", "diff": "diff", "apply": "diff"},
    _WATCH: {"inspect": "watch", "stats": "watch", "events": "watch", "health": "watch"},
    _MACHINE: {"doctor": "doctor", "digest": "digest"},
}
"""The verbs of each panel, and the modules here that have them as functions."""

GROUPS: Mapping[str, str] = {
    "repo": _FILES,
    "image": _MACHINE,
    "store": _MACHINE,
    "spec": _MACHINE,
    "audit": _MACHINE,
    "policy": _MACHINE,
}
"""The panels of groups of verbs, each of which is the `group` of the module of its name."""

NAMES = frozenset(GROUPS).union(*PANELS.values())

_OF_COMMANDS = frozenset(PANELS[_COMMANDS])


def kind(name: str) -> type[Verb]:
    """What a verb is for who reads its command line."""
    return OfCommand if name in _OF_COMMANDS else Verb


def verb(name: str, module: str) -> Callable[..., Any]:
    """The function of a verb."""
    found: Callable[..., Any] = getattr(import_module(f"ringfence.cli.{module}"), name)
    return found


def group(name: str) -> typer.Typer:
    """A group of verbs."""
    found: typer.Typer = import_module(f"ringfence.cli.{name}").group
    for command in found.registered_commands:
        command.cls = Verb
    return found
