"""Anthropic's own client against the served proxy: from the teacher and back."""

import asyncio
import json
from dataclasses import replace

import anthropic
import httpx
import pytest

from tests.helpers.message_samples import MODEL, echo, litellm_settings, message, said, streamed
from tests.helpers.serving import CLIENT_KEY, TEACHER_KEY, wait_until
from tests.helpers.teacher_server import LoopbackServer

HELLO = [{"role": "user", "content": "hello there"}]
BODY = {"model": "gpt-4o", "max_tokens": 64, "messages": HELLO}


@pytest.fixture
def teacher():
    with LoopbackServer(echo) as server:
        yield server


@pytest.fixture
def client(proxy):
    with sdk(proxy) as found:
        yield found


def sdk(proxy):
    return anthropic.Anthropic(base_url=proxy.url, api_key=CLIENT_KEY, max_retries=0)


def test_a_plain_answer(client, proxy, teacher):
    answer = client.messages.create(**BODY)
    assert answer.content[0].text == "echo: hello there"
    assert (answer.stop_reason, answer.usage.input_tokens) == ("end_turn", 7)
    [trace] = proxy.traces()
    assert (trace["api"], trace["operation_name"]) == ("messages", "chat")
    assert (trace["outcome"], trace["served_by"]) == ("complete", "teacher")
    assert (trace["route"], trace["reason"], trace["task"]) == ("teacher", "untagged", None)
    assert json.loads(trace["input_messages"]) == HELLO
    assert json.loads(trace["output_messages"])[0]["content"] == "echo: hello there"
    assert json.loads(trace["request_params"]) == {"model": "gpt-4o", "max_completion_tokens": 64}
    assert (trace["input_tokens"], trace["cached_tokens"], trace["output_tokens"]) == (9, 2, 3)
    assert trace["finish_reasons"] == ["stop"]
    assert (trace["response_model"], trace["response_id"]) == (MODEL, "msg_teacher")
    [request] = teacher.requests
    assert request.path == "/v1/messages"
    assert request.json == BODY


def test_a_streamed_answer(client, proxy):
    text, stop = "", None
    for one in client.messages.create(**BODY, stream=True):
        if one.type == "content_block_delta":
            text += one.delta.text
        elif one.type == "message_delta":
            stop = one.delta.stop_reason
    assert (text, stop) == ("echo: hello there", "end_turn")
    [trace] = proxy.traces()
    assert (trace["stream"], trace["outcome"]) == (True, "complete")
    assert json.loads(trace["output_messages"])[0]["content"] == "echo: hello there"
    assert (trace["input_tokens"], trace["output_tokens"]) == (9, 3)
    assert 0 < trace["time_to_first_chunk_ms"] <= trace["duration_ms"]


def test_the_stream_helper(client):
    with client.messages.stream(**BODY) as stream:
        assert "".join(stream.text_stream) == "echo: hello there"
        answer = stream.get_final_message()
    assert (answer.id, answer.stop_reason, answer.usage.output_tokens) == (
        "msg_teacher",
        "end_turn",
        3,
    )


async def test_the_async_client_many_at_once(proxy):
    async with anthropic.AsyncAnthropic(
        base_url=proxy.url, api_key=CLIENT_KEY, max_retries=0
    ) as client:
        asked = [
            client.messages.create(**{**BODY, "messages": [{"role": "user", "content": f"{n}"}]})
            for n in range(20)
        ]
        answers = await asyncio.gather(*asked)
    assert [answer.content[0].text for answer in answers] == [f"echo: {n}" for n in range(20)]
    proxy.wait_for_traces(20)


def test_tools_and_system_prompts_are_logged_as_chat_has_them(client, proxy, teacher):
    schema = {"type": "object", "properties": {"zone": {"type": "string"}}}
    tool = {"name": "now", "description": "The time.", "input_schema": schema}
    use = {"type": "tool_use", "id": "toolu_1", "name": "now", "input": {"zone": "UTC"}}
    teacher.script(message(use, stop_reason="tool_use"))
    answer = client.messages.create(
        **BODY, system="Be brief.", tools=[tool], tool_choice={"type": "auto"}
    )
    assert answer.content[0].input == {"zone": "UTC"}
    assert teacher.requests[0].json["tools"] == [tool]
    [trace] = proxy.traces()
    function = {"name": "now", "description": "The time.", "parameters": schema}
    assert json.loads(trace["tool_definitions"]) == [{"type": "function", "function": function}]
    assert json.loads(trace["input_messages"])[0] == {"role": "system", "content": "Be brief."}
    [call] = json.loads(trace["output_messages"])[0]["tool_calls"]
    assert call["function"] == {"name": "now", "arguments": '{"zone":"UTC"}'}
    assert trace["finish_reasons"] == ["tool_calls"]


