"""The events of a sandbox, written to an audit log."""

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from ringfence.events import Event, EventBus
from ringfence.ledger.audit import REDACTED, AuditLog
from ringfence.spec import SandboxSpec

_LOGIN = re.compile(r"(?i)https?://([^/]+)@")
_LAST = ("Deleted", "Detached")
"""After these nothing more is said of a sandbox, or not to this holder."""


@dataclass(frozen=True, slots=True)
class Auditing:
    """How the log of a sandbox is gone on with. end: no more of its events are written. hide: what
    is secret in a spec that became known later is not written from now on, either."""

    end: Callable[[], None] = lambda: None
    hide: Callable[[SandboxSpec], None] = lambda _: None


def audited(
    bus: EventBus,
    path: str | os.PathLike[str],
    sandbox_id: str,
    spec: SandboxSpec | None = None,
) -> Auditing:
    """Write the events of a sandbox to the log at `path`, to the last of them.

    sandbox_id: the beginning of it is enough. The values of the spec's secrets and variables, and
    the login in its repository's URL, are never written; of a sandbox that exists `hide` takes it,
    once it is known: its record has the login, and no secret's value.
    Opening fails with ResourceExhaustedError when the log cannot be written, and StateError when
    it ends with what is no entry; a failure later is reported by the bus.
    """
    log = AuditLog(path, secrets=() if spec is None else _secrets(spec))
    log.append("Opened", None, spec=None if spec is None else _described(spec))

    def write(event: Event) -> None:
        if not (event.sandbox_id or "").startswith(sandbox_id):
            return
        if event.name in _LAST:
            end()
        fields = asdict(event)
        del fields["sandbox_id"], fields["at"]
        log.append(event.name, event.sandbox_id, at=event.at, **fields)

    end = bus.subscribe(write)
    return Auditing(end, lambda other: log.hide(_secrets(other)))


def without_login(path: str) -> str:
    """A path or a URL as it may be written down."""
    login = _LOGIN.match(path)
    return path if login is None else path[: login.start(1)] + path[login.end(1) + 1 :]


def _secrets(spec: SandboxSpec) -> Iterator[str]:
    for secret in spec.network.secrets:
        yield secret.value.get_secret_value()
    if spec.repository is not None and (login := _LOGIN.match(spec.repository.path)):
        yield login[1]


def _described(spec: SandboxSpec) -> dict[str, Any]:
    """The spec with the names of its variables alone: tokens come in as variables."""
    described = spec.model_dump(mode="json")
    described["env"] = dict.fromkeys(described["env"], REDACTED)
    return described


def audit_of(
    path: str | os.PathLike[str] | None,
    bus: EventBus,
    sandbox_id: str,
    spec: SandboxSpec | None = None,
) -> Auditing:
    """`audited`, when there is a log to write."""
    return Auditing() if path is None else audited(bus, path, sandbox_id, spec)
