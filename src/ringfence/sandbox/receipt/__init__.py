"""The receipt: what is really enforced, read back from kernel and runtime after the start.

`receipt` is pure: evidence in, rows out. No value of a row's `enforced` comes from the spec.
`read` gathers the evidence of a running sandbox, before its first command.
"""

import asyncio
import errno
import functools
import os
from collections.abc import Mapping
from typing import Any

from ringfence.backends import exhausted
from ringfence.backends.base import Features, Instance
from ringfence.backends.namespaces import own_namespaces
from ringfence.backends.sized import is_watched
from ringfence.errors import PolicyDeniedError, ResourceExhaustedError, SandboxLostError
from ringfence.guest.control import User
from ringfence.guest.request import ExecRequest, Exit, NotStarted, pack_env
from ringfence.guest.session import Session
from ringfence.policy import seccomp
from ringfence.sandbox.commands import Command, Setting, prepare, rlimits
from ringfence.sandbox.receipt.evidence import Findings, keep_nothing_long
from ringfence.sandbox.receipt.identity import identity_rows
from ringfence.sandbox.receipt.places import place_rows, sysctl_path
from ringfence.sandbox.receipt.resources import resource_rows
from ringfence.sandbox.receipt.view import GuestView, MountLine, PathView, parse_view, show_args
from ringfence.spec import Limits, Reason, Receipt, SandboxSpec, Security

__all__ = ["Findings", "GuestView", "MountLine", "PathView", "check", "read", "receipt"]

_SECONDS = 20.0
_TMPFS = ("/tmp", "/run", "/dev/shm")  # noqa: S108 - names inside the sandbox
_RUN_OUT = (errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM)


def receipt(found: Findings) -> Receipt:
    """The rows of all controls."""
    rows = (*identity_rows(found), *resource_rows(found), *place_rows(found))
    keep_nothing_long(found.view)
    return Receipt(tuple(rows))


def check(made: Receipt, spec: SandboxSpec) -> Receipt:
    """`made`, unless a control is missing that `security.allow_degraded` does not name.

    PolicyDeniedError lists every gap at once.
    """
    allowed = set(spec.security.allow_degraded)
    if "memory" in allowed:
        allowed.add("swap")  # what there is on top of a limit that is done without
    gaps = [
        row
        for row in made.gaps
        if row.name not in allowed and row.name.split(" ")[0] not in allowed
    ]
    if not gaps:
        return made
    raise PolicyDeniedError(
        "not enforced: "
        + "; ".join(
            f"{row.name}: asked for {row.requested}, found {row.enforced} ({row.evidence})"
            for row in gaps
        ),
        op="receipt",
        context={"controls": [row.name for row in gaps]},
    )


async def read(
    spec: SandboxSpec,
    features: Features,
    instance: Instance,
    session: Session,
    user: User,
    *,
    arch: str,
    ahead: "asyncio.Future[Exit | NotStarted] | None" = None,
) -> Receipt:
    """The receipt of a running sandbox, not yet checked.

    user: the default one, as commands have it; what the spec names where users can be chosen. arch:
    of the image, for the seccomp profile. ahead: the end of `viewing` for that user, where it was
    begun already. Raises PolicyDeniedError when nothing can be run in it or what shows the view did
    not end well, GuestError for a view that makes no sense. Cancellation ends the one command that
    it runs.
    """
    showing = ahead or asyncio.ensure_future(session.run(viewing(spec, user)))
    try:
        outside = await instance.evidence()
        view = _seen(await showing, spec)
    finally:
        if not showing.done():
            showing.cancel()
            await asyncio.wait([showing])
    found = Findings(
        spec=spec if features.users else spec.model_copy(update={"user": str(user.uid)}),
        outside=outside,
        view=view,
        here=outside.here or own_namespaces(),
        profile=_profile(spec, arch),
        reserved_uid=session.hello.reserved_uid,
        disk_watched=is_watched(spec, features),
    )
    return receipt(found)