def test_anthropics_own_fields_reach_the_teacher(client, teacher):
    client.messages.create(
        **BODY,
        extra_query={"beta": "true"},
        extra_headers={"anthropic-beta": "context-1m-2025-08-07", "X-Api-Key": "sk-mine"},
        extra_body={"top_k": 3, "from_the_future": {"x": [1.50]}},
    )
    [request] = teacher.requests
    assert request.path == "/v1/messages?beta=true"
    assert request.headers["anthropic-version"] == client.default_headers["anthropic-version"]
    assert request.headers["anthropic-beta"] == "context-1m-2025-08-07"
    assert request.headers["authorization"] == f"Bearer {TEACHER_KEY}"
    assert "x-api-key" not in request.headers
    assert request.json == {**BODY, "top_k": 3, "from_the_future": {"x": [1.5]}}


def test_through_the_litellm_child_it_goes_by_its_own_name_and_key(start_proxy, teacher):
    proxy = start_proxy(**litellm_settings(teacher.base_url))
    with sdk(proxy) as client:
        client.messages.create(**{**BODY, "model": "claude"})
        counted = client.messages.count_tokens(model="claude", messages=HELLO)
    assert counted.input_tokens == 11
    first, second = teacher.requests
    assert first.headers["authorization"] == "Bearer sk-litellm-master"
    assert first.json["model"] == "claude"
    assert second.path == "/v1/messages/count_tokens"
    [trace] = proxy.traces()  # of the message: counting is passed through
    assert (trace["provider_name"], trace["request_model"]) == ("anthropic", "claude")


def test_tags(client, proxy, teacher):
    client.messages.create(**BODY, extra_headers={"X-Understudy-Task": "greet"})
    client.messages.create(**BODY, extra_body={"metadata": {"task": "greet", "user_id": "u-7"}})
    client.messages.create(**BODY, extra_body={"metadata": {"task": "greet"}})
    sent = [request.json.get("metadata") for request in teacher.requests]
    assert sent == [None, {"user_id": "u-7"}, None]  # Anthropic refuses what it does not know
    traces = proxy.traces()
    assert [trace["task"] for trace in traces] == ["greet"] * 3
    assert [trace["end_user"] for trace in traces] == [None, "u-7", None]
    with pytest.raises(anthropic.BadRequestError, match="a-z"):
        client.messages.create(**BODY, extra_headers={"X-Understudy-Task": "No Tag"})


@pytest.mark.parametrize("after", [1, 5])
def test_a_broken_stream_is_aborted_for_the_client_too(after, client, proxy, teacher):
    teacher.script(streamed("one two three").broken(after))
    with pytest.raises(Exception, match=r"closed|incomplete"):
        list(client.messages.create(**BODY, stream=True))
    [trace] = proxy.wait_for_traces(1)
    assert (trace["outcome"], trace["status_code"]) == ("teacher_broke", 200)
    content = json.loads(trace["output_messages"])[0]["content"]
    assert content == (None if after == 1 else "one two")


def test_a_stream_that_breaks_off_after_its_end_mark_is_whole(client, proxy, teacher):
    reply = streamed("one two")
    teacher.script(reply.broken(len(reply.chunks)))
    with client.messages.stream(**BODY) as stream:
        for event in stream:
            if event.type == "message_stop":
                break
    assert proxy.wait_for_traces(1)[0]["outcome"] == "complete"


@pytest.mark.slow
def test_the_trace_is_there_when_the_last_event_comes(client, proxy, teacher):
    reply = streamed("one two")
    cut = reply.chunks[-1].index(b"message_stop") + len(b"message_stop")
    last = (reply.chunks[-1][:cut], reply.chunks[-1][cut:])
    teacher.script(replace(reply, chunks=(*reply.chunks[:-1], *last)).paced(0.05))
    with (
        httpx.Client() as http,
        http.stream("POST", f"{proxy.base_url}/messages", json={**BODY, "stream": True}) as got,
    ):
        seen = b""
        for piece in got.iter_raw():
            seen += piece
            if b"event: message_stop" in seen:
                break
        assert proxy.traces()[0]["outcome"] == "complete"


@pytest.mark.slow
def test_a_client_that_hangs_up_in_a_stream_leaves_a_trace(client, proxy, teacher):
    teacher.script(streamed(" ".join(["word"] * 500)).paced(0.05))
    stream = client.messages.create(**BODY, stream=True)
    for _ in range(5):
        next(stream)
    stream.close()
    [trace] = proxy.wait_for_traces(1)
    assert trace["outcome"] == "client_gone"
    assert json.loads(trace["output_messages"])[0]["content"].startswith("word")
    wait_until(lambda: teacher.hang_ups == 1)


def test_a_teacher_that_ignores_stream(proxy, teacher):
    teacher.script(said("whole"))
    response = httpx.post(f"{proxy.base_url}/messages", json={**BODY, "stream": True})
    assert response.json()["content"][0]["text"] == "whole"
    assert "whole" in proxy.traces()[0]["output_messages"]
