"""What the Engine's failures mean: one table from status to class, one for connections.

The Engine's words go into the message for people; nothing is decided by them.
"""

import errno
import ssl
from collections.abc import Mapping

import aiohttp

from ringfence.backends.docker.endpoint import Endpoint
from ringfence.errors import (
    AlreadyExistsError,
    BackendUnavailableError,
    DeadlineExceededError,
    ImageError,
    ImageNotFoundError,
    InvalidSpecError,
    NotFoundError,
    SandboxError,
    SandboxLostError,
    StateError,
    UnsupportedError,
)

_BY_STATUS: Mapping[int, type[SandboxError]] = {
    304: StateError,
    400: InvalidSpecError,
    401: BackendUnavailableError,
    403: BackendUnavailableError,
    404: NotFoundError,
    405: UnsupportedError,
    407: BackendUnavailableError,
    408: BackendUnavailableError,
    409: StateError,
    429: BackendUnavailableError,
    500: BackendUnavailableError,
    501: UnsupportedError,
    503: BackendUnavailableError,
}

_BY_OPERATION: Mapping[tuple[str, int], type[SandboxError]] = {
    ("version", 400): BackendUnavailableError,
    ("image", 404): ImageNotFoundError,
    ("image", 400): ImageNotFoundError,
    ("pull", 404): ImageNotFoundError,
    ("pull", 500): ImageError,
    ("import", 500): ImageError,
    ("create", 404): ImageNotFoundError,
    ("create", 409): AlreadyExistsError,
    ("start", 400): UnsupportedError,
    ("start", 500): UnsupportedError,
}
"""Where an operation gives a status a meaning of its own."""

_REFUSING = (401, 403, 407)
_REFUSED = "an authorization plugin of the daemon's, or a proxy before it, refuses this user"
_TLS = "where it wants TLS, set DOCKER_TLS_VERIFY=1 and DOCKER_CERT_PATH"

_REMEDIES: Mapping[type[SandboxError], str] = {
    ImageNotFoundError: "docker pull or build it first",
    BackendUnavailableError: "see the daemon's log",
    UnsupportedError: "this daemon or machine cannot do it; ringfence doctor tells more",
}

_CONNECTING: Mapping[int, str] = {
    errno.ENOENT: "there is no such socket: install Docker (apt-get install docker.io) and start "
    "it (systemctl start docker), or set DOCKER_HOST",
    errno.ECONNREFUSED: "nothing listens there: start the daemon (systemctl start docker)",
    errno.EACCES: "this user may not use it: add it to the group docker (usermod -aG docker USER, "
    "then log in again), or run as root",
    errno.EPERM: "this user may not use it: add it to the group docker, or run as root",
}


def of_status(op: str, status: int, message: str) -> SandboxError:
    """The error for an answer of the Engine to `op`."""
    kind = _BY_OPERATION.get((op, status)) or _BY_STATUS.get(status)
    if kind is None:
        kind = InvalidSpecError if 400 <= status < 500 else BackendUnavailableError
    words = " ".join(message.split())[:500] or f"status {status}"
    remedy = _remedy(op, status, kind)
    return kind(
        f"{op}: the Docker Engine says: {words}" + (f" ({remedy})" if remedy else ""),
        op=op,
        context={"status": status},
    )


def _remedy(op: str, status: int, kind: type[SandboxError]) -> str | None:
    if (op, status) == ("version", 400):
        return _TLS
    if status in _REFUSING:
        return None if op == "pull" else _REFUSED  # of a pull it may be the registry that refuses
    return _REMEDIES.get(kind)


def of_connection(op: str, endpoint: Endpoint, error: Exception) -> BackendUnavailableError:
    """The error when the Engine cannot be reached, or the connection broke."""
    number = None if _is_tls(error) else getattr(error, "errno", None)
    if _is_tls(error):
        remedy = f"{error}: its certificate or ours is not accepted; check DOCKER_CERT_PATH"
    else:
        remedy = _CONNECTING.get(number or 0, f"{error}; is the daemon running there?")
    return BackendUnavailableError(
        f"no Docker Engine at {endpoint.url} (named by {endpoint.source}): {remedy}",
        op=op,
        context={"endpoint": endpoint.url, "errno": number},
    )


def of_answer(op: str, endpoint: Endpoint, data: bytes) -> BackendUnavailableError:
    """The error when what came as an answer to `op` is none of an Engine's."""
    return BackendUnavailableError(
        f"{op}: what {endpoint.url} (named by {endpoint.source}) answered is no JSON of an"
        f" Engine's: {data[:100]!r}; is it a Docker Engine, and its answer whole?",
        op=op,
        context={"endpoint": endpoint.url},
    )


def _is_tls(error: Exception) -> bool:
    """A TLS failure has an errno that is none."""
    return isinstance(error, ssl.SSLError | aiohttp.ClientSSLError | ssl.CertificateError)


def of_deadline(op: str, endpoint: Endpoint, seconds: float) -> DeadlineExceededError:
    """The error when the Engine leaves a request unanswered."""
    return DeadlineExceededError(
        f"{op}: the Docker Engine at {endpoint.url} (named by {endpoint.source}) did not answer"
        f" within {seconds:g} s: it is overloaded or hangs",
        op=op,
        context={"endpoint": endpoint.url, "seconds": seconds},
    )


def of_ended(op: str, sandbox: str) -> SandboxLostError:
    """The error when a container that was there is not any more. sandbox: its id."""
    return SandboxLostError(
        f"{op}: the sandbox has ended: it was deleted, it expired or it was removed from the "
        "daemon",
        op=op,
        sandbox_id=sandbox,
    )
