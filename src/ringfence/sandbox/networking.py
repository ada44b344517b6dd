"""How one sandbox reaches out and is reached: its proxy, its published ports, its variables."""

import os
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from ringfence.backends.base import Bind
from ringfence.backends.owned import own_directory
from ringfence.backends.state import state_directory
from ringfence.errors import StateError
from ringfence.events import EgressDecided, EventBus
from ringfence.guest.session import Session
from ringfence.spec import Network, Rule, SandboxSpec

if TYPE_CHECKING:  # loaded with the first proxy or published port
    from ringfence.network import Decision, EgressProxy, PublishedPort
    from ringfence.network.authority import Authority

PROXY_PORT = 3128
"""Where the proxy listens inside."""
CA_PATH = "/run/ringfence-ca.pem"
"""Where a sandbox with secrets inside TLS finds whom to trust."""
_CA_VARIABLES = (
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "NODE_EXTRA_CA_CERTS",
    "PIP_CERT",
)
_LOCAL = "localhost,127.0.0.1,::1"


class Networking:
    """The network of one sandbox, as `sandbox.network` shows it.

    ports: host ports by the ports inside that they lead to. sent, received: bytes that went
    through the proxy, out of and into the sandbox.
    """

    def __init__(self, proxy: "EgressProxy | None", ports: "Sequence[PublishedPort]") -> None:
        self._proxy = proxy
        self.ports: Mapping[int, int] = {port.inside: port.host for port in ports}

    def __repr__(self) -> str:
        rules = ", ".join(f"{rule.host}:{port}" for rule in self.rules for port in rule.ports)
        return f"<Networking reaches [{rules}] ports {dict(self.ports)}>"

    @property
    def sent(self) -> int:
        """Bytes out of the sandbox through the proxy."""
        return 0 if self._proxy is None else self._proxy.sent

    @property
    def received(self) -> int:
        """Bytes into the sandbox through the proxy."""
        return 0 if self._proxy is None else self._proxy.received

    @property
    def rules(self) -> tuple[Rule, ...]:
        """What may be reached now."""
        return () if self._proxy is None else self._proxy.rules

    def allow(self, rules: Sequence[Rule | str]) -> None:
        """Replace what may be reached; connections that are open go on.

        StateError unless the sandbox was opened with network mode "proxy"; InvalidSpecError.
        """
        if self._proxy is None:
            raise StateError(
                "network: this sandbox has no proxy: open it with network mode 'proxy'",
                op="network.allow",
            )
        self._proxy.allow(rules)


def authority_for(network: Network, sandbox_id: str) -> "Authority | None":
    """The certificate authority of a sandbox that has secrets inside TLS; UnsupportedError."""
    if network.mode != "proxy" or not any(secret.tls for secret in network.secrets):
        return None
    from ringfence.network.authority import Authority

    return Authority(sandbox_id)


def variables(network: Network) -> dict[str, str]:
    """The variables that lead programs to their proxy. A convenience, never the enforcement."""
    found: dict[str, str] = {}
    if network.mode == "proxy":
        url = f"http://127.0.0.1:{PROXY_PORT}"
        found = {"http_proxy": url, "https_proxy": url, "no_proxy": _LOCAL,
                 "all_proxy": f"socks5h://127.0.0.1:{PROXY_PORT}"}  # fmt: skip
        if any(secret.tls for secret in network.secrets):
            found.update(dict.fromkeys(_CA_VARIABLES, CA_PATH))
    elif network.mode == "bridge":
        for name in ("http_proxy", "https_proxy", "no_proxy"):
            value = getattr(network, name)
            if value is not None:
                found[name] = value
    return {**found, **{name.upper(): found[name] for name in found if name.endswith("_proxy")}}


def trusted(authority: "Authority", undo: AsyncExitStack) -> Bind:
    """A file with this host's authorities and the sandbox's own, bound into it read-only."""
    directory = own_directory(state_directory())
    undo.callback(directory.cleanup)
    Path(directory.name).chmod(0o755)
    path = Path(directory.name, "ca.pem")
    path.write_bytes(_known_authorities() + authority.pem)
    return Bind(str(path), CA_PATH)


def _known_authorities() -> bytes:
    import ssl

    cafile = ssl.get_default_verify_paths().cafile
    return Path(cafile).read_bytes() if cafile and os.access(cafile, os.R_OK) else b""


async def connect(
    session: Session,
    granted: SandboxSpec,
    sandbox_id: str,
    bus: EventBus,
    *,
    undo: AsyncExitStack,
    authority: "Authority | None" = None,
) -> Networking:
    """Listen inside for the proxy and outside for published ports, before the first command.

    AlreadyExistsError when a port, inside or outside, is taken. What was
    opened is closed by `undo`.
    """
    if granted.network.mode != "proxy" and not granted.network.ports:
        return Networking(None, ())
    from ringfence.network import EgressProxy, publish

    def say(decision: "Decision") -> None:
        bus.publish(EgressDecided(sandbox_id=sandbox_id, **asdict(decision)))

    proxy = None
    if granted.network.mode == "proxy":
        rate = granted.limits.network_rate
        proxy = EgressProxy(granted.network, on_decision=say, rate=rate, authority=authority)
        await session.forward.listen(PROXY_PORT, proxy.serve)
    ports = []
    for port in granted.network.ports:
        published = await publish(port, session.forward.connect_inside)
        undo.push_async_callback(published.aclose)
        ports.append(published)
    return Networking(proxy, ports)
