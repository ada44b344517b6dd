"""The durable record of what exists on this machine, who holds it and when it ends."""

from ringfence.backends.owner import Owner
from ringfence.ledger.backends import Backends
from ringfence.ledger.entry import Claim, Entry
from ringfence.ledger.reaper import Reaped, reap
from ringfence.ledger.store import Ledger

__all__ = ["Backends", "Claim", "Entry", "Ledger", "Owner", "Reaped", "reap"]
