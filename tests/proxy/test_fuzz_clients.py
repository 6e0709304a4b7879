"""The real clients see the same with and without the proxy, whatever the teacher streams or says.

A teacher sends what servers are seen to send, put together at random; OpenAI's and Anthropic's SDKs
read it from the teacher and through the proxy. Both give the same objects, or fail alike.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.helpers.serving import CLIENT_KEY, ProxyThread
from tests.helpers.serving import settings as proxy_settings
from tests.helpers.teacher_server import LoopbackServer, Received, Reply

ASKED: list[Any] = [{"role": "user", "content": "hi"}]
WORDS = st.sampled_from(["Hi", "", " there", "ß", "😀", '{"x": 1}', "\n"])
SMALL = st.none() | st.integers(-1, 3)


def chat_events() -> st.SearchStrategy[list[dict[str, Any]]]:
    function = st.fixed_dictionaries({"name": WORDS, "arguments": WORDS})
    call = st.fixed_dictionaries(
        {"index": st.integers(0, 1), "function": function}, optional={"id": WORDS}
    )
    delta = st.fixed_dictionaries(
        {},
        optional={
            "role": st.just("assistant"),
            "content": st.none() | WORDS,
            "reasoning_content": WORDS,
            "refusal": st.none() | WORDS,
            "tool_calls": st.none() | st.lists(call, max_size=2),
        },
    )
    choice = st.fixed_dictionaries(
        {"index": st.integers(0, 1), "delta": delta},
        optional={"finish_reason": st.sampled_from([None, "stop", "length", "odd"])},
    )
    return st.lists(
        st.fixed_dictionaries(
            {"id": WORDS, "object": st.just("chat.completion.chunk"), "choices": st.lists(choice)},
            optional={"usage": st.none() | st.just({"prompt_tokens": 1}), "error": st.none()},
        ),
        max_size=4,
    )


def message_events() -> st.SearchStrategy[list[dict[str, Any]]]:
    delta = st.one_of(
        st.fixed_dictionaries({"type": st.just("text_delta"), "text": WORDS}),
        st.fixed_dictionaries({"type": st.just("thinking_delta"), "thinking": WORDS}),
        st.fixed_dictionaries({"type": st.just("input_json_delta"), "partial_json": WORDS}),
    )
    block = st.sampled_from(
        [
            {"type": "text", "text": ""},
            {"type": "thinking", "thinking": "", "signature": ""},
            {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}},
        ]
    )
    index = st.integers(0, 1)
    event = st.one_of(
        st.fixed_dictionaries(
            {"type": st.just("content_block_start"), "index": index, "content_block": block}
        ),
        st.fixed_dictionaries(
            {"type": st.just("content_block_delta"), "index": index, "delta": delta}
        ),
        st.just({"type": "content_block_stop", "index": 0}),
        st.just({"type": "ping"}),
        st.just({"type": "error", "error": {"type": "overloaded_error", "message": "no"}}),
    )
    head = {"id": "m", "type": "message", "role": "assistant", "model": "x", "content": []}
    usage = {"input_tokens": 1, "output_tokens": 1}
    begin = {"type": "message_start", "message": {**head, "usage": usage}}
    end = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage}
    return st.lists(event, max_size=4).map(lambda some: [begin, *some, end])


def response_events() -> st.SearchStrategy[list[dict[str, Any]]]:
    item = st.sampled_from(
        [
            {"type": "message", "id": "msg_1", "role": "assistant", "content": []},
            {"type": "function_call", "id": "fc_1", "call_id": "c", "name": "f", "arguments": ""},
        ]
    )
    index = st.integers(0, 1)
    place = {"output_index": index, "item_id": WORDS}
    event = st.one_of(
        *(
            st.fixed_dictionaries({"type": st.just(f"response.{name}"), **fields})
            for name, fields in {
                "output_item.added": {"item": item, "output_index": index},
                "output_item.done": {"item": item, "output_index": index},
                "output_text.delta": {**place, "content_index": st.just(0), "delta": WORDS},
                "function_call_arguments.delta": {**place, "delta": WORDS},
                "reasoning_summary_text.delta": {**place, "delta": WORDS},
            }.items()
        )
    )
    whole = {"id": "resp_1", "object": "response", "model": "x", "status": "completed"}
    end = {"type": "response.completed", "response": {**whole, "output": []}}
    return st.lists(event, max_size=4).map(lambda some: [*some, end])


EVENTS = {
    "chat/completions": chat_events(),
    "messages": message_events(),
    "responses": response_events(),
}


@pytest.fixture(scope="module")
def teacher() -> Iterator[LoopbackServer]:
    with LoopbackServer() as server:
        yield server


@pytest.fixture(scope="module")
def between(teacher: LoopbackServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    raw = proxy_settings(teacher.base_url, tmp_path_factory.mktemp("data"))
    with ProxyThread(raw) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def sdks(teacher: LoopbackServer, between: ProxyThread) -> Iterator[Any]:
    """Each SDK twice: to the teacher itself, and to the proxy."""
    with (
        openai.OpenAI(base_url=teacher.base_url, api_key=CLIENT_KEY, max_retries=0) as alone,
        openai.OpenAI(base_url=between.base_url, api_key=CLIENT_KEY, max_retries=0) as through,
        anthropic.Anthropic(base_url=teacher.url, api_key=CLIENT_KEY, max_retries=0) as alone_too,
        anthropic.Anthropic(base_url=between.url, api_key=CLIENT_KEY, max_retries=0) as through_too,
    ):
        yield {"messages": (alone_too, through_too)}, (alone, through)


def read(client: Any, path: str, stream: bool) -> list[str]:
    """What the SDK gives for the answer, and how it fails if it does."""
    got: list[str] = []
    try:
        if path == "messages":
            answer = client.messages.create(
                model="gpt-4o", max_tokens=9, messages=ASKED, stream=stream
            )
        elif path == "responses":
            answer = client.responses.create(model="gpt-4o", input="hi", stream=stream)
        else:
            answer = client.chat.completions.create(model="gpt-4o", messages=ASKED, stream=stream)
        got += (repr(one) for one in (answer if stream else [answer]))
    except (openai.OpenAIError, anthropic.AnthropicError, TypeError, ValueError) as error:
        status = getattr(error, "status_code", None)
        got.append(f"{type(error).__name__} {status} {getattr(error, 'body', error)}")
    return got


@pytest.mark.slow
@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from(sorted(EVENTS)), data=st.data(), stream=st.booleans())
def test_the_sdks_see_the_same_with_and_without_the_proxy(
    path: str, data: Any, stream: bool, teacher: LoopbackServer, sdks: Any
) -> None:
    events = data.draw(EVENTS[path])
    squeezed = data.draw(st.booleans())
    if stream:
        named = data.draw(st.booleans()) or path == "messages"  # whose SDK goes by the names
        raw = b"".join(
            (b"event: %b\n" % one["type"].encode() if named and "type" in one else b"")
            + b"data: %b\n\n" % json.dumps(one).encode()
            for one in events
        )
        raw += data.draw(st.sampled_from([b"data: [DONE]\n\n", b"", b": ping\n\n"]))
    else:
        raw = json.dumps(data.draw(st.sampled_from([*events, {"error": {"code": 1}}]))).encode()
    headers = {"content-type": "text/event-stream" if stream else "application/json"}
    if squeezed:
        raw, headers = gzip.compress(raw), {**headers, "content-encoding": "gzip"}
    cut = data.draw(st.integers(0, len(raw)))
    reply = Reply(
        tuple(part for part in (raw[:cut], raw[cut:]) if part),
        status=data.draw(st.sampled_from([200, 200, 200, 400, 429, 503])),
        headers=headers,
        framing=data.draw(st.sampled_from(["length", "chunked"])),
    )

    def answer(request: Received) -> Reply:
        return reply

    teacher.answer = answer
    of_one, others = sdks
    alone, through = of_one.get(path, others)
    assert read(through, path, stream) == read(alone, path, stream)
