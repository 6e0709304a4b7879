"""Every refusal raises the OpenAI SDK's proper exception, and leaves the traces it should."""

import socket
import threading
import time

import httpx
import openai
import pytest

from tests.helpers.serving import CLIENT_KEY, TEACHER_KEY
from tests.helpers.teacher_server import LoopbackServer, Reply, completion, error

HELLO = [{"role": "user", "content": "hello"}]
KEYS = [
    {"key": CLIENT_KEY, "name": "app"},
    {"key": "sk-other", "name": "batch", "task": "nightly"},
]


def sdk(proxy, key=CLIENT_KEY):
    return openai.OpenAI(base_url=proxy.base_url, api_key=key, max_retries=0)


def ask(client, **more):
    return client.chat.completions.create(**{"model": "gpt-4o", "messages": HELLO, **more})


@pytest.mark.parametrize(
    ("status", "exception"),
    [
        (400, openai.BadRequestError),
        (401, openai.AuthenticationError),
        (403, openai.PermissionDeniedError),
        (404, openai.NotFoundError),
        (409, openai.ConflictError),
        (422, openai.UnprocessableEntityError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
        (503, openai.InternalServerError),
        (529, openai.InternalServerError),
    ],
)
@pytest.mark.slow
def test_the_teachers_own_errors_pass_unchanged(status, exception, client, proxy, teacher):
    reply = error(status, "as the teacher says", type="own_type", code="own_code")
    teacher.script(reply.with_headers(retry_after="7", x_request_id="req_9"))
    with pytest.raises(exception) as caught:
        ask(client)
    assert caught.value.status_code == status
    assert caught.value.response.content == reply.chunks[0]
    assert caught.value.response.headers["retry-after"] == "7"
    assert caught.value.request_id == "req_9"
    [trace] = proxy.traces()
    assert (trace["outcome"], trace["status_code"]) == ("error", status)
    assert trace["error_type"] == "own_type"
    assert trace["output_messages"] is None


def test_an_error_that_is_not_json_passes_too(client, proxy, teacher):
    page = Reply((b"<html>Bad gateway</html>",), status=502, headers={"content-type": "text/html"})
    teacher.script(page)
    with pytest.raises(openai.InternalServerError) as caught:
        ask(client, stream=True)
    assert caught.value.response.text == "<html>Bad gateway</html>"
    assert proxy.traces()[0]["outcome"] == "error"


@pytest.mark.parametrize(
    ("change", "param"),
    [({"messages": []}, "messages"), ({"n": "two"}, "n"), ({"temperature": "hot"}, "temperature")],
)
def test_400_for_wrong_types(change, param, client, proxy, teacher):
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, **change)
    assert caught.value.param == param
    assert caught.value.type == "invalid_request_error"
    assert (proxy.traces(), teacher.requests) == ([], [])


def test_400_for_malformed_json(client, proxy):
    with pytest.raises(openai.BadRequestError, match="not valid JSON"):
        client.post("/chat/completions", content=b"{", cast_to=object)
    assert proxy.traces() == []


def test_404_for_a_model_that_is_not_in_the_list(client, proxy, teacher):
    with pytest.raises(openai.NotFoundError) as caught:
        ask(client, model="gpt-9")
    assert caught.value.code == "model_not_found"
    assert caught.value.response.headers["x-understudy-route"] == "teacher"
    [trace] = proxy.traces()
    assert (trace["outcome"], trace["status_code"]) == ("error", 404)
    assert trace["error_type"] == "model_not_found"
    assert (trace["served_by"], trace["request_model"]) == (None, "gpt-9")
    assert teacher.requests == []


@pytest.mark.parametrize(
    "path", ["/", "/v2/x", "/v1", "/chat/completions", "/favicon.ico", "//v1/"]
)
@pytest.mark.slow
def test_404_for_an_unknown_path(path, proxy):
    response = httpx.post(proxy.url + path, json={})
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "unknown_url"


@pytest.mark.parametrize("chunked", [False, True])
def test_413_for_a_body_over_the_limit(chunked, start_proxy, teacher):
    proxy = start_proxy(server={"body_limit_mb": 0.01})
    big = [{"role": "user", "content": "x" * 20_000}]
    with sdk(proxy) as client:
        with pytest.raises(openai.APIStatusError) as caught:
            if chunked:
                pieces = (b"x" * 1000 for _ in range(20))
                client.post("/chat/completions", content=pieces, cast_to=object)
            else:
                ask(client, messages=big)
        assert caught.value.status_code == 413
        assert "body_limit_mb" in caught.value.message
        ask(client)  # the next one is served
    assert len(teacher.requests) == 1
    assert len(proxy.traces()) == 1


