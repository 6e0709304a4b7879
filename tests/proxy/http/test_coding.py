"""Compressed bodies, of requests and of answers, are read as what they hold, within the limit."""

import contextlib
import gzip
import json
import zlib

import brotli
import httpx
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from proxy.http.coding import CodingError, decode, decoder_of
from tests.helpers.teacher_server import Reply, completion

CODINGS = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstandard.compress,
    "ZSTD": lambda data: zstandard.ZstdCompressor(write_content_size=False).compress(data),
}
BODY = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}
MB = 1024 * 1024


@given(
    st.binary(max_size=2000),
    st.integers(1, 200),
    st.integers(1, 3000),
    st.sampled_from(sorted(CODINGS)),
)
def test_whatever_is_compressed_comes_out_the_same(data, repeats, size, coding):
    decoder = decoder_of(coding.encode())
    squeezed = CODINGS[coding](data * repeats)
    out = b""
    for start in range(0, len(squeezed), size):
        decoder.feed(squeezed[start : start + size])
        while piece := decoder.step():
            out += piece
    assert out == data * repeats
    assert decoder.whole


@given(st.binary(min_size=1, max_size=500), st.sampled_from(sorted(CODINGS)))
def test_bytes_in_another_coding_are_an_error_of_one_kind(data, coding):
    with contextlib.suppress(CodingError, OverflowError):
        decode(data, coding.encode(), MB)


@pytest.mark.parametrize("coding", sorted(CODINGS))
def test_a_body_that_was_cut_off_is_an_error(coding):
    squeezed = CODINGS[coding](bytes(range(256)) * 50)
    with pytest.raises(CodingError):
        decode(squeezed[:-9], coding.encode(), MB)


@pytest.mark.parametrize("coding", sorted(CODINGS))
@pytest.mark.slow
def test_a_small_body_that_grows_beyond_the_limit_is_refused(coding, start_proxy, teacher):
    proxy = start_proxy(server={"body_limit_mb": 1})
    bomb = CODINGS[coding](b" " * (64 * MB))
    headers = {"content-encoding": coding, "content-type": "application/json"}
    for path in ("chat/completions", "moderations"):
        answer = httpx.post(f"{proxy.base_url}/{path}", content=bomb, headers=headers)
        assert answer.status_code == 413
    assert teacher.requests == []


@pytest.mark.parametrize("path", ["chat/completions", "moderations"])
@pytest.mark.parametrize("coding", [*sorted(CODINGS), "identity"])
@pytest.mark.slow
def test_a_compressed_request_is_understood(coding, path, proxy, teacher):
    raw = json.dumps(BODY).encode()
    headers = {"content-encoding": coding, "content-type": "application/json"}
    sent = CODINGS.get(coding, bytes)(raw)
    answer = httpx.post(f"{proxy.base_url}/{path}", content=sent, headers=headers)
    assert answer.status_code == 200
    [request] = teacher.requests
    assert request.json == BODY
    assert "content-encoding" not in request.headers


def test_a_request_in_an_unknown_coding_is_told_so(proxy, teacher):
    headers = {"content-encoding": "compress", "content-type": "application/json"}
    answer = httpx.post(f"{proxy.base_url}/chat/completions", content=b"x", headers=headers)
    assert answer.status_code == 415
    assert "zstd" in answer.headers["accept-encoding"]
    headers["content-encoding"] = "gzip"
    answer = httpx.post(f"{proxy.base_url}/chat/completions", content=b"x", headers=headers)
    assert answer.status_code == 400


@pytest.mark.parametrize("coding", sorted(CODINGS))
@pytest.mark.slow
def test_an_answer_that_is_compressed_in_spite_of_identity_is_read(coding, proxy, teacher):
    [raw] = completion("Hi").chunks
    teacher.script(Reply((CODINGS[coding](raw),)).with_headers(content_encoding=coding))
    answer = httpx.post(f"{proxy.base_url}/chat/completions", json=BODY)
    assert answer.content == raw
    assert "content-encoding" not in answer.headers
    [trace] = proxy.traces()
    assert (trace["outcome"], trace["input_tokens"]) == ("complete", 7)


def test_an_answer_in_an_unknown_coding_is_passed_on_and_not_learned(proxy, teacher):
    teacher.script(Reply((b"\x1f\x9dsqueezed",)).with_headers(content_encoding="compress"))
    with httpx.stream("POST", f"{proxy.base_url}/chat/completions", json=BODY) as answer:
        assert b"".join(answer.iter_raw()) == b"\x1f\x9dsqueezed"
    assert answer.headers["content-encoding"] == "compress"
    assert proxy.traces()[0]["error_type"] == "unread"


def test_an_answer_without_a_body_may_name_a_coding():
    for coding in CODINGS:
        assert decode(b"", coding.encode(), MB) == b""


def test_several_frames_are_one_body():
    squeezed = zstandard.compress(b"one ") + zstandard.compress(b"two")
    assert decode(squeezed, b"zstd", MB) == b"one two"
