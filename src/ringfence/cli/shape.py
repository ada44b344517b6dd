"""Results as JSON."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ringfence import Usage


def usage(value: "Usage | None") -> dict[str, Any] | None:
    """A sandbox's usage, or None where it cannot be had."""
    return None if value is None else asdict(value)
