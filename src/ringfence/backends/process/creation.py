"""One start of a sandbox: from its record to an instance whose guest comes up."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ringfence.backends.base import Bind, Record
from ringfence.backends.cgroup_files import block_devices
from ringfence.backends.cgroups import Cgroup, Plan
from ringfence.backends.process import command, root, trial
from ringfence.backends.process import memory as memories
from ringfence.backends.process.etc import User
from ringfence.backends.process.home import Home, maker
from ringfence.backends.process.instance import ProcessInstance
from ringfence.backends.process.keeper import Keeper, apart, end
from ringfence.backends.process.known import Ground, known
from ringfence.backends.process.place import Place
from ringfence.backends.process.starting import Start
from ringfence.errors import InvalidSpecError
from ringfence.spec import SandboxSpec

_ORDINARY = 1000


def user_of(spec: SandboxSpec) -> User:
    """The user of commands, as the sandbox's own /etc/passwd shall have it.

    Without an image there are root, user and nobody; InvalidSpecError for another name.
    """
    name, _, group = (spec.user or str(_ORDINARY)).partition(":")
    named = {"root": 0, "user": _ORDINARY, "nobody": 65534, "nogroup": 65534}
    try:
        uid = int(name) if name.isdecimal() else named[name]
        gid = uid if not group else int(group) if group.isdecimal() else named[group]
    except KeyError as error:
        if spec.image is not None:
            return User(_ORDINARY, _ORDINARY)
        raise InvalidSpecError(
            f"user: there is no {error.args[0]!r} in a sandbox without an image: root, user,"
            " nobody or a number",
            op="create",
            context={"fields": ["user"]},
        ) from None
    return User(uid, gid)


@dataclass(frozen=True, slots=True)
class Creation:
    """All that one start needs. rootfs: an unpacked image, None for the host's own system. program:
    gives the compiled seccomp profile."""

    ground: Ground
    record: Record
    binds: Sequence[Bind]
    rootfs: Path | None
    program: Callable[[], bytes]

    async def run(self, over: Callable[[], None]) -> ProcessInstance:
        """Start it, with the stream on which its guest will answer. What raises leaves nothing
        behind. over: called once, when the guest has answered or the sandbox is to end."""
        home = Home(Path(f"{self.ground.directory}/sandboxes/{self.record.id}"))
        spec = self.record.spec
        user = user_of(spec)
        entries, selected = self._root(user)
        sources = {bind.destination: bind.source for bind in self.binds}
        root.check_places(entries, spec.security.tmpfs, sources)
        plan, cgroup = self._plan()
        linked = self._made(home, selected)
        keeper: Keeper | None = None
        stream: socket.socket | None = None
        try:
            place = Place(
                home,
                self.ground.machine,
                entries,
                user,
                plan,
                self.binds,
                "" if cgroup is None else cgroup.counter,
                linked,
                memories.target(home.path.parent),
            )
            keeper, stream = _spawned(spec, place)
            program = self.program()
        except BaseException:
            if stream is not None:
                stream.close()
            await _give_up(keeper, home, cgroup)
            raise
        return ProcessInstance(
            self.record,
            home,
            keeper,
            cgroup,
            program=program,
            start=Start(stream, over, self._doubt),
            user=(user.uid, user.gid) if self.rootfs is None else None,
        )

    def _made(self, home: Home, selected: str) -> bool:
        """As `Home.make`, with what is written down there. selected: the /etc that it has."""
        spec = self.record.spec
        return home.make(
            {
                "labels": dict(spec.labels),
                "image": spec.image,
                "created": self.record.created,
                "etc": selected,
                "rootfs": "" if self.rootfs is None else self.rootfs.name,
                "maker": maker(),
            },
            self.ground.machine.guest,
        )

    def _doubt(self) -> None:
        """Have the next sandbox find out anew what a keeper may do here."""
        trial.forget()
        known().forget(self.ground)

    def _root(self, user: User) -> tuple[list[root.Entry], str]:
        if self.rootfs is not None:
            return root.image(self.rootfs), ""
        return self.ground.system(user)

    def _plan(self) -> tuple[Plan, Cgroup | None]:
        tree, limits = self.ground.machine.tree, self.record.spec.limits
        if not tree.version:
            return Plan(), None
        devices: Sequence[str] = ()
        if limits.read_rate is not None or limits.write_rate is not None:
            shown = ["/usr", str(self.ground.directory), *(bind.source for bind in self.binds)]
            devices = block_devices(shown)
        return tree.plan(self.record.id, limits, devices), tree.cgroup(self.record.id, limits)


def _spawned(spec: SandboxSpec, place: Place) -> tuple[Keeper, socket.socket]:
    """A sandbox's keeper, and our end of the stream to the guest that it starts. OSError."""
    ours, far = socket.socketpair()
    try:
        theirs = apart(far.detach())
        try:
            args = command.keeper(spec, place, begins=command.begins(spec, place))
            passed = {command.STREAM: theirs}
            keeper = Keeper.spawn(args, attached=not spec.detached, passed=passed)
        finally:
            os.close(theirs)
    except BaseException:
        ours.close()
        raise
    return keeper, ours


async def _give_up(keeper: Keeper | None, home: Home, cgroup: Cgroup | None) -> None:
    """Remove everything, whatever is cancelled meanwhile."""
    if keeper is None:
        home.remove()
        return
    ending = asyncio.ensure_future(end(keeper, home, cgroup))
    while not ending.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(ending)
    ending.result()
