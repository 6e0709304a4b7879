"""A certified task's requests: answered by its student, or by the teacher before a byte is seen."""

import json

import httpx
import openai
import pytest

from store.chat.confidence import confidence_of
from store.chat.shape import fingerprint
from store.chat.student_wire import read_student_answer
from store.records import ConfidenceModel
from tests.helpers.serving import student_route, wait_until
from tests.helpers.teacher_server import DROP, LoopbackServer, Reply, completion, error

MESSAGES = [{"role": "system", "content": "Label it."}, {"role": "user", "content": "I am glad"}]
BODY = {"model": "gpt-4o", "messages": MESSAGES}
SCHEMA = {
    "type": "object",
    "properties": {"label": {"enum": ["good", "bad"]}},
    "required": ["label"],
    "additionalProperties": False,
}
JSON_OBJECT = {"type": "json_object"}
JSON_SCHEMA = {
    "type": "json_schema",
    "json_schema": {"name": "l", "strict": True, "schema": SCHEMA},
}


def sure(text, **more):
    return completion(text, model="default_model", logprobs=[-0.1, -0.02], **more)


@pytest.fixture
def student():
    with LoopbackServer(lambda request: sure("good")) as server:
        yield server


@pytest.fixture
def publish(proxy, student):
    """Publishes a route to the student and waits until the proxy follows it."""

    def go(body=BODY, **changes):
        proxy.publish(student_route("mood", student.url, fingerprint(body), **changes))
        wait_until(lambda: httpx.get(f"{proxy.url}/health").json()["routes"]["students"] == 1)

    return go


@pytest.fixture
def ask(client):
    """Asks through the SDK; gives the headers and the answer, streamed ones put together."""

    def go(stream=False, **more):
        raw = client.chat.completions.with_raw_response.create(
            **{**BODY, **more}, stream=stream, extra_headers={"X-Understudy-Task": "mood"}
        )
        answer = raw.parse()
        if stream:
            answer = list(answer)
        return raw.headers, answer

    return go


def said(answer):
    if isinstance(answer, list):
        return "".join(c.choices[0].delta.content or "" for c in answer if c.choices)
    return answer.choices[0].message.content


@pytest.mark.slow
def test_a_route_is_followed_without_a_restart(ask, publish, proxy, teacher, student):
    headers, answer = ask()
    assert (said(answer), headers["x-understudy-reason"]) == ("echo: I am glad", "no_student")
    publish()
    headers, answer = ask()
    assert said(answer) == "good"
    assert headers["x-understudy-route"] == "student"
    assert headers["x-understudy-reason"] == "certified"
    proxy.publish()
    wait_until(lambda: ask()[0]["x-understudy-route"] == "teacher")
    proxy.config.routes_file.write_text("{ not a routes file")
    wait_until(lambda: httpx.get(f"{proxy.url}/health").json()["routes"]["error"])
    assert said(ask()[1]) == "echo: I am glad"


@pytest.mark.slow
def test_the_answer_has_openais_form(ask, publish, proxy, teacher, student):
    publish()
    headers, answer = ask(user="u-7")
    assert answer.id.startswith("chatcmpl-")
    assert answer.object == "chat.completion"
    assert answer.model == "gpt-4o"
    assert answer.created > 1_600_000_000
    assert answer.system_fingerprint.startswith("fp_")
    [choice] = answer.choices
    assert (choice.index, choice.finish_reason, choice.logprobs) == (0, "stop", None)
    assert (choice.message.role, choice.message.refusal) == ("assistant", None)
    usage = answer.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (7, 3, 10)
    assert headers["content-type"] == "application/json"
    assert headers["x-request-id"].startswith("req_")
    [trace] = proxy.traces()
    assert (trace["route"], trace["served_by"]) == ("student", "student")
    assert (trace["student_id"], trace["confidence"]) == ("run-1", -0.1)
    assert 0 < trace["student_ms"] <= trace["duration_ms"]
    assert json.loads(trace["output_messages"])[0]["content"] == "good"
    assert (trace["response_model"], trace["provider_name"]) == ("gpt-4o", None)
    assert (trace["outcome"], trace["end_user"]) == ("complete", "u-7")
    assert trace["response_id"] == answer.id
    assert teacher.requests == []


