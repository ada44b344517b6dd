"""What can still be read of a row that another version of Ringfence wrote."""

import json
from collections.abc import Mapping
from typing import Any

import pydantic

from ringfence.spec import SandboxSpec
from ringfence.spec.model import invalid_spec

_TRIES = 100


def read_spec(text: str) -> tuple[SandboxSpec, str | None]:
    """The spec in a row, and what of it could not be read: None when all could.

    Fields that this version does not know, or would not take, are left out, so that the sandbox
    can be shown and removed. It is not the spec that was granted: nobody may go on with it.
    """
    try:
        data = json.loads(text)
    except ValueError as error:
        return SandboxSpec(), f"its spec is no JSON ({error})"
    problem = None
    for _ in range(_TRIES):
        try:
            return SandboxSpec.model_validate(data), problem
        except pydantic.ValidationError as error:
            problem = problem or f"its spec is another version's ({invalid_spec(error).message})"
            if not _drop(data, error):
                break
    return _shown(data), problem


def read_workspace(text: str | None) -> tuple[Mapping[str, Any] | None, str | None]:
    """What is to be undone on this host, and why it cannot be read: None when it can."""
    try:
        found = json.loads(text) if text else None
    except ValueError as error:
        return None, f"its workspace is no JSON ({error})"
    if found is not None and not isinstance(found, dict):
        return None, "its workspace is no table"
    if found and not isinstance(found.get("directory"), str):
        return None, "its workspace names no directory"
    return found or None, None


def _drop(data: Any, error: pydantic.ValidationError) -> bool:
    """Take the wrong fields out of `data`, each as deep as it lies; whether any was there."""
    dropped = False
    for entry in error.errors(include_url=False, include_context=False, include_input=False):
        owner, key, place = None, None, data
        for part in entry["loc"]:
            if not isinstance(place, dict) or part not in place:
                break
            owner, key, place = place, part, place[part]
        if owner is not None:
            del owner[key]
            dropped = True
    return dropped


def _shown(data: Any) -> SandboxSpec:
    """What a list shows of a spec whose fields do not fit together."""
    try:
        kept = {name: data[name] for name in ("image", "labels") if name in data}
        return SandboxSpec.model_validate(kept)
    except (TypeError, pydantic.ValidationError):
        return SandboxSpec()
