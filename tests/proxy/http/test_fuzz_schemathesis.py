"""Requests that schemathesis makes from the proxy's own OpenAPI document, against a running proxy.

Each gets a proper answer, and each answer that names a trace has it in the journal, once. A longer
run, with other requests than last time:

    UNDERSTUDY_FUZZ_EXAMPLES=2000 UNDERSTUDY_FUZZ_SEED=$RANDOM \\
        .venv/bin/python -m pytest tests/test_fuzz_*.py --timeout 3600

The examples are those of one operation in one mode; a failure is printed with the request that
causes it, and the same seed finds it again.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
import yaml
from hypothesis import HealthCheck, Phase, given, seed
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    positive_data_acceptance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

import proxy
from proxy.app import SURFACES
from proxy.routing.decision import HONOURED
from store.chat.shape import fingerprint
from tests.helpers.api_teacher import in_few_words
from tests.helpers.serving import ProxyThread, settings, student_route, wait_until
from tests.helpers.teacher_server import LoopbackServer, completion

pytestmark = pytest.mark.xdist_group("schemathesis")  # one proxy for all of them

EXAMPLES = int(os.environ.get("UNDERSTUDY_FUZZ_EXAMPLES", "10"))
SEED = int(os.environ.get("UNDERSTUDY_FUZZ_SEED", "0"))
WITHIN_S = 60  # a hang guard: no answer takes a hundredth of it
MODEL = "gpt-4o"
TASK = "mood"
SYSTEM = "Label it."

Mode = schemathesis.GenerationMode
DOCUMENT = yaml.safe_load((Path(proxy.__file__).parent / "openapi.yaml").read_text("utf-8"))
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
OPERATIONS = [found.ok() for found in SCHEMA.get_all_operations()]
ANSWERED = [surface.path for surface in SURFACES]
INTEGERS = ("n", "max_tokens", "max_completion_tokens", "max_output_tokens")
# those that can be asked wrongly; every path is a model's name
WITH_INPUT = [
    operation
    for operation in OPERATIONS
    if operation.body or operation.query or "{response_id}" in operation.path
]
FOR_STUDENTS = [
    operation
    for operation in OPERATIONS
    if operation.path in ("/v1/chat/completions", "/v1/responses", "/v1/messages")
]
LOOKUPS = [operation for operation in OPERATIONS if operation.path.startswith("/v1/responses/")]
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
SHAPE = {"model": MODEL, "messages": [{"role": "system", "content": SYSTEM}]}
HOW = hypothesis_settings(
    max_examples=EXAMPLES,
    database=None,
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)


@dataclass
class Scene:
    """A proxy with a teacher and the student of one task, and the traces that it has told of."""

    proxy: ProxyThread
    session: requests.Session
    told: list[str] = field(default_factory=list)
    routes: Counter[str] = field(default_factory=Counter)

    def ask(self, case: schemathesis.Case) -> schemathesis.Response:
        answer = case.call(base_url=self.proxy.url, session=self.session, timeout=WITHIN_S)
        for trace_id in answer.headers.get("x-understudy-trace", ()):
            self.told.append(trace_id)
            self.routes.update(answer.headers["x-understudy-route"])
        return answer


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with (
        LoopbackServer(in_few_words) as teacher,
        LoopbackServer(lambda _: completion("good", logprobs=[-0.1, -0.02])) as student,
        ProxyThread(settings(teacher.base_url, tmp_path_factory.mktemp("fuzz"))) as proxy,
        requests.Session() as session,
    ):
        route = student_route(TASK, student.url, fingerprint(SHAPE), max_input_chars=10**6)
        proxy.publish(route)
        wait_until(lambda: session.get(f"{proxy.url}/health").json()["routes"]["students"])
        yield Scene(proxy, session)


@pytest.fixture
def scene(running: Scene) -> Iterator[Scene]:
    """On exit checks the journal: each acknowledged trace once, and no others."""
    running.routes.clear()
    yield running
    assert running.session.get(f"{running.proxy.url}/health").json()["status"] == "ok"
    lines = running.proxy.traces()
    traces = [t["trace_id"] for t in lines if "trace_id" in t and "outcome" in t]
    assert Counter(traces) == Counter(running.told)


def for_the_teacher(case: schemathesis.Case) -> None:
    """Names a model that there is, or else hardly any request would come further.

    And 1.0 is an integer to JSON Schema, and none to OpenAI.
    """
    if not isinstance(case.body, dict):
        return
    if isinstance(case.body.get("model"), str):
        case.body["model"] = MODEL
    for name in INTEGERS:
        if isinstance(case.body.get(name), float) and case.body[name].is_integer():
            case.body[name] = int(case.body[name])


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.label)
@pytest.mark.slow
def test_requests_that_the_openapi_document_allows_are_answered(
    scene: Scene, operation: Any
) -> None:
    @seed(SEED)
    @HOW
    @given(operation.as_strategy(Mode.POSITIVE))
    def each(case: schemathesis.Case) -> None:
        for_the_teacher(case)
        if case.path == "/v1/feedback" and case.body.get("correction"):
            case.headers.pop("X-Understudy-Store", None)  # who opts out gives no correction
        answer = scene.ask(case)
        case.validate_response(answer, checks=[*CHECKS, positive_data_acceptance])

    each()


@pytest.mark.parametrize("operation", WITH_INPUT, ids=lambda operation: operation.label)
@pytest.mark.slow
def test_requests_that_the_openapi_document_forbids_do_no_harm(
    scene: Scene, operation: Any
) -> None:
    """And is refused, where it does not go to the teacher as it is."""

    @seed(SEED)
    @HOW
    @given(operation.as_strategy(Mode.NEGATIVE))
    def each(case: schemathesis.Case) -> None:
        for_the_teacher(case)
        answer = scene.ask(case)
        metadata = case.body.get("metadata") if isinstance(case.body, dict) else None
        told = isinstance(metadata, dict) and "task" in metadata
        # a tag in the header wins, whatever is in the body
        sure = operation.path in ANSWERED and not (told and "X-Understudy-Task" in case.headers)
        refused = [negative_data_rejection] if sure else []
        case.validate_response(answer, checks=[*CHECKS, *refused])

    each()


def certified(case: schemathesis.Case) -> None:
    """Makes the request one that the student may answer, as far as its shape goes."""
    for_the_teacher(case)
    body: Any = case.body
    case.headers["X-Understudy-Task"] = TASK
    if case.path == "/v1/responses":
        asked = body.get("input")
        said = asked if isinstance(asked, str) else "I am glad"
        body.update(model=MODEL, instructions=SYSTEM, input=said)
        kept = {"model", "instructions", "input", "stream", "store", "temperature", "metadata"}
    else:
        said = [m["content"] for m in body["messages"] if isinstance(m.get("content"), str)]
        messages = [{"role": "user", "content": text} for text in said or ["I am glad"]]
        if case.path == "/v1/messages":
            body["system"] = SYSTEM
        else:
            messages.insert(0, SHAPE["messages"][0])
        body["messages"] = messages
        kept = HONOURED | {"system", "stop_sequences"}
    for name in list(body):
        if name not in kept or name == "response_format":
            del body[name]


@pytest.mark.parametrize("operation", FOR_STUDENTS, ids=lambda operation: operation.label)
@pytest.mark.slow
def test_a_students_requests(scene: Scene, operation: Any) -> None:
    @seed(SEED)
    @HOW
    @given(operation.as_strategy(Mode.POSITIVE))
    def each(case: schemathesis.Case) -> None:
        certified(case)
        answer = scene.ask(case)
        case.validate_response(answer, checks=CHECKS)
        assert answer.status_code == 200

    each()
    assert scene.routes["student"] > EXAMPLES // 3, scene.routes


@pytest.mark.parametrize("operation", LOOKUPS, ids=lambda operation: operation.label)
def test_looking_up_a_students_response(scene: Scene, operation: Any) -> None:
    """Ids that are ours, among all else that is said of them."""
    headers = {"X-Understudy-Task": TASK}
    asked = {"model": MODEL, "instructions": SYSTEM, "input": "I am glad"}

    def kept() -> str:
        answer = scene.session.post(
            f"{scene.proxy.base_url}/responses", json=asked, headers=headers
        )
        scene.told.append(answer.headers["x-understudy-trace"])
        assert answer.headers["x-understudy-route"] == "student"
        return str(answer.json()["id"])

    @seed(SEED)
    @HOW
    @given(
        operation.as_strategy(Mode.POSITIVE) | operation.as_strategy(Mode.NEGATIVE), st.booleans()
    )
    def each(case: schemathesis.Case, in_parts: bool) -> None:
        if "response_id" in case.path_parameters:
            case.path_parameters["response_id"] = kept()
        elif isinstance(case.body, dict):
            item = {"type": "item_reference", "id": kept()}
            case.body |= {"input": [item]} if in_parts else {"previous_response_id": item["id"]}
        answer = scene.ask(case)
        case.validate_response(answer, checks=CHECKS)

    each()
