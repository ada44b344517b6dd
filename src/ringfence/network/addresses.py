"""Which addresses a sandbox may never reach, whatever name led there.

The lists follow the IANA special-purpose address registries (RFC 6890 and its updates). The
documentation blocks are not in them: nothing answers there, except in tests.
"""

import ipaddress
import itertools
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_DENIED = {
    "this network": ("0.0.0.0/8", "::/128"),
    "private": ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "fec0::/10"),
    "shared by a carrier": ("100.64.0.0/10",),
    "loopback": ("127.0.0.0/8", "::1/128"),
    "link-local": ("169.254.0.0/16", "fe80::/10"),
    "for protocols": ("192.0.0.0/24", "192.88.99.0/24", "64:ff9b:1::/48", "100::/64", "5f00::/16"),
    "for benchmarks": ("198.18.0.0/15", "2001:2::/48"),
    "multicast": ("224.0.0.0/4", "ff00::/8"),
    "reserved": ("240.0.0.0/4",),
    "a tunnel": ("2001::/32",),
}
_NETWORKS = [
    (ipaddress.ip_network(network), reason)
    for reason, networks in _DENIED.items()
    for network in networks
]
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def denied(address: Address) -> str | None:
    """Why a sandbox may not reach `address`; None when it may. IPv4 inside IPv6 counts as IPv4."""
    inner = _inner(address)
    if inner is not None:
        return denied(inner)
    for network, reason in _NETWORKS:
        if address.version == network.version and address in network:
            return reason
    return "this host's own" if address in own_addresses() else None


def _inner(address: Address) -> Address | None:
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address in _NAT64 or (int(address) >> 32 == 0 and int(address) > 1):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return None


def own_addresses() -> frozenset[Address]:
    """All addresses of this host's interfaces, read now: they may change while we run."""
    return frozenset((*_own_v4(), *_own_v6()))


def _own_v4() -> Iterator[Address]:
    """Local routes of the kernel's table: `/32 host LOCAL` follows the address's own line."""
    try:
        lines = Path("/proc/net/fib_trie").read_text().splitlines()
    except OSError:
        return
    for line, after in itertools.pairwise(lines):
        if after.strip().startswith("/32 host LOCAL"):
            yield ipaddress.IPv4Address(line.strip().removeprefix("|-- "))


def _own_v6() -> Iterator[Address]:
    try:
        lines = Path("/proc/net/if_inet6").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        yield ipaddress.IPv6Address(bytes.fromhex(line.split()[0]))


def literal(host: str) -> bool:
    """Whether a host is an address in any spelling that some resolver takes for one: dotted,
    decimal, octal, hexadecimal, shortened, bracketed IPv6."""
    text = host.strip("[]").rstrip(".")
    try:
        ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        pass
    else:
        return True
    try:
        socket.inet_aton(text)
    except (OSError, ValueError, struct.error):
        return False
    return True