@pytest.mark.slow
def test_401_where_there_are_keys(start_proxy, teacher):
    proxy = start_proxy(server={"keys": KEYS})
    with sdk(proxy, "sk-wrong") as client, pytest.raises(openai.AuthenticationError) as caught:
        ask(client)
    assert caught.value.code == "invalid_api_key"
    assert httpx.post(f"{proxy.base_url}/chat/completions", json={}).status_code == 401
    assert httpx.get(f"{proxy.base_url}/models").status_code == 401
    assert httpx.post(f"{proxy.base_url}/embeddings", json={}).status_code == 401
    assert httpx.get(f"{proxy.url}/distill/status").status_code == 401
    assert httpx.get(f"{proxy.url}/health").status_code == 200
    assert (proxy.traces(), teacher.requests) == ([], [])
    with sdk(proxy) as client:
        ask(client)
        ask(client, metadata={"task": "own"})
    with sdk(proxy, "sk-other") as client:
        ask(client)
    traces = proxy.traces()
    assert [trace["task"] for trace in traces] == [None, "own", "nightly"]
    assert traces[0]["api_key_hash"] == traces[1]["api_key_hash"] != traces[2]["api_key_hash"]


def test_403_for_a_web_page_of_another_site(client, proxy, teacher):
    with pytest.raises(openai.PermissionDeniedError):
        ask(client, extra_headers={"Origin": "https://example.com"})
    assert teacher.requests == []


def test_502_when_the_teacher_is_down(client, proxy, teacher):
    teacher.close()
    with pytest.raises(openai.InternalServerError) as caught:
        ask(client)
    assert caught.value.status_code == 502
    assert caught.value.code == "teacher_down"
    assert "127.0.0.1" not in caught.value.message and TEACHER_KEY not in caught.value.message
    [trace] = proxy.traces()
    assert (trace["outcome"], trace["error_type"]) == ("error", "teacher_down")


@pytest.mark.slow
def test_504_when_the_teacher_is_slow(start_proxy, teacher):
    proxy = start_proxy(teacher={"read_timeout_s": 0.2})
    teacher.script(completion("late").slow(5))
    with sdk(proxy) as client, pytest.raises(openai.InternalServerError) as caught:
        ask(client)
    assert (caught.value.status_code, caught.value.code) == (504, "teacher_slow")
    assert proxy.traces()[0]["status_code"] == 504


def litellm_settings(port):
    entry = {"model_name": "claude", "litellm_params": {"model": "anthropic/claude-x"}}
    runtime = {"litellm_url": f"http://127.0.0.1:{port}/v1", "litellm_key": "sk-master"}
    return {"model_list": [entry], "runtime": runtime}


@pytest.mark.slow
def test_503_while_litellm_does_not_answer(start_proxy):
    proxy = start_proxy(**litellm_settings(1), teacher={"litellm_start_timeout_s": 0.3})
    with sdk(proxy) as client, pytest.raises(openai.InternalServerError) as caught:
        ask(client, model="claude")
    assert caught.value.status_code == 503
    assert caught.value.code == "teacher_starting"
    assert int(caught.value.response.headers["retry-after"]) > 0
    assert proxy.traces()[0]["provider_name"] == "anthropic"


@pytest.mark.slow
def test_litellm_is_waited_for(start_proxy, teacher):
    """A request that comes before the child listens is answered once it does."""
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    proxy = start_proxy(**litellm_settings(port))
    answers = []

    def early():
        with sdk(proxy) as client:
            answers.append(ask(client, model="claude").choices[0].message.content)

    asking = threading.Thread(target=early)
    asking.start()
    time.sleep(0.4)
    with LoopbackServer(port=port) as child:
        asking.join(20)
        assert answers == ["echo: hello"]
        paths = [request.path for request in child.requests]
        assert paths == ["/health/liveliness", "/v1/chat/completions"]
        assert child.requests[1].headers["authorization"] == "Bearer sk-master"
        assert child.requests[1].json["model"] == "claude"
