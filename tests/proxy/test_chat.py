"""Chat completions through the OpenAI SDK, plain and streamed, from the teacher and back."""

import asyncio
import gc
import gzip
import json

import httpx
import openai
import orjson
import pytest

from store.records import Trace
from tests.helpers.serving import CLIENT_KEY, TEACHER_KEY
from tests.helpers.teacher_server import Reply, completion, error, stream

HELLO = [{"role": "user", "content": "hello there"}]


def ask(client, **more):
    return client.chat.completions.create(**{"model": "gpt-4o", "messages": HELLO, **more})


def test_a_plain_answer(client, proxy, teacher):
    answer = ask(client)
    assert answer.choices[0].message.content == "echo: hello there"
    assert answer.usage is not None and answer.usage.total_tokens == 10
    [trace] = proxy.traces()
    assert trace["outcome"] == "complete"
    assert trace["served_by"] == "teacher"
    assert (trace["route"], trace["reason"], trace["task"]) == ("teacher", "untagged", None)
    assert json.loads(trace["input_messages"]) == HELLO
    assert json.loads(trace["output_messages"])[0]["content"] == "echo: hello there"
    assert json.loads(trace["request_params"]) == {"model": "gpt-4o"}
    assert (trace["input_tokens"], trace["output_tokens"]) == (7, 3)
    assert trace["tokens_estimated"] is False
    assert trace["finish_reasons"] == ["stop"]
    assert trace["request_model"] == "gpt-4o"
    assert trace["response_model"] == "gpt-4o-2024-08-06"
    assert trace["provider_name"] == "openai"
    assert trace["status_code"] == 200
    assert trace["start_time"] + trace["duration_ms"] / 1000 == pytest.approx(trace["end_time"])
    assert set(trace) == set(Trace.__struct_fields__)
    assert len(teacher.requests) == 1


def test_a_streamed_answer(client, proxy):
    chunks = list(ask(client, stream=True))
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == "echo: hello there"
    [trace] = proxy.traces()
    assert trace["stream"] is True
    assert json.loads(trace["output_messages"])[0]["content"] == "echo: hello there"
    assert trace["tokens_estimated"] is True
    assert 0 < trace["time_to_first_chunk_ms"] <= trace["duration_ms"]


