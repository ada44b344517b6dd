"""Every verb and where it stands in `ringfence --help`."""

from collections.abc import Callable, Mapping
from typing import Any

import typer

from ringfence.cli import (
    audit,
    create,
    diff,
    digest,
    doctor,
    exec,  # noqa: A004 - a verb's name
    files,
    image,
    life,
    policy,
    ps,
    repo,
    rm,
    run,
    shell,
    spec,
    store,
    watch,
)

_COMMANDS = "Commands"
_SANDBOXES = "Sandboxes"
_FILES = "Files"
_WATCH = "Watching"
_MACHINE = "This machine"

PANELS: Mapping[str, Mapping[str, Callable[..., Any]]] = {
    _COMMANDS: {"run": run.run, "exec": exec.exec, "shell": shell.shell},
    _SANDBOXES: {
        "create": create.create,
        "ps": ps.ps,
        "rm": rm.rm,
        "reap": rm.reap,
        "pause": life.pause,
        "resume": life.resume,
        "extend": life.extend,
        "snapshot": life.snapshot,
    },
    _FILES: {"ls": files.ls, "cp": files.cp, "diff": diff.diff, "apply": diff.apply},
    _WATCH: {
        "inspect": watch.inspect,
        "stats": watch.stats,
        "events": watch.events,
        "health": watch.health,
    },
    _MACHINE: {"doctor": doctor.doctor, "digest": digest.digest},
}

GROUPS: Mapping[str, tuple[typer.Typer, str]] = {
    "repo": (repo.group, _FILES),
    "image": (image.group, _MACHINE),
    "store": (store.group, _MACHINE),
    "spec": (spec.group, _MACHINE),
    "audit": (audit.group, _MACHINE),
    "policy": (policy.group, _MACHINE),
}

_OURS_FIRST = {"allow_interspersed_args": False}
SETTINGS: Mapping[str, dict[str, Any]] = {
    "run": _OURS_FIRST,
    "exec": {},
    "shell": {},
}