@pytest.mark.parametrize("usage", [False, True])
@pytest.mark.slow
def test_a_stream_has_openais_form(usage, ask, publish, proxy, teacher):
    publish()
    options = {"stream_options": {"include_usage": True}} if usage else {}
    headers, chunks = ask(stream=True, **options)
    assert said(chunks) == "good"
    assert headers["content-type"].startswith("text/event-stream")
    assert len({chunk.id for chunk in chunks}) == 1
    assert {chunk.model for chunk in chunks} == {"gpt-4o"}
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert chunks[0].choices[0].delta.role == "assistant"
    with_choices = [chunk for chunk in chunks if chunk.choices]
    assert [c.choices[0].finish_reason for c in with_choices] == [None, None, "stop"]
    if usage:
        assert chunks[-1].choices == []
        assert chunks[-1].usage.total_tokens == 10
        assert all(chunk.usage is None for chunk in chunks[:-1])
    else:
        assert len(with_choices) == len(chunks)
    [trace] = proxy.traces()
    assert (trace["served_by"], trace["stream"]) == ("student", True)
    assert trace["time_to_first_chunk_ms"] > 0
    assert teacher.requests == []


@pytest.mark.slow
def test_a_stream_ends_with_done(publish, proxy):
    publish()
    response = httpx.post(
        f"{proxy.base_url}/chat/completions",
        json={**BODY, "stream": True},
        headers={"x-understudy-task": "mood"},
    )
    assert response.text.endswith("data: [DONE]\n\n")


@pytest.mark.slow
def test_the_student_gets_only_allowed_fields(ask, publish, student):
    publish(max_tokens=40)
    ask(temperature=0.9, max_tokens=20, stop="\n", user="u1", metadata={"team": "a"})
    ask(max_completion_tokens=99, stop=["a", "b"])
    first, second = (request.json for request in student.requests)
    assert first == {
        "model": "default_model",
        "messages": MESSAGES,
        "max_tokens": 20,
        "temperature": 0.0,
        "logprobs": True,
        "top_logprobs": 2,
        "stream": False,
        "stop": ["\n"],
    }
    assert (second["max_tokens"], second["stop"]) == (40, ["a", "b"])
    assert "authorization" not in student.requests[0].headers


