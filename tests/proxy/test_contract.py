"""What a client gets is what the teacher alone would have given it: shapes of HTTP."""

import socket

import httpx
import openai
import pytest

from tests.helpers.raw_http import Raw, post
from tests.helpers.teacher_server import Reply, stream

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
        raw.send(b"GET /v1/files/x HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
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
def test_trace_and_connect_reach_nobody(method, path, proxy, teacher):
    target = "example.com:443" if method == "CONNECT" else path
    with Raw(proxy.port) as raw:
        raw.send(f"{method} {target} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
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
