"""Which web pages may call the API from a browser, and what the others are told."""

from __future__ import annotations

import httpx
import pytest

from store.errors import ConfigError
from store.settings.config import parse_config
from tests.helpers.serving import CLIENT_KEY, settings
from tests.helpers.teacher_server import completion, stream

ORIGIN = "https://app.example"
KEYS = [{"key": CLIENT_KEY, "name": "app"}]
ASK = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}
PREFLIGHT = {
    "origin": ORIGIN,
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type",
}


def preflight(proxy, path="/v1/chat/completions", **changes):
    return httpx.options(f"{proxy.url}{path}", headers={**PREFLIGHT, **changes})


def ask(proxy, origin=ORIGIN, key=CLIENT_KEY, path="/v1/chat/completions", **body):
    headers = {"authorization": f"Bearer {key}", "origin": origin}
    return httpx.post(f"{proxy.url}{path}", json={**ASK, **body}, headers=headers)


def cors_of(response: httpx.Response) -> list[str]:
    return sorted(name for name in response.headers if name.startswith("access-control-"))


@pytest.mark.parametrize("origin", [ORIGIN, "http://localhost:3000", "null"])
@pytest.mark.slow
def test_by_default_a_preflight_gets_a_no_in_words(origin, start_proxy, teacher):
    for keys in ([], KEYS):
        response = preflight(start_proxy(server={"keys": keys}), origin=origin)
        assert response.status_code == 403
        assert response.json()["error"]["code"] == "foreign_origin"
        assert "server.cors_origins" in response.json()["error"]["message"]
        assert cors_of(response) == []
    assert teacher.requests == []


def test_by_default_no_page_can_read_an_answer(start_proxy, teacher):
    teacher.script(completion("Hi.").with_headers(access_control_allow_origin="*"))
    response = ask(start_proxy(server={"keys": KEYS}))
    assert response.status_code == 200
    assert cors_of(response) == []


@pytest.mark.parametrize("keys", [[], KEYS])
@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/v1/messages", "/v1/files", "/v1/models"]
)
@pytest.mark.slow
def test_a_configured_origins_preflight_is_answered_here(path, keys, start_proxy, teacher):
    proxy = start_proxy(server={"keys": keys, "cors_origins": [ORIGIN]})
    response = preflight(proxy, path)
    assert (response.status_code, response.content) == (204, b"")
    assert response.headers["access-control-allow-origin"] == ORIGIN
    assert "POST" in response.headers["access-control-allow-methods"].split(", ")
    assert response.headers["access-control-allow-headers"] == "authorization,content-type"
    assert int(response.headers["access-control-max-age"]) > 0
    assert "origin" in response.headers["vary"]
    assert "access-control-allow-credentials" not in response.headers
    other = preflight(proxy, path, origin="https://app.example.evil")
    assert (other.status_code, cors_of(other)) == (403, [])
    assert teacher.requests == []


def test_a_page_on_the_internet_may_reach_a_private_address_if_it_is_configured(start_proxy):
    proxy = start_proxy(server={"cors_origins": [ORIGIN]})
    response = preflight(proxy, **{"access-control-request-private-network": "true"})
    assert response.headers["access-control-allow-private-network"] == "true"


def test_header_names_that_are_none_are_not_repeated(start_proxy):
    proxy = start_proxy(server={"cors_origins": [ORIGIN]})
    response = preflight(proxy, **{"access-control-request-headers": "x;y=<z>"})
    assert "access-control-allow-headers" not in response.headers


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/moderations"])
def test_a_configured_page_reads_answers_and_our_headers(path, streamed, start_proxy, teacher):
    proxy = start_proxy(server={"keys": KEYS, "cors_origins": [ORIGIN]})
    reply = (stream("Hi there.") if streamed else completion("Hi.")).with_headers(
        access_control_allow_origin="https://elsewhere.example",
        access_control_expose_headers="x-of-the-teacher",
    )
    teacher.script(reply)
    response = ask(proxy, path=path, stream=streamed)
    assert response.content == b"".join(reply.chunks)
    assert response.headers.get_list("access-control-allow-origin") == [ORIGIN]
    exposed = response.headers["access-control-expose-headers"]
    assert {"*", "x-understudy-route", "x-understudy-reason"} <= set(exposed.split(", "))
    assert "origin" not in teacher.requests[0].headers


def test_a_configured_page_reads_errors(start_proxy):
    proxy = start_proxy(server={"keys": KEYS, "cors_origins": [ORIGIN]})
    for response in (ask(proxy, key="sk-wrong"), ask(proxy, model="none"), ask(proxy, messages=7)):
        assert response.status_code in (400, 401, 404)
        assert response.headers["access-control-allow-origin"] == ORIGIN


def test_any_origin_is_answered_by_its_name(start_proxy):
    proxy = start_proxy(server={"keys": KEYS, "cors_origins": ["*"]})
    assert preflight(proxy, origin="null").headers["access-control-allow-origin"] == "null"
    assert ask(proxy).headers["access-control-allow-origin"] == ORIGIN


def test_without_keys_a_configured_page_may_ask_and_others_may_not(start_proxy, teacher):
    proxy = start_proxy(server={"cors_origins": [ORIGIN]})
    assert ask(proxy).status_code == 200
    assert ask(proxy, "https://other.example").status_code == 403
    assert len(teacher.requests) == 1


def test_the_control_plane_is_no_pages(start_proxy):
    proxy = start_proxy(server={"keys": KEYS, "cors_origins": [ORIGIN]})
    headers = {"authorization": f"Bearer {CLIENT_KEY}", "origin": ORIGIN}
    assert cors_of(httpx.get(f"{proxy.url}/distill/status", headers=headers)) == []
    assert preflight(proxy, "/distill/status").status_code == 403


@pytest.mark.parametrize(
    ("origins", "keys", "says"),
    [
        (["*"], [], "need server.keys"),
        (["https://app.example/"], KEYS, "is no origin"),
        (["app.example"], KEYS, "is no origin"),
        (["https://App.example"], KEYS, "is no origin"),
        (["https://a.example, https://b.example"], KEYS, "is no origin"),
    ],
)
def test_what_is_no_origin_is_refused(origins, keys, says, tmp_path):
    raw = settings("http://127.0.0.1:1/v1", tmp_path)
    with pytest.raises(ConfigError, match="cors_origins") as refused:
        parse_config({**raw, "server": {"keys": keys, "cors_origins": origins}})
    assert says in str(refused.value)
