"""Many workspaces that start from the present state of one."""

import os
from dataclasses import replace
from pathlib import Path

from ringfence.errors import StateError
from ringfence.workspace import applied, shared
from ringfence.workspace.beneath import open_root
from ringfence.workspace.failures import failed
from ringfence.workspace.layer_copy import copy_layer
from ringfence.workspace.ownership import Ownership, dress, root_entry
from ringfence.workspace.prepared import Prepared, clean
from ringfence.workspace.writable import For, Owners, mount


def fork(prepared: Prepared, directories: list[Path], whom: For) -> list[Prepared]:
    """One workspace per directory (which do not exist yet), each starting from the present state.

    What was written so far is copied once and frozen; all stand on it and on the trees below. The
    parent goes on. Nothing should write to it meanwhile. An error leaves none of them. It blocks.
    """
    made: list[Prepared] = []
    first = directories[0]
    try:
        first.mkdir(mode=0o711, parents=True)
        frozen = shared.create(first)
        _freeze(prepared, frozen)
        for directory in directories:
            directory.mkdir(mode=0o711, parents=True, exist_ok=directory == first)
            made.append(_child(prepared, frozen, directory, whom))
    except BaseException:
        for directory in directories:
            clean(directory)
        raise
    return made


def _child(parent: Prepared, frozen: shared.Layer, directory: Path, whom: For) -> Prepared:
    for path in (frozen.path, *parent.layers):
        shared.use(shared.Layer(path), directory)
    child = Prepared(
        directory=directory,
        strategy=parent.strategy,
        mode=parent.mode,
        mount_point=parent.mount_point,
        binds=(),
        env=parent.env,
        original=parent.original,
        keeps_modes=parent.keeps_modes,
        warnings=parent.warnings,
        mounted=parent.mounted,
    )
    owners = parent.owners or (0, 0, 0, 0)
    stored, seen = (owners[0], owners[1]), (owners[2], owners[3])
    whom = replace(whom, strategy=parent.strategy)
    layers = (frozen.path, *parent.layers)
    child = mount(child, layers, whom, parent.size, Owners(stored, seen, Ownership()))
    child.save()
    if before := applied.read(parent.directory):
        applied.write(directory, before)
    return child


def _freeze(prepared: Prepared, frozen: shared.Layer) -> None:
    """Copy the writable layer, with its whiteouts, or in mode copy the whole tree."""
    if prepared.upper is None:
        raise StateError("this workspace has no state of its own to fork", op="fork")
    source, target = open_root(prepared.upper), open_root(frozen.tree)
    try:
        copy_layer(source, target, prepared.opaque)
        dress(target, root_entry(source), Ownership())
    except OSError as error:
        raise failed(error, prepared.upper, "forking the workspace") from None
    finally:
        os.close(source)
        os.close(target)
