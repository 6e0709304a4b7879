"""Requests that were once answered with a 500, or took memory without an end."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from proxy.http.protocol import HEAD_LIMIT
from tests.helpers.raw_http import Raw
from tests.helpers.responses_scene import BODY, TAG, good, post, publish
from tests.helpers.serving import ProxyThread
from tests.helpers.teacher_server import LoopbackServer

GOOD = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}]}
CHUNKED = b"POST %b HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "accept",
    [
        *("text/plain; version=abc", "text/plain; version=", "text/plain; version=1.a.0"),
        *("application/openmetrics-text; version=x", "application/openmetrics-text; version=9.9"),
    ],
)
def test_metrics_in_an_unknown_version_of_the_format(accept: str, proxy: ProxyThread) -> None:
    answer = httpx.get(f"{proxy.url}/metrics", headers={"accept": accept})
    assert answer.status_code == 200
    assert "understudy_requests_in_flight" in answer.text


def test_json_too_deep_to_be_written_is_passed_on_unchanged(
    start_proxy: Any, teacher: LoopbackServer
) -> None:
    params = {"model": "openai/gpt-4o", "api_base": teacher.base_url, "api_key": "sk-x"}
    proxy = start_proxy(model_list=[{"model_name": "alias", "litellm_params": params}])
    deep = b'{"model":"alias","input":%b%b}' % (b"[" * 300, b"]" * 300)
    answer = httpx.post(
        f"{proxy.base_url}/moderations", content=deep, headers={"content-type": "application/json"}
    )
    assert answer.status_code == 400
    assert "nested too deeply" in answer.json()["error"]["message"]


@pytest.fixture
def kept(proxy: ProxyThread) -> Any:
    """The id of a student's response."""
    with LoopbackServer(good) as student:
        publish(proxy, student)
        answer = post(proxy, BODY)
        assert answer.headers["x-understudy-route"] == "student"
        yield answer.json()["id"]


@pytest.mark.parametrize("limit", ["1" * 5_000, "0", "101", "-1", "²", "1.0", ""])
@pytest.mark.slow
def test_a_page_of_an_impossible_length_is_refused(
    limit: str, kept: str, proxy: ProxyThread
) -> None:
    answer = httpx.get(
        f"{proxy.base_url}/responses/{kept}/input_items", params={"limit": limit, "x": "1"}
    )
    # parse_qs leaves out empty values
    assert answer.status_code == (400 if limit else 200)


@pytest.mark.parametrize("asked", [5, True, {"role": "user"}, 0.5])
@pytest.mark.slow
def test_counting_the_tokens_of_an_invalid_input(asked: Any, kept: str, proxy: ProxyThread) -> None:
    body = {"model": "gpt-4o", "previous_response_id": kept, "input": asked}
    answer = httpx.post(f"{proxy.base_url}/responses/input_tokens", json=body, headers=TAG)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "input"


def test_a_trailer_is_not_taken_for_a_header(proxy: ProxyThread, teacher: LoopbackServer) -> None:
    raw = json.dumps(GOOD).encode()
    with Raw(proxy.port) as client:
        client.send(CHUNKED % b"/v1/chat/completions", b"%x\r\n%b\r\n0\r\n" % (len(raw), raw))
        client.send(b"x-understudy-task: triage\r\nx-other: y\r\n\r\n")
        status, headers, _ = client.read_answer()
    assert status == 200
    assert headers["x-understudy-reason"] == "untagged"
    [request] = teacher.requests
    assert "x-other" not in request.headers


@pytest.mark.parametrize("path", [b"/v1/chat/completions", b"/v1/files"])
@pytest.mark.parametrize("trailer", [b"x: y\r\n", b"y" * 100], ids=["many", "long"])
def test_trailers_without_an_end(path: bytes, trailer: bytes, proxy: ProxyThread) -> None:
    with Raw(proxy.port) as client:
        client.send(CHUNKED % path, b"2\r\n{}\r\n0\r\nbegin: ")
        said = b""
        try:
            for _ in range(4 * HEAD_LIMIT // len(trailer)):
                client.send(trailer)
        except OSError:
            pass
        said = client.read_all()
    assert said.startswith(b"HTTP/1.1 431 ") or not said  # the kernel may drop it with the rest
    assert not proxy.traces()


def test_a_body_of_any_length_in_any_chunks_has_no_such_limit(proxy: ProxyThread) -> None:
    raw = json.dumps({**GOOD, "user": "u" * 1_000_000}).encode()
    pieces = b"".join(b"1;ext=x\r\n%c\r\n" % byte for byte in raw[:60_000])
    rest = raw[60_000:]
    with Raw(proxy.port) as client:
        client.send(CHUNKED % b"/v1/chat/completions", pieces)
        client.send(b"%x\r\n%b\r\n0\r\nx: y\r\n\r\n" % (len(rest), rest))
        assert client.read_answer()[0] == 200
