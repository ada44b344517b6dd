"""Backends by name: ours, and those that are entry points of the group "ringfence.backends"."""

import functools
from importlib import import_module
from typing import TYPE_CHECKING

from ringfence.backends.base import Backend
from ringfence.errors import InvalidSpecError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "ringfence.backends"

OURS = {
    "docker": "ringfence.backends.docker:DockerBackend",
    "process": "ringfence.backends.process:ProcessBackend",
    "mock": "ringfence.backends.mock:MockBackend",
}
"""Our own entry points, which are not looked for among those of every installed package."""


@functools.cache
def _points() -> "tuple[EntryPoint, ...]":
    """All that are installed; looked up once, since that reads every package's metadata."""
    from importlib.metadata import entry_points

    return tuple(entry_points(group=GROUP))


def names() -> list[str]:
    """The names of all installed backends, sorted."""
    return sorted(OURS.keys() | {point.name for point in _points()})


def load(name: str, endpoint: str | None = None) -> Backend:
    """The backend called `name`, talking to `endpoint`; "auto" is docker.

    Raises InvalidSpecError for a name that is not installed.
    """
    wanted = "docker" if name == "auto" else name
    if wanted in OURS:
        module, _, made = OURS[wanted].partition(":")
        ours: Backend = getattr(import_module(module), made)(endpoint=endpoint)
        return ours
    for point in _points():
        if point.name == wanted:
            backend: Backend = point.load()(endpoint=endpoint)
            return backend
    raise InvalidSpecError(
        f"backend: no backend called {name!r}; installed are {', '.join(names())}",
        op="open",
        context={"fields": ["backend"]},
    )
