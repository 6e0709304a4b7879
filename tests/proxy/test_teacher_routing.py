"""Which of several deployments is asked, and what is followed: as a client of them would do it."""

import json
from types import SimpleNamespace

import httpx
import pytest

from proxy.multipart import boundary_of, model_field
from tests.helpers.teacher_server import LoopbackServer, Reply, completion

QUESTION = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}


def endpoint(name, server, model="openai/gpt-4o", key="k"):
    params = {"model": model, "api_base": server.base_url, "api_key": key}
    return {"model_name": name, "litellm_params": params}


def responding(prefix):
    """A teacher of the Responses API that knows its own responses alone."""

    def answer(request):
        last = request.path.rpartition("/")[2]
        if request.method != "POST":
            known = last.startswith(prefix)
            return Reply((json.dumps({"id": last}).encode(),), status=200 if known else 404)
        earlier = request.json.get("previous_response_id")
        if earlier is not None and not earlier.startswith(prefix):
            return Reply((b'{"error":{"code":"previous_response_not_found"}}',), status=400)
        count = len(server.requests)
        return Reply((json.dumps({"id": f"{prefix}{count}", "output": []}).encode(),))

    server = LoopbackServer(answer)
    return server


@pytest.fixture
def two():
    with responding("resp_a") as one, responding("resp_b") as other:
        yield one, other


@pytest.fixture
def between(start_proxy, two):
    return start_proxy(model_list=[endpoint("gpt-4o", server) for server in two])


def respond(proxy, **more):
    body = {"model": "gpt-4o", "input": "hi", **more}
    return httpx.post(f"{proxy.base_url}/responses", json=body)


@pytest.mark.slow
def test_who_made_a_response_is_asked_to_go_on_from_it(between):
    for _ in range(6):
        first = respond(between).json()["id"]
        second = respond(between, previous_response_id=first)
        assert second.status_code == 200
        assert second.json()["id"][:6] == first[:6]


@pytest.mark.slow
def test_a_response_of_before_this_worker_is_looked_for(between):
    for made in ("resp_a77", "resp_b77") * 2:
        assert respond(between, previous_response_id=made).status_code == 200
        assert httpx.get(f"{between.base_url}/responses/{made}").status_code == 200
    assert respond(between, previous_response_id="resp_c1").status_code == 400
    assert httpx.get(f"{between.base_url}/responses/resp_c1").status_code == 404


def test_a_deployment_that_is_down_does_not_hide_what_the_other_one_made(start_proxy, two):
    down = SimpleNamespace(base_url="http://127.0.0.1:1/v1")
    proxy = start_proxy(model_list=[endpoint("gpt-4o", down), endpoint("gpt-4o", two[1])])
    assert httpx.get(f"{proxy.base_url}/responses/resp_b1").status_code == 200
    assert respond(proxy, previous_response_id="resp_b1").status_code == 200


@pytest.mark.slow
def test_a_response_of_the_second_model_is_found(start_proxy, two):
    proxy = start_proxy(model_list=[endpoint("gpt-4o", two[0]), endpoint("o3", two[1])])
    made = respond(proxy, model="o3").json()["id"]
    for path in (f"responses/{made}", f"responses/{made}/input_items"):
        assert httpx.get(f"{proxy.base_url}/{path}").status_code in (200, 404)
    assert httpx.get(f"{proxy.base_url}/responses/{made}").json()["id"] == made


# ---- the list of models --------------------------------------------------------------------------


@pytest.mark.slow
def test_behind_a_wildcard_are_the_models_that_the_teacher_lists(start_proxy, teacher):
    teacher.answer = lambda request: Reply(
        (b'{"object":"list","data":[{"id":"gpt-4o","owned_by":"x"},{"id":"o3"},{"no":"id"}]}',)
    )
    proxy = start_proxy(model_list=[endpoint("*", teacher, "openai/*")])
    assert _listed(proxy) == ["gpt-4o", "o3"]
    proxy = start_proxy(model_list=[endpoint("o3", teacher), endpoint("my/*", teacher, "openai/*")])
    assert _listed(proxy) == ["o3", "my/gpt-4o", "my/o3"]


@pytest.mark.parametrize("raw", [b"<html>", b"[]", b'{"data":7}', b'{"data":[7]}'])
def test_a_list_that_cannot_be_read_leaves_the_names_of_the_config(raw, start_proxy, teacher):
    teacher.answer = lambda request: Reply((raw,))
    proxy = start_proxy(model_list=[endpoint("o3", teacher), endpoint("*", teacher, "openai/*")])
    assert _listed(proxy) == ["o3"]


def _listed(proxy):
    answer = httpx.get(f"{proxy.base_url}/models")
    assert answer.status_code == 200
    return [entry["id"] for entry in answer.json()["data"]]


