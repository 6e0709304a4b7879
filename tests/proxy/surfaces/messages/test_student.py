"""A certified task's Messages requests: answered by its student in Anthropic's form."""

import json

import anthropic
import httpx
import pytest
from pydantic import BaseModel

from proxy.surfaces.messages.view import chat_view
from store.chat.shape import fingerprint
from store.chat.tools import target_of
from tests.helpers.message_samples import echo, refused, said, sure
from tests.helpers.serving import CLIENT_KEY, student_route, wait_until
from tests.helpers.teacher_server import DROP, LoopbackServer

SYSTEM = [{"type": "text", "text": "Label it.", "cache_control": {"type": "ephemeral"}}]
HELLO = [{"role": "user", "content": "I am glad"}]
BODY = {"model": "gpt-4o", "max_tokens": 64, "system": SYSTEM, "messages": HELLO}
SCHEMA = {
    "type": "object",
    "properties": {"seats": {"type": "integer"}},
    "required": ["seats"],
    "additionalProperties": False,
}
TOOL = {"name": "book", "description": "Books.", "input_schema": SCHEMA}


def calls(*seats):
    """A student's text that books so many seats, a call each."""
    functions = [{"name": "book", "arguments": json.dumps({"seats": n})} for n in seats]
    return target_of({"tool_calls": [{"function": function} for function in functions]})


@pytest.fixture
def teacher():
    with LoopbackServer(echo) as server:
        yield server


@pytest.fixture
def student():
    with LoopbackServer(lambda request: sure("good")) as server:
        yield server


@pytest.fixture
def client(proxy):
    with anthropic.Anthropic(base_url=proxy.url, api_key=CLIENT_KEY, max_retries=0) as sdk:
        yield sdk.with_options(default_headers={"X-Understudy-Task": "mood"})


@pytest.fixture
def publish(proxy, student):
    """Publishes a route to the student for requests such as a body, and waits for the proxy."""

    def go(body=BODY, **changes):
        shape = fingerprint(chat_view(body))
        proxy.publish(student_route("mood", student.url, shape, **changes))
        wait_until(lambda: httpx.get(f"{proxy.url}/health").json()["routes"]["students"] == 1)

    return go


@pytest.mark.slow
def test_the_answer_has_anthropics_form(client, publish, proxy, teacher, student):
    publish()
    raw = client.messages.with_raw_response.create(**BODY, metadata={"user_id": "u-7"})
    assert raw.headers["x-understudy-route"] == "student"
    assert raw.headers["content-type"] == "application/json"
    assert raw.headers["request-id"].startswith("req_")
    answer = raw.parse()
    assert (answer.type, answer.role, answer.model) == ("message", "assistant", "gpt-4o")
    assert answer.id.startswith("msg_")
    [block] = answer.content
    assert (block.type, block.text) == ("text", "good")
    assert (answer.stop_reason, answer.stop_sequence) == ("end_turn", None)
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (7, 3)
    assert answer.usage.cache_read_input_tokens == 0
    [asked] = student.requests
    assert asked.json["messages"] == [{"role": "system", "content": "Label it."}, *HELLO]
    assert asked.json["max_tokens"] == 64
    [trace] = proxy.traces()
    assert (trace["api"], trace["served_by"]) == ("messages", "student")
    assert (trace["response_id"], trace["end_user"]) == (answer.id, "u-7")
    assert (trace["input_tokens"], trace["output_tokens"]) == (7, 3)
    assert json.loads(trace["output_messages"]) == [{"role": "assistant", "content": "good"}]
    assert trace["finish_reasons"] == ["stop"]
    assert teacher.requests == []


@pytest.mark.slow
def test_a_stream_has_anthropics_form(client, publish, proxy, teacher):
    publish()
    events = list(client.messages.create(**BODY, stream=True))
    assert [event.type for event in events] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]  # the client keeps pings to itself
    assert events[0].message.content == []
    assert events[0].message.stop_reason is None
    with client.messages.stream(**BODY) as stream:
        assert "".join(stream.text_stream) == "good"
        answer = stream.get_final_message()
    assert (answer.stop_reason, answer.usage.output_tokens) == ("end_turn", 3)
    assert [trace["stream"] for trace in proxy.traces()] == [True, True]
    assert teacher.requests == []


@pytest.mark.slow
def test_the_stream_on_the_wire(publish, proxy):
    publish()
    response = httpx.post(
        f"{proxy.base_url}/messages",
        json={**BODY, "stream": True},
        headers={"x-understudy-task": "mood"},
    )
    assert response.headers["content-type"].startswith("text/event-stream")
    names = [line[7:] for line in response.text.split("\n") if line.startswith("event: ")]
    data = [json.loads(line[6:]) for line in response.text.split("\n") if line.startswith("data:")]
    assert [payload["type"] for payload in data] == names
    assert names[2] == "ping"
    assert response.text.endswith('event: message_stop\ndata: {"type":"message_stop"}\n\n')


class Booking(BaseModel):
    seats: int


