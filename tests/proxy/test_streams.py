"""Streams go through untouched, however they are cut and however they end."""

import json
import socket
from dataclasses import replace

import httpx
import openai
import pytest

from tests.helpers.paths import GOLDEN
from tests.helpers.serving import wait_until
from tests.helpers.teacher_server import DROP, completion, events, stream

TRANSCRIPTS = sorted(path.stem for path in GOLDEN.glob("*.sse"))
BODY = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}], "stream": True}


def relayed(proxy, body=BODY):
    with (
        httpx.Client() as http,
        http.stream("POST", f"{proxy.base_url}/chat/completions", json=body) as response,
    ):
        return b"".join(response.iter_raw())


@pytest.mark.parametrize("name", TRANSCRIPTS)
@pytest.mark.slow
def test_transcripts_are_relayed_byte_for_byte(name, proxy, teacher):
    raw = (GOLDEN / f"{name}.sse").read_bytes()
    expected = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    sizes = [1, 7, 64, 1_000_000]
    for size in sizes:
        teacher.script(events(*[raw[i : i + size] for i in range(0, len(raw), size)]))
        assert relayed(proxy) == raw
    for trace in proxy.wait_for_traces(len(sizes)):
        assert json.loads(trace["output_messages"]) == expected["messages"]
        assert trace["finish_reasons"] == expected["finish_reasons"]
        assert trace["response_id"] == expected["response_id"]
        assert trace["error_type"] == expected["error_type"]
        assert trace["outcome"] == ("error" if expected["error_type"] else "complete")


@pytest.mark.parametrize("framing", ["length", "close"])
def test_chunk_framings_other_than_openais_are_relayed(framing, proxy, teacher):
    reply = stream("one two")
    teacher.script(replace(reply, framing=framing))
    assert relayed(proxy) == b"".join(reply.chunks)
    assert proxy.traces()[0]["outcome"] == "complete"


def test_reasoning_tokens_and_cached_tokens(proxy, teacher):
    teacher.script(events((GOLDEN / "openai.sse").read_bytes()))
    relayed(proxy)
    [trace] = proxy.traces()
    assert (trace["cached_tokens"], trace["reasoning_tokens"]) == (4, 2)


@pytest.mark.slow
def test_chunks_pass_at_once(proxy, teacher):
    """The first chunk is there while the teacher is still at its second."""
    teacher.script(stream("one two three").paced(0.3))
    with (
        httpx.Client() as http,
        http.stream("POST", f"{proxy.base_url}/chat/completions", json=BODY) as response,
    ):
        pieces = response.iter_raw()
        assert b"one" not in next(pieces)
        assert proxy.traces() == []
        assert b"three" in b"".join(pieces)


@pytest.mark.parametrize("after", [1, 3])
def test_a_broken_stream_is_aborted_for_the_client_too(after, client, proxy, teacher):
    teacher.script(stream("one two three four").broken(after))
    chunks = client.chat.completions.create(**BODY)
    with pytest.raises(httpx.RemoteProtocolError):
        list(chunks)
    [trace] = proxy.wait_for_traces(1)
    assert trace["outcome"] == "teacher_broke"
    assert trace["status_code"] == 200
    said = json.loads(trace["output_messages"])[0]["content"]
    assert said == ("" if after == 1 else "one two")


def test_a_broken_stream_gets_no_invented_end(proxy, teacher):
    reply = stream("one two three").broken(2)
    teacher.script(reply)
    got = b""
    with (
        pytest.raises(httpx.RemoteProtocolError),
        httpx.Client() as http,
        http.stream("POST", f"{proxy.base_url}/chat/completions", json=BODY) as response,
    ):
        for chunk in response.iter_raw():
            got += chunk
    assert got == b"".join(reply.chunks)


