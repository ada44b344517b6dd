"""The root file system of a container as an image in a content store, and back onto a daemon.

The Engine's commit makes an image whose configuration is the container's: the guest as its command
and our labels. It is only a step on the way: what is kept has the configuration of the image that
the container was made from, and what the Engine committed is removed again.
"""

import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ringfence.backends.docker import stored
from ringfence.backends.docker.engine import Engine
from ringfence.backends.docker.export import export
from ringfence.backends.docker.importing import load_layout
from ringfence.backends.docker.messages import SECONDS
from ringfence.backends.finish import finish
from ringfence.backends.owner import is_gone, mark
from ringfence.digest import Descriptor, Digest
from ringfence.digest.store import Store
from ringfence.errors import (
    ImageNotFoundError,
    ResourceExhaustedError,
    SandboxError,
    UnsupportedError,
)
from ringfence.images import layouts

LABEL = "ringfence.snapshot"
"""The label of images that were made of sandboxes."""
STEP = "ringfence.step"
"""The label of images that are removed again: "commit" on the way to a store, "fork" with the last
container made of it."""
FORK = "fork"
_BASE = "ringfence.base"
_OWNER = "ringfence.owner"
_LEFT_SECONDS = 3600
_KEPT = ("Env", "Cmd", "Entrypoint", "WorkingDir", "User", "ExposedPorts", "StopSignal")
_EPOCH = "1970-01-01T00:00:00Z"


async def commit(
    engine: Engine,
    container: str,
    base: str,
    store: Store,
    annotations: Mapping[str, str],
    *,
    made: list[Digest],
) -> Descriptor:
    """Keep a container's root file system, which should be frozen; the manifest, without a name.

    base: id of the image that it was made from. UnsupportedError for an image with volumes, whose
    content lies elsewhere. Else as `export`. Cancellation leaves nothing on the daemon.
    """
    found = (await _base(engine, base, "snapshot"))["Config"]

    def rewrite(committed: Mapping[str, Any]) -> Mapping[str, Any]:
        return configuration(committed, found)

    steps: list[str] = []
    try:
        await finish(_commit(engine, container, steps, {STEP: "commit"}))
        return await export(
            engine,
            steps[0],
            store,
            seconds=SECONDS,
            made=made,
            rewrite=rewrite,
            annotations=annotations,
        )
    finally:
        for step in steps:
            await finish(_remove(engine, step))


async def branch(engine: Engine, container: str, base: str) -> str:
    """An image of a container's root file system, which should be frozen, for forks; its id.

    `drop` removes it. As `commit`; nothing leaves the daemon.
    """
    found = await _base(engine, base, "fork")
    await sweep(engine)
    steps: list[str] = []
    try:
        await finish(_commit(engine, container, steps, {STEP: FORK, _BASE: str(found["Id"])}))
    except BaseException:
        for step in steps:
            await finish(_remove(engine, step))
        raise
    return steps[0]


async def drop(engine: Engine, image: str) -> None:
    """Remove an image that `branch` made, and those below it that it made, unless a container or
    another one needs it. All others stay. Idempotent."""
    with contextlib.suppress(ImageNotFoundError):
        found = await engine.get("image", "images", image, "json")
        base = _forked_from(found)
        if base and await _remove(engine, image):
            await drop(engine, found["Parent"] or base)


async def sweep(engine: Engine) -> None:
    """Remove what clients left that were killed between an image and its first container. What
    clients elsewhere made goes by its age, for nobody here knows whether they live."""
    filters = {"label": [STEP], "dangling": ["true"]}
    for row in await engine.get("image", "images", "json", filters=filters):
        gone = is_gone((row.get("Labels") or {}).get(_OWNER, ""), here=False)
        if gone is None:
            gone = row["Created"] < time.time() - _LEFT_SECONDS
        if gone:
            await _remove(engine, str(row["Id"]))


async def _base(engine: Engine, image: str, op: str) -> Mapping[str, Any]:
    """What the daemon says of the image that a container was made from; of a fork's, the one that
    its first ancestor was made from. UnsupportedError for one with volumes."""
    found = await engine.get(op, "images", image, "json")
    config = found.get("Config") or {}
    if base := _forked_from(found):
        return await _base(engine, base, op)
    if config.get("Volumes"):
        names = ", ".join(sorted(config["Volumes"]))
        raise UnsupportedError(
            f"{op}: {names} are volumes of the image, which are not part of its root file"
            " system: use an image without volumes",
            op=op,
        )
    return {**found, "Config": config}


def _forked_from(found: Mapping[str, Any]) -> str:
    """The image that one of `branch`'s goes back to; "" for others: one that was built or pulled,
    and so has a name, may have its labels."""
    labels = (found.get("Config") or {}).get("Labels") or {}
    named = found.get("RepoTags") or found.get("RepoDigests")
    return "" if named or labels.get(STEP) != FORK else str(labels.get(_BASE, ""))


def check_room(size: int, places: Sequence[Path]) -> None:
    """ResourceExhaustedError unless there is room for `size` bytes twice in each of `places`: files
    with holes are written out, as the layer that the Engine keeps and as the one that it sends."""
    for place in places:
        found = os.statvfs(place)
        if 2 * size > found.f_bavail * found.f_frsize:
            raise ResourceExhaustedError(
                f"snapshot: the {size} bytes of the root file system's changes are more than"
                f" {place} has room for",
                op="snapshot",
            )


def configuration(committed: Mapping[str, Any], base: Mapping[str, Any]) -> Mapping[str, Any]:
    """The configuration of a kept root file system: where it ran, with what of its image."""
    labels = {
        name: text
        for name, text in (base.get("Labels") or {}).items()
        if not name.startswith("ringfence.")
    }
    kept = {name: base[name] for name in _KEPT if base.get(name)}
    about = {name: committed[name] for name in ("architecture", "os", "variant")
             if committed.get(name)}  # fmt: skip
    layers = committed["rootfs"]["diff_ids"]
    step = {"created": _EPOCH, "created_by": "ringfence snapshot"}
    return {
        **about,
        "created": _EPOCH,
        "config": {**kept, "Labels": {**labels, LABEL: "root"}},
        "rootfs": {"type": "layers", "diff_ids": layers},
        "history": [step for _ in layers],
    }


async def load(engine: Engine, layout: Path, descriptor: Descriptor) -> str:
    """Have the image of a manifest in a store on the daemon; its id. Nothing is sent when it is
    there. ImageError when the store is damaged or the daemon makes something else of it."""
    manifest = await asyncio.to_thread(layouts.read, layout, descriptor)
    image = str(manifest.config.digest)
    with contextlib.suppress(ImageNotFoundError):
        return str((await stored.inspect(engine, image)).id)
    with tempfile.TemporaryFile() as body:
        made = await load_layout(engine, layout, manifest, body, seconds=SECONDS)
    if made.id != image:
        await stored.tag(engine, made.id, *stored.kept_as(image))
    return str(made.id)


async def _commit(
    engine: Engine, container: str, steps: list[str], labels: Mapping[str, str]
) -> None:
    made = await engine.request(
        "snapshot",
        "POST",
        ("commit",),
        {"container": container, "pause": False},
        {"Labels": {**labels, _OWNER: mark()}},
        seconds=SECONDS,
    )
    steps.append(str(made["Id"]))


async def _remove(engine: Engine, image: str) -> bool:
    # Without pruning: the parents of what was committed are other people's.
    try:
        await engine.request("image", "DELETE", ("images", image), {"noprune": True})
    except SandboxError:
        return False
    return True
