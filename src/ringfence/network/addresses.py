"""Which addresses a sandbox may never reach, whatever name led there.

The lists follow the IANA special-purpose address registries (RFC 6890 and its updates). The
documentation blocks are not in them: nothing answers there, except in tests.
"""

import ipaddress
import socket
import struct

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
    "a cloud's own": ("168.63.129.16/32",),
}
_NETWORKS = [
    (ipaddress.ip_network(network), reason)
    for reason, networks in _DENIED.items()
    for network in networks
]
_TRANSLATED = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("::ffff:0:0:0/96"))
"""IPv4 in the last 32 bits (RFC 6052, RFC 2765)."""
_RTM_NEWROUTE, _RTM_GETROUTE, _NLM_F_REQUEST, _RTA_DST = 24, 26, 1, 1
_OWN_ROUTES = frozenset({2, 4})
"""RTN_LOCAL, RTN_ANYCAST."""
_ANSWER_BYTES = 8192


def denied(address: Address) -> str | None:
    """Why a sandbox may not reach `address`; None when it may. IPv4 inside IPv6 counts as IPv4.
    OSError when the kernel cannot be asked."""
    inner = _inner(address)
    if inner is not None:
        return denied(inner)
    for network, reason in _NETWORKS:
        if address.version == network.version and address in network:
            return reason
    return "this host's own" if _is_own(address) else None


def _inner(address: Address) -> Address | None:
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    v4_compatible = int(address) >> 32 == 0 and int(address) > 1
    if v4_compatible or any(address in network for network in _TRANSLATED):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return None


def _is_own(address: Address) -> bool:
    """Whether the kernel takes `address` for this host's, by its routes as they are now: those of
    interfaces, and what a route of type local makes the host's own."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    name = address.packed
    asked = struct.pack("=8BI", family, len(name) * 8, 0, 0, 0, 0, 0, 0, 0)
    asked += struct.pack("=HH", 4 + len(name), _RTA_DST) + name
    head = struct.pack("=IHHII", 16 + len(asked), _RTM_GETROUTE, _NLM_F_REQUEST, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel:
        kernel.sendto(head + asked, (0, 0))
        answer = kernel.recv(_ANSWER_BYTES)
    (kind,) = struct.unpack_from("=H", answer, 4)
    return kind == _RTM_NEWROUTE and answer[16 + 7] in _OWN_ROUTES


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
