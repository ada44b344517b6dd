"""The backend of sandboxes that are containers of a Docker Engine."""

import asyncio
import contextlib
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ringfence.backends import exec_cgroups, late_binds
from ringfence.backends.base import Bind, Features, Found, Record
from ringfence.backends.docker import images, mounting, place, probing, rootfs, stored
from ringfence.backends.docker.creation import LABEL_PREFIX, Creation, container_name
from ringfence.backends.docker.directory import remove_directory
from ringfence.backends.docker.endpoint import resolve
from ringfence.backends.docker.engine import Engine
from ringfence.backends.docker.images import Image
from ringfence.backends.docker.inspection import STATES, inspect
from ringfence.backends.docker.instance import DockerInstance
from ringfence.backends.docker.known import Known, known
from ringfence.backends.docker.machine import Machine, sees_our_files
from ringfence.backends.docker.refusals import refuse
from ringfence.backends.docker.supply import Supply
from ringfence.backends.sources import owner_of
from ringfence.digest import Descriptor
from ringfence.errors import (
    DeadlineExceededError,
    ImageNotFoundError,
    InvalidSpecError,
    NotFoundError,
    StateError,
)
from ringfence.policy.facts import Facts
from ringfence.policy.profiles import is_gvisor
from ringfence.spec import SandboxSpec, State

TRANSPORT_VARIABLE = "RINGFENCE_DOCKER_TRANSPORT"
"""Forces "stream" or "socket"."""
_ABANDONED_SECONDS = 600.0


