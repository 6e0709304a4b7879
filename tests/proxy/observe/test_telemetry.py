"""Traces as OpenTelemetry's spans, at a collector that takes OTLP over HTTP."""

import gzip
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from proxy.observe.telemetry import attributes_of
from store.records import Outcome
from tests.helpers.samples import a_trace
from tests.helpers.serving import ProxyThread, settings
from tests.helpers.teacher_server import DROP, LoopbackServer

SECRET = "canary-4711"


class Collector:
    """A real server that keeps the spans which it is sent."""

    def __init__(self):
        self.bodies, self.spans, self.services = [], [], set()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                assert self.path == "/v1/traces"
                collector.take(body)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def take(self, body):
        self.bodies.append(body)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            named = {a.key: a.value.string_value for a in resource.resource.attributes}
            self.services.add(named["service.name"])
            for scope in resource.scope_spans:
                self.spans.extend(scope.spans)

    def __enter__(self):
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()


def values(span):
    found = {}
    for attribute in span.attributes:
        kind = attribute.value.WhichOneof("value")
        value = getattr(attribute.value, kind)
        if kind == "array_value":
            value = [one.string_value for one in value.values]
        found[attribute.key] = value
    return found


@pytest.fixture
def spans(tmp_path):
    """The spans of three requests: a plain one, one with a parent, one that failed."""
    with Collector() as collector, LoopbackServer() as teacher:
        raw = settings(teacher.base_url, tmp_path, telemetry={"otlp_endpoint": collector.url})
        with ProxyThread(raw) as proxy:

            def ask(**headers):
                return httpx.post(
                    f"{proxy.base_url}/chat/completions",
                    json={
                        "model": "gpt-4o",
                        "messages": [{"role": "user", "content": SECRET}],
                    },
                    headers=headers,
                    timeout=30,
                )

            first = ask(**{"X-Understudy-Task": "triage"})
            ask(traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
            teacher.script(DROP, DROP)
            ask()
        collector.first_trace = first.headers["x-understudy-trace"]
        yield collector


@pytest.mark.slow
def test_each_trace_is_a_span_with_the_attributes_of_the_conventions(spans):
    assert spans.services == {"understudy"}
    plain, _, failed = spans.spans
    found = values(plain)
    assert plain.name == "chat gpt-4o"
    assert found["gen_ai.operation.name"] == "chat"
    assert found["gen_ai.provider.name"] == "openai"
    assert found["gen_ai.request.model"] == "gpt-4o"
    assert found["gen_ai.response.model"] == "gpt-4o-2024-08-06"
    assert found["gen_ai.response.finish_reasons"] == ["stop"]
    assert (found["gen_ai.usage.input_tokens"], found["gen_ai.usage.output_tokens"]) == (7, 3)
    assert found["understudy.task"] == "triage" and found["understudy.route"] == "teacher"
    assert found["understudy.trace_id"] == spans.first_trace
    assert "error.type" not in found and plain.status.code == 0
    assert plain.end_time_unix_nano > plain.start_time_unix_nano > 1.7e18
    assert values(failed)["error.type"] == "teacher_down" and failed.status.code == 2
    assert values(failed)["http.response.status_code"] == 502


@pytest.mark.slow
def test_a_span_belongs_to_its_callers_trace_else_to_ours(spans):
    plain, child, _ = spans.spans
    assert plain.trace_id == uuid.UUID(spans.first_trace).bytes and plain.parent_span_id == b""
    assert child.trace_id.hex() == "0af7651916cd43dd8448eb211c80319c"
    assert child.parent_span_id.hex() == "b7ad6b7169203331"


@pytest.mark.slow
def test_no_span_holds_a_clients_text(spans):
    assert spans.bodies and not any(SECRET.encode() in body for body in spans.bodies)


def test_an_exchange_that_broke_off_names_its_outcome():
    trace = a_trace(outcome=Outcome.CLIENT_GONE, error_type=None)
    assert attributes_of(trace)["error.type"] == "client_gone"
