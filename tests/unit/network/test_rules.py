"""What may be reached is exactly what a rule names, however it is spelled."""

import ipaddress
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.network.addresses import denied, literal
from ringfence.network.rules import Refused, canonical, match
from ringfence.spec.network import Rule
from tests.conftest import missing

RULES = (Rule.parse("example.com"), Rule.parse(".example.org:8443"))


@pytest.mark.parametrize(
    "host", ["EXAMPLE.com", "example.com.", "exAmple.COM."]
)  # fmt: skip
def test_case_and_a_trailing_dot_do_not_matter(host: str) -> None:
    assert match(RULES, canonical(host), 443) == "example.com:443"


@pytest.mark.parametrize(
    ("host", "port"),
    [
        ("example.com", 22),
        ("a.example.com", 443),
        ("notexample.com", 443),
        ("example.com.evil.net", 443),
        ("example.org", 8443),
        ("badexample.org", 8443),
        ("a.example.org", 443),
    ],
)
def test_what_no_rule_names_is_refused(host: str, port: int) -> None:
    with pytest.raises(Refused):
        match(RULES, canonical(host), port)


def test_a_dot_rule_names_all_below_it() -> None:
    assert match(RULES, "a.b.example.org", 8443) == ".example.org:8443"


def test_an_empty_list_allows_nothing() -> None:
    with pytest.raises(Refused):
        match((), "example.com", 443)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "0x7f.1", "2130706433", "0177.0.0.1", "127.1", "[::1]", "::1", "fe80::1%eth0",
     "0", "1.1.1.1.", "017700000001", "0x7f000001"],
)  # fmt: skip
def test_an_address_is_refused_in_every_spelling(host: str) -> None:
    with pytest.raises(Refused):
        canonical(host)
    assert literal(host)


@pytest.mark.parametrize(
    "host", ["\u00b927.0.0.1", "\uff11\uff12\uff17.1", "127\u30020\u30020\u30021"]
)
def test_an_address_that_only_idna_writes_as_one_is_refused_too(host: str) -> None:
    with pytest.raises(Refused, match="an address"):
        canonical(host)


@pytest.mark.parametrize(
    "host",
    ["", "a b", "a\0b", "a@b", "a/b", "a..b", ".a", "a" * 300, "é" * 99, ".".join(["a" * 60] * 5)],
)
def test_what_is_no_name_is_refused(host: str) -> None:
    with pytest.raises(Refused):
        canonical(host)


def test_an_international_name_is_compared_in_its_ascii_form() -> None:
    assert canonical("bücher.example") == "xn--bcher-kva.example"


@given(st.text(max_size=40))
def test_a_canonical_name_is_stable_and_plain(text: str) -> None:
    try:
        name = canonical(text)
    except Refused:
        return
    assert canonical(name) == name
    assert name.isascii()
    assert not literal(name)


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0",
     "224.0.0.1", "255.255.255.255", "198.18.0.1", "::1", "::", "fe80::1", "fc00::1", "fd00:ec2::254",
     "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "::127.0.0.1",
     "2001::1", "fec0::1", "::ffff:0:127.0.0.1", "168.63.129.16", "::2"],
)  # fmt: skip
def test_an_address_of_no_public_place_is_denied(address: str) -> None:
    assert denied(ipaddress.ip_address(address)) is not None


@pytest.mark.parametrize(
    "network",
    ["0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
     "192.0.0.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/4", "240.0.0.0/4",
     "64:ff9b:1::/48", "100::/64", "2001::/32", "2001:2::/48", "5f00::/16", "fc00::/7", "fe80::/10",
     "fec0::/10", "ff00::/8"],
)  # fmt: skip
def test_what_is_denied_is_so_from_its_first_address_to_its_last(network: str) -> None:
    first, last = ipaddress.ip_network(network)[0], ipaddress.ip_network(network)[-1]
    assert None not in (denied(first), denied(last))


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "203.0.113.7", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"]
)
def test_a_public_address_is_not(address: str) -> None:
    assert denied(ipaddress.ip_address(address)) is None


OWN = """
set -e
ip link set lo up
ip link add one type veth peer name two
for device in one two; do ip link set $device up; ip address add 192.0.2.1/32 dev $device; done
ip address add 198.51.100.9/24 dev one
ip address add 198.51.100.10/24 dev one
ip -6 address add 2001:db8::9/64 dev one nodad
ip route add local 203.0.113.0/24 dev lo
ip -6 route add local 2001:db8:1::/48 dev lo
ip route add default dev one
exec "$@"
"""
DENIED = """
import ipaddress, sys
from ringfence.network.addresses import denied
print([denied(ipaddress.ip_address(text)) for text in sys.argv[1:]])
"""


def test_this_hosts_own_addresses_are_denied() -> None:
    """One that two interfaces have, a second one, and those that only a route makes its own."""
    own = [
        "192.0.2.1",
        "198.51.100.9",
        "198.51.100.10",
        "2001:db8::9",
        "203.0.113.7",
        "2001:db8:1::7",
    ]
    others = ["198.51.100.11", "1.1.1.1", "2001:db8:2::1"]
    ran = subprocess.run(
        ["unshare", "-rn", "sh", "-c", OWN, "sh", sys.executable, "-c", DENIED, *own, *others],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    if "unshare:" in ran.stderr or "ip: " in ran.stderr:
        missing(f"no network namespace to try it in: {ran.stderr}")
    assert ran.stdout.strip() == str(["this host's own"] * 6 + [None] * 3), ran.stderr
