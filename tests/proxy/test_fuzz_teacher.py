"""For any bytes of a teacher a client gets the same with and without the proxy.

A raw client reads both ways. What may differ is the framing, and what RFC 9112 has a proxy change:
an answer that is no HTTP, or that breaks off, is a 502 or breaks off here too.
"""

from __future__ import annotations

import http.client
import json
import socketserver
import threading
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.helpers.serving import ProxyThread
from tests.helpers.serving import settings as proxy_settings

PATHS = ["/v1/chat/completions", "/v1/responses", "/v1/messages", "/v1/moderations"]
KINDS = ["application/json", "text/event-stream", "text/plain", "", "application/octet-stream"]
EVENT = st.sampled_from(
    [
        b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n',
        b'data: {"choices":[{"delta":{"tool_calls":[{"function":{"arguments":{"a":1}}}]}}]}\n\n',
        b'data: {"choices":[{"delta":{"content":[{"type":"text","text":"x"}]}}]}\n\n',
        b'data: {"choices":[{"message":7,"delta":null,"index":"0"}]}\n\n',
        b'data: {"usage":{"prompt_tokens":1e300},"choices":null}\n\n',
        b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0}\n\n',
        b'data: {"type":"response.completed","response":7}\n\n',
        b'{"choices":[{"message":{"content":"x"},"finish_reason":"stop"}],"usage":[]}',
        b'{"error":{"message":"no"}}',
        b'{"content":[{"type":"tool_use"}],"usage":{"input_tokens":"x"}}',
        b'{"output":[{"type":"message","content":7}],"id":[]}',
        b"data: [DONE]\n\n",
        b": ping\n\n",
        b"\xef\xbb\xbf",
        b"\r",
        b"\n",
    ]
)
PIECES = st.lists(EVENT | st.binary(max_size=30), max_size=6)


class _Teacher(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    answer = b""


class _Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        length = 0
        while (line := self.rfile.readline()) not in (b"\r\n", b""):
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        self.rfile.read(length)
        self.wfile.write(self.server.answer)  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def raw_teacher() -> Iterator[_Teacher]:
    with _Teacher(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join(10)


@pytest.fixture(scope="module")
def between(
    raw_teacher: _Teacher, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ProxyThread]:
    base_url = f"http://127.0.0.1:{raw_teacher.server_address[1]}/v1"
    with ProxyThread(proxy_settings(base_url, tmp_path_factory.mktemp("data"))) as proxy:
        yield proxy


def seen(port: int, path: str, stream: bool) -> tuple[object, ...]:
    """What a client reads: status, content type, and the body, or that it broke off."""
    body = json.dumps(
        {
            "model": "gpt-4o",
            "messages": [{"role": "user", "content": "hi"}],
            "input": "hi",
            "stream": stream,
        }
    )
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("POST", path, body, {"content-type": "application/json"})
        response = connection.getresponse()
        return response.status, response.headers.get("content-type"), response.read()
    except (TimeoutError, http.client.HTTPException, ConnectionError) as error:
        return ("broken", isinstance(error, TimeoutError))
    finally:
        connection.close()


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.sampled_from(PATHS),
    stream=st.booleans(),
    status=st.sampled_from([200, 200, 200, 400, 429, 500]),
    kind=st.sampled_from(KINDS),
    framing=st.sampled_from(["length", "chunked", "close", "both"]),
    pieces=PIECES,
)
def test_a_whole_answer_of_any_bytes_is_the_same(
    path: str,
    stream: bool,
    status: int,
    kind: str,
    framing: str,
    pieces: list[bytes],
    raw_teacher: _Teacher,
    between: ProxyThread,
) -> None:
    body = b"".join(pieces)
    head = [b"HTTP/1.1 %d X" % status, b"content-type: " + kind.encode()]
    if framing in ("length", "both"):
        head.append(b"content-length: %d" % len(body))
    if framing in ("chunked", "both"):
        head.append(b"transfer-encoding: chunked")
        body = b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in pieces if one) + b"0\r\n\r\n"
    raw_teacher.answer = b"\r\n".join([*head, b"connection: close", b"", b""]) + body
    alone = seen(raw_teacher.server_address[1], path, stream)
    assert alone[:2] == (status, kind)
    assert seen(between.port, path, stream) == alone


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.sampled_from(PATHS),
    stream=st.booleans(),
    head=st.sampled_from(
        [
            b"",
            b"HTTP/1.1 200 OK\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 500\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n",
            b"HTTP/1.1 777 X\r\ncontent-length: 0\r\n\r\n",
        ]
    ),
    rest=st.binary(max_size=100),
)
def test_bytes_that_are_no_whole_answer_are_an_error_and_no_silence(
    path: str,
    stream: bool,
    head: bytes,
    rest: bytes,
    raw_teacher: _Teacher,
    between: ProxyThread,
) -> None:
    raw_teacher.answer = head + rest
    got = seen(between.port, path, stream)
    assert got != ("broken", True), "the client waits for ever"
    assert got[0] in ("broken", 200, 502) or 100 <= int(str(got[0])) < 600
