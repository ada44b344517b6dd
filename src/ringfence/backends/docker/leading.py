"""Links of an image that lead what a runtime makes into what the host lends for writing.

A runtime follows them. An image whose /workspace is a link to /dev would have it put devices into
the original, one whose /run is a link to /workspace/x the directory x. For links in place of /etc,
/dev, /proc and /sys Engines put directories. An image without any is so for ever: it is looked at
once.
"""

import asyncio
import base64
import contextlib
import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from ringfence.backends.base import Bind
from ringfence.backends.docker.engine import Engine
from ringfence.backends.state import state_directory
from ringfence.errors import BackendUnavailableError, ImageError, NotFoundError, PolicyDeniedError
from ringfence.spec import SandboxSpec
from ringfence.spec.paths import lies_in

_STAT = "X-Docker-Container-Path-Stat"
_IS_LINK = 1 << 27
"""Among the bits of a mode as Go has them."""
_CANNOT_TELL = 500
_KEPT = 200


def lent(spec: SandboxSpec, binds: Sequence[Bind]) -> list[str]:
    """Where something of the host is mounted that may be written: no copy made for the sandbox."""
    copied = spec.repository is not None and spec.repository.mode == "copy"
    own = spec.repository.mount_point if spec.repository is not None and copied else None
    writable = (bind.destination for bind in binds if not bind.read_only)
    return [place for place in writable if place != own]


def bare(body: Mapping[str, Any]) -> dict[str, Any]:
    """The body of a container of the same image and labels with nothing of the host in it: an
    Engine that looks at a path mounts what a container has, and follows links for that, too."""
    mounts = [one for one in body["HostConfig"]["Mounts"] if one["Type"] == "tmpfs"]
    return {
        "Image": body["Image"],
        "Cmd": ["/"],
        "NetworkDisabled": True,
        "Labels": body["Labels"],
        "HostConfig": {"NetworkMode": "none", "Mounts": mounts},
    }


class Looked:
    """Whether an image was looked at before. body: of the container that is to be. volumes: the
    image's own. paths: what a look at it looks at."""

    def __init__(
        self, body: Mapping[str, Any], places: Sequence[str], volumes: Sequence[str]
    ) -> None:
        host = body["HostConfig"]
        mounted = [*host.get("Tmpfs", {}), *(one["Target"] for one in host["Mounts"])]
        others = [
            path
            for path in (*mounted, *volumes)
            if not any(lies_in(path, place) for place in places)
        ]
        self.paths = sorted({above for path in (*others, *places) for above in _over(path)})
        facts = [body["Image"], self.paths, sorted(places)]
        self._key = hashlib.sha256(repr(facts).encode()).hexdigest()
        self._file = state_directory() / "docker" / "looked"

    def known(self) -> bool:
        """Whether nothing was found then."""
        return self._key in self._known()

    def keep(self) -> None:
        """Nothing was found now."""
        beside = self._file.with_name(f".looked-{secrets.token_hex(6)}")
        with contextlib.suppress(OSError):
            self._file.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
            try:
                beside.write_text("\n".join([*self._known(), self._key][-_KEPT:]))
                beside.replace(self._file)
            finally:
                beside.unlink(missing_ok=True)

    def _known(self) -> list[str]:
        try:
            return self._file.read_text().split("\n")
        except (OSError, UnicodeDecodeError):
            return []


async def check(
    engine: Engine, container: str, paths: Sequence[str], places: Sequence[str]
) -> None:
    """PolicyDeniedError for a link of the image over one of `places`, or one among `paths` that
    leads into one of them; ImageError where that cannot be told. container: a bare one."""
    leads = await asyncio.gather(*(_led(engine, container, path) for path in paths))
    for path, target in zip(paths, leads, strict=True):
        if target is None:
            continue
        for place in places:
            if lies_in(place, path) or lies_in(target, place):
                raise PolicyDeniedError(
                    f"mount: {path!r} is a link to {target!r} in the image: through it the runtime"
                    f" would write to what is mounted at {place!r}; choose another destination",
                    op="create",
                    context={"path": path},
                )


def _over(path: str) -> list[str]:
    """A path and the directories over it, without the root."""
    names = path.split("/")
    return ["/".join(names[:length]) for length in range(2, len(names) + 1)]


async def _led(engine: Engine, container: str, path: str) -> str | None:
    """Where a path of a container leads, all links followed; None when it is no link. ImageError
    where an Engine cannot tell, which it has one status for; BackendUnavailableError for an answer
    that says something else."""
    try:
        text = await engine.head("look", _STAT, "containers", container, "archive", path=path)
    except NotFoundError:
        return None
    except BackendUnavailableError as error:
        if error.context.get("status") != _CANNOT_TELL:
            raise
        raise ImageError(
            f"mount: {path!r} cannot be looked at in the image: something over it is a file, or its"
            " links go in circles; choose another destination",
            op="create",
            context={"path": path},
        ) from None
    try:
        found = json.loads(base64.b64decode(text, validate=True))
        return str(found["linkTarget"]) if found["mode"] & _IS_LINK else None
    except (ValueError, KeyError, TypeError):
        pass
    raise BackendUnavailableError(
        f"create: {engine.endpoint.url} does not say what {path!r} is in the image: its {_STAT} is"
        f" {text[:100]!r}; is it a Docker Engine, without a proxy that drops headers?",
        op="create",
        context={"path": path},
    )
