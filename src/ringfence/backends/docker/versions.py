"""Which version of the Engine's API to speak: the newest that both sides know."""

import json
import re

from ringfence.backends.docker.endpoint import Endpoint
from ringfence.errors import BackendUnavailableError

_OLDEST = (1, 41)
"""Engine 20.10. Older ones ignore parts of what is asked of them."""
_NEWEST = (1, 51)
_PODMAN = "Podman Engine"
"""What a Podman calls itself among the parts of its version."""
_PAIR = re.compile(r"\d+\.\d+")


def of_ping(text: str) -> str:
    """The start of every path, when a ping told the Engine's newest version, `text`; "" where that
    is not enough to tell."""
    newest = _pair(text) if _PAIR.fullmatch(text) else (0, 0)
    return f"/v{text}" if _OLDEST <= newest <= _NEWEST else ""


def refuse_podman(version: str | None, endpoint: Endpoint) -> None:
    """BackendUnavailableError for a Podman, which says its `version` beside Docker's: to speak
    Docker's API is not to keep what is asked for in it."""
    if version is not None:
        raise BackendUnavailableError(
            f"what answers at {endpoint.url} is Podman {version}, whose Docker API takes neither a"
            " seccomp profile in the request nor a tmpfs with a limit of files: name a Docker"
            f" Engine ({endpoint.source}), or use the process backend",
            op="version",
            context={"engine": f"podman {version}"},
        )


def of_answer(data: bytes, endpoint: Endpoint) -> str:
    """The start of every path, by what /version answered. BackendUnavailableError for an Engine
    that is too old, or what is none, a Podman too."""
    try:
        answer = json.loads(data)
        newest, engine = _pair(answer["ApiVersion"]), str(answer.get("Version", "?"))
        oldest = _pair(answer.get("MinAPIVersion") or "1.0")
        parts = {part["Name"]: part.get("Version") for part in answer.get("Components") or ()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BackendUnavailableError(
            f"what answers at {endpoint.url} is no Docker Engine: check {endpoint.source}",
            op="version",
        ) from None
    if _PODMAN in parts:
        refuse_podman(str(parts[_PODMAN]), endpoint)
    if newest < _OLDEST:
        raise BackendUnavailableError(
            f"Docker Engine {engine} at {endpoint.url} speaks API {newest[0]}.{newest[1]}: upgrade "
            "it to 20.10 (API 1.41) or newer",
            op="version",
            context={"engine": engine},
        )
    chosen = max(min(newest, _NEWEST), oldest)
    return f"/v{chosen[0]}.{chosen[1]}"


def _pair(text: str) -> tuple[int, int]:
    if not _PAIR.fullmatch(text):
        raise ValueError(text)
    major, minor = text.split(".")
    return int(major), int(minor)
