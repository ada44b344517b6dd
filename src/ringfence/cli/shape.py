"""Results as JSON."""

import base64
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ringfence import ExecResult, Usage


def result(value: "ExecResult") -> dict[str, Any]:
    """A command's result; output that is not UTF-8 comes as base64 besides."""
    data = asdict(value)
    data["reason"] = str(value.reason)
    data["args"] = list(value.args)
    for name in ("stdout", "stderr"):
        data.update(text(name, getattr(value, name)))
        data[f"{name}_truncated"] = getattr(value, f"{name}_truncated")
    return data


def usage(value: "Usage | None") -> dict[str, Any] | None:
    """A sandbox's usage, or None where it cannot be had."""
    return None if value is None else asdict(value)


def text(name: str, data: bytes) -> dict[str, Any]:
    """Bytes under a name; what is not UTF-8 comes as base64 besides."""
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {
            name: data.decode("utf-8", "replace"),
            f"{name}_base64": base64.b64encode(data).decode(),
        }
