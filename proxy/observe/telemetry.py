"""OpenTelemetry: each trace as a span, with the attributes of its conventions for generative AI.

The names: https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/. No attribute holds text
of a client or a model. Spans are sent in batches by a thread of their own, by OTLP over HTTP; the
exporter's environment variables (OTEL_EXPORTER_OTLP_HEADERS…) apply. A span is a child of the
client's `traceparent`; without one, its trace id is our trace's id.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING

from proxy.http.asgi import Headers, header
from store.distribution import install_hint
from store.errors import ConfigError
from store.records import (
    Outcome,
    Trace,
)

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

Value = str | int | float | bool | list[str]

_SERVICE = "understudy"
_NS = 1_000_000_000


def attributes_of(trace: Trace) -> dict[str, Value]:
    """The attributes of a trace's span, without unknown ones."""
    attributes: Mapping[str, Value | None] = {
        "gen_ai.operation.name": trace.operation_name,
        "gen_ai.provider.name": trace.provider_name or _SERVICE,  # a student is our own
        "gen_ai.request.model": trace.request_model,
        "gen_ai.response.model": trace.response_model,
        "gen_ai.response.id": trace.response_id,
        "gen_ai.response.finish_reasons": trace.finish_reasons or None,
        "gen_ai.usage.input_tokens": trace.input_tokens,
        "gen_ai.usage.output_tokens": trace.output_tokens,
        "http.response.status_code": trace.status_code,
        "error.type": _error_type(trace),
        "understudy.trace_id": trace.trace_id,
        "understudy.task": trace.task,
        "understudy.api": trace.api,
        "understudy.route": trace.route,
        "understudy.reason": trace.reason,
        "understudy.outcome": trace.outcome,
        "understudy.student_id": trace.student_id,
        "understudy.confidence": trace.confidence,
        "understudy.tokens_estimated": trace.tokens_estimated or None,
    }
    return {name: value for name, value in attributes.items() if value is not None}


def _error_type(trace: Trace) -> str | None:
    if trace.outcome == Outcome.COMPLETE:
        return None
    return trace.error_type or str(trace.outcome)


class Spans:
    """Makes spans of traces. A watcher (proxy.observe.recorder)."""

    def __init__(self, exporter: SpanExporter) -> None:
        """Needs the packages of the extra `otel`."""
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - half a second
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
        from opentelemetry.sdk.trace.id_generator import RandomIdGenerator  # noqa: PLC0415
        from opentelemetry.trace import SpanKind, Status, StatusCode  # noqa: PLC0415
        from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415
            TraceContextTextMapPropagator,
        )

        class Ids(RandomIdGenerator):
            """Gives a span without a parent the id set before."""

            next_trace_id = 0

            def generate_trace_id(self) -> int:
                return self.next_trace_id

        self._ids = Ids()
        name = os.environ.get("OTEL_SERVICE_NAME", _SERVICE)
        self._provider = TracerProvider(
            resource=Resource.create({"service.name": name}), id_generator=self._ids
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("understudy")
        self._propagator = TraceContextTextMapPropagator()
        self._kind = SpanKind.CLIENT
        self._failed = Status(StatusCode.ERROR)

    def __call__(self, trace: Trace, headers: Headers) -> None:
        """Hands a trace's span to the exporter's thread."""
        carrier = {
            name: value.decode("latin-1")
            for name in ("traceparent", "tracestate")
            if (value := header(headers, name.encode())) is not None
        }
        self._ids.next_trace_id = uuid.UUID(trace.trace_id).int
        span = self._tracer.start_span(
            f"{trace.operation_name} {trace.request_model}",
            context=self._propagator.extract(carrier) if carrier else None,
            kind=self._kind,
            attributes=attributes_of(trace),
            start_time=int(trace.start_time * _NS),
        )
        if trace.outcome != Outcome.COMPLETE:
            span.set_status(self._failed)
        span.end(int(trace.end_time * _NS))

    def close(self) -> None:
        """Sends what waits. Blocks for as long as the exporter's time limit."""
        self._provider.shutdown()


def spans_to(endpoint: str) -> Spans:
    """Spans that go to an OTLP endpoint, such as http://localhost:4318. Raises ConfigError."""
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter,
        )
    except ImportError:
        raise ConfigError(
            f"telemetry.otlp_endpoint needs OpenTelemetry: {install_hint('otel')}"
        ) from None
    return Spans(OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces"))
