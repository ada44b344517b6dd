"""OpenTelemetry spans of creates, commands, transfers and deletes (`ringfence[otel]`).

    tracing = Tracing()                        # or Tracing(tracer_provider=...)
    async with ringfence.open(..., events=tracing.bus) as sandbox: ...

Arguments, paths and variables are not recorded unless asked for: they may hold secrets.
"""

from opentelemetry import trace
from opentelemetry.trace import Span, Status, StatusCode, TracerProvider

from ringfence.events import (
    Created,
    CreateFailed,
    Deleted,
    Event,
    EventBus,
    ExecEnded,
    FilesMoved,
    LimitHit,
)

_NS = 1_000_000_000


class Tracing:
    """Turns the events of a bus into spans.

    with_args: whether a command's arguments become an attribute.
    """

    def __init__(
        self,
        bus: EventBus | None = None,
        *,
        tracer_provider: TracerProvider | None = None,
        with_args: bool = False,
    ) -> None:
        self.bus = bus or EventBus()
        self._tracer = trace.get_tracer("ringfence", tracer_provider=tracer_provider)
        self._with_args = with_args
        self._unsubscribe = self.bus.subscribe(self._take)

    def close(self) -> None:
        """Make no more spans. Idempotent."""
        self._unsubscribe()

    def _take(self, event: Event) -> None:
        match event:
            case Created():
                span = self._span("ringfence.create", event, event.seconds)
                span.set_attribute("ringfence.backend", event.backend)
                span.set_attribute("ringfence.transport", event.transport)
                self._end(span, event)
            case CreateFailed():
                span = self._span("ringfence.create", event, 0.0)
                span.set_status(Status(StatusCode.ERROR, event.code))
                self._end(span, event)
            case ExecEnded():
                self._exec(event)
            case FilesMoved():
                span = self._span(f"ringfence.{event.direction}", event, 0.0)
                span.set_attribute("ringfence.members", event.members)
                span.set_attribute("ringfence.bytes", event.bytes)
                self._end(span, event)
            case LimitHit():
                span = self._span("ringfence.limit", event, 0.0)
                span.set_attribute("ringfence.limit", event.limit)
                self._end(span, event)
            case Deleted():
                span = self._span("ringfence.delete", event, 0.0)
                span.set_attribute("ringfence.reason", event.reason)
                self._end(span, event)

    def _exec(self, event: ExecEnded) -> None:
        span = self._span("ringfence.exec", event, event.duration)
        span.set_attribute("ringfence.reason", event.reason)
        if event.exit_code is not None:
            span.set_attribute("process.exit.code", event.exit_code)
        if self._with_args:
            span.set_attribute("process.command_args", list(event.args))
        if event.reason != "exited" or event.exit_code != 0:
            span.set_status(Status(StatusCode.ERROR, event.reason))
        self._end(span, event)

    def _span(self, name: str, event: Event, seconds: float) -> Span:
        start = int((event.at - seconds) * _NS)
        span = self._tracer.start_span(name, start_time=start)
        span.set_attribute("ringfence.sandbox.id", event.sandbox_id)
        return span

    def _end(self, span: Span, event: Event) -> None:
        span.end(end_time=int(event.at * _NS))
