"""Everything else under /v1/ goes to the teacher and back; /distill/ to the control plane."""

import socket

import httpx
import openai
import pytest

from tests.helpers.serving import CLIENT_KEY, CONTROL_TOKEN, TEACHER_KEY, wait_until
from tests.helpers.teacher_server import DROP, LoopbackServer, Reply, error, events, stream


def test_moderations_through_the_sdk(client, proxy, teacher):
    teacher.script(Reply((b'{"id":"modr-1","model":"m","results":[{"flagged":false}]}',)))
    assert client.moderations.create(input="hi").results[0].flagged is False
    [request] = teacher.requests
    assert (request.method, request.path) == ("POST", "/v1/moderations")
    assert request.headers["authorization"] == f"Bearer {TEACHER_KEY}"
    assert CLIENT_KEY not in repr(request)
    assert proxy.traces() == []


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
def test_every_method_with_its_path_and_query(method, proxy, teacher):
    response = httpx.request(method, f"{proxy.base_url}/files/a%2Fb?limit=3&after=x%20y")
    assert response.status_code == 200
    [request] = teacher.requests
    assert (request.method, request.path) == (method, "/v1/files/a%2Fb?limit=3&after=x%20y")


def test_getting_chat_completions_is_passed_on(proxy, teacher):
    httpx.get(f"{proxy.base_url}/chat/completions?limit=1")
    assert teacher.requests[0].path == "/v1/chat/completions?limit=1"
    assert proxy.traces() == []


def test_a_trailing_slash_is_no_way_around_the_log(proxy):
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}
    assert httpx.post(f"{proxy.base_url}/chat/completions/", json=body).status_code == 200
    assert len(proxy.traces()) == 1


@pytest.mark.parametrize(
    "path",
    [
        "/v1/../key/generate",
        "/v1/files/../../key/generate",
        "/v1/%2e%2e/key/generate",
        "/v1/files/..%2f..%2fkey",
        "/v1/..%5ckey",
        "/v1/./files",
        "/v1//chat/completions",
        "/v1/files/..",
        "/%76%31/files",
    ],
)
@pytest.mark.slow
def test_no_path_leads_out_of_v1(path, proxy, teacher):
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as connection:
        connection.sendall(f"POST {path} HTTP/1.1\r\ncontent-length: 0\r\n\r\n".encode())
        assert connection.recv(1024).startswith(b"HTTP/1.1 404 ")
    assert teacher.requests == []


def test_head_requests_are_passed_on(proxy, teacher):
    teacher.script(Reply((b"not sent",)))
    response = httpx.head(f"{proxy.base_url}/files/x")
    assert (response.status_code, response.headers["content-length"]) == (200, "8")


def test_options_and_unknown_methods(proxy, teacher):
    response = httpx.options(f"{proxy.base_url}/chat/completions")
    assert (response.status_code, response.content) == (204, b"")
    assert "POST" in response.headers["allow"]
    response = httpx.delete(f"{proxy.url}/health")
    assert (response.status_code, response.headers["allow"]) == (405, "GET")
    assert teacher.requests == []


def test_an_upload_is_streamed(start_proxy, teacher):
    """Larger than the limit for JSON bodies: it is never held."""
    proxy = start_proxy(server={"body_limit_mb": 0.01})
    with openai.OpenAI(base_url=proxy.base_url, api_key="x", max_retries=0) as client:
        client.files.create(file=("big.jsonl", b"x" * 300_000), purpose="fine-tune")
    [request] = teacher.requests
    assert b"x" * 300_000 in request.body
    assert request.headers["content-type"].startswith("multipart/form-data; boundary=")
    assert int(request.headers["content-length"]) == len(request.body)


def test_a_chunked_upload(proxy, teacher):
    pieces = (b"part" for _ in range(5))
    headers = {"content-type": "application/octet-stream"}
    response = httpx.put(f"{proxy.base_url}/files", content=pieces, headers=headers)
    assert response.status_code == 200
    assert teacher.requests[0].body == b"part" * 5


def test_a_chunked_upload_that_is_cut(proxy, teacher):
    with socket.create_connection(("127.0.0.1", proxy.port)) as connection:
        connection.sendall(
            b"POST /v1/files HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n4\r\npart\r\n"
        )
    assert httpx.get(f"{proxy.url}/health").status_code == 200
    assert teacher.requests == []  # never whole


def test_answers_are_streamed_back(proxy, teacher):
    reply = stream("one two three")
    teacher.script(reply)
    response = httpx.post(
        f"{proxy.base_url}/audio/speech", json={"model": "gpt-4o", "stream": True}
    )
    assert response.content == b"".join(reply.chunks)
    assert response.headers["content-type"] == "text/event-stream"


