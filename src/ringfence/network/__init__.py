"""The way out: an allowlist proxy on the host, reached through the guest, and published ports."""

from ringfence.network.proxy import Decision, EgressProxy
from ringfence.network.published import PublishedPort, publish

__all__ = ["Decision", "EgressProxy", "PublishedPort", "publish"]
