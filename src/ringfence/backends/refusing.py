"""The errors that name what cannot be enforced or given, why, and what can be done about it."""

from collections.abc import Iterable
from pathlib import Path

from ringfence.errors import PolicyDeniedError, UnsupportedError
from ringfence.spec import SandboxSpec

_DEVICES = "/dev"
_LIMITS = frozenset({"memory", "swap", "cpus", "cpuset", "cpu_shares", "pids", "disk", "read_rate",
                     "write_rate"})  # fmt: skip
"""What a machine may lack: one can do without where one says so."""


def refuse_what(who: str, spec: SandboxSpec, problems: Iterable[tuple[str, str]]) -> None:
    """UnsupportedError for the controls of `problems`, pairs of a name and why `who` does not have
    it, but for those in the spec's `allow_degraded`; nothing when none is left."""
    allowed = spec.security.allow_degraded
    reasons: dict[str, list[str]] = {}
    for name, why in problems:
        if name not in allowed:
            reasons.setdefault(why, []).append(name)
    if not reasons:
        return
    controls = [name for names in reasons.values() for name in names]
    text = "; ".join(f"{', '.join(names)}: {why}" for why, names in reasons.items())
    if without := [name for name in controls if name in _LIMITS]:
        text += f"; to do without: --allow-degraded {','.join(without)} (security.allow_degraded)"
    raise UnsupportedError(
        f"create: {who} cannot enforce {text}", op="create", context={"controls": controls}
    )


def refuse_disks(spec: SandboxSpec) -> None:
    """PolicyDeniedError for a disk among the spec's devices, or what is no device: by what is there
    on this machine, since it may have any name, and be found over a link or in a directory."""
    for device in spec.security.devices:
        place = Path(device).resolve()
        if not place.is_relative_to(_DEVICES) or place.is_file() or place.is_socket():
            what = "is no device"
        elif any(path.is_block_device() for path in (place, *place.rglob("*"))):
            what = "is a disk, or has one, which would open the host"
        else:
            continue
        raise PolicyDeniedError(
            f"security.devices: {device} {what}",
            op="create",
            context={"fields": ["security.devices"]},
        )
