"""The events of a sandbox, written to an audit log."""

import os
from collections.abc import Callable
from dataclasses import asdict

from ringfence.events import Event, EventBus
from ringfence.ledger.audit import AuditLog
from ringfence.spec import SandboxSpec


def audited(
    bus: EventBus, path: str | os.PathLike[str], spec: SandboxSpec | None = None
) -> Callable[[], None]:
    """Write every event of `bus` to the log at `path`; what is returned ends that.

    The values of the spec's secrets are never written. Opening fails with ResourceExhaustedError
    when the log cannot be written; a failure later is reported by the bus.
    """
    secrets = [] if spec is None else [one.value.get_secret_value() for one in spec.network.secrets]
    log = AuditLog(path, secrets=secrets)
    log.append("Opened", None, spec=None if spec is None else spec.model_dump(mode="json"))

    def write(event: Event) -> None:
        fields = asdict(event)
        del fields["sandbox_id"], fields["at"]
        log.append(event.name, event.sandbox_id, at=event.at, **fields)

    return bus.subscribe(write)
