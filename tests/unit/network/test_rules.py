"""What may be reached is exactly what a rule names, however it is spelled."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.network.addresses import denied, literal, own_addresses
from ringfence.network.rules import Refused, canonical, match
from ringfence.spec.network import Rule

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
    "host", ["", "a b", "a\0b", "a@b", "a/b", "a..b", ".a", "a" * 300, "é" * 99]
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
     "2001::1", "fec0::1"],
)  # fmt: skip
def test_an_address_of_no_public_place_is_denied(address: str) -> None:
    assert denied(ipaddress.ip_address(address)) is not None


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "203.0.113.7", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"]
)
def test_a_public_address_is_not(address: str) -> None:
    assert denied(ipaddress.ip_address(address)) is None


def test_this_hosts_own_addresses_are_denied() -> None:
    own = own_addresses()
    assert ipaddress.ip_address("127.0.0.1") in own
    assert all(denied(address) for address in own)
