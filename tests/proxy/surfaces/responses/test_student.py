"""The Responses API where a student is certified: its answers, and the teacher in its place."""

import json

import httpx
import pydantic
import pytest

from store.chat.shape import fingerprint
from tests.helpers.responses_scene import BODY, TAG, good, post, publish, sure
from tests.helpers.responses_teacher import echo, response
from tests.helpers.serving import wait_until
from tests.helpers.teacher_server import LoopbackServer, completion, error

SCHEMA = {
    "type": "object",
    "properties": {"label": {"type": "string"}},
    "required": ["label"],
    "additionalProperties": False,
}
FUNCTION = {"type": "function", "name": "book", "strict": True, "parameters": SCHEMA}


class Label(pydantic.BaseModel):
    label: str


@pytest.fixture
def student(teacher):
    teacher.answer = echo
    with LoopbackServer(good) as server:
        yield server


def said(events):
    return "".join(e.delta for e in events if e.type == "response.output_text.delta")


@pytest.mark.slow
def test_the_student_answers(client, proxy, student, teacher):
    publish(proxy, student)
    raw = client.responses.with_raw_response.create(**BODY, user="u-7", extra_headers=TAG)
    found = raw.parse()
    assert (found.output_text, found.status, found.model) == ("good", "completed", "gpt-4o")
    assert (found.instructions, found.user) == ("Label it.", "u-7")
    assert (found.usage.input_tokens, found.usage.output_tokens) == (7, 3)
    assert raw.headers["x-understudy-route"] == "student"
    assert raw.headers["x-request-id"].startswith("req_")
    assert student.requests[0].json["messages"] == [
        {"role": "system", "content": "Label it."},
        {"role": "user", "content": "I am glad"},
    ]
    [trace] = proxy.traces()
    assert (trace["api"], trace["served_by"], trace["student_id"]) == (
        "responses",
        "student",
        "run-1",
    )
    assert json.loads(trace["output_messages"]) == [{"role": "assistant", "content": "good"}]
    assert (trace["finish_reasons"], trace["response_id"]) == (["stop"], found.id)
    assert (trace["input_tokens"], trace["end_user"]) == (7, "u-7")
    assert teacher.requests == []


@pytest.mark.slow
def test_a_stream(client, proxy, student, teacher):
    publish(proxy, student)
    raw = client.responses.with_raw_response.create(**BODY, stream=True, extra_headers=TAG)
    assert raw.headers["content-type"].startswith("text/event-stream")
    events = list(raw.parse())
    assert said(events) == "good"
    assert events[-1].response.output_text == "good"
    with client.responses.stream(**BODY, extra_headers=TAG) as stream:
        for _ in stream:
            pass
        assert stream.get_final_response().output_text == "good"
    assert [trace["served_by"] for trace in proxy.traces()] == ["student", "student"]
    assert teacher.requests == []


@pytest.mark.slow
def test_a_pydantic_model(client, proxy, student, teacher):
    student.answer = lambda request: sure('{"label": "good"}')
    schema = {"name": "Label", "strict": True, "schema": {**SCHEMA, "title": "Label"}}
    schema["schema"]["properties"] = {"label": {"title": "Label", "type": "string"}}
    publish(proxy, student, {**BODY, "text": {"format": {"type": "json_schema", **schema}}})
    found = client.responses.parse(**BODY, text_format=Label, extra_headers=TAG)
    assert found.output_parsed == Label(label="good")
    with client.responses.stream(**BODY, text_format=Label, extra_headers=TAG) as stream:
        assert stream.get_final_response().output_parsed == Label(label="good")
    student.answer = lambda request: sure('{"mark": "good"}')
    teacher.script(response('{"label": "bad"}'))
    found = client.responses.parse(**BODY, text_format=Label, extra_headers=TAG)
    assert found.output_parsed == Label(label="bad")
    assert [trace["served_by"] for trace in proxy.traces()] == ["student", "student", "teacher"]


