"""Creates, commands, transfers and deletes become spans."""

from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

import ringfence
from ringfence.backends.mock import MockBackend
from ringfence.integrations.opentelemetry import Tracing

SECRET = "a-secret-argument"


class Spans:
    """A tracer provider that keeps what it is given."""

    def __init__(self) -> None:
        self._kept = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._kept))

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self._kept.get_finished_spans() if span.name == name]

    def text(self) -> str:
        return "".join(span.to_json() for span in self._kept.get_finished_spans())


@pytest.fixture
def spans() -> Spans:
    return Spans()


async def test_a_sandboxs_life_is_told_in_spans(spans: Spans, tmp_path: Path) -> None:
    """Each with the sandbox's id; a failing command's has the status of an error."""
    tracing = Tracing(tracer_provider=spans.provider)
    (tmp_path / "file").write_bytes(b"12345")
    async with ringfence.open(backend=MockBackend(), events=tracing.bus) as sandbox:
        await sandbox.exec(["true"])
        await sandbox.exec(["false"])
        await sandbox.files.upload(tmp_path, "/tmp/tree")
    [create] = spans.named("ringfence.create")
    assert create.attributes is not None
    assert create.attributes["ringfence.backend"] == "mock"
    right, wrong = spans.named("ringfence.exec")
    assert right.status.status_code is StatusCode.UNSET
    assert wrong.status.status_code is StatusCode.ERROR
    assert wrong.attributes is not None
    assert wrong.attributes["process.exit.code"] == 1
    assert wrong.start_time is not None
    assert wrong.end_time is not None
    assert wrong.start_time <= wrong.end_time
    [upload] = spans.named("ringfence.upload")
    assert upload.attributes is not None
    assert upload.attributes["ringfence.bytes"] == 5
    [delete] = spans.named("ringfence.delete")
    for span in (create, right, wrong, upload, delete):
        assert span.attributes is not None
        assert span.attributes["ringfence.sandbox.id"] == sandbox.id


async def test_a_create_that_failed_is_a_span_with_its_code(spans: Spans) -> None:
    tracing = Tracing(tracer_provider=spans.provider)
    mock = MockBackend()
    mock.fail("create", error=ringfence.BackendUnavailableError("no daemon"))
    with pytest.raises(ringfence.BackendUnavailableError):
        await ringfence.open(backend=mock, events=tracing.bus)
    [span] = spans.named("ringfence.create")
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description == "backend_unavailable"


@pytest.mark.parametrize("with_args", [False, True])
async def test_arguments_are_recorded_only_by_choice(spans: Spans, with_args: bool) -> None:
    tracing = Tracing(tracer_provider=spans.provider, with_args=with_args)
    async with ringfence.open(backend=MockBackend(), events=tracing.bus) as sandbox:
        await sandbox.exec(["echo", SECRET])
    assert (SECRET in spans.text()) is with_args


async def test_after_closing_there_are_no_more_spans(spans: Spans) -> None:
    tracing = Tracing(tracer_provider=spans.provider)
    async with ringfence.open(backend=MockBackend(), events=tracing.bus) as sandbox:
        tracing.close()
        tracing.close()
        await sandbox.exec(["true"])
    assert spans.named("ringfence.exec") == []
