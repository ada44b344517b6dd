"""What is told while an image is pulled or built: one step at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Progress:
    """One step of a pull or a build. layer: the layer's short id, "" for the whole.

    current, total: bytes, None when they are not known. output: what a build step printed.
    """

    status: str
    layer: str = ""
    current: int | None = None
    total: int | None = None
    output: str = ""


Tell = Callable[[Progress], None]


def report(tell: Tell | None, message: Mapping[str, Any]) -> None:
    """Tell what one message of the Engine says, if somebody wants to know."""
    if tell is None:
        return
    detail = message.get("progressDetail") or {}
    tell(
        Progress(
            status=str(message.get("status") or ""),
            layer=str(message.get("id") or ""),
            current=detail.get("current"),
            total=detail.get("total"),
            output=str(message.get("stream") or ""),
        )
    )
