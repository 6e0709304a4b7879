"""Any bytes at the port: a proper answer, a refusal, or the end of the connection.

Never a 5xx, never silence, never a proxy that does not answer the next one; and whoever was told of
a trace finds it in the journal. tests/proxy/http/test_fuzz_schemathesis.py, where requests are
well-formed, says how to run it for longer.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, seed
from hypothesis import strategies as st

from proxy.app import SURFACES
from tests.helpers.byte_scene import GOOD, HOW, PATHS, SEED, Scene, fuzzed, proper, request

OTHERS = ["/v1/files", "/v1/responses/resp_1", "/v1/responses/input_tokens", "/nothing", "*"]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with fuzzed(tmp_path) as found:
        yield found


# ---- bytes ---------------------------------------------------------------------------------------

LINES = st.sampled_from(
    [
        b"POST /v1/chat/completions HTTP/1.1\r\n",
        b"GET /health HTTP/1.1\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # a TLS client hello
        b"CONNECT x:443 HTTP/1.1\r\n",
        b"host: localhost\r\n",
        b"content-length: 5\r\n",
        b"content-length: -1\r\n",
        b"content-length: 99999999999999999999\r\n",
        b"transfer-encoding: chunked\r\n",
        b"transfer-encoding: identity, chunked\r\n",
        b"connection: upgrade\r\nupgrade: websocket\r\n",
        b"expect: 100-continue\r\n",
        b"\r\n",
        b"\r\n\r\n",
        b"ffffffffffffffff\r\n",
        b"5\r\nhello\r\n",
        b"0\r\n\r\n",
        json.dumps(GOOD).encode(),
    ]
)


@pytest.mark.slow
def test_any_bytes(scene: Scene) -> None:
    @seed(SEED)
    @HOW
    @given(st.lists(LINES | st.binary(max_size=40), min_size=1, max_size=12))
    def each(pieces: list[bytes]) -> None:
        proper(scene.say(*pieces))

    each()


# ---- heads ---------------------------------------------------------------------------------------

ODD = st.binary(max_size=30) | st.sampled_from([b"", b" ", b"\t", b"\xff", b"\x7f", b"a" * 9000])
NAMES = st.sampled_from(
    [
        *(b"x-understudy-task", b"x-understudy-store", b"content-type", b"content-encoding"),
        *(b"accept", b"accept-encoding", b"authorization", b"x-api-key", b"origin", b"expect"),
        *(b"connection", b"upgrade", b"te", b"trailer", b"cookie", b"traceparent", b"host"),
        *(b"keep-alive", b"x-request-id", b"range", b"forwarded", b"sec-fetch-site", b"prefer"),
    ]
)
VALUES = st.sampled_from(
    [
        *(b"application/json", b"application/json; charset=utf-16", b"multipart/form-data"),
        *(b"gzip", b"identity", b"chunked", b"close", b"upgrade", b"100-continue", b"0", b"1e3"),
        *(b"Bearer ", b"Basic =", b"Bearer \xe4", b"http://[", b"null", b"http://127.0.0.1:x"),
        *(b"text/plain; version=abc", b"application/openmetrics-text; version=9.9.9.9\x80"),
        *(b"application/openmetrics-text; version=1.0.0; escaping=values", b"text/plain;version="),
        *(b"triage", b"TRIAGE", b"false", b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-01"),
    ]
)
SEGMENT = st.sampled_from(
    [
        *(b"..", b".", b"%2e%2e", b"%2F", b"%", b"%zz", b"%00", b"%ff", b"%ed%a0%80", b"\\"),
        *(b"?", b"??", b"&=", b"#", b"[", b"]", b"@", b":", b"//", b";", b"|", b'"', b"<", b"`"),
        *(b"{", b"}", b"^", b"v1", b"files", b"distill", b"metrics", b"a" * 3000, b"%C3%A4"),
    ]
)
TARGETS = st.one_of(
    st.sampled_from([path.encode() for path in [*PATHS, *OTHERS]]),
    st.builds(
        lambda path, rest: path.encode() + b"".join(rest),
        st.sampled_from([*PATHS, *OTHERS, "/", "/v1/", "http://x", "http://x/v1/files", "x:1"]),
        st.lists(SEGMENT | st.just(b"/"), max_size=6),
    ),
)
METHODS = st.sampled_from(
    [*(b"GET", b"POST", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"PATCH"), b"TRACE", b"CONNECT"]
)
FIELDS_OF_ANY_KIND = st.lists(st.tuples(NAMES | ODD, VALUES | ODD), max_size=4)
BODIES = st.sampled_from([b"", b"{}", json.dumps(GOOD).encode(), b"\xff\xfe", b"[" * 300])


@pytest.mark.slow
def test_odd_heads(scene: Scene) -> None:
    @seed(SEED)
    @HOW
    @given(
        METHODS,
        TARGETS,
        st.lists(st.tuples(NAMES, VALUES), max_size=4) | FIELDS_OF_ANY_KIND,
        BODIES,
    )
    def each(method: bytes, path: bytes, fields: list[tuple[bytes, bytes]], body: bytes) -> None:
        lines = [name + b": " + value for name, value in fields]
        proper(scene.say(request(path, body, *lines, method=method)))

    each()


# ---- how it comes --------------------------------------------------------------------------------

CHUNKED = b"transfer-encoding: chunked"


def chunked(body: bytes, sizes: list[int]) -> bytes:
    """The body in chunks of these sizes, the rest in one."""
    sent = b""
    for size in [*sizes, len(body)]:
        piece, body = body[:size], body[size:]
        if piece:
            sent += b"%x;a=b\r\n%b\r\n" % (len(piece), piece)
    return sent + b"0\r\nx-understudy-task: triage\r\n\r\n"


@pytest.mark.slow
def test_cut_anywhere(scene: Scene) -> None:
    """A good request in chunks, cut anywhere, then ended, broken off, or followed by nonsense."""
    head = b"POST %b HTTP/1.1\r\nhost: localhost\r\n" + CHUNKED + b"\r\n\r\n"
    whole = json.dumps({**GOOD, "input": "hello"}).encode()
    after = st.sampled_from([b"", b"", b"GARBAGE\r\n\r\n", b"\x00", request(b"/health", b"")])

    @seed(SEED)
    @HOW
    @given(
        path=st.sampled_from([surface.path.encode() for surface in SURFACES]),
        sizes=st.lists(st.integers(1, 40), max_size=5),
        cuts=st.lists(st.integers(1, 200), max_size=6),
        end=st.none() | st.integers(1, 250),
        more=after,
    )
    def each(path: bytes, sizes: list[int], cuts: list[int], end: int | None, more: bytes) -> None:
        sent = (head % path + chunked(whole, sizes))[:end] + (b"" if end else more)
        pieces = []
        for cut in cuts:
            pieces.append(sent[:cut])
            sent = sent[cut:]
        answers = scene.say(*pieces, sent)
        proper(answers)
        if end is None:
            assert (answers[0].status, answers[0].whole) == (200, True)
            assert b"x-understudy-task" not in answers[0].headers  # a trailer is no header

    each()


@pytest.mark.slow
def test_pipelines(scene: Scene) -> None:
    good = [request(path.encode(), json.dumps(GOOD).encode()) for path in PATHS]
    odd = [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET /health HTTP/1.0\r\n\r\n",
        b"garbage",
        b"\r\n",
        request(b"/v1/chat/completions", b"{"),
        request(b"/health", b"", b"connection: close", method=b"GET"),
        request(b"/v1/chat/completions", json.dumps({**GOOD, "stream": True}).encode()),
        request(b"/v1/chat/completions", b"x" * 300_000),  # over the limit
    ]

    @seed(SEED)
    @HOW
    @given(st.lists(st.sampled_from([*good, *odd]), min_size=1, max_size=30))
    def each(requests: list[bytes]) -> None:
        answers = scene.say(b"".join(requests))
        proper(answers)
        assert len(answers) <= len(requests) + 1
        if not set(requests) & {b"garbage", odd[1], odd[5]}:
            assert len(answers) >= len([r for r in requests if r != b"\r\n"])

    each()
