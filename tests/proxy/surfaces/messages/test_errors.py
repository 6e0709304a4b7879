"""Every refusal raises the proper exception of Anthropic's client, and leaves its trace."""

import json
from dataclasses import replace

import anthropic
import httpx
import pytest

from tests.helpers.message_samples import echo, refused, streamed
from tests.helpers.serving import CLIENT_KEY
from tests.helpers.teacher_server import LoopbackServer, events

BODY = {
    "model": "gpt-4o",
    "max_tokens": 64,
    "messages": [{"role": "user", "content": "hello there"}],
}
KEYS = [{"key": CLIENT_KEY, "name": "app"}, {"key": "sk-b", "name": "b", "task": "nightly"}]


@pytest.fixture
def teacher():
    with LoopbackServer(echo) as server:
        yield server


@pytest.fixture
def client(proxy):
    with sdk(proxy) as found:
        yield found


def sdk(proxy, key=CLIENT_KEY):
    return anthropic.Anthropic(base_url=proxy.url, api_key=key, max_retries=0)


@pytest.mark.parametrize(
    ("status", "kind", "exception"),
    [
        (400, "invalid_request_error", anthropic.BadRequestError),
        (401, "authentication_error", anthropic.AuthenticationError),
        (403, "permission_error", anthropic.PermissionDeniedError),
        (404, "not_found_error", anthropic.NotFoundError),
        (413, "request_too_large", anthropic.APIStatusError),
        (429, "rate_limit_error", anthropic.RateLimitError),
        (500, "api_error", anthropic.InternalServerError),
        (529, "overloaded_error", anthropic.APIStatusError),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.slow
def test_the_teachers_own_errors_pass_unchanged(
    stream, status, kind, exception, client, proxy, teacher
):
    reply = refused(status, kind, "as the teacher says")
    teacher.script(reply.with_headers(retry_after="7"))
    with pytest.raises(exception) as caught:
        client.messages.create(**BODY, stream=stream)
    assert (caught.value.status_code, caught.value.request_id) == (status, "req_t")
    assert caught.value.response.content == reply.chunks[0]
    assert caught.value.response.headers["retry-after"] == "7"
    [trace] = proxy.traces()
    assert (trace["outcome"], trace["status_code"]) == ("error", status)
    assert (trace["error_type"], trace["output_messages"]) == (kind, None)


def test_a_teacher_without_messages_says_so_itself(client, proxy, teacher):
    teacher.script(replace(refused(404, "x", "x"), chunks=(b"Not Found",)))
    with pytest.raises(anthropic.NotFoundError) as caught:
        client.messages.create(**BODY)
    assert caught.value.response.text == "Not Found"
    assert proxy.traces()[0]["status_code"] == 404


REFUSALS = {
    "types": (
        {"extra_body": {"top_p": "high"}},
        *("invalid_request_error", 400, anthropic.BadRequestError),
    ),
    "no model": ({"model": "gpt-9"}, "not_found_error", 404, anthropic.NotFoundError),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_our_refusals_have_anthropics_form(name, client, teacher):
    change, kind, status, exception = REFUSALS[name]
    with pytest.raises(exception) as caught:
        client.messages.create(**{**BODY, **change})
    payload = caught.value.response.json()
    assert (payload["type"], payload["error"]["type"]) == ("error", kind)
    assert payload["error"]["message"] in str(caught.value)
    assert payload["request_id"] == caught.value.request_id
    assert payload["request_id"].startswith("req_")
    assert (caught.value.status_code, caught.value.type) == (status, kind)
    assert teacher.requests == []


def test_malformed_json(proxy):
    response = httpx.post(f"{proxy.base_url}/messages", content=b"{")
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"
    assert response.json()["request_id"] == response.headers["request-id"]


def test_413(start_proxy, teacher):
    proxy = start_proxy(server={"body_limit_mb": 0.01})
    with sdk(proxy) as client, pytest.raises(anthropic.APIStatusError) as caught:
        client.messages.create(**{**BODY, "system": "x" * 20_000})
    assert caught.value.status_code == 413
    assert caught.value.response.json()["error"]["type"] == "request_too_large"


@pytest.mark.slow
def test_keys(start_proxy, teacher):
    proxy = start_proxy(server={"keys": KEYS})
    with sdk(proxy, "sk-wrong") as client, pytest.raises(anthropic.AuthenticationError) as caught:
        client.messages.create(**BODY)
    assert caught.value.response.json()["error"]["type"] == "authentication_error"
    # older clients send the key so
    for headers in ({"x-api-key": "sk-b"}, {"x-api-key": "sk-b", "authorization": "Bearer x"}):
        response = httpx.post(f"{proxy.base_url}/messages", json=BODY, headers=headers)
        assert response.status_code == 200
    response = httpx.post(
        f"{proxy.base_url}/messages", json=BODY, headers={"x-api-key": "sk-wrong"}
    )
    assert response.status_code == 401
    traces = proxy.traces()
    assert [trace["task"] for trace in traces] == ["nightly"] * 2
    assert all(
        "authorization" in r.headers and "x-api-key" not in r.headers for r in teacher.requests
    )


def test_the_teacher_is_down(client, proxy, teacher):
    teacher.close()
    with pytest.raises(anthropic.InternalServerError) as caught:
        client.messages.create(**BODY)
    assert (caught.value.status_code, caught.value.type) == (502, "api_error")
    [trace] = proxy.traces()
    assert trace["error_type"] == "teacher_down"
    assert caught.value.request_id == f"req_{trace['trace_id'].replace('-', '')}"


def test_an_error_in_a_stream(client, proxy, teacher):
    broken = b"event: error\ndata: %b\n\n" % refused(529, "overloaded_error", "x").chunks[0]
    teacher.script(events(*streamed("one two").chunks[:4], broken))
    with pytest.raises(anthropic.APIStatusError, match="overloaded_error"):
        list(client.messages.create(**BODY, stream=True))
    [trace] = proxy.wait_for_traces(1)
    assert (trace["outcome"], trace["error_type"]) == ("error", "overloaded_error")
    assert json.loads(trace["output_messages"])[0]["content"] == "one"
