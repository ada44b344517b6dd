"""Whether a workspace that is being made is still wanted: asked between directories and files."""

from collections.abc import Callable

Check = Callable[[], None]
"""Raises Stopped when it is not."""


Count = Callable[[int], None]
"""Is told how many entries of the repository were found so far, after each directory."""


class Stopped(Exception):
    """It is not wanted any more."""


def always() -> None:
    """It is."""


def nobody(entries: int) -> None:
    """Count for nobody."""


def unless(stopped: Callable[[], bool]) -> Check:
    """It is until `stopped` says True, in whatever thread."""

    def check() -> None:
        if stopped():
            raise Stopped

    return check
