"""Making one container, step by step, with everything undone when a step fails or is cancelled."""

import asyncio
import contextlib
import json
import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ringfence.backends.base import Bind, Record
from ringfence.backends.cgroup_files import hold_sockets
from ringfence.backends.docker import failures, holding, leading, place, removal, streams
from ringfence.backends.docker.config import Placement, create_body
from ringfence.backends.docker.connecting import dialled
from ringfence.backends.docker.devices import disks_of
from ringfence.backends.docker.directory import make_directory, remove_directory
from ringfence.backends.docker.engine import Engine
from ringfence.backends.docker.images import Image
from ringfence.backends.docker.inspection import Inspection, inspect, interfaces
from ringfence.backends.docker.instance import DockerInstance
from ringfence.backends.docker.machine import Machine
from ringfence.backends.docker.terminals import hold_terminals
from ringfence.backends.door import Door
from ringfence.backends.finish import finish
from ringfence.errors import PolicyDeniedError, SandboxError, SandboxLostError
from ringfence.guest.protocol import MARKER_BYTES
from ringfence.policy.profiles import is_gvisor
from ringfence.spec import SandboxSpec

LABEL_PREFIX = "ringfence.label."
"""Of the container labels that are the user's labels."""
GUEST_SECONDS = 10.0
"""How long a guest may take to dial before the other transport is tried."""


def container_name(sandbox_id: str) -> str:
    """The container's name: with it, one can be removed whose id never reached us."""
    return f"ringfence-{sandbox_id}"


def container_labels(spec: SandboxSpec, sandbox_id: str, ends: float | None) -> dict[str, str]:
    """The user's labels and ours, by which `found` finds it.

    An image's labels are its containers' too: the user's are told apart by a prefix.
    """
    own = {
        "ringfence.id": sandbox_id,
        "ringfence.image": spec.image or "",
        "ringfence.life": "detached" if spec.detached else "attached",
    }
    if ends is not None:
        own["ringfence.ends"] = f"{ends:.3f}"
    marked = {f"{LABEL_PREFIX}{name}": text for name, text in spec.labels.items()}
    return {**spec.labels, **marked, **own}


