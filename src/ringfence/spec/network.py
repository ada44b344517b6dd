"""What a sandbox can reach, and through which of its ports it is reached."""

import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, SecretStr, field_validator, model_validator

from ringfence.spec.model import Model, Table, Texts, check_text

PortNumber = Annotated[int, Field(ge=1, le=65535)]

_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")
_OPTION = re.compile(r"[a-z0-9_-]{1,32}(?::\d{1,4})?")
_OF_THE_CONNECTION = frozenset({"host", "connection", "content-length", "transfer-encoding", "te",
                                "trailer", "upgrade", "keep-alive"})  # fmt: skip
"""Headers that say where a request goes or where it ends: the proxy writes them itself."""


def check_host(value: str) -> str:
    """A host's name in lower case, IDNA-encoded; a leading dot stands for all names below it.

    Addresses are refused: a rule names hosts. Raises ValueError.
    """
    suffix = value.startswith(".")
    name = value.removeprefix(".").rstrip(".").lower()
    if value.startswith("*."):
        raise ValueError(f"write {value[1:]!r} for all names below {value[2:]!r}")
    try:
        if not name.isascii():
            name = name.encode("idna").decode("ascii")
    except UnicodeError:
        raise ValueError(f"{value!r} is not a host's name") from None
    labels = name.split(".")
    if not name or len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError(f"{value!r} is not a host's name such as pypi.org or .pythonhosted.org")
    if re.fullmatch(r"(?:0x[0-9a-f]+|\d+)", labels[-1]):
        raise ValueError(f"{value!r} is an address: a rule names hosts")
    return f".{name}" if suffix else name


class Rule(Model):
    """A host that may be reached: "example.com" exactly, ".example.com" every name below it.

    A text such as "example.com:8443" stands for a rule with that one port.
    """

    short_forms = ({"type": "string"},)

    host: str
    ports: tuple[PortNumber, ...] = (80, 443)

    if TYPE_CHECKING:

        def __init__(self, *, host: str, ports: tuple[int, ...] | list[int] = ...) -> None: ...

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, data: Any) -> Any:
        if not isinstance(data, str):
            return data
        host, colon, port = data.partition(":")
        if not colon:
            return {"host": host}
        if not port.isdecimal():
            raise ValueError(f"{data!r} is not a host or host:port")
        return {"host": host, "ports": (int(port),)}

    @field_validator("host")
    @classmethod
    def _host(cls, value: str) -> str:
        return check_host(value)

    @field_validator("ports")
    @classmethod
    def _ports(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value:
            raise ValueError("a rule needs a port, such as 443")
        return tuple(sorted(set(value)))


class Secret(Model):
    """A header that the proxy adds to requests for `host`; the sandbox never holds its value.

    value: masked wherever a spec is shown. tls: inside TLS alone, which the proxy then ends with a
    certificate authority of that sandbox alone; False: in plain HTTP alone, in the clear.
    """

    host: str
    header: str = "Authorization"
    value: SecretStr
    tls: bool = True

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            host: str,
            header: str = "Authorization",
            value: SecretStr | str,
            tls: bool = True,
        ) -> None: ...

    @field_validator("host")
    @classmethod
    def _host(cls, value: str) -> str:
        return check_host(value)

    @field_validator("header")
    @classmethod
    def _header(cls, value: str) -> str:
        if not _HEADER.fullmatch(value) or value.lower() in _OF_THE_CONNECTION:
            raise ValueError(f"{value!r} is not a header that can be added")
        return value

    @field_validator("value")
    @classmethod
    def _value(cls, value: SecretStr) -> SecretStr:
        text = value.get_secret_value()
        if not text or any(ord(letter) < 32 or ord(letter) == 127 for letter in text):
            raise ValueError("a header's value is not empty and holds no control characters")
        return value


