"""What a client gets is what the teacher alone would have given it: shapes of HTTP."""

import json
import socket
import threading

import httpx
import openai
import pytest

from tests.helpers.raw_http import Raw, post
from tests.helpers.teacher_server import Reply, completion, events, stream

QUESTION = b'{"model":"gpt-4o","stream":true,"messages":[{"role":"user","content":"hi"}]}'
JSON = "content-type: application/json"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/moderations"])
@pytest.mark.parametrize("status", [600, 999])
def test_a_status_that_http_does_not_have_is_a_502(path, status, proxy, teacher):
    teacher.script(Reply((b"{}",), status=status))
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}
    assert httpx.post(proxy.url + path, json=body).status_code == 502


@pytest.mark.parametrize("path", ["/v1/files/x", "/v1/chat/completions"])
def test_a_length_beside_chunks_does_not_count(path, proxy, teacher):
    teacher.script(
        Reply((b'{"id": "x"}',), framing="chunked").with_headers(content_length="3"),
    )
    response = httpx.get(proxy.url + path)
    assert response.json() == {"id": "x"}
    assert response.headers.get("content-length") in (None, "11")


def test_a_304_may_state_the_length_of_what_it_leaves_out(proxy, teacher):
    teacher.script(Reply((), status=304, framing="close").with_headers(content_length="5"))
    with Raw(proxy.port) as raw:
        raw.send(b"GET /v1/files/x HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        got = raw.read_all()
    assert got.startswith(b"HTTP/1.1 304 ") and got.endswith(b"\r\n\r\n")
    assert b"content-length: 5" in got


def test_a_stream_to_http_1_0_ends_with_its_connection(proxy, teacher):
    reply = stream("a few words")
    teacher.script(reply)
    with Raw(proxy.port) as raw:
        raw.send(post("/v1/chat/completions", QUESTION, JSON).replace(b"HTTP/1.1", b"HTTP/1.0", 1))
        head, _, body = raw.read_all().partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head
    assert body == b"".join(reply.chunks)
    assert proxy.traces()[0]["outcome"] == "complete"


@pytest.mark.parametrize("method", ["TRACE", "CONNECT"])
@pytest.mark.parametrize("path", ["/v1/files", "/v1/chat/completions", "/distill/status"])
@pytest.mark.slow
def test_trace_and_connect_reach_nobody(method, path, proxy, teacher):
    target = "example.com:443" if method == "CONNECT" else path
    with Raw(proxy.port) as raw:
        raw.send(f"{method} {target} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
        raw.socket.shutdown(socket.SHUT_WR)
        assert raw.read_all().startswith(b"HTTP/1.1 4")
    assert teacher.requests == []


def test_a_websocket_is_refused_in_words(proxy, teacher):
    headers = {
        "upgrade": "websocket",
        "connection": "Upgrade",
        "sec-websocket-version": "13",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    response = httpx.get(f"{proxy.base_url}/realtime?model=gpt-4o", headers=headers)
    assert response.status_code == 426
    assert "WebSocket" in response.json()["error"]["message"]
    assert teacher.requests == []


@pytest.mark.slow
def test_a_teacher_that_is_slow_is_not_asked_again_by_the_sdk(start_proxy, teacher):
    proxy = start_proxy(teacher={"read_timeout_s": 0.2})
    teacher.script(*[Reply((b"{}",)).slow(5)] * 3)
    with (
        openai.OpenAI(base_url=proxy.base_url, api_key="k") as sdk,
        pytest.raises(openai.APIStatusError) as caught,
    ):
        sdk.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "x"}])
    assert caught.value.status_code == 504
    assert len(teacher.requests) == 1


def chat(proxy, **more):
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}], **more}
    return httpx.post(f"{proxy.base_url}/chat/completions", json=body)