def test_stream_with_usage(client, proxy):
    chunks = list(ask(client, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].choices == []
    assert chunks[-1].usage.total_tokens == 10
    assert proxy.traces()[0]["input_tokens"] == 7


def test_tools_pass_through(client, proxy, teacher):
    tools = [{"type": "function", "function": {"name": "now", "parameters": {"type": "object"}}}]
    call = {"id": "call_1", "type": "function", "function": {"name": "now", "arguments": "{}"}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
    payload = {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [choice],
    }
    teacher.script(Reply((orjson.dumps(payload),)))
    answer = ask(client, tools=tools)
    assert answer.choices[0].message.tool_calls[0].function.name == "now"
    assert teacher.requests[0].json["tools"] == tools
    [trace] = proxy.traces()
    assert json.loads(trace["tool_definitions"]) == tools
    assert "tools" not in json.loads(trace["request_params"])
    assert json.loads(trace["output_messages"]) == [message]


@pytest.mark.slow
async def test_async_sdk_many_at_once(proxy):
    async with openai.AsyncOpenAI(
        base_url=proxy.base_url, api_key=CLIENT_KEY, max_retries=0
    ) as client:
        asked = [
            client.chat.completions.create(
                model="gpt-4o", messages=[{"role": "user", "content": f"number {n}"}]
            )
            for n in range(40)
        ]
        answers = await asyncio.gather(*asked)
    said = [answer.choices[0].message.content for answer in answers]
    assert said == [f"echo: number {n}" for n in range(40)]
    assert len(proxy.wait_for_traces(40)) == 40


async def test_async_sdk_stream(proxy):
    async with (
        openai.AsyncOpenAI(base_url=proxy.base_url, api_key=CLIENT_KEY, max_retries=0) as client,
        await client.chat.completions.create(model="gpt-4o", messages=HELLO, stream=True) as chunks,
    ):
        said = [chunk.choices[0].delta.content or "" async for chunk in chunks]
    assert "".join(said) == "echo: hello there"


def test_the_body_reaches_the_teacher_as_it_was(client, teacher, proxy):
    raw = b'{ "model":"gpt-4o", "messages":[{"role":"user","content":"\\u00e9"}], "new": 1.50 }'
    client.post("/chat/completions", body=None, content=raw, cast_to=object)
    assert teacher.requests[0].body == raw


def test_headers_both_ways(client, teacher, proxy):
    teacher.script(
        completion("hi").with_headers(
            x_request_id="req_1", x_ratelimit_remaining_tokens="9", set_cookie="a=b", server="x"
        )
    )
    response = client.chat.completions.with_raw_response.create(
        model="gpt-4o",
        messages=HELLO,
        extra_headers={
            "X-Understudy-Task": "greet",
            "OpenAI-Organization": "org-mine",
            "OpenAI-Project": "proj-mine",
            "Cookie": "session=1",
            "X-Api-Key": CLIENT_KEY,
            "Traceparent": "00-1-2-01",
        },
    )
    assert response.headers["x-request-id"] == "req_1"
    assert response.headers["x-ratelimit-remaining-tokens"] == "9"
    assert response.headers["server"] == "x"
    assert "set-cookie" not in response.headers
    assert response.headers["x-understudy-task"] == "greet"
    assert response.headers["x-understudy-route"] == "teacher"
    assert response.headers["x-understudy-reason"] == "no_student"
    assert response.headers["x-understudy-trace"] == proxy.traces()[0]["trace_id"]
    sent = teacher.requests[0].headers
    assert sent["authorization"] == f"Bearer {TEACHER_KEY}"
    assert sent["traceparent"] == "00-1-2-01"
    assert sent["user-agent"].startswith("OpenAI/Python")
    assert sent["accept-encoding"] == "identity"
    assert not {"openai-organization", "openai-project", "cookie", "x-api-key"} & set(sent)
    assert not [name for name in sent if name.startswith("x-understudy")]


def test_untagged_answers_name_no_task(client):
    response = client.chat.completions.with_raw_response.create(model="gpt-4o", messages=HELLO)
    assert "x-understudy-task" not in response.headers


def test_the_tag_in_metadata_is_taken_out(client, proxy, teacher):
    ask(client, metadata={"task": "greet"})
    ask(client, metadata={"task": "greet", "team": "a"}, store=True)
    ask(client, metadata={"team": "a"}, store=True)
    assert [request.json.get("metadata") for request in teacher.requests] == [
        None,
        {"team": "a"},
        {"team": "a"},
    ]
    traces = proxy.traces()
    assert [trace["task"] for trace in traces] == ["greet", "greet", None]
    assert json.loads(traces[0]["request_params"])["metadata"] == {"task": "greet"}


def test_an_invalid_tag_is_refused(client, proxy, teacher):
    with pytest.raises(openai.BadRequestError, match="a-z"):
        ask(client, extra_headers={"X-Understudy-Task": "No Tag"})
    assert (proxy.traces(), teacher.requests) == ([], [])


def test_another_name_upstream(start_proxy, teacher):
    params = {"model": "openai/gpt-4o-2024-08-06", "api_base": teacher.base_url, "api_key": "k"}
    proxy = start_proxy(model_list=[{"model_name": "smart", "litellm_params": params}])
    with openai.OpenAI(base_url=proxy.base_url, api_key="x", max_retries=0) as client:
        ask(client, model="smart", metadata={"task": "greet"})
    assert teacher.requests[0].json == {"model": "gpt-4o-2024-08-06", "messages": HELLO}
    assert proxy.traces()[0]["request_model"] == "smart"


def test_a_compressed_answer_is_relayed_decoded(client, proxy, teacher):
    [whole] = completion("zipped").chunks
    teacher.script(Reply((gzip.compress(whole),)).with_headers(content_encoding="gzip"))
    assert ask(client).choices[0].message.content == "zipped"
    assert "zipped" in proxy.traces()[0]["output_messages"]


@pytest.mark.slow
def test_a_large_body_and_a_large_answer(client, proxy):
    text = "ä" * 2_000_000
    answer = ask(client, messages=[{"role": "user", "content": text}])
    assert answer.choices[0].message.content == f"echo: {text}"
    assert proxy.traces()[0]["content_bytes"] > 8_000_000


def test_a_request_that_the_teacher_dropped_on_a_used_connection_is_not_sent_again(
    client, proxy, teacher
):
    ask(client)
    teacher.script(Reply(drops=True))
    with pytest.raises(openai.InternalServerError) as caught:
        ask(client)
    assert caught.value.status_code == 502
    assert len(teacher.requests) == 2
    assert [trace["status_code"] for trace in proxy.traces()] == [200, 502]


def test_redirects_are_not_followed(proxy, teacher, client):
    teacher.script(Reply(status=307, headers={"location": "http://127.0.0.1:1/elsewhere"}))
    with pytest.raises(openai.APIStatusError) as caught:
        client.with_options(max_retries=0).post(
            "/chat/completions",
            body={"model": "gpt-4o", "messages": HELLO},
            cast_to=object,
            options={"follow_redirects": False},
        )
    assert caught.value.status_code == 307
    assert len(teacher.requests) == 1


def test_an_answer_too_deep_to_be_written_is_served_all_the_same(client, proxy, teacher):
    deep = b'{"id":"c","choices":[{"index":0,"message":%b}]}' % (b'{"a":' * 300 + b"1" + b"}" * 300)
    teacher.script(Reply((deep,)))
    response = client.chat.completions.with_raw_response.create(model="gpt-4o", messages=HELLO)
    assert response.content == deep
    [trace] = proxy.traces()
    assert (trace["error_type"], trace["output_messages"]) == ("unreadable_answer", None)


def test_a_stream_that_is_refused(client, proxy, teacher):
    teacher.script(error(429, "slow down", type="requests", code="rate_limit_exceeded"))
    with pytest.raises(openai.RateLimitError):
        ask(client, stream=True)
    [trace] = proxy.traces()
    assert (trace["status_code"], trace["error_type"]) == (429, "requests")
    assert trace["outcome"] == "error"


def test_a_teacher_that_ignores_stream(proxy, teacher):
    teacher.script(completion("whole"))
    body = {"model": "gpt-4o", "messages": HELLO, "stream": True}
    response = httpx.post(f"{proxy.base_url}/chat/completions", json=body)
    assert response.json()["choices"][0]["message"]["content"] == "whole"
    assert "whole" in proxy.traces()[0]["output_messages"]


def test_a_teacher_that_streams_unasked(client, proxy, teacher):
    teacher.script(stream("out of turn"))
    response = client.chat.completions.with_raw_response.create(model="gpt-4o", messages=HELLO)
    assert b"[DONE]" in response.content
    assert "out of turn" in proxy.traces()[0]["output_messages"]


@pytest.mark.parametrize("how", [{}, {"stream": True}, {"model": "none"}])
@pytest.mark.slow
def test_a_request_leaves_nothing_to_the_garbage_collector(client, proxy, how):
    """Reference cycles stay until the garbage collector runs, which costs every request a share."""

    def requests(count):
        for _ in range(count):
            try:
                list(ask(client, **how))
            except openai.NotFoundError:
                assert how["model"] == "none"

    requests(1)
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        requests(10)
        gc.collect()
        found = [one for one in gc.garbage if type(one).__module__.startswith(("proxy", "store"))]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert found == []
