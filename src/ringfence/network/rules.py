"""Which hosts may be reached: exact names, name suffixes, ports."""

import re
from collections.abc import Sequence

from ringfence.network.addresses import literal
from ringfence.spec.network import Rule

_HOST = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")


class Refused(Exception):
    """A target that may not be reached. The text is the reason. host, port: what was asked for, as
    it was written; "" and 0 where it did not say."""

    def __init__(self, reason: str, host: str = "", port: int = 0) -> None:
        super().__init__(reason)
        self.host = host
        self.port = port

    def of(self, host: str, port: int) -> "Refused":
        """The same refusal, of that target."""
        return Refused(str(self), host, port)


def canonical(host: str) -> str:
    """A host's name as rules have it: lower case, no trailing dot, IDNA. Refused for what is none.

    Addresses are refused in every spelling: a rule names hosts.
    """
    if not host or len(host) > 255 or not host.isprintable():
        raise Refused("not a host's name")
    name = host.removesuffix(".")
    try:
        name = name.lower() if name.isascii() else name.encode("idna").decode("ascii").lower()
    except UnicodeError:
        raise Refused("not a host's name") from None
    if literal(host) or literal(name):
        raise Refused("an address instead of a name")
    if not _HOST.fullmatch(name):
        raise Refused("not a host's name")
    return name


def match(rules: Sequence[Rule], host: str, port: int) -> str:
    """The rule that allows a canonical host and port, as text. Refused when none does: an empty
    list allows nothing."""
    for rule in rules:
        exact = rule.host == host
        below = rule.host.startswith(".") and host.endswith(rule.host)
        if (exact or below) and port in rule.ports:
            return f"{rule.host}:{port}"
    raise Refused("not on the allowlist")
