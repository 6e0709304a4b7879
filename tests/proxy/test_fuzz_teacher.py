"""For any bytes of a teacher a client gets the same with and without the proxy.

A raw client reads both ways. What may differ is the framing, and what RFC 9112 has a proxy change:
an answer that is no HTTP, or that breaks off, is a 502 or breaks off here too. A compressed answer
may come decoded.
"""

from __future__ import annotations

import gzip
import http.client
import json
import socketserver
import threading
import zlib
from collections.abc import Callable, Iterator

import brotli
import pytest
import zstandard
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
        b'event: message_start\ndata: {"type":"message_start","message":{"id":"m"}}\n\n',
        b'data: {"type":"content_block_start","content_block":{"type":"tool_use","input":7}}\n\n',
        b'data: {"type":"content_block_delta","index":"0","delta":{"text":["x",7]}}\n\n',
        b'data: {"type":"message_delta","delta":{"stop_reason":7},"usage":[1]}\n\n',
        b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
        b'data: {"type":"response.output_item.added","item":{"type":"function_call"}}\n\n',
        b'data: {"type":"response.output_text.delta","output_index":-1,"delta":{"x":[]}}\n\n',
        b'data: {"type":"response.function_call_arguments.done","arguments":{"a":1}}\n\n',
        b'event: response.completed\ndata: {"response":{"output":[{"content":["x",7]}]}}\n\n',
        b'[{"error":{"code":429}}]',
        b"retry: 10\n\n",
        b"event: error\n",
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


CODINGS: dict[str, tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]] = {
    "gzip": (gzip.compress, gzip.decompress),
    "deflate": (zlib.compress, zlib.decompress),
    "br": (brotli.compress, brotli.decompress),
    "zstd": (zstandard.compress, zstandard.decompress),
}

UNDECODABLE = (EOFError, zlib.error, brotli.error, zstandard.ZstdError)


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
        read = response.read()
        coding = response.headers.get("content-encoding")
        if coding is not None:
            read = CODINGS[coding][1](read)
        return response.status, response.headers.get("content-type"), read
    except (OSError, http.client.HTTPException, *UNDECODABLE) as error:
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
@pytest.mark.slow
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


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.sampled_from(PATHS),
    stream=st.booleans(),
    kind=st.sampled_from(KINDS),
    coding=st.sampled_from(sorted(CODINGS)),
    framing=st.sampled_from(["length", "close"]),
    pieces=PIECES,
    cut=st.none() | st.integers(0, 60),
)
@pytest.mark.slow
def test_a_compressed_answer_of_any_bytes_is_the_same(
    path: str,
    stream: bool,
    kind: str,
    coding: str,
    framing: str,
    pieces: list[bytes],
    cut: int | None,
    raw_teacher: _Teacher,
    between: ProxyThread,
) -> None:
    """`cut`: how many bytes of the compressed body come, which then contradicts its coding."""
    body = CODINGS[coding][0](b"".join(pieces))[:cut]
    head = b"HTTP/1.1 200 X\r\ncontent-type: %b\r\ncontent-encoding: %b\r\n" % (
        kind.encode(),
        coding.encode(),
    )
    if framing == "length":
        head += b"content-length: %d\r\n" % len(body)
    raw_teacher.answer = head + b"connection: close\r\n\r\n" + body
    alone = seen(raw_teacher.server_address[1], path, stream)
    got = seen(between.port, path, stream)
    if alone[0] == "broken":  # of a stream the client may have what could be decoded
        assert got == alone or (
            got[:2] == (200, kind) and b"".join(pieces).startswith(got[2])  # type: ignore[arg-type]
        )
    else:
        assert got == alone


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
@pytest.mark.slow
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
