"""The LiteLLM child dies while requests are under way: what is asked again, and what is not."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from proxy.teacher import is_repeatable
from tests.helpers.serving import ProxyThread, wait_until
from tests.helpers.teacher_server import (
    DROP,
    LoopbackServer,
    Received,
    Reply,
    completion,
    echo,
    stream,
)

QUESTION = {"model": "claude", "messages": [{"role": "user", "content": "hello"}]}
ENTRY = {"model_name": "claude", "litellm_params": {"model": "anthropic/claude-x"}}
LATE_S = 30.0


def posts(child: LoopbackServer) -> list[str]:
    return [request.path for request in child.requests if request.method == "POST"]


def late(reply: Reply) -> Callable[[Received], Reply]:
    """Answers health checks at once, and anything else too late."""
    return lambda request: echo(request) if "health" in request.path else reply


@pytest.fixture
def started(start_proxy: Callable[..., ProxyThread]) -> Callable[[LoopbackServer], ProxyThread]:
    def start(child: LoopbackServer) -> ProxyThread:
        runtime = {"litellm_url": child.base_url, "litellm_key": "sk-master"}
        return start_proxy(model_list=[ENTRY], runtime=runtime)

    return start


def asked_while_it_dies(
    first: LoopbackServer, proxy: ProxyThread, body: dict[str, Any], path: str = "chat/completions"
) -> tuple[httpx.Response, LoopbackServer]:
    """The answer to a request, whose LiteLLM dies once it has it, and the LiteLLM after that."""
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(httpx.post, f"{proxy.base_url}/{path}", json=body, timeout=30)
        wait_until(lambda: posts(first))
        first.close()
        with LoopbackServer(port=first.port) as second:
            return asking.result(), second


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.slow
def test_a_request_under_way_is_asked_again_once_litellm_is_back(streamed, started):
    with LoopbackServer(late(completion("late").slow(LATE_S))) as first:
        answer, second = asked_while_it_dies(first, started(first), QUESTION | {"stream": streamed})
    assert answer.status_code == 200 and b"hello" in answer.content
    assert len(posts(first)) == len(posts(second)) == 1


@pytest.mark.slow
def test_a_plain_answer_that_broke_off_unseen_is_asked_again(started):
    whole = completion("hello").chunks[0]
    with LoopbackServer() as child:
        # half an answer; the next to ask, for its health, finds nobody; then it is there again
        child.script(Reply((whole[:20], whole[20:])).broken(1), DROP)
        answer = httpx.post(f"{started(child).base_url}/chat/completions", json=QUESTION)
        assert (answer.status_code, len(posts(child))) == (200, 2)


def test_what_the_provider_acts_on_is_not_asked_twice(started):
    body = {"model": "claude", "input": "hello", "background": True}
    with LoopbackServer(late(completion("late").slow(LATE_S))) as first:
        answer, second = asked_while_it_dies(first, started(first), body, "responses")
    assert (answer.status_code, posts(second)) == (502, [])


def test_an_upload_is_not_sent_twice(started):
    with LoopbackServer(late(completion("late").slow(LATE_S))) as first:
        answer, second = asked_while_it_dies(first, started(first), {"x": 1}, "files")
    assert (answer.status_code, posts(second)) == (502, [])


def test_a_request_that_litellm_always_dies_of_is_asked_three_times(started):
    with LoopbackServer(late(DROP)) as child:
        answer = httpx.post(f"{started(child).base_url}/chat/completions", json=QUESTION)
        assert (answer.status_code, len(posts(child))) == (502, 3)


def test_a_stream_that_the_client_has_seen_breaks_off(started):
    reply = stream("one two three four").held(threading.Event())
    with LoopbackServer(late(reply)) as first:
        proxy = started(first)
        with httpx.stream(
            "POST", f"{proxy.base_url}/chat/completions", json=QUESTION | {"stream": True}
        ) as answer:
            pieces = answer.iter_raw()
            next(pieces)
            first.close()
            with pytest.raises(httpx.RemoteProtocolError):
                list(pieces)
        assert proxy.wait_for_traces(1)[0]["outcome"] == "teacher_broke"


@pytest.mark.parametrize(
    ("body", "may"),
    [
        ({}, True),
        ({"tools": [{"type": "function"}, {"name": "f", "input_schema": {}}]}, True),
        ({"tools": [{"type": "custom"}], "store": True, "previous_response_id": "r"}, True),
        ({"tools": [{"type": "mcp"}]}, False),
        ({"tools": [{"type": "code_interpreter"}, {"type": "function"}]}, False),
        ({"tools": ["odd"]}, False),
        ({"conversation": "conv_1"}, False),
        ({"background": True}, False),
        ({"background": False, "conversation": None}, True),
        ({"mcp_servers": [{"url": "https://x"}]}, False),
    ],
)
def test_what_may_be_asked_twice(body, may):
    assert is_repeatable(body) is may
