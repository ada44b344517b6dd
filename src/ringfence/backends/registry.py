"""Backends by name, found as entry points of the group "ringfence.backends"."""

import functools
from importlib.metadata import EntryPoint, entry_points

from ringfence.backends.base import Backend
from ringfence.errors import InvalidSpecError

GROUP = "ringfence.backends"


@functools.cache
def _points() -> tuple[EntryPoint, ...]:
    """All that are installed; looked up once, since that reads every package's metadata."""
    return tuple(entry_points(group=GROUP))


def names() -> list[str]:
    """The names of all installed backends, sorted."""
    return sorted(point.name for point in _points())


def load(name: str, endpoint: str | None = None) -> Backend:
    """The backend called `name`, talking to `endpoint`; "auto" is docker.

    Raises InvalidSpecError for a name that is not installed.
    """
    wanted = "docker" if name == "auto" else name
    for point in _points():
        if point.name == wanted:
            backend: Backend = point.load()(endpoint=endpoint)
            return backend
    raise InvalidSpecError(
        f"backend: no backend called {name!r}; installed are {', '.join(names())}",
        op="open",
        context={"fields": ["backend"]},
    )
