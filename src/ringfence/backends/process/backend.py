"""The backend of sandboxes that are processes of this machine."""

import asyncio
import errno
import functools
import os
import platform
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ringfence.backends import exhausted
from ringfence.backends.base import Bind, Features, Found, Record
from ringfence.backends.process import home as homes
from ringfence.backends.process import machine as machines
from ringfence.backends.process import memory
from ringfence.backends.process.creation import Creation
from ringfence.backends.process.home import Home
from ringfence.backends.process.instance import ProcessInstance
from ringfence.backends.process.keeper import Keeper, end, sweep
from ringfence.backends.process.known import Ground, known
from ringfence.backends.process.refusals import refuse
from ringfence.backends.sources import owner_of
from ringfence.errors import NotFoundError, ResourceExhaustedError, SandboxError
from ringfence.policy import seccomp
from ringfence.policy.facts import Facts
from ringfence.spec import SandboxSpec, Security, State

if TYPE_CHECKING:
    from ringfence.backends.process.images import Images


class ProcessBackend:
    """Makes sandboxes of processes, by a keeper each, which has bubblewrap (0.8 or newer) begin
    those that it cannot begin itself; no daemon, and no image unless one is named.

    As root without a user namespace, with commands dropped to their user; as an ordinary user in a
    user namespace, in which all are one user. endpoint: the directory for what must outlive this
    process, None for the state directory. One object serves any number of sandboxes; all objects
    of an event loop share what was learned of the machine, and how many sandboxes start at once.
    """

    name = "process"

    def __init__(self, endpoint: str | None = None) -> None:
        self._endpoint = endpoint
        self._seen: Ground | None = None

    async def features(self) -> Features:
        """What this machine can enforce. BackendUnavailableError with the remedy."""
        return self._ground().features

    async def info(self) -> Mapping[str, Any]:
        """What sandboxes are made with. BackendUnavailableError with the remedy.

        Bubblewrap: the path of it. KeeperBegins: whether a keeper begins without it what it can.
        """
        machine = self._ground().machine
        return {"Bubblewrap": machine.bwrap, "KeeperBegins": machine.begins}

    async def facts(self, spec: SandboxSpec) -> Facts:
        """What is known of image and machine. ImageNotFoundError, ImageError,
        BackendUnavailableError."""
        ground = self._same_ground()
        image = None
        if spec.image is not None:
            image = await _images(ground).look_up(spec.image)
        owner = None
        if spec.repository is not None:
            owner = owner_of(spec.repository.path)
        return Facts(
            memory=machines.memory(),
            cpus=float(len(os.sched_getaffinity(0))),
            nofile=machines.nofile(),
            ulimits=machines.ulimits(),
            image=None if image is None else image.facts,
            repository_uid=owner and owner[0],
            repository_gid=owner and owner[1],
        )

    async def create(
        self, spec: SandboxSpec, sandbox_id: str, facts: Facts, *, binds: Sequence[Bind] = ()
    ) -> ProcessInstance:
        """Namespaces with the guest as their first process, which comes up meanwhile.

        UnsupportedError for what cannot be enforced here, ResourceExhaustedError when the machine
        is full or the state directory was removed, AlreadyExistsError, ImageError.
        """
        try:
            return await self._create(spec, sandbox_id, facts, binds)
        except SandboxError:
            raise
        except OSError as error:
            what = exhausted.told(error) or self._removed(error)
            if what is None:
                raise
            raise ResourceExhaustedError(
                f"create: {what}",
                op="create",
                sandbox_id=sandbox_id,
                context={"errno": error.errno},
            ) from error

    def _removed(self, error: OSError) -> str | None:
        """Whether that is since the state directory is not there any more, in words: the next one
        makes it again."""
        ground = self._seen
        if ground is None or error.errno != errno.ENOENT or ground.directory.exists():
            return None
        known().forget(ground)
        self._seen = None
        return f"{ground.directory} was removed while it was in use: try again"

    async def _create(
        self, spec: SandboxSpec, sandbox_id: str, facts: Facts, binds: Sequence[Bind]
    ) -> ProcessInstance:
        ground = self._same_ground()
        refuse(spec, ground.machine)
        rootfs = None
        if spec.image is not None:
            rootfs = (await _images(ground).look_up(spec.image)).rootfs
        record = Record(
            id=sandbox_id,
            backend=self.name,
            endpoint=str(ground.directory.parent),
            native=sandbox_id,
            transport="socket",
            spec=spec,
            created=time.time(),
            ends=None if spec.lifetime is None else time.time() + spec.lifetime,
            image_digest=None if facts.image is None else facts.image.digest or None,
        )
        creation = Creation(ground, record, binds, rootfs, lambda: program(spec))
        starts = known().starts
        await starts.acquire()
        try:
            instance = await creation.run(starts.release)
        except BaseException:
            starts.release()
            raise
        instance.ends = known().ends
        return instance

    async def attach(self, record: Record) -> ProcessInstance:
        """The instance of an earlier create; NotFoundError when it is gone."""
        ground = self._ground()
        home = Home(ground.sandboxes() / record.id)
        keeper = Keeper.find(home)
        pid = home.guest()
        if keeper is None or pid is None:
            if keeper is not None:
                keeper.close()
            raise NotFoundError(
                f"there is no sandbox {record.id} in {ground.directory}: it ended",
                op="attach",
                sandbox_id=record.id,
            )
        cgroup = ground.cgroup(record.id)
        instance = ProcessInstance(
            record, home, keeper, cgroup, pid=pid, program=program(record.spec)
        )
        instance.ends = known().ends
        return instance

    async def found(self, labels: Mapping[str, str]) -> Sequence[Found]:
        """All sandboxes below this endpoint that carry these labels."""
        ground = self._ground()
        found = []
        for home in homes.homes(ground.sandboxes()):
            facts = home.facts()
            if facts is None or not labels.items() <= facts["labels"].items():
                continue
            found.append(
                Found(
                    home.id,
                    home.id,
                    _state(ground, home),
                    facts["labels"],
                    facts["image"],
                    facts["created"],
                )
            )
        return found

    async def discard(self, sandbox_id: str) -> None:
        """Remove what a client left that died while it made this sandbox. Idempotent.

        ResourceExhaustedError as from `ProcessInstance.delete`.
        """
        ground = self._ground()
        home = Home(ground.sandboxes() / sandbox_id)
        keeper = Keeper.find(home)
        if keeper is None:
            await asyncio.to_thread(sweep, home, ground.cgroup(sandbox_id))
        else:  # its guest is not up, and the greeting waits for it
            try:
                await end(keeper, home, ground.cgroup(sandbox_id))
            finally:
                keeper.close()

    async def aclose(self) -> None:
        """Nothing is open between calls; the last one to leave takes the place along."""
        if self._seen is not None:
            memory.leave(self._seen.sandboxes())

    def _ground(self) -> Ground:
        self._seen = known().ground(self._endpoint)
        return self._seen

    def _same_ground(self) -> Ground:
        """That of the step before, unless it was long ago."""
        if self._seen is not None and self._seen.fresh:
            return self._seen
        return self._ground()


def _state(ground: Ground, home: Home) -> State:
    if home.keeper() is None:
        return State.EXITED
    cgroup = ground.cgroup(home.id)
    return State.PAUSED if cgroup is not None and cgroup.frozen() else State.RUNNING


def _images(ground: Ground) -> "Images":
    from ringfence.backends.process.images import Images

    return Images(ground.directory / "images", ground.machine)


def program(spec: SandboxSpec) -> bytes:
    """The granted seccomp profile, compiled for the guest to install in each command."""
    security = spec.security
    if security.seccomp is not None and "/" in security.seccomp:
        arch = platform.machine()
        return seccomp.bpf(seccomp.granted(security, spec.profile, arch), arch)
    return _compiled(spec.profile, security.seccomp, security.seccomp_allow)


@functools.cache
def _compiled(profile: str, chosen: str | None, allowed: tuple[str, ...]) -> bytes:
    arch = platform.machine()
    security = Security(seccomp=chosen, seccomp_allow=allowed)
    return seccomp.bpf(seccomp.granted(security, profile, arch), arch)