@pytest.mark.parametrize(
    "raw",
    [b'{"error":{"message":"Provider returned error","code":502}}', b'{"error":"overloaded"}'],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_200_that_holds_an_error_is_an_error(raw, stream, proxy, teacher):
    teacher.script(Reply((raw,)))
    answer = chat(proxy, stream=stream)
    assert (answer.status_code, answer.content) == (200, raw)
    assert proxy.traces()[0]["outcome"] == "error"


@pytest.mark.parametrize("raw", [b"<html>hello</html>", b"{}", b"", b"\xff\xfe", b'{"choices":7}'])
@pytest.mark.parametrize("kind", ["application/json", "text/event-stream", "text/plain", ""])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.slow
def test_an_answer_that_is_not_understood_is_passed_on_and_not_learned(
    raw, kind, stream, proxy, teacher
):
    teacher.script(Reply((raw,) if raw else (), headers={"content-type": kind}))
    answer = chat(proxy, stream=stream)
    assert (answer.status_code, answer.content) == (200, raw)
    assert proxy.traces()[0]["outcome"] != "complete"


@pytest.mark.parametrize("kind", ["application/json", "text/plain", "application/x-ndjson"])
@pytest.mark.parametrize("asked", [False, True])
@pytest.mark.slow
def test_a_stream_under_another_content_type_is_read(kind, asked, proxy, teacher):
    reply = stream("a few words")
    teacher.script(Reply(reply.chunks, headers={"content-type": kind}))
    assert chat(proxy, stream=asked).content == b"".join(reply.chunks)
    [trace] = proxy.traces()
    assert trace["outcome"] == "complete"
    assert "a few words" in trace["output_messages"]


def test_a_plain_answer_that_is_called_a_stream_is_read(proxy, teacher):
    raw = completion("Hi").chunks[0]
    teacher.script(Reply((raw[:9], raw[9:]), headers={"content-type": "text/event-stream"}))
    assert chat(proxy, stream=True).content == raw
    [trace] = proxy.traces()
    assert (trace["outcome"], trace["input_tokens"]) == ("complete", 7)


@pytest.mark.parametrize("arguments", [{"x": 1}, ["x"], 7])
def test_arguments_that_are_no_text_do_not_cut_the_clients_stream(arguments, proxy, teacher):
    call = {"index": 0, "id": "1", "function": {"name": "f", "arguments": arguments}}
    chunk = {"id": "c", "choices": [{"delta": {"tool_calls": [call]}, "finish_reason": "stop"}]}
    raw = b"data: %b\n\ndata: [DONE]\n\n" % json.dumps(chunk).encode()
    teacher.script(events(raw))
    assert chat(proxy, stream=True).content == raw
    assert proxy.traces()[0]["outcome"] == "complete"


@pytest.mark.parametrize("count", [1e300, 2**70, -1, 1.5, "many", {}])
@pytest.mark.slow
def test_a_teachers_odd_usage_breaks_neither_answer_nor_log(count, proxy, teacher):
    payload = json.loads(completion("Hi").chunks[0]) | {
        "usage": {"prompt_tokens": count, "completion_tokens": count}
    }
    raw = json.dumps(payload).encode()
    teacher.script(Reply((raw,)))
    assert chat(proxy).content == raw
    [trace] = proxy.traces()
    assert (trace["outcome"], trace["tokens_estimated"]) == ("complete", True)
    assert 0 < trace["input_tokens"] < 100


@pytest.mark.slow
def test_tokens_of_streams_count_for_the_limits_though_they_are_not_stated(start_proxy, teacher):
    proxy = start_proxy(server={"limits": {"tokens_per_minute": 60}})
    answers = [chat(proxy, stream=True) for _ in range(30)]
    assert {answer.status_code for answer in answers} == {200, 429}
    assert all(b"usage" not in answer.content for answer in answers if answer.status_code == 200)


@pytest.mark.slow
def test_the_first_bytes_of_a_plain_answer_are_passed_on_as_they_come(proxy, teacher):
    """A teacher sends line ends while it works, so that no client gives up."""
    more = threading.Event()
    [raw] = completion("Hi").chunks
    teacher.script(Reply((b"\n", b"\n", raw[:20], raw[20:]), framing="chunked").held(more))
    with Raw(proxy.port) as client:
        body = json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]})
        client.send(post("/v1/chat/completions", body.encode(), JSON))
        assert client.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 200 ")
        client.read_until(b"\n\n\r\n")  # a chunk of what has come, and nothing was read before it
        assert proxy.traces() == []
        more.set()
        client.read_until(b"\r\n0\r\n\r\n")
    [trace] = proxy.traces()
    assert (trace["outcome"], trace["input_tokens"]) == ("complete", 7)


@pytest.mark.slow
def test_a_plain_answer_that_breaks_off_after_a_while_is_broken_off_for_the_client_too(
    proxy, teacher
):
    more = threading.Event()
    [raw] = completion("Hi").chunks
    teacher.script(Reply((raw[:20], b" "), framing="chunked", breaks=True).held(more))
    with httpx.stream(
        "POST", f"{proxy.base_url}/chat/completions", json=json.loads(QUESTION) | {"stream": False}
    ) as answer:
        assert answer.status_code == 200
        more.set()
        with pytest.raises(httpx.RemoteProtocolError):
            answer.read()
    assert proxy.wait_for_traces(1)[0]["outcome"] == "teacher_broke"
