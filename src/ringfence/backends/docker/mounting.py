"""A volume that the daemon mounts for a moment, of a container that is never started."""

from collections.abc import Mapping

from ringfence.backends.base import Bind
from ringfence.backends.docker import removal
from ringfence.backends.docker.config import mount_of
from ringfence.backends.docker.creation import container_name
from ringfence.backends.docker.engine import Engine
from ringfence.backends.docker.place import INSIDE
from ringfence.backends.finish import finish
from ringfence.errors import ImageNotFoundError


async def mount_once(engine: Engine, sandbox_id: str, volume: Mapping[str, str]) -> None:
    """Have the daemon mount a volume of these options and unmount it; see `ledger.cleaning`.

    An Engine mounts a container's volumes to look at a path in it, too. ImageNotFoundError when it
    has no image for a container. Cancellation leaves nothing; what a client that is killed leaves,
    the next call for the same sandbox removes.
    """
    name = f"{container_name(sandbox_id)}-mount"
    body = {
        "Image": await _any_image(engine),
        "Cmd": ["/"],
        "NetworkDisabled": True,
        "HostConfig": {
            "Mounts": [mount_of(Bind("", INSIDE, read_only=False, volume=volume))],
            "NetworkMode": "none",
        },
        "Labels": {"ringfence.mount": sandbox_id},
    }
    await removal.remove(engine, name)
    try:
        await finish(engine.post("delete", "containers", "create", body=body, name=name))
        await engine.request("delete", "HEAD", ("containers", name, "archive"), {"path": INSIDE})
    finally:
        await finish(removal.remove(engine, name))


async def _any_image(engine: Engine) -> str:
    """The sandbox's own may be gone. One without a name is the last choice: it may be a fork's,
    whose removal a container would be in the way of."""
    for dangling in ("false", "true"):
        rows = await engine.get("delete", "images", "json", filters={"dangling": [dangling]})
        if rows:
            return str(rows[0]["Id"])
    raise ImageNotFoundError(
        "delete: the daemon has no image, and without one it mounts nothing: pull any",
        op="delete",
    )
