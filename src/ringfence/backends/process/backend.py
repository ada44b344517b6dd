"""The backend of sandboxes that are processes of this machine."""

import asyncio
import errno
import functools
import os
import platform
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from ringfence.backends.base import Bind, Features, Found, Record
from ringfence.backends.cgroups import Cgroup
from ringfence.backends.process import home as homes
from ringfence.backends.process import machine as machines
from ringfence.backends.process import memory
from ringfence.backends.process.creation import Creation
from ringfence.backends.process.etc import prune
from ringfence.backends.process.home import Home
from ringfence.backends.process.images import Images
from ringfence.backends.process.instance import ProcessInstance, sweep
from ringfence.backends.process.keeper import Keeper
from ringfence.backends.process.machine import Machine
from ringfence.backends.process.refusals import ALWAYS, refuse
from ringfence.backends.sources import owner_of
from ringfence.backends.state import state_directory
from ringfence.errors import NotFoundError, ResourceExhaustedError, SandboxError
from ringfence.guest import build
from ringfence.policy import seccomp
from ringfence.policy.facts import Facts
from ringfence.spec import SandboxSpec, Security, State

_AT_ONCE = 32
"""Starts, and ends. More would not be faster, and each would take longer than it is given."""
_SWEEP_SECONDS = 60.0
_FULL = (errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.ENOMEM, errno.EAGAIN, errno.EDQUOT)


