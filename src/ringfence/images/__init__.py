"""Images by what they are: references, pins, the lock file, and what is packed how. Pure.

Pulling and building belong to the backend that can: `ringfence.backends.docker.supply`.
"""

from ringfence.images.lock import Lock, Pin
from ringfence.images.reference import Reference

__all__ = ["Lock", "Pin", "Reference"]