class Port(Model):
    """A TCP port inside, reachable on the host's loopback at `host` (0: one that is free)."""

    short_forms = ({"type": "integer", "minimum": 1, "maximum": 65535},)

    inside: PortNumber
    host: Annotated[int, Field(ge=0, le=65535)] = 0

    @model_validator(mode="before")
    @classmethod
    def _one_number_is_inside(cls, data: Any) -> Any:
        if isinstance(data, int) and not isinstance(data, bool):
            return {"inside": data}
        return data


class Network(Model):
    """What a sandbox reaches.

    mode: "none" (only a loopback of its own), "proxy" (still no interface: a proxy on the host
    reaches the hosts of `allow`, and no other), "bridge" (the daemon's network, open; by explicit
    choice). secrets: headers added by the proxy. dns, dns_search, dns_options, extra_hosts (name
    to address): of a bridge. http_proxy, https_proxy, no_proxy: what commands see of a proxy of
    your own on a bridge. ports: ports inside that are published on the host's loopback, through
    the guest, in every mode.
    """

    mode: Literal["none", "proxy", "bridge"] = "none"
    allow: tuple[Rule, ...] = ()
    secrets: tuple[Secret, ...] = ()
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    extra_hosts: Mapping[str, str] = Field(default_factory=dict)
    http_proxy: str | None = None
    https_proxy: str | None = None
    no_proxy: str | None = None
    ports: tuple[Port, ...] = ()

    if TYPE_CHECKING:  # what a type checker lets pass: the short forms, too

        def __init__(
            self,
            *,
            mode: Literal["none", "proxy", "bridge"] = "none",
            allow: Sequence[Rule | str | Table] = (),
            secrets: Sequence[Secret | Table] = (),
            dns: Texts = (),
            dns_search: Texts = (),
            dns_options: Texts = (),
            extra_hosts: Mapping[str, str] = ...,
            http_proxy: str | None = None,
            https_proxy: str | None = None,
            no_proxy: str | None = None,
            ports: Sequence[Port | int | Table] = (),
        ) -> None: ...

    @field_validator("dns")
    @classmethod
    def _dns(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(str(ipaddress.ip_address(address)) for address in value)

    @field_validator("dns_search")
    @classmethod
    def _search(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(check_host(name) for name in value)

    @field_validator("dns_options")
    @classmethod
    def _options(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for option in value:
            if not _OPTION.fullmatch(option):
                raise ValueError(f"{option!r} is not an option of resolv.conf such as ndots:2")
        return value

    @field_validator("extra_hosts")
    @classmethod
    def _hosts(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        return {
            check_host(name): str(ipaddress.ip_address(address)) for name, address in value.items()
        }

    @field_validator("http_proxy", "https_proxy")
    @classmethod
    def _proxy(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"https?://[^\s/@]+/?", value):
            raise ValueError(
                "a proxy is a URL such as http://proxy.example:3128, without a password"
            )
        return value

    @field_validator("no_proxy")
    @classmethod
    def _no_proxy(cls, value: str | None) -> str | None:
        return None if value is None else check_text(value, "no_proxy")

    @model_validator(mode="after")
    def _fields_fit_the_mode(self) -> "Network":
        wanted = {"allow": "proxy", "secrets": "proxy"} | dict.fromkeys(
            ("dns", "dns_search", "dns_options", "extra_hosts",
             "http_proxy", "https_proxy", "no_proxy"), "bridge",
        )  # fmt: skip
        for name, mode in wanted.items():
            if getattr(self, name) and self.mode != mode:
                raise ValueError(f"{name} needs mode={mode!r}, not {self.mode!r}")
        hosts = [rule.host for rule in self.allow]
        for secret in self.secrets:
            if not any(covers(host, secret.host) for host in hosts):
                raise ValueError(f"a secret is for {secret.host}, which no rule of allow reaches")
        published = [port.host for port in self.ports if port.host]
        if len(set(published)) != len(published):
            raise ValueError("two ports are published at one port of the host")
        return self


def covers(rule: str, host: str) -> bool:
    """Whether everything that the host or suffix `host` names is named by `rule` too."""
    if rule.startswith("."):
        return host.endswith(rule)
    return host == rule
