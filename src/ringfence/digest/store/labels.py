"""Small texts kept with a blob."""

from __future__ import annotations

import json
from collections.abc import Mapping

from ringfence.digest.store import locks
from ringfence.digest.store.layout import Layout, read_json, write


def of(layout: Layout, digest: str) -> dict[str, str]:
    """A blob's labels; none for a blob without."""
    try:
        return {str(name): str(text) for name, text in read_json(layout.label(digest)).items()}
    except FileNotFoundError:
        return {}


def change(layout: Layout, digest: str, texts: Mapping[str, str | None]) -> dict[str, str]:
    """Set labels, and remove those that are None; all of them after that."""
    path = layout.label(digest)
    path.parent.mkdir(exist_ok=True)
    with locks.exclusive(layout.ours / "labels.lock"):
        found = of(layout, digest)
        for name, text in texts.items():
            if text is None:
                found.pop(name, None)
            else:
                found[name] = text
        if found:
            write(path, json.dumps(found, sort_keys=True).encode())
        else:
            path.unlink(missing_ok=True)
    return found