# ---- redirects -----------------------------------------------------------------------------------


def moved(to, status=307):
    return Reply(status=status, headers={"location": to})


@pytest.mark.parametrize("status", [307, 308])
def test_a_redirect_to_the_same_host_is_followed_with_its_body(status, proxy, teacher):
    teacher.script(moved("/v1/chat/completions/", status), completion("Hi"))
    answer = httpx.post(f"{proxy.base_url}/chat/completions", json=QUESTION)
    assert answer.json()["choices"][0]["message"]["content"] == "Hi"
    assert [request.json for request in teacher.requests] == [QUESTION] * 2
    assert teacher.requests[1].path == "/v1/chat/completions/"
    assert [trace["outcome"] for trace in proxy.traces()] == ["complete"]


@pytest.mark.parametrize(
    "to",
    ["http://127.0.0.1:1/v1/x", "http://localhost:{port}/v1/x", "//[", "http://u:p@127.0.0.1/"],
)
def test_a_redirect_to_another_host_is_the_clients_to_follow(to, proxy, teacher):
    to = to.replace("{port}", str(teacher.port))
    teacher.script(moved(to))
    answer = httpx.post(f"{proxy.base_url}/chat/completions", json=QUESTION)
    assert (answer.status_code, answer.headers["location"]) == (307, to)
    assert len(teacher.requests) == 1


@pytest.mark.parametrize("status", [301, 302, 303])
def test_a_redirect_that_would_turn_a_post_into_a_get_is_the_clients(status, proxy, teacher):
    teacher.script(moved("/v1/x", status))
    answer = httpx.post(f"{proxy.base_url}/chat/completions", json=QUESTION)
    assert answer.status_code == status
    assert len(teacher.requests) == 1


def test_redirects_in_a_circle_end(proxy, teacher):
    teacher.answer = lambda request: moved(request.path)
    answer = httpx.post(f"{proxy.base_url}/chat/completions", json=QUESTION)
    assert answer.status_code == 307
    assert len(teacher.requests) == 6


# ---- forms ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["model first", "file first"])
def test_a_forms_model_says_which_deployment_is_asked(order, start_proxy, teacher):
    with LoopbackServer(lambda request: Reply((b'{"text":"heard"}',))) as whisper:
        proxy = start_proxy(
            model_list=[
                endpoint("gpt-4o", teacher),
                endpoint("whisper", whisper, "openai/whisper-large-v3", key="other"),
            ]
        )
        fields = [("model", (None, "whisper")), ("file", ("a.wav", b"\0\r\n--" * 999))]
        answer = httpx.post(
            f"{proxy.base_url}/audio/transcriptions",
            files=fields if order == "model first" else fields[::-1],
        )
        assert answer.json() == {"text": "heard"}
        [request] = whisper.requests
        assert b"\r\n\r\nwhisper-large-v3\r\n" in request.body
        assert b"\0\r\n--" * 999 in request.body
        assert request.headers["authorization"] == "Bearer other"
    assert teacher.requests == []


def test_a_form_without_a_known_model_goes_to_the_default_as_it_came(proxy, teacher):
    for model in ("unknown", ""):
        httpx.post(f"{proxy.base_url}/files", files={"model": (None, model), "file": b"x"})
    assert all(b'name="file"' in request.body for request in teacher.requests)


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'--b\r\ncontent-disposition: form-data; name="model"\r\n\r\nx\r\n--b--', b"x"),
        (b"--b\r\nContent-Disposition: form-data; name=model\r\n\r\nx\r\n--b--", b"x"),
        (b'--b\r\ncontent-disposition: form-data; name="models"\r\n\r\nx\r\n--b--', None),
        (b'--b\r\ncontent-disposition: form-data; filename="model"\r\n\r\nx\r\n--b--', None),
        (b'--b\ncontent-disposition: form-data; name="model"\n\nx\n--b--\n', b"x"),
        (
            b'--b\ncontent-disposition: form-data; name="file"\n\na\r\n\r\nb\n'
            b'--b\ncontent-disposition: form-data; name="model"\n\nx\n--b--\n',
            b"x",
        ),
        (b'--b\r\ncontent-disposition: form-data; name="model"\r\n\r\nx', None),
        (b"--b", None),
        (b"", None),
    ],
)
def test_only_the_field_of_that_name_is_the_model(body, value):
    place = model_field(body, b"b")
    assert (body[slice(*place)] if place else None) == value


def test_the_boundary_of_a_form():
    assert boundary_of(b"multipart/form-data; boundary=abc") == b"abc"
    assert boundary_of(b'Multipart/Form-Data; charset=x; boundary="a b"') == b"a b"
    assert boundary_of(b"multipart/form-data") is None
    assert boundary_of(b"application/json; boundary=abc") is None