class ProcessBackend:
    """Makes sandboxes with bubblewrap 0.8 or newer; no daemon, and no image unless one is named.

    As root without a user namespace, with commands dropped to their user; as an ordinary user in a
    user namespace, in which all are one user. endpoint: the directory for what must outlive this
    process, None for the state directory. One object serves one event loop and any number of
    sandboxes; what it learned of the machine, it keeps.
    """

    name = "process"

    def __init__(self, endpoint: str | None = None) -> None:
        self._endpoint = endpoint
        self._root: Path | None = None
        self._machine: Machine | None = None
        self._looking = asyncio.Lock()
        self._starts = asyncio.Semaphore(_AT_ONCE)
        self._ends = asyncio.Semaphore(_AT_ONCE)

    async def features(self) -> Features:
        """What this machine can enforce. BackendUnavailableError with the remedy."""
        machine = await self._look()
        return Features(
            limits=ALWAYS | machine.tree.limits,
            transports=("socket",),
            family_kill="exec",
            pty=True,
            detached=True,
            users=machine.privileged,
            mounts=True,
            networks=frozenset({"none", "proxy"}),
            pause=machine.tree.freezes,
            receipt=True,
            usage=machine.tree.version > 0,
            lifeline=True,
            exec_cgroups=machine.tree.version == 1,
        )

    async def facts(self, spec: SandboxSpec) -> Facts:
        """What is known of image and machine. ImageNotFoundError, ImageError,
        BackendUnavailableError."""
        await self._look()
        image = None
        if spec.image is not None:
            image = await self._images().look_up(spec.image)
        owner = None
        if spec.repository is not None:
            owner = owner_of(spec.repository.path)
        return Facts(
            memory=machines.memory(),
            cpus=float(len(os.sched_getaffinity(0))),
            nofile=machines.nofile(),
            image=None if image is None else image.facts,
            repository_uid=owner and owner[0],
            repository_gid=owner and owner[1],
        )

    async def create(
        self, spec: SandboxSpec, sandbox_id: str, facts: Facts, *, binds: Sequence[Bind] = ()
    ) -> ProcessInstance:
        """Namespaces with the guest as their first process, and the connection it dialled.

        UnsupportedError for what cannot be enforced here, ResourceExhaustedError when the machine
        is full, AlreadyExistsError, ImageError.
        """
        machine = await self._look()
        refuse(spec, machine)
        rootfs = None
        if spec.image is not None:
            rootfs = (await self._images().look_up(spec.image)).rootfs
        record = Record(
            id=sandbox_id,
            backend=self.name,
            endpoint=str(self._directory().parent),
            native=sandbox_id,
            transport="socket",
            spec=spec,
            created=time.time(),
            ends=None if spec.lifetime is None else time.time() + spec.lifetime,
            image_digest=None if facts.image is None else facts.image.digest or None,
        )
        creation = Creation(
            machine, self._directory(), record, binds, rootfs, lambda: program(spec)
        )
        try:
            async with self._starts:
                instance = await creation.run()
        except OSError as error:
            if error.errno not in _FULL or isinstance(error, SandboxError):
                raise
            raise ResourceExhaustedError(
                f"create: the machine is full: {error.strerror}; try again later",
                op="create",
                sandbox_id=sandbox_id,
                context={"errno": error.errno},
            ) from error
        instance.ends = self._ends
        return instance

    async def attach(self, record: Record) -> ProcessInstance:
        """The instance of an earlier create; NotFoundError when it is gone."""
        machine = await self._look()
        home = self._home(record.id)
        keeper = Keeper.find(home)
        pid = home.guest()
        if keeper is None or pid is None:
            if keeper is not None:
                keeper.close()
            raise NotFoundError(
                f"there is no sandbox {record.id} in {self._directory()}: it ended",
                op="attach",
                sandbox_id=record.id,
            )
        cgroup = self._cgroup(machine, record.id)
        instance = ProcessInstance(
            record, home, keeper, cgroup, pid=pid, program=program(record.spec)
        )
        instance.ends = self._ends
        return instance

    async def found(self, labels: Mapping[str, str]) -> Sequence[Found]:
        """All sandboxes below this endpoint that carry these labels."""
        machine = await self._look()
        found = []
        for home in homes.homes(self._sandboxes()):
            facts = home.facts()
            if facts is None or not labels.items() <= facts["labels"].items():
                continue
            found.append(
                Found(
                    home.id,
                    home.id,
                    self._state(machine, home),
                    facts["labels"],
                    facts["image"],
                    facts["created"],
                )
            )
        return found

    async def aclose(self) -> None:
        """Nothing is open between calls; the last one to leave takes the place along."""
        if self._root is not None:
            memory.leave(self._sandboxes())

    def _state(self, machine: Machine, home: Home) -> State:
        if home.keeper() is None:
            return State.EXITED
        cgroup = self._cgroup(machine, home.id)
        return State.PAUSED if cgroup is not None and cgroup.frozen() else State.RUNNING

    def _directory(self) -> Path:
        if self._root is None:
            base = state_directory() if self._endpoint is None else Path(self._endpoint)
            root = base / "process"
            root.mkdir(mode=0o711, parents=True, exist_ok=True)
            memory.ready(root / "sandboxes")
            self._root = root
        return self._root

    def _sandboxes(self) -> Path:
        root = self._directory() / "sandboxes"
        memory.ours(root)
        return root

    def _home(self, sandbox_id: str) -> Home:
        return Home(self._sandboxes() / sandbox_id)

    def _cgroup(self, machine: Machine, sandbox_id: str) -> Cgroup | None:
        if not machine.tree.version:
            return None
        whole = machine.tree.cgroup(sandbox_id)
        there = {name: path for name, path in whole.directories.items() if Path(path).is_dir()}
        return Cgroup(machine.tree, there) if there else None

    def _images(self) -> Images:
        machine = self._machine
        assert machine is not None  # noqa: S101 - the callers have looked
        return Images(self._directory() / "images", machine)

    async def _look(self) -> Machine:
        async with self._looking:
            if self._machine is None:
                self._machine = machines.look(self._guest())
                self._sweep(self._machine)
            return self._machine

    def _guest(self) -> Path:
        """The guest's program, copied to where sandboxes can have links to it if it can be read."""
        source = build.target()
        try:
            status = source.stat()
            copy = self._directory() / f"guest-{status.st_mtime_ns:x}-{status.st_size:x}"
            if not copy.exists():
                new = copy.with_name(f".{copy.name}.{os.getpid()}")
                try:
                    shutil.copy(source, new)
                    new.chmod(build.MODE)  # installers make programs readable
                    new.rename(copy)
                except BaseException:
                    new.unlink(missing_ok=True)
                    raise
        except (FileNotFoundError, PermissionError):
            return source
        return copy

    def _sweep(self, machine: Machine) -> None:
        """Remove what keepers that were killed left behind, and what no sandbox uses any more.

        Once a minute is enough, whoever does it.
        """
        note = self._directory() / "swept"
        try:
            if time.time() - note.stat().st_mtime < _SWEEP_SECONDS:
                return
        except FileNotFoundError:
            pass
        note.touch()
        for home in homes.abandoned(self._sandboxes()):
            sweep(home, self._cgroup(machine, home.id))
        there = (home.facts() for home in homes.homes(self._sandboxes()))
        prune(self._directory() / "etc", [facts.get("etc", "") for facts in there if facts])


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