class Creation:
    """One create. Life: `run` makes it or raises, having undone everything."""

    def __init__(
        self,
        engine: Engine,
        machine: Machine,
        *,
        image: Image,
        spec: SandboxSpec,
        sandbox_id: str,
        binds: Sequence[Bind],
    ) -> None:
        self._engine = engine
        self._machine = machine
        self._image = image
        self._spec = spec
        self._id = sandbox_id
        self._binds = binds
        self._container = ""
        self._asked = False
        self._directory: Path | None = None
        self._door: Door | None = None
        self._attached: streams.Attached | None = None
        self._guest_came: socket.socket | None = None

    async def run(self, transport: str, *, local: bool) -> DockerInstance:
        """Make it with this transport. An error or cancellation leaves nothing behind."""
        try:
            made = await self._make(transport, local=local)
            # A cancellation that came during the last step is delivered here, not lost with `made`.
            await asyncio.sleep(0)
            return made
        except BaseException:
            await finish(self._undo())
            raise

    async def _make(self, transport: str, *, local: bool) -> DockerInstance:
        spec = self._spec
        needs_marker = transport == "stream" and spec.detached
        marker = os.urandom(MARKER_BYTES) if needs_marker else b""
        created = time.time()
        ends = None if spec.lifetime is None else created + spec.lifetime
        placement = await self._placement(transport, marker, local=local)
        labels = container_labels(spec, self._id, ends)
        await self._create(placement, labels, place.hosts_file() if local else None)
        if placement.stream:
            self._attached = await streams.attach(self._engine, self._container)
        await finish(self._engine.post("start", "containers", self._container, "start"))
        seen = await self._started()
        if self._door is not None:
            self._guest_came = await dialled(self._door, self._engine, seen, GUEST_SECONDS)
            self._door.close()
        record = Record(
            id=self._id,
            backend="docker",
            endpoint=self._engine.endpoint.url,
            native=self._container,
            transport=transport,
            spec=spec,
            created=created,
            ends=ends,
            marker=marker,
            image_digest=self._image.facts.digest,
        )
        waiting = self._guest_came or self._attached
        return DockerInstance(self._engine, self._machine, record, seen, waiting)

    async def _placement(self, transport: str, marker: bytes, *, local: bool) -> Placement:
        place.check_volumes(self._image.volumes)
        guest = place.guest_binary(self._image.facts.architecture)
        if transport == "socket":
            directory = place.run_directories(self._engine.endpoint) / self._id
            make_directory(directory)
            self._directory = directory
            self._door = Door(directory, holding.take(self._id))
            return place.on_socket(directory, guest)
        # gVisor executes only what can be read, and the guest here is not readable for commands.
        if local and not is_gvisor(self._spec.security.runtime or self._machine.default_runtime):
            return place.on_stream(guest, marker)
        volume = await place.fill_volume(self._engine, self._image.facts.digest, guest)
        return place.on_volume(volume, marker)

    async def _create(
        self, placement: Placement, labels: Mapping[str, str], hosts: Path | None
    ) -> None:
        limits = self._spec.limits
        rated = limits.read_rate is not None or limits.write_rate is not None
        sources = [self._machine.root, *(bind.source for bind in self._binds if bind.source)]
        body = create_body(
            self._spec,
            self._image,
            placement,
            self._machine,
            binds=self._binds,
            labels=labels,
            devices=disks_of(sources) if rated else (),
            hosts=hosts,
        )
        if places := leading.lent(self._spec, self._binds):
            await self._check_links(body, places)
        self._container = await self._made(body)

    async def _made(self, body: Mapping[str, Any]) -> str:
        name = container_name(self._id)
        self._asked = True
        try:
            made = await finish(
                self._engine.post("create", "containers", "create", body=body, name=name)
            )
        except SandboxError as error:
            # A refusal made nothing, and the name may be another sandbox's.
            self._asked = "status" not in error.context
            raise
        if not isinstance(made, Mapping) or "Id" not in made:
            raise failures.of_answer("create", self._engine.endpoint, json.dumps(made).encode())
        return str(made["Id"])

    async def _check_links(self, body: Mapping[str, Any], places: Sequence[str]) -> None:
        """PolicyDeniedError, ImageError; see `leading`. It looks in a container of the sandbox's
        own name, so that whoever ends it removes this one, too."""
        looked = leading.Looked(body, places, self._image.volumes)
        if looked.known():
            return
        container = await self._made(leading.bare(body))
        try:
            await leading.check(self._engine, container, looked.paths, places)
        finally:
            await finish(removal.remove(self._engine, container))
        looked.keep()

    async def _started(self) -> Inspection:
        """The running container, looked at from inside its network namespace."""
        seen = await inspect(self._engine, self._container)
        if seen is None or not seen.pid:
            raise SandboxLostError(
                "create: the guest ended at once: is the image for another architecture?",
                op="create",
                sandbox_id=self._id,
            )
        if seen.pid_here:
            hold_terminals(seen.pid_here)
        if seen.pid_here and self._spec.limits.memory is not None:
            hold_sockets(seen.pid_here, self._spec.limits.memory)
        here = interfaces(seen.pid_here) if seen.pid_here else None
        if self._spec.network.mode != "bridge" and here is not None and here - {"lo"}:
            raise PolicyDeniedError(
                "create: the daemon gave the sandbox a network that it was told not to give: "
                + ", ".join(sorted(here)),
                op="create",
                sandbox_id=self._id,
            )
        return seen

    async def _undo(self) -> None:
        if self._door is not None:
            self._door.close()
        if self._asked:
            with contextlib.suppress(SandboxError):
                await removal.remove(self._engine, self._container or container_name(self._id))
        # Later, so that the guest's end and the daemon's own removal do not race ours.
        if self._guest_came is not None:
            self._guest_came.close()
        if self._attached is not None:
            self._attached.abort()
        if self._container and is_gvisor(self._spec.security.runtime):
            await asyncio.to_thread(removal.reap, self._container)
        if self._directory is not None:
            remove_directory(self._directory)