def test_a_stream_that_breaks_off_after_done_is_whole(client, proxy, teacher):
    reply = stream("one two")
    teacher.script(reply.broken(len(reply.chunks)))
    chunks = list(client.chat.completions.create(**BODY))
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert proxy.wait_for_traces(1)[0]["outcome"] == "complete"


@pytest.mark.slow
def test_a_silent_stream_is_aborted_after_the_read_timeout(start_proxy, teacher):
    proxy = start_proxy(teacher={"read_timeout_s": 1})
    teacher.script(stream("one two").paced(3))
    with pytest.raises(httpx.RemoteProtocolError):
        relayed(proxy)
    assert proxy.wait_for_traces(1)[0]["outcome"] == "teacher_broke"


def test_a_stream_that_just_ends_without_a_reason(proxy, teacher):
    reply = stream("one two")
    teacher.script(events(*reply.chunks[:2]))
    assert relayed(proxy) == b"".join(reply.chunks[:2])
    assert proxy.traces()[0]["outcome"] == "teacher_broke"


def test_a_plain_answer_that_breaks_off(client, proxy, teacher):
    teacher.script(completion("never whole").broken(1))
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(**{**BODY, "stream": False})
    assert caught.value.status_code == 502
    [trace] = proxy.traces()
    assert (trace["outcome"], trace["status_code"]) == ("teacher_broke", 502)


@pytest.mark.slow
def test_a_client_that_hangs_up_in_a_stream_leaves_a_trace(client, proxy, teacher):
    teacher.script(stream(" ".join(["word"] * 500)).paced(0.05))
    chunks = client.chat.completions.create(**BODY)
    for _ in range(3):
        next(chunks)
    chunks.close()
    [trace] = proxy.wait_for_traces(1)
    assert trace["outcome"] == "client_gone"
    assert trace["status_code"] == 200
    assert json.loads(trace["output_messages"])[0]["content"].startswith("word word")
    wait_until(lambda: teacher.hang_ups == 1)  # the rest is not read


def test_a_client_that_hangs_up_before_the_answer_leaves_a_trace(proxy, teacher):
    teacher.script(completion("late").slow(30))
    raw = json.dumps({**BODY, "stream": False}).encode()
    with socket.create_connection(("127.0.0.1", proxy.port)) as connection:
        connection.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: %d\r\n\r\n%b" % (len(raw), raw)
        )
        wait_until(lambda: teacher.requests)
    [trace] = proxy.wait_for_traces(1)
    assert (trace["outcome"], trace["status_code"]) == ("client_gone", 499)
    assert trace["served_by"] is None
    wait_until(lambda: teacher.hang_ups == 1)


def test_a_client_that_hangs_up_in_its_own_body_leaves_no_trace(proxy, teacher):
    with socket.create_connection(("127.0.0.1", proxy.port)) as connection:
        connection.sendall(b'POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 90\r\n\r\n{"mod')
    assert httpx.get(f"{proxy.url}/health").json()["status"] == "ok"
    assert (proxy.traces(), teacher.requests) == ([], [])


def test_pipelined_requests_are_answered_in_order(proxy):
    def request(text):
        raw = json.dumps({**BODY, "stream": False, "messages": [{"role": "user", "content": text}]})
        head = f"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: {len(raw)}"
        return f"{head}\r\n\r\n{raw}".encode()

    with socket.create_connection(("127.0.0.1", proxy.port), timeout=20) as connection:
        connection.sendall(request("first") + request("second") + request("third"))
        got = b""
        while got.count(b"echo: ") < 3:
            got += connection.recv(65536)
    order = [got.index(b"echo: " + word) for word in (b"first", b"second", b"third")]
    assert order == sorted(order)
    assert len(proxy.wait_for_traces(3)) == 3


def test_a_teacher_that_always_closes_the_connection_is_down(client, teacher):
    teacher.answer = lambda request: DROP
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(**{**BODY, "stream": False})
    assert caught.value.status_code == 502
    assert len(teacher.requests) == 1  # it may have been processed: that is the client's to repeat
