"""The durable record of what exists on this machine, who holds it and when it ends."""

from typing import TYPE_CHECKING, Any

from ringfence.backends.owner import Owner
from ringfence.ledger.connection import Busy
from ringfence.ledger.entry import Claim, Entry
from ringfence.ledger.store import Ledger

if TYPE_CHECKING:
    from ringfence.ledger.backends import Backends
    from ringfence.ledger.reaper import Reaped, reap

__all__ = ["Backends", "Busy", "Claim", "Entry", "Ledger", "Owner", "Reaped", "reap"]

_HOMES = {"Backends": "backends", "Reaped": "reaper", "reap": "reaper"}
"""Loaded when they are first used: a sandbox is opened without them."""


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'ringfence.ledger' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"ringfence.ledger.{home}"), name)