class DockerBackend:
    """Makes sandboxes on one Docker Engine, 20.10 or newer, under any OCI runtime it has.

    endpoint: a URL (unix://, tcp://, https://), None for the one that Docker's own command would
    use. One object serves one event loop and any number of sandboxes. What was learned of a daemon
    is shared with other objects of that loop.
    """

    name = "docker"

    def __init__(self, endpoint: str | None = None) -> None:
        self._endpoint = endpoint
        self._engine: Engine | None = None
        self._images: dict[str, Image] = {}

    async def features(self, spec: SandboxSpec | None = None) -> Features:
        """What this daemon can enforce, for `spec`'s runtime (None: the daemon's own)."""
        machine = await self._described()
        runtime = None if spec is None else spec.security.runtime
        gvisor = is_gvisor(runtime or machine.default_runtime)
        transports = self._transports(machine, gvisor=gvisor, local=self._known.local is not False)
        return Features(
            limits=machine.limits,
            transports=transports,
            family_kill="user" if gvisor else "exec",
            pty=True,
            detached=True,
            users=True,
            mounts=self._known.local is not False,
            pause=machine.cgroups,
            locks=True,
            runtimes=machine.runtimes,
            networks=frozenset({"none", "proxy", "bridge"}),
            receipt=True,
            usage=machine.cgroups,
            cpu_counter=transports[0] == "socket" and machine.cgroups,
            watched=frozenset() if gvisor else frozenset({"disk"}),
            exec_cgroups=(
                transports[0] == "socket"
                and machine.cgroups
                and exec_cgroups.possible(machine.cgroup_version)
                and not gvisor
                and os.geteuid() == 0
            ),
            late_binds=(
                machine.surely_local
                and late_binds.possible()
                and not gvisor
                and not machine.security & {"userns", "rootless"}
            ),
            missing=machine.missing,
        )

    async def info(self) -> Mapping[str, Any]:
        """The Engine's own description of itself (GET /info). BackendUnavailableError."""
        found: Mapping[str, Any] = await self._connected().get("info", "info")
        return found

    async def facts(self, spec: SandboxSpec) -> Facts:
        """What is known of image and machine.

        ImageNotFoundError for an image that the daemon does not have, PolicyDeniedError for one
        that is not what the spec's lock file says, InvalidSpecError without one,
        BackendUnavailableError when no daemon of a fitting version answers.
        """
        machine = await self._described()
        lock = await asyncio.to_thread(images.read_lock, spec.lock) if spec.lock else None
        image = await images.look_up(self._connected(), spec.image, lock)
        self._images[image.facts.digest] = image
        local = await self._is_local(machine, image)
        owner = None
        if spec.repository is not None and local:
            owner = owner_of(spec.repository.path)
        runtime = spec.security.runtime or machine.default_runtime
        return Facts(
            memory=machine.memory,
            cpus=float(machine.cpus),
            nofile=machine.nofile,
            ulimits={} if is_gvisor(runtime) else machine.ulimits,
            image=image.facts,
            repository_uid=owner and owner[0],
            repository_gid=owner and owner[1],
            local=local,
            data_root=machine.root if local else "",
            runtime=runtime if is_gvisor(runtime) else None,
        )

    async def create(
        self, spec: SandboxSpec, sandbox_id: str, facts: Facts, *, binds: Sequence[Bind] = ()
    ) -> DockerInstance:
        """A container with the guest as its first process, and the stream to it.

        Where a guest on a socket does not come, the sandbox is made again with the stream
        transport, and so are all later ones. UnsupportedError for what the daemon cannot enforce.
        """
        machine = await self._described()
        refuse(spec, machine)
        image = await self._image(spec, facts)
        if binds and not facts.local:
            raise InvalidSpecError(
                "mount: the daemon does not share this machine's files: nothing can be bound",
                op="create",
                context={"fields": ["mounts"]},
            )
        async with self._known.limiter(machine):
            gvisor = _runs_gvisor(spec, machine)
            transport = self._transports(machine, gvisor=gvisor, local=facts.local)[0]
            creation = partial(
                Creation,
                self._connected(),
                machine,
                image=image,
                spec=spec,
                sandbox_id=sandbox_id,
                binds=binds,
            )
            try:
                return await creation().run(transport, local=facts.local)
            except DeadlineExceededError as error:
                alone = transport != "socket" or TRANSPORT_VARIABLE in os.environ
                if alone or error.op != "connect":
                    raise
            self._known.socket_fails = True
            return await creation().run("stream", local=facts.local)

    async def attach(self, record: Record) -> DockerInstance:
        """The instance of an earlier create, running or ended; by name when its id is not known.

        NotFoundError when the daemon has none; what was left of it on this machine is removed.
        """
        engine = self._connected()
        machine = await self._described()
        seen = await inspect(engine, record.native or container_name(record.id))
        if seen is None or seen.labels.get("ringfence.id") != record.id:
            if record.spec.security.read_only_root is False:
                await rootfs.drop(engine, record.spec.image or "")
            remove_directory(place.run_directories(engine.endpoint) / record.id)
            raise NotFoundError(
                f"there is no sandbox {record.id} on {engine.endpoint.url}: it ended",
                op="attach",
                sandbox_id=record.id,
            )
        return DockerInstance(engine, machine, replace(record, native=seen.container), seen)

    async def found(self, labels: Mapping[str, str]) -> Sequence[Found]:
        """All containers of Ringfence on this endpoint, ended ones too, that carry these labels."""
        engine = self._connected()
        wanted = [
            "ringfence.id",
            *(f"{LABEL_PREFIX}{name}={value}" for name, value in labels.items()),
        ]
        rows = await engine.get("list", "containers", "json", all=True, filters={"label": wanted})
        found = [_found(row) for row in rows]
        if not labels:
            self._sweep({one.id for one in found})
        return found

    async def sweep(self) -> None:
        """Remove the images that clients made for forks and snapshots, and left when they ended,
        and containers that were never to start."""
        await rootfs.sweep(self._connected())
        await probing.sweep(self._connected())

    async def mount_once(self, sandbox_id: str, volume: Mapping[str, str]) -> None:
        """Have the daemon mount a volume and unmount it, for a sandbox that is gone."""
        await mounting.mount_once(self._connected(), sandbox_id, volume)

    async def load(self, layout: Path, manifest: Descriptor) -> str:
        """Have an image of an OCI layout on the daemon; its id. ImageError."""
        return await rootfs.load(self._connected(), layout, manifest)

    async def unload(self, image: str) -> None:
        """Remove an image by id, unless a container needs it. Idempotent."""
        with contextlib.suppress(ImageNotFoundError, StateError):
            found = await stored.inspect(self._connected(), image)
            name = image if found.id == image else ":".join(stored.kept_as(image))
            await Supply(self._connected()).remove(name)

    async def aclose(self) -> None:
        """Close connections; sandboxes go on."""
        engine, self._engine = self._engine, None
        if engine is not None:
            await engine.close()

    def _connected(self) -> Engine:
        if self._engine is None:
            self._engine = Engine(resolve(self._endpoint))
        return self._engine

    @property
    def _known(self) -> Known:
        return known(self._connected().endpoint)

    async def _described(self) -> Machine:
        return await self._known.machine(self._connected())

    async def _is_local(self, machine: Machine, image: Image) -> bool:
        found = self._known
        if found.local is None:
            found.local = machine.surely_local or await sees_our_files(
                self._connected(), image.facts.digest
            )
        return found.local

    async def _image(self, spec: SandboxSpec, facts: Facts) -> Image:
        digest = facts.image.digest if facts.image else spec.image
        known = self._images.get(digest or "")
        return known or await images.look_up(self._connected(), digest)

    def _transports(self, machine: Machine, *, gvisor: bool, local: bool) -> tuple[str, ...]:
        """In order of preference. gVisor's processes dial as another pid than the container's."""
        forced = os.environ.get(TRANSPORT_VARIABLE)
        if forced in ("stream", "socket"):
            return (forced,)
        fits = machine.same_kernel and local and not self._known.socket_fails
        return ("socket", "stream") if fits and not gvisor else ("stream",)

    def _sweep(self, alive: set[str]) -> None:
        """Remove the directories of sandboxes that ended by themselves."""
        for directory in place.run_directories(self._connected().endpoint).glob("*"):
            if directory.name in alive:
                continue
            try:
                old = time.time() - directory.stat().st_mtime > _ABANDONED_SECONDS
            except OSError:
                continue
            if old:
                remove_directory(directory)


def _runs_gvisor(spec: SandboxSpec, machine: Machine) -> bool:
    return is_gvisor(spec.security.runtime or machine.default_runtime)


def _found(row: Mapping[str, Any]) -> Found:
    labels = dict(row.get("Labels") or {})
    return Found(
        id=labels.get("ringfence.id", ""),
        native=str(row["Id"]),
        state=STATES.get(str(row.get("State", "")), State.EXITED),
        labels={
            name.removeprefix(LABEL_PREFIX): text
            for name, text in labels.items()
            if name.startswith(LABEL_PREFIX)
        },
        image=labels.get("ringfence.image") or row.get("Image"),
        created=float(row["Created"]) if row.get("Created") else None,
    )