@pytest.mark.parametrize(("text", "route"), [('{"seats": 2}', "student"), ("two", "fallback")])
@pytest.mark.slow
def test_a_schema_is_kept(text, route, client, publish, student, teacher, proxy):
    config = {"format": {"type": "json_schema", "schema": SCHEMA}}
    student.answer = lambda request: sure(text)
    publish({**BODY, "output_config": config})
    raw = client.messages.with_raw_response.create(**BODY, output_config=config)
    assert raw.headers["x-understudy-route"] == route
    if route == "student":
        assert Booking.model_validate_json(raw.parse().content[0].text).seats == 2


@pytest.mark.slow
def test_parse(client, publish, student, teacher):
    """`messages.parse` writes a Pydantic model's schema in its own way."""
    teacher.script(said('{"seats": 9}'))
    assert client.messages.parse(**BODY, output_format=Booking).parsed_output == Booking(seats=9)
    asked = teacher.requests[0].json
    student.answer = lambda request: sure('{"seats": 4}')
    publish(asked)
    assert client.messages.parse(**BODY, output_format=Booking).parsed_output == Booking(seats=4)
    assert len(teacher.requests) == 1


@pytest.mark.slow
def test_tool_calls(client, publish, student, teacher, proxy):
    student.answer = lambda request: sure(calls(2, 10**20))
    publish({**BODY, "tools": [TOOL]}, output="tools")
    answer = client.messages.create(**BODY, tools=[TOOL])
    assert answer.stop_reason == "tool_use"
    first, second = answer.content
    assert (first.type, first.name, first.input) == ("tool_use", "book", {"seats": 2})
    assert first.id.startswith("toolu_") and first.id != second.id
    with client.messages.stream(**BODY, tools=[TOOL]) as stream:
        streamed = stream.get_final_message()
    assert [block.input for block in streamed.content] == [{"seats": 2}, {"seats": 10**20}]
    assert streamed.stop_reason == "tool_use"
    trace = proxy.traces()[0]
    assert trace["finish_reasons"] == ["tool_calls"]
    [message] = json.loads(trace["output_messages"])
    assert message["content"] is None
    assert message["tool_calls"][0]["function"] == {"name": "book", "arguments": '{"seats":2}'}
    assert teacher.requests == []


@pytest.mark.slow
def test_a_forced_call_ends_with_tool_use(client, publish, student):
    student.answer = lambda request: sure(calls(1))
    forced = {"tools": [TOOL], "tool_choice": {"type": "tool", "name": "book"}}
    publish({**BODY, **forced}, output="tools")
    answer = client.messages.create(**BODY, **forced)
    assert (answer.content[0].input, answer.stop_reason) == ({"seats": 1}, "tool_use")


FAULTS = {
    "down": (lambda request: DROP, {}, "student_down"),
    "unsure": (lambda request: sure("good"), {"cutoff": -0.05}, "student_unsure"),
    "cut off": (lambda request: sure("go", finish_reason="length"), {}, "student_cut_off"),
    "empty": (lambda request: sure(""), {}, "student_malformed"),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.slow
def test_the_teacher_answers_when_the_students_answer_may_not_be_served(
    name, stream, client, publish, proxy, teacher, student
):
    student.answer, changes, reason = FAULTS[name]
    publish(**changes)
    if stream:
        with client.messages.stream(**BODY) as got:
            answer = got.get_final_message()
    else:
        answer = client.messages.create(**BODY)
    assert answer.content[0].text == "echo: I am glad"
    [trace] = proxy.traces()
    assert (trace["route"], trace["reason"]) == ("fallback", reason)
    assert (trace["served_by"], trace["student_id"]) == ("teacher", "run-1")
    assert len(teacher.requests) == 1


@pytest.mark.slow
def test_the_teachers_error_is_what_a_fallback_gives(client, publish, teacher):
    publish(cutoff=-0.05)
    teacher.script(refused(429, "rate_limit_error", "slow down"))
    with pytest.raises(anthropic.RateLimitError) as caught:
        client.messages.create(**BODY)
    assert caught.value.response.headers["x-understudy-route"] == "fallback"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"stop_sequences": ["."]}, "unknown_field"),
        ({"extra_body": {"top_k": 5}}, "unknown_field"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "unknown_field"),
        ({"messages": [*HELLO, {"role": "assistant", "content": "It is"}]}, "unknown_field"),
        ({"tools": [TOOL]}, "other_fingerprint"),
    ],
)
@pytest.mark.slow
def test_what_was_not_certified_goes_to_the_teacher(
    change, reason, client, publish, student, teacher, proxy
):
    publish()
    client.messages.create(**{**BODY, **change})
    assert (student.requests, len(teacher.requests)) == ([], 1)
    assert proxy.traces()[0]["reason"] == reason


@pytest.mark.slow
def test_one_student_serves_both_apis(client, publish, proxy, teacher):
    """The same question through chat completions has the same fingerprint."""
    publish()
    chat = {
        "model": "gpt-4o",
        "messages": [{"role": "system", "content": "Label it."}, *HELLO],
    }
    response = httpx.post(
        f"{proxy.base_url}/chat/completions", json=chat, headers={"x-understudy-task": "mood"}
    )
    assert response.json()["choices"][0]["message"]["content"] == "good"
    client.messages.create(**BODY)
    first, second = proxy.traces()
    assert first["input_hash"] == second["input_hash"]
    assert first["fingerprint"] == second["fingerprint"]
    assert teacher.requests == []