@pytest.mark.slow
def test_tool_calls(client, proxy, student, teacher):
    student.answer = lambda request: sure('{"name":"book","arguments":{"label":"a"}}')
    publish(proxy, student, {**BODY, "tools": [FUNCTION]}, output="tools")
    raw = client.responses.with_raw_response.create(**BODY, tools=[FUNCTION], extra_headers=TAG)
    assert raw.headers["x-understudy-route"] == "student"
    [call] = raw.parse().output
    assert (call.type, call.name, call.arguments) == ("function_call", "book", '{"label":"a"}')
    with client.responses.stream(**BODY, tools=[FUNCTION], extra_headers=TAG) as stream:
        [call] = stream.get_final_response().output
    assert call.parsed_arguments == {"label": "a"}
    assert [trace["finish_reasons"] for trace in proxy.traces()] == [["tool_calls"]] * 2


FAULTS = {
    "error status": (lambda request: error(500, "boom"), {}, "student_error"),
    "unsure": (good, {"cutoff": -0.05}, "student_unsure"),
    "cut off": (lambda request: sure("goo", finish_reason="length"), {}, "student_cut_off"),
    "slow": (lambda request: sure("good").slow(5), {"timeout_s": 0.2}, "student_slow"),
    "no json": (good, {"output": "json"}, "student_malformed"),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.slow
def test_the_teacher_answers_when_the_students_answer_may_not_be_served(
    name, stream, client, proxy, student, teacher
):
    student.answer, changes, reason = FAULTS[name]
    publish(proxy, student, **changes)
    raw = client.responses.with_raw_response.create(**BODY, stream=stream, extra_headers=TAG)
    answer = raw.parse()
    assert (said(answer) if stream else answer.output_text) == "echo: I am glad"
    assert raw.headers["x-understudy-route"] == "fallback"
    assert raw.headers["x-understudy-reason"] == reason
    [trace] = proxy.traces()
    assert (trace["served_by"], trace["outcome"]) == ("teacher", "complete")
    assert teacher.requests[0].path == "/v1/responses"


@pytest.mark.slow
def test_one_task_through_both_apis(client, proxy, student):
    """The equal chat completion has the same fingerprint, and so the same student."""
    publish(proxy, student)
    messages = [
        {"role": "system", "content": "Label it."},
        {"role": "user", "content": "I am glad"},
    ]
    client.chat.completions.create(model="gpt-4o", messages=messages, extra_headers=TAG)
    client.responses.create(**BODY, extra_headers=TAG)
    one, other = proxy.traces()
    assert (
        one["fingerprint"]
        == other["fingerprint"]
        == fingerprint({"model": "gpt-4o", "messages": messages})
    )
    assert one["input_hash"] == other["input_hash"]
    assert (one["route"], other["route"]) == ("student", "student")
    assert (one["api"], other["api"]) == ("chat_completions", "responses")


BEYOND = {
    "image": {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
    "conversation": {"conversation": "conv_1"},
    "background": {"background": True},
    "include": {"include": ["reasoning.encrypted_content"]},
    "another prompt": {"instructions": "Sort it."},
}


@pytest.mark.parametrize("name", BEYOND)
@pytest.mark.slow
def test_requests_that_are_left_to_the_teacher(name, proxy, student, teacher):
    publish(proxy, student)
    teacher.answer = lambda request: completion("any")
    got = post(proxy, {**BODY, **BEYOND[name]})
    assert got.headers["x-understudy-route"] == "teacher"
    assert student.requests == []
    assert teacher.requests[0].json == {**BODY, **BEYOND[name]}


@pytest.mark.slow
def test_the_client_hangs_up_on_a_student(proxy, student, teacher):
    student.answer = lambda request: sure("good").slow(30)
    publish(proxy, student, timeout_s=60.0)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{proxy.base_url}/responses", json=BODY, headers=TAG, timeout=0.3)
    [trace] = proxy.wait_for_traces(1)
    assert (trace["outcome"], trace["route"]) == ("client_gone", "student")
    assert teacher.requests == []
    assert not list(proxy.config.responses_dir.rglob("*.json"))
    wait_until(lambda: student.hang_ups == 1)
