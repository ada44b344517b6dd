"""Classes that annotations name and that are loaded when something asks for them: with the first
repository, snapshot or fork, or by what reads annotations, such as `typing.get_type_hints`."""

from typing import TYPE_CHECKING, Any

__all__ = ["Again", "Digest", "Snapshot", "Store", "Workspace"]

if TYPE_CHECKING:
    from ringfence.digest import Digest
    from ringfence.digest.store import Store
    from ringfence.sandbox.workspace import Again, Workspace
    from ringfence.workspace import Snapshot
else:
    _HOMES = {
        "Again": "ringfence.sandbox.workspace",
        "Digest": "ringfence.digest",
        "Snapshot": "ringfence.workspace",
        "Store": "ringfence.digest.store",
        "Workspace": "ringfence.sandbox.workspace",
    }

    def __getattr__(name: str) -> Any:
        from importlib import import_module

        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_HOMES[name]), name)
