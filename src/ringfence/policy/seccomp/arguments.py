"""Rules by argument: which calls of a syscall a profile allows, and why not the others.

Every comparison is of the bits that the kernel looks at: the registers have 64 bits and the kernel
cuts most arguments down to 32, so a plain comparison is passed by with a bit above them. What is
dangerous is never listed as refused beside an unconditional permission, which would win: the
permissions themselves are conditional.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from ringfence.policy.seccomp.groups import PERMISSIVE, STRICT

_INT = 0xFFFFFFFF
_NAMESPACES = 0x7E020000
_SET_ID = 0o6000
_FORMAT = 0o170000
_CREATES = 0o100 | 0o20000000
_PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, _INT)
_TIOCSTI, _TIOCLINUX, _TIOCSETD = 0x5412, 0x541C, 0x5423
_SOL_SOCKET, _ATTACH_FILTER, _ATTACH_REUSEPORT = 1, 26, 51
_F_SETSIG, _SIGKILL, _SIGSTOP = 10, 9, 19
_UNIX, _INET, _INET6, _NETLINK = 1, 2, 10, 16
_ROUTE, _SOCKETS, _AUDIT, _GENERIC = 0, 4, 9, 16
_STREAM, _DGRAM, _SEQPACKET = 1, 2, 5
_TYPE = 0xF


@dataclass(frozen=True, slots=True)
class Condition:
    """`(argument & mask) == value`."""

    index: int
    mask: int
    value: int


Conditions = tuple[Condition, ...]
"""All of them must hold."""


def rules(profile: str) -> dict[str, tuple[Conditions, ...]]:
    """Per syscall the calls that are allowed: any one of its alternatives."""
    found: dict[str, tuple[Conditions, ...]] = {
        "clone": ((Condition(0, _NAMESPACES, 0),),),
        "personality": tuple((Condition(0, _INT, value),) for value in _PERSONALITIES),
        "socket": _strict_sockets() if profile == STRICT else _sockets(),
        "socketpair": ((Condition(0, _INT, _UNIX),),),
        "setsockopt": _socket_options(),
        "ioctl": tuple(
            (Condition(1, mask, value),)
            for mask, value in others({_TIOCSTI, _TIOCLINUX, _TIOCSETD}, 16)
        ),
        "mknod": _nodes(1, profile),
        "mknodat": _nodes(2, profile),
    }
    if profile == PERMISSIVE:
        found["fcntl"] = _descriptor_signals()
    else:
        found |= _no_set_id()
    return found


REASONS = {
    "clone": "no new namespaces",
    "personality": "Linux's own, without switching off address randomisation",
    "socket": "Unix, IPv4, IPv6 and netlink of routes (beside strict also of sockets, audit and the"
    " generic kind) only: no AF_VSOCK, which no network namespace contains, no AF_ALG, no packet or"
    " exotic families, no netlink of the host's device events, which every network namespace hears",
    "socketpair": "Unix only",
    "setsockopt": "not SO_ATTACH_FILTER and SO_ATTACH_REUSEPORT_CBPF: what the kernel compiles of"
    " them counts for all of the host (net.core.bpf_jit_limit)",
    "ioctl": "not TIOCSTI, TIOCLINUX and TIOCSETD, which type into or reprogram a terminal",
    "fcntl": "not F_SETSIG with SIGKILL or SIGSTOP: for root the kernel sends these to any process",
    "mknod": "regular files, FIFOs and sockets only: no devices",
    "mknodat": "as mknod",
    "chmod": "no set-user-id and set-group-id bits: they would be left on bound directories",
    "fchmod": "as chmod",
    "fchmodat": "as chmod",
    "creat": "as chmod",
    "open": "as chmod, when it creates",
    "openat": "as chmod, when it creates",
}
"""Per syscall, what its conditions keep out."""


def _strict_sockets() -> tuple[Conditions, ...]:
    kinds = [(_UNIX, kind) for kind in (_STREAM, _DGRAM, _SEQPACKET)]
    kinds += [(family, kind) for family in (_INET, _INET6) for kind in (_STREAM, _DGRAM)]
    plain = tuple((Condition(0, _INT, family), Condition(1, _TYPE, kind)) for family, kind in kinds)
    return (*plain, (Condition(0, _INT, _NETLINK), Condition(2, _INT, 0)))


def _sockets() -> tuple[Conditions, ...]:
    plain = tuple((Condition(0, _INT, family),) for family in (_UNIX, _INET, _INET6))
    kinds = (_ROUTE, _SOCKETS, _AUDIT, _GENERIC)
    netlink = tuple((Condition(0, _INT, _NETLINK), Condition(2, _INT, kind)) for kind in kinds)
    return (*plain, *netlink)


def _socket_options() -> tuple[Conditions, ...]:
    elsewhere = tuple((Condition(1, mask, value),) for mask, value in others({_SOL_SOCKET}, 16))
    here = Condition(1, 0xFFFF, _SOL_SOCKET)
    options = others({_ATTACH_FILTER, _ATTACH_REUSEPORT}, 16)
    return (*elsewhere, *((here, Condition(2, mask, value)) for mask, value in options))


def _nodes(index: int, profile: str) -> tuple[Conditions, ...]:
    mask = _FORMAT if profile == PERMISSIVE else _FORMAT | _SET_ID
    return tuple((Condition(index, mask, kind),) for kind in (0, 0o100000, 0o010000, 0o140000))


def _descriptor_signals() -> tuple[Conditions, ...]:
    plain = tuple((Condition(1, mask, value),) for mask, value in others({_F_SETSIG}, 16))
    sets_signal = Condition(1, 0xFFFF, _F_SETSIG)
    signals = others({_SIGKILL, _SIGSTOP}, 8)
    return (*plain, *((sets_signal, Condition(2, mask, value)) for mask, value in signals))


def _no_set_id() -> dict[str, tuple[Conditions, ...]]:
    def without(index: int) -> Conditions:
        return (Condition(index, _SET_ID, 0),)

    return {
        "chmod": (without(1),),
        "fchmod": (without(1),),
        "fchmodat": (without(2),),
        "creat": (without(1),),
        "open": ((Condition(1, _CREATES, 0),), without(2)),
        "openat": ((Condition(2, _CREATES, 0),), without(3)),
    }


def others(values: Iterable[int], bits: int) -> list[tuple[int, int]]:
    """(mask, value) pairs that together match every number of `bits` bits but `values`."""
    return _others(frozenset(values), bits, 0, 0)


def _others(values: frozenset[int], bits: int, mask: int, prefix: int) -> list[tuple[int, int]]:
    inside = frozenset(value for value in values if value & mask == prefix)
    if not inside:
        return [(mask, prefix)]
    if bits == 0:
        return []
    bit = 1 << (bits - 1)
    return _others(inside, bits - 1, mask | bit, prefix) + _others(
        inside, bits - 1, mask | bit, prefix | bit
    )