def test_a_compressed_answer_is_passed_on_compressed(proxy, teacher):
    teacher.script(Reply((b"\x1f\x8bnot looked at",)).with_headers(content_encoding="gzip"))
    with (
        httpx.Client() as http,
        http.stream("GET", f"{proxy.base_url}/files/x") as response,
    ):
        assert b"".join(response.iter_raw()) == b"\x1f\x8bnot looked at"
        assert response.headers["content-encoding"] == "gzip"


def test_errors_are_passed_on_and_breaks_abort(proxy, teacher):
    teacher.script(error(418, "teapot"))
    response = httpx.post(f"{proxy.base_url}/moderations", json={})
    assert (response.status_code, response.json()["error"]["message"]) == (418, "teapot")
    teacher.script(events(b"data: 1\n\n", b"data: 2\n\n").broken(1))
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.post(f"{proxy.base_url}/audio/speech", json={})
    teacher.script(DROP, DROP)
    assert httpx.post(f"{proxy.base_url}/moderations", json={}).status_code == 502


@pytest.mark.slow
def test_the_client_hangs_up(proxy, teacher):
    teacher.script(stream("word " * 300).paced(0.05))
    with (
        httpx.Client() as http,
        http.stream("POST", f"{proxy.base_url}/audio/speech", json={}) as response,
    ):
        next(response.iter_raw())
    wait_until(lambda: teacher.hang_ups == 1)


def deployment(name, server, upstream):
    params = {"model": f"openai/{upstream}", "api_base": server.base_url, "api_key": name}
    return {"model_name": name, "litellm_params": params}


@pytest.mark.slow
def test_the_deployment_is_chosen_by_the_bodys_model(start_proxy, teacher):
    with LoopbackServer() as other:
        proxy = start_proxy(
            model_list=[deployment("first", teacher, "up-1"), deployment("second", other, "up-2")],
            teacher={"model": "second"},
        )
        for body in ({"model": "first"}, {"model": "second"}, {"model": "?"}, {"model": 1}, []):
            assert httpx.post(f"{proxy.base_url}/moderations", json=body).status_code == 200
        httpx.post(
            f"{proxy.base_url}/moderations",
            content=b"not json",
            headers={"content-type": "application/json"},
        )
        httpx.get(f"{proxy.base_url}/files")
        assert [request.json for request in teacher.requests] == [{"model": "up-1"}]
        assert teacher.requests[0].headers["authorization"] == "Bearer first"
        sent = [request.body for request in other.requests]
        assert sent == [
            b'{"model":"up-2"}',
            b'{"model":"?"}',
            b'{"model":1}',
            b"[]",
            b"not json",
            b"",
        ]


def test_litellms_own_routes_are_not_for_clients(start_proxy, teacher):
    entry = {"model_name": "claude", "litellm_params": {"model": "anthropic/claude-x"}}
    runtime = {"litellm_url": teacher.base_url, "litellm_key": "sk-master"}
    proxy = start_proxy(model_list=[entry], runtime=runtime)
    assert httpx.get(f"{proxy.base_url}/model/info").status_code == 404
    assert httpx.post(f"{proxy.base_url}/mcp/server?x=1", json={}).status_code == 404
    assert teacher.requests == []
    assert httpx.post(f"{proxy.base_url}/rerank", json={"model": "claude"}).status_code == 200
    assert teacher.requests[0].headers["authorization"] == "Bearer sk-master"


@pytest.fixture
def control():
    with LoopbackServer() as server:
        yield server


def test_the_control_plane_answers_under_distill(start_proxy, control, teacher):
    proxy = start_proxy(runtime={"control_port": control.port})
    headers = {"authorization": f"Bearer {CLIENT_KEY}", "x-understudy-token": "forged"}
    response = httpx.get(f"{proxy.url}/distill/status/a%20b?json=1", headers=headers)
    assert response.json() == {"path": "/distill/status/a%20b?json=1"}
    httpx.post(f"{proxy.url}/distill/tasks/x/pause", json={"why": "test"})
    assert httpx.get(f"{proxy.url}/distill").json() == {"path": "/distill"}
    assert httpx.get(f"{proxy.url}/distillery").status_code == 404
    first, second, _ = control.requests
    assert first.headers["x-understudy-token"] == CONTROL_TOKEN
    assert "authorization" not in first.headers
    assert (second.method, second.json) == ("POST", {"why": "test"})
    assert teacher.requests == []


def test_503_while_the_control_plane_is_down(proxy, client):
    response = httpx.get(f"{proxy.url}/distill/status")
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "control_plane_down"
    client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "hi"}])
