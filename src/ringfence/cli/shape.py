"""Results as JSON, and the times of a sandbox as a person reads them."""

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ringfence.cli import output

if TYPE_CHECKING:
    from ringfence import SandboxInfo, Usage


def usage(value: "Usage | None") -> dict[str, Any] | None:
    """A sandbox's usage, or None where it cannot be had."""
    return None if value is None else asdict(value)


def times(info: "SandboxInfo") -> tuple[str, str | None]:
    """When it was created and when it ends, from now; of one that has ended the word for why."""
    now = time.time()
    created = f"{output.span(now - info.created)} ago"
    if info.state == "exited":
        return created, info.reason
    return created, None if info.ends is None else f"in {output.span(info.ends - now)}"