def viewing(spec: SandboxSpec, user: User) -> ExecRequest:
    """What shows a command's own view: the guest's `--show`, run exactly as commands are run."""
    security = spec.security
    paths = (*(security.masked_paths or ()), *(security.read_only_paths or ()), *security.devices)
    paths = (*paths, *_TMPFS, *security.tmpfs)
    if spec.limits.disk is not None and spec.repository is not None:
        paths = (*paths, spec.repository.mount_point)
    return _viewing(paths, tuple(security.sysctls), user, spec.limits, security.groups)


@functools.lru_cache(maxsize=64)
def _viewing(
    paths: tuple[str, ...],
    sysctls: tuple[str, ...],
    user: User,
    limits: Limits,
    groups: tuple[int, ...],
) -> ExecRequest:
    args = show_args(list(dict.fromkeys(paths)), [sysctl_path(name) for name in sysctls])
    setting = Setting(pack_env({}), "/", user, limits, rlimits(limits.ulimits), groups)
    return prepare(Command(args=args, timeout=_SECONDS, output=2**20), setting).request


def _seen(ended: Exit | NotStarted, spec: SandboxSpec) -> GuestView:
    if not isinstance(ended, Exit):
        if ended.errno in _RUN_OUT:
            raise _run_out(ended)
        why = ended.detail or os.strerror(ended.errno)
        if ended.errno == errno.EPERM:
            why = "a ulimit is above the hard one there, or the user may not be had"
        raise PolicyDeniedError(
            f"receipt: nothing can be run as {spec.user}: {why}",
            op="receipt",
            context={"errno": ended.errno, "stage": ended.stage},
        )
    if ended.status is None or ended.reason is Reason.CPU_TIME:
        raise SandboxLostError("receipt: the sandbox ended at once", op="receipt")
    if ended.reason is Reason.TIMEOUT:
        raise ResourceExhaustedError(
            f"receipt: what shows a command's confinement took more than {_SECONDS:g} s: the"
            " machine has too much to do; try again later, or open fewer at a time",
            op="receipt",
            context={"seconds": _SECONDS},
        )
    how = _disturbed(ended)
    if how is not None:
        raise PolicyDeniedError(
            f"receipt: nothing is known of a command's confinement: what shows it {how}",
            op="receipt",
            context={"reason": ended.reason, "status": ended.status},
        )
    return parse_view(ended.stdout)


def _run_out(ended: NotStarted) -> ResourceExhaustedError:
    short = exhausted.told(OSError(ended.errno, os.strerror(ended.errno)))
    return ResourceExhaustedError(
        f"receipt: no command can be started in it: {short}",
        op="receipt",
        context={"errno": ended.errno, "stage": ended.stage},
    )


def _disturbed(ended: Exit) -> str | None:
    """Why not all was shown: what is missing then says nothing. None when all was."""
    if ended.reason not in (Reason.EXITED, Reason.SIGNALED):
        return f"was ended: {ended.reason}"
    if ended.signal is not None:
        return f"was ended by signal {ended.signal}"
    if ended.exit_code:
        return f"ended with exit code {ended.exit_code}"
    if ended.stdout_total != len(ended.stdout):
        return "had more output than is kept"
    return None


def _profile(spec: SandboxSpec, arch: str) -> Mapping[str, Any]:
    security = spec.security
    if security.seccomp is not None and "/" in security.seccomp:
        return seccomp.granted(security, spec.profile, arch)
    return _builtin(spec.profile, security.seccomp, security.seccomp_allow, arch)


@functools.lru_cache(maxsize=16)
def _builtin(
    profile: str, chosen: str | None, allowed: tuple[str, ...], arch: str
) -> Mapping[str, Any]:
    return seccomp.granted(Security(seccomp=chosen, seccomp_allow=allowed), profile, arch)