FAULTS = {
    "error status": (lambda request: error(500, "boom"), {}, "student_error"),
    "hangs up": (lambda request: DROP, {}, "student_down"),
    "breaks off": (lambda request: sure("good").broken(1), {}, "student_down"),
    "slow": (lambda request: sure("good").slow(5), {"timeout_s": 0.2}, "student_slow"),
    "slow body": (lambda request: sure("good").paced(5), {"timeout_s": 0.2}, "student_slow"),
    "unsure": (lambda request: sure("good"), {"cutoff": -0.05}, "student_unsure"),
    "says not how sure": (
        lambda request: completion("good"),
        {"cutoff": -0.05},
        "student_unsure",
    ),
    "cut off": (lambda request: sure("goo", finish_reason="length"), {}, "student_cut_off"),
    "empty": (lambda request: sure(""), {}, "student_malformed"),
    "no json": (lambda request: sure("good"), {"output": "json"}, "student_malformed"),
    "no completion": (lambda request: Reply((b"<html>",)), {}, "student_error"),
    "other json": (lambda request: Reply((b'{"a":1}',)), {}, "student_error"),
    "malformed and unsure": (
        lambda request: sure("good"),
        {"output": "json", "cutoff": -0.05},
        "student_malformed",
    ),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.slow
def test_the_teacher_answers_when_the_students_answer_may_not_be_served(
    name, stream, ask, publish, proxy, teacher, student
):
    student.answer, changes, reason = FAULTS[name]
    publish(**changes)
    headers, answer = ask(stream=stream)
    assert said(answer) == "echo: I am glad"
    assert headers["x-understudy-route"] == "fallback"
    assert headers["x-understudy-reason"] == reason
    [trace] = proxy.traces()
    assert (trace["route"], trace["reason"]) == ("fallback", reason)
    assert (trace["served_by"], trace["student_id"]) == ("teacher", "run-1")
    assert trace["student_ms"] > 0
    assert trace["outcome"] == "complete"
    assert json.loads(trace["output_messages"])[0]["content"] == "echo: I am glad"
    assert len(teacher.requests) == 1


@pytest.mark.slow
def test_the_teacher_answers_when_the_student_is_gone(ask, publish, student, proxy):
    publish()
    student.close()
    headers, answer = ask()
    assert said(answer) == "echo: I am glad"
    assert headers["x-understudy-reason"] == "student_down"


@pytest.mark.slow
def test_the_teachers_error_is_what_a_fallback_gives(ask, publish, teacher, student, proxy):
    publish(cutoff=-0.05)
    teacher.script(error(429, "slow down"))
    with pytest.raises(openai.RateLimitError) as caught:
        ask()
    assert caught.value.response.headers["x-understudy-route"] == "fallback"
    assert proxy.traces()[0]["confidence"] == -0.1


@pytest.mark.slow
def test_a_cutoff_that_is_met(ask, publish):
    publish(cutoff=-0.1)
    assert ask()[0]["x-understudy-route"] == "student"


@pytest.mark.parametrize(("above", "route"), [(-1e-9, "student"), (1e-9, "fallback")])
@pytest.mark.slow
def test_the_cutoff_is_for_the_confidence_of_the_routes_model(above, route, ask, publish, proxy):
    model = ConfidenceModel(intercept=-1.0, weights={"mean": 0.5, "rivals": 0.75})
    signals = read_student_answer(sure("good").chunks[0]).signals
    confidence = confidence_of(signals, model)
    assert 0.5 < confidence < 1
    publish(confidence=model, cutoff=confidence + above)
    assert ask()[0]["x-understudy-route"] == route
    [trace] = proxy.traces()
    assert trace["confidence"] == confidence


@pytest.mark.slow
def test_an_answer_without_logprobs_has_no_confidence(ask, publish, proxy, student):
    student.answer = lambda request: completion("good")
    publish(confidence=ConfidenceModel(intercept=9.0, weights={}))
    assert ask()[0]["x-understudy-route"] == "student"
    [trace] = proxy.traces()
    assert trace["confidence"] is None


@pytest.mark.parametrize(
    ("asked", "text", "route"),
    [
        ({"type": "text"}, "good", "student"),
        (JSON_OBJECT, '{"label": "good"}', "student"),
        (JSON_OBJECT, '["good"]', "fallback"),
        (JSON_OBJECT, "good", "fallback"),
        (JSON_SCHEMA, '{"label": "good"}', "student"),
        (JSON_SCHEMA, '{"label": "fine"}', "fallback"),
        (JSON_SCHEMA, '{"label": "good", "more": 1}', "fallback"),
        (JSON_SCHEMA, '{"label": "good"', "fallback"),
        ({"type": "json_schema"}, "{}", "fallback"),
        ({"type": "json_schema", "json_schema": {"schema": {"type": 7}}}, "{}", "fallback"),
        ({"type": "of the future"}, "good", "fallback"),
    ],
)
@pytest.mark.slow
def test_the_requested_format_is_kept(asked, text, route, ask, publish, student):
    student.answer = lambda request: sure(text)
    publish({**BODY, "response_format": asked})
    headers, _ = ask(response_format=asked)
    assert headers["x-understudy-route"] == route
    if route == "fallback":
        assert headers["x-understudy-reason"] == "student_malformed"


@pytest.mark.slow
def test_a_schema_is_never_fetched(ask, publish, student):
    """A `$ref` to elsewhere is an address that a client names."""
    with LoopbackServer() as elsewhere:
        schema = {"$ref": f"{elsewhere.url}/schema.json"}
        asked = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        student.answer = lambda request: sure("{}")
        publish({**BODY, "response_format": asked})
        headers, _ = ask(response_format=asked)
        assert headers["x-understudy-reason"] == "student_malformed"
        assert elsewhere.requests == []


@pytest.mark.slow
def test_the_client_hangs_up_on_a_student(publish, proxy, student, teacher):
    student.answer = lambda request: sure("good").slow(30)
    publish(timeout_s=60.0)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{proxy.base_url}/chat/completions",
            json=BODY,
            headers={"x-understudy-task": "mood"},
            timeout=0.3,
        )
    [trace] = proxy.wait_for_traces(1)
    assert (trace["outcome"], trace["route"]) == ("client_gone", "student")
    assert (trace["served_by"], trace["student_id"]) == (None, "run-1")
    assert teacher.requests == []
    wait_until(lambda: student.hang_ups == 1)


@pytest.mark.slow
def test_another_tasks_student_is_never_asked(client, publish, student):
    publish()
    client.chat.completions.create(**BODY)
    client.chat.completions.create(**BODY, extra_headers={"X-Understudy-Task": "other"})
    client.chat.completions.create(
        **BODY, extra_headers={"X-Understudy-Task": "mood"}, extra_body={"adapters": "/tmp/x"}
    )
    assert student.requests == []
