"""The /etc/hosts of a sandbox that has no network: localhost still has its name."""

LOCALHOST = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"
